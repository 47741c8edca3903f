"""Ctrl-C: a signal ends a wait of the main thread, and no thread of the library takes it."""

from __future__ import annotations

import os
import signal
import threading

import pytest

import turnwise


#: Set when the main thread is where it ends its turn after a signal.
may_send = threading.Event()


def interrupting(prompt, turn):
    """An agent that sends SIGINT to its own process, which the main thread handles during its wait."""
    if prompt == "say":
        return "said"
    assert may_send.wait(60)
    signals = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    assert signal.SIGINT in signals and signal.SIGTERM in signals
    turn.emit_custom("begun")
    os.kill(os.getpid(), signal.SIGINT)
    turn.sleep(None)


def run(session):
    may_send.set()
    session.run("sleep")


def stream(session):
    with session.stream("sleep") as turn:
        may_send.set()
        for _ in turn:
            pass


def wait(session):
    turn = session.begin("sleep")
    try:
        may_send.set()
        turn.wait()
    finally:
        turn.interrupt()


def wait_idle(session):
    turn = session.begin("sleep")
    try:
        may_send.set()
        session.wait_idle()
    finally:
        turn.interrupt()


@pytest.mark.parametrize("way", [run, stream, wait, wait_idle])
def test_c99_ctrl_c_ends_a_wait_and_the_session_goes_on(host, way):
    may_send.clear()
    session = host(turnwise.agent_fn(interrupting)).open()
    with pytest.raises(KeyboardInterrupt):
        way(session)
    session.wait_idle(10)
    assert session.run("say").text == "said"


def test_c99_a_handler_that_does_not_raise_ends_no_wait(host):
    handled = []
    may_send.set()
    before = signal.signal(signal.SIGINT, lambda number, frame: handled.append(number))
    try:
        session = host(turnwise.agent_fn(interrupting)).open()
        with pytest.raises(turnwise.TurnFailed) as caught:
            session.run("sleep", timeout=0.3)
        assert caught.value.cancel_reason == "deadline_exceeded" and handled == [signal.SIGINT]
    finally:
        signal.signal(signal.SIGINT, before)


def test_c99_a_service_block_ends_after_ctrl_c():
    may_send.set()
    with pytest.raises(KeyboardInterrupt):
        with turnwise.Service(turnwise.agent_fn(interrupting)) as service:
            service.open().run("sleep")
    assert service.is_closed
