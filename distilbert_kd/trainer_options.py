"""Options of Trainer, and of ours, that would be accepted and then ignored."""

from collections.abc import Mapping, Sequence

from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer

from distilbert_kd.errors import RecipeError
from distilbert_kd.row_checks import TEACHER_LOGITS, first_row_names


__all__ = ["refuse_ignored_options"]


def refuse_ignored_options(
    trainer: Trainer,
    teacher: PreTrainedModel | None,
    teacher_labels: Sequence[str] | None,
    teacher_processing_class: PreTrainedTokenizerBase | None,
    terms: Mapping | None,
) -> None:
    """Options that act only inside the stock loss, would make it depend on the processes, or have no counterpart.

    Args:
        trainer: with its arguments.
        teacher: as given to `DistillationTrainer`.
        teacher_labels: as given.
        teacher_processing_class: as given.
        terms: as given.

    Raises:
        RecipeError: one of them is set.
    """
    args, accelerator = trainer.args, trainer.accelerator
    has_column = TEACHER_LOGITS in first_row_names(trainer.train_dataset)
    refused = {
        "label_smoothing_factor": (
            args.label_smoothing_factor != 0,
            "soft targets smooth the labels; raise alpha or T",
        ),
        "compute_loss_func": (trainer.compute_loss_func is not None, "override compute_loss instead"),
        "label_names": (args.label_names not in (None, ["labels"]), "call the column of the labels 'labels'"),
        "average_tokens_across_devices": (not args.average_tokens_across_devices, "leave it at True"),
        "accelerator_config.split_batches": (bool(accelerator.split_batches), "leave it out"),
        "accelerator_config.dispatch_batches": (bool(accelerator.dispatch_batches), "leave it out"),
        "accelerator_config.use_seedable_sampler": (
            not accelerator.use_seedable_sampler and accelerator.num_processes > 1,
            "leave it at True: without it each process would draw rows of its own",
        ),
        f"teacher beside a column {TEACHER_LOGITS!r}": (teacher is not None and has_column, "give one of them"),
        "teacher_labels": (teacher is None and teacher_labels is not None, "there is no teacher to name"),
        "teacher_processing_class": (
            teacher_processing_class is not None and (teacher is None or trainer.processing_class is None),
            "it is compared with processing_class, so give that and a teacher",
        ),
        "terms without a teacher": (
            bool(terms) and teacher is None,
            "they read the teacher's layers: give teacher=..., logits in a column don't do",
        ),
        "terms with model_init": (
            bool(terms) and trainer.model_init is not None,
            "they hold to one student; make one Trainer for each trial",
        ),
        "terms with gradient_checkpointing": (
            bool(terms) and args.gradient_checkpointing,
            "what a layer computes is thrown away there before the terms can use it",
        ),
        "terms with DataParallel": (bool(terms) and args.n_gpu > 1, "start one process for each GPU"),
        "terms with torch_compile": (bool(terms) and args.torch_compile, "what they read is not part of the graph"),
    }
    wrong = [f"{name} ({advice})" for name, (is_set, advice) in refused.items() if is_set]
    if wrong:
        raise RecipeError(
            f"Expected only options that DistillationTrainer acts on, got {'; '.join(wrong)}. It computes its own "
            "loss, as a mean over the rows of all processes."
        )
