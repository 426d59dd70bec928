"""Which folders a run goes on in, and from where."""

import json

import pytest

from distilbert_kd.errors import StorageError
from distilbert_kd.pretraining.resuming import check_same_text, enter_run, newest_checkpoint
from distilbert_kd.run_folder import RunFolder


def checkpoint(folder, step, num_processes=1, without=()):
    """A checkpoint as Trainer leaves it, with empty files."""
    place = folder / f"checkpoint-{step}"
    place.mkdir(parents=True)
    states = ["rng_state.pth"] if num_processes == 1 else [f"rng_state_{i}.pth" for i in range(num_processes)]
    for name in {"trainer_state.json", "optimizer.pt", "scheduler.pt", *states} - set(without):
        (place / name).touch()
    return place


def test_the_last_whole_checkpoint_is_taken(tmp_path):
    """Prevents a run from starting anew, or from a checkpoint that was being written when it was cut off."""
    assert newest_checkpoint(tmp_path, 1) is None
    checkpoint(tmp_path, 9)
    expected = checkpoint(tmp_path, 10)
    checkpoint(tmp_path, 100, without=("trainer_state.json",))
    assert newest_checkpoint(tmp_path, 1) == expected


def test_another_number_of_processes_is_refused(tmp_path):
    """Prevents steps of another size, and processes without a random state, from passing as the same run."""
    checkpoint(tmp_path, 10, num_processes=2)
    assert newest_checkpoint(tmp_path, 2) is not None
    with pytest.raises(StorageError, match="checkpoints of 1 processes"):
        newest_checkpoint(tmp_path, 1)


def test_a_folder_is_entered_by_the_same_recipe_alone(tmp_path):
    """Prevents two experiments in one folder, and a finished one from being trained over."""
    folder = RunFolder(tmp_path / "run")
    enter_run(folder, "seed: 1\n")
    folder.recipe.write_text("seed: 1\noutput_dir: here\ntraining: {max_steps: 2}\n", encoding="utf-8")
    enter_run(folder, "seed: 1\noutput_dir: there\ntraining: {max_steps: 2}\n")
    with pytest.raises(StorageError, match="other values of seed, training.max_steps"):
        enter_run(folder, "seed: 2\n")
    folder.results.touch()
    with pytest.raises(StorageError, match="one that is done"):
        enter_run(folder, "seed: 1\ntraining: {max_steps: 2}\n")


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    """Prevents files of the user's from being mixed with a run's."""
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(StorageError, match="new or empty"):
        enter_run(RunFolder(tmp_path), "seed: 1\n")


def test_other_text_is_refused(tmp_path):
    """Prevents rows that have moved from being trained on twice, or not at all."""
    folder = RunFolder(tmp_path)
    check_same_text(folder, "a")
    folder.environment.write_text(json.dumps({"text": {"key": "a"}}), encoding="utf-8")
    check_same_text(folder, "a")
    with pytest.raises(StorageError, match="have changed since"):
        check_same_text(folder, "b")
