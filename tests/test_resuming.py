"""Which folders a run goes on in, from where, and what it refuses."""

import json
import logging
from functools import partial

import pytest

from distilbert_kd import allowed_changes
from distilbert_kd.checkpoints import commit
from distilbert_kd.environment import decisive_versions
from distilbert_kd.errors import RecipeError, StorageError
from distilbert_kd.resuming import Progress, enter_run, flat_recipe, newest_checkpoint
from distilbert_kd.run_folder import RunFolder


RECIPE = {
    "seed": 1,
    "training.learning_rate": 0.1,
    "training.num_train_epochs": 2,
    "data.labels": ["a", "b"],
    "data.label": "y",
}
IDENTITY = {"recipe": RECIPE, "data": {"train": "x"}, "teacher": ["y"], "num_processes": 1}


@pytest.fixture
def begun(tmp_path):
    """A run that was cut off before its first checkpoint."""
    folder = RunFolder(tmp_path / "run")
    enter_run(folder, RECIPE)
    progress = Progress(folder)
    progress.take_identity(IDENTITY, ())
    progress.write()
    return folder


def test_a_recipe_is_compared_without_its_place():
    """Prevents a run from being refused because its folder was moved, or another from passing as the same."""
    flat = flat_recipe("seed: 1\noutput_dir: here\ntraining: {max_steps: 2, optim: sgd}\n")
    assert flat == {"seed": 1, "training.max_steps": 2, "training.optim": "sgd"}


def test_another_place_for_the_answers_is_the_same_recipe():
    """Prevents the way out of a full disk, another teacher.cache_dir, from being refused as another run."""
    assert flat_recipe("teacher: {model: m, cache: true, cache_dir: here}\n") == {
        "teacher.model": "m",
        "teacher.cache": True,
    }


def test_a_folder_is_entered_by_the_same_recipe_alone(begun):
    """Prevents two experiments in one folder, and a finished one from being trained over."""
    enter_run(begun, RECIPE)
    with pytest.raises(StorageError, match="other values of data.labels, seed than") as error:
        enter_run(begun, RECIPE | {"seed": 2, "data.labels": ["b", "a"]})
    assert "--allow-changed data.labels --allow-changed seed" in str(error.value)


def test_a_finished_folder_that_lacks_a_model_is_not_taken_for_a_run(begun):
    """Prevents a run whose student was removed from ending with 0, as if it were whole."""
    for path in (begun.recipe, begun.environment, begun.results):
        path.touch()
    begun.progress.unlink()  # as a run does at its end
    with pytest.raises(StorageError, match="nothing is overwritten"):
        enter_run(begun, RECIPE)


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    """Prevents files of the user's from being mixed with a run's."""
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(StorageError, match="new or empty"):
        enter_run(RunFolder(tmp_path), RECIPE)


@pytest.mark.parametrize("allowed", ["training.num_train_epochs", "training"])
def test_what_is_allowed_may_differ_and_is_said(begun, caplog, allowed):
    """Prevents a longer training from needing a new folder, and a change from going unseen."""
    longer = RECIPE | {"training.num_train_epochs": 3}
    with caplog.at_level(logging.INFO, "distilbert_kd"):
        enter_run(begun, longer, [allowed])
        assert not caplog.text  # what comes after it may refuse
        Progress(begun).take_identity(IDENTITY | {"recipe": longer}, [allowed])
    assert f"going on with the run in {begun.root}, which was cut off" in caplog.text
    assert "with other values of training.num_train_epochs" in caplog.text
    with pytest.raises(StorageError, match="other values of seed than"):
        enter_run(begun, RECIPE | {"training.num_train_epochs": 3, "seed": 2}, [allowed])


def test_other_rows_to_score_are_another_run(begun):
    """Prevents teacher and student of one run from being judged on different samples."""
    with pytest.raises(StorageError, match="other values of data.max_validation_rows than"):
        enter_run(begun, RECIPE | {"data.max_validation_rows": 8})


def test_a_key_is_no_beginning_of_another(begun):
    """Prevents `--allow-changed data.label` from allowing other `data.labels`."""
    with pytest.raises(StorageError, match="other values of data.labels than"):
        enter_run(begun, RECIPE | {"data.labels": ["b", "a"]}, ["data.label"])


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("sed", "seed"),
        ("training.num_train_epoch", "training.num_train_epochs"),
        ("num_process", "num_processes"),
        ("version", "versions"),
    ],
)
@pytest.mark.parametrize("is_begun", [True, False])
def test_a_misspelt_key_is_refused(begun, tmp_path, key, nearest, is_begun):
    """Prevents a slip from allowing nothing without a word; and at the first start, hours before it would matter."""
    folder = begun if is_begun else RunFolder(tmp_path / "new")
    with pytest.raises(RecipeError, match=rf"--allow-changed: .*got '{key}'; did you mean {nearest}\?") as error:
        enter_run(folder, RECIPE, ["training", key])
    assert "num_processes, versions" in str(error.value) and "The recipe has seed, training, data." in str(error.value)


def test_a_key_that_is_like_no_other_is_refused(begun):
    """Prevents a guess from being taken for a key."""
    with pytest.raises(RecipeError, match="got 'everything'\nThe recipe has"):
        enter_run(begun, RECIPE, ["everything"])


@pytest.mark.parametrize("key", ["training.warmup_steps", "teacher.finetune.max_steps", "versions.torch", "data"])
def test_a_key_that_is_not_set_may_be_allowed(begun, key):
    """Prevents one command for all starts from failing because only a later one sets the key."""
    enter_run(begun, RECIPE, [key])


def test_a_key_that_is_set_no_more_may_be_allowed(begun):
    """Prevents a key that was taken out of the recipe, which is a change, from being refused as unknown."""
    shorter = {name: value for name, value in RECIPE.items() if name != "data.label"}
    enter_run(begun, shorter, ["data.label"])


@pytest.fixture
def upgraded(begun, monkeypatch):
    """The run that was begun, after `pip install --upgrade`."""
    versions = decisive_versions() | {"torch": "9.0", "accelerate": "9.1"}
    monkeypatch.setattr(allowed_changes, "decisive_versions", lambda: versions)
    return begun


def test_an_upgrade_is_refused_and_may_be_allowed(upgraded, caplog):
    """Prevents a student of two versions of torch, which no run of either makes, from passing as that of one."""
    torch = decisive_versions()["torch"].replace("+", r"\+")
    named = rf"versions.accelerate \(.*, now 9.1\), versions.torch \({torch}, now 9.0\) than"
    for go_on in (partial(enter_run, upgraded, RECIPE), partial(Progress(upgraded).take_identity, IDENTITY)):
        with pytest.raises(StorageError, match=f"{named}.*with --allow-changed versions$"):
            go_on(())
        with pytest.raises(StorageError, match="other values of versions.torch"):
            go_on(["versions.accelerate"])
        with caplog.at_level(logging.WARNING, "distilbert_kd"):
            go_on(["versions"])
    assert caplog.text.count("with other values of versions.accelerate, versions.torch") == 1


def test_a_checkpoint_of_other_versions_is_refused(upgraded):
    """Prevents an upgrade from being noticed by the run and not by a checkpoint that was copied into it."""
    folder = upgraded.checkpoints / "student"
    place = make_checkpoint(folder, 3, Progress(upgraded).identity)
    now = {**Progress(upgraded).identity, **allowed_changes.versions_now()}
    with pytest.raises(StorageError, match=r"checkpoint-3, got other values of versions.accelerate \("):
        newest_checkpoint(folder, now)
    assert newest_checkpoint(folder, now, ["versions"]) == place


def test_a_run_of_before_versions_were_kept_is_refused_by_name(begun):
    """Prevents a record without versions from passing as one of the same."""
    record = json.loads(begun.progress.read_text("utf-8"))
    record["identity"] = {name: value for name, value in record["identity"].items() if not name.startswith("versions")}
    begun.progress.write_text(json.dumps(record), encoding="utf-8")
    with pytest.raises(StorageError, match=r"versions.torch \(None, now .*--allow-changed versions$"):
        enter_run(begun, RECIPE)


@pytest.mark.parametrize("key", ["learning_rate", "logging_steps", "eval_steps", "save_steps"])
def test_what_a_checkpoint_holds_cannot_be_changed(begun, key):
    """Prevents a new value from being recorded and not used: the states of optimizer and Trainer bring theirs back."""
    changed = RECIPE | {f"training.{key}": 0.2}
    enter_run(begun, changed, ["training"])  # nothing holds it yet
    (begun.checkpoints / "student" / "checkpoint-1").mkdir(parents=True)
    with pytest.raises(RecipeError, match=rf"training\.{key}: expected the value that the run was begun with"):
        enter_run(begun, changed, ["training"])


def make_done(folder, *names):
    """Models that the run has trained."""
    progress = Progress(folder)
    for name in names:
        (folder.root / name).mkdir()
        progress.add_model(name, folder.root / name, 1.0)


FINETUNE = "teacher.finetune.num_train_epochs"


@pytest.mark.parametrize(
    ("done", "key", "holder"),
    [
        (["teacher"], FINETUNE, "teacher"),
        (["teacher"], "seed", "teacher"),
        (["teacher"], "data.max_length", "teacher"),
        (["teacher", "student"], "distillation.temperature", "student"),
        (["teacher", "student"], "student.num_layers", "student"),
        (["teacher", "student"], "augmentation.fraction", "student"),
        (["teacher", "student"], "training.num_train_epochs", "student"),
        (["student"], "objective.temperature", "student"),
        (["student"], "text.max_length", "student"),
    ],
)
def test_what_a_model_was_made_of_cannot_be_changed_when_it_is_done(begun, done, key, holder):
    """Prevents results that say T = 8 of a student that was trained with T = 2, as was asked with --allow-changed."""
    changed = RECIPE | {key: 9}
    enter_run(begun, changed, [key])  # nothing holds it yet
    make_done(begun, *done)
    place = begun.root / holder
    with pytest.raises(RecipeError, match=f"^{key}: expected the value .* the {holder} in {place} is done") as error:
        enter_run(begun, changed, [key])
    assert "output_dir=" in str(error.value)
    assert ("teacher.model=" in str(error.value)) == (holder == "student" and "teacher" in done)
    with pytest.raises(StorageError, match=f"{key} can't be changed any more, the {holder} in .* is done") as error:
        enter_run(begun, changed)
    assert "--allow-changed" not in str(error.value)


@pytest.mark.parametrize(
    ("done", "key"),
    [
        (["teacher"], "training.num_train_epochs"),
        (["teacher"], "distillation.alpha"),
        (["teacher"], "teacher.allow_near_chance"),  # how one goes on with a teacher that was refused
        (["teacher", "student", "control"], "training.per_device_eval_batch_size"),
        (["teacher", "student"], "data.path"),
    ],
)
def test_what_no_model_that_is_done_was_made_of_may_be_changed(begun, done, key):
    """Prevents a run from being lost whose memory ends in the evaluation, or whose data were moved."""
    make_done(begun, *done)
    enter_run(begun, RECIPE | {key: 9}, [key])


@pytest.mark.parametrize(
    ("key", "is_held"),
    [
        ("distillation.temperature", True),
        ("student.layers", True),
        ("seed", True),
        ("training.num_train_epochs", False),
    ],
)
def test_a_checkpoint_holds_all_but_the_arguments_that_are_read_anew(begun, key, is_held):
    """Prevents one training with two temperatures from being recorded as one with the second."""
    (begun.checkpoints / "student" / "checkpoint-1").mkdir(parents=True)
    if not is_held:
        enter_run(begun, RECIPE | {key: 9}, [key])
        return
    with pytest.raises(RecipeError, match=f"^{key}: expected .* the checkpoint of the student in .* holds it"):
        enter_run(begun, RECIPE | {key: 9}, [key])


def test_rows_and_weights_are_held_too(begun):
    """Prevents a teacher of other rows than those that environment.json names."""
    make_done(begun, "teacher")
    for part, named in (("data", "the rows"), ("teacher", "the weights")):
        with pytest.raises(RecipeError, match=f"^{part}: expected {named} that the run was begun with"):
            Progress(begun).take_identity(IDENTITY | {part: "another"}, [part])
    Progress(begun).take_identity(IDENTITY | {"num_processes": 2}, ["num_processes"])


@pytest.mark.parametrize(
    ("changed", "named"),
    [({"data": {"train": "z"}}, "data"), ({"teacher": ["z"]}, "teacher"), ({"num_processes": 2}, "num_processes")],
)
def test_what_a_run_depends_on_is_the_same(begun, changed, named):
    """Prevents a run half on one set of rows, teacher or number of processes, and half on another."""
    with pytest.raises(StorageError, match=f"other values of {named} than"):
        Progress(begun).take_identity(IDENTITY | changed, ())
    Progress(begun).take_identity(IDENTITY | changed, (named,))
    Progress(begun).take_identity(IDENTITY, ())


def test_a_seed_that_changes_the_weights_is_told_apart_from_the_section(begun):
    """Prevents a person who allowed the seed from looking for a change in the section teacher, which has none."""
    other = IDENTITY | {"recipe": RECIPE | {"seed": 2}, "teacher": ["z"]}
    with pytest.raises(StorageError, match="other values of teacher than .*--allow-changed teacher. Here") as error:
        Progress(begun).take_identity(other, ["seed"])
    assert "the weights that teacher and student start from, not the section" in str(error.value)
    assert "the other seed draws those of a new head" in str(error.value)
    Progress(begun).take_identity(other, ["seed", "teacher"])
    with pytest.raises(StorageError, match="not the section") as error:
        Progress(begun).take_identity(IDENTITY | {"teacher": ["z"]}, ())
    assert "the other seed" not in str(error.value)


def make_checkpoint(folder, step, identity):
    place = folder / f"checkpoint-{step}"
    place.mkdir(parents=True)
    commit(place, step=step, best_step=None, is_resumable=True, identity=identity)
    return place


def test_a_checkpoint_of_another_training_is_refused(tmp_path):
    """Prevents a checkpoint that was copied into a run's folder from passing as its own."""
    assert newest_checkpoint(tmp_path, IDENTITY) is None
    place = make_checkpoint(tmp_path, 3, IDENTITY)
    assert newest_checkpoint(tmp_path, IDENTITY) == place
    other = IDENTITY | {"num_processes": 2}
    with pytest.raises(StorageError, match="checkpoint-3, got other values of num_processes"):
        newest_checkpoint(tmp_path, other)
    assert newest_checkpoint(tmp_path, other, ["num_processes"]) == place


class TestModels:
    def done(self, folder):
        written = folder.root / ".partial" / "student"
        written.mkdir(parents=True)
        (written / "model.safetensors").write_text("weights", encoding="utf-8")
        progress = Progress(folder)
        folder.history.write_text(json.dumps({"student": [{"loss": 1.0, "step": 1}]}), encoding="utf-8")
        progress.add_model("student", written, 2.5)
        return written

    def test_is_done_when_its_folder_has_its_name(self, begun):
        """Prevents a kill between record and folder from leaving a run without a model."""
        written = self.done(begun)
        assert not Progress(begun).is_done("student")
        written.rename(begun.student)
        progress = Progress(begun)
        assert progress.is_done("student") and not progress.is_done("control")
        assert progress.models["student"]["seconds"] == 2.5
        assert progress.history_of("student") == [{"loss": 1.0, "step": 1}]
        progress.check_model("student", ())

    def test_another_one_is_refused(self, begun, caplog):
        """Prevents a student from learning from a teacher that was replaced, or lost a bit, since it was trained."""
        self.done(begun).rename(begun.student)
        (begun.student / "model.safetensors").write_text("weightz", encoding="utf-8")
        with (
            caplog.at_level(logging.INFO, "distilbert_kd"),
            pytest.raises(StorageError, match="got another model.safetensors.*--allow-changed student"),
        ):
            Progress(begun).take_identity(IDENTITY, ())
        assert not caplog.text  # no word of going on before all is checked
        Progress(begun).take_identity(IDENTITY, ("student",))


def test_a_record_that_cannot_be_read_is_named(begun):
    """Prevents a traceback of JSON."""
    begun.progress.write_text("{", encoding="utf-8")
    with pytest.raises(StorageError, match=r"progress\.json, got a file that can't be read"):
        enter_run(begun, RECIPE)
