"""Augmented rows have an alpha of their own: L = 1/n sum_i [(1 - a_i) hard_i + a_i T^2 KL_i]."""

import numpy as np
import pytest
import torch

from distilbert_kd.errors import DataError
from distilbert_kd.trainer import DistillationTrainer
from tests.tiny import tiny_bert, tiny_tokenizer
from tests.training_rows import arguments, augmented_rows, collator, distil, pair_rows, quiet, without_dropout


TEMPERATURE, ALPHA = 3.0, 0.7  # of `distil`


def first_loss(folder, rows, **settings):
    return distil(folder, rows, 32, 1, **settings)["history"][0]["loss"]


def terms_of(rows) -> tuple[np.ndarray, np.ndarray]:
    """Hard loss and T^2 KL of each row in float64, with exponentials written out."""
    batch = collator()([{name: row[name] for name in row if name != "is_augmented"} for row in rows])
    labels = batch.pop("labels").numpy()
    with torch.no_grad():
        student, teacher = without_dropout().double()(**batch).logits, tiny_bert(4, seed=9).double()(**batch).logits

    def softmax(logits, temperature=1.0):
        powers = np.exp(logits.numpy() / temperature)
        return powers / powers.sum(axis=1, keepdims=True)

    hard = -np.log(softmax(student)[np.arange(len(labels)), np.maximum(labels, 0)])
    p, q = softmax(teacher, TEMPERATURE), softmax(student, TEMPERATURE)
    return np.where(labels < 0, np.nan, hard), TEMPERATURE**2 * (p * np.log(p / q)).sum(axis=1)


@pytest.mark.parametrize("alpha_augmented", [0.0, 0.35, 1.0])
def test_the_first_step_is_the_formula(tmp_path, alpha_augmented):
    """Prevents an alpha of augmented rows that is read and not used, or used for the gold ones, or after the mean."""
    rows = augmented_rows(32, unlabelled=5)
    hard, soft = terms_of(rows)
    alpha = np.where(rows["is_augmented"][:], alpha_augmented, ALPHA)
    each = np.where(np.isnan(hard), soft, (1 - alpha) * np.nan_to_num(hard) + alpha * soft)
    found = first_loss(tmp_path, rows, alpha_augmented=alpha_augmented)
    assert found == pytest.approx(each.mean(), rel=1e-6)
    others = np.where(np.isnan(hard), soft, (1 - ALPHA) * np.nan_to_num(hard) + ALPHA * soft)
    assert abs(each.mean() - others.mean()) > 1e-3  # the alpha of gold rows would be seen


def test_rows_that_are_all_gold_train_as_without_the_column_to_the_bit(tmp_path):
    """Prevents runs without augmentation that changed when alpha got a second value."""
    rows = pair_rows(70, unlabelled=5)
    marked = rows.add_column("is_augmented", [False] * 70)
    plain, found = (distil(tmp_path, each, 32, 1, alpha_augmented=0.2) for each in (rows, marked))
    assert torch.equal(found["weights"], plain["weights"])
    names = ("loss", "hard_loss", "soft_loss", "grad_norm")
    assert [[entry[name] for name in names] for entry in found["history"]] == [
        [entry[name] for name in names] for entry in plain["history"]
    ]


def test_at_one_the_labels_of_augmented_rows_are_not_looked_at(tmp_path):
    """Prevents wrong labels of altered rows from being learnt where the recipe takes all weight off them."""
    rows = augmented_rows(64)
    wrong = [1 - row["labels"] if row["is_augmented"] else row["labels"] for row in rows]
    changed = rows.remove_columns("labels").add_column("labels", wrong)
    found = [distil(tmp_path, each, 32, 1, alpha_augmented=1.0)["weights"] for each in (rows, changed)]
    assert torch.equal(*found)
    half = [distil(tmp_path, each, 32, 1, alpha_augmented=0.5)["weights"] for each in (rows, changed)]
    assert not torch.equal(*half)


def trainer_of(folder, rows, **settings):
    return quiet(
        DistillationTrainer(
            model=without_dropout(),
            args=arguments(folder, logging_steps=1),
            train_dataset=rows,
            data_collator=collator(),
            **settings,
        )
    )


def test_at_zero_the_teacher_is_not_listened_to_for_augmented_rows(tmp_path):
    """Prevents the term from being left in: rows that are all augmented are then the control's."""
    rows = pair_rows(32).add_column("is_augmented", [True] * 32)
    histories = []
    for settings in ({"teacher": tiny_bert(4, seed=9), "alpha_augmented": 0.0}, {"alpha": 0.0}):
        trainer = trainer_of(tmp_path, rows, **settings)
        trainer.train()
        histories.append([entry["loss"] for entry in trainer.state.log_history if "loss" in entry])
    assert histories[0] == pytest.approx(histories[1], rel=1e-6) and len(histories[0]) == 2


def test_squared_errors_of_a_regression_are_mixed_by_row(tmp_path):
    """Prevents augmentation that works for classes alone."""
    rows = pair_rows(32, num_labels=1).add_column("is_augmented", [number % 2 > 0 for number in range(32)])
    student, teacher = without_dropout(num_labels=1), tiny_bert(4, seed=9, num_labels=1)
    batch = collator()([{name: row[name] for name in row if name != "is_augmented"} for row in rows])
    labels = batch.pop("labels").double().numpy()
    with torch.no_grad():
        said, wanted = (model(**batch).logits[:, 0].double().numpy() for model in (student, teacher))
    alpha = np.where(rows["is_augmented"][:], 0.25, 0.5)
    expected = ((1 - alpha) * (said - labels) ** 2 + alpha * (said - wanted) ** 2).mean()
    trainer = quiet(
        DistillationTrainer(
            model=student,
            args=arguments(tmp_path),
            train_dataset=rows,
            processing_class=tiny_tokenizer(),
            teacher=teacher,
            alpha_augmented=0.25,
        )
    )
    trainer.train()
    assert trainer.state.log_history[0]["loss"] == pytest.approx(expected, rel=1e-5)


def test_a_collator_that_loses_the_marks_is_refused(tmp_path):
    """Prevents altered rows that train with the alpha of gold ones because a batch holds the usual columns alone."""
    usual = ("input_ids", "attention_mask", "token_type_ids", "labels")
    trainer = trainer_of(tmp_path, augmented_rows(32), teacher=tiny_bert(4, seed=9))
    trainer.data_collator = lambda rows: collator()([{name: row[name] for name in usual} for row in rows])
    with pytest.raises(DataError, match="column 'is_augmented' of the training set in each batch"):
        trainer.train()


@pytest.mark.parametrize(
    ("marks", "got"), [([0.5] * 8, "0.5"), ([2] * 8, "2"), (["yes"] * 8, "'yes'"), ([[1]] * 8, r"\[1\]")]
)
def test_marks_that_are_neither_true_nor_false_are_refused(tmp_path, marks, got):
    """Prevents a column of weights, which looks as if it worked, from being taken for a mark."""
    with pytest.raises(DataError, match=rf"true or false for each row in column 'is_augmented', got {got}\."):
        trainer_of(tmp_path, pair_rows(8).add_column("is_augmented", marks), teacher=tiny_bert(4))


def test_an_alpha_beyond_one_is_refused(tmp_path):
    """Prevents a negative weight of the labels."""
    with pytest.raises(ValueError, match="alpha_augmented"):
        trainer_of(tmp_path, pair_rows(8), teacher=tiny_bert(4), alpha_augmented=1.5)
