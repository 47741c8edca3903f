//! Queues: that of a service, streams and subscriptions.

use std::ffi::c_char;
use std::mem::offset_of;
use std::ptr;
use std::sync::Arc;

use library::{AgentEvent, SessionId};

use super::entry::{call, require, run, waiting};
use super::handles::{self, Object};
use super::sessions::session_id;
use super::structs::{self, TurnwiseError, TurnwiseEvent, TurnwiseHandle};
use super::text;
use crate::codes::{Failure, TURNWISE_EMPTY, TURNWISE_END, TURNWISE_OK};
use crate::host::events::Next;
use crate::host::requests::{self, event_json, SubscriptionSettings};
use crate::host::service::{Service, ServiceEvent};
use crate::host::subscription::{Item, Subscription};

/// An event of a session.
pub const TURNWISE_EVENT: i32 = 1;
/// A turn has ended, and its session is free for the next one.
pub const TURNWISE_TURN_FINISHED: i32 = 2;

/// The parts of an item.
struct Parts {
    kind: i32,
    turn_handle: u64,
    turn: u64,
    seq: u64,
    session: SessionId,
    event: Option<AgentEvent>,
}

impl Parts {
    fn of_turn(session: SessionId, turn: u64, event: AgentEvent) -> Self {
        Self { kind: TURNWISE_EVENT, turn_handle: 0, turn, seq: 0, session, event: Some(event) }
    }

    fn of_item(item: Item) -> Self {
        match item {
            Item::Numbered(event) => Self {
                seq: event.seq,
                ..Self::of_turn(event.session_id, event.turn_id.map_or(0, |turn| turn.get()), event.event)
            },
            Item::OfInteraction(session, event) => Self::of_turn(session, 0, event),
        }
    }

    fn of_service(event: ServiceEvent) -> Self {
        match event {
            ServiceEvent::Event(event) => Self::of_item(Item::Numbered(event)),
            ServiceEvent::TurnFinished(turn) => Self {
                kind: TURNWISE_TURN_FINISHED,
                turn_handle: turn.number(),
                turn: turn.turn_id().get(),
                seq: 0,
                session: turn.session_id(),
                event: None,
            },
        }
    }

    /// # Safety
    /// `to` has passed `structs::check`.
    unsafe fn write(self, to: *mut TurnwiseEvent) -> Result<(), Failure> {
        // SAFETY: the caller's promise. A text without a field for it would leak.
        let has_json = unsafe { structs::has_room(to, offset_of!(TurnwiseEvent, json_len) + size_of::<usize>()) };
        let json = self.event.filter(|_| has_json).as_ref().map(event_json).transpose()?;
        let json_len = json.as_ref().map_or(0, String::len);
        let value = TurnwiseEvent {
            size: 0,
            kind: self.kind,
            reserved: 0,
            turn_handle: self.turn_handle,
            turn: self.turn,
            seq: self.seq,
            session_id: structs::id_field(self.session),
            json: json.map_or(ptr::null_mut(), text::give),
            json_len,
        };
        // SAFETY: the caller's promise.
        unsafe { structs::write(to, &value) };
        Ok(())
    }
}

/// Takes the next item of a queue, and waits for it at most `timeout_ms` milliseconds: `TURNWISE_EMPTY` if there is none
/// in time, `TURNWISE_END` if there will be none. 0 does not wait, and a negative timeout waits without a limit.
///
/// The handle is that of
/// - a service: the events of all sessions, if its settings have `events`, and the end of each turn that was begun with a
///   handle. The end comes behind the turn's events;
/// - a turn that was begun as a stream: its events, until it has ended and its session is free;
/// - a subscription.
///
/// Any number of threads may read a queue. Each item goes to one of them. In a callback a wait for the queue of a service,
/// or for an interaction, keeps the running permit of the callback's turn.
///
/// The queue of a service does not end before its close: if its settings say `disconnect`, the ends of turns come after
/// the overflow too.
///
/// Errors: `TURNWISE_CLOSED` if the handle or the service is closed meanwhile; `TURNWISE_CANCELLED` in a callback whose
/// own turn is told to stop; `TURNWISE_SESSION_REENTRANT` in a callback that waits for a subscription of its own session,
/// or of one that waits for it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn turnwise_next_event(
    handle: TurnwiseHandle,
    timeout_ms: i64,
    event: *mut TurnwiseEvent,
    error: *mut TurnwiseError,
) -> i32 {
    // SAFETY: the caller's promise, here and below.
    unsafe {
        call(error, || {
            structs::check(event, "the event")?;
            let next = match handles::get(handle)? {
                Object::Service(service) => {
                    waiting(timeout_ms, |wait| service.next_event(wait))?.map(Parts::of_service)
                }
                Object::Turn(turn) => {
                    let (session, number) = (turn.session_id(), turn.turn_id().get());
                    waiting(timeout_ms, |wait| turn.next_event(wait))?
                        .map(|event| Parts::of_turn(session, number, event))
                }
                Object::Subscription(subscription) => {
                    waiting(timeout_ms, |wait| subscription.next_event(wait))?.map(Parts::of_item)
                }
            };
            match next {
                Next::Event(parts) => {
                    parts.write(event)?;
                    Ok(TURNWISE_OK)
                }
                Next::Empty => Ok(TURNWISE_EMPTY),
                Next::End => Ok(TURNWISE_END),
            }
        })
    }
}

/// Gives a subscription its handle, and has the descriptor show it.
pub(super) fn hand_out(service: &Arc<Service>, subscription: Arc<Subscription>) -> Result<u64, Failure> {
    let handle = handles::insert(Object::Subscription(Arc::clone(&subscription)))?;
    service.watch_subscription(&subscription);
    Ok(handle)
}

/// Subscribes to the events of a session from now on, of whatever turn, or of all sessions if `session` is null. Stores
/// the handle in `*subscription`.
///
/// `options` is JSON or null: `{"capacity", "overflow", "from_seq"}`. `overflow` is `drop_oldest` (the default),
/// `drop_newest`, `block` or `disconnect`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn turnwise_subscribe(
    service: TurnwiseHandle,
    session: *const c_char,
    session_len: usize,
    options: *const c_char,
    options_len: usize,
    subscription: *mut TurnwiseHandle,
    error: *mut TurnwiseError,
) -> i32 {
    // SAFETY: as above.
    unsafe {
        run(error, || {
            require(subscription, "the pointer for the handle")?;
            let service = handles::service(service)?;
            let id = if session.is_null() { None } else { Some(session_id(session, session_len)?) };
            let options: SubscriptionSettings = requests::parse(text::read(options, options_len, "the options")?)?;
            subscription.write(hand_out(&service, service.subscribe(id, options)?)?);
            Ok(())
        })
    }
}

/// Stores the number of events that a subscription has missed in `*dropped`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn turnwise_subscription_dropped(
    subscription: TurnwiseHandle,
    dropped: *mut u64,
    error: *mut TurnwiseError,
) -> i32 {
    // SAFETY: as above.
    unsafe {
        run(error, || {
            require(dropped, "the pointer for the number")?;
            dropped.write(handles::subscription(subscription)?.dropped());
            Ok(())
        })
    }
}
