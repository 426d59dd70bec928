"""The command: tiny models, real trainings, a real study."""

import json
import logging
from pathlib import Path

import optuna
import pytest
from typer.testing import CliRunner

from distilbert_kd import cli, held_out
from distilbert_kd.errors import RecipeError, StorageError
from distilbert_kd.recipe import Augmentation, load_recipe
from distilbert_kd.tuning import report, run
from distilbert_kd.tuning.installed import check_optuna
from distilbert_kd.tuning.report import render_trials
from distilbert_kd.tuning.run import TuningSize, tune
from distilbert_kd.tuning.space import parse_space
from tests.tiny_runs import review_rows, save_tiny_base, write_jsonl, write_recipe


SPACE = ("training.learning_rate=1e-3..1e-2", "training.num_train_epochs=1..2", "student.layers=[alternate, last]")
TRAINING = {"learning_rate": 3e-3, "num_train_epochs": 2, "per_device_train_batch_size": 8, "use_cpu": True}


def command(*arguments: str):
    """The command line in this process, with the logging as it was afterwards."""
    logger = logging.getLogger("distilbert_kd")
    before = logger.handlers, logger.propagate, logger.level
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli, "_quieten_libraries", lambda show_bars: None)
        result = CliRunner().invoke(cli.app, ["tune", *map(str, arguments)])
    logger.handlers, logger.propagate, level = before
    logger.setLevel(level)
    return result


def options(folder: Path, *more: str) -> list[str]:
    """The command's arguments for the recipe in a folder."""
    spaces = [word for text in SPACE for word in ("--space", text)]
    return [str(folder / "recipe.yaml"), f"teacher.cache_dir={folder / 'cache'}", "--held-out", "16", *spaces, *more]


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    """Three trials from a base model on: the teacher is fine-tuned first."""
    folder = tmp_path_factory.mktemp("tuned")
    write_recipe(folder, save_tiny_base(folder / "base"), training=TRAINING)
    return command(*options(folder, "--trials", "3")), folder


@pytest.fixture
def recipe(tuned):
    """Of those trials, with the teacher that they made."""
    overrides = ["teacher.finetune=null", f"teacher.model={tuned[1] / 'run-tune' / 'teacher'}", "teacher.cache=false"]
    return load_recipe(tuned[1] / "recipe.yaml", overrides)


def record_of(folder: Path) -> dict:
    return json.loads((folder / "trials.json").read_text("utf-8"))


def scores_of(folder: Path) -> list[tuple]:
    return [(trial["values"], trial["score"], trial["loss"], trial["state"]) for trial in record_of(folder)["trials"]]


class TestCommand:
    def test_what_it_leaves(self, tuned):
        """Prevents a table that says something else than was tried, and a run folder that is in use."""
        result, folder = tuned
        out = folder / "run-tune"
        assert result.exit_code == 0, result.output
        assert not (folder / "run").exists()
        assert {path.name for path in out.iterdir()} == {
            "best.yaml", "contours.png", "importances.png", "study.db", "teacher", "trials.json", "trials.md"
        }  # fmt: skip
        assert (out / "trials.md").read_text("utf-8") in result.stdout
        record = record_of(out)
        assert record["rows"] == {"train": 48, "held-out": 16}
        own, *others = record["trials"]
        assert own["is_recipe"] and own["values"] == {
            "training.learning_rate": 3e-3, "training.num_train_epochs": 2, "student.layers": "alternate"
        }  # fmt: skip
        assert not any(trial["is_recipe"] for trial in others)
        for trial in record["trials"]:
            assert trial["state"] == "complete" and trial["loss"] > 0 and trial["cpu_seconds"] > 0
            assert trial["num_epochs"] == trial["values"]["training.num_train_epochs"]
            assert 0 <= trial["score"] <= 1 and (trial["score"] * 16).is_integer()
        assert len({trial["loss"] for trial in record["trials"]}) == 3
        for name in ("importances.png", "contours.png"):
            assert (out / name).read_bytes().startswith(b"\x89PNG")

    def test_the_recipe_that_it_leaves_is_one(self, tuned):
        """Prevents a best recipe that `run` doesn't take, or that differs in something nobody tried."""
        folder = tuned[1]
        record = record_of(folder / "run-tune")
        best, given = (
            load_recipe(path, overrides)
            for path, overrides in (
                (folder / "run-tune" / "best.yaml", []),
                (folder / "recipe.yaml", [f"teacher.cache_dir={folder / 'cache'}"]),
            )
        )
        values = record["trials"][record["chosen"]]["values"]
        training = {
            **given.training,
            **{key.split(".")[1]: values[key] for key in values if key.startswith("training")},
        }
        assert best.training == training
        assert best.student.layers == values["student.layers"]
        assert best.output_dir == f"{given.output_dir}-tuned"
        assert (
            best.model_copy(
                update={"training": given.training, "student": given.student, "output_dir": given.output_dir}
            )
            == given
        )
        header = (folder / "run-tune" / "best.yaml").read_text("utf-8").split("\n\n")[0]
        assert all(line.startswith("# ") for line in header.splitlines())
        assert f"trial {record['chosen']} of 3" in header

    def test_it_goes_on_and_writes_again(self, tuned, monkeypatch):
        """Prevents trials, a teacher or its answers from being made twice, and N from being that of a call."""
        folder = tuned[1]
        before = scores_of(folder / "run-tune")
        trained = []
        real = held_out.train_model
        monkeypatch.setattr(
            held_out, "train_model", lambda what, *args, **kw: trained.append(what) or real(what, *args, **kw)
        )
        assert command(*options(folder, "--trials", "4", "--quiet")).exit_code == 0
        assert trained == ["trial 3"]
        assert scores_of(folder / "run-tune")[:3] == before
        (folder / "run-tune" / "trials.md").unlink()
        result = command(*options(folder, "--trials", "0"))
        assert trained == ["trial 3"]
        assert (folder / "run-tune" / "trials.md").read_text("utf-8") in result.stdout
        assert "4 trials" in result.stdout

    def test_another_recipe_space_or_data_is_refused(self, tuned):
        """Prevents trials of two things in one table; the message must say what differs."""
        folder = tuned[1]
        for changed, name in (
            (["distillation.alpha=0.9"], "distillation.alpha"),
            (["--space", "distillation.alpha=0..1"], "--space distillation.alpha"),
            (["--held-out", "12"], "--held-out, data"),
            ([f"data.train={write_jsonl(folder / 'other.jsonl', review_rows(64, seed=3))}"], "data, data.train"),
        ):
            result = command(*options(folder, "--trials", "9", *changed))
            assert result.exit_code == StorageError.exit_code
            assert f"other values of {name} than" in result.output.replace("\n", " ")

    def test_a_folder_with_something_else_in_it(self, tuned, tmp_path):
        """Prevents trials among the files of a run, and tables of nothing."""
        (tmp_path / "notes.txt").touch()
        out = ["--out", str(tmp_path)]
        assert "nothing is overwritten" in command(*options(tuned[1], *out)).output.replace("\n", " ")
        assert "Expected the trials of a tuning" in command(*options(tuned[1], "--trials", "0", *out)).output
        assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]

    def test_without_optuna_a_message_and_no_work(self, tuned, monkeypatch):
        """Prevents an ImportError of a package that nothing else needs."""
        monkeypatch.setattr("distilbert_kd.tuning.installed.find_spec", lambda name: None)
        with pytest.raises(RecipeError, match=r"distilbert-kd\[tune\]"):
            check_optuna()
        assert command(*options(tuned[1])).exit_code == RecipeError.exit_code

    def test_no_trial_begins_after_the_time(self, tuned, recipe, tmp_path):
        """Prevents a job that is killed by its queue; the first trial is the recipe, and always run."""
        space = parse_space(SPACE, recipe)
        text, out = tune(recipe, TuningSize(5, num_rows=16, num_held_out=16, timeout_s=0.0), space, tmp_path / "out")
        assert len(record_of(out)["trials"]) == 1
        assert record_of(out)["rows"]["train"] == 16


class TestRows:
    def test_the_reported_rows_choose_nothing(self, tuned, recipe, tmp_path):
        """Prevents a reported score that was chosen: other rows to report must give the same trials, to the bit."""
        others = [{**row, "label": "positive"} for row in review_rows(30, seed=5)]
        reported = {name: str(write_jsonl(tmp_path / f"{name}.jsonl", others)) for name in ("validation", "test")}
        other = recipe.model_copy(update={"data": recipe.data.model_copy(update=reported)})
        _, out = tune(other, TuningSize(2, num_held_out=16), parse_space(SPACE, other), tmp_path / "out")
        assert scores_of(out) == scores_of(tuned[1] / "run-tune")[:2]

    def test_neither_teacher_nor_student_learns_from_the_rows_that_judge(self, tuned, tmp_path, monkeypatch):
        """Prevents values that are best at learning the judging rows by heart."""
        texts = list(
            {row["text"]: row for row in review_rows(400)}.values()
        )  # each once, to tell them by their tokens
        overrides = [f"data.train={write_jsonl(tmp_path / 'train.jsonl', texts)}", "teacher.finetune={max_steps: 1}"]
        recipe = load_recipe(
            tuned[1] / "recipe.yaml", [*overrides, "teacher.cache=false", "teacher.allow_near_chance=true"]
        )
        learnt, judged = {}, {}
        real = held_out.train_model

        def training(what, reader, *args, **kwargs):
            learnt[what] = {tuple(ids) for ids in reader.rows.train["input_ids"]}
            judged[what] = {tuple(ids) for ids in reader.rows.evaluation["held-out"]["input_ids"]}
            return real(what, reader, *args, **kwargs)

        monkeypatch.setattr(held_out, "train_model", training)
        tune(recipe, TuningSize(1, num_held_out=16), parse_space(["distillation.alpha"], recipe), tmp_path / "out")
        assert learnt.keys() == {"teacher", "trial 0"}
        assert judged["teacher"] == judged["trial 0"] and len(judged["teacher"]) == 16
        assert len(learnt["teacher"]) == len(texts) - 16
        assert not (learnt["teacher"] | learnt["trial 0"]) & judged["teacher"]

    def test_augmented_rows_are_those_of_the_training_rows_alone(self, recipe, tmp_path, monkeypatch):
        """Prevents values for another training than the recipe's, and copies of judging rows among what is learnt."""
        augmented = recipe.model_copy(update={"augmentation": Augmentation(num_copies=1, methods={"deletion": 1.0})})
        seen = {}

        class Stop(Exception):
            pass

        def training(what, reader, *args, **kwargs):
            seen.update(kwargs, train=len(reader.rows.train), judging=len(reader.rows.evaluation["held-out"]))
            raise Stop

        monkeypatch.setattr(held_out, "train_model", training)
        space = parse_space(["distillation.alpha_augmented=0..1"], augmented)
        with pytest.raises(Stop):
            tune(augmented, TuningSize(1, num_rows=16, num_held_out=16), space, tmp_path / "out")
        assert 24 < seen["train"] == len(seen["teacher_logits"]) <= 32  # of a single word nothing can be deleted
        assert seen["judging"] == 16
        assert seen["alpha_augmented"] == 1.0

    def test_other_unlabelled_texts_are_refused(self, recipe, tmp_path, monkeypatch):
        """Prevents trials of two transfer sets in one table: a file of the same name may hold other texts."""
        texts = write_jsonl(tmp_path / "more.jsonl", [{"text": "the plot is good"}])
        section = Augmentation(num_copies=0, transfer_set=str(texts))
        augmented = recipe.model_copy(update={"augmentation": section})
        monkeypatch.setattr(run, "run_next", lambda *args: False)
        monkeypatch.setattr(run, "write_findings", lambda *args: "")
        space = parse_space(["distillation.alpha=0..1"], augmented)

        def again():
            return tune(augmented, TuningSize(1, num_rows=16, num_held_out=16), space, tmp_path / "out")

        again()
        again()
        write_jsonl(texts, [{"text": "the plot is bad"}])
        with pytest.raises(StorageError, match="other values of augmentation than"):
            again()


class TestPruning:
    @pytest.fixture
    def captured(self, recipe, tmp_path, monkeypatch):
        """A study with three good trials, and what runs a trial."""
        caught = {}

        def no_trial(study, folder, num_trials, space, own, seed, objective):
            for _ in range(3):
                values = {1: 0.99, 2: 0.99, 3: 0.99}
                study.add_trial(optuna.create_trial(value=0.99, intermediate_values=values))
            hopeless = study.ask()
            try:
                objective(hopeless, {"training.learning_rate": 1e-9, "training.num_train_epochs": 3})
            except optuna.TrialPruned:
                caught["is_pruned"] = True
            caught["epochs"] = list(study.trials[-1].intermediate_values)
            own_trial = study.ask()
            own_trial.set_user_attr("is_recipe", True)
            objective(own_trial, dict(own))
            caught["own epochs"] = list(study.trials[-1].intermediate_values)
            return False

        monkeypatch.setattr(run, "run_next", no_trial)
        monkeypatch.setattr(run, "write_findings", lambda *findings: "")

        def go(is_pruning):
            slow = recipe.model_copy(update={"training": {**TRAINING, "learning_rate": 1e-9, "num_train_epochs": 3}})
            size = TuningSize(9, num_rows=16, num_held_out=16, is_pruning=is_pruning)
            tune(slow, size, parse_space(["training.num_train_epochs"], slow), tmp_path / "out")
            return caught

        return go

    def test_a_hopeless_trial_ends_and_the_recipe_does_not(self, captured):
        """Prevents whole trainings of values that are no good, and a comparison without the recipe itself."""
        assert captured(True) == {"is_pruned": True, "epochs": [1, 2], "own epochs": [1, 2, 3]}

    def test_not_if_it_is_not_wanted(self, captured):
        """Prevents an option that changes nothing."""
        assert captured(False) == {"epochs": [1, 2, 3], "own epochs": [1, 2, 3]}


class TestLayers:
    def test_equal_ones_are_one_choice_and_other_depths_are_refused(self, recipe, tmp_path):
        """Prevents trials of one student under two names, and a deeper student that wins because it is deeper."""
        seen = {}

        def no_trial(study, folder, num_trials, space, own, seed, objective):
            seen.update(space)
            return False

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(run, "run_next", no_trial)
            asked = parse_space(["student.layers=[alternate, [0, 2], last, [2, 3], [0, 3]]"], recipe)
            tune(recipe, TuningSize(9, num_held_out=16), asked, tmp_path / "out")
        assert seen["student.layers"].values == ("alternate", "last", [0, 3])
        with pytest.raises(RecipeError, match="expected 2 layers"):
            tune(recipe, TuningSize(9), parse_space(["student.layers=[[0, 1, 2]]"], recipe), tmp_path / "deeper")
        with pytest.raises(RecipeError, match="from 0 to 3"):
            tune(recipe, TuningSize(9), parse_space(["student.layers=[[0, 9]]"], recipe), tmp_path / "missing")
        assert not (tmp_path / "deeper").exists() and not (tmp_path / "missing").exists()


class TestReport:
    def test_cells_and_the_reasons_for_the_choice(self, tuned):
        """Prevents a column under another's heading, and a choice whose rule nobody can check."""
        record = {**record_of(tuned[1] / "run-tune"), "space": {"distillation.alpha": "0..1", "student.layers": "[]"}}
        nothing = dict.fromkeys(("loss", "cpu_seconds", "error", "standard_error", "score"))
        values = {"distillation.alpha": 0.5, "student.layers": [0, 2]}
        record["trials"] = [
            {**nothing, "number": 0, "state": "complete", "is_recipe": True, "values": values, "score": 0.8,
             "standard_error": 0.02, "loss": 0.5, "cpu_seconds": 7.4},
            {**nothing, "number": 1, "state": "failed", "is_recipe": False, "values": values, "error": "too hot"},
            {**nothing, "number": 2, "state": "complete", "is_recipe": False, "values": values, "score": 0.81,
             "standard_error": 0.03, "loss": 0.4, "cpu_seconds": 8.6},
        ]  # fmt: skip
        record["chosen"] = 0
        text = render_trials(record)
        lines = text.splitlines()
        assert lines[2].startswith("| trial | alpha | layers | score | standard error | loss | CPU seconds | state |")
        assert lines[4] == r"| 2 | 0.5 | \[0, 2\] | 81.0 | 3.0 | 0.4000 | 9 | complete |"
        assert lines[5] == r"| 0 | 0.5 | \[0, 2\] | 80.0 | 2.0 | 0.5000 | 7 | complete, chosen, the recipe |"
        assert lines[6] == r"| 1 | 0.5 | \[0, 2\] |  |  |  |  | failed |"
        assert "2 of 2 complete trials are within one standard error (3.0) of the best score (81.0, trial 2)" in text
        assert "Trial 1 failed: too hot" in text and "16 CPU seconds" in text

    def test_without_matplotlib_a_line_in_place_of_the_pictures(self, tuned, monkeypatch):
        """Prevents a tuning that fails at its end because of a package that the trials don't need."""
        monkeypatch.setattr(report, "find_spec", lambda name: None)
        result = command(*options(tuned[1], "--trials", "0"))
        assert result.exit_code == 0 and "pip install matplotlib" in result.output
