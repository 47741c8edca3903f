"""A client of the agent, with the official Python SDK of the Agent Client Protocol.

usage: client.py scenario|die AGENT URL SESSIONS FOLDER
"""

import asyncio
import os
import signal
import sys
from pathlib import Path

import acp
from acp import schema

MODE, AGENT, URL, SESSIONS, FOLDER = sys.argv[1:6]
FOLDER = os.path.realpath(FOLDER)
LONG = 60


class Editor:
    """An editor with one open file, whose user answers permissions as the scenario says."""

    def __init__(self):
        self.updates = []
        self.answer = None
        self.asked = asyncio.Event()
        self.chunk = asyncio.Event()

    def on_connect(self, agent):
        pass

    async def session_update(self, session_id, update, **kwargs):
        self.updates.append((session_id, update))
        if isinstance(update, schema.AgentMessageChunk):
            self.chunk.set()

    async def request_permission(self, session_id, tool_call, options, **kwargs):
        assert tool_call.title.startswith("Write "), tool_call
        kinds = {option.option_id: option.kind for option in options}
        assert kinds == {"allow_once": "allow_once", "allow_always": "allow_always", "reject_once": "reject_once"}, kinds
        self.asked.set()
        if self.answer is None:
            # The user does not answer, and the SDK does not either.
            await asyncio.Event().wait()
        outcome = schema.AllowedOutcome(outcome="selected", option_id=self.answer)
        return schema.RequestPermissionResponse(outcome=outcome)

    async def read_text_file(self, session_id, path, line=None, limit=None, **kwargs):
        assert Path(path) == Path(FOLDER, "open.txt"), path
        return schema.ReadTextFileResponse(content="unsaved")

    async def write_text_file(self, session_id, path, content, **kwargs):
        Path(path).write_text(content)

    def text(self, session_id):
        of_session = [update for session, update in self.updates if session == session_id]
        return "".join(u.content.text for u in of_session if isinstance(u, schema.AgentMessageChunk))

    def clear(self):
        self.updates.clear()
        self.asked.clear()
        self.chunk.clear()


def spawn(editor):
    args = ["--url", URL, "--sessions", SESSIONS, "--backoff", "0"]
    return acp.spawn_agent_process(editor, AGENT, *args, transport_kwargs={"stderr": None})


async def initialize(agent):
    able = schema.ClientCapabilities(fs=schema.FileSystemCapabilities(read_text_file=True, write_text_file=True))
    answer = await agent.initialize(protocol_version=acp.PROTOCOL_VERSION, client_capabilities=able)
    assert answer.protocol_version == 1 and answer.agent_capabilities.load_session, answer


async def prompt(agent, session, text):
    answer = await asyncio.wait_for(agent.prompt(session_id=session, prompt=[acp.text_block(text)]), LONG)
    return answer.stop_reason


async def refused(code, request):
    try:
        await asyncio.wait_for(request, LONG)
    except acp.RequestError as error:
        assert error.code == code, (error.code, error)
    else:
        raise AssertionError(f"no error {code}")


async def scenario():
    editor = Editor()
    async with spawn(editor) as (agent, process):
        await initialize(agent)
        one = (await agent.new_session(cwd=FOLDER)).session_id
        two = (await agent.new_session(cwd=FOLDER)).session_id

        # Two sessions, streamed.
        assert await prompt(agent, one, "hello") == "end_turn"
        assert await prompt(agent, two, "hello") == "end_turn"
        assert editor.text(one) == "Hello one" and editor.text(two) == "Hello two", editor.updates
        editor.clear()

        # A file with unsaved changes.
        assert await prompt(agent, one, "what does it say") == "end_turn"
        assert editor.text(one) == "It says: unsaved", editor.updates
        statuses = [u.status for _, u in editor.updates if isinstance(u, (schema.ToolCallStart, schema.ToolCallProgress))]
        assert statuses[-1] == "completed" and "in_progress" in statuses, statuses
        editor.clear()

        # Permissions.
        editor.answer = "allow_once"
        assert await prompt(agent, one, "write") == "end_turn"
        editor.answer = "reject_once"
        assert await prompt(agent, one, "write") == "end_turn"
        editor.clear()
        editor.answer = None
        running = asyncio.create_task(prompt(agent, one, "write"))
        await asyncio.wait_for(editor.asked.wait(), LONG)
        await agent.cancel(session_id=one)
        assert await running == "cancelled"
        editor.clear()

        # A cancellation in mid-stream.
        running = asyncio.create_task(prompt(agent, two, "a story"))
        await asyncio.wait_for(editor.chunk.wait(), LONG)
        await agent.cancel(session_id=two)
        assert await running == "cancelled"
        assert editor.text(two) == "Once upon", editor.updates

        # Malformed input does no harm.
        for line in [b"{nonsense\n", b"[]\n", b"\xff\xfe\n", b'{"jsonrpc":"2.0","method":7,"id":"x"}\n']:
            process.stdin.write(line)
        await process.stdin.drain()
        await refused(-32002, agent.load_session(cwd=FOLDER, session_id="no-such-session"))
        await refused(-32602, agent.new_session(cwd="relative"))

        listed = await agent.list_sessions(cwd=FOLDER)
        assert {session.session_id for session in listed.sessions} == {one, two}, listed
        assert all(session.cwd == FOLDER for session in listed.sessions), listed
    # The end of the input has ended it; the SDK would have killed it later.
    assert process.returncode == 0, process.returncode

    # After a restart.
    editor = Editor()
    async with spawn(editor) as (agent, process):
        await initialize(agent)
        listed = await agent.list_sessions()
        assert {session.session_id for session in listed.sessions} == {one, two}, listed
        await agent.load_session(cwd=FOLDER, session_id=one)
        kinds = [type(update).__name__ for _, update in editor.updates]
        assert kinds[0] == "UserMessageChunk" and "ToolCallStart" in kinds, kinds
        calls = {u.tool_call_id: u.status for _, u in editor.updates if isinstance(u, schema.ToolCallStart)}
        assert calls == {"r1": "completed", "w1": "completed", "w2": "failed", "w3": "failed"}, calls
        editor.clear()
        assert await prompt(agent, one, "are you there") == "end_turn"
        assert editor.text(one) == "Still here", editor.updates
        await agent.close_session(session_id=one)
        await agent.resume_session(cwd=FOLDER, session_id=two)
    assert process.returncode == 0, process.returncode
    print("done")


async def die():
    editor = Editor()
    async with spawn(editor) as (agent, _):
        await initialize(agent)
        session = (await agent.new_session(cwd=FOLDER)).session_id
        assert await prompt(agent, session, "keep this") == "end_turn"
        editor.clear()
        running = asyncio.create_task(prompt(agent, session, "a long story"))
        await asyncio.wait_for(editor.chunk.wait(), LONG)
        assert not running.done()
        os.kill(os.getpid(), signal.SIGKILL)


asyncio.run({"scenario": scenario, "die": die}[MODE]())
