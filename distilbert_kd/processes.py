"""What ends one process of a launch ends all of them, with the same error.

A process that fails alone leaves the others waiting for it in the next thing that all do together: on GPUs up to
`ddp_timeout`, hours in which nothing is done, unless a launcher ends them; on CPUs until the connection breaks, of
which they die with a traceback and another exit code.
"""

import pickle
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from accelerate import PartialState
from accelerate.utils import gather_object

from distilbert_kd.errors import is_of_all


__all__ = ["failing_together"]


@contextmanager
def failing_together() -> Iterator[None]:
    """Work that only some processes do, or each for itself; when it fails on one, all raise that error.

    Every process comes here, with or without work, and none leaves before all are done. Within it nothing may be done
    together but by this means: a process that fails is waited for here alone.

    Yields:
        Nothing.

    Raises:
        Exception: of the first process that failed, on all. The command line lets one process speak of it.
        KeyboardInterrupt: one process was told to end.
    """
    failure: BaseException | None = None
    try:
        yield
    except (Exception, KeyboardInterrupt) as error:
        if is_of_all(error) or PartialState().num_processes == 1:
            raise
        failure = error
    if PartialState().num_processes == 1:
        return
    try:
        failures = gather_object([None if failure is None else _sendable(failure)])
    except RuntimeError:  # a process is gone without a word
        if failure is not None:
            raise failure from None
        raise
    rank = next((rank for rank, each in enumerate(failures) if each is not None), None)
    if rank is None:
        return
    with suppress(RuntimeError):  # who ends first breaks the connection: not before all have heard
        PartialState().wait_for_everyone()
    shared: Any = failure if rank == PartialState().process_index else failures[rank]
    if rank:
        shared.add_note(f"This was met by process {rank} of {len(failures)}.")
    shared.is_of_all = True
    raise shared


def _sendable(error: BaseException) -> BaseException:
    """The error, or where it can't be sent to another process, one that says the same."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
