"""The identity of a model's weights."""

import copy

import torch
from torch import nn

from distilbert_kd.weights import weights_sha256
from tests.tiny import tiny_bert


def test_the_same_weights_have_the_same_name_everywhere():
    """Prevents a hash that changes with the mode, the object or the process, and so never matches a stored one."""
    model = tiny_bert(1)
    expected = weights_sha256(model)
    assert len(expected) == 64
    assert weights_sha256(copy.deepcopy(model).train()) == expected
    assert weights_sha256(model.requires_grad_(False)) == expected
    # A value that another process of another day must find again.
    layer = nn.Linear(2, 1, bias=False)
    layer.load_state_dict({"weight": torch.tensor([[1.0, 2.0]])})
    # printf: "weight (1, 2) torch.float32\n" and the bytes 0000803f 00000040, by sha256sum
    assert weights_sha256(layer) == "79b06f4140699b6260c634d5b18a8519e91fecb3c5e2bc94b6c3c07907a94540"


def test_any_other_weights_have_another_name():
    """Prevents two teachers that pass for one: the smallest step, another name, shape or type."""
    model = tiny_bert(1)
    names = {weights_sha256(model)}
    with torch.no_grad():
        bias = model.classifier.bias
        bias[0] = torch.nextafter(bias[0], torch.tensor(1.0))
    names.add(weights_sha256(model))
    names.add(weights_sha256(tiny_bert(1, seed=1)))
    names.add(weights_sha256(copy.deepcopy(model).double()))
    zeros = [nn.Linear(2, 3, bias=False), nn.Linear(3, 2, bias=False), nn.ParameterDict({"w": torch.zeros(2, 3)})]
    for layer in zeros:
        nn.init.zeros_(next(layer.parameters()))
        names.add(weights_sha256(layer))
    assert len(names) == 7


def test_buffers_count_and_odd_types_are_read():
    """Prevents a batch norm's running mean from going unnoticed, and a failure on scalars and half precision."""
    norm = nn.BatchNorm1d(2)
    before = weights_sha256(norm)
    norm(torch.randn(8, 2))
    assert weights_sha256(norm) != before
    assert weights_sha256(nn.Linear(2, 2).bfloat16()) != weights_sha256(nn.Linear(2, 2).half())


def test_the_order_of_the_modules_does_not_count():
    """Prevents another name for the same weights after a model's code was tidied up."""
    first, second = torch.ones(2), torch.zeros(3)
    one, other = nn.Module(), nn.Module()
    one.register_buffer("a", first)
    one.register_buffer("b", second)
    other.register_buffer("b", second)
    other.register_buffer("a", first)
    assert list(one.state_dict()) != list(other.state_dict())
    assert weights_sha256(one) == weights_sha256(other)


def test_memory_layout_does_not_count():
    """Prevents a transposed view from having another name than its copy, which has the same values."""
    square = torch.arange(6.0).reshape(2, 3)
    view, plain = nn.ParameterDict({"w": square.t()}), nn.ParameterDict({"w": square.t().contiguous()})
    assert not view["w"].is_contiguous()
    assert weights_sha256(view) == weights_sha256(plain)
