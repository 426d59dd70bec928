"""A run from recipe to run folder. This module knows the order of the stages, and it alone unpacks the recipe."""

import gc
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from accelerate import PartialState
from transformers import TrainingArguments

from distilbert_kd.augmentation.from_recipe import augmented_of, with_labels, with_training_rows
from distilbert_kd.compatibility import tokenizer_sha256
from distilbert_kd.data.loading import load_task
from distilbert_kd.data.task_data import TaskData, fingerprint
from distilbert_kd.deep_terms import DeepTerms
from distilbert_kd.errors import DistillationError, RecipeError, StoppedError, StorageError
from distilbert_kd.hardware import describe_device
from distilbert_kd.hub.push import check_before_training, push_results
from distilbert_kd.hub.target import HubTarget
from distilbert_kd.prepared_arguments import (
    best_epoch,
    check_attention,
    each_epoch,
    prediction_arguments,
    training_arguments,
)
from distilbert_kd.processes import failing_together
from distilbert_kd.recipe import Recipe
from distilbert_kd.recipe_parts import (
    cache_dir_of,
    check_architecture,
    check_layers,
    layers_of,
    log_data,
    readers_of,
    schedule_of,
    student_of,
    terms_of,
)
from distilbert_kd.resuming import Continuation, Progress, enter_run, flat_recipe, newest_checkpoint
from distilbert_kd.run_folder import RunFolder, read_record
from distilbert_kd.run_lock import locked
from distilbert_kd.run_records import RunRecords, fingerprints, results_record
from distilbert_kd.scoring import check_teacher_score, describe_models, labels_of, score_models
from distilbert_kd.sharding import take_up
from distilbert_kd.student.build import count_layers
from distilbert_kd.task_rows import Reader, tokenize_task
from distilbert_kd.teacher import load_classifier, load_teacher, load_tokenizer
from distilbert_kd.teacher_cache import ask_teacher, check_cache_dir, logits_column, precision_of
from distilbert_kd.trainer_options import refuse_ignored_arguments
from distilbert_kd.training import Trained, attention_as, train_model
from distilbert_kd.weights import weights_sha256


__all__ = ["fill_cache", "run"]

logger = logging.getLogger(__name__)

#: What the time of a training is called in the results.
_STAGES = {"teacher": "teacher", "student": "distillation", "control": "control"}

_GONE_ON_WITH = (
    "The run was cut off and gone on with: the time of each training is that of the start that finished it, the total "
    "that of the last start."
)


def run(recipe: Recipe, show_bars: bool = False, allow_changed: Sequence[str] = ()) -> dict[str, Any]:
    """Distils: data, teacher, its answers, student, control, evaluation, run folder.

    A run of the same recipe that was cut off goes on: what is done is not done again, and the result is the same. One
    that is finished is left as it is.

    Args:
        recipe: what to do.
        show_bars: whether progress bars are drawn; without them progress is logged in lines.
        allow_changed: keys of the recipe, sections, or "data", "teacher", "tokenizer", "precision",
            "num_processes" and "versions", that may differ from those of the run that is gone on with.

    Returns:
        The results, as written to `results.json`.

    Raises:
        DistillationError: one of the subclasses in `distilbert_kd.errors`, before the work wherever it can be.
        HubError: the push that the recipe asks for can't be done, before the training; or it failed when all else was
            done and written, and the error has the results.
    """
    start = time.perf_counter()
    folder = RunFolder(Path(recipe.output_dir))
    arguments = _arguments(recipe, folder, show_bars)
    if recipe.teacher.finetune is not None:
        check_attention(recipe.attn_implementation, arguments.teacher, "teacher.finetune")
    check_attention(recipe.attn_implementation, arguments.student, "training")
    check_layers(recipe.student, recipe.teacher.model, recipe.teacher.revision)
    records = RunRecords(folder, PartialState().is_main_process)
    with ExitStack() as held:
        with failing_together():
            target = HubTarget.of(recipe.push.model_dump()) if recipe.push and records.is_main else None
            if records.is_main:
                held.enter_context(locked(folder))
                enter_run(folder, flat_recipe(recipe.to_yaml()), allow_changed)
                is_training = recipe.teacher.finetune is not None and not folder.is_finished()
                if is_training and (cache_dir := cache_dir_of(recipe)) is not None:
                    check_cache_dir(cache_dir)  # before a teacher is trained
            if target is not None and not folder.is_finished():
                check_before_training(recipe.model_dump(exclude_none=True), target)
        if folder.is_finished():
            logger.info("this run is finished, and nothing of it is done again: its results are in %s", folder.results)
            results = read_record(folder.results)
        else:
            progress = Progress(folder, records.is_main)
            logger.info("device: %s", describe_device(arguments.student))
            results = _distil(recipe, arguments, folder, records, progress, allow_changed, start)
            records.write_report()
            progress.remove()  # last, so that a run that is killed before it is gone on with
    logger.info("run folder: %s", folder.root)
    PartialState().wait_for_everyone()
    if target is not None:  # of a finished run, too: what is on the Hub already is not sent again
        push_results(folder.root, target, results)
    return results


def _distil(
    recipe: Recipe,
    arguments: "_Arguments",
    folder: RunFolder,
    records: RunRecords,
    progress: Progress,
    allow_changed: Sequence[str],
    start: float,
) -> dict[str, Any]:
    """All of a run, in its folder."""
    trained: dict[str, Trained] = {}
    with _saying_what_is_kept(folder, trained):
        data = load_task(recipe.data, recipe.name)
        teacher, origin = readers_of(recipe, data)
        layers = layers_of(recipe.student, teacher.model, origin.model)
        if len(layers) == count_layers(origin.model) and recipe.student.init_from is None:
            logger.warning(
                "The student keeps all %d layers: it will be no smaller. Set student.num_layers.", len(layers)
            )
        check_architecture(teacher, origin, data, recipe)
        with attention_as(recipe.attn_implementation, teacher.model, origin.model):
            pass  # what a model can't compute is found before the teacher is trained
        if recipe.distillation.has_deep_terms:  # what can't be had is found before the teacher is trained
            DeepTerms(student_of(origin, layers, recipe).model, teacher.model, terms_of(recipe))
        log_data(data, origin.rows, recipe.data.max_length)
        augmented = augmented_of(recipe, data, teacher, arguments.prediction.device)

        rows_sha256 = fingerprints(data)
        models_sha256 = [weights_sha256(teacher.model)]  # no list of the models, which would keep them in memory
        if origin is not teacher:
            models_sha256.append(weights_sha256(origin.model))
        num_processes = PartialState().num_processes
        identity = {
            "data": rows_sha256,
            "teacher": models_sha256,
            "tokenizer": [tokenizer_sha256(teacher.tokenizer), tokenizer_sha256(origin.tokenizer)],
            "precision": [precision_of(arguments.teacher), precision_of(arguments.student)],
            "num_processes": num_processes,
            **({"augmentation": fingerprint(augmented.train)} if augmented else {}),
        }
        progress.take_identity({"recipe": flat_recipe(recipe.to_yaml()), **identity}, allow_changed)

        def train(what: str, reader: Reader, settings: TrainingArguments, **distillation: Any) -> None:
            if progress.is_done(what):
                take_up(reader.model, str(folder.root / what))
                reader.model.eval()
                trained[what] = Trained(progress.history_of(what), progress.models[what]["seconds"])
                logger.info("%s: taken from %s, where it was trained before", what, folder.root / what)
                return

            def keep(written: Path, history: list[dict[str, float]], seconds: float) -> None:
                records.write_history({name: each.history for name, each in trained.items()} | {what: history})
                progress.add_model(what, written, seconds)

            progress.write()
            records.write_recipe(recipe.to_yaml())
            checkpoint = newest_checkpoint(folder.checkpoints / what, progress.identity, allow_changed)
            distillation["attn_implementation"] = recipe.attn_implementation
            distillation["continuation"] = Continuation(progress.identity, checkpoint, keep)
            trained[what] = train_model(what, reader, data.metric, settings, folder.root / what, **distillation)

        if recipe.teacher.finetune is not None:
            train("teacher", teacher, arguments.teacher)
        lessons = replace(data, train=augmented.train) if augmented else data
        if augmented:  # now that the teacher has learnt from the gold rows alone
            teacher, origin = with_training_rows(recipe, augmented.train, teacher, origin)
        ask = partial(
            ask_teacher,
            data=lessons,
            max_length=recipe.data.max_length,
            arguments=arguments.prediction,
            cache_dir=cache_dir_of(recipe),
        )
        answers = {name: logits_column(ask(teacher, split=name)) for name in data.evaluation}
        split = origin.rows.main_split
        main_labels = labels_of(origin.rows.evaluation[split])
        allow_near_chance = recipe.teacher.allow_near_chance
        teacher_name = recipe.teacher.model + (", fine-tuned here" if recipe.teacher.finetune is not None else "")
        check_teacher_score(answers[split], main_labels, data.metric, teacher_name, split, allow_near_chance)
        source = recipe.teacher
        records.write_environment(data.source, rows_sha256, teacher.model, source.model, source.revision, recipe.seed)

        students = {name: student_of(origin, layers, recipe) for name in ("student", "control")[: 1 + recipe.control]}
        signal: dict[str, Any] = (
            {"teacher": teacher.model, "terms": terms_of(recipe)}
            if recipe.asks_teacher_at_each_step
            else {"teacher_logits": ask(teacher, split="train")}
        )
        del teacher, origin  # answers are on disk: while the students train, no teacher is in memory
        gc.collect()
        temperature, alpha = schedule_of(recipe.distillation.temperature), schedule_of(recipe.distillation.alpha)
        signal |= {"temperature": temperature, "alpha": alpha}
        train("student", students["student"], arguments.student, **signal, **_alpha_augmented(recipe))
        if recipe.control:
            control = with_labels(students["control"]) if augmented else students["control"]
            train("control", control, arguments.control)

        logger.info("evaluation: %s on %s", ", ".join(students), ", ".join(answers))
        scores, logits = score_models(students, answers, data.metric, arguments.prediction)
        readers = {"teacher": _trained_teacher(recipe, data, folder, students["student"]), **students}
        described, latency_setting = describe_models(readers)
        models = {
            name: {**record, "splits": {key: result.to_dict() for key, result in scores[name].items()}}
            for name, record in described.items()
        }
        seconds = {_STAGES[name]: each.seconds for name, each in trained.items()}
        seconds["total"] = time.perf_counter() - start
        notes = students["student"].rows.notes(recipe.data.max_length)
        if progress.has_begun:
            notes.append(_GONE_ON_WITH)
        results = results_record(
            recipe.name,
            recipe.seed,
            recipe.distillation.model_dump(exclude={"alpha_augmented"}) | _alpha_augmented(recipe),
            teacher_name,
            data,
            augmented.counts if augmented else None,
            notes,
            layers,
            recipe.student.init_from,
            models,
            latency_setting,
            seconds,
        )
        records.remove_checkpoints(_with_checkpoints(recipe))
        records.write_recipe(recipe.to_yaml())  # some values may have been allowed to change since the last training
        records.write_scored_rows(data, logits)
        records.write_results(results)
    return results


def fill_cache(recipe: Recipe, show_bars: bool = False) -> Path:
    """Asks the teacher for its answers to all rows of a recipe, once; a later run finds them.

    Args:
        recipe: with a teacher that is there already.
        show_bars: whether progress bars are drawn.

    Returns:
        The folder that holds the answers.

    Raises:
        RecipeError: the teacher is yet to be fine-tuned, or the cache is switched off.
        DistillationError: as in `run`.
    """
    cache_dir = cache_dir_of(recipe)
    if recipe.teacher.finetune is not None or cache_dir is None:
        got = "teacher.finetune, which trains one in a run" if cache_dir is not None else "teacher.cache=false"
        raise RecipeError(
            f"Expected a teacher that is there already and a cache for its answers, got {got}. After a run: "
            "teacher.model=RUN/teacher teacher.finetune=null"
        )
    place = Path(recipe.output_dir).parent
    arguments = prediction_arguments(recipe.training, "training", place, show_bars)
    data = load_task(recipe.data, recipe.name)
    teacher, origin = readers_of(recipe, data)
    log_data(data, origin.rows, recipe.data.max_length)
    augmented = augmented_of(recipe, data, teacher, arguments.device)
    if augmented:
        data = replace(data, train=augmented.train)
        teacher, _ = with_training_rows(recipe, augmented.train, teacher, origin)
    for split in ("train", *data.evaluation):
        ask_teacher(teacher, data, split, recipe.data.max_length, arguments, cache_dir)
    return cache_dir


def _alpha_augmented(recipe: Recipe) -> dict[str, float]:
    """The alpha of augmented rows, where a recipe has any."""
    return {} if recipe.augmentation is None else {"alpha_augmented": recipe.distillation.alpha_augmented}


@dataclass(frozen=True)
class _Arguments:
    """Training arguments of the run's models, made first because a wrong one must cost no time."""

    teacher: TrainingArguments
    student: TrainingArguments
    control: TrainingArguments
    prediction: TrainingArguments


def _arguments(recipe: Recipe, folder: RunFolder, show_bars: bool) -> _Arguments:
    def make(values: Mapping[str, Any], where: str, name: str) -> TrainingArguments:
        return training_arguments(values, where, folder.checkpoints / name, recipe.seed, show_bars)

    arguments = _Arguments(
        teacher=make(
            {**best_epoch(), "save_only_model": False, **(recipe.teacher.finetune or {})},
            "teacher.finetune",
            "teacher",
        ),
        student=make({**each_epoch(recipe.training), **recipe.training}, "training", "student"),
        control=make({**each_epoch(recipe.training), **recipe.training}, "training", "control"),
        # Predictions leave nothing there, and a teacher that is refused must leave the folder empty for the next try.
        prediction=prediction_arguments(recipe.training, "training", folder.root, show_bars),
    )
    refuse_ignored_arguments(arguments.teacher, has_terms=False)
    refuse_ignored_arguments(arguments.student, recipe.distillation.has_deep_terms)
    return arguments


def _trained_teacher(recipe: Recipe, data: TaskData, folder: RunFolder, students: Reader) -> Reader:
    """The teacher, once more, to be timed beside its students."""
    source = recipe.teacher
    if source.finetune is not None:
        model, name, revision = load_classifier(str(folder.teacher)), str(folder.teacher), None
    else:
        model = load_teacher(source.model, data.label_names, source.revision, source.labels)
        name, revision = source.model, source.revision
    model.to(students.model.device)  # type: ignore[arg-type]  # upstream's wrapper loses the type
    if recipe.student.init_from is None:
        return Reader(model, students.tokenizer, students.rows)
    tokenizer = load_tokenizer(name, revision)
    return Reader(model, tokenizer, tokenize_task(data, tokenizer, recipe.data.max_length, model))


@contextmanager
def _saying_what_is_kept(folder: RunFolder, trained: Mapping[str, Trained]) -> Iterator[None]:
    """Whatever ends the run, what was trained until then is not lost, and the message says how to go on from it."""
    try:
        yield
    except StoppedError:
        raise  # says it itself
    except BaseException as error:
        # What the recipe or its data caused comes again; a lost process, device or disk need not.
        goes_on = isinstance(error, StorageError) or not isinstance(error, DistillationError)
        if "teacher" in trained:
            kept = f"The fine-tuned teacher is kept in {folder.teacher}."
            advice = (
                " To go on from it, run the recipe again with "
                f"teacher.model={folder.teacher} teacher.finetune=null output_dir=ANOTHER."
            )
            error.add_note(kept if goes_on else kept + advice)
        if "student" in trained:
            error.add_note(f"The distilled student is kept in {folder.student}.")
        if goes_on and folder.progress.is_file():
            error.add_note("Start the same command again to go on.")
        raise


def _with_checkpoints(recipe: Recipe) -> list[str]:
    """Models whose section of the recipe asks for checkpoints; without that only the teacher has some, for a while."""
    sections = {"teacher": recipe.teacher.finetune or {}, "student": recipe.training, "control": recipe.training}
    return [name for name, section in sections.items() if section.get("save_strategy", "no") != "no"]
