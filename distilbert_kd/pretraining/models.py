"""The models of a task-agnostic distillation: with the head of a masked language model, or without any."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from transformers import AutoModel, AutoModelForMaskedLM, PreTrainedModel

from distilbert_kd.errors import TeacherError
from distilbert_kd.teacher import load_model


__all__ = ["decoder_of", "headless", "load_language_model", "undecoded"]


def load_language_model(name: str, revision: str | None, needs_head: bool) -> PreTrainedModel:
    """An encoder, whole: every weight comes from its checkpoint, except those of a pooler.

    Args:
        name: Hub id, folder, or `package:DISTRIBUTION`.
        revision: of the Hub repository.
        needs_head: whether it must have the head of a masked language model; without, it comes without any.

    Returns:
        The model in float32, in eval mode, on the CPU.

    Raises:
        TeacherError: it can't be loaded, or weights are missing in its checkpoint, such as those of the head.
    """
    kind: Any = AutoModelForMaskedLM if needs_head else AutoModel
    model, loading = load_model(name, revision, kind)
    missing = sorted(key for key in loading["missing_keys"] if "pooler." not in key)
    if missing and needs_head:
        raise headless(name, f"a checkpoint without {', '.join(missing[:4])}")
    if missing:
        raise TeacherError(
            f"Expected the weights of an encoder in {name}, got a checkpoint without {', '.join(missing[:4])}. "
            "Take a whole checkpoint."
        )
    return model.eval()


def headless(name: str, got: str) -> TeacherError:
    """The error for a model whose head of a masked language model would be random.

    Args:
        name: of the model.
        got: what it has instead.

    Returns:
        The error, to be raised.
    """
    return TeacherError(
        f"Expected a masked language model in {name}, got {got}: the head would be random. A sentence encoder has "
        "none. Distil it by hidden states and relations alone: set objective.soft_targets=0 and "
        "objective.masked_language_model=0, and name objective.terms."
    )


def decoder_of(model: PreTrainedModel) -> nn.Linear:
    """The last layer of a masked language model's head, from its width to the vocabulary.

    Args:
        model: with a head.

    Returns:
        The layer itself.

    Raises:
        TeacherError: the model has none.
    """
    decoder = model.get_output_embeddings()
    if not isinstance(decoder, nn.Linear) or decoder.out_features != model.config.vocab_size:
        raise TeacherError(
            f"Expected a masked language model whose head ends in a linear layer, got {type(model).__name__}. "
            "Set objective.soft_targets=0 and objective.masked_language_model=0 for it."
        )
    return decoder


@contextmanager
def undecoded(model: PreTrainedModel) -> Iterator[None]:
    """Within it, a masked language model gives in place of logits, (B, L, V), what its decoder would read, (B, L, H).

    Args:
        model: the model itself, not a wrapper of it.
    """
    decoder: Any = decoder_of(model)
    decoder.forward = _unchanged
    try:
        yield
    finally:
        del decoder.forward


def _unchanged(states: Tensor) -> Tensor:
    return states
