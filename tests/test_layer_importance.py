"""What a teacher is without some of its layers, and which of them are kept."""

import datasets
import numpy as np
import pytest
import torch
from transformers import TrainingArguments

from distilbert_kd.layer_importance import (
    LayerImportance,
    Nearness,
    eliminate_backward,
    layer_importance,
    measure_on,
    most_important,
)
from distilbert_kd.scoring import predict_logits
from distilbert_kd.student.build import build_student, encoder_layers
from tests.tagged_layers import tagged_bert, two_that_stand_in_for_each_other
from tests.tiny import tiny_bert, tiny_tokenizer
from tests.training_rows import pair_rows


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """Layer 2 of 4 adds nothing; in BERT a LayerNorm stays of it, which leaves normalised input as it is."""
    teacher = tiny_bert(4)
    with torch.no_grad():
        for dense in (layer := encoder_layers(teacher)[2]).attention.output.dense, layer.output.dense:
            dense.weight.zero_()
            dense.bias.zero_()
    rows, tokenizer = pair_rows(48), tiny_tokenizer()
    arguments = TrainingArguments(
        str(tmp_path_factory.mktemp("nowhere")), use_cpu=True, report_to="none", disable_tqdm=True,
        dataloader_pin_memory=False,
    )  # fmt: skip
    logits = predict_logits(teacher, tokenizer, rows, arguments)
    column = datasets.Dataset.from_dict({"teacher_logits": logits.tolist()})
    measure = measure_on(rows, column, tokenizer, "mnli", arguments)
    return teacher, measure, logits, rows, arguments


class TestImportance:
    def test_a_layer_that_does_nothing_is_worth_nothing(self, measured):
        """Prevents an importance that is off by a layer, or that measures the cutting itself."""
        teacher, measure, *_ = measured
        divergences = [each.without.divergence for each in layer_importance(teacher, measure)]
        assert divergences[2] < 1e-8
        assert min(divergences[:2] + divergences[3:]) > 1e-3

    def test_divergence_is_the_closed_form(self, measured):
        """Prevents KL in the other direction, or of rows in another order than the teacher's answers."""
        teacher, measure, logits, rows, arguments = measured
        cut = predict_logits(build_student(teacher, layers=[0, 2, 3]), tiny_tokenizer(), rows, arguments)
        p, q = (torch.tensor(each, dtype=torch.float64).softmax(-1) for each in (logits, cut))
        expected = (p * (p.log() - q.log())).sum(-1).mean().item()
        without = layer_importance(teacher, measure)[1].without
        assert without.divergence == pytest.approx(expected, rel=1e-9)
        assert without.score == pytest.approx(np.mean(cut.argmax(-1) == np.asarray(rows["labels"])))

    def test_the_teacher_itself_is_at_zero(self, measured):
        """Prevents a scale without a zero."""
        teacher, measure, *_ = measured
        assert measure(teacher).divergence == 0.0


def test_most_important_are_kept_in_order_and_of_equals_the_lower():
    """Prevents a map out of order, which no student can be cut by, and one that depends on a sort's whims."""
    values = {0: 0.1, 1: 0.5, 2: 0.5, 3: 0.5, 4: 0.9}
    importance = [LayerImportance(layer, Nearness(value, 0.0)) for layer, value in values.items()]
    assert most_important(importance, 2) == [1, 4]
    assert most_important(importance, 3) == [1, 2, 4]


def test_a_layer_that_cannot_go_is_kept():
    """Prevents a map that an architecture can't be cut by, such as ModernBERT without its layer 0."""
    importance = [LayerImportance(0, None), *(LayerImportance(i, Nearness(float(i), 0.0)) for i in (1, 2, 3))]
    assert most_important(importance, 2) == [0, 3]


def test_backward_elimination_sees_layers_that_stand_in_for_each_other():
    """Prevents a search that looks at single layers again: importance drops both of two that need one another."""
    teacher = tagged_bert()
    importance = layer_importance(teacher, two_that_stand_in_for_each_other)
    assert most_important(importance, 2) == [0, 3]
    assert eliminate_backward(teacher, 2, two_that_stand_in_for_each_other, importance) == [2, 3]
    assert eliminate_backward(teacher, 3, two_that_stand_in_for_each_other, importance) == [0, 2, 3]
