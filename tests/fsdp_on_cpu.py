"""The command line on two gloo processes under FSDP; run by accelerate from test_fsdp.

Accelerate 1.15 takes FSDP for GPUs alone: on a CPU it ignores it and says nothing. So the one thing that is changed
here is what accelerate finds when it looks for devices; sharding, gathering and saving are those of torch, on the CPU.
"""

from typing import Any

from accelerate.state import PartialState
from accelerate.utils import DistributedType

from distilbert_kd.cli import main


def _cpu_as_gpu(*_arguments: Any, **_named: Any) -> tuple[str, DistributedType]:
    return "gloo", DistributedType.MULTI_GPU


if __name__ == "__main__":
    PartialState._prepare_backend = _cpu_as_gpu  # its device is given by ACCELERATE_TORCH_DEVICE
    main()
