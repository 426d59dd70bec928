"""Which checkpoint a training goes on from, after each damage that ends a stock Trainer or misleads it."""

import json
import logging
import shutil
from collections import namedtuple
from contextlib import nullcontext

import pytest

from distilbert_kd import DistillationTrainer, storage
from distilbert_kd.checkpoints import (
    check_space,
    commit,
    damage_of,
    newest_whole,
    read_commit,
    rotate,
    size_of_next,
)
from distilbert_kd.errors import StorageError
from tests.reliability.places import DAMAGES, flip
from tests.tiny import tiny_bert
from tests.training_rows import arguments, collator, pair_rows, quiet


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of a training of two epochs, with a checkpoint of each: steps 2 and 4."""
    folder = tmp_path_factory.mktemp("trained")
    trainer_in(folder, save_strategy="epoch").train()
    return folder


def trainer_in(folder, **settings):
    return quiet(
        DistillationTrainer(
            model=tiny_bert(1),
            args=arguments(folder, 8, **settings),
            train_dataset=pair_rows(16),
            data_collator=collator(),
            alpha=0.0,
        )
    )


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_set_aside(trained, tmp_path, caplog, damage):
    """Prevents a resume that dies until a person deletes a folder, or one that runs on to another result unseen."""
    folder = tmp_path / "run"
    shutil.copytree(trained, folder)
    DAMAGES[damage](folder / "checkpoint-4")
    with caplog.at_level(logging.WARNING, "distilbert_kd"):
        found = newest_whole(folder)
    is_beside = damage == "an empty checkpoint-99999"
    assert found == folder / ("checkpoint-4" if is_beside else "checkpoint-2")
    (line,) = caplog.messages
    moved = "checkpoint-99999" if is_beside else "checkpoint-4"
    assert f"The checkpoint {moved} is not whole" in line and "set aside" in line
    assert not (folder / moved).exists() and (folder / "torn" / moved).is_dir()


def test_a_whole_checkpoint_is_taken_as_it_is(trained, caplog):
    """Prevents a check that finds fault with everything."""
    assert damage_of(trained / "checkpoint-4") is None
    assert newest_whole(trained) == trained / "checkpoint-4"
    assert caplog.messages == [] and not (trained / "torn").exists()
    record = read_commit(trained / "checkpoint-4")
    assert (record["step"], record["is_resumable"], record["best_step"]) == (4, True, None)
    assert {"model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"} <= set(
        record["files"]
    )


def test_nothing_is_found_in_nothing(tmp_path):
    """Prevents a first start from failing where a later one would go on."""
    assert newest_whole(tmp_path) is None
    assert newest_whole(tmp_path / "none") is None


def make(folder, step, **record):
    place = folder / f"checkpoint-{step}"
    place.mkdir(parents=True)
    (place / "weights").write_text(str(step), encoding="utf-8")
    if record.pop("is_committed", True):
        commit(place, **{"step": step, "best_step": None, "is_resumable": True, **record})
    return place


def test_steps_are_numbers(tmp_path):
    """Prevents step 9 from being newer than step 10, as text is sorted."""
    make(tmp_path, 9)
    newest = make(tmp_path, 10)
    assert newest_whole(tmp_path) == newest


def test_a_training_needs_its_best_checkpoint_too(tmp_path):
    """Prevents the last epoch's weights in place of the best one's, which a stock Trainer only warns of."""
    first = make(tmp_path, 1, best_step=1)
    make(tmp_path, 2, best_step=2)
    make(tmp_path, 3, best_step=2)
    flip(tmp_path / "checkpoint-2" / "weights")
    assert newest_whole(tmp_path) == first
    assert {path.name for path in (tmp_path / "torn").iterdir()} == {"checkpoint-2", "checkpoint-3"}


def test_few_torn_checkpoints_are_kept(tmp_path):
    """Prevents a run that is killed in each save from filling the disk with what nobody reads."""
    for step in range(1, 7):
        make(tmp_path, step, is_committed=False)
        assert newest_whole(tmp_path) is None
    assert len(list((tmp_path / "torn").iterdir())) == 3


def test_weights_without_an_optimizer_are_passed_over_and_kept(tmp_path):
    """Prevents a training that goes on with the moments of its optimizer at zero."""
    first = make(tmp_path, 1)
    second = make(tmp_path, 2, is_resumable=False)
    assert newest_whole(tmp_path) == first
    assert second.is_dir()


def test_the_last_committed_checkpoint_outlives_a_torn_one(tmp_path):
    """Prevents a limit of one from removing the last good checkpoint while the next one is being written."""
    first = make(tmp_path, 1)
    second = make(tmp_path, 2, is_committed=False)
    rotate(tmp_path, 1, None)
    assert first.is_dir() and not second.exists()


def test_the_best_and_the_last_checkpoint_stay(tmp_path):
    """Prevents the best epoch from being lost to a limit."""
    places = [make(tmp_path, step) for step in (1, 2, 3, 4)]
    rotate(tmp_path, 1, places[1])
    assert [place.is_dir() for place in places] == [False, True, False, True]
    rotate(tmp_path, None, None)
    assert places[1].is_dir()


@pytest.mark.parametrize(("num_bytes", "free", "is_enough"), [(500, 999, True), (1001, 999, False), (0, 3, False)])
def test_room_is_looked_for_before_a_save(tmp_path, monkeypatch, num_bytes, free, is_enough):
    """Prevents a torn checkpoint, and hours of training, for want of a few megabytes."""
    usage = namedtuple("usage", "free")
    if num_bytes == 0:  # then the last one tells
        make(tmp_path, 12345)
    monkeypatch.setattr(storage.shutil, "disk_usage", lambda place: usage(free))
    refused = pytest.raises(StorageError, match=f"{tmp_path}, got: the disk is full: .*MB are needed")
    with nullcontext() if is_enough else refused:
        check_space(tmp_path, size_of_next(tmp_path, num_bytes))


def test_a_damaged_checkpoint_that_is_named_is_refused(trained, tmp_path):
    """Prevents another result from a checkpoint that was given by hand."""
    shutil.copytree(trained / "checkpoint-4", tmp_path / "checkpoint-4")
    (tmp_path / "checkpoint-4" / "scheduler.pt").unlink()
    trainer = trainer_in(tmp_path)
    with pytest.raises(StorageError, match="scheduler.pt is missing"):
        trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))


def test_true_means_the_last_whole_one(trained, tmp_path):
    """Prevents `resume_from_checkpoint=True` from taking the highest number, half written or not."""
    folder = tmp_path / "run"
    shutil.copytree(trained, folder)
    (folder / "checkpoint-9").mkdir()
    trainer = trainer_in(folder)
    trainer.train(resume_from_checkpoint=True)
    assert trainer.state.global_step == 4
    assert json.loads((folder / "checkpoint-4" / "trainer_state.json").read_text("utf-8"))["global_step"] == 4
