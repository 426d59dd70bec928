"""Signals that ask a training to stop."""

import os
import signal
import threading

import pytest

from distilbert_kd import interrupts
from distilbert_kd.interrupts import stopping_on_signals


class Told(Exception):
    """What the handler from before raises."""


@pytest.fixture(autouse=True)
def handlers():
    def tell(number, frame):
        raise Told

    before = {number: signal.signal(number, tell) for number in (signal.SIGINT, signal.SIGTERM)}
    yield tell
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_is_noted_and_afterwards_all_is_as_before(handlers, number):
    """Prevents a step from being torn, and a process that can't be stopped any more."""
    with stopping_on_signals() as is_stop_wanted:
        assert not is_stop_wanted()
        signal.raise_signal(number)
        assert is_stop_wanted()
        signal.raise_signal(number)  # the launcher's, right after the terminal's
    assert signal.getsignal(number) is handlers
    with stopping_on_signals() as is_stop_wanted:
        assert not is_stop_wanted()


def test_the_first_is_answered_at_once(capfd):
    """Prevents a user who sees nothing from asking again, which ends the run without its save."""
    with stopping_on_signals():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        assert capfd.readouterr().err == (
            "Told to stop: the step is finished and saved first. A second signal ends at once, without saving.\n"
        )


def test_a_second_one_is_obeyed_at_once(monkeypatch):
    """Prevents a save that hangs from holding a user who asked twice."""
    monkeypatch.setattr(interrupts, "_SAME_S", 0.0)
    with pytest.raises(Told), stopping_on_signals():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        pytest.fail("the second signal was lost")


def test_what_is_ignored_stays_so():
    """Prevents Ctrl-C in a terminal from stopping a job that a shell put in the background."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with stopping_on_signals() as is_stop_wanted:
        signal.raise_signal(signal.SIGINT)
        assert not is_stop_wanted()
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_a_forked_worker_ends_on_its_signal():
    """Prevents workers that load data from outliving the training, because they only take note of SIGTERM."""
    with stopping_on_signals() as is_stop_wanted:
        pid = os.fork()
        if pid == 0:
            signal.raise_signal(signal.SIGTERM)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGTERM
        assert not is_stop_wanted()


def test_another_thread_trains_without(handlers):
    """Prevents a ValueError of Python for a training that a notebook or server runs in a thread."""
    seen = []

    def train():
        with stopping_on_signals() as is_stop_wanted:
            seen.append((is_stop_wanted(), signal.getsignal(signal.SIGTERM) is handlers))

    thread = threading.Thread(target=train)
    thread.start()
    thread.join()
    assert seen == [(False, True)]
