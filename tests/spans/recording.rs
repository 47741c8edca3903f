//! A subscriber that records spans and events. It is the global one, so the tests tell their records apart: by the name
//! that each event has, and by the ids of sessions.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::{Mutex, MutexGuard, OnceLock};
use std::thread::{self, ThreadId};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};
use tracing_core::span::Current;
use turnwise::SessionId;

/// A span, as it was made and used so far.
#[derive(Clone, Debug)]
pub(crate) struct SpanData {
    pub(crate) metadata: &'static Metadata<'static>,
    pub(crate) fields: BTreeMap<&'static str, String>,
    pub(crate) parent: Option<u64>,
    pub(crate) follows: Vec<u64>,
    pub(crate) is_closed: bool,
    shares: usize,
    /// Of each time that it was entered: the thread, and the spans that were entered there before.
    pub(crate) entered: Vec<(ThreadId, Vec<u64>)>,
    pub(crate) exited: Vec<ThreadId>,
}

/// An event, with the spans that were entered on its thread, outermost first.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    name: String,
    pub(crate) thread: ThreadId,
    pub(crate) stack: Vec<u64>,
}

#[derive(Default)]
struct Records {
    spans: BTreeMap<u64, SpanData>,
    events: Vec<Seen>,
    /// The methods of the subscriber that panic, with the session whose spans make them panic.
    panicking: BTreeSet<(String, &'static str)>,
}

thread_local! {
    static STACK: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
}

static RECORDS: Mutex<Option<Records>> = Mutex::new(None);

struct Recording;

#[derive(Default)]
struct Fields(BTreeMap<&'static str, String>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), value.to_owned());
    }
}

fn lock() -> MutexGuard<'static, Option<Records>> {
    RECORDS.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

fn with<T>(change: impl FnOnce(&mut Records) -> T) -> T {
    change(lock().get_or_insert_with(Records::default))
}

/// Panics if a span of this session is to make `method` panic.
fn may_panic(method: &'static str, fields: Option<&BTreeMap<&'static str, String>>) {
    let session = fields.and_then(|fields| fields.get("session_id")).cloned().unwrap_or_default();
    let panics = with(|records| records.panicking.contains(&(session, method)));
    assert!(!panics, "told to panic in {method}");
}

fn fields_of(span: &Id) -> Option<BTreeMap<&'static str, String>> {
    with(|records| records.spans.get(&span.into_u64()).map(|span| span.fields.clone()))
}

impl Subscriber for Recording {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut fields = Fields::default();
        span.record(&mut fields);
        may_panic("new_span", Some(&fields.0));
        let above = STACK.with_borrow(|stack| stack.last().copied());
        let parent = if span.is_contextual() { above } else { span.parent().map(Id::into_u64) };
        with(|records| {
            let id = records.spans.len() as u64 + 1;
            let data = SpanData {
                metadata: span.metadata(),
                fields: fields.0,
                parent,
                follows: Vec::new(),
                is_closed: false,
                shares: 1,
                entered: Vec::new(),
                exited: Vec::new(),
            };
            records.spans.insert(id, data);
            Id::from_u64(id)
        })
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, span: &Id, follows: &Id) {
        may_panic("record_follows_from", fields_of(span).as_ref());
        with(|records| records.spans.get_mut(&span.into_u64()).expect("a span").follows.push(follows.into_u64()));
    }

    fn event(&self, event: &Event<'_>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let stack = STACK.with_borrow(Vec::clone);
        let Some(name) = fields.0.remove("call") else { return };
        with(|records| records.events.push(Seen { name, thread: thread::current().id(), stack }));
    }

    fn enter(&self, span: &Id) {
        may_panic("enter", fields_of(span).as_ref());
        let id = span.into_u64();
        let before = STACK.with_borrow(Vec::clone);
        with(|records| records.spans.get_mut(&id).expect("a span").entered.push((thread::current().id(), before)));
        STACK.with_borrow_mut(|stack| stack.push(id));
    }

    fn exit(&self, span: &Id) {
        let id = span.into_u64();
        let last = STACK.with_borrow_mut(Vec::pop);
        assert_eq!(last, Some(id), "spans are exited in the opposite order");
        with(|records| records.spans.get_mut(&id).expect("a span").exited.push(thread::current().id()));
        may_panic("exit", fields_of(span).as_ref());
    }

    fn clone_span(&self, span: &Id) -> Id {
        with(|records| records.spans.get_mut(&span.into_u64()).expect("a span").shares += 1);
        span.clone()
    }

    fn try_close(&self, span: Id) -> bool {
        let is_closed = with(|records| {
            let data = records.spans.get_mut(&span.into_u64()).expect("a span");
            data.shares -= 1;
            data.is_closed = data.shares == 0;
            data.is_closed
        });
        may_panic("try_close", fields_of(&span).as_ref());
        is_closed
    }

    fn current_span(&self) -> Current {
        match STACK.with_borrow(|stack| stack.last().copied()) {
            Some(id) => Current::new(Id::from_u64(id), span(id).metadata),
            None => Current::none(),
        }
    }
}

/// Makes the recording subscriber the global one.
pub(crate) fn install() {
    static INSTALLED: OnceLock<()> = OnceLock::new();
    INSTALLED.get_or_init(|| tracing::subscriber::set_global_default(Recording).expect("no other subscriber"));
}

/// Makes a method of the subscriber panic for the spans of a session.
pub(crate) fn panic_in(method: &'static str, session: SessionId) {
    with(|records| records.panicking.insert((session.to_string(), method)));
}

pub(crate) fn span(id: u64) -> SpanData {
    with(|records| records.spans[&id].clone())
}

/// The number of the span with this name, of this session and this turn, if it was made.
pub(crate) fn find(name: &str, session: SessionId, turn: Option<u64>) -> Option<u64> {
    let (session, turn) = (session.to_string(), turn.map(|turn| turn.to_string()));
    with(|records| {
        let is_it = |span: &SpanData| {
            let fields = &span.fields;
            span.metadata.name() == name
                && fields.get("session_id") == Some(&session)
                && fields.get("turn_id") == turn.as_ref()
        };
        records.spans.iter().find(|(_, span)| is_it(span)).map(|(id, _)| *id)
    })
}

/// The span of a turn.
pub(crate) fn turn_span(session: SessionId, turn: u64) -> u64 {
    find("turn", session, Some(turn)).expect("the turn has a span")
}

/// The span of a session.
pub(crate) fn session_span(session: SessionId) -> u64 {
    find("session", session, None).expect("the session has a span")
}

/// The events with this name, in order.
pub(crate) fn events(name: &str) -> Vec<Seen> {
    with(|records| records.events.iter().filter(|event| event.name == name).cloned().collect())
}

/// The innermost span of each event with this name.
pub(crate) fn innermost(name: &str) -> Vec<Option<u64>> {
    events(name).iter().map(|event| event.stack.last().copied()).collect()
}
