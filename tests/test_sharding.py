"""What knows of shards, on one process; whole sharded runs are in test_sharded_runs."""

import os

import pytest
from accelerate import Accelerator, PartialState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled, set_hf_deepspeed_config

from distilbert_kd.sharding import (
    is_sharded,
    load_whole_models,
    shard_by_layer,
    sharding,
    spread_teacher,
    whole_models,
)
from distilbert_kd.trainer import DistillationTrainer
from tests.tiny import tiny_bert
from tests.training_rows import arguments, collator, pair_rows, quiet


@pytest.mark.parametrize("switch", ["ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED"])
def test_predictions_are_never_sharded(monkeypatch, switch):
    """Under a launcher's switch a prediction would take the model apart for good, or be refused (ZeRO 2)."""
    assert not is_sharded()
    monkeypatch.setenv(switch, "true")
    assert is_sharded()
    with whole_models():
        assert not is_sharded()
    assert os.environ[switch] == "true"


def test_a_sharded_training_leaves_nothing_behind(tmp_path, monkeypatch):
    """Accelerate keeps switch and kind of launch: the next model of the run would be taken for a sharded one."""
    settings = arguments(tmp_path)
    kind = PartialState().distributed_type
    monkeypatch.setattr(settings, "fsdp", True)
    with sharding(settings):
        os.environ["ACCELERATE_USE_FSDP"] = "true"
        PartialState._shared_state["distributed_type"] = DistributedType.FSDP
    assert not is_sharded()
    assert PartialState().distributed_type == kind


def test_arguments_with_zero_3_do_not_shard_what_is_loaded_later():
    """Under a live ZeRO 3 configuration from_pretrained gives empty weights, of which a student would be cut."""

    class Zero3:  # what transformers asks of a live configuration; the real one needs the package
        def is_zero3(self) -> bool:
            return True

    alive = Zero3()
    set_hf_deepspeed_config(alive)
    assert is_deepspeed_zero3_enabled()
    load_whole_models()
    assert not is_deepspeed_zero3_enabled()


def test_each_layer_is_a_unit_of_fsdp(monkeypatch):
    """Accelerate's own units for BERT shard the embeddings twice, which torch refuses."""
    accelerator = Accelerator(cpu=True)
    plugin = FullyShardedDataParallelPlugin(fsdp_version=2, auto_wrap_policy="transformer_based_wrap")
    monkeypatch.setitem(accelerator.state.__dict__, "fsdp_plugin", plugin)
    shard_by_layer(accelerator, tiny_bert(2))
    assert plugin.transformer_cls_names_to_wrap == ["BertLayer"]
    plugin.transformer_cls_names_to_wrap = ["BertEncoder"]
    shard_by_layer(accelerator, tiny_bert(2))
    assert plugin.transformer_cls_names_to_wrap == ["BertEncoder"], "a choice of the launch file's own wins"


def test_a_teacher_is_no_model_of_the_accelerator(tmp_path):
    """Among the accelerator's models it would be saved too, and `evaluate` would leave the student unprepared."""
    student, teacher = tiny_bert(2), tiny_bert(4)
    trainer = DistillationTrainer(
        student, arguments(tmp_path), collator(), train_dataset=pair_rows(8), teacher=teacher
    )
    assert spread_teacher(trainer.accelerator, trainer.args, teacher) is teacher
    quiet(trainer).train()
    assert all(trainer.accelerator.unwrap_model(model) is student for model in trainer.accelerator._models)
    assert trainer.accelerator._models
