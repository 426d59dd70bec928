"""Whole runs: with a head and without, cut off and gone on, on two processes, and the second stage after the first."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForMaskedLM, AutoTokenizer

from distilbert_kd.errors import DataError, RecipeError, StorageError, TeacherError
from distilbert_kd.pretraining import pipeline
from distilbert_kd.pretraining.pipeline import pretrain
from distilbert_kd.pretraining.recipe import load_pretraining_recipe
from distilbert_kd.teacher import load_base
from distilbert_kd.weights import weights_sha256
from tests.pretraining.language_models import tiny_encoder, tiny_masked_lm
from tests.tiny import tiny_tokenizer
from tests.tiny_runs import review_rows


ROOT = Path(__file__).parents[2]
HEADLESS = {"soft_targets": 0, "masked_language_model": 0, "terms": {"hidden_mse": 1.0, "query_relation": 0.5}}


@pytest.fixture(scope="module")
def teachers(tmp_path_factory):
    """A masked language model and an encoder, as folders."""
    folder = tmp_path_factory.mktemp("teachers")
    for name, model in (("mlm", tiny_masked_lm()), ("encoder", tiny_encoder())):
        model.save_pretrained(folder / name)
        tiny_tokenizer(folder / name)
    return folder


def write_recipe(folder, teacher, **sections):
    """A recipe over 48 reviews, in `folder`; the run goes to `run` in it."""
    folder.mkdir(parents=True, exist_ok=True)
    text = folder / "reviews.txt"
    if not text.exists():
        text.write_text("".join(row["text"] + "\n" for row in review_rows(48)), encoding="utf-8")
    recipe = {
        "name": "general",
        "output_dir": str(folder / "run"),
        "text": {
            "files": [str(text)],
            "packing": "sentences",
            "max_length": 32,
            "cache_dir": str(folder / "cache"),
        },
        "teacher": {"model": str(teacher)},
        **sections,
        "training": {
            "per_device_train_batch_size": 8,
            "num_train_epochs": 2,
            "learning_rate": 1.0e-3,
            "use_cpu": True,
            **sections.get("training", {}),
        },
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    return path


def losses(folder):
    history = json.loads((folder / "run" / "history.json").read_text("utf-8"))["student"]
    return [line["loss"] for line in history if "loss" in line]


def test_a_masked_language_model_becomes_a_smaller_one(teachers, tmp_path):
    """Prevents a student that stock transformers can't load, that has learnt nothing, or that has lost its head."""
    results = pretrain(load_pretraining_recipe(write_recipe(tmp_path, teachers / "mlm")))
    student, info = AutoModelForMaskedLM.from_pretrained(tmp_path / "run" / "student", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert student.config.num_hidden_layers == 2
    assert losses(tmp_path)[-1] < 0.9 * losses(tmp_path)[0]
    assert results["steps"] == 12
    assert results["objective"] == {"soft_targets": 5.0, "masked_language_model": 2.0, "hidden_cosine": 1.0}
    assert results["text"]["rows"] == 48
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names == {"recipe.yaml", "environment.json", "history.json", "results.json", "student"}
    assert json.loads((tmp_path / "run" / "results.json").read_text("utf-8")) == results


def test_a_finished_run_is_left_as_it_is(teachers, tmp_path, monkeypatch):
    """Prevents a supervisor from taking a success for a failure, and another recipe from passing as the same."""
    path = write_recipe(tmp_path, teachers / "mlm")
    results = pretrain(load_pretraining_recipe(path))
    monkeypatch.setattr(pipeline, "tokenized_text", lambda *arguments: pytest.fail("text was read"))
    assert pretrain(load_pretraining_recipe(path)) == results
    with pytest.raises(StorageError, match=r"is finished, got other values of objective\.temperature"):
        pretrain(load_pretraining_recipe(path, ["objective.temperature=4"]))


def test_an_encoder_without_a_head_is_distilled_all_the_same(teachers, tmp_path):
    """Prevents sentence encoders from being left out, or from being given a random head to learn from."""
    recipe = load_pretraining_recipe(write_recipe(tmp_path, teachers / "encoder", objective=HEADLESS))
    pretrain(recipe)
    student, info = AutoModel.from_pretrained(tmp_path / "run" / "student", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert losses(tmp_path)[-1] < 0.9 * losses(tmp_path)[0]


def test_the_results_describe_the_folder_also_when_there_were_projections(teachers, tmp_path):
    """Prevents parameters and a hash of weights that nobody is given."""
    narrow = tiny_encoder(hidden_size=16)
    narrow.save_pretrained(tmp_path / "narrow")
    tiny_tokenizer(tmp_path / "narrow")
    student = {"init_from": str(tmp_path / "narrow"), "num_layers": 2}
    path = write_recipe(tmp_path, teachers / "encoder", objective=HEADLESS, student=student)
    results = pretrain(load_pretraining_recipe(path, ["training.max_steps=2"]))
    saved = AutoModel.from_pretrained(tmp_path / "run" / "student")
    assert results["student"]["num_parameters"] == saved.num_parameters()
    assert results["student"]["weights_sha256"] == weights_sha256(saved)


def test_the_environment_names_the_teacher_by_commit_and_weights(teachers, tmp_path, monkeypatch):
    """Prevents a teacher of the Hub whose commit nobody can find out: its config doesn't tell."""
    monkeypatch.setattr(pipeline, "hub_commit", lambda model, revision: f"{Path(model).name} at {revision}")
    path = write_recipe(tmp_path, teachers / "encoder", objective=HEADLESS)
    pretrain(load_pretraining_recipe(path, ["training.max_steps=1"]))
    assert json.loads((tmp_path / "run" / "environment.json").read_text("utf-8"))["teacher"] == {
        "model": str(teachers / "encoder"),
        "revision": None,
        "commit": "encoder at None",
        "weights_sha256": weights_sha256(AutoModel.from_pretrained(teachers / "encoder")),
    }


def test_checkpoints_stay_if_the_recipe_asks_for_them(teachers, tmp_path):
    """Prevents the loss of what was asked for."""
    training = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2}
    pretrain(
        load_pretraining_recipe(write_recipe(tmp_path, teachers / "encoder", objective=HEADLESS, training=training))
    )
    assert {path.name for path in (tmp_path / "run" / "checkpoints" / "student").iterdir()} >= {"checkpoint-2"}


@pytest.mark.parametrize(
    ("override", "error", "message"),
    [
        ("objective.terms={hidden_mse: {weight: 1, layers: [[0, 9]]}}", RecipeError, "terms.hidden_mse.layers"),
        ("training.train_sampling_strategy=batch_rebalance", RecipeError, "random or group_by_length"),
    ],
)
def test_what_can_not_be_is_found_before_the_text_is_read(teachers, tmp_path, monkeypatch, override, error, message):
    """Prevents hours of tokenising before a refusal."""
    monkeypatch.setattr(pipeline, "tokenized_text", lambda *args: pytest.fail("the text was read"))
    path = write_recipe(tmp_path, teachers / "encoder", objective=HEADLESS)
    with pytest.raises(error, match=message):
        pretrain(load_pretraining_recipe(path, [override]))


def test_a_distilbert_of_a_masked_language_model(teachers, tmp_path):
    """Prevents `student.architecture` from being read for tasks alone."""
    path = write_recipe(tmp_path, teachers / "mlm", student={"architecture": "distilbert"}, training={"max_steps": 2})
    pretrain(load_pretraining_recipe(path))
    student = AutoModelForMaskedLM.from_pretrained(tmp_path / "run" / "student")
    assert type(student).__name__ == "DistilBertForMaskedLM"
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "run" / "student")
    assert sorted(tokenizer("a good film")) == ["attention_mask", "input_ids"]  # a DistilBERT takes no token types


@pytest.mark.parametrize("kind", ["mlm", "encoder"])
def test_a_task_can_start_from_the_student(teachers, tmp_path, kind):
    """Prevents a first stage that no second one can follow: each weight of the encoder is the student's."""
    objective = HEADLESS if kind == "encoder" else {}
    path = write_recipe(tmp_path, teachers / kind, objective=objective, training={"max_steps": 2})
    pretrain(load_pretraining_recipe(path))
    folder = tmp_path / "run" / "student"
    model = load_base(str(folder), ["negative", "positive"])
    trained = {name.removeprefix("bert."): weight for name, weight in load_file(folder / "model.safetensors").items()}
    for name, weight in model.bert.state_dict().items():
        if not (kind == "mlm" and name.startswith("pooler.")):  # a masked language model has none
            assert torch.equal(weight, trained[name]), name


def test_a_head_that_is_missing_is_refused(teachers, tmp_path):
    """Prevents learning from the random head that transformers puts where there is none."""
    with pytest.raises(TeacherError, match="objective.soft_targets=0"):
        pretrain(load_pretraining_recipe(write_recipe(tmp_path, teachers / "encoder")))
    assert not (tmp_path / "run").exists()


def test_layers_that_are_not_there_are_found_without_weights(tmp_path):
    """Prevents the download of a large teacher before a wrong depth is named, by a key without its section."""
    tiny_encoder().config.save_pretrained(tmp_path / "teacher")
    recipe = load_pretraining_recipe(write_recipe(tmp_path, tmp_path / "teacher", student={"num_layers": 5}))
    with pytest.raises(RecipeError, match="^student.num_layers: expected 1 to 4, .*, got 5"):
        pretrain(recipe)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("kind", ["mlm", "encoder"])
def test_a_distilbert_of_an_earlier_stage_is_gone_on_with(teachers, tmp_path, kind):
    """Prevents two general stages in a row that fail at the second, because the first made a DistilBERT."""
    objective = HEADLESS if kind == "encoder" else {}
    settings = {"objective": objective, "training": {"max_steps": 1, "learning_rate": 0.0}}
    student = {"architecture": "distilbert"}
    pretrain(load_pretraining_recipe(write_recipe(tmp_path / "1", teachers / kind, student=student, **settings)))
    student |= {"init_from": str(tmp_path / "1" / "run" / "student"), "num_layers": 2, "layers": "first"}
    pretrain(load_pretraining_recipe(write_recipe(tmp_path / "2", teachers / kind, student=student, **settings)))
    first, second = (load_file(tmp_path / stage / "run" / "student" / "model.safetensors") for stage in "12")
    assert first.keys() == second.keys()
    assert all(torch.equal(weight, second[name]) for name, weight in first.items())


def test_rows_longer_than_the_positions_are_refused(teachers, tmp_path):
    """Prevents an index error, or worse on a GPU, after hours of tokenising."""
    recipe = load_pretraining_recipe(write_recipe(tmp_path, teachers / "mlm"), ["text.max_length=65"])
    with pytest.raises(DataError, match="at most 64"):
        pretrain(recipe)


def launch(arguments, num_processes=1, **options):
    torchrun = ["-m", "torch.distributed.run", f"--nproc_per_node={num_processes}"]
    torchrun += ["--rdzv_backend=c10d", "--rdzv_endpoint=localhost:0"]
    return subprocess.Popen(
        [sys.executable, *(torchrun if num_processes > 1 else []), "-m", "distilbert_kd", "pretrain", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


@pytest.mark.slow
def test_a_run_that_is_killed_goes_on_to_the_same_weights(teachers, tmp_path):
    """Prevents a power cut from costing the run, or from making another one of it."""
    settings = {"num_train_epochs": 40, "save_steps": 10, "gradient_accumulation_steps": 2}
    whole = write_recipe(tmp_path / "whole", teachers / "mlm", training=settings)
    pretrain(load_pretraining_recipe(whole))
    path = write_recipe(tmp_path / "killed", teachers / "mlm", training=settings)
    process = launch([str(path)])
    checkpoints = tmp_path / "killed" / "run" / "checkpoints" / "student"
    deadline = time.monotonic() + 240
    while not list(checkpoints.glob("checkpoint-*/COMMIT.json")):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (tmp_path / "killed" / "run" / "results.json").exists()
    results = pretrain(load_pretraining_recipe(path))
    assert 0 < results["resumed_from_step"] < results["steps"] == 120
    weights = [load_file(tmp_path / name / "run" / "student" / "model.safetensors") for name in ("whole", "killed")]
    assert all(torch.equal(weights[1][name], weight) for name, weight in weights[0].items())


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["mlm", "encoder"])
def test_two_processes_make_the_same_student(teachers, tmp_path, kind):
    """Prevents rows read twice, masks of a process's own, and a launch on more processes from being another run."""
    objective = HEADLESS if kind == "encoder" else {}
    training = {"max_steps": 8, "num_train_epochs": 1}
    for name, batch_size in (("one", 8), ("two", 4)):
        path = write_recipe(
            tmp_path / name,
            teachers / kind,
            objective=objective,
            training={**training, "per_device_train_batch_size": batch_size},
        )
        process = launch([str(path)], num_processes=1 if name == "one" else 2)
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, err[-3000:]
        assert out.count("The student is in") == 1
        assert err.count("student: step 8 of 8") == 1
    one, two = (load_file(tmp_path / name / "run" / "student" / "model.safetensors") for name in ("one", "two"))
    for name, weight in one.items():
        if not name.endswith("key.bias"):  # its gradient is rounding errors, of which Adam makes whole steps
            torch.testing.assert_close(two[name], weight, rtol=1e-3, atol=1e-4, msg=name)
