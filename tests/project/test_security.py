"""What is installed beside the package is above the known vulnerabilities, and the check for new ones can fail."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version


ROOT = Path(__file__).parents[2]
#: The last release with a known vulnerability that a run could meet, and its number; see SECURITY.md.
VULNERABLE = {
    "torch": ("2.9.1", "CVE-2025-32434, CVE-2026-24747"),
    "transformers": ("5.2.0", "CVE-2026-1839, CVE-2026-4372, CVE-2026-5241"),
    "pyyaml": ("5.3.1", "CVE-2020-1747, CVE-2020-14343"),
    "onnx": ("1.20.1", "CVE-2026-27489, CVE-2026-34446, CVE-2026-34447"),
    "safetensors": ("0.7.0", "weights are written in place: a reader sees half a file"),
    "datasets": ("3.6.0", "runs the script of a data set"),
}


def requirements():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    lines = [
        *project["dependencies"],
        *(line for extra in project["optional-dependencies"].values() for line in extra),
    ]
    return [Requirement(line) for line in lines]


@pytest.mark.parametrize("name", VULNERABLE)
def test_no_range_holds_a_vulnerable_release(name):
    """A lower bound that is eased would let an installer choose a release through which a model file runs code."""
    found = [requirement for requirement in requirements() if requirement.name.lower() == name]
    assert found or name == "onnx", "a requirement that is gone needs no bound: remove it here too"
    release, reason = VULNERABLE[name]
    for requirement in found:
        assert not requirement.specifier.contains(release), reason


def test_the_pinned_versions_are_in_the_ranges():
    """`make test` would test releases that nobody may install."""
    pins = dict(re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text("utf-8"), re.MULTILINE))
    pinned = {name.lower().replace("_", "-"): Version(version) for name, version in pins.items()}
    for requirement in requirements():
        version = pinned.get(requirement.name.lower().replace("_", "-"))
        assert version is None or version in requirement.specifier, requirement


#: Stand-ins for pip-audit: what each says of a vulnerable release, and of the pinned ones.
AUDITS = {
    "knows nothing": ("echo 'No known vulnerabilities found'", "true", False),
    "no network": ("echo 'ConnectionError' >&2; exit 1", "exit 1", False),
    "finds nothing": ("echo 'Found 2 known vulnerabilities in 1 package' >&2; exit 1", "true", True),
    "finds one": ("echo 'Found 2 known vulnerabilities in 1 package' >&2; exit 1", "exit 1", False),
}


@pytest.mark.parametrize("audit", AUDITS)
def test_make_audit_fails_rather_than_passes(tmp_path, audit):
    """An index without a list of vulnerabilities, as many mirrors are, would be taken for a clean bill."""
    of_vulnerable, of_pinned, passes = AUDITS[audit]
    program = tmp_path / "pip-audit"
    program.write_text(f'#!/bin/sh\ncase "$*" in *constraints.txt*) {of_pinned} ;; *) {of_vulnerable} ;; esac\n')
    program.chmod(0o755)
    command = ["make", "--no-print-directory", "-o", ".venv/dev.stamp", "audit", f"BIN={tmp_path}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode == 0) == passes, done.stderr
    assert ("Nothing was checked" in done.stderr) == (audit in ("knows nothing", "no network"))
