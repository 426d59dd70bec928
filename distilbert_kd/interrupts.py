"""Signals that ask a training to stop: the first one is noted, and acted on when the step is done."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType


__all__ = ["stopping_on_signals"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)

#: Seconds in which further signals are the same one: a terminal and a launcher each send theirs.
_SAME_S = 1.0

_NOTED = b"Told to stop: the step is finished and saved first. A second signal ends at once, without saving.\n"


@contextmanager
def stopping_on_signals() -> Iterator[Callable[[], bool]]:
    """Within it, SIGINT and SIGTERM end nothing; a second one, later than a second after the first, does as before.

    A line on standard error tells that the first one was heard.

    A signal that is ignored (SIGINT of a job in the background) stays so. Outside of the main thread, where Python
    sets no handlers, signals do as before.

    Yields:
        Whether this process was told to stop.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    heeded = [number for number, handler in before.items() if handler not in (signal.SIG_IGN, None)]
    owner, first = os.getpid(), [0.0]

    def note(number: int, frame: FrameType | None) -> None:
        if os.getpid() != owner:  # a worker that loads data, and is to end
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        elif not first[0]:
            first[0] = time.monotonic()
            with suppress(OSError):  # a terminal that is gone; logging isn't safe within a handler
                os.write(2, _NOTED)
        elif time.monotonic() - first[0] > _SAME_S:
            for each in heeded:
                signal.signal(each, before[each])
            signal.raise_signal(number)

    for number in heeded:
        signal.signal(number, note)
    try:
        yield lambda: bool(first[0])
    finally:
        for number in heeded:
            signal.signal(number, before[number])
