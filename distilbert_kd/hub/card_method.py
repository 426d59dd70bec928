"""How a student was made, in the words of its card, with the run's own numbers in the formula."""

from collections.abc import Mapping
from typing import Any

from distilbert_kd.hub.facts import RunFacts
from distilbert_kd.markdown import code


__all__ = ["method_lines"]


def method_lines(facts: RunFacts) -> str:
    """Layer map, objective, seed, steps and training arguments.

    Args:
        facts: of the run.

    Returns:
        A list in Markdown.
    """
    layers, training = facts.results["student"]["layers"], facts.recipe.get("training") or {}
    origin = code(facts.recipe["student"]["init_from"]) if facts.recipe["student"].get("init_from") else "the teacher"
    pairs = ", ".join(f"{student} from {source}" for student, source in enumerate(layers))
    lines = [
        f"- Layers, each a copy of one of {origin} to start with, counted from 0: {pairs}.",
        f"- Loss: {_formula(facts)}",
        f"- Seed {facts.results['seed']}"
        + (f", {facts.num_steps:,} optimiser steps" if facts.num_steps else "")
        + f", {facts.results['data']['rows']['train']:,} training rows.",
    ]
    if training:
        given = ", ".join(code(f"{key}: {value}") for key, value in training.items())
        lines.append(f"- Training arguments: {given}; the others are the defaults of transformers.")
    return "\n".join(lines)


def _formula(facts: RunFacts) -> str:
    """The objective with this run's numbers in it: one line of Markdown, and its legend."""
    distillation = facts.results["distillation"]
    temperature, alpha = distillation["temperature"], distillation["alpha"]
    is_regression = facts.config.get("problem_type") == "regression"
    notes = []
    if isinstance(alpha, Mapping):
        hard, soft = "(1 - alpha)", "alpha"
        notes.append(f"alpha goes from {_path(alpha)}")
    else:
        hard, soft = f"{1 - alpha:g}", f"{alpha:g}"
    if isinstance(temperature, Mapping):
        degree = "T"
        notes.append(f"T goes from {_path(temperature)}")
    else:
        degree = f"{temperature:g}"
    if is_regression:
        line = f"L = {hard} * (student - label)^2 + {soft} * (student - teacher)^2"
    else:
        softened = f"{degree}^2 * KL(teacher at T={degree} || student at T={degree})"
        line = f"L = {hard} * CE(student, label) + {soft} * {softened}"
    for name, term in (distillation.get("terms") or {}).items():
        weight = term["weight"] if isinstance(term, Mapping) else term
        layers = term.get("layers") if isinstance(term, Mapping) else None
        line += f" + {weight:g} * {name}{f'({layers})' if layers else ''}" if weight else ""
    added = facts.results["data"].get("augmentation") or {"augmented": 0, "transfer": 0}
    if added["augmented"]:
        notes.append(
            f"for {added['augmented']:,} altered copies of training rows, added to them, the weight of the teacher is "
            f"{distillation['alpha_augmented']:g}"
        )
    if added["transfer"]:
        notes.append(f"{added['transfer']:,} unlabelled texts were added")
    if facts.recipe["data"].get("allow_unlabelled_rows") or added["transfer"]:
        notes.append("rows without a label learn from the teacher alone")
    return code(line) + (f" ({'; '.join(notes)})." if notes else ".")


def _path(schedule: Mapping[str, Any]) -> str:
    return f"{schedule['start']:g} to {schedule['end']:g} ({schedule.get('shape', 'linear')})"
