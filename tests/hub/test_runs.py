"""A push that a recipe asks for: before the training it is checked, after it its failure takes nothing away."""

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from typer.testing import CliRunner

from distilbert_kd import cli, pipeline
from distilbert_kd.errors import HubError, RecipeError, StorageError
from distilbert_kd.hub import push as push_module
from distilbert_kd.latency import measure_latency
from distilbert_kd.recipe import load_recipe
from distilbert_kd.resuming import flat_recipe
from tests.hub.client import ROOT, hub_environment
from tests.hub.loopback import Hub
from tests.tiny import tiny_bert, tiny_tokenizer
from tests.tiny_runs import write_recipe


@pytest.fixture
def recipe_file(tmp_path) -> Path:
    """A run of a second, with a random teacher, that pushes its student."""
    labels = {0: "negative", 1: "positive"}
    teacher = tmp_path / "teacher"
    tiny_bert(2, id2label=labels, label2id={name: place for place, name in labels.items()}).save_pretrained(teacher)
    tiny_tokenizer(teacher)
    return write_recipe(
        tmp_path / "run",
        teacher,
        teacher={"model": str(teacher), "allow_near_chance": True, "cache_dir": str(tmp_path / "cache")},
        training={"num_train_epochs": 1, "per_device_train_batch_size": 32, "use_cpu": True},
        control=False,
        push={"repo": "ada/tiny", "tag": "v1.0"},
    )


@pytest.fixture
def hub_calls(monkeypatch):
    """What is asked of the Hub, in order, in place of asking."""
    calls = []
    monkeypatch.setattr("distilbert_kd.scoring.measure_latency", partial(measure_latency, max_seconds=0.0))
    monkeypatch.setattr(pipeline, "check_before_training", lambda recipe, target: calls.append("check"))
    return calls


def test_refused_before_the_training(recipe_file, hub_calls, monkeypatch):
    """A wrong token costs seconds: no row is read, no model is loaded, and the folder is free for the next try."""

    def refuse(recipe, target):
        raise HubError("Expected a token that the Hub knows.")

    monkeypatch.setattr(pipeline, "check_before_training", refuse)
    monkeypatch.setattr(pipeline, "load_task", lambda *arguments: pytest.fail("rows were read"))
    recipe = load_recipe(recipe_file)
    for _ in range(2):
        with pytest.raises(HubError, match="a token that the Hub knows"):
            pipeline.run(recipe)


@pytest.mark.parametrize(
    ("fault", "exit_code"),
    [
        (HubError("Expected to upload the student, got: connection reset."), 5),
        (StorageError("Expected room in hub, got a full disk."), 4),
        (KeyboardInterrupt(), 130),
    ],
)
def test_failed_push_takes_nothing_away(recipe_file, hub_calls, monkeypatch, fault, exit_code):
    """After hours of training the connection is gone: the table is shown, the folder is whole, the way on is said."""

    def fail(folder, target, has_check):
        hub_calls.append("push")
        assert (folder.root / "results.json").is_file()
        raise fault

    monkeypatch.setattr(push_module, "_push", fail)
    monkeypatch.setattr(cli, "_configure_output", lambda quiet: False)
    result = CliRunner().invoke(cli.app, ["run", str(recipe_file)])
    assert hub_calls == ["check", "push"]
    assert result.exit_code == exit_code and isinstance(result.exception, SystemExit)
    assert "validation, 24 rows" in result.stdout
    run = load_recipe(recipe_file).output_dir
    assert f"The run is whole in {run}. To push it later: distilbert-kd push {run} --repo ada/tiny --tag v1.0" in (
        result.stderr
    )
    assert json.loads((Path(run) / "results.json").read_text())["name"] == "tiny"
    result = CliRunner().invoke(cli.app, ["run", str(recipe_file)])
    assert hub_calls == ["check", "push", "push"]  # started again, only the push is made up for
    assert result.exit_code == exit_code


@pytest.mark.slow
def test_whole_way_from_recipe_to_hub(recipe_file, tmp_path):
    """Nothing in place of anything: run, failed push, the command that the message names, and the model comes back."""
    with Hub() as hub:
        environment = hub_environment(hub.endpoint, tmp_path / "home", HF_TOKEN="hf_write")
        command = partial(subprocess.run, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
        hub.faults["500 at the commit"] = 1
        done = command([sys.executable, "-m", "distilbert_kd", "run", str(recipe_file)])
        assert done.returncode == 5, done.stderr
        assert "validation, 24 rows" in done.stdout and "To push it later: " in done.stderr
        assert hub.repositories["ada/tiny"].messages == ["initial commit"]
        words = done.stderr.rsplit("To push it later: distilbert-kd ", 1)[1].split()
        done = command([sys.executable, "-m", "distilbert_kd", *words])
        assert done.returncode == 0, done.stderr
        assert "Loaded back from ada/tiny at v1.0" in done.stdout
        assert hub.repositories["ada/tiny"].tags.keys() == {"v1.0"}


def test_environment_of_these_tests_has_no_token():
    """A token of the developer must never travel, not even to a Hub on this machine."""
    assert not {name for name in os.environ if name.startswith("HF_") and "TOKEN" in name}


def test_push_may_differ_when_a_run_goes_on(recipe_file):
    """A wrong repository is no reason to train again from the start."""
    recipe = load_recipe(recipe_file)
    other = load_recipe(recipe_file, ["push.repo=ada/other", "push.private=true"])
    assert flat_recipe(recipe.to_yaml()) == flat_recipe(other.to_yaml())
    assert other.push.repo == "ada/other"


def test_push_of_a_recipe_can_be_taken_out(recipe_file):
    """`push=null` runs somebody else's recipe without pushing to their repository."""
    assert load_recipe(recipe_file, ["push=null"]).push is None


def test_errors_of_push_come_with_those_of_other_sections(recipe_file):
    """One message names every error of a recipe."""
    with pytest.raises(RecipeError) as caught:
        load_recipe(recipe_file, ["push.repo=nope", "push.privat=true", "distillation.alpha=7"])
    for line in ("push.repo: expected owner/name", "did you mean push.private?", "distillation.alpha: expected"):
        assert line in str(caught.value)
