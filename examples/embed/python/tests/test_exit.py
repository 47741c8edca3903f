"""The end of the interpreter, in processes of their own."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

import turnwise

BEGIN = """
    import os, sys, threading, time, turnwise
    begun = threading.Event()

    def run(prompt, turn):
        begun.set()
        if prompt == "loop":
            while True:
                pass
        if prompt == "system":
            time.sleep(1000)
        if prompt == "sleep":
            turn.sleep(None)
        if prompt == "emit":
            while True:
                turn.emit_text("x")
        return prompt

    def quiet(call):
        try:
            call()
        except turnwise.Error:
            pass

    service = turnwise.Service(turnwise.agent_fn(run))
    session = service.open()
"""


def python(code: str) -> subprocess.CompletedProcess:
    program = textwrap.dedent(BEGIN) + textwrap.dedent(code)
    # Newer versions warn about every fork of a program with threads.
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", program]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize(
    "code",
    [
        "assert session.run('hello').text == 'hello'",
        "turn = session.begin('sleep'); begun.wait()",
        "stream = session.stream('emit'); next(stream)",
        "for _ in range(10): service.open()",
        "session.begin('sleep'); del service, session",
        "threading.Thread(target=quiet, args=(lambda: service.next_event(None),), daemon=True).start()",
        "threading.Thread(target=quiet, args=(lambda: session.run('sleep'),), daemon=True).start(); begun.wait()",
        "for _ in range(8): threading.Thread(target=quiet, args=(session.wait_idle,), daemon=True).start()",
        "service.fileno(); session.begin('sleep')",
        "service.close(); service.close()",
    ],
)
def test_c99_an_exit_with_live_sessions_is_clean(code):
    ended = python(code)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


@pytest.mark.parametrize("way", ["loop", "system"])
def test_c99_an_agent_that_never_returns_is_reported_at_exit(way):
    ended = python(f"""
        turnwise.set_exit_timeout(0.2)
        session.begin("{way}")
        begun.wait()
        print(session.id)
    """)
    session = ended.stdout.strip()
    assert session, "what was printed before is not lost"
    assert ended.returncode == 70
    assert ended.stderr == f"turnwise: sessions that do not end at exit: {session}\n"


@pytest.mark.parametrize(
    "before",
    [
        # The interrupt is pending when the exit hook begins, or comes during its wait.
        "atexit.register(_thread.interrupt_main)",
        "atexit.register(lambda: threading.Timer(0.1, _thread.interrupt_main).start())",
        "sys.stderr = None",
        "sys.stderr.close()",
        "sys.stdout.close()",
    ],
)
def test_c99_a_stuck_session_ends_the_process_in_any_case(before):
    ended = python(f"""
        import _thread, atexit
        turnwise.set_exit_timeout(0.3)
        session.begin("system")
        begun.wait()
        {before}
    """)
    assert ended.returncode == 70


def test_c99_the_exit_timeout_is_a_number():
    for seconds in (-1, float("nan")):
        with pytest.raises(turnwise.InvalidArgument):
            turnwise.set_exit_timeout(seconds)
    with pytest.raises(TypeError):
        turnwise.set_exit_timeout(None)


def test_c99_the_exit_hook_gives_the_handler_of_sigint_back():
    ended = python("""
        import signal
        turnwise._at_exit()
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    """)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_c99_calls_after_the_exit_hook_are_refused():
    ended = python("""
        turn = session.begin("hello")
        turnwise._at_exit()
        calls = [session.read, turn.wait, lambda: service.is_closed, lambda: turnwise.Service(turnwise.Agent)]
        for call in calls:
            try:
                call()
            except turnwise.InterpreterExit as error:
                print(error.code)
        del calls, call, turn, session, service
    """)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "INTERPRETER\n" * 4, "")


def test_c99_a_stuck_session_of_a_closed_service_is_reported_at_exit():
    ended = python("""
        turnwise.set_exit_timeout(0.2)
        session.begin("loop")
        begun.wait()
        print(session.id)
        service.close()
        del service
    """)
    session = ended.stdout.strip()
    assert (ended.returncode, ended.stderr) == (70, f"turnwise: sessions that do not end at exit: {session}\n")


def test_c99_an_agent_that_never_returns_is_reported_by_a_shutdown():
    ended = python("""
        turn = session.begin("loop")
        begun.wait()
        assert service.shutdown(0.2) == [session.id]
        os._exit(0)
    """)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_c99_the_exit_code_stays():
    assert python("sys.exit(3)").returncode == 3
    failed = python("session.begin('sleep'); begun.wait(); raise RuntimeError('at the top')")
    assert failed.returncode == 1 and "RuntimeError: at the top" in failed.stderr


def test_c99_code_that_runs_after_the_exit_hook_gets_an_exception():
    ended = python("""
        class Late:
            def __del__(self):
                try:
                    self.session.run("hello")
                except turnwise.Error as error:
                    os.write(1, error.code.encode())
        late = Late()
        late.session = session
        sys.modules["late"] = late
    """)
    assert ended.returncode == 0 and ended.stderr == ""
    assert ended.stdout in ("CLOSED", "INTERPRETER", "")


def test_c94_a_forked_child_is_refused():
    ended = python("""
        def code(call):
            try:
                call()
            except turnwise.Error as error:
                return error.code

        turn = session.stream("sleep")
        begun.wait()
        sys.stdout.flush()
        child = os.fork()
        if child == 0:
            calls = [session.read, lambda: session.run("x"), turn.interrupt, lambda: turn.wait(0), service.close,
                     lambda: turnwise.Service(turnwise.Agent), service.fileno]
            print([code(call) for call in calls])
            del turn, session, service, calls
            sys.exit(7)  # with the exit hook
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 7
        assert service.stats()["sessions"] == 1
    """)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout == f"{['FORKED'] * 7}\n"


def test_c99_subinterpreters_are_refused():
    ended = python("""
        try:
            import _xxsubinterpreters as interpreters
        except ImportError:
            import _interpreters as interpreters
        other = interpreters.create()
        try:
            result = interpreters.run_string(other, "import turnwise")
            print("taken" if result is None else "refused")
        except Exception as error:
            print("refused" if "interpreter" in str(error) else error)
        interpreters.destroy(other)
    """)
    assert (ended.returncode, ended.stdout) == (0, "refused\n"), ended.stderr
