"""Starts a run on two processes as a user does: `accelerate launch` with one of the project's own files."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any


ROOT = Path(__file__).parents[1]


def launch_command(config: str, *program: str) -> list[str]:
    """The command line of `accelerate launch --config_file recipes/accelerate/CONFIG.yaml PROGRAM`."""
    accelerate = [sys.executable, "-m", "accelerate.commands.launch"]
    return [*accelerate, "--config_file", f"recipes/accelerate/{config}.yaml", *program]


def start(command: list[str], **environment: str) -> subprocess.Popen[str]:
    """Starts a command in the project's root, with one quiet thread for each process."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    settings = {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, **settings, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def launch(config: str, *program: str, **environment: str) -> Any:
    """Runs a program under a launch file to its good end.

    Returns:
        What it printed: `stdout` and `stderr`.
    """
    process = start(launch_command(config, *program), **environment)
    try:
        stdout, stderr = process.communicate(timeout=300)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    assert process.returncode == 0, stderr[-3000:]
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)
