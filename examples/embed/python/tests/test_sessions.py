"""Every call, as a well-behaved program makes it."""

from __future__ import annotations

import json
import select
import threading

import pytest

import turnwise


def test_c96_a_session_keeps_its_agent_and_its_history(host):
    service = host()
    session = service.open(model="small", labels={"user": "ada"})
    result = session.run("say hello")
    assert (result.text, result.turn_id, result.session_id, result.stop_reason) == ("hello", 1, session.id, "end_turn")
    assert session.run("count").text == "2"  # the same threading.local
    view = session.read()
    assert view["state"]["message_count"] == 4 and view["model"] == "small"
    assert [listed["session_id"] for listed in service.list(labels={"user": "ada"})] == [session.id]
    session.set_labels({"user": "bob"})
    assert service.list(labels={"user": "ada"}) == []
    history, boundary = session.history_at()
    assert history == session.history() == session.export() and boundary > 0
    assert service.stats()["turns_completed"] == 2
    session.archive_wait()
    with pytest.raises(turnwise.SessionNotFound) as caught:
        session.read()
    assert caught.value.code == "SESSION_NOT_FOUND" and isinstance(caught.value, LookupError)


def test_c96_a_history_is_taken_and_resumed(host):
    service = host()
    result = service.create("say one", session={"system_prompt": "Be brief."})
    history = service.session(result.session_id).take()
    session = service.open(resume=history)
    assert session.id == result.session_id
    assert session.run("say two").text == "two"
    texts = json.dumps(session.export()["messages"])
    assert all(text in texts for text in ("Be brief.", "say one", "say two"))


def test_c96_a_store_keeps_sessions(host, tmp_path):
    path = str(tmp_path / "sessions.redb")
    with turnwise.Service(turnwise.agent_fn(lambda prompt, turn: prompt.upper()), store=path) as service:
        session = service.open()
        assert session.run("kept").text == "KEPT"
        session.unload()
        assert session.run("again").text == "AGAIN"
    service = host(turnwise.agent_fn(lambda prompt, turn: prompt.upper()), store=tmp_path / "sessions.redb")
    session = service.session(session.id)
    session.resume()
    assert "AGAIN" in json.dumps(session.history())
    session.archive()
    assert [listed["session_id"] for listed in service.list(archived=True)] == [session.id]
    session.delete()
    with pytest.raises(turnwise.SessionNotFound):
        session.history()


def test_c96_events_are_an_iterator(host):
    session = host().open()
    with session.stream("emit 1000") as turn:
        events = list(turn)
    assert [event["type"] for event in events] == ["run_started", *["text_delta"] * 1000, "run_completed"]
    assert turn.poll().text == turn.wait().text == turn.result().text == "emitted"
    with pytest.raises(turnwise.WrongKind):
        next(session.begin("say plain"))


def test_c96_subscriptions_follow_sessions(host):
    service = host()
    session = service.open()
    of_one, of_all = session.subscribe(capacity=100), service.subscribe(capacity=3, overflow="drop_newest")
    session.run("emit 2")
    session.archive_wait()
    events = list(of_one)
    assert [event.type for event in events] == ["run_started", "text_delta", "text_delta", "run_completed"]
    assert [event.seq for event in events] == [1, 2, 3, 4]
    assert (of_all.next_event(0).type, of_all.dropped) == ("run_started", 1)
    of_all.close()
    with pytest.raises(turnwise.Closed):
        of_all.next_event(0)
    with pytest.raises(turnwise.InvalidConfig):
        service.subscribe(overflow="burst")


def test_c96_input_requests_are_answered_on_the_calling_thread(host):
    session = host().open()
    asked = []

    def answer(request):
        asked.append(request["message"])
        return "yes" if "cat" in request["message"] else None

    assert session.run("ask Feed the cat?", on_input=answer).text == "yes"
    assert session.run("ask Feed the lion?", on_input=answer).text == "declined"
    assert asked == ["Feed the cat?", "Feed the lion?"]
    with pytest.raises(RuntimeError, match="no answer"):  # it interrupts the turn, and the session goes on
        session.run("ask Feed the fish?", on_input=lambda request: (_ for _ in ()).throw(RuntimeError("no answer")))
    session.wait_idle()
    turn = session.stream("ask Feed the dog?")
    event = next(event for event in turn if event["type"] == "input_requested")
    assert [pending["id"] for pending in session.pending_inputs()] == [event["input_id"]]
    with pytest.raises(turnwise.InvalidAnswer):
        session.respond(event["input_id"], "perhaps")
    session.respond(event["input_id"], "no")
    with pytest.raises(turnwise.InputNotPending):
        session.respond(event["input_id"], "no")
    assert turn.result().text == "no"


def test_c96_an_answer_that_comes_too_late_does_not_end_the_run(host):
    over = threading.Event()

    def run(prompt, turn):
        try:
            return turn.request_input(prompt, timeout=0.01)
        except turnwise.InputTimedOut:
            over.set()
            return "timed out"

    def late(request):
        assert over.wait(60)
        return "yes"

    session = host(turnwise.agent_fn(run)).open()
    assert session.run("Feed the cat?", on_input=late).text == "timed out"
    over.clear()
    assert session.run("Feed the lion?", on_input=lambda request: over.wait(60) and None).text == "timed out"


def test_c96_a_closed_subscription_does_not_block_the_agent(host):
    session = host().open()
    events = session.subscribe(capacity=1, overflow="block")
    turn = session.begin("emit 300")
    assert next(events)
    events.close()
    assert turn.result().text == "emitted"
    for call in (lambda: next(events), lambda: events.dropped):
        with pytest.raises(turnwise.Closed):
            call()
    assert events.interaction_id is None
    events.close()  # again


def test_c96_a_closed_stream_does_not_block_its_turn(host):
    session = host().open()
    with session.stream("emit 2000") as turn:
        assert next(turn)
        turn.close()
    for call in (turn.result, turn.interrupt, lambda: next(turn), lambda: turn.is_finished):
        with pytest.raises(turnwise.Closed):
            call()
    assert turn.session_id == session.id and turn.turn_id == 1
    session.wait_idle(60)
    assert session.run("say again").text == "again"


def test_c96_a_closed_queue_leaves_the_descriptor(host):
    service = host()
    session = service.open()
    descriptor = service.fileno()
    events = session.subscribe()
    assert session.run("say hello").text == "hello"
    assert select.select([descriptor], [], [], 60)[0] == [descriptor]
    events.close()
    assert service.next_event(0) is None
    assert select.select([descriptor], [], [], 0)[0] == []


def test_c96_an_exception_that_cannot_be_described_keeps_its_name(host):
    def run(prompt, turn):
        raise turnwise.AgentFailure("no such tool", kind="tool", name=object())

    session = host(turnwise.agent_fn(run)).open()
    with pytest.raises(turnwise.TurnFailed, match="AgentFailure: no such tool"):
        session.run("hello")


def test_c96_messages_reach_turns_and_host_mode(host):
    def run(prompt, turn):
        if prompt != "wait":
            return prompt.upper()
        turn.emit_custom("waiting")
        return turn.next_message(None)["content"]["body"]

    session = host(turnwise.agent_fn(run)).open()
    with pytest.raises(turnwise.SessionNotRunning):
        session.steer("too early")
    turn = session.stream("wait")
    steered = session.steer("go north", turn.turn_id)
    assert [event.type for event in steered] == ["interaction_complete"]
    assert turn.result().text == "go north"
    turn = session.begin("hosting", host_mode=True)
    injected = session.inject("first", "webhook")
    session.dismiss("webhook")
    assert [event.type for event in injected][-1] == "interaction_complete"
    assert turn.result().text == "FIRST"


def test_c96_what_an_agent_says_reaches_the_host(host):
    class Figures(turnwise.Agent):
        def run_turn(self, prompt, turn):
            assert turn.session_id == self.spec.session_id and turn.turn_id == 1 and turn.remaining > 0
            turn.publish(message_count=77, last_assistant_text="soon")
            turn.emit("tool_execution_started", id="1", name="saw")
            assert turn.tool_results() == [] and turn.history()["messages"] == []
            return turnwise.Answer("done", usage={"input_tokens": 3, "output_tokens": 4}, tool_calls=1)

    session = host(Figures).open()
    result = session.run("work", timeout=60)
    assert (result.text, result.usage["output_tokens"], result.tool_calls) == ("done", 4, 1)
    assert session.read()["billing"]["total_tokens"] == 7


def test_c97_exceptions_of_agents_fail_their_turns(host):
    class Failing(turnwise.Agent):
        def __init__(self, spec):
            if spec.model == "none":
                raise LookupError("there is no such model")

        def run_turn(self, prompt, turn):
            if prompt == "divide":
                return 1 // 0
            if prompt == "limit":
                raise turnwise.AgentFailure("slow down", "llm", provider="acme", reason="rate_limited")
            if prompt == "exit":
                raise SystemExit(3)
            if prompt == "wrong":
                return 42
            return prompt

    service = host(Failing)
    session = service.open()
    with pytest.raises(turnwise.TurnFailed, match=r"ZeroDivisionError: .*test_sessions.py:\d+") as caught:
        session.run("divide")
    assert not caught.value.is_retryable and caught.value.cancel_reason is None
    with pytest.raises(turnwise.TurnFailed, match="slow down") as caught:
        session.run("limit")
    assert caught.value.is_retryable
    for prompt in ("exit", "wrong"):
        with pytest.raises(turnwise.TurnFailed):
            session.run(prompt)
    with pytest.raises(turnwise.BuildFailed, match="there is no such model"):
        service.open(model="none")
    assert session.run("still here").text == "still here"


def test_c97_every_code_has_an_exception_of_its_own():
    at_the_border_of_c = {"OK", "EMPTY", "END", "INVALID_HANDLE", "INVALID_UTF8", "INVALID_STRUCT", "PANIC",
                          "TOO_MANY_HANDLES", "UNKNOWN_TEXT", "INVALID_RESERVATION", "OTHER_ERROR"}
    for _, name in turnwise._native.CODES:
        made = turnwise._errors.make(name, "text", 1, True)
        assert (made.code, str(made), made.cancel_reason, made.is_retryable) == (name, "text", "interrupted", True)
        assert (type(made) is turnwise.Error) == (name in at_the_border_of_c), name


def test_c97_wrong_arguments_are_exceptions(host):
    service = host()
    session = service.open()
    with pytest.raises(turnwise.InvalidJson):
        service.open(modell="small")
    with pytest.raises(turnwise.InvalidJson):
        session.run("say x", time_out=1)
    with pytest.raises(turnwise.InvalidId):
        service.session("nobody").run("say x")
    with pytest.raises(turnwise.InvalidConfig):
        turnwise.Service(turnwise.Agent, stack_size=1)
    with pytest.raises(turnwise.StoreFailed):
        turnwise.Service(turnwise.Agent, store="/")
    with pytest.raises(turnwise.Unsupported):
        session.resume()
    with pytest.raises(TypeError):
        session.run(42)


def test_c95_a_program_polls_the_descriptor(host):
    service = host(events={"capacity": 4096})
    sessions = [service.open() for _ in range(5)]
    turns = {session.id: session.begin("emit 3") for session in sessions}
    seen = {session.id: [] for session in sessions}
    while turns:
        assert select.select([service], [], [], 60)[0]
        while (event := service.next_event(0)) is not None:
            seen[event.session_id].append(event.type)
            if event.type == "turn_finished":
                assert turns.pop(event.session_id).poll().text == "emitted"
    expected = ["run_started", "text_delta", "text_delta", "text_delta", "run_completed", "turn_finished"]
    assert all(types == expected for types in seen.values())
    assert not select.select([service], [], [], 0)[0]
