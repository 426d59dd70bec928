"""Runs whose students learn from the teacher's answers on disk."""

import gc
import json
import weakref
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    MPNetConfig,
    MPNetForSequenceClassification,
    PreTrainedTokenizerFast,
)

from distilbert_kd import pipeline, recipe_parts
from distilbert_kd.errors import RecipeError, TeacherError
from distilbert_kd.recipe import load_recipe
from distilbert_kd.student.build import build_student
from distilbert_kd.teacher import load_teacher
from distilbert_kd.training import train_model
from tests.tiny import WORDS
from tests.tiny_runs import save_tiny_base, write_recipe


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return save_tiny_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def teacher(base, tmp_path_factory) -> Path:
    """A teacher that was trained on the task already."""
    recipe = load_recipe(write_recipe(tmp_path_factory.mktemp("first"), base, control=False))
    pipeline.run(recipe)
    return Path(recipe.output_dir) / "teacher"


def recipe_of(folder: Path, teacher: Path, *overrides: str):
    path = write_recipe(folder, teacher)
    cache = f"teacher.cache_dir={folder / 'cache'}"
    return load_recipe(path, ["teacher.finetune=null", cache, *overrides])


def weights(recipe) -> dict[str, torch.Tensor]:
    return load_file(Path(recipe.output_dir) / "student" / "model.safetensors")


def test_the_cached_run_ends_as_the_online_run(teacher, tmp_path):
    """Prevents a faster run with another student."""
    recipes = [recipe_of(tmp_path / name, teacher, f"teacher.cache={name}") for name in ("true", "false")]
    scores = [pipeline.run(recipe)["models"]["student"]["splits"]["validation"]["score"] for recipe in recipes]
    cached, online = map(weights, recipes)
    for name, tensor in cached.items():
        # A key's bias has a gradient of rounding errors only, of which Adam makes whole steps.
        if not name.endswith("key.bias"):
            torch.testing.assert_close(tensor, online[name], rtol=1e-4, atol=1e-5, msg=name)
    assert scores[0] == scores[1]
    assert not (tmp_path / "false" / "cache").exists()


def test_the_cached_and_the_online_student_are_one_to_a_millionth(teacher, tmp_path):
    """Prevents a difference that Adam's noise would hide: under SGD a weight moves as far as its gradient says."""
    sgd = ("training.optim=sgd", "training.learning_rate=0.05", "control=false")
    recipes = [recipe_of(tmp_path / name, teacher, f"teacher.cache={name}", *sgd) for name in ("true", "false")]
    for recipe in recipes:
        pipeline.run(recipe)
    cached, online = map(weights, recipes)
    start = build_student(load_teacher(str(teacher), ["negative", "positive"])).state_dict()
    assert max(float((tensor - start[name]).abs().max()) for name, tensor in cached.items()) > 1e-3
    for name, tensor in cached.items():
        torch.testing.assert_close(tensor, online[name], rtol=1e-6, atol=1e-6, msg=name)


def test_no_teacher_is_in_memory_while_students_train(teacher, tmp_path, monkeypatch):
    """Prevents the memory of two models where one is trained."""
    teachers, seen = [], []
    load = recipe_parts.load_teacher

    def loading(*args, **kwargs):
        model = load(*args, **kwargs)
        teachers.append(weakref.ref(model))
        return model

    def training(what, *args, **kwargs):
        gc.collect()
        seen.append((what, [teacher() for teacher in teachers], kwargs.get("teacher")))
        return train_model(what, *args, **kwargs)

    monkeypatch.setattr(recipe_parts, "load_teacher", loading)
    monkeypatch.setattr(pipeline, "train_model", training)
    pipeline.run(recipe_of(tmp_path, teacher))
    assert seen == [("student", [None], None), ("control", [None], None)]


def test_the_cache_command_leaves_nothing_for_the_run_to_ask(teacher, tmp_path, monkeypatch):
    """Prevents a pass that is made twice."""
    recipe = recipe_of(tmp_path, teacher)
    place = pipeline.fill_cache(recipe)
    assert len([path for path in place.iterdir() if not path.name.startswith(".")]) == 2
    monkeypatch.setattr("distilbert_kd.teacher_cache.predict_logits", lambda *a: pytest.fail("the teacher was asked"))
    pipeline.run(recipe)


@pytest.mark.parametrize("override", ["teacher.finetune={}", "teacher.cache=false"])
def test_the_cache_command_says_what_it_needs(teacher, tmp_path, override):
    """Prevents a cache for a teacher that is yet to be trained, under a key that no run will look for."""
    with pytest.raises(RecipeError, match=override.partition("=")[0]):
        pipeline.fill_cache(recipe_of(tmp_path, teacher, override))


@pytest.fixture(scope="module")
def mpnet(tmp_path_factory) -> Path:
    """A teacher of another architecture, with another tokenizer and vocabulary; its weights are random."""
    folder = tmp_path_factory.mktemp("mpnet")
    tokens = ["<s>", "<pad>", "</s>", "[UNK]", "<mask>", *reversed(WORDS)]
    backend = Tokenizer(models.WordLevel({token: i for i, token in enumerate(tokens)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    special = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "[UNK]"}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, model_max_length=62, model_input_names=["input_ids", "attention_mask"], **special
    )
    tokenizer.save_pretrained(folder)
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    config = MPNetConfig(
        vocab_size=len(tokens), max_position_embeddings=64, pad_token_id=1, initializer_range=0.2,
        id2label={0: "negative", 1: "positive"}, label2id={"negative": 0, "positive": 1}, **shape,
    )  # fmt: skip
    torch.manual_seed(0)
    MPNetForSequenceClassification(config).save_pretrained(folder)
    return folder


def test_a_teacher_with_another_tokenizer_teaches_through_the_cache(mpnet, base, tmp_path):
    """Prevents a teacher that reads the student's tokens, which mean other words to it."""
    settings = (f"student.init_from={base}", "teacher.allow_near_chance=true", "distillation.alpha=1.0")
    settings += ("student.num_layers=2",)  # of the four of `base`; half of the teacher's would be one
    recipe = recipe_of(tmp_path, mpnet, *settings, "training.num_train_epochs=12")
    results = pipeline.run(recipe)
    student = json.loads((tmp_path / "run" / "student" / "config.json").read_text("utf-8"))
    assert (student["model_type"], student["num_hidden_layers"]) == ("bert", 2)
    fidelity = {name: results["models"][name]["splits"]["validation"]["fidelity"] for name in ("student", "control")}
    assert fidelity["student"]["kl_nats"] < fidelity["control"]["kl_nats"]


def test_a_teacher_with_another_tokenizer_is_refused_without_the_cache(mpnet, base, tmp_path):
    """Prevents a teacher that is asked online about tokens that it does not know."""
    settings = (f"student.init_from={base}", "teacher.cache=false", "teacher.allow_near_chance=true")
    with pytest.raises(TeacherError, match="same tokens"):
        pipeline.run(recipe_of(tmp_path, mpnet, *settings))


def test_frozen_embeddings_stay_the_teachers(teacher, tmp_path):
    """Prevents an option that freezes nothing, or the layers too."""
    recipe = recipe_of(tmp_path, teacher, "student.freeze_embeddings=true")
    pipeline.run(recipe)
    theirs, mine = load_file(teacher / "model.safetensors"), weights(recipe)
    frozen = [name for name in mine if name.startswith("bert.embeddings")]
    assert frozen
    assert all(torch.equal(mine[name], theirs[name]) for name in frozen)
    assert not torch.equal(
        mine["bert.encoder.layer.0.output.dense.weight"], theirs["bert.encoder.layer.0.output.dense.weight"]
    )
