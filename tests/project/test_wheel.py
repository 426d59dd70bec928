"""What is installed is the wheel, not this folder."""

import email
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest


ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built without the network from a copy, so that the build leaves nothing in the source folder."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("distilbert_kd", "tests", "recipes"):  # the last two must stay outside
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run([*command, "-w", target, source], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(next(target.glob("*.whl"))) as opened:
        yield opened


def test_wheel_carries_the_whole_package_and_nothing_else(wheel):
    """A subpackage or `py.typed` left out is found by the first user, not by tests that run in the source folder."""
    package = ROOT / "distilbert_kd"
    sources = {path.relative_to(ROOT).as_posix() for suffix in ("py", "j2") for path in package.rglob(f"*.{suffix}")}
    names = set(wheel.namelist())
    assert {"distilbert_kd/py.typed", "distilbert_kd/metrics/distillation_glue/distillation_glue.py"} <= names
    assert {name for name in names if ".dist-info/" not in name} == sources | {"distilbert_kd/py.typed"}


def test_wheel_names_command_licence_and_python(wheel):
    """Metadata that pip and licence scanners read, and the command itself, come from the wheel alone."""
    (info,) = {name.split("/")[0] for name in wheel.namelist() if ".dist-info/" in name}
    assert "distilbert-kd = distilbert_kd.cli:main" in wheel.read(f"{info}/entry_points.txt").decode()
    assert any(name.startswith(f"{info}/") and name.endswith("/LICENSE") for name in wheel.namelist())
    metadata = email.message_from_bytes(wheel.read(f"{info}/METADATA"))
    assert (metadata["Name"], metadata["License-Expression"]) == ("distilbert-kd", "Apache-2.0")
    assert metadata["Requires-Python"] == ">=3.11"
    assert set(metadata.get_all("Provides-Extra")) >= {"demo", "dev", "quality", "test"}
