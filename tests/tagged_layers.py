"""A model whose layers can be told apart, and a measure that looks at which are there."""

import torch

from distilbert_kd.layer_importance import Nearness
from distilbert_kd.student.build import encoder_layers
from tests.tiny import tiny_bert


def tagged_bert(num_layers: int = 4):
    """A model whose layers say which they are, however it is cut."""
    model = tiny_bert(num_layers)
    with torch.no_grad():
        for number, layer in enumerate(encoder_layers(model)):
            layer.output.dense.bias[0] = number
    return model


def layers_of(model) -> list[int]:
    return [int(layer.output.dense.bias[0]) for layer in encoder_layers(model)]


def two_that_stand_in_for_each_other(model) -> Nearness:
    """Layer 0 is worth 1, layer 3 is worth 2; of 1 and 2 each alone is worth 0.1, and both 5."""
    missing = {0, 1, 2, 3} - set(layers_of(model))
    both = 5.0 if {1, 2} <= missing else 0.1 * len({1, 2} & missing)
    return Nearness(1.0 * (0 in missing) + 2.0 * (3 in missing) + both, 0.0)
