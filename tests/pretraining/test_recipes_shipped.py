"""The recipes in recipes/mlm, and the script that gets their sentences."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from distilbert_kd.pretraining.recipe import PretrainingRecipe, load_pretraining_recipe
from distilbert_kd.recipe import load_recipe
from distilbert_kd.recipe_messages import valid_paths


FOLDER = Path(__file__).parents[2] / "recipes" / "mlm"
RECIPES = sorted(FOLDER.glob("*.yaml"))
SCRIPT = FOLDER / "get_glue_sentences.py"

named = pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)


def load(path):
    return load_recipe(path) if "\ndata:" in path.read_text("utf-8") else load_pretraining_recipe(path)


def test_all_are_there():
    """A deleted recipe would leave the tests below with nothing to check."""
    assert {path.stem for path in RECIPES} == {"distilbert", "minilm", "small", "small_rte"}


@named
def test_loads(path):
    """A recipe that the project ships must be one that the project reads."""
    assert load(path).name == path.stem


@named
def test_header(path):
    """A recipe without command, hardware, sources and expectation can't be repeated or judged."""
    text = path.read_text(encoding="utf-8")
    header = text.split("\n\n")[0]
    assert [word for word in ("What", "Command", "Hardware", "Sources", "Expect") if f"# {word} " not in header] == []
    assert f"recipes/mlm/{path.name}" in header
    assert len(text.splitlines()) <= 55
    if path.name != "small_rte.yaml":
        assert any(words in header for words in ("NOT measured", "Nothing was measured"))
    if path.name in ("small.yaml", "small_rte.yaml"):  # what was measured has its seed, date and machine
        assert all(words in header for words in ("seed 42", "2026-", "AMD EPYC"))


def test_the_paper_recipe_is_the_papers():
    """A number changed by accident would no longer have the source that the header names."""
    recipe = load_pretraining_recipe(FOLDER / "distilbert.yaml")
    objective, training = recipe.objective, recipe.training
    assert (objective.soft_targets, objective.masked_language_model, objective.temperature) == (5.0, 2.0, 2.0)
    assert objective.terms == {"hidden_cosine": 1.0}
    assert (recipe.student.architecture, recipe.student.num_layers) == ("distilbert", 6)
    assert 8 * training["per_device_train_batch_size"] * training["gradient_accumulation_steps"] == 4096


def test_the_second_stage_starts_from_the_first():
    """Prevents two recipes that name two folders."""
    first, second = load_pretraining_recipe(FOLDER / "small.yaml"), load_recipe(FOLDER / "small_rte.yaml")
    assert second.student.init_from == f"{first.output_dir}/student"
    assert second.student.num_layers == first.student.num_layers
    assert second.teacher.model == first.teacher.model


def test_the_document_lists_every_key():
    """A key that the table lacks, or one that no longer exists, would mislead the reader."""
    document = (FOLDER.parents[1] / "docs" / "pretraining.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^\| `([\w.]+)` \|", document.split("## Every key")[1], re.MULTILINE))
    known = {path for path in valid_paths(PretrainingRecipe) if not path.startswith(("student.", "objective.terms."))}
    assert listed == known - {"text", "teacher", "objective"}


@pytest.fixture
def glue(tmp_path):
    """Two tasks of one and two sentences, with one sentence in common, in the layout of glue_data."""
    for task, header, rows, dev in (
        ("SST-2", "sentence\tlabel", ["a good  film \t1", "worst\t0", "a good film\t1"], ["only in dev\t1"]),
        (
            "RTE",
            "index\tsentence1\tsentence2\tlabel",
            ["0\tA dog.\ta good film\tentailment"],
            ["0\tDev.\tDev too.\tentailment"],
        ),
    ):
        (tmp_path / task).mkdir()
        for name, lines in (("train", rows), ("dev", dev)):
            (tmp_path / task / f"{name}.tsv").write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return tmp_path


def test_sentences_are_those_of_the_training_files_once_each(glue, tmp_path):
    """Prevents sentences of a dev file, which would be in the student before it is scored, and sentences twice."""
    spec = importlib.util.spec_from_file_location("get_glue_sentences", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    counts = script.write_sentences(glue, tmp_path / "out")
    lines = (tmp_path / "out" / "sentences.txt").read_text("utf-8").splitlines()
    assert sorted(lines) == ["A dog.", "a good film", "worst"]
    assert counts == {"sst2": 2, "rte": 1}


def test_the_script_says_what_it_needs():
    """Prevents an empty file without a word."""
    environment = {**os.environ, "GLUE_DIR": "", "PYTHONPATH": str(FOLDER.parents[1])}
    done = subprocess.run([sys.executable, SCRIPT], env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    assert "a folder in GLUE_DIR" in done.stdout
