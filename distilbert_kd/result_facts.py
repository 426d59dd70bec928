"""What `results.json` says, in the words and the order that table, report, card, comparison and page share."""

import math
from collections.abc import Mapping
from typing import Any


__all__ = [
    "architecture_of",
    "arms_of",
    "difference_of",
    "latency_of",
    "milliseconds",
    "rows_of",
    "splits_of",
    "warnings_of",
]


def arms_of(results: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Teacher, student and, if trained, control, in the order of the rows."""
    models = results["models"]
    return {arm: models[arm] for arm in ("teacher", "student", "control") if models.get(arm)}


def splits_of(results: Mapping[str, Any]) -> list[str]:
    """The splits that were scored, the one of the headline first.

    That is `test` where it has labels: a recipe's numbers, the teacher's epoch and layers may have been chosen on the
    others. Else it is the first one, `validation`.
    """
    return sorted(results["models"]["teacher"]["splits"], key=lambda split: split != "test")  # sorted is stable


def rows_of(results: Mapping[str, Any], split: str) -> str:
    """How many labelled rows of a split were scored, and of how many, if some were drawn."""
    num_rows = results["models"]["teacher"]["splits"][split]["num_rows"]
    drawn_from = (results["data"].get("drawn_from") or {}).get(split)
    return f"{num_rows:,} rows" if drawn_from is None else f"{num_rows:,} of {drawn_from:,} rows"


def difference_of(
    results: Mapping[str, Any], split: str, other: str, interval: tuple[float, float] | None = None
) -> str:
    """The student's score minus another model's in words, and what its 95 % interval says, if there is one."""
    ours, theirs = (results["models"][arm]["splits"][split]["score"] for arm in ("student", other))
    said = f"Student minus {other} on {split}: {100 * (ours - theirs):+.1f} points"
    if interval is None:
        return said
    low, high = interval
    verdict = f"the student is {'better' if low > 0 else 'worse'} beyond the chance of these rows"
    if low <= 0 <= high:
        verdict = "zero is inside, so these rows can't tell the two apart"
    return f"{said} (95 % interval {100 * low:+.1f} to {100 * high:+.1f}): {verdict}"


def warnings_of(results: Mapping[str, Any]) -> list[str]:
    """What makes the scores worthless, whatever they are: to be read before them."""
    lines = []
    for arm, model in arms_of(results).items():
        for split in splits_of(results):
            scored = model["splits"][split]
            constant = scored.get("constant_score")
            if scored.get("is_near_chance"):
                lines.append(
                    f"The {arm} is near chance on {split}: its answers tell no more than guessing. {_MEANS[arm]}"
                )
            elif constant is not None and scored["score"] <= constant:
                lines.append(
                    f"The {arm} scores {100 * scored['score']:.1f} on {split}, and the same answer for every row "
                    f"{100 * constant:.1f}. {_MEANS[arm]}"
                )
    return lines


_MEANS = {
    "teacher": "There was little to learn from it.",
    "student": "It learnt nothing of use for the task, whatever its score.",
    "control": "It says little about what the teacher was worth.",
}


def latency_of(model: Mapping[str, Any], batch_size: str) -> str | None:
    """Median milliseconds per example, and in brackets the quartiles over the rounds, if they were kept."""
    median = (model.get("latency_ms") or {}).get(batch_size)
    if median is None:
        return None
    quartiles = (model.get("latency_quartiles_ms") or {}).get(batch_size)
    spread = f" ({' to '.join(map(milliseconds, quartiles))})" if quartiles else ""
    return f"{milliseconds(median)}{spread}"


def milliseconds(value: float) -> str:
    """A time with three digits that count: more of them would be noise."""
    decimals = 2 - math.floor(math.log10(value)) if value > 0 else 0
    return f"{value:,.{max(decimals, 0)}f}"


def architecture_of(results: Mapping[str, Any]) -> str | None:
    """What a student that is a DistilBERT is, in a sentence; nothing for others, which are their teacher's kind."""
    name = results["models"]["student"].get("architecture") or ""
    if not name.startswith("DistilBert"):
        return None
    return f"The student is a DistilBERT: it loads as {name} of transformers, and takes no token types."
