"""Kills in each place where one could hurt, and signals that ask a run to stop."""

from signal import SIGINT, SIGTERM

from tests.reliability import hurts
from tests.reliability.faults.fault import TRAINER, Fault
from tests.reliability.hurts import Inside, at_call, at_step, told


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
_IN_REMOVAL = at_call("os", "unlink", is_after=True, what="optimizer.pt")
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
        inside_stock=at_call("transformers.trainer", "rotate_checkpoints", 3),
        stock="same",
    ),
    _killed(
        _SAVE,
        "while old ones are removed",
        at_call("distilbert_kd.checkpoints", "_remove", act=_IN_REMOVAL, what="student"),
        inside_stock=_IN_REMOVAL,
        stock="same",
    ),
    _killed(_SAVE, "of the teacher, before the commit", at_call("distilbert_kd.resumable_trainer", "commit", 2)),
]

_BETWEEN = "SIGKILL between trainings"
_STAGES = [
    _killed(_BETWEEN, name, inside)
    for name, inside in {
        "the teacher's answers, before they are written": at_call("distilbert_kd.teacher_cache", "_write"),
        "the teacher's answers, before they have their name": at_call("distilbert_kd.dataset_cache", "sync"),
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

SIGNALS = _TRAINING + _SAVES + _STAGES + _SIGNALS
