"""What hurts a process from within, at moments that nobody could hit from outside.

Each function gives an `Inside`: it is called in the process, with the place of its run, before the program begins. It
hooks what both programs stand on (`transformers.Trainer`) wherever it can, so that one fault is the same for both.
Places in the code are given by name, so that this module imports nothing heavy.
"""

import os
import resource
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from tests.reliability.places import Place


Inside = Callable[[Place], None]


def die(_: Place) -> None:
    """As a power cut, the out-of-memory killer, or a preemption that waits for nobody."""
    os.kill(os.getpid(), signal.SIGKILL)


def pause(_: Place) -> None:
    """Stands still until it is told to go on."""
    os.kill(os.getpid(), signal.SIGSTOP)


def told(number: int, again_after_s: float | None = None) -> Inside:
    """A signal that asks, or two of them."""

    def act(_: Place) -> None:
        os.kill(os.getpid(), number)
        if again_after_s is not None:
            time.sleep(again_after_s)
            os.kill(os.getpid(), number)

    return act


def told_later_by_rank(number: int, seconds: float) -> Inside:
    """A signal that reaches process 1 so many seconds after process 0."""

    def act(_: Place) -> None:
        wait = seconds * int(os.environ["RANK"])
        threading.Timer(wait, os.kill, (os.getpid(), number)).start()

    return act


def fill_disk(num_bytes_left: int) -> Inside:
    """Another program takes all room but this."""

    def act(place: Place) -> None:
        disk = os.statvfs(place.disk)
        with place.filler.open("wb") as file:
            file.write(bytes(max(0, disk.f_bavail * disk.f_frsize - num_bytes_left)))

    return act


def fill_cache(place: Place) -> None:
    """Another program takes all room of the cache's disk."""
    disk = os.statvfs(place.cache)
    (place.cache / "filler").write_bytes(bytes(disk.f_bavail * disk.f_frsize))


def limit_files(num_bytes: int) -> Inside:
    """No file may be larger from now on, as under `ulimit -f`."""

    def act(_: Place) -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, num_bytes))

    return act


def make_unwritable(place: Place) -> None:
    """The disk turns read-only, as after an error of the file system."""
    place.remount("ro")


def lose_folder(place: Place) -> None:
    """Somebody removes the folder of the run."""
    place.lose()


def at_step(what: str, step: int, act: Inside = die) -> Inside:
    """Acts in a step of one of the trainings, when its gradient is there and its weights are not changed yet."""

    def install(place: Place) -> None:
        def acting(before: Any, trainer: Any, *args: Any, **kwargs: Any) -> Any:
            loss = before(trainer, *args, **kwargs)
            if str(trainer.args.output_dir).endswith(what) and trainer.state.global_step == step - 1:
                place.mark.touch()
                act(place)
            return loss

        _wrap("transformers:Trainer", "training_step", acting)

    return install


def at_call(owner: str, name: str, call: int = 1, act: Inside = die, what: str = "", is_after: bool = False) -> Inside:
    """Acts before or after a call of a function: the first or a later one, of those for one of the trainings."""

    def install(place: Place) -> None:
        num_calls = 0

        def acting(before: Any, *args: Any, **kwargs: Any) -> Any:
            nonlocal num_calls
            num_calls += what in " ".join(map(_place_of, args))
            is_due = num_calls == call and what in " ".join(map(_place_of, args))
            if not is_due:
                return before(*args, **kwargs)
            place.mark.touch()
            if not is_after:
                act(place)
            result = before(*args, **kwargs)
            if is_after:
                act(place)
            return result

        _wrap(owner, name, acting)

    return install


def _place_of(argument: Any) -> str:
    """Where a trainer, or a function of files, writes to."""
    arguments = getattr(argument, "args", None)
    return str(argument if isinstance(argument, str | Path) else getattr(arguments, "output_dir", ""))


def slow_steps(seconds: float, then: Inside) -> Inside:
    """Each step takes so long, as those of a real model do."""

    def install(place: Place) -> None:
        def slow(before: Any, *args: Any, **kwargs: Any) -> Any:
            time.sleep(seconds)
            return before(*args, **kwargs)

        _wrap("transformers:Trainer", "training_step", slow)
        then(place)

    return install


def broken_loss(what: str, step: int) -> Inside:
    """NaN for the logits of one batch, and so for its loss."""

    def install(place: Place) -> None:
        def acting(before: Any, trainer: Any, model: Any, *args: Any, **kwargs: Any) -> Any:
            is_due = str(trainer.args.output_dir).endswith(what) and trainer.state.global_step == step - 1
            head = trainer.accelerator.unwrap_model(model).classifier
            hook = head.register_forward_hook(lambda module, inputs, output: output * float("nan")) if is_due else None
            try:
                return before(trainer, model, *args, **kwargs)
            finally:
                if hook is not None:
                    place.mark.touch()
                    hook.remove()

        _wrap("transformers:Trainer", "training_step", acting)

    return install


def broken_gradient(what: str, step: int) -> Inside:
    """An infinite gradient in one step, behind a sound loss."""

    def install(place: Place) -> None:
        def acting(before: Any, trainer: Any, model: Any, *args: Any, **kwargs: Any) -> Any:
            loss = before(trainer, model, *args, **kwargs)
            if str(trainer.args.output_dir).endswith(what) and trainer.state.global_step == step - 1:
                place.mark.touch()
                next(weight for weight in model.parameters() if weight.grad is not None).grad.fill_(float("inf"))
            return loss

        _wrap("transformers:Trainer", "training_step", acting)

    return install


def broken_answer(owner: str, name: str, value: float) -> Inside:
    """One row of what a teacher says, the first time that it is asked."""

    def install(place: Place) -> None:
        is_done = False

        def acting(before: Any, *args: Any, **kwargs: Any) -> Any:
            nonlocal is_done
            logits = before(*args, **kwargs)
            if not is_done:
                place.mark.touch()
                logits[5] = value
            is_done = True
            return logits

        _wrap(owner, name, acting)

    return install


def _wrap(owner: str, name: str, around: Callable[..., Any]) -> None:
    """Puts a function around another, which it is given before the arguments."""
    target = resolve_name(owner)
    before = getattr(target, name)
    setattr(target, name, lambda *args, **kwargs: around(before, *args, **kwargs))
