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

from transformers import PreTrainedModel

from distilbert_kd.errors import TeacherError
from distilbert_kd.layer_importance import (
    LayerImportance,
    Measure,
    Nearness,
    eliminate_backward,
    layer_importance,
    measure_cut,
    most_important,
)
from distilbert_kd.student.build import count_layers
from distilbert_kd.student.layer_maps import LAYER_MAPS, resolve_layers


__all__ = ["Candidate", "LayerSearch", "MapResult", "candidate_maps", "search_layers"]

logger = logging.getLogger(__name__)


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
        cut = measure_cut(teacher, candidate.layers, judge_by)
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
