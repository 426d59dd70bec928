"""A task-agnostic distillation from recipe to run folder: the order of the stages."""

import json
import logging
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from accelerate import PartialState
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PrinterCallback, TrainingArguments

from distilbert_kd.compatibility import check_same_tokenizer, tokenizer_sha256
from distilbert_kd.deep_terms import DeepTerms
from distilbert_kd.environment import describe_environment
from distilbert_kd.errors import DataError, RecipeError, TeacherError
from distilbert_kd.hardware import describe_device
from distilbert_kd.prepared_arguments import new_trainer, training_arguments
from distilbert_kd.pretraining.models import load_language_model
from distilbert_kd.pretraining.recipe import PretrainingRecipe
from distilbert_kd.pretraining.text import DEFAULT_CACHE_DIR, HubSource, TextSource, TokenizedText, tokenized_text
from distilbert_kd.pretraining.trainer import PretrainingTrainer, check_arguments, check_vocabularies
from distilbert_kd.processes import failing_together
from distilbert_kd.progress import ProgressLines
from distilbert_kd.recipe_parts import as_terms, check_layers, layers_of
from distilbert_kd.resuming import Continuation, Progress, enter_run, flat_recipe, newest_checkpoint
from distilbert_kd.run_folder import RunFolder, read_record
from distilbert_kd.run_lock import locked
from distilbert_kd.run_records import RunRecords
from distilbert_kd.sharding import is_sharded, take_up
from distilbert_kd.storage import storage_errors, write_text
from distilbert_kd.student.build import build_student, freeze_embeddings
from distilbert_kd.task_rows import max_length_of, tokenizer_for
from distilbert_kd.teacher import hub_commit, load_tokenizer
from distilbert_kd.teacher_cache import precision_of
from distilbert_kd.training import obeying_signals, run_training, save_model_folder, take_back
from distilbert_kd.weights import weights_sha256


__all__ = ["arguments_of", "check_lengths", "pretrain", "source_of"]

logger = logging.getLogger(__name__)

#: What a recipe leaves open: DistilBERT's own numbers (train.py of its code), and checkpoints to go on from.
_DEFAULTS: dict[str, Any] = {
    "learning_rate": 5.0e-4,
    "adam_beta1": 0.9,
    "adam_beta2": 0.98,
    "adam_epsilon": 1.0e-6,
    "weight_decay": 0.0,
    "max_grad_norm": 5.0,
    "warmup_steps": 0.05,  # a share of all steps
    "lr_scheduler_type": "linear",
    "logging_steps": 0.01,
    "save_strategy": "steps",
    "save_steps": 0.05,
    "save_total_limit": 2,
}


def pretrain(recipe: PretrainingRecipe, show_bars: bool = False, allow_changed: Sequence[str] = ()) -> dict[str, Any]:
    """Distils language: text, teacher, student, run folder. A run of the same recipe that was cut off goes on.

    One that is finished is left as it is.

    Args:
        recipe: what to do.
        show_bars: whether progress bars are drawn; without them progress is logged in lines.
        allow_changed: keys of the recipe, sections, or "text", "teacher", "tokenizer", "precision",
            "num_processes" and "versions", that may differ from those of the run that is gone on with.

    Returns:
        The results, as written to `results.json`.

    Raises:
        DistillationError: one of the subclasses in `distilbert_kd.errors`, before the work wherever it can be.
    """
    start = time.perf_counter()
    folder = RunFolder(Path(recipe.output_dir))
    arguments = arguments_of(recipe, folder, show_bars)  # first, because it tells accelerate of the other processes
    records = RunRecords(folder, PartialState().is_main_process)
    yaml = recipe.to_yaml()
    check_layers(recipe.student, recipe.teacher.model, recipe.teacher.revision)
    tokenizer = load_tokenizer(recipe.teacher.model, recipe.teacher.revision)
    teacher = load_language_model(recipe.teacher.model, recipe.teacher.revision, recipe.objective.needs_vocabulary)
    student, layers = _student(recipe, teacher, tokenizer)
    check_lengths(recipe.text.max_length, student, teacher, tokenizer)
    check_arguments(arguments)
    DeepTerms(student, teacher, as_terms(recipe.objective.terms))  # refuses before the text is tokenised
    if recipe.objective.needs_vocabulary:
        check_vocabularies(student, teacher)
    with ExitStack() as held:
        with failing_together():
            if records.is_main:
                held.enter_context(locked(folder))
                enter_run(folder, flat_recipe(yaml), allow_changed)
        if folder.is_finished():
            logger.info("this run is finished, and nothing of it is done again: its results are in %s", folder.results)
            return read_record(folder.results)
        progress = Progress(folder, records.is_main)
        logger.info("device: %s", describe_device(arguments))
        text = tokenized_text(source_of(recipe), tokenizer, Path(recipe.text.cache_dir or DEFAULT_CACHE_DIR))
        logger.info("text: %s rows, %s tokens from %s", f"{len(text.rows):,}", f"{text.num_tokens:,}", text.source)
        teacher_sha256 = weights_sha256(teacher)
        progress.take_identity(
            {
                "recipe": flat_recipe(yaml),
                "text": text.key,
                "teacher": [teacher_sha256, weights_sha256(student)],
                "tokenizer": tokenizer_sha256(tokenizer),
                "precision": precision_of(arguments),
                "num_processes": PartialState().num_processes,
            },
            allow_changed,
        )
        trainer = _trainer(recipe, arguments, student, teacher, tokenizer, text)
        progress.write()
        records.write_recipe(yaml)
        with failing_together():
            if records.is_main:
                write_text(folder.environment, _json(_environment(recipe, teacher_sha256, text)))
        history, first_step = _train(trainer, student, folder, records, progress, allow_changed)
        results = {
            "schema_version": 1,
            "kind": "pretraining",
            "name": recipe.name,
            "seed": recipe.seed,
            "teacher": {"name": recipe.teacher.model, "num_parameters": teacher.num_parameters()},
            "student": {
                "layers": layers,
                "num_parameters": student.num_parameters(),
                "num_parameters_without_gradient": trainer.num_frozen,
                "weights_sha256": weights_sha256(student),
            },
            "text": {"source": text.source, "rows": len(text.rows), "tokens": text.num_tokens},
            "objective": trainer.weights,
            "steps": history[-1]["step"],
            "resumed_from_step": first_step,
            "last_losses": _last_losses(history, trainer.weights),
            "seconds": {"total": time.perf_counter() - start},
        }
        records.remove_checkpoints(["student"] if "save_strategy" in recipe.training else [])
        with failing_together():
            if records.is_main:
                write_text(folder.results, _json(results))
        progress.remove()
    logger.info("run folder: %s", folder.root)
    PartialState().wait_for_everyone()
    return results


def _train(
    trainer: PretrainingTrainer,
    student: PreTrainedModel,
    folder: RunFolder,
    records: RunRecords,
    progress: Progress,
    allow_changed: Sequence[str],
) -> tuple[list[dict[str, float]], int | None]:
    """The history of the training, and the step that an earlier start came to; the student is left trained."""
    if progress.is_done("student"):
        take_up(student, str(folder.student))
        history = progress.history_of("student")
        return history, int(history[-1]["step"])

    def keep(written: Path, history: list[dict[str, float]], seconds: float) -> None:
        records.write_history({"student": history})
        progress.add_model("student", written, seconds)

    start = time.perf_counter()
    checkpoint = newest_checkpoint(folder.checkpoints / "student", progress.identity, allow_changed)
    continuation = Continuation(progress.identity, checkpoint, keep)
    with obeying_signals(trainer, folder.student, continuation):
        with storage_errors(folder.checkpoints):
            run_training(trainer, "student", continuation)
        save_model_folder(trainer, folder.student, continuation, time.perf_counter() - start)
    take_back(trainer, student)
    first_step = None if checkpoint is None else int(checkpoint.name.split("-")[1])
    return trainer.state.log_history, first_step


def arguments_of(recipe: PretrainingRecipe, folder: RunFolder, show_bars: bool) -> TrainingArguments:
    """The training arguments: the recipe's, and DistilBERT's where it is silent.

    Args:
        recipe: of the run.
        folder: of the run.
        show_bars: whether progress bars are drawn.

    Returns:
        Those of the student's training.

    Raises:
        RecipeError: an argument can't be used, or the launch takes the weights apart.
    """
    # Blocks are of one length: nothing is gained by sorting them, and the rows of a step stay the same however it is
    # split into batches.
    sampling = "group_by_length" if recipe.text.packing == "sentences" else "random"
    values = {**_DEFAULTS, "train_sampling_strategy": sampling, **recipe.training, "eval_strategy": "no"}
    arguments = training_arguments(values, "training", folder.checkpoints / "student", recipe.seed, show_bars)
    if is_sharded(arguments):
        raise RecipeError(
            "Expected whole models on each process for pretraining, whose vocabulary is read in parts; got FSDP "
            "or DeepSpeed. Launch it with recipes/accelerate/multi_gpu.yaml."
        )
    return arguments


def _student(
    recipe: PretrainingRecipe, teacher: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> tuple[PreTrainedModel, list[int]]:
    origin = teacher
    if recipe.student.init_from is not None:
        check_same_tokenizer(load_tokenizer(recipe.student.init_from), tokenizer)
        origin = load_language_model(recipe.student.init_from, None, recipe.objective.needs_vocabulary)
    layers = layers_of(recipe.student, teacher, origin)
    student = build_student(origin, layers=layers, architecture=recipe.student.architecture)
    if recipe.student.freeze_embeddings:
        freeze_embeddings(student)
    return student, layers


def check_lengths(
    max_length: int, student: PreTrainedModel, teacher: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> None:
    """Refuses rows that are longer than a model reads, and a tokenizer that knows more words than a model.

    Args:
        max_length: tokens of a row.
        student: that reads them.
        teacher: that reads them.
        tokenizer: of both.

    Raises:
        DataError: rows are too long.
        TeacherError: the tokenizer is too large.
    """
    for model in (student, teacher):
        limit = max_length_of(model.config)
        if limit is not None and max_length > limit:
            raise DataError(
                f"text.max_length: expected at most {limit}, which {type(model).__name__} has positions for, got "
                f"{max_length}. Set text.max_length to {limit} or less."
            )
        if len(tokenizer) > model.config.vocab_size:
            raise TeacherError(
                f"Expected a tokenizer of at most {model.config.vocab_size} entries, as {type(model).__name__} has, "
                f"got {len(tokenizer)}. Take the tokenizer that belongs to the model."
            )


def source_of(recipe: PretrainingRecipe) -> TextSource:
    """The text of a recipe, as `distilbert_kd.pretraining.text` takes it."""
    text = recipe.text
    return TextSource(
        files=tuple(text.files or ()),
        datasets=tuple(HubSource(**one.model_dump()) for one in text.datasets or ()),
        column=text.column,
        packing=text.packing,
        max_length=text.max_length,
        max_rows=text.max_rows,
    )


def _trainer(
    recipe: PretrainingRecipe,
    arguments: TrainingArguments,
    student: PreTrainedModel,
    teacher: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    text: TokenizedText,
) -> PretrainingTrainer:
    objective = recipe.objective
    trainer = new_trainer(
        PretrainingTrainer,
        model=student,
        args=arguments,
        rows=text.rows,
        tokenizer=tokenizer_for(student, tokenizer),
        teacher=teacher,
        soft_targets=objective.soft_targets,
        masked_language_model=objective.masked_language_model,
        temperature=objective.temperature,
        masking_probability=objective.masking_probability,
        terms=as_terms(objective.terms),
    )
    if arguments.disable_tqdm:
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(ProgressLines("student", tuple(trainer.weights)))
    logger.info(
        "student: %s parameters, %s of them without a gradient from this objective",
        f"{student.num_parameters():,}",
        f"{trainer.num_frozen:,}",
    )
    return trainer


def _environment(recipe: PretrainingRecipe, teacher_sha256: str, text: TokenizedText) -> dict[str, Any]:
    return describe_environment() | {
        "seed": recipe.seed,
        "text": {"source": text.source, "key": text.key},
        "teacher": {
            "model": recipe.teacher.model,
            "revision": recipe.teacher.revision,
            "commit": hub_commit(recipe.teacher.model, recipe.teacher.revision),
            "weights_sha256": teacher_sha256,
        },
    }


def _last_losses(history: Sequence[Mapping[str, float]], terms: Collection[str]) -> dict[str, float]:
    logs: Mapping[str, float] = next((line for line in reversed(history) if "loss" in line), {})
    return {name: logs[name] for name in ("loss", *terms) if name in logs}


def _json(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"
