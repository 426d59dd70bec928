"""Latency: fair between models, on real rows, and without a trace on the models."""

import pytest
import torch
from torch import nn

from distilbert_kd.latency import measure_latency


class _Recorder(nn.Module):
    """Stands in for a model: notes what it was given, in which state, and lets `seconds` pass on the fake clock."""

    def __init__(self, name: str, calls: list, clock: list[float], seconds: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(0.5)
        self.weight = nn.Parameter(torch.zeros(1))
        self.name, self.calls, self.clock, self.seconds = name, calls, clock, seconds

    @property
    def device(self) -> torch.device:
        return self.weight.device

    def forward(self, input_ids: torch.Tensor, labels: torch.Tensor | None = None) -> torch.Tensor:
        assert labels is None
        assert not self.training and not self.dropout.training and torch.is_inference_mode_enabled()
        self.calls.append((self.name, input_ids[:, 0].tolist()))
        self.clock[0] += self.seconds
        return input_ids


_ROWS = [{"input_ids": [i, i], "token_type_ids": [0, 0], "labels": 1, "text": "left in"} for i in range(5)]


def _collate(rows: list[dict]) -> dict[str, torch.Tensor]:
    return {name: torch.tensor([row[name] for row in rows]) for name in rows[0]}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr("distilbert_kd.latency.time.perf_counter", lambda: now[0])
    return now


def test_milliseconds_are_per_example_and_the_median(clock: list[float]) -> None:
    """Milliseconds per batch, or a mean that the slow first call pulls up, would be a wrong speed-up."""
    calls: list = []
    models = {"teacher": _Recorder("teacher", calls, clock, 0.4), "student": _Recorder("student", calls, clock, 0.1)}
    latency = measure_latency(models, _ROWS, _collate, batch_sizes=(1, 4), max_rounds=5, max_seconds=1000)
    assert latency.ms_per_example["teacher"] == pytest.approx({1: 400.0, 4: 100.0})
    assert latency.ms_per_example["student"] == pytest.approx({1: 100.0, 4: 25.0})
    assert latency.of("student")["latency_ms"] == pytest.approx({"1": 100.0, "4": 25.0})
    assert latency.num_rounds == {1: 5, 4: 5}
    assert (latency.device, latency.num_threads) == ("cpu", torch.get_num_threads())


def test_the_spread_is_that_of_the_rounds(clock: list[float]) -> None:
    """A median alone hides that half of the rounds took twice as long."""

    class _Slowing(_Recorder):
        def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
            self.seconds += 0.001
            return super().forward(input_ids)

    latency = measure_latency({"a": _Slowing("a", [], clock, 0.0)}, _ROWS, _collate, batch_sizes=(2,), max_rounds=5)
    assert latency.of("a")["latency_ms"] == pytest.approx({"2": 2.0})  # 1.0, 1.5, 2.0, 2.5, 3.0; the first was warm-up
    assert latency.of("a")["latency_quartiles_ms"] == {"2": pytest.approx([1.5, 2.5])}


def test_models_take_turns_on_the_same_rows(clock: list[float]) -> None:
    """One model on short rows, or all of one model while another process is busy, compares nothing."""
    calls: list = []
    models = {name: _Recorder(name, calls, clock, 0.01) for name in ("teacher", "student", "control")}
    measure_latency(models, _ROWS, _collate, batch_sizes=(2,), max_rounds=4, max_seconds=1000)
    rounds = [calls[i : i + 3] for i in range(0, len(calls), 3)]
    assert len(rounds) == 5  # one to warm up
    for turn in rounds:
        assert sorted(name for name, _ in turn) == ["control", "student", "teacher"]
        assert len({tuple(rows) for _, rows in turn}) == 1
    assert [turn[0][0] for turn in rounds[1:]] == ["teacher", "student", "control", "teacher"]
    assert {row for _, rows in calls for row in rows} == {0, 1, 2, 3, 4}


def test_small_data_fill_the_batch(clock: list[float]) -> None:
    """With 5 rows a "batch of 32" of 5 examples, divided by 32, would look six times too fast."""
    calls: list = []
    measure_latency({"a": _Recorder("a", calls, clock, 0.1)}, _ROWS, _collate, batch_sizes=(32,), max_rounds=3)
    assert {len(rows) for _, rows in calls} == {32}


def test_budget_ends_the_rounds(clock: list[float]) -> None:
    """A large teacher must not spend minutes here, nor be judged on a single pass."""
    models = {"a": _Recorder("a", [], clock, 1.0)}
    assert measure_latency(models, _ROWS, _collate, max_rounds=500, max_seconds=20).num_rounds == {1: 10, 32: 10}
    assert measure_latency(models, _ROWS, _collate, max_rounds=500, max_seconds=0).num_rounds == {1: 3, 32: 3}


def test_training_modes_come_back_even_after_an_error(clock: list[float]) -> None:
    """A student left in eval mode trains on without dropout; a submodule frozen in eval mode must stay so."""
    model = _Recorder("a", [], clock, 0.01).train()
    model.dropout.eval()
    measure_latency({"a": model}, _ROWS, _collate, max_rounds=3)
    assert model.training and not model.dropout.training
    with pytest.raises(ZeroDivisionError):
        measure_latency({"a": model}, _ROWS, lambda rows: {"input_ids": 1 / 0}, max_rounds=3)
    assert model.training and not model.dropout.training


def test_nothing_to_measure_is_refused(clock: list[float]) -> None:
    """The median of no round, or a GPU model against a CPU one, is no comparison."""
    model = _Recorder("a", [], clock, 0.01)
    with pytest.raises(ValueError, match="at least one row"):
        measure_latency({"a": model}, [], _collate)
    with pytest.raises(ValueError, match="one device"):
        measure_latency({"a": model, "b": _Recorder("b", [], clock, 0.01).to("meta")}, _ROWS, _collate)


def test_real_models_of_two_families_share_a_batch() -> None:
    """DistilBERT takes no token types: the teacher's column must reach BERT and stay away from the student."""
    from transformers import (
        BertConfig,
        BertForSequenceClassification,
        DistilBertConfig,
        DistilBertForSequenceClassification,
    )

    bert = BertConfig(vocab_size=20, hidden_size=16, num_hidden_layers=4, num_attention_heads=2, intermediate_size=32)
    distilbert = DistilBertConfig(vocab_size=20, dim=16, n_layers=1, n_heads=2, hidden_dim=32)
    models = {
        "teacher": BertForSequenceClassification(bert),
        "student": DistilBertForSequenceClassification(distilbert),
    }
    latency = measure_latency(models, _ROWS, _collate, batch_sizes=(1, 2), max_rounds=5)
    assert set(latency.ms_per_example) == {"teacher", "student"}
    assert all(0 < ms < 1000 for by_batch in latency.ms_per_example.values() for ms in by_batch.values())
