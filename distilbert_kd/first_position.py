"""The last encoder layer for the first position alone.

A sequence classifier's head reads the first position of the last layer and nothing else. So of that layer only the
keys and values of the other positions are needed; their queries, attention outputs and feed-forwards are computed for
nobody. Leaving them out changes no logit and no gradient, and saves about five sixths of one layer: with H the width,
10 of the 12 H^2 multiplications a position (query 1, output 1, feed-forward 8; keys and values stay).

The forward of each architecture's layer is written out below for this case, after transformers' own; the test compares
the two. Modules and weights are the model's: a saved model is a stock one, and outside the context it computes as
ever.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.modernbert.modeling_modernbert import apply_rotary_pos_emb

from distilbert_kd.student.build import encoder_layers


__all__ = ["first_position_only", "reads_first_position_only"]


def reads_first_position_only(model: Any) -> bool:
    """Whether the logits depend on the first position of the last layer alone, in a way that is known here."""
    if not isinstance(model, PreTrainedModel) or model.config.model_type not in _FORWARDS:
        return False
    config, last = model.config, cast(Any, encoder_layers(model)[-1])
    if config._attn_implementation not in ("eager", "sdpa"):
        return False  # flash attention aligns a sliding window with the last query
    if getattr(last, "gradient_checkpointing", False):
        return False  # the layer is run again in the backward pass, outside the context
    if config.model_type == "deberta-v2" and config.num_hidden_layers == 1:
        return False  # its convolution mixes the first layer's positions
    if config.model_type == "modernbert" and type(last.attn.Wqkv) is not nn.Linear:
        return False  # adapters and quantised layers are more than their weight
    is_plain = not (config.output_hidden_states or config.output_attentions)
    is_classifier = type(model).__name__.endswith("ForSequenceClassification")
    return is_plain and is_classifier and getattr(config, "classifier_pooling", "cls") == "cls"


@contextmanager
def first_position_only(model: Any) -> Iterator[None]:
    """Within it, the last layer of a sequence classifier computes its first position only; other models are let be.

    The model's `last_hidden_state` then has one position, (B, 1, H). Not for calls that ask for hidden states or
    attentions.

    Args:
        model: the model itself, not a wrapper of it.
    """
    layer: Any = encoder_layers(model)[-1] if reads_first_position_only(model) else None
    if layer is None or "forward" in vars(layer):  # no such model, or within the context already
        yield
        return
    # One function object for the life of the layer, so that a compiled forward is not compiled again.
    if not hasattr(layer, "_first_position_forward"):
        layer._first_position_forward = partial(_FORWARDS[model.config.model_type], layer)
    layer.forward = layer._first_position_forward
    try:
        yield
    finally:
        del layer.forward


def _of_first(mask: Tensor | None) -> Tensor | None:
    """The part of an attention mask, (B, A, queries, keys), that concerns the first query."""
    return mask[:, :, :1] if isinstance(mask, Tensor) and mask.dim() == 4 else mask


def _attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    dropout: float,
    scaling: float,
    **kwargs: Any,
) -> Tensor:
    """The model's own attention function on (B, A, 1, D) queries and (B, A, L, D) keys and values: (B, 1, H)."""
    eager = sys.modules[type(module).__module__].eager_attention_forward
    attend = ALL_ATTENTION_FUNCTIONS.get_interface(module.config._attn_implementation, eager)
    dropout = dropout if module.training else 0.0
    output, _ = attend(module, query, key, value, _of_first(mask), dropout=dropout, scaling=scaling, **kwargs)
    return output.reshape(len(query), 1, -1)


def _by_heads(states: Tensor, head_size: int) -> Tensor:
    """(B, L, H) to (B, A, L, D)."""
    return states.view(*states.shape[:2], -1, head_size).transpose(1, 2)


def _bert(layer: Any, hidden_states: Tensor, attention_mask: Tensor | None = None, *_: Any, **__: Any) -> Tensor:
    """BERT, RoBERTa and ELECTRA. Source: BertLayer.forward in transformers/models/bert/modeling_bert.py."""
    attention, first = layer.attention.self, hidden_states[:, :1]
    size = attention.attention_head_size
    query = _by_heads(attention.query(first), size)
    key, value = (_by_heads(part(hidden_states), size) for part in (attention.key, attention.value))
    context = _attention(attention, query, key, value, attention_mask, attention.dropout.p, attention.scaling)
    return layer.feed_forward_chunk(layer.attention.output(context, first))


def _distilbert(layer: Any, hidden_states: Tensor, attention_mask: Tensor | None = None, **_: Any) -> Tensor:
    """Source: TransformerBlock.forward in transformers/models/distilbert/modeling_distilbert.py."""
    attention, first = layer.attention, hidden_states[:, :1]
    size = attention.attention_head_size
    query = _by_heads(attention.q_lin(first), size)
    key, value = (_by_heads(part(hidden_states), size) for part in (attention.k_lin, attention.v_lin))
    context = _attention(attention, query, key, value, attention_mask, attention.dropout.p, attention.scaling)
    attended = layer.sa_layer_norm(attention.out_lin(context) + first)
    return layer.output_layer_norm(layer.ffn(attended) + attended)


def _mpnet(
    layer: Any,
    hidden_states: Tensor,
    attention_mask: Tensor | None = None,
    position_bias: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor]:
    """Source: MPNetLayer.forward in transformers/models/mpnet/modeling_mpnet.py."""
    attention, first = layer.attention.attn, hidden_states[:, :1]
    size = attention.attention_head_size
    query = _by_heads(attention.q(first), size)
    key, value = (_by_heads(part(hidden_states), size) for part in (attention.k, attention.v))
    scores = query @ key.transpose(-1, -2) / size**0.5
    for addend in (_of_first(position_bias), _of_first(attention_mask)):
        scores = scores if addend is None else scores + addend
    context = attention.dropout(scores.softmax(dim=-1)) @ value
    output = attention.o(context.transpose(1, 2).reshape(len(first), 1, -1))
    attended = layer.attention.LayerNorm(layer.attention.dropout(output) + first)
    return (layer.output(layer.intermediate(attended), attended),)


def _deberta_v2(
    layer: Any, hidden_states: Tensor, attention_mask: Tensor, **kwargs: Any
) -> tuple[Tensor, Tensor | None]:
    """All queries, because the position bias is built for all; output and feed-forward for the first position.

    Source: DebertaV2Layer.forward in transformers/models/deberta_v2/modeling_deberta_v2.py.
    """
    kwargs.pop("output_attentions", None)
    context, _ = layer.attention.self(hidden_states, attention_mask, False, **kwargs)
    attended = layer.attention.output(context[:, :1], hidden_states[:, :1])
    return layer.output(layer.intermediate(attended), attended), None


def _modernbert(
    layer: Any,
    hidden_states: Tensor,
    attention_mask: Tensor | None,
    position_embeddings: tuple[Tensor, Tensor],
    **_: Any,
) -> Tensor:
    """Source: ModernBertEncoderLayer.forward in transformers/models/modernbert/modeling_modernbert.py."""
    attention, normed = layer.attn, layer.attn_norm(hidden_states)
    size = attention.head_dim
    weights = attention.Wqkv.weight.chunk(3)
    biases = (None,) * 3 if attention.Wqkv.bias is None else attention.Wqkv.bias.chunk(3)
    inputs = (normed[:, :1], normed, normed)
    query, key, value = (
        _by_heads(nn.functional.linear(states, weight, bias), size)
        for states, weight, bias in zip(inputs, weights, biases, strict=True)
    )
    cosine, sine = position_embeddings
    query, _ = apply_rotary_pos_emb(query, query, cosine[:, :1], sine[:, :1], unsqueeze_dim=1)
    key, _ = apply_rotary_pos_emb(key, key, cosine, sine, unsqueeze_dim=1)
    context = _attention(
        attention, query, key, value, attention_mask, attention.attention_dropout, size**-0.5,
        sliding_window=attention.sliding_window,
    )  # fmt: skip
    attended = hidden_states[:, :1] + attention.out_drop(attention.Wo(context))
    return attended + layer.mlp(layer.mlp_norm(attended))


_FORWARDS: dict[str, Callable] = {
    "bert": _bert,
    "roberta": _bert,
    "electra": _bert,
    "distilbert": _distilbert,
    "mpnet": _mpnet,
    "deberta-v2": _deberta_v2,
    "modernbert": _modernbert,
}
