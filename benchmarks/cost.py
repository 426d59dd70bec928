"""What a training cost, and on what machine it was measured."""

import datetime
import importlib.util
import os
import platform
import resource
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any


__all__ = ["Cost", "measured", "peak_memory_mb", "setting_record"]

_PACKAGES = ("distilbert-kd", "torch", "transformers", "datasets", "accelerate", "numpy", "textbrewer")


@dataclass
class Cost:
    """Time of a piece of work.

    Attributes:
        cpu_s: Seconds of the processor, over all threads of the process; neighbours hardly change it.
        wall_s: Seconds of the clock.
    """

    cpu_s: float = 0.0
    wall_s: float = 0.0


@contextmanager
def measured() -> Iterator[Cost]:
    """Fills in a `Cost` at the end of the block."""
    cost, cpu, wall = Cost(), time.process_time(), time.perf_counter()
    yield cost
    cost.cpu_s, cost.wall_s = time.process_time() - cpu, time.perf_counter() - wall


def peak_memory_mb() -> float:
    """The largest resident size that this process had so far, in 10^6 bytes (Linux: `ru_maxrss` is in KiB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def setting_record(num_threads: int) -> dict[str, Any]:
    """Date, hardware, versions and threads, for the top of a results file.

    Args:
        num_threads: that the work was done with.

    Returns:
        Plain values.
    """
    return {
        "date": datetime.date.today().isoformat(),
        "processor": _processor(),
        "num_cores": os.cpu_count(),
        "load_average": round(os.getloadavg()[0], 2),
        "system": f"{platform.system()} {platform.machine()}",
        "threads": num_threads,
        "omp_wait_policy": os.environ.get("OMP_WAIT_POLICY", "not set"),
        "commit": _commit(),
        "versions": {"python": platform.python_version(), **_versions()},
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or "unknown"
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")


def _commit() -> str:
    package = importlib.util.find_spec("distilbert_kd")
    assert package is not None and package.origin is not None
    command = ["git", "-C", str(Path(package.origin).parent), "describe", "--always", "--dirty"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
