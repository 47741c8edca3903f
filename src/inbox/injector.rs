//! The traits by which a host program pushes messages into a session's inbox.

use std::fmt;

use crate::model::{AgentEvent, EventSource, InteractionId};
use crate::reentrancy;
use crate::sync::{Receiver, TryRecvError};
use crate::time::clock::Deadline;

/// Pushes messages into the inbox of one session, from any thread. No call waits.
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
    /// Pushes a message into the inbox. A session in host mode runs it as an interaction. In another turn the agent
    /// takes it with [`TurnContext::drain_inbox`](crate::TurnContext::drain_inbox). A message that is still in the
    /// inbox when host mode ends stays for the next turn.
    ///
    /// # Errors
    /// [`InjectError::Full`] if the inbox is full, [`InjectError::Closed`] if the session is closed or faulted. Both
    /// return the message.
    ///
    /// # Blocking
    /// Does not block.
    fn inject(&self, body: String, source: EventSource) -> Result<(), InjectError>;

    /// Ends host mode, once the session has run all interactions that are in its inbox now. A dismissal takes no room
    /// in the inbox. If the session is not in host mode, the dismissal ends the next host mode as soon as that begins.
    /// It does not if a turn [drains](crate::TurnContext::drain_inbox) the inbox first, which removes the dismissal.
    ///
    /// ```
    /// use turnwise::{agent_fn, CreateSessionRequest, EphemeralSessionService, EventSource, SessionService};
    ///
    /// let service = EphemeralSessionService::new(agent_fn(|prompt, turn| Ok(turn.finish(prompt))), 1);
    /// let hosting = service.begin_session(CreateSessionRequest::new("hello").host_mode(true))?;
    /// let injector = service.event_injector(hosting.session_id()).expect("the session is there");
    /// injector.inject("one more".into(), EventSource::Stdin)?;
    /// injector.dismiss(EventSource::Stdin)?; // after the interactions that are in the inbox now
    /// assert_eq!(hosting.wait()?.text, "one more");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`InjectError::Closed`] as for [`inject`](Self::inject), with an empty message. The provided method returns
    /// [`InjectError::Unsupported`].
    ///
    /// # Blocking
    /// Does not block.
    fn dismiss(&self, source: EventSource) -> Result<(), InjectError> {
        let _ = source;
        Err(InjectError::Unsupported)
    }
}

/// An injector whose caller can follow the interaction of a message.
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
    /// As [`inject`](EventInjector::inject), and also returns the events of that interaction. If the interaction is
    /// still in the inbox when a turn in host mode ends, it fails and is removed; its sender may send it again. It can
    /// be [interrupted](crate::SessionService::interrupt_interaction) alone, by its id.
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

/// One interaction, as the caller that injected it sees it.
///
/// ```
/// use turnwise::{agent_fn, AgentEvent, EphemeralSessionService, EventSource, SessionService, SessionSpec};
///
/// let service = EphemeralSessionService::new(agent_fn(|prompt, turn| Ok(turn.finish(prompt))), 1);
/// let id = service.open_session(SessionSpec::new())?;
/// let injector = service.event_injector(id).expect("the session is there");
/// let message = injector.inject_with_subscription("anybody there?".into(), EventSource::Tcp)?;
/// let sent = message.id;
/// service.archive(id)?; // no turn has drained the inbox
/// let end = message.last();
/// assert!(matches!(end, Some(AgentEvent::InteractionFailed { interaction_id, .. }) if interaction_id == sent));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "dropping it loses the interaction's events"]
pub struct InteractionSubscription {
    /// The id of the interaction.
    pub id: InteractionId,
    /// The events of the interaction. They end with exactly one
    /// [`InteractionComplete`](AgentEvent::InteractionComplete) or
    /// [`InteractionFailed`](AgentEvent::InteractionFailed), even if the session ends; then the channel disconnects.
    ///
    /// The channel never makes the session wait. If 1,024 events are unread, one
    /// [`StreamTruncated`](AgentEvent::StreamTruncated) replaces all later events except the last.
    ///
    /// For threads of the host, and for a `select!`. An agent that follows an interaction of another session iterates
    /// over the subscription itself.
    pub events: Receiver<AgentEvent>,
}

/// Waits for the interaction's next event, or its end. On a session thread the turn gives its running permit back
/// during the wait, and a cancel of the turn ends the iteration. A cycle of waits through the other session is not
/// detected.
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

/// The reason why a message was not pushed into an inbox. Returns the message.
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
/// assert_eq!(error.into_body(), "second"); // to be injected again
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InjectError {
    /// The inbox has no room now.
    #[error("the inbox is full")]
    Full(String),
    /// The inbox of a closed or faulted session.
    #[error("the inbox is closed")]
    Closed(String),
    /// This injector does not support the call.
    #[error("not supported by this injector")]
    Unsupported,
}

impl InjectError {
    /// The message that was not pushed.
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
