"""What every file that git tracks must keep."""

import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest


ROOT = Path(__file__).parents[2]
MAX_BYTES = 500_000


@pytest.fixture(scope="module")
def tracked():
    """Text of each tracked file, by name."""
    done = subprocess.run(["git", "-C", ROOT, "ls-files", "-z"], capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip("needs the git repository, to know which files belong to the project")
    paths = [ROOT / name for name in done.stdout.split("\0") if name]
    return {path.relative_to(ROOT): path.read_bytes() for path in paths if path.is_file()}


def test_no_file_names_this_machine(tracked):
    """A path of the author's machine in a script, recipe or example works for the author alone."""
    places = {str(ROOT), str(Path.home()), sys.prefix, sys.base_prefix} - {"/", "/usr", "/usr/local"}
    pattern = re.compile("|".join([*map(re.escape, sorted(places)), r"/(?:home|Users)/(?!someone\b)\w"]).encode())
    found = {str(name): hit.group().decode() for name, text in tracked.items() if (hit := pattern.search(text))}
    found.pop(str(Path(__file__).relative_to(ROOT)), None)
    assert found == {}


def test_no_path_leads_out_of_the_repository(tracked):
    """`../data` beside the checkout exists for the author alone."""
    found = []
    for name, text in tracked.items():
        for ups, rest in re.findall(rb"((?:\.\./)+)([\w.][\w./-]*)", text):
            if name != Path(__file__).relative_to(ROOT) and len(ups) // 3 > len(name.parts) - 1:
                found.append(f"{name}: {(ups + rest).decode()}")
    assert found == []


def test_no_data_or_weights_are_tracked(tracked):
    """Data sets have licences of their own, and a large file stays in the history for good."""
    large = {str(name): len(text) for name, text in tracked.items() if len(text) > MAX_BYTES}
    assert large == {}
    assert [
        str(name) for name in tracked if name.suffix in {".bin", ".npy", ".onnx", ".parquet", ".pt", ".safetensors"}
    ] == []


def test_ci_script_is_executable(tracked):
    """CI calls `.ci/run` as a program; a lost mode bit stops it before the first test."""
    assert (ROOT / ".ci/run").stat().st_mode & stat.S_IXUSR
    assert b"set -euo pipefail" in tracked[Path(".ci/run")]


def test_constraints_pin_every_requirement(tracked):
    """A requirement without a pin makes two set-ups differ, and an open torch brings gigabytes of CUDA."""
    import tomllib

    project = tomllib.loads(tracked[Path("pyproject.toml")].decode())["project"]
    wanted = [
        *project["dependencies"],
        *(line for extra in project["optional-dependencies"].values() for line in extra),
    ]
    lines = [line for line in tracked[Path("constraints.txt")].decode().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines), "exact pins, no local tags"
    pinned = {normal(line) for line in lines}
    assert {normal(line) for line in wanted} - {"distilbert-kd"} <= pinned


def normal(requirement: str) -> str:
    """The project name that a requirement starts with, as indexes compare it."""
    return re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", requirement).group()).lower()
