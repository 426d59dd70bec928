"""Options of Trainer, and of ours, that would be accepted and then ignored, or make a term vanish."""

from collections.abc import Mapping, Sequence
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer, TrainingArguments

from distilbert_kd.deep_terms import Term
from distilbert_kd.errors import RecipeError
from distilbert_kd.row_checks import TEACHER_LOGITS, first_row_names


__all__ = ["refuse_ignored_arguments", "refuse_ignored_options"]


def refuse_ignored_arguments(args: TrainingArguments, has_terms: bool) -> None:
    """Training arguments that act only inside the stock loss, or under which a deeper term can't be had.

    Args:
        args: of a training whose loss is a mean over a whole step.
        has_terms: whether anything is read inside the models: deeper terms, or the vocabulary's.

    Raises:
        RecipeError: one of them is set.
    """
    shares: Any = args.accelerator_config  # read from a dictionary or file by now
    checkpointing: Any = args.gradient_checkpointing_kwargs or {}
    _refuse(
        {
            "label_smoothing_factor": (
                args.label_smoothing_factor != 0,
                "soft targets smooth the labels; raise alpha or T",
            ),
            "average_tokens_across_devices": (args.average_tokens_across_devices is False, "leave it at True"),
            "accelerator_config.split_batches": (bool(shares.split_batches), "leave it out"),
            "accelerator_config.dispatch_batches": (bool(shares.dispatch_batches), "leave it out"),
            "accelerator_config.use_seedable_sampler": (
                not shares.use_seedable_sampler and args.world_size > 1,
                "leave it at True: without it each process would draw rows of its own",
            ),
        }
    )
    if not has_terms:
        return
    _refuse(
        {
            "terms with gradient_checkpointing": (
                bool(args.gradient_checkpointing) and checkpointing.get("use_reentrant") is not False,
                "what a layer computes is thrown away there before the terms can use it; set "
                "gradient_checkpointing_kwargs to {use_reentrant: false}",
            ),
            "terms with DataParallel": (args.n_gpu > 1, "start one process for each GPU with `accelerate launch`"),
            "terms with torch_compile": (bool(args.torch_compile), "what they read is not part of the graph"),
            "terms with FSDP or DeepSpeed": (
                bool(args.fsdp or args.deepspeed),
                "layers are taken apart there; train with DDP",
            ),
            "terms with ddp_find_unused_parameters": (
                bool(args.ddp_find_unused_parameters),
                "they use weights outside of what the outputs reach; leave it out",
            ),
        }
    )


def refuse_ignored_options(
    trainer: Trainer,
    teacher: PreTrainedModel | None,
    teacher_labels: Sequence[str] | None,
    teacher_processing_class: PreTrainedTokenizerBase | None,
    terms: Mapping[str, Term],
) -> None:
    """Options that act only inside the stock loss, would make it depend on the processes, or have no counterpart.

    Args:
        trainer: with its arguments.
        teacher: as given to `DistillationTrainer`.
        teacher_labels: as given.
        teacher_processing_class: as given.
        terms: as checked.

    Raises:
        RecipeError: one of them is set.
    """
    has_terms = any(term.weight > 0 for term in terms.values())
    refuse_ignored_arguments(trainer.args, has_terms)
    has_column = TEACHER_LOGITS in first_row_names(trainer.train_dataset)
    _refuse(
        {
            "compute_loss_func": (trainer.compute_loss_func is not None, "override compute_loss instead"),
            "label_names": (
                trainer.args.label_names not in (None, ["labels"]),
                "call the column of the labels 'labels'",
            ),
            f"teacher beside a column {TEACHER_LOGITS!r}": (teacher is not None and has_column, "give one of them"),
            "teacher_labels": (teacher is None and teacher_labels is not None, "there is no teacher to name"),
            "teacher_processing_class": (
                teacher_processing_class is not None and (teacher is None or trainer.processing_class is None),
                "it is compared with processing_class, so give that and a teacher",
            ),
            "terms without a teacher": (
                has_terms and teacher is None,
                "they read the teacher's layers: give teacher=..., logits in a column don't do",
            ),
            "terms with model_init": (
                has_terms and trainer.model_init is not None,
                "they hold to one student; make one Trainer for each trial",
            ),
            "terms with FSDP or DeepSpeed": (
                has_terms and (trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled),
                "layers are taken apart there; train with DDP",
            ),
        }
    )


def _refuse(options: Mapping[str, tuple[bool, str]]) -> None:
    wrong = [f"{name} ({advice})" for name, (is_set, advice) in options.items() if is_set]
    if wrong:
        raise RecipeError(
            f"Expected only options that are acted on here, got {'; '.join(wrong)}. The loss is computed as a mean "
            "over all rows of a step, on all processes."
        )
