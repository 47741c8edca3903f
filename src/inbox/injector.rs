//! How a host program puts something into a session's inbox.

use std::fmt;

use crate::model::{AgentEvent, EventSource, InteractionId};
use crate::reentrancy;
use crate::sync::{Receiver, TryRecvError};
use crate::time::clock::Deadline;

/// Puts messages into the inbox of one session. From any thread; nothing here ever waits.
///
/// ```
/// use turnwise::{agent_fn, EphemeralSessionService, EventSource, SessionService, SessionSpec, StartTurnRequest};
///
/// let agent = agent_fn(|_, turn| {
///     let news: Vec<String> = turn.drain_inbox().iter().map(|one| one.text()).collect();
///     Ok(turn.finish(news.join(", ")))
/// });
/// let service = EphemeralSessionService::new(agent, 1);
/// let id = service.open_session(SessionSpec::new())?;
/// let injector = service.event_injector(id).expect("the session is there");
/// injector.inject("rain".into(), EventSource::Webhook)?;
/// injector.inject("wind".into(), EventSource::Webhook)?;
/// assert_eq!(service.start_turn(id, StartTurnRequest::new("what is new?"))?.text, "rain, wind");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait EventInjector: Send + Sync {
    /// Puts a message in. A session in host mode runs it as an interaction; others find it with
    /// [`TurnContext::drain_inbox`](crate::TurnContext::drain_inbox). A message that is still there when host mode ends stays for the next
    /// turn.
    ///
    /// # Errors
    /// [`InjectError::Full`] where the inbox has no room, [`InjectError::Closed`] where the session is closed or faulted. Both
    /// give the message back.
    ///
    /// # Blocking
    /// Does not block.
    fn inject(&self, body: String, source: EventSource) -> Result<(), InjectError>;

    /// Has the session leave host mode when it has worked off what is in its inbox by now. Always has room. Where the
    /// session is not in host mode, it leaves it the next time as soon as it gets there; unless a turn has
    /// [drained](crate::TurnContext::drain_inbox) the inbox before, and the dismissal with it.
    ///
    /// ```
    /// use turnwise::{agent_fn, CreateSessionRequest, EphemeralSessionService, EventSource, SessionService};
    ///
    /// let service = EphemeralSessionService::new(agent_fn(|prompt, turn| Ok(turn.finish(prompt))), 1);
    /// let hosting = service.begin_session(CreateSessionRequest::new("hello").host_mode(true))?;
    /// let injector = service.event_injector(hosting.session_id()).expect("the session is there");
    /// injector.inject("one more".into(), EventSource::Stdin)?;
    /// injector.dismiss(EventSource::Stdin)?; // after what is there by now
    /// assert_eq!(hosting.wait()?.text, "one more");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`InjectError::Closed`] as for [`inject`](Self::inject), with an empty message. An injector that has no such thing,
    /// which is what is provided, says [`InjectError::Unsupported`].
    ///
    /// # Blocking
    /// Does not block.
    fn dismiss(&self, source: EventSource) -> Result<(), InjectError> {
        let _ = source;
        Err(InjectError::Unsupported)
    }
}

/// An injector that lets its caller follow what becomes of a message.
///
/// ```
/// use turnwise::{agent_fn, AgentEvent, CreateSessionRequest, EphemeralSessionService, EventSource, SessionService};
///
/// let service = EphemeralSessionService::new(agent_fn(|prompt, turn| Ok(turn.finish(prompt.to_uppercase()))), 1);
/// let hosting = service.begin_session(CreateSessionRequest::new("hello").host_mode(true))?;
/// let injector = service.event_injector(hosting.session_id()).expect("the session is there");
/// let ping = injector.inject_with_subscription("ping".into(), EventSource::Rpc)?;
/// let end = ping.last();
/// assert!(matches!(end, Some(AgentEvent::InteractionComplete { result, .. }) if result == "PING"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait SubscribableInjector: EventInjector {
    /// As [`inject`](EventInjector::inject), with the events of just that interaction. One that is still in the inbox when a turn in host
    /// mode ends fails then, and is taken out: its sender may send it again. By its id it can be
    /// [interrupted](crate::SessionService::interrupt_interaction) alone.
    ///
    /// # Errors
    /// Those of [`inject`](EventInjector::inject).
    ///
    /// # Blocking
    /// Does not block.
    fn inject_with_subscription(
        &self,
        body: String,
        source: EventSource,
    ) -> Result<InteractionSubscription, InjectError>;
}

/// One interaction, as whoever asked for it sees it.
///
/// ```
/// use turnwise::{agent_fn, AgentEvent, EphemeralSessionService, EventSource, SessionService, SessionSpec};
///
/// let service = EphemeralSessionService::new(agent_fn(|prompt, turn| Ok(turn.finish(prompt))), 1);
/// let id = service.open_session(SessionSpec::new())?;
/// let injector = service.event_injector(id).expect("the session is there");
/// let message = injector.inject_with_subscription("anybody there?".into(), EventSource::Tcp)?;
/// let sent = message.id;
/// service.archive(id)?; // and nobody has looked into the inbox
/// let end = message.last();
/// assert!(matches!(end, Some(AgentEvent::InteractionFailed { interaction_id, .. }) if interaction_id == sent));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "dropping it loses the interaction's events"]
pub struct InteractionSubscription {
    /// Which interaction.
    pub id: InteractionId,
    /// What happens in it, ending with exactly one [`InteractionComplete`](AgentEvent::InteractionComplete) or
    /// [`InteractionFailed`](AgentEvent::InteractionFailed), whatever becomes of the session; then the channel disconnects.
    ///
    /// It never makes the session wait. Where 1,024 events are unread, one
    /// [`StreamTruncated`](AgentEvent::StreamTruncated) takes the place of all that follow but the last.
    ///
    /// For threads of the host, and for a `select!`. An agent that follows an interaction of another session iterates over
    /// the subscription itself.
    pub events: Receiver<AgentEvent>,
}

/// Waits for the interaction's next event, or its end. On a session's own thread the turn's running permit is given back
/// meanwhile, and the iteration also ends when the turn is cancelled. That the other session waits for this one is not seen.
impl Iterator for InteractionSubscription {
    type Item = AgentEvent;

    fn next(&mut self) -> Option<AgentEvent> {
        reentrancy::check().ok()?;
        match self.events.try_recv() {
            Ok(event) => Some(event),
            Err(TryRecvError::Disconnected) => None,
            Err(TryRecvError::Empty) => reentrancy::receive(&self.events, &Deadline::never()).ok().flatten(),
        }
    }
}

impl fmt::Debug for InteractionSubscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InteractionSubscription").field("id", &self.id).field("unread", &self.events.len()).finish()
    }
}

/// Why something was not put into an inbox. Gives it back.
///
/// ```
/// use turnwise::{agent_fn, EphemeralSessionService, EventSource, InjectError, SessionService, SessionSpec};
///
/// let agent = agent_fn(|prompt, turn| Ok(turn.finish(prompt)));
/// let service = EphemeralSessionService::configure(agent).inbox_capacity(1).build()?;
/// let id = service.open_session(SessionSpec::new())?;
/// let injector = service.event_injector(id).expect("the session is there");
/// injector.inject("first".into(), EventSource::Stdin)?;
/// let error = injector.inject("second".into(), EventSource::Stdin).unwrap_err();
/// assert_eq!(error, InjectError::Full("second".into()));
/// assert_eq!(error.into_body(), "second"); // to be put in again
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InjectError {
    /// The inbox has no room now.
    #[error("the inbox is full")]
    Full(String),
    /// The session takes nothing any more.
    #[error("the inbox is closed")]
    Closed(String),
    /// This injector has no such call.
    #[error("not supported by this injector")]
    Unsupported,
}

impl InjectError {
    /// The message that was not put in.
    pub fn into_body(self) -> String {
        match self {
            Self::Full(body) | Self::Closed(body) => body,
            Self::Unsupported => String::new(),
        }
    }
}

impl fmt::Debug for InjectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The message is part of the conversation.
        f.write_str(match self {
            Self::Full(_) => "Full(..)",
            Self::Closed(_) => "Closed(..)",
            Self::Unsupported => "Unsupported",
        })
    }
}
