"""Whole runs with a BERT teacher and a DistilBERT student."""

import json
import logging
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DistilBertForSequenceClassification,
    ElectraConfig,
    ElectraModel,
)
from transformers import (
    pipeline as transformers_pipeline,
)

from distilbert_kd import pipeline
from distilbert_kd.errors import TeacherError
from distilbert_kd.finished_run import evaluate_run, predict_with
from distilbert_kd.plan import describe
from distilbert_kd.recipe import load_recipe
from distilbert_kd.student.distilbert import as_distilbert
from distilbert_kd.task_rows import tokenizer_for
from tests.tiny import VOCABULARY, tiny_bert, tiny_tokenizer
from tests.tiny_runs import review_rows, save_tiny_base, write_jsonl, write_recipe


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A finished run whose teacher was trained in it."""
    folder = tmp_path_factory.mktemp("run")
    recipe = write_recipe(folder, save_tiny_base(folder / "base"), student={"architecture": "distilbert"})
    pipeline.run(load_recipe(recipe, [f"teacher.cache_dir={folder / 'cache'}", "training.num_train_epochs=6"]))
    return folder / "run"


def test_the_student_is_a_stock_distilbert_for_plain_transformers(run):
    """Prevents a student that only this package can use: no code of ours takes part below."""
    model = AutoModelForSequenceClassification.from_pretrained(run / "student")
    tokenizer = AutoTokenizer.from_pretrained(run / "student")
    assert type(model) is DistilBertForSequenceClassification
    assert (model.config.n_layers, model.config.id2label) == (2, {0: "negative", 1: "positive"})
    assert set(tokenizer("a good film")) == {"input_ids", "attention_mask"}
    classify = transformers_pipeline("text-classification", model=str(run / "student"), device="cpu")
    said = classify(["a great and clever story", "boring , the worst film"])
    assert [each["label"] for each in said] == ["positive", "negative"]


def test_it_learns(run):
    """Prevents a student that is saved as it started."""
    models = json.loads((run / "results.json").read_text("utf-8"))["models"]
    assert models["student"]["splits"]["validation"]["score"] > 0.8
    assert models["student"]["num_layers"] == 2
    assert models["student"]["num_parameters"] < models["teacher"]["num_parameters"]


def test_evaluate_and_predict_read_the_run_folder(run, tmp_path):
    """Prevents scores and predictions that a second look at the same models doesn't give."""
    again = json.loads(json.dumps(evaluate_run(run)["models"]))
    saved = json.loads((run / "results.json").read_text("utf-8"))["models"]
    for name, model in saved.items():
        assert again[name]["splits"]["validation"]["score"] == model["splits"]["validation"]["score"]
    file = write_jsonl(tmp_path / "texts.jsonl", review_rows(8, seed=5))
    written, num_rows = predict_with(str(run), file, tmp_path / "out.jsonl")
    labels = [json.loads(line)["prediction"] for line in written.read_text("utf-8").splitlines()]
    expected = [row["label"] for row in review_rows(8, seed=5)]
    assert num_rows == 8
    assert sum(one == other for one, other in zip(labels, expected, strict=True)) >= 6


@pytest.fixture(scope="module")
def teacher(tmp_path_factory) -> Path:
    """A classifier that looks at token types."""
    folder = tmp_path_factory.mktemp("teacher")
    teacher = tiny_bert(id2label={0: "negative", 1: "positive"}, label2id={"negative": 0, "positive": 1})
    with torch.no_grad():  # so large that it shows if somebody loses the token types
        teacher.bert.embeddings.token_type_embeddings.weight *= 3
    teacher.save_pretrained(folder)
    tiny_tokenizer(folder)
    return folder


@pytest.fixture
def recipe_of(teacher):
    """A recipe with pairs of texts."""

    def make(folder: Path, *overrides: str):
        path = write_recipe(folder, teacher, student={"architecture": "distilbert"}, control=False)
        pairs = [{**row, "pair": "the film was long"} for row in review_rows(32)]
        for name in ("train", "validation"):
            write_jsonl(folder / f"{name}.jsonl", pairs)
        settings = ("data.text_pair=pair", "teacher.finetune=null", "teacher.allow_near_chance=true")
        return load_recipe(path, [*settings, f"teacher.cache_dir={folder / 'cache'}", *overrides])

    return make


def test_the_cached_run_ends_as_the_online_run(recipe_of, tmp_path, caplog):
    """Prevents a teacher that is starved of its token types by a student that has none, online or on disk."""
    with caplog.at_level(logging.WARNING, logger="distilbert_kd"):
        for cache in ("true", "false"):
            pipeline.run(recipe_of(tmp_path / cache, f"teacher.cache={cache}", "distillation.alpha=1.0"))
    cached, online = (load_file(tmp_path / name / "run/student/model.safetensors") for name in ("true", "false"))
    for name, tensor in cached.items():
        # A key's bias has a gradient of rounding errors only, of which Adam makes whole steps.
        if not name.endswith("k_lin.bias"):
            torch.testing.assert_close(tensor, online[name], rtol=1e-3, atol=1e-4, msg=name)
    warnings = [record.getMessage() for record in caplog.records if "token types" in record.getMessage()]
    assert len(warnings) == 2, "one for each run"


def test_another_origin_and_frozen_embeddings(recipe_of, tmp_path):
    """Prevents a conversion of the teacher where another model was named, or embeddings that move."""
    base = save_tiny_base(tmp_path / "base")
    pipeline.run(recipe_of(tmp_path, f"student.init_from={base}", "student.freeze_embeddings=true"))
    theirs, mine = load_file(base / "model.safetensors"), load_file(tmp_path / "run/student/model.safetensors")
    folded = theirs["embeddings.position_embeddings.weight"] + theirs["embeddings.token_type_embeddings.weight"][0]
    assert torch.equal(mine["distilbert.embeddings.position_embeddings.weight"], folded)
    words = mine["distilbert.embeddings.word_embeddings.weight"]
    assert torch.equal(words, theirs["embeddings.word_embeddings.weight"])


def test_a_teacher_that_is_no_bert_is_refused_before_any_training(tmp_path):
    """Prevents an hour of a teacher's training before the student turns out to be impossible."""
    fields = {"hidden_size": 32, "embedding_size": 32, "num_attention_heads": 2, "intermediate_size": 64}
    ElectraModel(ElectraConfig(vocab_size=len(VOCABULARY), **fields)).save_pretrained(tmp_path / "electra")
    tiny_tokenizer(tmp_path / "electra")
    recipe = write_recipe(tmp_path, tmp_path / "electra", student={"architecture": "distilbert"})
    with pytest.raises(TeacherError, match="or a DistilBERT; got ElectraForSequenceClassification"):
        pipeline.run(load_recipe(recipe))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("kind", ["bert", "distilbert"])
def test_a_second_stage_takes_a_folder_of_either_kind(recipe_of, tmp_path, kind, caplog):
    """Prevents a first stage's DistilBERT that no task can start from, or whose row 0 is folded in twice."""
    bert = tiny_bert(num_layers=2, initializer_range=0.02).bert
    origin = bert if kind == "bert" else as_distilbert(bert)
    origin.save_pretrained(tmp_path / "first")
    tokenizer_for(origin, tiny_tokenizer()).save_pretrained(tmp_path / "first")
    stages = (f"student.init_from={tmp_path / 'first'}", "student.layers=first", "student.freeze_embeddings=true")
    if kind == "distilbert":  # it needs no word for it, and loses the teacher's token types without that word, too
        stages = (*stages, "student.architecture=null")
    assert "no token types: first and second text" in describe(recipe_of(tmp_path, *stages))
    pipeline.run(recipe_of(tmp_path, *stages, "distillation.terms.hidden_cosine=1", "training.num_train_epochs=1"))
    assert [record for record in caplog.records if "no token types" in record.getMessage()]
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "run/student")
    assert type(model) is DistilBertForSequenceClassification
    mine, expected = (each.embeddings.state_dict() for each in (model.distilbert, as_distilbert(bert)))
    assert all(torch.equal(weight, expected[name]) for name, weight in mine.items())
