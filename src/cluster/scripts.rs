//! The scripts that the server runs. Each is one step for every other client.
//!
//! A script is a file in `scripts/`. Its first line has its flags: without `allow-oom` it is refused as a whole when the
//! memory of the server is full. Its head says what it promises. Behind the first line comes `common.lua`, which compares
//! the id of the namespace and has the functions that several scripts use.
//!
//! `tests/cluster/scripts` holds them to a sequential model.
//!
//! # Two sets of steps
//!
//! The store uses `meet`, `found`, `save`, `load`, `list`, `summary` and `delete`. The others share out the turns of
//! sessions over *workers*, for *clients*. A [worker](super::worker) is a process that hosts sessions; a client is a process
//! that begins their turns.
//!
//! # Rules
//!
//! 1. **The lease is liveness, the fence is safety.** A worker has a lease, which it renews. Its end only tells others that
//!    they may take the worker's sessions. What decides whether a result is kept is the fence: the pair of the worker's
//!    name and the session's epoch, compared by the step that writes. No clock decides what is kept.
//! 2. **The hash decides, streams only wake.** All that a worker has to do for a session is in the session's hash, until
//!    the turn ends. An entry of a worker's stream names a session to look at. An entry that is lost is found by a sweep, if
//!    a turn is in flight; otherwise the next look shows what there is to do. Some entries have a copy of what is kept, which
//!    spares the worker the look: a short turn that is alone in flight in a session without feeds, and the credit of a feed.
//! 3. **No turn is repeated by the engine.** Each `begin` ends in exactly one of `finish`, `refuse`, a withdrawal and an
//!    abandonment. The step that ends the turn keeps the verdict and tells the clients.
//! 4. **Every step may be repeated** with the same arguments, after a lost reply. Steps that begin something are known by
//!    the name of the request for ten minutes; a client repeats a request for five. A save is known by its revision.
//! 5. **Numbers that grow for ever are strings** in scripts, because numbers of Lua are doubles: turns, epochs, counts of
//!    answers.
//!
//! # Keys
//!
//! Each begins with the namespace and a colon.
//!
//! | Key | Type | Content |
//! |---|---|---|
//! | `meta` | hash | `version` of the scripts, `id` of the namespace |
//! | `epoch` | number | the last epoch of any session: an id that is deleted and made again never meets an old one |
//! | `s:{id}` | hash | the session, see below |
//! | `s:{id}:h` | list | its messages, each as JSON |
//! | `idx` | sorted set | ids of sessions that have a record, by creation in milliseconds |
//! | `answers` | number | the highest count of answers of a session that was removed |
//! | `workers` | set | names of workers, also of those whose lease has ended and whose sessions are not taken yet |
//! | `w:{wid}:l` | string with expiry | the lease: capacity, limit of queued turns, `open` or `draining` |
//! | `w:{wid}:q` | stream | `id` of a session to look at; with `epoch`, `turn`, `request`, `cid` and `body` of a turn that is alone in flight, or with `feed` and `credit` |
//! | `w:{wid}:s`, `w:{wid}:b` | sets | the sessions of the worker; those with a turn in flight. Their sizes are its load |
//! | `c:{cid}:l`, `c:{cid}` | string, stream with expiry | the lease of a client; its messages |
//! | `c:{cid}:f` | hash with expiry | by feed and epoch, the credit of the client, or `closed` |
//! | `req:{request}` | hash with expiry | `id`, `turn`, and once it is decided `kind`, `body` and `answers` |
//! | `req:{feed}` | hash with expiry | `id`, and the `kind` `closed`: the feed was removed |
//!
//! A worker and a client take a new name in each incarnation, so that no key of a dead one is revived.
//!
//! # The hash of a session
//!
//! | Field | Content |
//! |---|---|
//! | `made` | there is a session, or the first build of one |
//! | `rev`, `past` | the revision of the record; the last eight. Without `rev` the session was never built |
//! | `head`, `sum` | the header and the summary, as JSON |
//! | `labels`, `archived` | these stand over those of the header, since clients change them without the worker |
//! | `wid`, `epoch` | the worker, empty for none; the epoch of its last assignment |
//! | `turn`, `answers` | the last turn; how many turns were answered |
//! | `flight` | the turns in flight, in the order in which they run. 0 stands for a build without a turn |
//! | `t:{turn}:req`, `:cid`, `:body`, `:cancel`, `:in`, `:msg` | a turn in flight: request, clients, what the worker needs, cancel reason, names of inputs and messages |
//! | `i:{input}`, `i:{input}:opt` | an input request that is pending, and its options |
//! | `r:{input}` | its response; empty if the worker's timeout came first |
//! | `m:{request}`, `m:{request}:cid` | a message that steers the turn, and its client |
//! | `fault` | the message of the panic that has left the session faulted |
//! | `feeds` | names of the feeds of the session's events |
//! | `f:{feed}`, `f:{feed}:cid` | the options of a feed, and its client |
//!
//! # Messages to a client
//!
//! `verdict {request} id {id} turn {turn} kind {kind} body {body} answers {count}` ends a turn. The kind is `done` with the
//! result, `refused` with the worker's reason, `withdrawn` with the cancel reason, `lost` if the worker's lease has ended,
//! or `deleted`.
//!
//! `events {feed} epoch {epoch} first {number} count {count} last {0, 1 or gap} body {events}` has events of a feed. A turn has a
//! feed with the name of its request, if its client wants that; a subscription has one of its own. The worker sends events
//! while the sum of their costs is below the client's credit. It counts by epoch: the next worker of a session begins again.
//! A message without events, with `gap`, tells that the events before its number are missing. It comes from a worker that
//! gives up events which the client did not take, and from the step that takes a session from a dead worker.
//!
//! `steered {request} kind {kind} body {event}` reports what becomes of a message: `taken`, `event`, `end` from the worker,
//! with a `number {count}` that a repeated report has too; `over` and `lost` from the step that ends the turn.
//!
//! A client that sees a count of answers passes the highest one to `begin`. A server that has fewer has lost some in a
//! fail-over: `shorter`.
//!
//! # The life of a turn
//!
//! ```text
//! client            server                                   worker
//! begin ──────────▶ chooses a worker, or keeps the one that
//!                   has the session; new epoch if it moves
//!                   puts the turn in flight; wakes ────────▶ look: what is in flight, with prompts; not
//!                                                            needed where the wake-up has the turn
//!                                                            runs it, if its own lease still lasts
//! interrupt ──────▶ first in flight: marks it; wakes ──────▶ look: cancels it
//!                   queued: withdraws it
//! respond ────────▶ claims the input; wakes ───────────────▶ settle
//!                   fence, first in flight, revision? ◀───── finish: history and result
//!        ◀───────── history, verdict and message in one step
//! ```
//!
//! If the worker's lease ends in between, the next step that touches the session, or a sweep, answers all that is in flight
//! as lost, and the session has no worker. The old worker's `finish` then fails at the fence. Its local copy of the session
//! is dropped unsaved.
//!
//! # Threads
//!
//! A worker has one thread that renews the lease and sweeps, and one that blocks in a read of its stream and does nothing
//! else. The threads of its sessions call steps themselves, over the lanes of the engine. A client has one thread that
//! blocks in a read of its stream, and renews its lease between two reads. Before a worker runs a turn it checks, on its
//! own monotonic clock, that the lease lasted at the time of the last renewal that was *sent*.

use crate::sync::WriteOnce;

use super::wire::{digest, Command};

/// A script.
pub(super) struct Script {
    name: &'static str,
    common: &'static str,
    text: &'static str,
    digest: WriteOnce<String>,
}

impl Script {
    const fn new(name: &'static str, common: &'static str, text: &'static str) -> Self {
        Self { name, common, text, digest: WriteOnce::new() }
    }

    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    /// The whole text: the first line, the common part, and the rest.
    fn source(&self) -> String {
        let (flags, rest) = self.text.split_once('\n').unwrap_or((self.text, ""));
        [flags, "\n", self.common, rest].concat()
    }

    /// The digest by which the server knows the script.
    pub(super) fn digest(&self) -> &str {
        self.digest.get_or_init(|| digest(&self.source()))
    }

    /// The command that gives the script to the server.
    pub(super) fn load(&self) -> Command {
        Command::new("SCRIPT").arg("LOAD").arg(self.source())
    }
}

macro_rules! scripts {
    ($common:expr; $($name:ident = $file:literal,)*) => {
        $(pub(super) static $name: Script =
            Script::new($file, $common, include_str!(concat!("scripts/", $file, ".lua")));)*
    };
}

scripts! {
    "";
    FOUND = "found",
    MEET = "meet",
}

scripts! {
    include_str!("scripts/common.lua");
    ABANDON = "abandon",
    ARCHIVE = "archive",
    ASK = "ask",
    BEGIN = "begin",
    CREDIT = "credit",
    DELETE = "delete",
    DRAIN = "drain",
    EMIT = "emit",
    ENROL = "enrol",
    FINISH = "finish",
    FOLLOW = "follow",
    INTERRUPT = "interrupt",
    KEEP = "keep",
    LABEL = "label",
    LIST = "list",
    LOAD = "load",
    LOOK = "look",
    OPEN = "open",
    OUTCOME = "outcome",
    READ = "read",
    REFUSE = "refuse",
    RENEW = "renew",
    RESPOND = "respond",
    RESTART = "restart",
    SAVE = "save",
    SETTLE = "settle",
    STEER = "steer",
    SUMMARY = "summary",
    SWEEP = "sweep",
    TAKE = "take",
    TELL = "tell",
    UNLOAD = "unload",
}
