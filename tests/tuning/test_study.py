"""The study: who takes which trial, and what is left when a process ends in the middle of one. Nothing is trained."""

import json
import socket

import optuna
import pytest
from optuna.trial import TrialState

from distilbert_kd.errors import DivergedError, StorageError
from distilbert_kd.run_folder import RunFolder
from distilbert_kd.run_lock import lock
from distilbert_kd.tuning import study as module
from distilbert_kd.tuning.space import Choices, Range
from distilbert_kd.tuning.study import STUDY, open_study, run_next, take_identity, tried


SPACE = {"x": Range(0.0, 1.0), "n": Range(1, 9, is_whole=True), "layers": Choices(("first", [0, 2]))}
OWN = {"x": 0.5, "n": 3, "layers": [0, 2]}


@pytest.fixture
def folder(tmp_path):
    return RunFolder(tmp_path / "50 % of a? folder #1").make()  # a URL has other ideas of such a name


@pytest.fixture
def study(folder):
    with open_study(folder) as study:
        yield study


def values_of(study):
    return [trial.values for trial in tried(study)]


def run(study, folder, num_trials, objective=lambda trial, values: values["x"], space=SPACE, own=OWN):
    """All trials of one process; how many there were."""
    num_run = 0
    while run_next(study, folder, num_trials, space, own, 7, objective):
        num_run += 1
    return num_run


class TestTrials:
    def test_the_recipe_is_first_and_the_number_is_that_of_all_calls(self, study, folder):
        """Prevents a choice without what it is held against, and a tuning that begins anew with each call."""
        assert run(study, folder, 3) == 3
        assert run(study, folder, 3) == 0
        assert run(study, folder, 5) == 2
        found = tried(study)
        assert [(trial.number, trial.is_recipe) for trial in found] == [(k, k == 0) for k in range(5)]
        assert (found[0].values, found[0].score, found[0].state) == (OWN, 0.5, "complete")
        assert all(trial.values["x"] == trial.score == round(trial.score, 3) for trial in found)
        assert not any(path.name.startswith(".lock") for path in folder.root.iterdir())

    def test_what_is_drawn_depends_on_the_trials_before_alone(self, study, folder, tmp_path):
        """Prevents a study that is gone on with from drawing what it drew already, and figures nobody can repeat."""
        run(study, folder, 7)
        other = RunFolder(tmp_path / "other").make()
        for num_trials in (2, 3, 7):
            with open_study(other) as again:
                run(again, other, num_trials)
        with open_study(other) as again:
            assert values_of(again) == values_of(study)
        assert len({json.dumps(values) for values in values_of(study)}) == 7

    def test_a_value_of_the_recipe_that_cannot_be_drawn(self, study, folder):
        """Prevents a first trial that is not the recipe, where its value is a schedule or out of range."""
        own = {**OWN, "x": {"start": 0.9, "end": 0.1}, "n": 30}
        seen = []
        run(study, folder, 2, lambda trial, values: seen.append(values) or 0.5, own=own)
        assert seen[0] == own
        assert study.trials[0].params == {"layers": "[0, 2]"}
        assert seen[1]["x"] in SPACE["x"] and seen[1]["n"] in SPACE["n"]

    def test_one_that_diverges_is_one_of_them(self, study, folder, caplog):
        """Prevents a tuning that never ends, or ends with the first learning rate that is too high."""

        def objective(trial, values):
            if trial.number == 1:
                raise DivergedError("Expected finite numbers")
            return values["x"]

        assert run(study, folder, 3, objective) == 3
        failed = tried(study)[1]
        assert (failed.state, failed.error, failed.score) == ("failed", "Expected finite numbers", None)
        assert "trial 1 failed: Expected finite numbers" in caplog.text

    def test_one_that_is_pruned_keeps_its_last_score(self, study, folder):
        """Prevents a table in which a pruned trial has no score, or counts as complete."""

        def objective(trial, values):
            if trial.number == 1:
                trial.report(0.25, 2)
                raise optuna.TrialPruned
            return values["x"]

        run(study, folder, 2, objective)
        assert (tried(study)[1].state, tried(study)[1].score) == ("pruned", 0.25)


class TestCutOff:
    def test_ctrl_c_gives_the_trial_back(self, study, folder):
        """Prevents the loss of the recipe's own trial to an impatient user."""

        def interrupted(trial, values):
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            run(study, folder, 2, interrupted)
        assert tried(study) == []
        assert run(study, folder, 2) == 2
        assert [trial.is_recipe for trial in tried(study)] == [True, False]
        assert tried(study)[0].values == OWN

    def test_a_killed_process_leaves_its_trial_to_the_next(self, study, folder, caplog):
        """Prevents N trials of which some are under way for ever, and the loss of values that TPE chose."""
        run(study, folder, 2)
        killed = study.ask()
        params = {name: killed.suggest_float(name, 0.0, 1.0) for name in ("x",)}
        with caplog.at_level("INFO", "distilbert_kd"):
            assert run(study, folder, 3) == 1
        assert [trial.number for trial in tried(study)] == [0, 1, 3]
        assert tried(study)[2].values["x"] == pytest.approx(params["x"], abs=1e-3)
        assert "trial 2 was cut off; it is tried again" in caplog.text

    def test_one_that_is_under_way_elsewhere_is_left_alone(self, study, folder):
        """Prevents a trial from being run twice by two processes; those of another machine can't be looked after."""
        run(study, folder, 1)
        there = study.ask()
        there.set_user_attr("values", OWN)
        place = folder.root / f".lock-trial-{there.number}"
        with lock(place):
            record = json.loads(place.read_text("utf-8"))
        place.write_text(json.dumps({**record, "host": f"not-{socket.gethostname()}"}), "utf-8")
        assert run(study, folder, 3) == 1
        assert [trial.state for trial in tried(study)] == ["complete", "running", "complete"]

    def test_one_that_is_done_the_moment_it_is_looked_at(self, study, folder, monkeypatch):
        """Prevents the end of a process because another one finished its trial between two looks at it."""
        run(study, folder, 1)
        there = study.ask()
        there.set_user_attr("values", OWN)

        def finishing(place):
            study.tell(there.number, 0.9)
            return False

        monkeypatch.setattr(module, "is_locked", finishing)
        assert run(study, folder, 2) == 0
        assert [(trial.state, trial.score) for trial in tried(study)] == [("complete", 0.5), ("complete", 0.9)]

    def test_one_that_kills_its_process_is_not_tried_for_ever(self, study, folder):
        """Prevents a batch that takes all memory from ending every start of the tuning."""
        run(study, folder, 1)
        for _ in range(3):
            study.ask()
            run(study, folder, 1)  # finds it, and has no trial to run
        assert run(study, folder, 3) == 1
        assert [trial.state for trial in study.trials].count(TrialState.WAITING) == 0
        assert [trial.error for trial in tried(study) if trial.state == "failed"] == ["its process was killed 3 times"]


class TestIdentity:
    def test_what_differs_is_named(self, study, folder):
        """Prevents scores of two recipes, or over other rows, in one table."""
        identity = {"recipe": {"seed": 1, "--space a": "0..1"}, "data": {"train": "abc"}, "teacher": ["x", "y"]}
        take_identity(study, identity, folder)
        take_identity(study, identity, folder)
        take_identity(study, {"recipe": identity["recipe"]}, folder)  # what is not known is not compared
        with pytest.raises(StorageError, match=r"other values of --space a, --space b than .*--out"):
            take_identity(study, {"recipe": {"seed": 1, "--space b": "0..1"}}, folder)
        with pytest.raises(StorageError, match="other values of data, seed than"):
            take_identity(study, {**identity, "recipe": {"seed": 2, "--space a": "0..1"}, "data": {}}, folder)

    def test_a_file_that_is_no_study(self, folder):
        """Prevents a traceback of a database for a damaged file, and writing over it."""
        (folder.root / STUDY).write_text("no study")
        with pytest.raises(StorageError, match="Expected a study in .*--out"), open_study(folder):
            pass
        assert (folder.root / STUDY).read_text() == "no study"
