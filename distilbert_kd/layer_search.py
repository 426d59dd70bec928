"""Which teacher layers to keep, found cheaply on a sample.

Three questions, from the cheapest to the one that decides:

1. *Importance*: how far do the teacher's answers move when one layer is taken out? One pass over some rows a layer.
2. *Cut*: how far is each map's model from the teacher before any training?
3. *Distilled*: and after a short distillation on a sample of the training rows? This one ranks the maps.
   Layers that are missed at once need not be those that a student can't learn to do without.

"How far" is the mean over the rows of KL(teacher || model) in nats, or the mean squared difference where the output is
a number. It ranks, and not the score: a few hundred rows decide a score of 80 to two points only, while every row says
something of the divergence.

Nothing here knows a recipe or a file: rows come in as functions that measure a model, so that whoever calls decides
which rows may choose (a sample to train on) and which may judge (rows that no student has seen).
"""

import logging
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import datasets
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainingArguments

from distilbert_kd.errors import TeacherError
from distilbert_kd.evaluation import evaluate_logits
from distilbert_kd.scoring import labels_of, predict_logits
from distilbert_kd.student.build import build_student, count_layers
from distilbert_kd.student.layer_maps import LAYER_MAPS, resolve_layers
from distilbert_kd.teacher_cache import logits_column


__all__ = [
    "Candidate",
    "LayerImportance",
    "LayerSearch",
    "MapResult",
    "Measure",
    "Nearness",
    "candidate_maps",
    "eliminate_backward",
    "layer_importance",
    "measure_on",
    "most_important",
    "search_layers",
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


@dataclass(frozen=True)
class Candidate:
    """A layer map, under all the names that lead to it."""

    names: tuple[str, ...]
    layers: tuple[int, ...]


@dataclass(frozen=True)
class MapResult:
    """A candidate on the rows that judge.

    Attributes:
        candidate: The map.
        cut: Before any training.
        distilled: After a short distillation, one for each seed.
    """

    candidate: Candidate
    cut: Nearness
    distilled: tuple[Nearness, ...]

    @property
    def divergence(self) -> float:
        """Mean over the seeds, after distillation: what ranks."""
        return statistics.fmean(each.divergence for each in self.distilled)


@dataclass(frozen=True)
class LayerSearch:
    """All that was found.

    Attributes:
        num_teacher_layers: N.
        num_layers: M of the student.
        importance: One record a layer, by its number; measured on the rows that choose.
        ranking: The maps, nearest to the teacher first; measured on the rows that judge.
    """

    num_teacher_layers: int
    num_layers: int
    importance: tuple[LayerImportance, ...]
    ranking: tuple[MapResult, ...]


def search_layers(
    teacher: PreTrainedModel,
    num_layers: int,
    choose_by: Measure,
    judge_by: Measure,
    distil: Callable[[list[int], int], PreTrainedModel],
    seeds: Sequence[int],
    given: Mapping[str, Sequence[int]] | None = None,
    is_backward_wanted: bool = True,
) -> LayerSearch:
    """Ranks the named maps, and those that importance suggests, after a short distillation each.

    Args:
        teacher: a fine-tuned classifier.
        num_layers: M, depth of the student.
        choose_by: measures on the rows that importance is taken from.
        judge_by: measures on rows that neither `choose_by` nor `distil` has seen.
        distil: layers and a seed to a trained student. It must start from the seed alone, or the ranking depends on
            the order of the candidates.
        seeds: of the distillations; at least one.
        given: further maps by name, such as the recipe's own list.
        is_backward_wanted: whether layers are also eliminated one by one, which takes about (N^2 - M^2) / 2 passes.

    Returns:
        The findings.

    Raises:
        RecipeError: the depth or a given map doesn't fit the teacher.
        TeacherError: the architecture can't be cut.
    """
    num_teacher_layers = count_layers(teacher)
    resolve_layers(num_teacher_layers, num_layers)  # refuses a wrong depth before any pass
    importance = layer_importance(teacher, choose_by)
    found: dict[str, Sequence[int]] = {"importance": most_important(importance, num_layers)}
    if is_backward_wanted:
        found["backward"] = eliminate_backward(teacher, num_layers, choose_by, importance)
    candidates = candidate_maps(num_teacher_layers, num_layers, {**found, **(given or {})})
    results = []
    for number, candidate in enumerate(candidates, start=1):
        cut = _cut(teacher, candidate.layers, judge_by)
        if cut is None:
            logger.warning("layers: %s is left out: the architecture can't be cut there", list(candidate.layers))
            continue
        distilled = tuple(judge_by(distil(list(candidate.layers), seed)) for seed in seeds)
        results.append(MapResult(candidate, cut, distilled))
        logger.info(
            "layers: map %d of %d, %s (%s): %.4f from the teacher, %.4f before distillation",
            number,
            len(candidates),
            " ".join(map(str, candidate.layers)),
            ", ".join(candidate.names),
            results[-1].divergence,
            cut.divergence,
        )
    if not results:
        raise TeacherError(
            f"Expected a teacher that some layer map can cut, got {type(teacher).__name__}, which none of "
            f"{', '.join(name for each in candidates for name in each.names)} can. Give student.layers as a list."
        )
    ranking = tuple(sorted(results, key=lambda result: (result.divergence, result.candidate.layers)))
    return LayerSearch(num_teacher_layers, num_layers, tuple(importance), ranking)


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
        without = _cut(teacher, [other for other in range(num_layers) if other != layer], measure)
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
            distances = {layer: _cut(teacher, [k for k in kept if k != layer], measure) for layer in kept}
    return kept


def candidate_maps(
    num_teacher_layers: int, num_layers: int, found: Mapping[str, Sequence[int]] | None = None
) -> list[Candidate]:
    """The named maps and further ones, each set of layers once.

    Args:
        num_teacher_layers: N.
        num_layers: M.
        found: further maps by name.

    Returns:
        Candidates in the order of their first names.

    Raises:
        RecipeError: a depth or a map that doesn't fit.
    """
    maps: dict[str, str | Sequence[int]] = {name: name for name in LAYER_MAPS} | dict(found or {})
    names_of: dict[tuple[int, ...], list[str]] = {}
    for name, layers in maps.items():
        names_of.setdefault(tuple(resolve_layers(num_teacher_layers, num_layers, layers)), []).append(name)
    return [Candidate(tuple(names), layers) for layers, names in names_of.items()]


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


def _cut(teacher: PreTrainedModel, layers: Sequence[int], measure: Measure) -> Nearness | None:
    """The teacher with some of its layers, as measured; None if a layer can't stand where it would come to stand."""
    try:
        student = build_student(teacher, layers=list(layers))
    except TeacherError:
        return None
    return measure(student)
