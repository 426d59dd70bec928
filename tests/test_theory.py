"""What distillation rests on, as measurements on the loss: temperature, soft targets, alpha."""

import pytest
import torch
import torch.nn.functional as F
from transformers import Trainer

from distilbert_kd.losses.logits import hard_loss, mix, soft_loss
from distilbert_kd.student.build import build_student
from distilbert_kd.task_rows import Reader, TaskRows
from distilbert_kd.training import train_model
from tests.tiny import tiny_bert, tiny_tokenizer
from tests.training_rows import arguments, collator, flat_weights, pair_rows, quiet, without_dropout


# One row of a teacher of three classes: "good" wins, "fair" resembles it, "bad" does not.
TEACHER = torch.tensor([[6.0, 3.0, -2.0]], dtype=torch.float64)
TEMPERATURES = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)


def entropy(probabilities):
    return -(probabilities * probabilities.log()).sum(-1)


def objective(student, teacher, labels, alpha, temperature=2.0):
    """The mean loss of a batch, all rows labelled."""
    everywhere = torch.ones(len(labels), dtype=torch.bool)
    hard, soft = hard_loss(student, labels), soft_loss(student, teacher, temperature)
    return mix(hard, soft, everywhere, alpha).mean()


def gradient(student, *args, **kwargs):
    student = student.clone().requires_grad_()
    objective(student, *args, **kwargs).backward()
    return student.grad


def random_batch(seed=0, num_rows=16, num_classes=3):
    generator = torch.Generator().manual_seed(seed)
    student, teacher = torch.randn(2, num_rows, num_classes, generator=generator, dtype=torch.float64) * 2
    labels = torch.randint(0, num_classes, (num_rows,), generator=generator)
    return student, teacher, labels


def test_entropy_of_the_teachers_targets_grows_with_temperature():
    """Prevents a temperature that sharpens where it should soften: dividing by T, not multiplying."""
    entropies = [entropy(F.softmax(TEACHER / temperature, dim=-1)).item() for temperature in TEMPERATURES]
    assert entropies == sorted(entropies)
    assert entropies[0] < 0.05
    # Toward the uniform distribution, which says nothing any more: log 3.
    assert 1.0 < entropies[-1] < torch.log(torch.tensor(3.0))
    # And this is the distribution that the loss pulls toward: its gradient vanishes where the student has it.
    for temperature in TEMPERATURES:
        target = F.softmax(TEACHER / temperature, dim=-1)
        found = gradient(temperature * target.log(), TEACHER, torch.tensor([0]), alpha=1.0, temperature=temperature)
        assert found.abs().max() < 1e-12


def test_a_higher_temperature_tells_more_of_the_classes_that_did_not_win():
    """Prevents soft targets that carry no more than the label: which other class resembles the winner must count."""
    shares, ratios = [], []
    for temperature in TEMPERATURES:
        _, fair, bad = F.softmax(TEACHER / temperature, dim=-1)[0].tolist()
        shares.append(fair + bad)
        ratios.append(fair / bad)
    # The two classes that lost get more of the mass, and the one that resembles the winner stays ahead of the other.
    assert shares == sorted(shares)
    assert shares[0] < 0.003
    assert shares[-1] > 0.5
    assert all(ratio > 1 for ratio in ratios)
    # Two students that agree on the winner and differ in the order of the rest. The hard loss can't tell them apart;
    # the soft loss prefers the one that sees the resemblance, and clearly so only when T is high.
    alike, unlike = TEACHER.clone(), TEACHER[:, [0, 2, 1]]
    label = torch.tensor([0])
    assert hard_loss(alike, label).item() == pytest.approx(hard_loss(unlike, label).item(), rel=1e-12)
    gains = [(soft_loss(unlike, TEACHER, T) - soft_loss(alike, TEACHER, T)).item() for T in TEMPERATURES]
    assert gains == sorted(gains)
    assert gains[0] < 0.01
    assert gains[2] > 1.0


def test_the_hard_loss_is_unchanged_by_temperature():
    """Prevents T from leaking into the labels' term: it is taken at T = 1 whatever the soft one's T is."""
    student, teacher, labels = random_batch()
    expected = F.cross_entropy(student, labels)
    for temperature in TEMPERATURES:
        torch.testing.assert_close(objective(student, teacher, labels, 0.0, temperature), expected)
        # Also inside a mixture: what is left when the soft term is taken away.
        mixed = objective(student, teacher, labels, 0.3, temperature)
        hard_part = (mixed - 0.3 * soft_loss(student, teacher, temperature).mean()) / 0.7
        torch.testing.assert_close(hard_part, expected)


def test_alpha_one_ignores_the_labels():
    """Prevents labels from leaking into pure distillation: the gradient is the same for any of them, to the bit."""
    student, teacher, labels = random_batch()
    expected = gradient(student, teacher, labels, alpha=1.0)
    assert expected.abs().max() > 1e-3
    for other in (labels.flip(0), (labels + 1) % 3, torch.zeros_like(labels), torch.full_like(labels, -100)):
        assert torch.equal(gradient(student, teacher, other, alpha=1.0), expected)
        assert objective(student, teacher, other, 1.0) == objective(student, teacher, labels, 1.0)
    # Not by accident: below 1 the labels do count.
    assert not torch.allclose(
        gradient(student, teacher, (labels + 1) % 3, alpha=0.9), gradient(student, teacher, labels, alpha=0.9)
    )


def test_a_high_alpha_takes_weight_off_the_labels():
    """Prevents the two weights from being swapped: alpha moves the gradient from the labels to the teacher."""
    student, teacher, labels = random_batch()
    by_labels = gradient(student, teacher, labels, alpha=0.0)
    by_teacher = gradient(student, teacher, labels, alpha=1.0)
    shares = []
    for alpha in (0.0, 0.1, 0.5, 0.9, 1.0):
        found = gradient(student, teacher, labels, alpha=alpha)
        torch.testing.assert_close(found, (1 - alpha) * by_labels + alpha * by_teacher)
        # How far the gradient moves when every label is another one: what the labels have to say.
        moved = found - gradient(student, teacher, (labels + 1) % 3, alpha=alpha)
        shares.append(moved.norm().item())
    assert shares == sorted(shares, reverse=True)
    assert shares[3] == pytest.approx(0.1 * shares[0], rel=1e-9)
    assert shares[4] == 0


def test_the_teacher_is_trained_with_the_standard_objective(tmp_path):
    """Prevents a teacher that is trained for anything but accuracy: it takes the step that the plain Trainer takes."""
    rows, tokenizer = pair_rows(16), tiny_tokenizer()
    plain, ours = (without_dropout(seed=3).double() for _ in range(2))
    settings = {"batch_size": 16, "num_train_epochs": 1}
    quiet(Trainer(plain, arguments(tmp_path, **settings), collator(), rows)).train()
    reader = Reader(ours, tokenizer, TaskRows(rows, {"validation": rows}, 0))
    place = tmp_path / "teacher"
    trained = train_model("teacher", reader, "accuracy_f1", arguments(tmp_path, **settings), place)
    torch.testing.assert_close(flat_weights(ours), flat_weights(plain), rtol=1e-9, atol=1e-9)
    assert not any("soft_loss" in entry for entry in trained.history)


def test_a_student_is_the_teachers_architecture_with_fewer_layers():
    """Prevents a student that is another network, or a bigger one: all but its depth is the teacher's."""
    teacher = tiny_bert(4)
    student = build_student(teacher)
    assert type(student) is type(teacher)
    mine, theirs = student.config.to_dict(), teacher.config.to_dict()
    assert {name for name in theirs if mine.get(name) != theirs[name]} <= {"num_hidden_layers", "dtype"}
    assert (mine["num_hidden_layers"], theirs["num_hidden_layers"]) == (2, 4)
    assert student.num_parameters() < teacher.num_parameters()


@torch.no_grad()
def test_a_distilbert_has_the_same_layers():
    """Prevents a DistilBERT that is another network than the student whose place it takes."""
    teacher = tiny_bert(4)
    ids = torch.arange(5, 25).view(2, 10)
    plain, distilbert = (
        build_student(teacher, architecture=architecture).eval().base_model(ids, output_hidden_states=True)
        for architecture in (None, "distilbert")
    )
    for mine, theirs in zip(distilbert.hidden_states, plain.hidden_states, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-5)
