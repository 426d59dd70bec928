"""Run by torchrun: either program, of which process 1 is killed once, in its first start."""

import os
import sys
from pathlib import Path

from tests.reliability import stock
from tests.reliability.hurts import at_step
from tests.reliability.places import Place
from tests.reliability.server import run_ours


if __name__ == "__main__":
    program, folder, inputs = sys.argv[1:]
    place = Place(Path(folder), Path(inputs))
    if os.environ["RANK"] == "1" and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
        at_step("student", 5)(place)
    if program == "stock":
        stock.main(place, [])
    else:
        run_ours(place, [], [])
