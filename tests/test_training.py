"""What a training changes of its models, and gives back."""

import torch

from distilbert_kd.training import attention_as
from tests.tiny import tiny_bert


def test_attention_is_changed_for_the_training_alone(tmp_path):
    # A student left with FlashAttention can't be timed or asked in float32; one that never had it trains as before.
    model, seen = tiny_bert(2), []
    with attention_as("eager", model):
        assert model.config._attn_implementation == "eager"
        seen.append(model(input_ids=torch.tensor([[5, 6]]), output_attentions=True).attentions[0])
    assert (model.config._attn_implementation, len(seen[0])) == ("sdpa", 1)
    with attention_as(None, model):
        assert model.config._attn_implementation == "sdpa"
