"""Which trial is taken: the simplest of those that are as good as the best, as far as the held-out rows can tell."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


__all__ = ["TriedRecipe", "choose"]


@dataclass(frozen=True)
class TriedRecipe:
    """One trial, as it stands in `trials.json`.

    Attributes:
        number: Of the trial, from 0.
        state: "complete", "pruned", "failed" or "running".
        values: By key of the recipe, those of the space.
        is_recipe: Whether it is the recipe as it was given.
        num_epochs: Of its training, had it not been pruned.
        score: Of the task on the held-out rows, in [-1, 1]; the last one of a trial that was pruned.
        standard_error: Of the score over the held-out rows.
        loss: Hard loss on the held-out rows, in nats (regression: squared units of the label).
        cpu_seconds: Of this process.
        error: Why it failed.
    """

    number: int
    state: str
    values: dict[str, Any] = field(default_factory=dict)
    is_recipe: bool = False
    num_epochs: float = 0.0
    score: float | None = None
    standard_error: float | None = None
    loss: float | None = None
    cpu_seconds: float | None = None
    error: str | None = None


def choose(trials: Sequence[TriedRecipe]) -> TriedRecipe | None:
    """The simplest trial whose score is within one standard error of the best one.

    The standard error is that of the best score over the held-out rows. Simplest is the recipe as it was given, then
    whatever trains for fewer epochs; then the higher score decides, and at last the earlier trial.

    Args:
        trials: in any order; only complete ones count.

    Returns:
        The trial; None if none is complete.

    Source: the one-standard-error rule of Breiman et al. 1984, "Classification and Regression Trees", section 3.4.3
    """
    scored = [(trial.score, trial) for trial in trials if trial.state == "complete" and trial.score is not None]
    if not scored:
        return None
    score, best = max(scored, key=lambda pair: (pair[0], -pair[1].number))
    bound = score - (best.standard_error or 0.0)
    equals = [trial for each, trial in scored if each >= bound]
    return min(equals, key=lambda trial: (not trial.is_recipe, trial.num_epochs, -(trial.score or 0.0), trial.number))
