"""The last layer for the first position: the same logits, the same gradients, the same model."""

import pytest
import torch
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    DebertaV2Config,
    DebertaV2ForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    ElectraConfig,
    ElectraForSequenceClassification,
    ModernBertConfig,
    ModernBertForSequenceClassification,
    MPNetConfig,
    MPNetForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from distilbert_kd.first_position import first_position_only, reads_first_position_only
from distilbert_kd.student.build import encoder_layers
from tests.tiny import tiny_bert


COMMON = {
    "vocab_size": 100,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "num_labels": 3,
    "max_position_embeddings": 64,
    "initializer_range": 0.2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
DISTILBERT = {"vocab_size": 100, "dim": 32, "n_layers": 3, "n_heads": 2, "hidden_dim": 64, "num_labels": 3}
DEBERTA = {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "position_buckets": 16, "conv_kernel_size": 3}
MODERN = {"global_attn_every_n_layers": 2, "cls_token_id": 1, "sep_token_id": 2, "local_attention": 8}
MODELS = {
    "bert": (BertForSequenceClassification, BertConfig(**COMMON)),
    "roberta": (RobertaForSequenceClassification, RobertaConfig(**COMMON)),
    "electra": (ElectraForSequenceClassification, ElectraConfig(**COMMON, embedding_size=16)),
    "distilbert": (DistilBertForSequenceClassification, DistilBertConfig(**DISTILBERT, initializer_range=0.2)),
    "mpnet": (MPNetForSequenceClassification, MPNetConfig(**COMMON)),
    "deberta-v2": (DebertaV2ForSequenceClassification, DebertaV2Config(**COMMON, **DEBERTA)),
    "modernbert local": (ModernBertForSequenceClassification, ModernBertConfig(**COMMON, **MODERN)),
    "modernbert global": (
        ModernBertForSequenceClassification,
        ModernBertConfig(**COMMON, **{**MODERN, "global_attn_every_n_layers": 1}),
    ),
}


def model_of(name, attention="sdpa"):
    model_class, config = MODELS[name]
    torch.manual_seed(0)
    config._attn_implementation = "eager" if name in ("mpnet", "deberta-v2") else attention
    model = model_class(config).eval()
    # ModernBERT's eager attention takes its softmax in float32, where a float64 mask is infinite and gives NaN.
    return model if name.startswith("modernbert") and attention == "eager" else model.double()


def batch(lengths=(7, 20, 12)):
    generator = torch.Generator().manual_seed(1)
    ids = torch.zeros(len(lengths), max(lengths), dtype=torch.long)
    for row, length in enumerate(lengths):
        ids[row, :length] = torch.randint(5, 99, (length,), generator=generator)
    return {"input_ids": ids, "attention_mask": (ids != 0).long()}


def logits_and_gradients(model, inputs):
    model.zero_grad()
    logits = model(**inputs).logits
    logits.square().sum().backward()
    return logits.detach(), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("lengths", [(7, 20, 12), (9, 9), (1,)])
@pytest.mark.parametrize("name", MODELS)
def test_logits_and_gradients_are_the_whole_layers(name, lengths, attention):
    """Prevents a faster step that trains something else."""
    model, inputs = model_of(name, attention), batch(lengths)
    expected, expected_gradients = logits_and_gradients(model, inputs)
    with first_position_only(model):
        logits, gradients = logits_and_gradients(model, inputs)
    tolerance = 1e-9 if logits.dtype == torch.float64 else 1e-5
    torch.testing.assert_close(logits, expected, rtol=tolerance, atol=tolerance)
    assert gradients.keys() == expected_gradients.keys()
    for name_, gradient in gradients.items():
        torch.testing.assert_close(gradient, expected_gradients[name_], rtol=tolerance, atol=tolerance, msg=name_)


@pytest.mark.parametrize("name", MODELS)
def test_it_leaves_out_the_other_positions(name):
    """Prevents a switch that switches nothing."""
    model, inputs = model_of(name), batch()
    with first_position_only(model):
        assert model.base_model(**inputs)[0].shape[1] == 1
    assert model.base_model(**inputs)[0].shape[1] == 20
    assert "forward" not in vars(encoder_layers(model)[-1])


def test_a_saved_model_is_a_stock_one(tmp_path):
    """Prevents folders that only this package can load."""
    model = tiny_bert(2)
    with first_position_only(model):
        model.save_pretrained(tmp_path)
    loaded = BertForSequenceClassification.from_pretrained(tmp_path)
    assert loaded.state_dict().keys() == model.state_dict().keys()
    torch.testing.assert_close(loaded.eval()(**batch()).logits, model(**batch()).logits)


@pytest.mark.parametrize(
    "model",
    [
        BertForMaskedLM(BertConfig(**COMMON)),
        tiny_bert(2, output_hidden_states=True),
        tiny_bert(2, output_attentions=True, attn_implementation="eager"),
        ModernBertForSequenceClassification(ModernBertConfig(**COMMON, **MODERN, classifier_pooling="mean")),
        DebertaV2ForSequenceClassification(DebertaV2Config(**{**COMMON, "num_hidden_layers": 1}, **DEBERTA)),
        torch.nn.Linear(2, 2),
    ],
    ids=["masked LM", "hidden states", "attentions", "mean pooling", "one layer with convolution", "no encoder"],
)
def test_it_is_off_where_other_positions_are_read(model):
    """Prevents wrong logits from heads that read more than the first position."""
    assert not reads_first_position_only(model)
    with first_position_only(model):
        assert "forward" not in vars(model)
