"""Threads: the interpreter's lock, callbacks, and objects that end in one."""

from __future__ import annotations

import gc
import threading
import weakref

import pytest

import turnwise


def test_c98_waits_release_the_lock(host, thread):
    """The agent answers only when another Python thread has run, and the main thread waits for the agent."""
    turn_runs, go_on = threading.Event(), threading.Event()

    def run(prompt, turn):
        turn_runs.set()
        assert go_on.wait(60)
        return prompt

    session = host(turnwise.agent_fn(run)).open()
    other = thread(lambda: (turn_runs.wait(60), go_on.set()))
    assert session.run("hello").text == "hello"
    other.get()


def test_c98_many_threads_use_many_sessions(host, thread):
    service = host(max_sessions=64)

    def work():
        session = service.open()
        texts = [session.run(f"say {index}").text for index in range(20)]
        events = sum(1 for _ in session.stream("emit 50"))
        session.archive_wait()
        return texts, events

    for worker in [thread(work) for _ in range(8)]:
        assert worker.get() == ([str(index) for index in range(20)], 52)


def test_c98_a_thread_local_lasts_as_long_as_its_session(host):
    service = host(idle_threads=1)
    for _ in range(3):  # one thread, three sessions
        session = service.open()
        assert [session.run("count").text for _ in range(3)] == ["1", "2", "3"]
        session.archive_wait()


def test_c98_a_turn_is_interrupted_from_another_thread(host, thread):
    session = host().open()
    turn = session.stream("sleep")
    next(event for event in turn if event["type"] == "custom")
    waiting = thread(turn.result)
    turn.interrupt()
    with pytest.raises(turnwise.TurnFailed) as caught:
        waiting.get()
    assert caught.value.cancel_reason == "interrupted"
    with session.stream("sleep") as turn:  # the end of the block interrupts it
        next(turn)
    with pytest.raises(turnwise.TurnFailed):
        turn.result()
    with pytest.raises(turnwise.TurnFailed) as caught:
        session.run("sleep", timeout=0.001)
    assert caught.value.cancel_reason == "deadline_exceeded"


def test_c98_a_close_wakes_waiting_threads(host, thread):
    stuck = threading.Event()
    begun = threading.Semaphore(0)

    def run(prompt, turn):
        begun.release()
        assert stuck.wait(60)
        return prompt

    service = turnwise.Service(turnwise.agent_fn(run))
    session = service.open()
    turn = session.begin("stuck")
    assert begun.acquire(timeout=60)
    waits = [turn.result, session.wait_idle, session.export, lambda: service.next_event(None)]
    waiting = [thread(wait) for wait in waits]
    service.close()
    for each in waiting:
        with pytest.raises(turnwise.Closed):
            each.get()
    with pytest.raises(turnwise.Closed):
        session.run("after the close")
    service.close()  # again
    stuck.set()


def test_c98_a_context_belongs_to_its_thread_and_its_callback(host, thread):
    kept, is_over = [], threading.Event()

    def run(prompt, turn):
        kept.append(turn)
        with pytest.raises(turnwise.WrongThread):
            thread(turn.check).get()
        turn.check()
        return prompt

    session = host(turnwise.agent_fn(run)).open()
    assert session.run("hello").text == "hello"
    assert session.run("again").text == "again"
    for turn in kept:
        for call in (turn.check, lambda: turn.sleep(None), lambda: turn.emit_text("x"), turn.history):
            with pytest.raises(turnwise.Stale):
                call()
    assert not is_over.is_set()


def test_c98_an_agent_uses_the_service_that_hosts_it(host):
    class Nested(turnwise.Agent):
        def run_turn(self, prompt, turn):
            if prompt == "shutdown":
                with pytest.raises(turnwise.Reentrant):
                    service.shutdown()
                return "refused"
            if prompt == "self":
                with pytest.raises((turnwise.SessionReentrant, turnwise.SessionBusy)):
                    service.session(turn.session_id).run("no")
                with pytest.raises(turnwise.SessionReentrant):
                    service.session(turn.session_id).export()
                return "refused"
            if prompt == "sub":
                sub = service.open()
                text = "".join(event["delta"] for event in sub.stream("leaf") if event["type"] == "text_delta")
                sub.archive_wait()
                return text
            if prompt == "forever":
                service.open().run("sleep")
            if prompt == "sleep":
                turn.emit_custom("sleeping")
                turn.sleep(None)
            turn.emit_text("leaf")
            return prompt

    service = host(Nested)
    session = service.open()
    assert session.run("shutdown").text == "refused"
    assert session.run("self").text == "refused"
    assert session.run("sub").text == "leaf"
    events = service.subscribe()
    turn = session.begin("forever")
    next(event for event in events if event.type == "custom")  # the sub-agent sleeps
    turn.interrupt()
    with pytest.raises(turnwise.TurnFailed) as caught:
        turn.result()
    assert caught.value.cancel_reason == "interrupted"


def test_c98_a_service_is_freed_in_a_callback(thread):
    """The agent has the last reference to its own service."""
    closed, ended = threading.Event(), threading.Event()
    holder = []

    class Last(turnwise.Agent):
        def run_turn(self, prompt, turn):
            holder.clear()
            gc.collect()
            closed.set()
            turn.sleep(None)

        def close(self):
            ended.set()

    service = turnwise.Service(Last)
    watch = weakref.ref(service)
    holder.append(service)
    turn = service.open().begin("free it")
    del service
    assert closed.wait(60) and watch() is None
    with pytest.raises((turnwise.TurnFailed, turnwise.Closed)):
        turn.result()
    assert ended.wait(60)


def test_c98_a_cycle_of_a_service_and_its_factory_is_freed():
    class Application:
        def __init__(self):
            self.service = turnwise.Service(self.make)

        def make(self, spec):
            return turnwise.Agent(spec)

    application = Application()
    session = application.service.open().id
    watch, native = weakref.ref(application), weakref.ref(application.service)
    gc.collect()
    assert application.service.session(session).read(), "a collection frees nothing that is used"
    del application
    gc.collect()
    assert (watch(), native()) == (None, None)


def test_c98_a_closed_service_lets_go_of_its_factory():
    class Factory:
        def __call__(self, spec):
            return turnwise.Agent(spec)

    factory = Factory()
    watch = weakref.ref(factory)
    service = turnwise.Service(factory)
    del factory
    gc.collect()
    assert watch() is not None
    service.close()
    assert watch() is None


def test_c98_an_agent_frees_what_it_owns_on_its_thread(host):
    freed = []

    class Owned:
        def __del__(self):
            freed.append(threading.get_ident())

    class Owner(turnwise.Agent):
        def __init__(self, spec):
            self.owned = Owned()
            self.thread = threading.get_ident()

        def run_turn(self, prompt, turn):
            return str(self.thread)

    session = host(Owner).open()
    ident = int(session.run("who").text)
    session.archive_wait()
    assert freed == [ident]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_c98_an_exception_in_close_changes_nothing(host):
    class Closing(turnwise.Agent):
        def run_turn(self, prompt, turn):
            return prompt

        def close(self):
            raise RuntimeError("this is reported")

    service = host(Closing)
    session = service.open()
    session.run("hello")
    session.archive_wait()
    assert service.open().run("again").text == "again"
