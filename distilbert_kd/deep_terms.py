"""The terms of the objective that look inside the models: their names, what each needs, and their values.

    L = (1 - alpha) * L_hard + alpha * L_soft + sum_k weight_k * L_k

Each L_k is a mean over its pairs of layers and over the tokens of a row (see `distilbert_kd.losses.hidden_states` and
`distilbert_kd.losses.attention` for the formulas).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from distilbert_kd.errors import RecipeError, TeacherError
from distilbert_kd.losses.attention import attention_kl, attention_mse, relation_kl
from distilbert_kd.losses.hidden_states import first_position, hidden_cosine, hidden_mse
from distilbert_kd.matched_layers import resolve_matched_layers
from distilbert_kd.signals import EMBEDDINGS, Signal, SignalName, captured, check_signals
from distilbert_kd.student.build import count_layers


__all__ = ["DEEP_TERMS", "PROJECTIONS", "DeepTerms", "Term", "TermLike", "checked_terms", "without_projections"]

#: The student's submodule that brings its hidden states to the teacher's width, while it is trained.
PROJECTIONS = "distillation_projections"

#: Attention scores are q k^T in these; others add position biases or rotate.
_PLAIN_ATTENTION = ("bert", "roberta", "electra", "distilbert")


@dataclass(frozen=True)
class Term:
    """How a term enters the objective.

    Attributes:
        weight: At least 0; 0 is as good as leaving the term out.
        layers: A name in `distilbert_kd.matched_layers`, pairs (student layer, teacher layer), or None for the
            term's own default.
        num_relation_heads: Of a relation; the student's attention heads by default.
    """

    weight: float
    layers: str | Sequence[Sequence[int]] | None = None
    num_relation_heads: int | None = None


#: What stands for a term: a weight, a `Term`, or its attributes by name, as in a recipe.
TermLike = Term | Mapping[str, Any] | float


@dataclass(frozen=True)
class _Kind:
    """What a term needs of each layer, which layers it compares unless told otherwise, and its formula."""

    signals: tuple[SignalName, ...]
    layers: str
    formula: Callable[..., Tensor]
    heads: Literal["none", "attention", "relation"] = "none"


DEEP_TERMS: dict[str, _Kind] = {
    "hidden_cosine": _Kind(("hidden_states",), "last", hidden_cosine),
    "hidden_mse": _Kind(("hidden_states",), "uniform", hidden_mse),
    "first_position": _Kind(("hidden_states",), "skip", first_position),
    "attention_mse": _Kind(("query", "key"), "uniform", attention_mse, "attention"),
    "attention_kl": _Kind(("query", "key"), "last", attention_kl, "attention"),
    "query_relation": _Kind(("query",), "last", relation_kl, "relation"),
    "key_relation": _Kind(("key",), "last", relation_kl, "relation"),
    "value_relation": _Kind(("value",), "last", relation_kl, "relation"),
}


@dataclass(frozen=True)
class _Resolved:
    """A term for two models that are known."""

    kind: _Kind
    weight: float
    pairs: list[tuple[int, int]]
    num_heads: int | None


class DeepTerms:
    """The terms for one student and one teacher.

    Where their widths differ, there is a learned projection (without bias) for each student layer whose hidden states
    are compared. While it is trained, within `attached`, the student has them as a submodule, `PROJECTIONS`: they are
    optimised, wrapped and saved in checkpoints with it, and used within its forward pass. Before and after, the
    student is a stock model; `without_projections` leaves them out of a model folder on the way.
    """

    def __init__(self, student: PreTrainedModel, teacher: PreTrainedModel, terms: Mapping[str, TermLike]) -> None:
        """Resolves layers and heads, and makes the projections.

        Args:
            student: the model itself, not a wrapper.
            teacher: likewise.
            terms: by name, see `DEEP_TERMS`; a number is a weight.

        Raises:
            RecipeError: as in `checked_terms`, or layers that are not there, or heads that don't fit.
            TeacherError: a model can't give what a term needs.
        """
        self.student, self.teacher = student, teacher
        self.terms = {
            name: _resolve(name, term, student, teacher)
            for name, term in checked_terms(terms).items()
            if term.weight > 0
        }
        self._student_signals = {signal for term in self.terms.values() for signal in _signals(term, 0)}
        self._teacher_signals = {signal for term in self.terms.values() for signal in _signals(term, 1)}
        check_signals(student, self._student_signals)
        check_signals(teacher, self._teacher_signals)
        self._student_found: dict[Signal, Tensor] = {}
        self._teacher_found: dict[Signal, Tensor] = {}
        self.projections = _new_projections(student, teacher, self._student_signals)

    def __bool__(self) -> bool:
        """Whether there is any term with a weight."""
        return bool(self.terms)

    @property
    def weights(self) -> dict[str, float]:
        """The weight of each term."""
        return {name: term.weight for name, term in self.terms.items()}

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Within it, the student has its projections as a submodule, if it needs any."""
        if self.projections is not None:
            self.student.add_module(PROJECTIONS, self.projections)
        try:
            yield
        finally:
            self.student._modules.pop(PROJECTIONS, None)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Within it, one forward pass of the student and one of the teacher leave behind what the terms need."""
        with (
            captured(self.student, self._student_signals, self._projected) as self._student_found,
            captured(self.teacher, self._teacher_signals) as self._teacher_found,
        ):
            try:
                yield
            finally:
                self._student_found, self._teacher_found = {}, {}

    def values(self, mask: Tensor) -> dict[str, Tensor]:
        """The terms, without their weights, at each position; to be called while `listening`, after both passes.

        Args:
            mask: (B, L), 1 where there is a token.

        Returns:
            For each term (B, L), or (B, 1) where it concerns the first position alone; 0 where the mask is 0.
        """
        return {name: self._value(term, mask) for name, term in self.terms.items()}

    def row_values(self, mask: Tensor) -> dict[str, Tensor]:
        """The terms, without their weights, as means over the tokens of each row; 0 for a row without any.

        Args:
            mask: (B, L), 1 where there is a token.

        Returns:
            (B,) for each term.
        """
        means = {}
        for name, values in self.values(mask).items():
            num_tokens = mask[:, : values.shape[1]].sum(dim=1).clamp(min=1)
            means[name] = values.sum(dim=1) / num_tokens
        return means

    def _value(self, term: _Resolved, mask: Tensor) -> Tensor:
        heads = {} if term.num_heads is None else {_HEADS_ARGUMENT[term.kind.heads]: term.num_heads}
        values = []
        for student_layer, teacher_layer in term.pairs:
            student = [self._student_found[Signal(name, student_layer)] for name in term.kind.signals]
            teacher = [self._teacher_found[Signal(name, teacher_layer)] for name in term.kind.signals]
            both = (student[0], teacher[0]) if len(student) == 1 else (tuple(student), tuple(teacher))
            values.append(term.kind.formula(*both, mask, **heads))
        return torch.stack(values).mean(dim=0)

    def _projected(self, signal: Signal, states: Tensor) -> Tensor:
        if self.projections is None or signal.name != "hidden_states":
            return states
        return self.projections[_projection_name(signal)](states)


@contextmanager
def without_projections(student: nn.Module) -> Iterator[None]:
    """Within it, the student is a stock model again: its projections are not among its weights.

    Args:
        student: with or without projections.
    """
    projections = student._modules.pop(PROJECTIONS, None)
    try:
        yield
    finally:
        if projections is not None:
            student.add_module(PROJECTIONS, projections)


_HEADS_ARGUMENT = {"attention": "num_heads", "relation": "num_relation_heads"}


def checked_terms(terms: Mapping[str, TermLike]) -> dict[str, Term]:
    """Deeper terms as `Term`s.

    Args:
        terms: by name, see `DEEP_TERMS`.

    Returns:
        Terms by name; those of weight 0 too.

    Raises:
        RecipeError: it is no mapping, a name is unknown, something stands for no term, or a weight is negative.
    """
    if not isinstance(terms, Mapping):
        raise RecipeError(f'terms: expected weights by name, such as {{"hidden_cosine": 1.0}}, got {terms!r}.')
    return {name: _checked_term(name, term) for name, term in terms.items()}


def _checked_term(name: str, given: TermLike) -> Term:
    if name not in DEEP_TERMS:
        raise RecipeError(f"terms: expected names among {', '.join(DEEP_TERMS)}, got {name!r}.")
    try:
        term = given if isinstance(given, Term) else Term(**given) if isinstance(given, Mapping) else Term(given)
    except TypeError:
        keys = ", ".join(each.name for each in fields(Term))
        raise RecipeError(f"terms.{name}: expected weight, and keys among {keys}; got {given!r}.") from None
    weight: Any = term.weight
    if not isinstance(weight, int | float) or not 0 <= weight < float("inf"):
        raise RecipeError(f"terms.{name}: expected a weight, a number of at least 0, got {weight!r}.")
    if term.num_relation_heads is not None and DEEP_TERMS[name].heads != "relation":
        raise RecipeError(f"terms.{name}: expected num_relation_heads for a relation only. Leave it out.")
    return term


def _resolve(name: str, term: Term, student: PreTrainedModel, teacher: PreTrainedModel) -> _Resolved:
    kind = DEEP_TERMS[name]
    layers = kind.layers if term.layers is None else term.layers
    try:
        pairs = resolve_matched_layers(count_layers(student), count_layers(teacher), layers)
    except RecipeError as error:
        raise RecipeError(f"terms.{name}.{error}") from None
    return _Resolved(kind, term.weight, pairs, _num_heads(name, term, student, teacher))


def _num_heads(name: str, term: Term, student: PreTrainedModel, teacher: PreTrainedModel) -> int | None:
    heads = DEEP_TERMS[name].heads
    student_heads, teacher_heads = student.config.num_attention_heads, teacher.config.num_attention_heads
    if heads == "attention":
        odd = [model for model in (student, teacher) if model.config.model_type not in _PLAIN_ATTENTION]
        if odd:
            raise TeacherError(
                f"Expected one of {', '.join(_PLAIN_ATTENTION)} for {name}, got {type(odd[0]).__name__}, whose "
                "attention scores are more than query times key. Take the relations."
            )
        if student_heads != teacher_heads:
            raise TeacherError(
                f"Expected as many attention heads in both models for {name}, got {student_heads} in the student and "
                f"{teacher_heads} in the teacher. Take the relations, whose heads are free."
            )
        return student_heads
    if heads == "none":
        return None
    wanted = student_heads if term.num_relation_heads is None else term.num_relation_heads
    for model in (student, teacher):
        if wanted < 1 or model.config.hidden_size % wanted:
            raise RecipeError(
                f"terms.{name}: expected a number of relation heads that divides the width "
                f"{model.config.hidden_size} of {type(model).__name__}, got {wanted}. Set num_relation_heads."
            )
    return wanted


def _signals(term: _Resolved, side: int) -> Iterator[Signal]:
    for pair in term.pairs:
        for name in term.kind.signals:
            yield Signal(name, pair[side])


def _projection_name(signal: Signal) -> str:
    return "embeddings" if signal.layer == EMBEDDINGS else f"layer_{signal.layer}"


def _new_projections(student: PreTrainedModel, teacher: PreTrainedModel, signals: set[Signal]) -> nn.ModuleDict | None:
    widths = student.config.hidden_size, teacher.config.hidden_size
    hidden = sorted({signal.layer for signal in signals if signal.name == "hidden_states"})
    if widths[0] == widths[1] or not hidden:
        return None
    names = [_projection_name(Signal("hidden_states", layer)) for layer in hidden]
    return nn.ModuleDict(
        {name: nn.Linear(*widths, bias=False, device=student.device, dtype=student.dtype) for name in names}
    )
