"""The named maps of matched layers, worked out by hand."""

import pytest

from distilbert_kd.errors import RecipeError
from distilbert_kd.matched_layers import resolve_matched_layers


@pytest.mark.parametrize(
    ("name", "sizes", "pairs"),
    [
        ("last", (6, 12), [(5, 11)]),
        ("uniform", (6, 12), [(0, 1), (1, 3), (2, 5), (3, 7), (4, 9), (5, 11)]),
        ("uniform", (4, 12), [(0, 2), (1, 5), (2, 8), (3, 11)]),
        ("uniform", (3, 5), [(0, 1), (1, 3), (2, 4)]),
        ("uniform_and_embeddings", (2, 4), [(-1, -1), (0, 1), (1, 3)]),
        ("skip", (6, 12), [(0, 1), (1, 3), (2, 5), (3, 7), (4, 9)]),
        ([[0, 3], [1, 3]], (2, 4), [(0, 3), (1, 3)]),
    ],
)
def test_pairs(name, sizes, pairs):
    """Prevents an off-by-one between embeddings and layers; PKD's 2, 4, 6, 8, 10 are 1, 3, 5, 7, 9 from 0."""
    assert resolve_matched_layers(*sizes, name) == pairs


@pytest.mark.parametrize("layers", ["lst", [[2, 0]], [[0, 4]], [[0, -2]], [[0, 1], [0, 1]], []])
def test_what_is_not_there_is_refused(layers):
    """Prevents a term that reads another layer than asked, or nothing."""
    with pytest.raises(RecipeError, match="layers: expected"):
        resolve_matched_layers(2, 4, layers)


def test_a_student_of_one_layer_has_none_to_skip():
    """Prevents a term without any pair, which would be zero and silent."""
    with pytest.raises(RecipeError, match="leaves none"):
        resolve_matched_layers(1, 4, "skip")
