"""Every fault that is tried: how it hurts a run, what the package is to do, and what a stock Trainer is known to do.

A fault is tried in one way (`tests.reliability.trying`): a start that is hurt, then, if it did not end well, the same
command again, as a user, Slurm or torchrun would; then the end is compared with that of a run that nothing happened
to. The package has to end with the same bits, after any fault that somebody mends.
"""

from collections.abc import Mapping

from tests.reliability.faults.fault import Fault
from tests.reliability.faults.files import FILES
from tests.reliability.faults.refusals import REFUSALS
from tests.reliability.faults.signals import SIGNALS


__all__ = ["BEGUN", "FAULTS", "TWO_RUNS", "Fault"]

#: In the order of the table.
FAULTS: Mapping[str, Fault] = {f"{fault.kind}: {fault.name}": fault for fault in SIGNALS + FILES + REFUSALS}

#: The run that is hurt where `Fault.begun` says so.
BEGUN = "SIGKILL in a training: student, step 11"
#: Needs a second run beside it, so it is tried in a way of its own.
TWO_RUNS = "one run in one folder: two at the same time"
