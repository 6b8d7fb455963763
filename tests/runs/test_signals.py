"""SIGINT and SIGTERM; the expected exit codes are the shell's, 128 + the signal's number."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from curl_rl.runs.signals import Stopped, stop_requests, waiting_for


def send(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_first_signal_only_sets_the_request(number: int, code: int) -> None:
    with stop_requests() as stop:
        assert not stop
        assert stop.signal_number is None
        send(number)
        assert stop
        assert stop.signal_number == number
    assert Stopped(number).exit_code == code


def test_the_second_signal_has_its_usual_effect() -> None:
    def raised() -> None:
        with stop_requests():
            send(signal.SIGINT)
            send(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        raised()


def test_the_other_signal_is_still_caught_after_the_first() -> None:
    with stop_requests() as stop:
        send(signal.SIGINT)
        send(signal.SIGTERM)
        assert stop


def test_the_handlers_are_restored() -> None:
    caught: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: caught.append(number))
    try:
        with stop_requests():
            send(signal.SIGTERM)
        send(signal.SIGTERM)
        assert caught == [signal.SIGTERM]
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGTERM, before)


def test_outside_the_main_thread_nothing_is_caught() -> None:
    asked: list[bool] = []

    def work() -> None:
        with stop_requests() as stop:
            asked.append(bool(stop))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert asked == [False]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("tell", [False, True])
def test_the_first_signal_says_at_once_what_the_stop_waits_for(tell: bool, capfd: pytest.CaptureFixture[str]) -> None:
    with stop_requests(tell=tell), waiting_for("the simulator"):
        send(signal.SIGINT)
        said = capfd.readouterr().err
        assert ("SIGINT: saving and stopping after this step, once the simulator returns; again: exits" in said) == tell
    with stop_requests(tell=tell):
        send(signal.SIGTERM)
        assert ("SIGTERM: saving and stopping after this step; again: exits" in capfd.readouterr().err) == tell
