"""What every test stands on: no network, no cache of the user's, one thread."""

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings


# Libraries read these when they are imported, so before any test module is. A folder of its own, removed at the end,
# keeps a test from passing on what the user once downloaded.
_HF_HOME = tempfile.TemporaryDirectory(prefix="distilbert-kd-tests-", ignore_cleanup_errors=True)
os.environ["HF_HOME"] = _HF_HOME.name
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # spinning threads starve the other test process
os.environ.setdefault("OMP_NUM_THREADS", "1")  # one thread for torch, without importing it for tests that need none
for name in ("HF_HUB_CACHE", "HF_DATASETS_CACHE", "HF_MODULES_CACHE", "HF_EVALUATE_CACHE", "HF_TOKEN"):
    os.environ.pop(name, None)  # each would win over HF_HOME, or send a token

# A busy machine is no failure, and a failure is the same everywhere.
settings.register_profile("distilbert-kd", deadline=None, derandomize=True)
settings.register_profile("thorough", deadline=None, max_examples=2000)
settings.load_profile("distilbert-kd")


def pytest_unconfigure() -> None:
    """Remove the session's cache, here and not at interpreter exit, where it would be a ResourceWarning."""
    _HF_HOME.cleanup()


@pytest.fixture(scope="session")
def glue_dir() -> Path:
    """The folder with GLUE's own files (`RTE/train.tsv`, ...) that the environment variable GLUE_DIR names."""
    value = os.environ.get("GLUE_DIR", "")
    if not value:
        pytest.skip("needs GLUE's original files: set GLUE_DIR to their folder")
    folder = Path(value).expanduser().resolve()
    if not folder.is_dir():
        pytest.fail(f"GLUE_DIR must name a folder; got {value!r}, which is none. Correct it, or unset it to skip.")
    return folder
