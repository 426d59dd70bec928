"""The terms of the loss against closed forms, torch's own losses, and the gradients that theory expects."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from distilbert_kd.losses.logits import IGNORE_INDEX, hard_loss, has_label, mix, soft_loss


TEMPERATURES = [0.5, 1.0, 2.0, 5.0, 20.0]


def random_logits(num_rows=7, num_classes=5, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return (3 * torch.randn(num_rows, num_classes, generator=generator, dtype=torch.float64)).to(dtype)


def closed_form(student, teacher, temperature):
    """T^2 * sum_c p (log p - log q) in float64 numpy, written out with exponentials."""
    p, q = (np.exp(logits.double().numpy() / temperature) for logits in (teacher, student))
    p, q = p / p.sum(1, keepdims=True), q / q.sum(1, keepdims=True)
    return temperature**2 * (p * np.log(p / q)).sum(1)


class TestSoftLoss:
    @pytest.mark.parametrize("num_classes", [2, 3, 50])
    @pytest.mark.parametrize("temperature", TEMPERATURES)
    def test_equals_the_closed_form(self, temperature, num_classes):
        """Prevents a loss with the arguments swapped, without T^2, or divided by the number of classes."""
        student, teacher = random_logits(num_classes=num_classes), random_logits(num_classes=num_classes, seed=1)
        found = soft_loss(student, teacher, temperature).numpy()
        assert found.shape == (7,)
        np.testing.assert_allclose(found, closed_form(student, teacher, temperature), rtol=1e-11, atol=1e-12)

    @pytest.mark.parametrize("temperature", TEMPERATURES)
    def test_equals_torchs_kl_div_times_t_squared(self, temperature):
        """Prevents a definition of our own: the mean over rows is the batchmean of kl_div, times T^2."""
        student, teacher = random_logits(dtype=torch.float32), random_logits(seed=1, dtype=torch.float32)
        expected = temperature**2 * F.kl_div(
            F.log_softmax(student / temperature, dim=-1),
            F.softmax(teacher / temperature, dim=-1),
            reduction="batchmean",
        )
        torch.testing.assert_close(soft_loss(student, teacher, temperature).mean(), expected, rtol=1e-5, atol=1e-6)

    def test_a_value_worked_out_by_hand(self):
        """Prevents an oracle and a loss that share one mistake: KL of (3/4, 1/4) from (1/2, 1/2), times 4 at T = 2."""
        teacher = torch.tensor([[2 * np.log(3.0), 0.0]])
        expected = 4 * (0.75 * np.log(1.5) + 0.25 * np.log(0.5))
        assert soft_loss(torch.zeros(1, 2), teacher, 2.0).item() == pytest.approx(expected, rel=1e-6)

    def test_is_zero_at_the_teacher_and_nowhere_else(self):
        """Prevents a minimum elsewhere; the entropy of the teacher, which cross-entropy would add, is left out."""
        logits = random_logits()
        assert torch.equal(soft_loss(logits, logits.clone(), 3.0), torch.zeros(7, dtype=torch.float64))
        assert (soft_loss(logits, random_logits(seed=1), 3.0) > 1e-3).all()
        student = logits.clone().requires_grad_()
        soft_loss(student, logits, 3.0).sum().backward()
        assert student.grad.abs().max() < 1e-14

    def test_a_constant_added_to_a_rows_logits_changes_nothing(self):
        """Prevents logits from being compared where only distributions can be."""
        student, teacher = random_logits(), random_logits(seed=1)
        shift = torch.arange(7.0, dtype=torch.float64).unsqueeze(1) * 10
        expected = soft_loss(student, teacher, 2.0)
        torch.testing.assert_close(soft_loss(student + shift, teacher, 2.0), expected)
        torch.testing.assert_close(soft_loss(student, teacher - shift, 2.0), expected)

    def test_at_high_temperature_the_gradient_is_that_of_logit_matching(self):
        """Prevents a wrong power of T: the limit is (z - v) / C for zero-meaned logits (Hinton et al., 2.1)."""
        student, teacher = random_logits(num_classes=4), random_logits(num_classes=4, seed=1)
        student -= student.mean(1, keepdim=True)
        teacher -= teacher.mean(1, keepdim=True)
        student.requires_grad_()
        soft_loss(student, teacher, 1e4).sum().backward()
        torch.testing.assert_close(student.grad, (student - teacher).detach() / 4, rtol=2e-3, atol=1e-3)

    def test_the_size_of_the_gradient_hardly_depends_on_the_temperature(self):
        """Prevents an alpha that means something else at every T: without T^2 the gradient falls by 1/T^2."""
        norms = []
        for temperature in (4.0, 8.0, 16.0, 32.0):
            student, teacher = random_logits().requires_grad_(), random_logits(seed=1)
            soft_loss(student, teacher, temperature).sum().backward()
            norms.append(student.grad.norm().item())
        assert max(norms) / min(norms) < 1.5

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_half_precision_logits_are_computed_in_float32(self, dtype):
        """Prevents a loss rounded to 3 digits, and T^2 beyond float16, under mixed precision."""
        student, teacher = random_logits(dtype=dtype), random_logits(seed=1, dtype=dtype)
        found = soft_loss(student, teacher, 2.0)
        assert found.dtype == torch.float32
        np.testing.assert_allclose(found.numpy(), closed_form(student, teacher, 2.0), rtol=1e-5)
        with torch.autocast("cpu", torch.bfloat16):
            torch.testing.assert_close(soft_loss(student, teacher, 2.0), found, rtol=0, atol=0)

    def test_no_gradient_reaches_the_teacher(self):
        """Prevents a teacher that learns to be easy to imitate."""
        student, teacher = random_logits().requires_grad_(), random_logits(seed=1).requires_grad_()
        soft_loss(student, teacher, 2.0).sum().backward()
        assert teacher.grad is None
        assert student.grad.abs().sum() > 0

    @pytest.mark.parametrize(("student_shape", "teacher_shape"), [((4, 2), (4, 1)), ((4, 3), (1, 3)), ((4, 3), (3,))])
    def test_shapes_that_would_broadcast_are_refused(self, student_shape, teacher_shape):
        """Prevents a narrower teacher from training toward a plausible nonsense."""
        message = (
            rf"student's shape \({student_shape[0]}, {student_shape[1]}\), got \({teacher_shape[0]},.*Teacher and"
        )
        with pytest.raises(ValueError, match=message):
            soft_loss(torch.zeros(student_shape), torch.zeros(teacher_shape), 2.0)

    @pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
    def test_a_temperature_that_is_not_positive_is_refused(self, temperature):
        """Prevents a division by zero that shows as NaN many steps later."""
        with pytest.raises(ValueError, match="temperature above 0, got"):
            soft_loss(torch.zeros(1, 2), torch.zeros(1, 2), temperature)

    @pytest.mark.parametrize("temperature", TEMPERATURES)
    def test_one_output_is_a_squared_error_at_every_temperature(self, temperature):
        """Prevents a regression that learns nothing: the KL of one logit is zero whatever the student says."""
        student, teacher = random_logits(num_classes=1), random_logits(num_classes=1, seed=1)
        expected = F.mse_loss(student, teacher, reduction="none").squeeze(1)
        torch.testing.assert_close(soft_loss(student, teacher, temperature), expected)
        assert expected.min() > 0

    @given(
        logits=st.integers(2, 6).flatmap(
            lambda c: st.lists(
                st.lists(st.floats(-50, 50, width=32), min_size=2 * c, max_size=2 * c), min_size=1, max_size=4
            )
        ),
        temperature=st.floats(0.5, 20),
    )
    def test_is_finite_and_not_negative_for_any_logits(self, logits, temperature):
        """Prevents NaN and infinity from confident models: probabilities below float32 have finite logarithms here."""
        both = torch.tensor(logits, dtype=torch.float32)
        student, teacher = both.chunk(2, dim=1)
        student.requires_grad_()
        loss = soft_loss(student, teacher, temperature)
        loss.sum().backward()
        # Rounding: terms up to 100 / T each, with a relative error of a few 1e-7, times T^2.
        assert (loss >= -1e-4 * temperature).all()
        assert torch.isfinite(loss).all()
        assert torch.isfinite(student.grad).all()


class TestHardLoss:
    def test_equals_torchs_cross_entropy(self):
        """Prevents another objective than the one that everybody's numbers come from."""
        logits, labels = random_logits(), torch.tensor([0, 1, 2, 3, 4, 0, 1])
        expected = F.cross_entropy(logits, labels, reduction="none")
        torch.testing.assert_close(hard_loss(logits, labels), expected)
        assert hard_loss(logits, labels).mean().item() == pytest.approx(F.cross_entropy(logits, labels).item())

    def test_regression_equals_torchs_mse_loss(self):
        """Prevents (B, 1) minus (B,), which broadcasts to (B, B)."""
        logits, labels = random_logits(num_classes=1), torch.linspace(0, 5, 7)
        found = hard_loss(logits, labels)
        assert found.shape == (7,)
        assert found.mean().item() == pytest.approx(torch.nn.MSELoss()(logits.squeeze(1), labels.double()).item())

    def test_whole_numbers_are_labels_of_a_regression_too(self):
        """Prevents a failure on integer scores, which a CSV column of 0 to 5 gives."""
        assert hard_loss(torch.tensor([[1.5], [2.0]]), torch.tensor([1, 4])).tolist() == [0.25, 4.0]

    @pytest.mark.parametrize("num_classes", [1, 5])
    def test_rows_without_a_label_give_zero_and_no_gradient(self, num_classes):
        """Prevents -100 from being learned as a number, or as a class counted from the end."""
        labels = torch.tensor([0, IGNORE_INDEX, 1, IGNORE_INDEX, 0, 0, 0])
        logits = random_logits(num_classes=num_classes).requires_grad_()
        loss = hard_loss(logits, labels)
        loss.sum().backward()
        is_missing = torch.tensor([False, True, False, True, False, False, False])
        assert torch.equal(has_label(labels), ~is_missing)
        assert torch.equal(loss == 0, is_missing)
        assert torch.equal((logits.grad == 0).all(1), is_missing)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_half_precision_logits_are_computed_in_float32(self, dtype):
        """Prevents a loss rounded to 3 digits under mixed precision."""
        logits, labels = random_logits(dtype=dtype), torch.tensor([0, 1, 2, 3, 4, 0, 1])
        found = hard_loss(logits, labels)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found.double(), F.cross_entropy(logits.double(), labels, reduction="none"))

    @pytest.mark.parametrize("label", [-1, 5])
    def test_a_class_that_does_not_exist_is_refused(self, label):
        """Prevents GLUE's -1, no label, from training the last class."""
        with pytest.raises(IndexError, match="out of bounds"):
            hard_loss(random_logits(num_rows=1), torch.tensor([label]))


class TestMix:
    HARD = torch.tensor([1.0, 2.0, 4.0])
    SOFT = torch.tensor([10.0, 20.0, 40.0])
    ALL = torch.tensor([True, True, True])

    @pytest.mark.parametrize(
        ("alpha", "expected"),
        [(0.0, [1.0, 2.0, 4.0]), (1.0, [10.0, 20.0, 40.0]), (0.25, [3.25, 6.5, 13.0])],
    )
    def test_alpha_is_the_weight_of_the_soft_target(self, alpha, expected):
        """Prevents the weights from being swapped, which no loss curve shows."""
        assert mix(self.HARD, self.SOFT, self.ALL, alpha).tolist() == expected

    def test_alpha_may_differ_by_row(self):
        """Prevents one row's weight from being used for all."""
        assert mix(self.HARD, self.SOFT, self.ALL, torch.tensor([0.0, 0.5, 1.0])).tolist() == [1.0, 11.0, 40.0]

    def test_rows_without_a_label_learn_from_the_teacher_alone(self):
        """Prevents unlabelled rows from counting alpha times, as if their hard loss were a real zero."""
        labelled = torch.tensor([True, False, True])
        assert mix(self.HARD, self.SOFT, labelled, 0.25).tolist() == [3.25, 20.0, 13.0]
        assert mix(self.HARD, self.SOFT, labelled, 0.0).tolist() == [1.0, 20.0, 4.0]
