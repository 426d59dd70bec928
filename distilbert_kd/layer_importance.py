"""How near a teacher without some of its layers is to the whole one, before any training.

"How far" is the mean over the rows of KL(teacher || model) in nats, or the mean squared difference where the output is
a number.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import datasets
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainingArguments

from distilbert_kd.errors import TeacherError
from distilbert_kd.evaluation import evaluate_logits
from distilbert_kd.scoring import labels_of, predict_logits
from distilbert_kd.student.build import build_student, count_layers
from distilbert_kd.teacher_cache import logits_column


__all__ = [
    "LayerImportance",
    "Measure",
    "Nearness",
    "eliminate_backward",
    "layer_importance",
    "measure_cut",
    "measure_on",
    "most_important",
]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Nearness:
    """One model beside the teacher, on some rows.

    Attributes:
        divergence: Mean KL(teacher || model) in nats, or mean squared difference for regression; 0 where equal.
        score: The task's main number, see `distilbert_kd.metrics.score`.
    """

    divergence: float
    score: float


Measure = Callable[[PreTrainedModel], Nearness]


@dataclass(frozen=True)
class LayerImportance:
    """What the teacher is without one of its layers; None where the architecture can't be cut there."""

    layer: int
    without: Nearness | None


def measure_on(
    rows: datasets.Dataset,
    teacher_logits: datasets.Dataset,
    tokenizer: PreTrainedTokenizerBase,
    metric: str,
    arguments: TrainingArguments,
) -> Measure:
    """A function that holds a model against the teacher on some rows.

    Args:
        rows: tokenised and labelled.
        teacher_logits: the teacher's answers to them, as a column.
        tokenizer: pads the rows.
        metric: see `distilbert_kd.metrics`.
        arguments: batch size, device and precision.

    Returns:
        The function; a model that it measured is left in eval mode.
    """
    theirs, labels = logits_column(teacher_logits), labels_of(rows)

    def measure(model: PreTrainedModel) -> Nearness:
        result = evaluate_logits(metric, predict_logits(model, tokenizer, rows, arguments), labels, theirs)
        fidelity = result.fidelity
        assert fidelity is not None
        divergence = fidelity.mean_squared_difference if fidelity.kl_nats is None else fidelity.kl_nats
        assert divergence is not None
        return Nearness(divergence, result.score)

    return measure


def measure_cut(teacher: PreTrainedModel, layers: Sequence[int], measure: Measure) -> Nearness | None:
    """The teacher with some of its layers and no training, as measured.

    Args:
        teacher: a fine-tuned classifier.
        layers: that stay, increasing.
        measure: on the rows in question.

    Returns:
        How near it is; None if a layer can't stand where it would come to stand.
    """
    try:
        student = build_student(teacher, layers=list(layers))
    except TeacherError:
        return None
    return measure(student)


def layer_importance(teacher: PreTrainedModel, measure: Measure) -> list[LayerImportance]:
    """How far the teacher moves when each layer alone is taken out.

    Args:
        teacher: a fine-tuned classifier of two layers or more.
        measure: on the rows that may choose.

    Returns:
        One record a layer, from layer 0 on.
    """
    num_layers = count_layers(teacher)
    importance = []
    for layer in range(num_layers):
        without = measure_cut(teacher, [other for other in range(num_layers) if other != layer], measure)
        importance.append(LayerImportance(layer, without))
        moved = "can't be removed" if without is None else f"removed: {without.divergence:.4f} from the teacher"
        logger.info("layers: layer %d of 0 to %d %s", layer, num_layers - 1, moved)
    return importance


def most_important(importance: Sequence[LayerImportance], num_layers: int) -> list[int]:
    """The layers whose removal moves the teacher farthest, of equals the lower ones; one that can't go stays.

    Args:
        importance: from `layer_importance`.
        num_layers: how many to keep.

    Returns:
        Layer numbers, increasing.
    """

    def by_need(each: LayerImportance) -> tuple[float, int]:
        return (-float("inf") if each.without is None else -each.without.divergence, each.layer)

    return sorted(each.layer for each in sorted(importance, key=by_need)[:num_layers])


def eliminate_backward(
    teacher: PreTrainedModel, num_layers: int, measure: Measure, importance: Sequence[LayerImportance]
) -> list[int]:
    """Takes out the layer that is missed least, then the one that is missed least of the rest, and so on.

    Importance takes each layer out alone, and two layers can each stand in for the other; this sees that they can't
    both go.

    Args:
        teacher: a fine-tuned classifier.
        num_layers: how many layers to keep.
        measure: on the rows that may choose; it is asked up to once for each layer that is left, in each round.
        importance: the first round, from `layer_importance`.

    Returns:
        Layer numbers, increasing.

    Raises:
        TeacherError: no layer can be taken out any more.
    """
    kept = [each.layer for each in importance]
    distances = {each.layer: each.without for each in importance}
    while len(kept) > num_layers:
        possible = {layer: without for layer, without in distances.items() if without is not None}
        if not possible:
            raise TeacherError(
                f"Expected to cut {type(teacher).__name__} to {num_layers} layers, got stuck at {kept}: none of these "
                "can be taken out. Search without backward elimination."
            )
        least = min(possible, key=lambda layer: (possible[layer].divergence, layer))
        kept.remove(least)
        logger.info("layers: backward: without %d, %s is left", least, " ".join(map(str, kept)))
        if len(kept) > num_layers:
            distances = {layer: measure_cut(teacher, [k for k in kept if k != layer], measure) for layer in kept}
    return kept
