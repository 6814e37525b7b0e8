"""Laws of requests to stop."""

import os
import signal

import pytest

from rtil.process.signals import StopRequest


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGHUP])
def test_repeats_of_a_request_are_one(signum):
    with StopRequest() as request:
        for _ in range(3):
            os.kill(os.getpid(), signum)
        assert request.seen() == signum


def test_the_first_request_counts():
    with StopRequest() as request:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGHUP)
        assert request.seen() == signal.SIGTERM


def test_a_second_interrupt_ends_the_process_at_once():
    with StopRequest() as request:
        os.kill(os.getpid(), signal.SIGINT)
        assert request.seen() == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            signal.sigtimedwait([], 1)


def test_handlers_are_put_back():
    before = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    with StopRequest():
        pass
    after = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    assert before == after


def test_a_process_that_ignores_hang_ups_goes_on_doing_so():
    old = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopRequest() as request:
            os.kill(os.getpid(), signal.SIGHUP)
            assert request.seen() is None
    finally:
        signal.signal(signal.SIGHUP, old)
