"""Every fault that is tried: how it hurts a run, what the package is to do, and what a stock Trainer is known to do.

A fault is tried in one way (`tests.reliability.trying`): a start that is hurt, then, if it did not end well, the same
command again, as a user, Slurm or torchrun would; then the end is compared with that of a run that nothing happened
to. The package has to end with the same bits, after any fault that somebody mends.
"""

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from signal import SIGINT, SIGTERM

from tests.reliability import hurts, places
from tests.reliability.hurts import Inside, at_call, at_step, told
from tests.reliability.places import Around


@dataclass(frozen=True)
class Fault:
    """One fault.

    Attributes:
        kind: What it is one of; a heading of the table.
        name: What happens, a row of the table.
        end: Of the start that is hurt: exit code, or a negative signal.
        says: What it says, a regular expression.
        inside: Hurts the process from within.
        around: Hurts its files, and mends them afterwards where somebody would.
        begun: Whether a run is hurt that was killed in its student's step 11, after two checkpoints.
        overrides: Of the recipe, in the start that is hurt; for the stock Trainer, the same arguments.
        options: Of the command line.
        processes: That make the run.
        result: "same", as that of the undisturbed run; "different", where that was asked for; "nothing", where
            nothing may be written; "refused", where the same command can't help.
        stock: What the stock Trainer does: "same", "different", "not finite", "stuck" (the same command does not help,
            a person must), "hangs", "refused"; None where the fault has no meaning for it.
        inside_stock: In place of `inside`.
        stock_overrides: Further ones.
        by_default: Whether it is tried in `make test`.
    """

    kind: str
    name: str
    end: str
    says: str = ""
    inside: Inside | None = None
    around: Around = nullcontext
    begun: bool = False
    overrides: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    processes: int = 1
    result: str = "same"
    stock: str | None = None
    inside_stock: Inside | None = None
    stock_overrides: tuple[str, ...] = ()
    by_default: bool = False


TRAINER = "transformers:Trainer"
STATE = "transformers.trainer_callback:TrainerState"


def _killed(kind: str, name: str, inside: Inside, **more: object) -> Fault:
    return Fault(kind, name, "-9", inside=inside, **more)  # type: ignore[arg-type]


_TRAINING = [
    _killed("SIGKILL in a training", "teacher, step 2", at_step("teacher", 2)),
    _killed("SIGKILL in a training", "teacher, step 6", at_step("teacher", 6)),
    _killed("SIGKILL in a training", "student, step 1", at_step("student", 1), stock="same"),
    _killed("SIGKILL in a training", "student, step 7", at_step("student", 7), stock="same"),
    _killed("SIGKILL in a training", "student, step 11", at_step("student", 11), stock="same"),
    _killed("SIGKILL in a training", "student, step 12", at_step("student", 12), stock="same"),
    _killed("SIGKILL in a training", "control, step 6", at_step("control", 6)),
]

_SAVE = "SIGKILL in a save"
_SAVES = [
    _killed(_SAVE, "before the weights", at_call(TRAINER, "save_model", 2, what="student"), stock="same"),
    _killed(
        _SAVE,
        "before the optimizer",
        at_call(TRAINER, "_save_optimizer_and_scheduler", 2, what="student"),
        stock="stuck",
    ),
    _killed(_SAVE, "before the random state", at_call(TRAINER, "_save_rng_state", 2, what="student"), stock="stuck"),
    _killed(_SAVE, "before the Trainer's state", at_call(STATE, "save_to_json", 2, what="student"), stock="stuck"),
    _killed(
        _SAVE,
        "before the commit",
        at_call("distilbert_kd.resumable_trainer", "commit", 2, what="student"),
        by_default=True,
    ),
    _killed(_SAVE, "in the commit", at_call("distilbert_kd.checkpoints", "write_text", 2, what="student")),
    _killed(
        _SAVE,
        "before old ones are removed",
        at_call("distilbert_kd.resumable_trainer", "rotate", 3, what="student"),
        inside_stock=at_call("transformers.trainer", "rotate_checkpoints"),
    ),
    _killed(_SAVE, "while old ones are removed", at_call("distilbert_kd.checkpoints", "_remove", what="student")),
    _killed(_SAVE, "of the teacher, before the commit", at_call("distilbert_kd.resumable_trainer", "commit", 2)),
]

_BETWEEN = "SIGKILL between trainings"
_STAGES = [
    _killed(_BETWEEN, name, inside)
    for name, inside in {
        "the teacher's answers, before they are written": at_call("distilbert_kd.teacher_cache", "_write"),
        "the teacher's answers, before they have their name": at_call("distilbert_kd.teacher_cache", "sync"),
        "the teacher's folder, while it is written": at_call("distilbert_kd.training", "sync", 2),
        "the teacher's folder, before its record": at_call("distilbert_kd.resuming:Progress", "add_model"),
        "the student's folder, before its name": at_call(
            "distilbert_kd.resuming:Progress", "add_model", 2, is_after=True
        ),
        "the student's folder, done": at_call("distilbert_kd.training", "save_model_folder", 2, is_after=True),
        "the control's folder, done": at_call("distilbert_kd.training", "save_model_folder", 3, is_after=True),
        "the evaluation": at_call("distilbert_kd.pipeline", "score_models"),
        "before the results": at_call("distilbert_kd.run_records:RunRecords", "write_results"),
    }.items()
]

_SAVED = "Told to stop after step {} of.*Start the same command again"
_ASKED = "SIGTERM and SIGINT"
_SIGNALS = [
    Fault(
        _ASKED,
        "SIGTERM in the student's step 6",
        "75",
        _SAVED.format(6),
        at_step("student", 6, told(SIGTERM)),
        stock="same",
        by_default=True,
    ),
    Fault(_ASKED, "SIGINT in the teacher's step 3", "75", _SAVED.format(3), at_step("teacher", 3, told(SIGINT))),
    Fault(_ASKED, "SIGTERM in the control's step 4", "75", _SAVED.format(4), at_step("control", 4, told(SIGTERM))),
    Fault(
        _ASKED,
        "two SIGINT at once (terminal and launcher)",
        "75",
        _SAVED.format(6),
        at_step("student", 6, told(SIGINT, 0.0)),
        stock="same",
    ),
    Fault(_ASKED, "a second SIGTERM, 1.5 s later", "-15", "", at_step("student", 6, told(SIGTERM, 1.5)), stock="same"),
    Fault(_ASKED, "a second SIGINT, 1.5 s later", "130", "", at_step("student", 6, told(SIGINT, 1.5)), stock="same"),
    Fault(
        _ASKED,
        "SIGTERM while the teacher answers",
        "-15",
        inside=at_call("distilbert_kd.teacher_cache", "_write", act=told(SIGTERM)),
    ),
    *(
        Fault(
            _ASKED,
            f"SIGTERM of two processes, {skew} s apart",
            "75",
            "Told to stop after step",
            hurts.slow_steps(0.15, at_step("student", 2, hurts.told_later_by_rank(SIGTERM, skew))),
            processes=2,
            inside_stock=hurts.slow_steps(1.5, at_step("student", 2, hurts.told_later_by_rank(SIGTERM, skew))),
            stock="hangs" if skew else "different",
            stock_overrides=("enable_jit_checkpoint=true",),
        )
        for skew in (0.0, 0.3, 1.0)
    ),
]

_STOCK_AND_DAMAGE = {
    **dict.fromkeys(places.DAMAGES, "stuck"),
    **dict.fromkeys(("no optimizer.pt", "no scheduler.pt", "no rng_state.pth"), "different"),
    **dict.fromkeys(("a flipped bit in the weights", "a flipped bit in the optimizer"), "different"),
    **dict.fromkeys(("no record", "half a record"), None),
}
_DAMAGED = [
    Fault(
        "a damaged last checkpoint",
        name,
        "0",
        "is not whole.*set aside",
        around=places.damaged(name),
        begun=True,
        stock=stock,
        by_default=name == "a flipped bit in the optimizer",
    )
    for name, stock in _STOCK_AND_DAMAGE.items()
]

_LOST = "other files of the run"
_FILES = [
    Fault(
        _LOST,
        "a flipped bit in the trained teacher",
        "4",
        "got another model.safetensors",
        around=places.flipped_for_a_while("run/teacher/model.safetensors"),
        begun=True,
    ),
    Fault(
        _LOST,
        "half a progress.json",
        "4",
        "progress.json, got a file that can't be read",
        around=places.cut_for_a_while("run/progress.json"),
        begun=True,
    ),
    Fault(
        _LOST,
        "the folder of the run removed in a training",
        "4",
        "",
        at_step("student", 6, hurts.lose_folder),
        stock="same",
    ),
]

_CACHE = "the cache of the teacher's answers"
_CACHED = [
    Fault(_CACHE, name, "0", "is damaged; it is set aside", around=places.of_cache(hurt), begun=True)
    for name, hurt in {
        "half a shard": lambda folder: places.cut(places.shard(folder)),
        "a flipped bit in a shard": lambda folder: places.flip(places.shard(folder)),
        "no shard": lambda folder: places.shard(folder).unlink(),
        "no manifest": lambda folder: (folder / "manifest.json").unlink(),
        "half a manifest": lambda folder: places.cut(folder / "manifest.json"),
    }.items()
]

_DISK = "the disk"
_CUT = "a file was cut short, as on a full disk or under a limit: .*MB are needed.*MB are free"
_FULL = "the disk is full.*MB are needed.*MB are free"
_DISKS = [
    Fault(
        _DISK,
        "too small for a checkpoint from the start",
        "4",
        _FULL,
        around=places.small_disk("300k"),
        stock="stuck",
    ),
    Fault(
        _DISK,
        "full before a save",
        "4",
        _FULL,
        at_step("student", 6, hurts.fill_disk(8_000)),
        around=places.small_disk(),
        stock="stuck",
    ),
    Fault(
        _DISK,
        "full in the weights file",
        "4",
        _FULL,
        at_call(TRAINER, "save_model", 2, hurts.fill_disk(40_000), what="student"),
        around=places.small_disk(),
        stock="stuck",
    ),
    Fault(
        _DISK,
        "full in the optimizer's file",
        "4",
        _CUT,
        at_call(TRAINER, "_save_optimizer_and_scheduler", 2, hurts.fill_disk(40_000), what="student"),
        around=places.small_disk(),
        stock="stuck",
    ),
    Fault(
        _DISK,
        "full in the model folder",
        "4",
        _FULL,
        at_call("distilbert_kd.training", "save_model_folder", 2, hurts.fill_disk(40_000)),
        around=places.small_disk(),
        inside_stock=at_call(TRAINER, "save_model", 4, hurts.fill_disk(40_000)),
        stock="same",
    ),
    Fault(
        _DISK,
        "full before the results",
        "4",
        _FULL,
        at_call("distilbert_kd.run_records:RunRecords", "write_results", act=hurts.fill_disk(0)),
        around=places.small_disk(),
    ),
    Fault(
        _DISK,
        "a limit on the size of files, in the optimizer's file",
        "4",
        _CUT,
        at_call(TRAINER, "_save_optimizer_and_scheduler", 2, hurts.limit_files(40_000), what="student"),
        stock="stuck",
    ),
    Fault(
        _DISK,
        "turns read-only in a training",
        "4",
        "read-only",
        at_step("student", 6, hurts.make_unwritable),
        around=places.small_disk(later="rw"),
        stock="same",
    ),
    Fault(
        _DISK,
        "read-only from the start",
        "4",
        "read-only",
        around=places.read_only("disk"),
        result="nothing",
        stock="refused",
    ),
    Fault(
        _DISK,
        "a file in the place of the run's folder",
        "4",
        "a file is in the way",
        around=places.in_the_way("run"),
        result="nothing",
        stock="refused",
    ),
    Fault(
        _DISK,
        "no room for the teacher's answers",
        "4",
        f"teacher's logits.*{_FULL}",
        at_call("distilbert_kd.teacher_cache", "_write", act=hurts.fill_cache),
        around=places.small_cache,
    ),
    Fault(
        _DISK,
        "read-only folder for the teacher's answers",
        "4",
        "read-only.*teacher.cache_dir",
        around=places.read_only("cache"),
        result="nothing",
    ),
]

_NAN = float("nan")
_BROKEN = "numbers that are not finite"
_NOT_FINITE = [
    Fault(
        _BROKEN,
        "NaN in one batch of the student",
        "3",
        "NaN or infinity in .* at step 6, in training rows",
        hurts.broken_loss("student", 6),
        stock="not finite",
    ),
    Fault(
        _BROKEN,
        "NaN in one batch of the teacher",
        "3",
        "NaN or infinity in .* at step 3, in training rows",
        hurts.broken_loss("teacher", 3),
    ),
    Fault(
        _BROKEN,
        "an infinite gradient behind a sound loss",
        "3",
        "NaN or infinity in the gradient at step 6",
        hurts.broken_gradient("student", 6),
        stock="not finite",
    ),
    Fault(
        _BROKEN,
        "NaN in one of the teacher's answers",
        "3",
        "finite logits from the teacher.*1 rows .first: 5",
        hurts.broken_answer("distilbert_kd.teacher_cache", "predict_logits", _NAN),
        inside_stock=hurts.broken_answer("tests.reliability.stock", "ask_teacher", _NAN),
        stock="not finite",
    ),
    Fault(
        _BROKEN,
        "infinity in one of the teacher's answers",
        "3",
        "finite logits from the teacher",
        hurts.broken_answer("distilbert_kd.teacher_cache", "predict_logits", float("inf")),
        inside_stock=hurts.broken_answer("tests.reliability.stock", "ask_teacher", float("inf")),
        stock="not finite",
    ),
    Fault(
        _BROKEN,
        "a learning rate of 1e30",
        "3",
        "NaN or infinity",
        overrides=("training.learning_rate=1e30",),
        result="refused",
        stock="not finite",
    ),
]

_CHANGED = "something changed before the start that goes on"
_CHANGES = [
    Fault(
        _CHANGED,
        "another seed",
        "4",
        "other values of seed than.*--allow-changed seed",
        overrides=("seed=7",),
        begun=True,
        stock="different",
    ),
    Fault(
        _CHANGED,
        "the same rows in another order",
        "4",
        "other values of data than",
        around=places.replaced("train.jsonl", places.turn_round),
        begun=True,
        stock="different",
    ),
    Fault(
        _CHANGED,
        "half of the rows lost",
        "4",
        "other values of data",
        around=places.replaced("train.jsonl", places.lose_half),
        begun=True,
        stock="different",
    ),
    Fault(
        _CHANGED,
        "a flipped bit in the model that the teacher starts from",
        "4",
        "other values of teacher than",
        around=places.replaced("base/model.safetensors", places.flip),
        begun=True,
    ),
    Fault(
        _CHANGED,
        "another batch size",
        "4",
        "other values of training.per_device_train_batch_size than",
        overrides=("training.per_device_train_batch_size=4",),
        begun=True,
        stock="different",
    ),
    Fault(
        _CHANGED,
        "more epochs",
        "4",
        "other values of training.num_train_epochs than",
        overrides=("training.num_train_epochs=4",),
        begun=True,
        stock="different",
    ),
    Fault(
        _CHANGED,
        "more epochs, allowed",
        "0",
        "with other values of training.num_train_epochs",
        overrides=("training.num_train_epochs=4",),
        options=("--allow-changed", "training.num_train_epochs"),
        begun=True,
        result="different",
    ),
    Fault(
        _CHANGED,
        "another learning rate, which the checkpoint holds",
        "2",
        "training.learning_rate: expected the value that the run was begun with",
        overrides=("training.learning_rate=0.01",),
        options=("--allow-changed", "training"),
        begun=True,
        stock="same",
    ),
    Fault(
        _CHANGED,
        "two processes in place of one",
        "4",
        "other values of num_processes",
        processes=2,
        begun=True,
        stock="different",
    ),
]

_LOCKS = "one run in one folder"
_LOCKED = [
    Fault(
        _LOCKS,
        "two at the same time",
        "4",
        r"where process \d+ on .* is at work",
        at_step("student", 6, hurts.pause),
        stock="unseen",
    ),
    Fault(
        _LOCKS,
        "a lock of another machine",
        "4",
        "on elsewhere since today is at work",
        around=places.locked_elsewhere,
        begun=True,
    ),
    Fault(
        _LOCKS,
        "a lock of a process whose number is another's now",
        "0",
        "was cut off; this one takes over",
        around=places.lasting(places.stale_lock),
        begun=True,
    ),
]

_ROWS = "rows that can't be used"
_BAD_ROWS = [
    Fault(_ROWS, name, "2", says, around=places.replaced("train.jsonl", change), result="nothing", stock="refused")
    for name, says, change in (
        ("a label that the recipe does not name", "train.jsonl.*line 4", places.other_label),
        ("not UTF-8", "train.jsonl", places.not_utf8),
        ("an empty file", "train.jsonl", lambda path: places.cut(path, 0)),
        ("a line cut in half", "train.jsonl.*line 64", places.cut_last_line),
    )
]

FAULTS: Mapping[str, Fault] = {
    f"{fault.kind}: {fault.name}": fault
    for fault in (
        *(_TRAINING + _SAVES + _STAGES + _SIGNALS + _DAMAGED + _FILES + _CACHED),
        *(_DISKS + _NOT_FINITE + _CHANGES + _LOCKED + _BAD_ROWS),
    )
}

#: The run that is hurt where `Fault.begun` says so.
BEGUN = "SIGKILL in a training: student, step 11"
#: Needs a second run beside it, so it is tried in a way of its own.
TWO_RUNS = "one run in one folder: two at the same time"
