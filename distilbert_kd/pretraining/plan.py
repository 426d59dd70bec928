"""What a recipe of pretraining would do, in lines, before anything of it is done.

Of the models only configuration and tokenizer are read. The text is not: its rows are known once it was tokenised.
"""

from pathlib import Path

import torch
from transformers import AutoModel, AutoModelForMaskedLM, PreTrainedModel, TrainingArguments

from distilbert_kd.compatibility import check_same_tokenizer
from distilbert_kd.deep_terms import DeepTerms
from distilbert_kd.hardware import describe_device
from distilbert_kd.plan_lines import (
    layer_map_line,
    outline,
    projection_line,
    render,
    rows_of_step,
    schedule_line,
    size_line,
    student_line,
    term_lines,
)
from distilbert_kd.pretraining.models import headless
from distilbert_kd.pretraining.pipeline import arguments_of, check_lengths, source_of
from distilbert_kd.pretraining.recipe import PretrainingRecipe
from distilbert_kd.pretraining.text import DEFAULT_CACHE_DIR, TokenizedText, written_text
from distilbert_kd.pretraining.trainer import check_arguments, check_vocabularies
from distilbert_kd.recipe_parts import as_terms, layers_of
from distilbert_kd.run_folder import RunFolder
from distilbert_kd.student.build import build_student
from distilbert_kd.teacher import config_of, load_tokenizer


__all__ = ["describe_pretraining"]

#: Classes whose checkpoints hold the head of a masked language model.
_WITH_HEAD = ("ForMaskedLM", "ForPreTraining", "LMHeadModel")


def describe_pretraining(recipe: PretrainingRecipe) -> str:
    """The plan of a task-agnostic distillation: text, models, layer map, objective, steps.

    Args:
        recipe: of the run.

    Returns:
        Lines of a name and what is said of it, to be printed as they are.

    Raises:
        DistillationError: as in `distilbert_kd.pretraining.pipeline.pretrain`, for what can be found without weights.
    """
    arguments = arguments_of(recipe, RunFolder(Path(recipe.output_dir)), show_bars=False)
    check_arguments(arguments)
    teacher = _outline(recipe, recipe.teacher.model, recipe.teacher.revision)
    tokenizer = load_tokenizer(recipe.teacher.model, recipe.teacher.revision)
    origin, init_from = teacher, recipe.student.init_from
    if init_from is not None:
        check_same_tokenizer(load_tokenizer(init_from), tokenizer)
        origin = _outline(recipe, init_from, None)
    layers = layers_of(recipe.student, teacher, origin)
    with torch.device("meta"):
        student = build_student(origin, layers=layers, architecture=recipe.student.architecture)
    if recipe.objective.needs_vocabulary:
        check_vocabularies(student, teacher)
    num_student_parameters = student.num_parameters()
    terms = DeepTerms(student, teacher, as_terms(recipe.objective.terms))
    check_lengths(recipe.text.max_length, student, teacher, tokenizer)
    source, text = written_text(source_of(recipe), tokenizer, Path(recipe.text.cache_dir or DEFAULT_CACHE_DIR))
    lines = {
        "recipe": f"{recipe.name}, seed {recipe.seed}, run folder {recipe.output_dir}",
        "text": source,
        "rows": _rows(recipe, text),
        "teacher": f"{recipe.teacher.model}: {size_line(teacher)}, {teacher.num_parameters():,} parameters",
        "student": student_line(student, num_student_parameters, teacher, recipe.student.freeze_embeddings),
        "layer map": layer_map_line(layers, recipe.student.layers, init_from),
        "objective": " + ".join(_objective(recipe)),
        **term_lines(terms),
        "projections": projection_line(terms),
        "masking": _masking(recipe),
        "training": _training(arguments, text),
        "device": describe_device(arguments),
    }
    return render(lines)


def _outline(recipe: PretrainingRecipe, name: str, revision: str | None) -> PreTrainedModel:
    """A model without weights, with the head that the objective reads; the config tells whether there is one."""
    config = config_of(name, revision)
    if not recipe.objective.needs_vocabulary:
        return outline(config, AutoModel, name)
    architectures = config.architectures or []
    if architectures and not any(each.endswith(_WITH_HEAD) for each in architectures):
        raise headless(name, ", ".join(architectures))
    return outline(config, AutoModelForMaskedLM, name)


def _rows(recipe: PretrainingRecipe, text: TokenizedText | None) -> str:
    form = f"{recipe.text.packing}, {recipe.text.max_length} tokens at most"
    if text is not None:
        return f"{len(text.rows):,} of {text.num_tokens:,} tokens ({form})"
    limit = "" if recipe.text.max_rows is None else f", {recipe.text.max_rows:,} at most"
    return f"counted when the text is tokenised{limit} ({form})"


def _objective(recipe: PretrainingRecipe) -> list[str]:
    objective = recipe.objective
    weights = {
        f"soft_targets(T = {objective.temperature:g})": objective.soft_targets,
        "masked_language_model": objective.masked_language_model,
        **{name: term.weight for name, term in as_terms(objective.terms).items()},
    }
    return [f"{weight:g} * {name}" for name, weight in weights.items() if weight > 0]


def _masking(recipe: PretrainingRecipe) -> str:
    if not recipe.objective.needs_vocabulary:
        return "none, because no term looks at the vocabulary"
    return f"{recipe.objective.masking_probability:.0%} of the tokens, others in each epoch"


def _training(arguments: TrainingArguments, text: TokenizedText | None) -> str:
    if text is not None:
        return schedule_line(arguments, len(text.rows))
    length = f"{arguments.max_steps:,} steps" if arguments.max_steps > 0 else f"{arguments.num_train_epochs:g} epochs"
    return f"{length} of {rows_of_step(arguments)} rows a step, learning rate {arguments.learning_rate:g}"
