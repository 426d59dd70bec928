"""Signals against what transformers itself gives out."""

import pytest
import torch

from distilbert_kd.errors import TeacherError
from distilbert_kd.losses.attention import _scores
from distilbert_kd.signals import EMBEDDINGS, Signal, captured, check_signals
from tests.test_first_position import MODELS, batch, model_of
from tests.tiny import tiny_bert


@pytest.mark.parametrize("name", MODELS)
def test_hidden_states_are_those_of_output_hidden_states(name):
    """Prevents a layer that is off by one, and the embeddings taken for layer 0."""
    model = model_of(name)
    wanted = [Signal("hidden_states", layer) for layer in range(EMBEDDINGS, 3)]
    with captured(model, wanted) as found:
        expected = model(**batch(), output_hidden_states=True).hidden_states
    for index, signal in enumerate(wanted):
        assert torch.equal(found[signal], expected[index])


@pytest.mark.parametrize("name", [name for name in MODELS if not name.startswith("modernbert")])
def test_projections_are_those_of_every_architecture(name):
    """Prevents a path that a release of transformers has moved."""
    model = model_of(name)
    wanted = [Signal(part, 1) for part in ("query", "key", "value")]
    check_signals(model, wanted)
    with captured(model, wanted) as found:
        model(**batch())
    assert [found[signal].shape for signal in wanted] == [(3, 20, 32)] * 3
    assert not torch.equal(found[wanted[0]], found[wanted[1]])


def test_modernbert_has_no_separate_projections():
    """Prevents an AttributeError in the first step."""
    with pytest.raises(TeacherError, match="projected one by one"):
        check_signals(model_of("modernbert local"), [Signal("value", 1)])


def test_queries_and_keys_make_the_models_own_attention_maps():
    """Prevents a term on attention that is zero under sdpa: maps come from the projections, whatever attends."""
    model, inputs = tiny_bert(4), batch()
    with captured(model, [Signal("query", 2), Signal("key", 2)]) as found:
        model(**inputs)
    scores = _scores(found[Signal("query", 2)], found[Signal("key", 2)], model.config.num_attention_heads)
    scores = scores.masked_fill(inputs["attention_mask"][:, None, None, :] == 0, float("-inf"))
    model.set_attn_implementation("eager")
    expected = model(**inputs, output_attentions=True).attentions[2]
    torch.testing.assert_close(scores.softmax(-1), expected, rtol=1e-5, atol=1e-6)


def test_nothing_stays_behind():
    """Prevents hooks that pile up over the steps and keep every batch alive."""
    model = tiny_bert(2)
    with captured(model, [Signal("hidden_states", EMBEDDINGS), Signal("value", 1)]):
        model(**batch())
    for module in model.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks


def test_layers_that_are_not_there_are_refused():
    """Prevents an IndexError in the first step."""
    for signal in (Signal("hidden_states", 4), Signal("hidden_states", -2), Signal("query", EMBEDDINGS)):
        with pytest.raises(TeacherError, match="Expected layers from 0 to 3"):
            check_signals(tiny_bert(4), [signal])
