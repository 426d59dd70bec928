"""What a run must not go on with: numbers that are not finite, another recipe, another run, rows without sense."""

from tests.reliability import hurts, places
from tests.reliability.faults.fault import Fault
from tests.reliability.hurts import at_step


_NAN = float("nan")
_BROKEN = "numbers that are not finite"
_NOT_FINITE = [
    Fault(
        _BROKEN,
        "NaN in one batch of the student",
        "3",
        "NaN or infinity in .* at step 6, in (all .* )?training rows",
        hurts.broken_loss("student", 6),
        stock="not finite",
    ),
    Fault(
        _BROKEN,
        "NaN in one batch of the teacher",
        "3",
        "NaN or infinity in .* at step 3, in (all .* )?training rows",
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
        "other values of seed than.*seed can't be changed any more, the teacher in .* is done",
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
        "going on with the run in .*, which was cut off",
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

REFUSALS = _NOT_FINITE + _CHANGES + _LOCKED + _BAD_ROWS
