"""What of a run may not change any more, even if it is allowed: what a model that is done, or a checkpoint, holds.

The rule: a model that is done holds all that it was made of, a checkpoint too, but for the training arguments that a
Trainer reads anew (more epochs, another batch size). Another value would be recorded, and not be what was used.
"""

from collections.abc import Callable, Collection

from distilbert_kd.run_folder import RunFolder


__all__ = ["holder_of", "is_within"]

_LESSONS = ("seed", "data", "text", "teacher")

#: What each model is made of: keys and sections of the recipe, and parts of the run's identity.
_MADE_OF = {
    "teacher": _LESSONS,
    "student": (*_LESSONS, "augmentation", "student", "distillation", "objective", "training"),
    "control": (*_LESSONS, "augmentation", "student", "training"),
}

#: Of these, what makes no model: where something is whose content is compared itself, and how a teacher is asked.
_FREE = frozenset(
    ("data.path", "data.dataset", "data.revision", "data.train", "data.validation", "data.test", "text.files")
    + ("teacher.model", "teacher.revision", "teacher.cache", "teacher.allow_near_chance")
    + ("student.init_from", "augmentation.masked_lm", "augmentation.transfer_set")
)

#: Training arguments that change nothing in a model: a smaller batch for the evaluation, another machine.
_FREE_ARGUMENTS = frozenset(("per_device_eval_batch_size", "dataloader_num_workers", "use_cpu"))

#: Training arguments that a checkpoint's optimizer, schedule and Trainer state hold.
_HELD_ARGUMENTS = frozenset(
    ("learning_rate", "weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon", "optim", "optim_args")
    + ("lr_scheduler_type", "lr_scheduler_kwargs", "logging_steps", "eval_steps", "save_steps")
)


def holder_of(name: str, folder: RunFolder, is_done: Callable[[str], bool]) -> str | None:
    """What holds a value of a run that was begun.

    Args:
        name: of a key, or of a part of the identity.
        folder: of the run.
        is_done: whether a model is.

    Returns:
        It, and what to do, for a message; None where the value may be changed.
    """
    arguments, _, key = name.rpartition(".")
    if name in _FREE or (arguments in ("training", "teacher.finetune") and key in _FREE_ARGUMENTS):
        return None
    for model, made_of in _MADE_OF.items():
        if not is_within(name, made_of):
            continue
        way = "Choose another folder with output_dir=..."
        if model != "teacher" and is_done("teacher"):
            way += f", for the same teacher with teacher.model={folder.teacher} teacher.finetune=null"
        if is_done(model):
            return f"the {model} in {folder.root / model} is done. {way}"
        is_own = arguments == ("teacher.finetune" if model == "teacher" else "training")
        checkpoints = folder.checkpoints / model
        if (not is_own or key in _HELD_ARGUMENTS) and any(checkpoints.glob("checkpoint-*")):
            return f"the checkpoint of the {model} in {checkpoints} holds it. {way}"
    return None


def is_within(name: str, names: Collection[str]) -> bool:
    """Whether a key is one of these, or in a section that is."""
    return any(name == each or name.startswith(f"{each}.") for each in names)
