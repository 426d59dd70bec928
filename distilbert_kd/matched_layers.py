"""Which student layer is compared with which teacher layer.

Not the same question as which layer the student starts from (`student.layer_maps`). Matched layers are pairs (student
layer, teacher layer), counted from 0; -1 are the embeddings, the input of layer 0. With N teacher layers and M student
layers, the named ones are:

| name | student layer i is compared with teacher layer | M = 6, N = 12 | source |
|---|---|---|---|
| `last` | N - 1, for i = M - 1 alone | 5-11 | DistilBERT, MiniLM |
| `uniform` | ceil((i + 1) N / M) - 1 | 0-1 1-3 2-5 3-7 4-9 5-11 | TinyBERT: g(m) = m N / M |
| `uniform_and_embeddings` | the same, and -1 with -1 | -1--1 0-1 1-3 2-5 3-7 4-9 5-11 | TinyBERT, equations 8 and 9 |
| `skip` | the same without the last layer | 0-1 1-3 2-5 3-7 4-9 | Sun et al. 2019 (PKD-Skip) |
"""

from collections.abc import Callable, Sequence

from distilbert_kd.errors import RecipeError


__all__ = ["MATCHED_LAYERS", "resolve_matched_layers"]

Pair = tuple[int, int]


def _uniform(num_student_layers: int, num_teacher_layers: int) -> list[Pair]:
    return [(i, -(-(i + 1) * num_teacher_layers // num_student_layers) - 1) for i in range(num_student_layers)]


MATCHED_LAYERS: dict[str, Callable[[int, int], list[Pair]]] = {
    "last": lambda m, n: [(m - 1, n - 1)],
    "uniform": _uniform,
    "uniform_and_embeddings": lambda m, n: [(-1, -1), *_uniform(m, n)],
    "skip": lambda m, n: _uniform(m, n)[:-1],
}


def resolve_matched_layers(
    num_student_layers: int, num_teacher_layers: int, layers: str | Sequence[Sequence[int]]
) -> list[Pair]:
    """The pairs of layers that a term compares.

    Args:
        num_student_layers: M.
        num_teacher_layers: N.
        layers: a name in `MATCHED_LAYERS`, or pairs (student layer, teacher layer).

    Returns:
        At least one pair; layers from 0, and -1 for the embeddings.

    Raises:
        RecipeError: an unknown name, a layer that isn't there, a pair twice, or no pair at all.
    """
    if isinstance(layers, str):
        if layers not in MATCHED_LAYERS:
            known = ", ".join(MATCHED_LAYERS)
            raise RecipeError(
                f"layers: expected one of {known}, or pairs [student layer, teacher layer]; got {layers!r}."
            )
        pairs = MATCHED_LAYERS[layers](num_student_layers, num_teacher_layers)
    else:
        pairs = [(student, teacher) for student, teacher in layers]
    are_there = all(-1 <= i < num_student_layers and -1 <= j < num_teacher_layers for i, j in pairs)
    if not pairs or not are_there or len(set(pairs)) < len(pairs):
        raise RecipeError(
            f"layers: expected pairs of student layers, 0 to {num_student_layers - 1}, and teacher layers, 0 to "
            f"{num_teacher_layers - 1} (-1: the embeddings), each pair once; got {layers!r}"
            f"{'' if pairs else ', which leaves none for so few layers'}."
        )
    return pairs
