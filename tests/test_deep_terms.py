"""The deeper terms within the objective, and the projections that they may need."""

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

from distilbert_kd.deep_terms import DEEP_TERMS, PROJECTIONS, DeepTerms, Term
from distilbert_kd.errors import RecipeError, TeacherError
from distilbert_kd.losses.hidden_states import hidden_mse
from distilbert_kd.trainer import DistillationTrainer
from tests.tiny import tiny_bert, tiny_tokenizer
from tests.training_rows import ALL_TERMS, arguments, collator, flat_weights, pair_rows, quiet, without_dropout


def trainer_of(folder, terms, teacher=None, student=None, **settings):
    return quiet(
        DistillationTrainer(
            model=student or without_dropout(),
            args=arguments(folder, **settings),
            train_dataset=pair_rows(40),
            data_collator=collator(),
            processing_class=tiny_tokenizer(),
            teacher=teacher or tiny_bert(4, seed=9),
            terms=terms,
        )
    )


def test_a_term_is_the_mean_over_its_pairs_and_the_tokens_of_a_row():
    """Prevents a sum that grows with the number of layers, and a mean in which long rows or padding weigh more."""
    student, teacher = tiny_bert(2, seed=1), tiny_bert(4, seed=9)
    batch = collator()([{k: v for k, v in row.items() if k != "labels"} for row in pair_rows(5)])
    terms = DeepTerms(student, teacher, {"hidden_mse": Term(2.0, layers=[[0, 2], [-1, -1]])})
    with torch.no_grad(), terms.listening():
        s = student(**batch, output_hidden_states=True).hidden_states
        t = teacher(**batch, output_hidden_states=True).hidden_states
        found = terms.row_values(batch["attention_mask"])
    assert terms.weights == {"hidden_mse": 2.0}
    for row in range(5):
        length = int(batch["attention_mask"][row].sum())
        pairs = [(s[1], t[3]), (s[0], t[0])]
        means = [
            hidden_mse(one[row : row + 1, :length], other[row : row + 1, :length], torch.ones(1, length)).mean()
            for one, other in pairs
        ]
        assert found["hidden_mse"][row].item() == pytest.approx(sum(means).item() / 2, rel=1e-5)


def test_the_loss_is_the_weighted_sum_of_what_is_logged(tmp_path):
    """Prevents a term that is logged and not trained, or trained and not logged."""
    trainer = trainer_of(tmp_path, ALL_TERMS, tiny_bert(4, seed=9, hidden_size=64), max_steps=2)
    trainer.train()
    for line in trainer.state.log_history[:2]:
        deep = sum(weight * line[name] for name, weight in ALL_TERMS.items())
        assert all(line[name] > 0 for name in ALL_TERMS)
        assert line["loss"] == pytest.approx(0.5 * line["hard_loss"] + 0.5 * line["soft_loss"] + deep, rel=1e-5)


@pytest.mark.parametrize("name", DEEP_TERMS)
def test_each_term_falls_when_it_is_trained(tmp_path, name):
    """Prevents a term without a gradient, as attentions have it that were asked of sdpa."""
    trainer = trainer_of(tmp_path, {name: 20.0}, num_train_epochs=8, learning_rate=3e-3)
    trainer.train()
    lines = [line[name] for line in trainer.state.log_history if name in line]
    assert lines[-1] < 0.9 * lines[0]


def test_weight_zero_is_as_good_as_no_term(tmp_path):
    """Prevents a term of weight 0 from changing a bit: its draws, its projections, the last layer."""
    teacher = tiny_bert(4, seed=9, hidden_size=64)
    students = []
    for terms in (dict.fromkeys(DEEP_TERMS, 0.0), None):
        trainer = trainer_of(tmp_path, terms, teacher, tiny_bert(2), max_steps=3)
        trainer.train()
        students.append(trainer.model)
    assert torch.equal(flat_weights(students[0]), flat_weights(students[1]))
    assert not hasattr(students[0], PROJECTIONS)


def test_projections_are_trained_kept_in_checkpoints_and_left_out_of_the_model(tmp_path):
    """Prevents a resumed run with new projections, and a student folder that is no stock model."""
    teacher = tiny_bert(4, seed=9, hidden_size=64)
    settings = {"save_strategy": "steps", "save_steps": 2, "max_steps": 4}
    whole = trainer_of(tmp_path / "whole", {"hidden_mse": 1.0}, teacher, **settings)
    projections = whole.deep_terms.projections
    start = {name: weight.clone() for name, weight in projections.state_dict().items()}
    whole.train()
    assert sorted(start) == ["layer_0.weight", "layer_1.weight"]
    assert all(not torch.equal(weight, start[name]) for name, weight in projections.state_dict().items())
    kept = load_file(tmp_path / "whole" / "checkpoint-2" / "model.safetensors")
    assert {f"{PROJECTIONS}.{name}" for name in start} < kept.keys()

    resumed = trainer_of(tmp_path / "resumed", {"hidden_mse": 1.0}, teacher, **settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-2"))
    assert torch.equal(flat_weights(resumed.model), flat_weights(whole.model))
    assert torch.equal(flat_weights(resumed.deep_terms.projections), flat_weights(projections))

    whole.save_model(str(tmp_path / "student"))
    saved = load_file(tmp_path / "student" / "model.safetensors")
    assert not [name for name in saved if PROJECTIONS in name]
    _, loading = AutoModelForSequenceClassification.from_pretrained(tmp_path / "student", output_loading_info=True)
    assert not loading["missing_keys"]
    assert not loading["unexpected_keys"]
    assert not hasattr(whole.model, PROJECTIONS)  # whoever saves or counts the student has a stock one


def test_a_training_that_fails_leaves_a_stock_student(tmp_path, monkeypatch):
    """Prevents a student that a notebook goes on with from keeping weights of a training that never ended."""
    trainer = trainer_of(tmp_path, {"hidden_mse": 1.0}, tiny_bert(4, seed=9, hidden_size=64))
    monkeypatch.setattr(trainer, "training_step", lambda *args, **kwargs: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        trainer.train()
    assert not hasattr(trainer.model, PROJECTIONS)


def test_equal_widths_need_no_projection():
    """Prevents a learned map between states that are comparable as they are."""
    assert DeepTerms(tiny_bert(2), tiny_bert(4), {"hidden_mse": 1.0}).projections is None


@pytest.mark.parametrize(
    ("terms", "error", "message"),
    [
        ({"hidden": 1.0}, RecipeError, "expected names among hidden_cosine"),
        ({"hidden_mse": -1.0}, RecipeError, "hidden_mse: expected a weight, a number of at least 0"),
        ({"hidden_mse": "1"}, RecipeError, "hidden_mse: expected a weight, a number of at least 0, got '1'"),
        (["hidden_mse"], RecipeError, "terms: expected weights by name"),
        ({"hidden_mse": {"weight": 1.0, "layer": "last"}}, RecipeError, "keys among weight, layers, num_relation"),
        ({"hidden_mse": {"layers": "last"}}, RecipeError, "terms.hidden_mse: expected weight, and keys"),
        ({"hidden_mse": Term(1.0, "lst")}, RecipeError, r"terms.hidden_mse.layers: expected one of"),
        ({"hidden_mse": Term(1.0, [[0, 4]])}, RecipeError, "teacher layers, 0 to 3"),
        ({"hidden_mse": Term(1.0, None, 2)}, RecipeError, "num_relation_heads for a relation only"),
        ({"value_relation": Term(1.0, None, 5)}, RecipeError, "divides the width 32"),
        ({"query_relation": Term(1.0, [[-1, -1]])}, TeacherError, "hidden states only"),
    ],
)
def test_terms_that_can_not_be_are_refused(terms, error, message):
    """Prevents a run that fails in its first step, or computes another term than was asked for."""
    with pytest.raises(error, match=message):
        DeepTerms(tiny_bert(2), tiny_bert(4), terms)


def test_the_trainer_takes_terms_as_a_recipe_writes_them(tmp_path):
    """Prevents a TypeError about '<=' for what the table of the recipes shows; and one for a list of names."""
    student, teacher = tiny_bert(2), tiny_bert(4)

    def make(terms):
        return DistillationTrainer(
            model=student, teacher=teacher, args=arguments(tmp_path), train_dataset=pair_rows(8), terms=terms
        ).deep_terms.terms

    as_in_recipes = make({"value_relation": {"weight": 0.5, "layers": [[1, 3]], "num_relation_heads": 4}})
    assert as_in_recipes == make({"value_relation": Term(0.5, [[1, 3]], 4)})
    for wrong in (["hidden_mse"], {"hidden_mse": "1"}):
        with pytest.raises(RecipeError, match="expected .*weight"):
            make(wrong)


def test_an_empty_list_of_layers_is_refused():
    """Prevents a term over no layers from becoming the one over the default ones."""
    with pytest.raises(RecipeError, match="terms.hidden_mse"):
        DeepTerms(tiny_bert(2), tiny_bert(4), {"hidden_mse": Term(1.0, layers=[])})


def test_attention_heads_must_agree():
    """Prevents maps of different heads from being compared; relations are free of them."""
    student, teacher = tiny_bert(2), tiny_bert(4, num_attention_heads=4)
    with pytest.raises(TeacherError, match="as many attention heads"):
        DeepTerms(student, teacher, {"attention_kl": 1.0})
    assert DeepTerms(student, teacher, {"query_relation": 1.0})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"teacher": None, "alpha": 0.0}, "terms without a teacher"),
        ({"args": {"activation_checkpointing": True}}, "terms with gradient_checkpointing"),
        ({"args": {"ddp_find_unused_parameters": True}}, "terms with ddp_find_unused_parameters"),
    ],
)
def test_settings_under_which_a_term_would_vanish_are_refused(tmp_path, change, message):
    """Prevents a term that is silently not trained."""
    parts = {"model": tiny_bert(2), "train_dataset": pair_rows(4), "teacher": tiny_bert(4), **change}
    parts["args"] = arguments(tmp_path, **parts.get("args", {}))
    with pytest.raises(RecipeError, match=message):
        DistillationTrainer(**parts, terms={"hidden_cosine": 1.0})


def test_checkpointing_that_keeps_the_graph_trains_the_same(tmp_path):
    """Prevents the refusal of what works, and terms that a second forward pass in the backward pass would disturb."""
    students = []
    kept = {"activation_checkpointing": True, "activation_checkpointing_kwargs": {"use_reentrant": False}}
    for settings in ({}, kept):
        trainer = trainer_of(tmp_path, ALL_TERMS, max_steps=3, **settings)
        trainer.train()
        students.append(flat_weights(trainer.model))
    assert torch.equal(*students)
