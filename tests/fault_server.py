"""Started by test_faults: runs the command line in forked children, each with a fault of its own.

The libraries are imported once; a child is hurt by its own hand, at places that a signal from outside would miss.
Reads one JSON object a line: `arguments`, `fault` (a key of FAULTS, or null), `log`, and `kill_after_s` (when it is
killed from outside, or null); answers with the exit status.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any

from distilbert_kd import (
    checkpoints,
    cli,
    pipeline,
    resumable_trainer,
    resuming,
    run_records,
    scoring,
    teacher_cache,
    training,
)
from distilbert_kd.latency import measure_latency
from distilbert_kd.resumable_trainer import ResumableTrainer


def die(*_: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def interrupt(number: int, again_after_s: float | None = None) -> None:
    os.kill(os.getpid(), number)
    if again_after_s is not None:
        time.sleep(again_after_s)
        os.kill(os.getpid(), number)


def at_step(what: str, step: int, act: Callable[[], None] = die) -> None:
    """Acts in the middle of a step of one of the trainings."""
    before = ResumableTrainer.training_step

    def training_step(self: ResumableTrainer, *args: Any, **kwargs: Any) -> Any:
        loss = before(self, *args, **kwargs)
        if str(self.args.output_dir).endswith(what) and self.state.global_step == step - 1:
            act()
        return loss

    ResumableTrainer.training_step = training_step


def at_call(owner: ModuleType | type, name: str, call: int = 1, is_after: bool = False) -> None:
    """Dies before or after a call of a function, the first or a later one."""
    before, count = getattr(owner, name), 0

    def hurt(*args: Any, **kwargs: Any) -> Any:
        nonlocal count
        count += 1
        if count == call and not is_after:
            die()
        result = before(*args, **kwargs)
        if count == call and is_after:
            die()
        return result

    setattr(owner, name, hurt)


def poison(what: str, step: int) -> None:
    """An infinite gradient in one step."""
    before = ResumableTrainer.training_step

    def training_step(self: ResumableTrainer, *args: Any, **kwargs: Any) -> Any:
        loss = before(self, *args, **kwargs)
        if str(self.args.output_dir).endswith(what) and self.state.global_step == step - 1:
            next(weight for weight in self.model.parameters() if weight.grad is not None).grad.fill_(float("inf"))
        return loss

    ResumableTrainer.training_step = training_step


FAULTS: dict[str, Callable[[], None]] = {
    # SIGKILL in a training: before its first checkpoint, in its middle, in its last step.
    "teacher, step 2": partial(at_step, "teacher", 2),
    "teacher, step 6": partial(at_step, "teacher", 6),
    "student, step 1": partial(at_step, "student", 1),
    "student, step 7": partial(at_step, "student", 7),
    "student, step 12": partial(at_step, "student", 12),
    "control, step 6": partial(at_step, "control", 6),
    # SIGKILL in a save; the teacher saves 2 times, the student 3 times, so call 4 is in the student's second save.
    "save, before the weights": partial(at_call, ResumableTrainer, "save_model", 5),
    "save, before the optimizer": partial(at_call, ResumableTrainer, "_save_optimizer_and_scheduler", 4),
    "save, before the random state": partial(at_call, ResumableTrainer, "_save_rng_state", 4),
    "save, before the commit": partial(at_call, resumable_trainer, "commit", 4),
    "save, in the commit": partial(at_call, checkpoints, "write_text", 4),
    "save, before the rotation": partial(at_call, resumable_trainer, "rotate", 4),
    "save, in the rotation": partial(at_call, checkpoints, "_remove", 2),
    "save of the teacher, before the commit": partial(at_call, resumable_trainer, "commit", 2),
    # SIGKILL in the cache pass.
    "cache, before it is written": partial(at_call, teacher_cache, "_write", 1),
    "cache, before it has its name": partial(at_call, teacher_cache, "sync", 1),
    # SIGKILL between stages: at the teacher's model, the student's, the end.
    "teacher's folder, being written": partial(at_call, training, "sync", 2),
    "teacher's folder, before its record": partial(at_call, resuming.Progress, "add_model", 1),
    "student's folder, before its name": partial(at_call, resuming.Progress, "add_model", 2, is_after=True),
    "student's folder, done": partial(at_call, training, "save_model_folder", 2, is_after=True),
    "control's folder, done": partial(at_call, training, "save_model_folder", 3, is_after=True),
    "evaluation": partial(at_call, pipeline, "score_models"),
    "before the results": partial(at_call, run_records.RunRecords, "write_results"),
    # Signals that ask.
    "SIGTERM at student, step 6": partial(at_step, "student", 6, partial(interrupt, signal.SIGTERM)),
    "SIGINT at teacher, step 3": partial(at_step, "teacher", 3, partial(interrupt, signal.SIGINT)),
    "SIGTERM at control, step 4": partial(at_step, "control", 4, partial(interrupt, signal.SIGTERM)),
    "two SIGTERM": partial(at_step, "student", 6, partial(interrupt, signal.SIGTERM, 1.5)),
    "two SIGINT": partial(at_step, "student", 6, partial(interrupt, signal.SIGINT, 1.5)),
    "two SIGINT at once": partial(at_step, "student", 6, partial(interrupt, signal.SIGINT, 0.0)),
    "infinite gradient at student, step 6": partial(poison, "student", 6),
}


def run(arguments: list[str], fault: str | None) -> None:
    scoring.measure_latency = partial(measure_latency, max_seconds=0.0)  # enough to see that it is measured
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
    if fault is not None:
        FAULTS[fault]()
    sys.argv = ["distilbert-kd", *arguments]
    cli.main()


def serve() -> None:
    for line in sys.stdin:
        request = json.loads(line)
        pid = os.fork()
        if pid == 0:
            log = os.open(request["log"], os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
            os.dup2(log, 1)
            os.dup2(log, 2)
            run(request["arguments"], request["fault"])
            os._exit(99)  # the command line ends the process itself
        status = _wait(pid, request["kill_after_s"])
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


def _wait(pid: int, kill_after_s: float | None) -> int:
    end = time.monotonic() + (kill_after_s or 0.0)
    while kill_after_s is not None and time.monotonic() < end:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return status
        time.sleep(0.002)
    if kill_after_s is not None:
        os.kill(pid, signal.SIGKILL)
    return os.waitpid(pid, 0)[1]


if __name__ == "__main__":
    serve()
