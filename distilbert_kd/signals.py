"""What a model computes on the way: hidden states, queries, keys and values of chosen layers.

They are taken by forward hooks on the model's own modules, for one forward pass. So nothing depends on
`output_hidden_states` and `output_attentions`, whose second gives an empty tuple under sdpa, and what no term wants is
not kept.
"""

from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from torch import Tensor, nn
from transformers import PreTrainedModel

from distilbert_kd.errors import TeacherError
from distilbert_kd.student.build import count_layers, encoder_layers


__all__ = ["EMBEDDINGS", "Signal", "SignalName", "captured", "check_signals"]

#: The "layer" whose output is the embeddings, which are the input of layer 0.
EMBEDDINGS = -1

SignalName = Literal["hidden_states", "query", "key", "value"]

#: Where each architecture's layers project queries, keys and values (`config.model_type` -> path of each).
_PROJECTIONS: dict[str, dict[str, str]] = {
    **dict.fromkeys(
        ("bert", "roberta", "electra"),
        {name: f"attention.self.{name}" for name in ("query", "key", "value")},
    ),
    "distilbert": {"query": "attention.q_lin", "key": "attention.k_lin", "value": "attention.v_lin"},
    "mpnet": {"query": "attention.attn.q", "key": "attention.attn.k", "value": "attention.attn.v"},
    "deberta-v2": {name: f"attention.self.{name}_proj" for name in ("query", "key", "value")},
}


@dataclass(frozen=True)
class Signal:
    """One of the things that a layer computes.

    Attributes:
        name: `hidden_states` is the layer's output, the others are the outputs of its projections: (B, L, H) each.
        layer: From 0; `EMBEDDINGS` for the hidden states before the first layer.
    """

    name: SignalName
    layer: int


@contextmanager
def captured(
    model: PreTrainedModel,
    wanted: Collection[Signal],
    change: Callable[[Signal, Tensor], Tensor] | None = None,
) -> Iterator[dict[Signal, Tensor]]:
    """Within it, a forward pass of the model leaves its signals behind.

    Args:
        model: the model itself, not a wrapper of it (a forward pass through a wrapper is as good).
        wanted: the signals.
        change: is applied to each within the forward pass, such as a projection that is part of the model.

    Yields:
        A dictionary that each forward pass fills.
    """
    found: dict[Signal, Tensor] = {}

    def keep(signal: Signal, output: Any) -> None:
        states = output[0] if isinstance(output, tuple) else output
        found[signal] = states if change is None else change(signal, states)

    with ExitStack() as stack:
        for signal in wanted:
            stack.callback(_hook(model, signal, partial(keep, signal)).remove)
        yield found


def _hook(model: PreTrainedModel, signal: Signal, keep: Callable[[Any], None]) -> Any:
    layers = encoder_layers(model)
    if signal.name != "hidden_states":
        module = layers[signal.layer].get_submodule(_PROJECTIONS[model.config.model_type][signal.name])
    elif signal.layer + 1 == len(layers):
        module = getattr(model.base_model, "final_norm", layers[signal.layer])  # ModernBERT's last word
    else:  # what the next layer is given: DeBERTa's convolution comes between its first two

        def before(_module: nn.Module, arguments: tuple, named: dict[str, Any]) -> None:
            keep(arguments[0] if arguments else named["hidden_states"])

        return layers[signal.layer + 1].register_forward_pre_hook(before, with_kwargs=True)
    return module.register_forward_hook(lambda _module, _arguments, output: keep(output))


def check_signals(model: PreTrainedModel, wanted: Collection[Signal]) -> None:
    """Refuses what the model can't give.

    Args:
        model: a teacher or student.
        wanted: the signals.

    Raises:
        TeacherError: no such layer, or an architecture without separate projections.
    """
    num_layers = count_layers(model)
    for signal in sorted(wanted, key=lambda signal: (signal.layer, signal.name)):
        if not EMBEDDINGS <= signal.layer < num_layers or (
            signal.layer == EMBEDDINGS and signal.name != "hidden_states"
        ):
            raise TeacherError(
                f"Expected layers from 0 to {num_layers - 1} of {type(model).__name__} (-1 for the embeddings, hidden "
                f"states only), got {signal.layer} for {signal.name}. Correct the layers of the term."
            )
        if signal.name != "hidden_states" and model.config.model_type not in _PROJECTIONS:
            raise TeacherError(
                f"Expected an architecture whose queries, keys and values are projected one by one "
                f"({', '.join(_PROJECTIONS)}), got {type(model).__name__}. Take terms of hidden states for it."
            )
