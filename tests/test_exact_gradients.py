"""The same rows give the same loss, gradients and weights, however they are split."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.nn.functional import cross_entropy, kl_div
from transformers import Trainer

from distilbert_kd.trainer import DistillationTrainer
from tests.pretraining.language_models import distil_language
from tests.tiny import tiny_bert
from tests.training_rows import (
    ALL_TERMS,
    arguments,
    augmented_rows,
    collator,
    distil,
    flat_weights,
    pair_rows,
    quiet,
    without_dropout,
)


ROOT = Path(__file__).parents[1]
TOLERANCE = 1e-9  # in float64; the promise is 1e-6

# 70 rows: the last step of an epoch has 6. 65: it has 1, so one of two processes is left without a row.
SIZES = (70, 65)


def relative_difference(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).norm() / one.norm())


@pytest.fixture(scope="module")
def whole_batches(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return {size: distil(folder, pair_rows(size, unlabelled=5), 32, 1) for size in SIZES}


def assert_equal_runs(run, reference, terms=()):
    assert relative_difference(reference["weights"], run["weights"]) < TOLERANCE
    assert len(run["history"]) == len(reference["history"]) == 6
    for entry, expected in zip(run["history"], reference["history"], strict=True):
        for name in ("loss", "hard_loss", "soft_loss", "grad_norm", *terms):
            bound = 1e-6 if name == "loss" else TOLERANCE  # Trainer adds the loss up in float32
            assert entry[name] == pytest.approx(expected[name], rel=bound), (name, expected["step"])
    assert run["eval_loss"] == pytest.approx(reference["eval_loss"], rel=TOLERANCE)
    torch.testing.assert_close(run["predictions"], reference["predictions"], rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize("size", SIZES)
def test_accumulated_batches_train_like_whole_ones(whole_batches, tmp_path, size):
    """Prevents gradients that grow with the accumulation steps, as the copied compute_loss has (8 x 4: 4 times)."""
    assert_equal_runs(distil(tmp_path, pair_rows(size, unlabelled=5), 8, 4), whole_batches[size])


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    """What two gloo processes make of it: (rows, batch size, accumulation) -> run."""
    output = tmp_path_factory.mktemp("two") / "runs.pt"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
    subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--master_port=0"),
            *("--rdzv_backend=c10d", "--rdzv_endpoint=localhost:0", "tests/two_processes.py", str(output)),
        ],
        cwd=ROOT,
        env=environment,
        check=True,
        timeout=240,
        capture_output=True,
    )
    return torch.load(output)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("batch_size", "accumulation"), [(16, 1), (8, 2)])
def test_two_processes_train_like_one(whole_batches, two_processes, size, batch_size, accumulation):
    """Prevents a loss that depends on the number of processes, and rows that are repeated to fill up a rank."""
    assert_equal_runs(two_processes[size, batch_size, accumulation], whole_batches[size])


def test_deeper_terms_train_alike_however_they_are_split(two_processes, tmp_path):
    """Prevents terms that depend on padding, on accumulation or on the processes, and projections that DDP forgets."""
    rows = pair_rows(65, unlabelled=5)
    whole = distil(tmp_path, rows, 32, 1, terms=ALL_TERMS)
    assert_equal_runs(distil(tmp_path, rows, 8, 4, terms=ALL_TERMS), whole, ALL_TERMS)
    assert_equal_runs(two_processes["terms"], whole, ALL_TERMS)


def test_augmented_rows_train_alike_however_they_are_split(two_processes, tmp_path):
    """Prevents an alpha of a row that is that of its batch, or that goes to another row of the step."""
    rows = augmented_rows(65, unlabelled=5)
    whole = distil(tmp_path, rows, 32, 1)
    assert_equal_runs(distil(tmp_path, rows, 8, 4), whole)
    assert_equal_runs(two_processes["augmented"], whole)


def test_language_is_learnt_alike_however_it_is_split(two_processes, tmp_path):
    """Prevents a `PretrainingTrainer` that is right in the command, which prepares arguments, and not by itself."""
    whole, split = distil_language(tmp_path, 16, 1), distil_language(tmp_path, 4, 4)
    names = {"loss", "soft_targets", "masked_language_model", "hidden_mse", "hidden_cosine", "value_relation"}
    for run in (split, two_processes["language"]):
        assert relative_difference(run["weights"], whole["weights"]) < TOLERANCE
        assert len(run["history"]) == len(whole["history"]) > 2
        for entry, expected in zip(run["history"], whole["history"], strict=True):
            logged = names & expected.keys()  # the last step is one row, of which no token may be masked
            assert len(logged) >= 5 and logged == names & entry.keys()
            assert [entry[name] for name in logged] == pytest.approx([expected[name] for name in logged], rel=1e-6)


def test_the_first_step_is_the_formula(tmp_path):
    """Prevents a loss that is consistent with itself and yet not the one that is documented."""
    rows, teacher, student = pair_rows(32), tiny_bert(4, seed=9).double(), without_dropout().double()
    batch = collator()([rows[i] for i in range(32)])
    labels = batch.pop("labels")
    logits, teacher_logits = student(**batch).logits, teacher(**batch).logits.detach()
    soft = kl_div((logits / 3).log_softmax(-1), (teacher_logits / 3).softmax(-1), reduction="batchmean") * 9
    expected = 0.3 * cross_entropy(logits, labels) + 0.7 * soft
    expected.backward()
    grad_norm = torch.cat([p.grad.flatten() for p in student.parameters()]).norm().item()
    first = distil(tmp_path, rows, 32, 1)["history"][0]
    assert first["loss"] == pytest.approx(expected.item(), rel=1e-6)
    assert first["soft_loss"] == pytest.approx(soft.item(), rel=1e-6)
    assert first["grad_norm"] == pytest.approx(grad_norm, rel=1e-6)


def test_without_a_teacher_it_is_the_plain_trainer_to_the_bit(tmp_path):
    """Prevents a control, or a teacher, that is trained by another rule than everybody's: the standard objective."""
    weights = []
    for trainer_class, settings in ((Trainer, {}), (DistillationTrainer, {"alpha": 0})):
        trainer = quiet(
            trainer_class(
                model=tiny_bert(2, seed=1),
                args=arguments(tmp_path, 16),
                train_dataset=pair_rows(70),
                data_collator=collator(),
                **settings,
            )
        )
        trainer.train()
        weights.append(flat_weights(trainer.model))
    assert torch.equal(*weights)


def test_teacher_and_control_accumulate_rightly_where_the_plain_trainer_does_not(tmp_path):
    """Prevents a comparison with a baseline whose gradients are off; if the plain Trainer is mended, this says so."""
    norms = {}
    for trainer_class, settings in ((Trainer, {}), (DistillationTrainer, {"alpha": 0})):
        for batch_size, accumulation in ((32, 1), (8, 4)):
            trainer = quiet(
                trainer_class(
                    model=without_dropout(),
                    args=arguments(tmp_path, batch_size, accumulation, max_steps=1),
                    train_dataset=pair_rows(64),
                    data_collator=collator(),
                    **settings,
                )
            )
            trainer.train()
            norms[trainer_class, accumulation] = trainer.state.log_history[0]["grad_norm"]
    assert norms[DistillationTrainer, 4] == pytest.approx(norms[DistillationTrainer, 1], rel=1e-5)
    assert norms[Trainer, 1] == pytest.approx(norms[DistillationTrainer, 1], rel=1e-5)
    assert norms[Trainer, 4] == pytest.approx(4 * norms[Trainer, 1], rel=1e-4)
