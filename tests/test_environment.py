"""The record of versions and hardware that a run publishes."""

import json

import pytest
import torch

from distilbert_kd.environment import describe_environment


def test_environment_names_versions_and_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """The record is published with the model: a token, user or host name in it would be out for good."""
    monkeypatch.setenv("HF_TOKEN", "canary-token-4711")
    monkeypatch.setenv("USER", "canary-user-4711")
    monkeypatch.setattr("platform.node", lambda: "canary-host-4711")
    record = describe_environment()
    text = json.dumps(record)
    assert "canary" not in text
    assert record["versions"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert set(record["versions"]) == {
        "python", "torch", "transformers", "datasets", "accelerate", "evaluate", "distilbert_kd"
    }  # fmt: skip
    assert record["hardware"]["num_cores"] >= 1 and record["hardware"]["num_threads"] == torch.get_num_threads()
    assert record["date_utc"].endswith("+00:00")
