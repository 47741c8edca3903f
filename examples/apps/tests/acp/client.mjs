// A client of the agent, with the official TypeScript SDK of the Agent Client Protocol.
//
// usage: node client.mjs SDK-FOLDER scenario|die AGENT URL SESSIONS FOLDER

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { realpathSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { Readable, Writable } from "node:stream";
import { pathToFileURL } from "node:url";

const [sdkFolder, mode, agentProgram, url, sessions, givenFolder] = process.argv.slice(2);
const folder = realpathSync(givenFolder);
const sdk = createRequire(join(sdkFolder, "client.cjs")).resolve("@agentclientprotocol/sdk");
const acp = await import(pathToFileURL(sdk).href);
const { agent: agentMethods, client: clientMethods } = acp.methods;

/** An editor with one open file, whose user answers permissions as the scenario says. */
class Editor {
  updates = [];
  answer = null;
  #waiting = [];

  constructor() {
    this.app = acp
      .client({ name: "editor" })
      .onNotification(clientMethods.session.update, ({ params }) => {
        this.updates.push(params);
        this.#happened(params.update.sessionUpdate);
      })
      .onRequest(clientMethods.session.requestPermission, async ({ params }) => {
        assert.match(params.toolCall.title, /^Write /);
        assert.deepEqual(params.options.map((option) => option.kind), ["allow_once", "allow_always", "reject_once"]);
        this.#happened("permission");
        if (this.answer === null) await new Promise(() => {}); // the user does not answer
        return { outcome: { outcome: "selected", optionId: this.answer } };
      })
      .onRequest(clientMethods.fs.readTextFile, ({ params }) => {
        assert.equal(params.path, join(folder, "open.txt"));
        return { content: "unsaved" };
      })
      .onRequest(clientMethods.fs.writeTextFile, ({ params }) => {
        writeFileSync(params.path, params.content);
        return {};
      });
  }

  #happened(what) {
    this.#waiting = this.#waiting.filter(([wanted, resolve]) => wanted !== what || void resolve());
  }

  /** The next time that this happens. */
  next(what) {
    return new Promise((resolve) => this.#waiting.push([what, resolve]));
  }

  /** The text of the agent in one session since the last call. */
  text(session) {
    const chunks = this.updates.filter(
      ({ sessionId, update }) => sessionId === session && update.sessionUpdate === "agent_message_chunk",
    );
    this.updates = this.updates.filter(({ sessionId }) => sessionId !== session);
    return chunks.map(({ update }) => update.content.text).join("");
  }
}

/** Runs `body` with a new agent, and returns the exit code of the agent. */
async function withAgent(editor, body) {
  const child = spawn(agentProgram, ["--url", url, "--sessions", sessions, "--backoff", "0"], {
    stdio: ["pipe", "pipe", "inherit"],
  });
  const ended = once(child, "exit");
  const stream = acp.ndJsonStream(Writable.toWeb(child.stdin), Readable.toWeb(child.stdout));
  await editor.app.connectWith(stream, async (agent) => {
    const answer = await agent.request(agentMethods.initialize, {
      protocolVersion: acp.PROTOCOL_VERSION,
      clientCapabilities: { fs: { readTextFile: true, writeTextFile: true } },
    });
    assert.equal(answer.protocolVersion, 1);
    assert.equal(answer.agentCapabilities.loadSession, true);
    await body(agent, child);
  });
  child.stdin.end();
  const [code] = await ended;
  return code;
}

const newSession = async (agent) =>
  (await agent.request(agentMethods.session.new, { cwd: folder, mcpServers: [] })).sessionId;

const prompt = async (agent, sessionId, text) =>
  (await agent.request(agentMethods.session.prompt, { sessionId, prompt: [{ type: "text", text }] })).stopReason;

const refused = (code, request) => assert.rejects(request, (error) => error.code === code);

async function scenario() {
  const editor = new Editor();
  let one, two;
  const code = await withAgent(editor, async (agent, child) => {
    one = await newSession(agent);
    two = await newSession(agent);

    // Two sessions, streamed.
    assert.equal(await prompt(agent, one, "hello"), "end_turn");
    assert.equal(await prompt(agent, two, "hello"), "end_turn");
    assert.equal(editor.text(one), "Hello one");
    assert.equal(editor.text(two), "Hello two");

    // A file with unsaved changes.
    assert.equal(await prompt(agent, one, "what does it say"), "end_turn");
    const statuses = editor.updates.map(({ update }) => update.status).filter(Boolean);
    assert.ok(statuses.includes("in_progress") && statuses.at(-1) === "completed", String(statuses));
    assert.equal(editor.text(one), "It says: unsaved");

    // Permissions.
    editor.answer = "allow_once";
    assert.equal(await prompt(agent, one, "write"), "end_turn");
    editor.answer = "reject_once";
    assert.equal(await prompt(agent, one, "write"), "end_turn");
    editor.answer = null;
    const asked = editor.next("permission");
    const unanswered = prompt(agent, one, "write");
    await asked;
    await agent.notify(agentMethods.session.cancel, { sessionId: one });
    assert.equal(await unanswered, "cancelled");

    // A cancellation in mid-stream.
    const chunk = editor.next("agent_message_chunk");
    const story = prompt(agent, two, "a story");
    await chunk;
    await agent.notify(agentMethods.session.cancel, { sessionId: two });
    assert.equal(await story, "cancelled");
    assert.equal(editor.text(two), "Once upon");

    // Malformed input does no harm.
    for (const line of ["{nonsense\n", "[]\n", Buffer.from([0xff, 0xfe, 0x0a]), '{"jsonrpc":"2.0","method":7,"id":"x"}\n']) {
      child.stdin.write(line);
    }
    const cwd = folder;
    await refused(-32002, agent.request(agentMethods.session.load, { sessionId: "none", cwd, mcpServers: [] }));
    await refused(-32602, agent.request(agentMethods.session.new, { cwd: "relative", mcpServers: [] }));

    const listed = await agent.request(agentMethods.session.list, { cwd });
    assert.deepEqual(new Set(listed.sessions.map((session) => session.sessionId)), new Set([one, two]));
    assert.ok(listed.sessions.every((session) => session.cwd === cwd));
  });
  assert.equal(code, 0);

  // After a restart.
  const again = new Editor();
  const second = await withAgent(again, async (agent) => {
    const listed = await agent.request(agentMethods.session.list, {});
    assert.deepEqual(new Set(listed.sessions.map((session) => session.sessionId)), new Set([one, two]));
    await agent.request(agentMethods.session.load, { sessionId: one, cwd: folder, mcpServers: [] });
    const updates = again.updates.map(({ update }) => update);
    assert.equal(updates[0].sessionUpdate, "user_message_chunk");
    const calls = updates.filter((update) => update.sessionUpdate === "tool_call");
    const statuses = Object.fromEntries(calls.map((call) => [call.toolCallId, call.status]));
    assert.deepEqual(statuses, { r1: "completed", w1: "completed", w2: "failed", w3: "failed" });
    again.text(one);
    assert.equal(await prompt(agent, one, "are you there"), "end_turn");
    assert.equal(again.text(one), "Still here");
    await agent.request(agentMethods.session.close, { sessionId: one });
    await agent.request(agentMethods.session.resume, { sessionId: two, cwd: folder });
  });
  assert.equal(second, 0);
  console.log("done");
}

async function die() {
  const editor = new Editor();
  await withAgent(editor, async (agent) => {
    const session = await newSession(agent);
    assert.equal(await prompt(agent, session, "keep this"), "end_turn");
    const chunk = editor.next("agent_message_chunk");
    prompt(agent, session, "a long story").catch(() => {});
    await chunk;
    process.kill(process.pid, "SIGKILL");
  });
}

await (mode === "die" ? die() : scenario());
