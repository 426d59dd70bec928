"""The command line with CPUs in the place of GPUs, so that FSDP and DeepSpeed can be run; for test_sharded_runs.

Accelerate 1.15 takes both for GPUs alone: on a CPU it leaves them out and says nothing. So the one thing that is
changed here is what it finds when it looks for devices; sharding, gathering and saving are the real ones, over gloo.
"""

from typing import Any

from accelerate.state import PartialState
from accelerate.utils import DistributedType

from distilbert_kd.cli import main


def cpu_as_gpu(*_arguments: Any, **_named: Any) -> tuple[str, DistributedType]:
    """What accelerate finds: a backend and a kind of launch."""
    return "gloo", DistributedType.MULTI_GPU


if __name__ == "__main__":
    PartialState._prepare_backend = cpu_as_gpu  # the device itself is given by ACCELERATE_TORCH_DEVICE
    main()
