"""Which teacher layers a student is made of.

A layer map is a list of teacher layer numbers, one for each student layer, counted from 0 and increasing. With N
teacher layers and M student layers, the named maps are:

| name | student layer i copies teacher layer | 12 -> 6 | source |
|---|---|---|---|
| `distilbert` | round(i (N - 1) / (M - 1)) | 0 2 4 7 9 11 | DistilBERT's `scripts/extract_distilbert.py` |
| `alternate` | floor(i N / M) | 0 2 4 6 8 10 | "taking one layer out of two", Sanh et al. 2019, section 3 |
| `alternate_last` | ceil((i + 1) N / M) - 1 | 1 3 5 7 9 11 | Jiao et al. 2020 (TinyBERT): g(m) = m N / M |
| `first` | i | 0 1 2 3 4 5 | Sun et al. 2019 (PKD), section 4.2 |
| `last` | N - M + i | 6 7 8 9 10 11 | |
"""

from collections.abc import Callable, Sequence

from distilbert_kd.errors import RecipeError


__all__ = ["LAYER_MAPS", "half_of", "resolve_layers"]

LAYER_MAPS: dict[str, Callable[[int, int, int], int]] = {
    "distilbert": lambda i, n, m: round(i * (n - 1) / (m - 1)) if m > 1 else 0,
    "alternate": lambda i, n, m: i * n // m,
    "alternate_last": lambda i, n, m: -(-(i + 1) * n // m) - 1,
    "first": lambda i, n, m: i,
    "last": lambda i, n, m: n - m + i,
}


def half_of(num_teacher_layers: int) -> int:
    """Half the teacher's layers, rounded down: the default depth of a student.

    Args:
        num_teacher_layers: N.

    Returns:
        M, at least 1.

    Raises:
        RecipeError: the teacher has one layer only.
    """
    if num_teacher_layers < 2:
        raise RecipeError(
            f"Expected a teacher of at least 2 layers, to take half of them, got one of {num_teacher_layers}. "
            "Take a deeper teacher."
        )
    return num_teacher_layers // 2


def resolve_layers(
    num_teacher_layers: int, num_layers: int | None = None, layers: str | Sequence[int] = "alternate"
) -> list[int]:
    """The teacher layer that each student layer is copied from.

    Args:
        num_teacher_layers: N.
        num_layers: M; None means the length of the list, or half of N for a named map.
        layers: a name in `LAYER_MAPS`, or the list itself.

    Returns:
        M increasing numbers in [0, N).

    Raises:
        RecipeError: an unknown name, a list that is not increasing or leaves the teacher, or a depth that doesn't fit.
    """
    if isinstance(layers, str):
        return _named(num_teacher_layers, half_of(num_teacher_layers) if num_layers is None else num_layers, layers)
    chosen = list(layers)
    in_range = all(isinstance(layer, int) and 0 <= layer < num_teacher_layers for layer in chosen)
    if not chosen or not in_range or any(a >= b for a, b in zip(chosen, chosen[1:], strict=False)):
        raise RecipeError(
            f"layers: expected increasing layer numbers from 0 to {num_teacher_layers - 1}, got {chosen}. "
            f"The model that it is cut from has {num_teacher_layers} layers, counted from 0."
        )
    if num_layers is not None and num_layers != len(chosen):
        raise RecipeError(
            f"num_layers is {num_layers} and layers lists {len(chosen)} ({chosen}). Leave num_layers out, or "
            "make them agree."
        )
    return chosen


def _named(num_teacher_layers: int, num_layers: int, name: str) -> list[int]:
    if name not in LAYER_MAPS:
        raise RecipeError(f"layers: expected one of {', '.join(LAYER_MAPS)} or a list of layer numbers, got {name!r}.")
    if not 1 <= num_layers <= num_teacher_layers:
        raise RecipeError(
            f"num_layers: expected 1 to {num_teacher_layers}, the layers of the model that it is cut from, got "
            f"{num_layers}. Take fewer layers, or a deeper model."
        )
    return [LAYER_MAPS[name](i, num_teacher_layers, num_layers) for i in range(num_layers)]
