"""Which trial is taken."""

import pytest

from distilbert_kd.tuning.choosing import TriedRecipe, choose


def trial(number, score, epochs=3.0, **known):
    known = {"state": "complete", "standard_error": 0.02, **known}
    return TriedRecipe(number, score=score, num_epochs=epochs, **known)


@pytest.mark.parametrize(
    ("trials", "chosen"),
    [
        # The recipe is within one standard error (0.02) of the best.
        ([trial(0, 0.81, is_recipe=True), trial(1, 0.83, 1), trial(2, 0.82, 1)], 0),
        # It is not; of those that are, fewer epochs win over a higher score.
        ([trial(0, 0.80, is_recipe=True), trial(1, 0.83, 4), trial(2, 0.815, 2), trial(3, 0.805, 1)], 2),
        # Equal epochs: the higher score; equal scores: the earlier one.
        ([trial(1, 0.81), trial(3, 0.82), trial(2, 0.82)], 2),
        # The error is that of the best score, not of the one that is held against it.
        ([trial(0, 0.80, is_recipe=True, standard_error=0.5), trial(1, 0.83, standard_error=0.01)], 1),
        # Scores that are no good on average, such as correlations, may be negative.
        ([trial(0, -0.30, is_recipe=True), trial(1, -0.1)], 1),
        ([trial(0, 0.80, is_recipe=True), trial(1, 0.99, state="pruned"), trial(2, None, state="failed")], 0),
    ],
)
def test_the_simplest_that_is_as_good_as_the_best(trials, chosen):
    """Prevents a recipe that is longer, or another one, for a difference that the held-out rows can't tell."""
    assert choose(trials).number == chosen
    assert choose(trials[::-1]).number == chosen


def test_nothing_to_choose_from():
    """Prevents a recipe from trials that were ended early or failed."""
    assert choose([]) is None
    assert choose([trial(0, 0.9, state="pruned"), trial(1, None, state="running")]) is None
