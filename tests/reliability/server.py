"""Runs either program in forked children, each with a fault of its own; the libraries are imported once.

Started with the folder of the inputs, which it makes. Reads one JSON object a line and answers with one: see
`programs`. A child is a real process: it is killed, signalled and limited like any other.
"""

import gc
import json
import os
import select
import signal
import socket
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

from distilbert_kd import cli, pipeline, report, scoring  # noqa: F401  the children need what the pipeline imports
from distilbert_kd.latency import measure_latency
from distilbert_kd.metrics.distillation_glue import distillation_glue  # noqa: F401  imported by the first score
from distilbert_kd.report import writing
from tests.reliability import stock
from tests.reliability.faults import FAULTS
from tests.reliability.places import Place
from tests.tiny_runs import save_tiny_base, write_recipe


SHORT = ("teacher.finetune.num_train_epochs=2", "teacher.allow_near_chance=true", "data.max_train_rows=32")
#: Two checkpoints, so that one is left when the other is damaged.
SAVES = ("training.save_strategy=epoch", "training.save_total_limit=2")


def run_ours(place: Place, overrides: list[str], options: list[str]) -> None:
    """The command line, without what no fault is about: figures, and how long a forward pass takes."""
    scoring.measure_latency = partial(measure_latency, max_seconds=0.0)
    writing.draw_all = lambda *_: {}
    places = (f"output_dir={place.run}", f"teacher.cache_dir={place.cache}")
    arguments = [str(place.inputs / "recipe.yaml"), *SHORT, *SAVES, *places, *overrides, *options]
    sys.argv = ["distilbert-kd", "run", *arguments]
    cli.main()


def child(request: dict[str, Any], rank: int, port: int) -> None:
    """Becomes one process of a run; the program ends it."""
    log = os.open(request["log"] + (f".{rank}" if rank else ""), os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
    if request["processes"] > 1:
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(request["processes"])}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "ACCELERATE_USE_CPU": "true"}
        os.environ |= {"LOCAL_WORLD_SIZE": str(request["processes"])}
    place = Place(Path(request["folder"]), Path(sys.argv[1]))
    if request["fault"] is not None:
        inside = FAULTS[request["fault"]].inside_of(request["program"])
        if inside is not None:
            inside(place)
    if request["program"] == "stock":
        stock.main(place, request["overrides"])
    else:
        run_ours(place, request["overrides"], request["options"])


def start(request: dict[str, Any]) -> list[int]:
    """Forks the processes of a run."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    pids = []
    for rank in range(request["processes"]):
        pid = os.fork()
        if pid == 0:
            child(request, rank, port)
            sys.exit(0)
        pids.append(pid)
    return pids


def wait(pid: int, deadline: float, kill_at_cpu_s: float | None) -> str:
    """How a process ended: its exit code or -signal, "paused", or "hangs" if it had to be killed at the deadline.

    A moment to kill at is given in processor time, so that it is the same one on a busy machine.
    """
    handle = os.pidfd_open(pid)
    try:
        while True:
            done, status = os.waitpid(pid, os.WNOHANG | os.WUNTRACED)
            if done:
                return "paused" if os.WIFSTOPPED(status) else str(os.waitstatus_to_exitcode(status))
            is_late = time.monotonic() > deadline
            if is_late or (kill_at_cpu_s is not None and cpu_seconds(pid) > kill_at_cpu_s):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                return "hangs" if is_late else "-9"
            select.select([handle], [], [], 0.005 if kill_at_cpu_s is not None else 0.1)
    finally:
        os.close(handle)


def cpu_seconds(pid: int) -> float:
    """Processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Starts a run, or goes on with one that was paused, and waits for it."""
    if "go_on" in request:
        pids = request["go_on"]
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
    else:
        pids = start(request)
    deadline = time.monotonic() + request["timeout_s"]
    before = os.times()
    ends = [wait(pid, deadline, request["kill_at_cpu_s"]) for pid in pids]
    after = os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return {"ends": ends, "pids": pids, "cpu_s": used}


def serve() -> None:
    """Makes the inputs, and answers until its input ends."""
    inputs = Path(sys.argv[1])
    write_recipe(inputs, save_tiny_base(inputs / "base"))
    stock.write_inputs(inputs)
    gc.collect()
    gc.freeze()  # the children would look through all that was imported, again and again
    for line in sys.stdin:
        sys.stdout.write(json.dumps(answer(json.loads(line))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    serve()
