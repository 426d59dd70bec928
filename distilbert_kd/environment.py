"""What a run was made with: versions and hardware, for the run folder and the report.

No environment variable, user name, host name or path is read: the record can be published.
"""

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any


__all__ = ["decisive_versions", "describe_environment"]

#: With another version of one of these the same recipe may make another student.
_DECISIVE = ("torch", "transformers", "accelerate", "tokenizers", "datasets", "numpy", "distilbert_kd")
_PACKAGES = ("torch", "transformers", "datasets", "accelerate", "evaluate", "distilbert_kd")


def describe_environment() -> dict[str, Any]:
    """Versions, hardware, operating system and date, ready for JSON.

    Returns:
        `date_utc` (ISO 8601), `platform` (system, release, machine), `versions` (Python and the packages; None if
        not installed), `hardware`: `cpu`, `num_cores` (usable by this process), `num_threads` (of torch), `ram_gb`,
        `gpus` (one name per GPU). Sizes in GB are 10^9 bytes; None where the system doesn't tell.
    """
    import torch

    accelerators = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        accelerators.append("Apple MPS")
    return {
        "date_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "platform": {"system": platform.system(), "release": platform.release(), "machine": platform.machine()},
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in _PACKAGES}},
        "hardware": {
            "cpu": _cpu_name(),
            "num_cores": _num_cores(),
            "num_threads": torch.get_num_threads(),
            "ram_gb": _ram_gb(),
            "gpus": accelerators,
        },
    }


def decisive_versions() -> dict[str, str | None]:
    """Versions of the packages that the bits of a trained model depend on; None for one that is not installed."""
    return {name: _version(name) for name in _DECISIVE}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _cpu_name() -> str | None:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or None


def _num_cores() -> int | None:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count()


def _ram_gb() -> float | None:
    try:
        num_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None
    return round(num_bytes / 1e9, 1)
