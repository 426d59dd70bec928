"""Whole runs that are really killed, signalled, poisoned or damaged, and started again; and a stock Trainer's."""

import json
import re

import pytest

from tests.reliability.faults import BEGUN, FAULTS, TWO_RUNS
from tests.reliability.places import Place
from tests.reliability.programs import Program, Server
from tests.reliability.trying import (
    Finding,
    Reference,
    kill_at_random,
    launched_again,
    seconds_to_first_step,
    try_fault,
    two_in_one_folder,
)


NUM_RANDOM_KILLS = 50
#: So long that 50 kills are over before the run is.
LONG = {
    "ours": ("training.num_train_epochs=20", "training.save_strategy=steps", "training.save_steps=1"),
    "stock": ("num_train_epochs=20", 'save_strategy="steps"', "save_steps=1"),
}
ONCE = [name for name in FAULTS if name != TWO_RUNS]
STOCK = [name for name in ONCE if FAULTS[name].stock is not None]


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    started = Server(tmp_path_factory.mktemp("inputs"))
    yield started
    started.close()


@pytest.fixture(scope="session")
def reference_of(server, tmp_path_factory):
    """Gives the undisturbed run of a program on so many processes, and one that was killed; made when asked for."""
    made = {}

    def reference_of(name, processes=1):
        if (name, processes) not in made:
            program, folder = Program(name, server), tmp_path_factory.mktemp(name)
            whole, begun = Place(folder / "whole", server.inputs), Place(folder / "begun", server.inputs)
            ended = program.start(whole, processes=processes)
            assert ended.end == "0", ended.log
            if processes == 1:
                ended = program.start(begun, BEGUN)
                assert ended.end == "-9", ended.log
            made[name, processes] = Reference(program.outcome(whole), begun)
        return made[name, processes]

    return reference_of


@pytest.fixture
def note(record_property):
    """Keeps what was found for the table; those without a place in the registry come first."""

    def note(program, finding: Finding, fault=None, kind="", name=""):
        known = FAULTS.get(fault)
        is_asked_for = program == "ours" and known is not None and known.result == "different"
        record = {
            "index": -1 if known is None else list(FAULTS).index(fault),
            "kind": kind if known is None else known.kind,
            "name": name if known is None else known.name,
            "program": program,
            "is_asked_for": is_asked_for,
        }
        record_property("finding", json.dumps(record | finding.to_json()))

    return note


@pytest.fixture
def try_one(server, reference_of, note, tmp_path):
    def try_one(program, name):
        fault, place = FAULTS[name], Place(tmp_path / "case", server.inputs)
        processes = fault.processes if not fault.begun else 1
        try:
            finding = try_fault(Program(program, server), fault, name, reference_of(program, processes), place.folder)
        except PermissionError as error:
            pytest.skip(str(error))
        finally:
            place.release()
        assert fault.inside_of(program) is None or place.mark.exists(), "nothing was hurt"
        note(program, finding, name)
        return finding

    return try_one


@pytest.mark.parametrize(
    "name", [pytest.param(each, marks=[] if FAULTS[each].by_default else [pytest.mark.slow]) for each in ONCE]
)
def test_a_fault_costs_and_changes_nothing(try_one, name):
    """Prevents a fault from costing a run, from changing its result unseen, or from leaving a folder to be mended."""
    finding, fault = try_one("ours", name), FAULTS[name]
    assert finding.ends[0] == fault.end, finding.log
    assert re.search(fault.says, finding.log, re.DOTALL), finding.log
    assert finding.result == fault.result, (finding.words, finding.log)


@pytest.mark.slow
@pytest.mark.parametrize("name", STOCK)
def test_what_a_stock_trainer_does(try_one, name):
    """Prevents a comparison with a Trainer of long ago: where upstream learnt to do it, our own code may go."""
    finding = try_one("stock", name)
    assert finding.result == FAULTS[name].stock, (finding.words, finding.log)


@pytest.mark.slow
@pytest.mark.parametrize("program", ["ours", "stock"])
def test_two_runs_in_one_folder(server, reference_of, note, tmp_path, program):
    """Prevents two runs from writing into each other's checkpoints."""
    place = Place(tmp_path / "case", server.inputs)
    finding = two_in_one_folder(Program(program, server), place, reference_of(program))
    note(program, finding, TWO_RUNS)
    fault = FAULTS[TWO_RUNS]
    assert finding.result == (fault.stock if program == "stock" else fault.result), finding.log
    if program == "ours":
        assert finding.ends == (fault.end,) and re.search(fault.says, finding.log), finding.log


@pytest.mark.slow
@pytest.mark.parametrize("program", ["ours", "stock"])
def test_kills_at_random(server, note, tmp_path, program):
    """Prevents a moment that nobody thought of from costing or changing a run."""
    started = Program(program, server)
    begins_s = seconds_to_first_step(started, Place(tmp_path / "first", server.inputs))
    place = Place(tmp_path / "case", server.inputs)
    finding = kill_at_random(started, place, begins_s, LONG[program], NUM_RANDOM_KILLS)
    note(program, finding, kind="SIGKILL at random", name="at any moment of a run")
    assert finding.tries == NUM_RANDOM_KILLS
    if program == "ours":
        assert finding.result == "same", (finding.words, finding.log)


@pytest.mark.slow
@pytest.mark.parametrize("program", ["ours", "stock"])
def test_a_process_that_dies_is_started_again_by_the_launcher(server, reference_of, note, tmp_path, program):
    """Prevents `torchrun --max-restarts` from meeting a locked folder, a torn checkpoint, or another result."""
    place = Place(tmp_path / "case", server.inputs)
    finding = launched_again(Program(program, server), place, reference_of(program, 2))
    note(program, finding, kind="one of two processes killed", name="under `torchrun --max-restarts=1`")
    assert finding.result == "same", finding.log
