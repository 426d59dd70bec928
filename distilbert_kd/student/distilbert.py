"""A BERT as a stock DistilBERT, and which weight of the one is which of the other.

DistilBERT is BERT without token types, pooler and next-sentence head; its layers are BERT's under other names. A BERT
adds row 0 of its token-type table to every position of a single text. Added to the position table once, that row is
not missed: with all layers kept, the hidden states and the vocabulary's logits are BERT's, but for rounding. Row 1, of
the second text of a pair, has no place to go.

The classification head is another one: Linear, ReLU, Linear where BERT has Linear, tanh, Linear. Its start is in
`_shift_head`.
"""

import re
from typing import Any

import torch
from torch import Tensor
from transformers import (
    BertForMaskedLM,
    BertForSequenceClassification,
    BertModel,
    DistilBertConfig,
    DistilBertForMaskedLM,
    DistilBertForSequenceClassification,
    DistilBertModel,
    PreTrainedConfig,
    PreTrainedModel,
)

from distilbert_kd.errors import TeacherError


__all__ = [
    "COUNTERPARTS",
    "NAME_RULES",
    "WITHOUT_COUNTERPART",
    "as_distilbert",
    "bert_name",
    "check_can_be_distilbert",
    "distilbert_config",
    "distilbert_name",
    "is_distilbert",
]

#: Which class becomes which.
COUNTERPARTS: dict[type[PreTrainedModel], type[PreTrainedModel]] = {
    BertModel: DistilBertModel,
    BertForMaskedLM: DistilBertForMaskedLM,
    BertForSequenceClassification: DistilBertForSequenceClassification,
}

#: BERT's module, DistilBERT's module; `{n}` is the layer's number. The encoder comes first, then the heads.
NAME_RULES = (
    ("bert.embeddings.word_embeddings", "distilbert.embeddings.word_embeddings"),
    ("bert.embeddings.position_embeddings", "distilbert.embeddings.position_embeddings"),
    ("bert.embeddings.LayerNorm", "distilbert.embeddings.LayerNorm"),
    ("bert.encoder.layer.{n}.attention.self.query", "distilbert.transformer.layer.{n}.attention.q_lin"),
    ("bert.encoder.layer.{n}.attention.self.key", "distilbert.transformer.layer.{n}.attention.k_lin"),
    ("bert.encoder.layer.{n}.attention.self.value", "distilbert.transformer.layer.{n}.attention.v_lin"),
    ("bert.encoder.layer.{n}.attention.output.dense", "distilbert.transformer.layer.{n}.attention.out_lin"),
    ("bert.encoder.layer.{n}.attention.output.LayerNorm", "distilbert.transformer.layer.{n}.sa_layer_norm"),
    ("bert.encoder.layer.{n}.intermediate.dense", "distilbert.transformer.layer.{n}.ffn.lin1"),
    ("bert.encoder.layer.{n}.output.dense", "distilbert.transformer.layer.{n}.ffn.lin2"),
    ("bert.encoder.layer.{n}.output.LayerNorm", "distilbert.transformer.layer.{n}.output_layer_norm"),
    ("cls.predictions.transform.dense", "vocab_transform"),
    ("cls.predictions.transform.LayerNorm", "vocab_layer_norm"),
    ("cls.predictions.decoder", "vocab_projector"),
    ("bert.pooler.dense", "pre_classifier"),
    ("classifier", "classifier"),
)

#: BERT's weights that no DistilBERT has. A model without a head has a pooler of no use to it; the bias of the
#: vocabulary has a second name, and the forward pass reads the decoder's.
WITHOUT_COUNTERPART = (
    "bert.embeddings.token_type_embeddings.weight",
    "pooler.dense.weight",
    "pooler.dense.bias",
    "cls.predictions.bias",
    "cls.seq_relationship.weight",
    "cls.seq_relationship.bias",
)

#: DistilBERT's field, BERT's field.
_CONFIG_RULES = {
    "n_layers": "num_hidden_layers",
    "n_heads": "num_attention_heads",
    "dim": "hidden_size",
    "hidden_dim": "intermediate_size",
    "activation": "hidden_act",
    "dropout": "hidden_dropout_prob",
    "attention_dropout": "attention_probs_dropout_prob",
}
_SAME_IN_BOTH_CONFIGS = (
    *("vocab_size", "max_position_embeddings", "pad_token_id", "bos_token_id", "eos_token_id"),
    *("initializer_range", "tie_word_embeddings", "id2label", "label2id", "problem_type"),
    *("chunk_size_feed_forward", "output_hidden_states", "output_attentions", "return_dict"),
)

_TOKEN_TYPES = "embeddings.token_type_embeddings.weight"
_POSITIONS = "embeddings.position_embeddings.weight"

#: BERT's settings that DistilBERT's code knows one value of, whatever a configuration says.
_FIXED_IN_DISTILBERT = {
    "layer_norm_eps": 1e-12,
    "position_embedding_type": "absolute",
    "is_decoder": False,
    "add_cross_attention": False,
}

#: c of `_shift_head`, chosen in benchmarks/distilbert_head.py.
_HEAD_SHIFT = 1.0


def distilbert_name(name: str) -> str | None:
    """DistilBERT's name of a weight.

    Args:
        name: BERT's, as in a state dict of a model with or without a head.

    Returns:
        The name, or None for a weight in `WITHOUT_COUNTERPART`.

    Raises:
        KeyError: a stock BERT has no such weight.
    """
    if name in WITHOUT_COUNTERPART or f"bert.{name}" in WITHOUT_COUNTERPART:
        return None
    return _renamed(name, _FORTH, "bert.", "distilbert.")


def bert_name(name: str) -> str:
    """BERT's name of a weight: the way back of `distilbert_name`.

    Args:
        name: DistilBERT's, as in a state dict of a model with or without a head.

    Returns:
        The name.

    Raises:
        KeyError: a stock DistilBERT has no such weight.
    """
    return _renamed(name, _BACK, "distilbert.", "bert.")


def _compiled(rules: tuple[tuple[str, str], ...]) -> list[tuple[re.Pattern[str], str]]:
    patterns = [re.escape(source).replace(r"\{n\}", r"(?P<n>\d+)") for source, _ in rules]
    return [
        (re.compile(rf"{pattern}\.(?P<part>weight|bias)"), target + ".{part}")
        for pattern, (_, target) in zip(patterns, rules, strict=True)
    ]


_FORTH = _compiled(NAME_RULES)
_BACK = _compiled(tuple((theirs, bert) for bert, theirs in NAME_RULES))


def _renamed(name: str, rules: list[tuple[re.Pattern[str], str]], prefix: str, other_prefix: str) -> str:
    """A model without a head names the parts of its encoder without the prefix."""
    for full_name, is_bare in ((name, False), (prefix + name, True)):
        for pattern, target in rules:
            found = pattern.fullmatch(full_name)
            if found:
                renamed = target.format(**found.groupdict())
                return renamed.removeprefix(other_prefix) if is_bare else renamed
    raise KeyError(name)


def as_distilbert(bert: PreTrainedModel) -> PreTrainedModel:
    """The same network as a stock DistilBERT of the matching class, with weights of its own.

    Hidden states (B, L, H) and vocabulary logits (B, L, V) are those of `bert` for single texts, but for rounding.
    Logits of a classifier are near, see `_shift_head`.

    Args:
        bert: a `BertModel`, `BertForMaskedLM` or `BertForSequenceClassification`, of any width and depth.

    Returns:
        A `DistilBertModel`, `DistilBertForMaskedLM` or `DistilBertForSequenceClassification`: float32, on the CPU, in
        train mode; the vocabulary's weights are tied to the word embeddings if they were.

    Raises:
        TeacherError: another class, or a BERT that computes what no DistilBERT does.

    Source: Sanh et al. 2019, https://arxiv.org/abs/1910.01108, section 3; the names are those of
    transformers/models/bert/modeling_bert.py and transformers/models/distilbert/modeling_distilbert.py.
    """
    check_can_be_distilbert(bert)
    student = COUNTERPARTS[type(bert)](distilbert_config(bert.config))
    state = {name: tensor.detach().to(student.device, torch.float32) for name, tensor in bert.state_dict().items()}
    prefix = "" if isinstance(bert, BertModel) else "bert."
    state[prefix + _POSITIONS] = state[prefix + _POSITIONS] + state[prefix + _TOKEN_TYPES][0]
    if isinstance(bert, BertForSequenceClassification):
        _shift_head(state, _HEAD_SHIFT)
    student.load_state_dict({name: state[bert_name(name)] for name in student.state_dict()})
    return student.train()


def is_distilbert(model: PreTrainedModel) -> bool:
    """Whether a model is a stock DistilBERT already, of one of the classes that a BERT can become."""
    return type(model) in COUNTERPARTS.values()


def check_can_be_distilbert(bert: PreTrainedModel) -> None:
    """Refuses what would be another network as a DistilBERT.

    Args:
        bert: the model in question.

    Raises:
        TeacherError: another class than those in `COUNTERPARTS`, a configuration that no DistilBERT has, or weights
            beside the stock model's, such as adapters.
    """
    if type(bert) not in COUNTERPARTS:
        raise TeacherError(
            f"Expected a {', a '.join(kind.__name__ for kind in COUNTERPARTS)} to make a DistilBERT of, or a "
            f"DistilBERT; got {type(bert).__name__}. Cut the student from a BERT (a checkpoint of BertForPreTraining "
            "loads as BertForMaskedLM, too), or leave architecture out (in a recipe: student.architecture): the "
            "student is then of the same architecture as the model that it is cut from."
        )
    distilbert_config(bert.config)
    for name in bert.state_dict():
        try:
            distilbert_name(name)
        except KeyError:
            raise TeacherError(
                f"Expected a stock {type(bert).__name__}, got one with {name}, for which a DistilBERT has no place. "
                "Merge adapters into the model first, or leave architecture out."
            ) from None


def _shift_head(state: dict[str, Tensor], shift: float) -> None:
    """Turns BERT's head, W tanh(x) + b, into a start for DistilBERT's, W relu(x + c) + (b - c W 1), in place.

    relu(x + c) - c = max(x, -c): a straight line where tanh nearly is one, cut off below. Of c = 0, 0.5, 1, 2 and 8,
    1 is nearest to tanh for x ~ N(0, s^2) with s from 0.5 to 2: root mean square error 0.09 of 0.42 at s = 0.5, 0.31
    of 0.63 at s = 1, and 0.93 of 0.80 at s = 2, where the start is further from BERT's head than a constant would be.
    So it is right for poolers with small x. On a fine-tuned MiniLM (s about 0.3), all layers kept, KL from BERT's
    probabilities in nats: random start 0.447, weights as they are (c = 0) 0.058, c = 0.5 0.0002, c = 1 and 2 0.0003,
    c = 1 with slope 0.85 0.0023. After training: see benchmarks/README.md.

    Args:
        state: BERT's weights; `pooler.dense` (H, H) gives x, `classifier` (C, H) is W.
        shift: c, in units of x.
    """
    weight = state["classifier.weight"]
    state["bert.pooler.dense.bias"] = state["bert.pooler.dense.bias"] + shift
    state["classifier.bias"] = state["classifier.bias"] - shift * weight.sum(dim=1)


def distilbert_config(config: PreTrainedConfig) -> DistilBertConfig:
    """The configuration of the same network.

    Args:
        config: BERT's.

    Returns:
        DistilBERT's, of the same sizes, rates, labels and attention; of BERT's two dropouts in a layer's sums it has
        only the second, and the head's is `classifier_dropout`, or `hidden_dropout_prob` as in BERT.

    Raises:
        TeacherError: a decoder, another `layer_norm_eps` than 1e-12, which is fixed in DistilBERT's code, or positions
            that are not looked up in a table.
    """
    for name, expected in _FIXED_IN_DISTILBERT.items():
        value = getattr(config, name, None)
        if value is not None and value != expected:
            raise TeacherError(
                f"Expected a BERT with {name}={expected}, as it is fixed in DistilBERT's code, got {name}={value}. "
                "Leave architecture out (in a recipe: student.architecture): the student is then a BERT, too."
            )
    head_dropout = getattr(config, "classifier_dropout", None)
    fields: dict[str, Any] = {
        **{ours: getattr(config, theirs) for ours, theirs in _CONFIG_RULES.items()},
        **{name: getattr(config, name) for name in _SAME_IN_BOTH_CONFIGS},
        "seq_classif_dropout": config.hidden_dropout_prob if head_dropout is None else head_dropout,
        "qa_dropout": config.hidden_dropout_prob,
        "attn_implementation": config._attn_implementation,
        "dtype": torch.float32,
    }
    return DistilBertConfig(**fields)
