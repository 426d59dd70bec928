"""Run by torchrun from test_faults: the command line, of which process 1 is killed once, in its first start."""

import os
import sys

from tests.fault_server import at_step, run


if __name__ == "__main__":
    if os.environ["RANK"] == "1" and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0" and sys.argv[1] == "die":
        at_step("student", 5)
    run(sys.argv[2:], None)
