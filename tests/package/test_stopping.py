"""A run is asked to stop by a signal or a clock, and gives the handlers back."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator

import pytest

from electra_tutorial.stopping import StopRequest


@pytest.fixture(autouse=True)
def usual_handler() -> Iterator[None]:
    """As in a program that a terminal started: a background job begins with SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_signal_becomes_a_wish_and_the_handler_returns(name):
    number = signal.Signals[name]
    before = signal.getsignal(number)
    with StopRequest() as stop:
        assert stop.decide() is None
        assert signal.getsignal(number) != before
        signal.raise_signal(number)
        assert signal.getsignal(number) == before  # a second one acts as ever
        assert stop.decide() == name
        assert stop.decide() == name
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_second_signal_interrupts_at_once():
    with StopRequest() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.decide() == "SIGINT"
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_time_is_the_weaker_wish():
    with StopRequest() as stop:
        assert stop.decide(time_is_up=True) == "time limit"
        signal.raise_signal(signal.SIGTERM)
        assert stop.decide(time_is_up=True) == "SIGTERM"


def test_a_run_that_does_not_save_leaves_signals_alone():
    before = signal.getsignal(signal.SIGINT)
    with StopRequest(handle_signals=False):
        assert signal.getsignal(signal.SIGINT) == before


def test_outside_the_main_thread_nothing_is_handled():
    seen = []

    def work() -> None:
        with StopRequest() as stop:
            seen.append(stop.decide())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [None]
