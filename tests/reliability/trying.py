"""Tries one fault on one of the programs, in one way for all: hurt, start again, compare."""

import random
import shutil
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.launching import start
from tests.reliability.faults import TWO_RUNS, Fault
from tests.reliability.places import Place
from tests.reliability.programs import Ended, Program, copied, is_finite


#: A stock Trainer that hangs is believed after so long; its whole run takes seconds.
STOCK_TIMEOUT_S = 60.0

#: Kills each program as soon as it works.
FIRST_STEP = {
    "ours": "SIGKILL in a training: teacher, step 2",
    "stock": "SIGKILL in a training: student, step 1",
}
#: For a run of hundreds of steps on a busy machine.
LONG_TIMEOUT_S = 900.0


@dataclass(frozen=True)
class Finding:
    """What a fault did to a program.

    Attributes:
        result: See `Fault.result` and `Fault.stock`.
        words: The same for the table.
        tries: How often a run was hurt.
        log: Of the start that was hurt.
        ends: Of the start that was hurt, and of the one after it.
    """

    result: str
    words: str
    tries: int = 1
    log: str = ""
    ends: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """For the table."""
        return {name: value for name, value in asdict(self).items() if name in ("result", "words", "tries")}


@dataclass(frozen=True)
class Reference:
    """What a fault is measured by.

    Attributes:
        whole: The outcome of a run that nothing happened to.
        begun: A run that was killed in its student's step 11, to be copied.
    """

    whole: dict[str, Any]
    begun: Place


def try_fault(program: Program, fault: Fault, name: str, reference: Reference, folder: Path) -> Finding:
    """Hurts a start; if it did not end well, starts the same command again; compares the end.

    Args:
        program: of the two.
        fault: of `FAULTS`.
        name: its key.
        reference: of this program and number of processes.
        folder: for the case, not there yet.

    Returns:
        What was found.
    """
    place = copied(reference.begun, folder) if fault.begun else Place(folder, reference.begun.inputs)
    is_stock = program.name == "stock"
    settings: dict[str, Any] = {"processes": fault.processes}
    if is_stock:
        settings["timeout_s"] = STOCK_TIMEOUT_S
    overrides = (*fault.overrides, *fault.stock_overrides) if is_stock else fault.overrides
    options = () if is_stock else fault.options
    with fault.around(place):
        hurt = program.start(place, name, overrides, options, **settings)
    if hurt.end == "0":
        return _finding(program, place, reference, [hurt])
    expected = fault.stock if is_stock else fault.result
    if expected in ("nothing", "refused"):
        result = expected if _is_as_expected(place, expected) else "something"
        return Finding(result, _how(hurt), 1, hurt.log, (hurt.end,))
    settings["processes"] = 1 if fault.begun else fault.processes  # what was changed is changed back
    again = program.start(place, None, fault.stock_overrides if is_stock else (), **settings)
    return _finding(program, place, reference, [hurt, again])


def _is_as_expected(place: Place, expected: str) -> bool:
    """Whether nothing was written, or nothing but finite numbers."""
    if expected == "nothing":
        return not (place.run.is_dir() and list(place.run.rglob("*")))
    return all(is_finite(path) for path in place.run.rglob("*.safetensors"))


def _finding(program: Program, place: Place, reference: Reference, starts: list[Ended]) -> Finding:
    hurt, last = starts[0], starts[-1]
    if "hangs" in (hurt.end, last.end):
        result = "hangs"
    elif last.end != "0":
        result = "stuck"
    else:
        result = program.verdict(place, reference.whole)
    words = list(dict.fromkeys(_how(each) for each in starts if each.end != "0"))
    is_the_same = len(starts) == 2 and len(words) == 1 and last.end != "0"
    said = f"{words[0]}, each time" if is_the_same else "; again: ".join(words)
    return Finding(result, said, 1, hurt.log, tuple(each.end for each in starts))


def _how(start: Ended) -> str:
    """How a start ended, in words."""
    if start.end == "hangs":
        return f"hangs ({STOCK_TIMEOUT_S:g} s and more)"
    if start.end.startswith("-"):
        return "killed" if start.end == "-9" else f"ends by signal {start.end[1:]}"
    error = f", `{start.error}`" if start.error and start.end == "1" else ""
    return f"exit {start.end}{error}"


def kill_at_random(program: Program, place: Place, begins_s: float, overrides: tuple[str, ...], tries: int) -> Finding:
    """Kills a run again and again, each start at a random moment in the time in which a start begins and works a bit.

    A run that is done before all kills were made is followed by another. Where the same command fails, what a person
    would do is done: the last checkpoint is removed.

    Args:
        program: of the two.
        place: of the first run.
        begins_s: processor time that a start takes to its first step.
        overrides: of the run.
        tries: kills in all.

    Returns:
        "same" if each run ended as `whole`, which is the outcome of an undisturbed run with the same overrides.
    """
    whole_place = Place(place.folder.with_name(f"{place.folder.name}-whole"), place.inputs)
    ended = program.start(whole_place, overrides=overrides, timeout_s=LONG_TIMEOUT_S)
    assert ended.end == "0", ended.log
    whole = program.outcome(whole_place)
    moments, num_kills, num_stuck, num_runs, verdicts, log = random.Random(0), 0, 0, 0, [], ""
    while num_kills < tries:
        num_runs += 1
        here = Place(place.folder.with_name(f"{place.folder.name}-{num_runs}"), place.inputs)
        while True:
            kill_at_cpu_s = moments.uniform(0.2, 1.8) * begins_s if num_kills < tries else None
            ended = program.start(here, None, overrides, kill_at_cpu_s=kill_at_cpu_s, timeout_s=LONG_TIMEOUT_S)
            num_kills += ended.end == "-9"
            if ended.end == "0" or (ended.end == "-9" and (here.run / "results.json").exists()):
                break
            if ended.end != "-9":
                num_stuck, log = num_stuck + 1, ended.log
                if program.name == "ours" or num_stuck > tries:
                    return Finding("stuck", _how(ended), num_kills, log)
                shutil.rmtree(here.newest)
        verdicts.append(program.verdict(here, whole))
    result = "stuck" if num_stuck else next((each for each in verdicts if each != "same"), "same")
    runs = "one run" if num_runs == 1 else f"{num_runs} runs"
    words = f"{num_kills} kills of {runs}" + (f", {num_stuck} starts fail for good" if num_stuck else "")
    return Finding(result, words, num_kills, log)


def two_in_one_folder(program: Program, place: Place, reference: Reference) -> Finding:
    """Starts a second run, with another seed, in the folder of one that stands in its student's step 6."""
    first = program.start(place, TWO_RUNS)
    assert first.end == "paused", first.log
    second = program.start(place, overrides=("seed=7",))
    gone_on = program.go_on(place, first)
    if gone_on.end != "0":
        return Finding("stuck", f"the second ends with {_how(second)}, the first with {_how(gone_on)}", 1, second.log)
    result = program.verdict(place, reference.whole)
    words = "the second: exit 0, and both write" if second.end == "0" else f"the second: {_how(second)}"
    return Finding("unseen" if second.end == "0" else result, words, 1, second.log, (second.end,))


def seconds_to_first_step(program: Program, place: Place) -> float:
    """Processor time that a start takes before it works."""
    ended = program.start(place, FIRST_STEP[program.name])
    assert ended.end == "-9", ended.log
    return ended.cpu_s


def launched_again(program: Program, place: Place, reference: Reference) -> Finding:
    """Kills one of two processes in its student's step 5 and leaves the rest to `torchrun --max-restarts=1`."""
    place.disk.mkdir(parents=True)
    torchrun = ["torch.distributed.run", "--nproc_per_node=2", "--rdzv_backend=c10d", "--rdzv_endpoint=localhost:0"]
    arguments = ["--max-restarts=1", "-m", "tests.reliability.dying_process", program.name, str(place.folder)]
    environment = {"ACCELERATE_USE_CPU": "true", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}  # as recipes/launch has it
    process = start([sys.executable, "-m", *torchrun, *arguments, str(place.inputs)], **environment)
    try:
        log = process.communicate(timeout=300)[1]
    finally:
        process.kill()
    if process.returncode:
        return Finding("stuck", f"exit {process.returncode}", 1, log)
    assert "going on from" in log or program.name == "stock", log
    return Finding(program.verdict(place, reference.whole), "both are started again", 1, log)
