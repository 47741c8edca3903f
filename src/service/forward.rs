//! Forwards every method of `SessionService`, the provided ones too, so that the inner service's own versions are
//! called.

/// The body of a forwarding implementation: `forward_session_service!(self => self.inner)`.
///
/// With `but_handles` in front it has no method that returns a handle or a stream, for a service that changes those.
macro_rules! forward_session_service {
    ($this:ident => $target:expr) => {
        forward_session_service!(but_handles $this => $target);
        forward_session_service!(@methods $this, $target;
            fn begin_session(request: CreateSessionRequest) -> Result<TurnHandle, SessionError>;
            fn begin_turn(id: SessionId, request: StartTurnRequest) -> Result<TurnHandle, SessionError>;
            fn try_begin_turn(id: SessionId, request: StartTurnRequest)
                -> Result<TurnHandle, $crate::service::RefusedTurn>;
            fn stream_session(request: CreateSessionRequest) -> Result<TurnStream, SessionError>;
            fn stream_turn(id: SessionId, request: StartTurnRequest) -> Result<TurnStream, SessionError>;
            fn subscribe(id: SessionId, options: Subscription) -> Result<EventStream, SessionError>;
        );
    };
    (but_handles $this:ident => $target:expr) => {
        forward_session_service!(@methods $this, $target;
            fn create_session(request: CreateSessionRequest) -> Result<RunResult, SessionError>;
            fn start_turn(id: SessionId, request: StartTurnRequest) -> Result<RunResult, SessionError>;
            fn create_session_with(request: CreateSessionRequest, on_event: &mut dyn FnMut(AgentEvent))
                -> Result<RunResult, SessionError>;
            fn start_turn_with(id: SessionId, request: StartTurnRequest, on_event: &mut dyn FnMut(AgentEvent))
                -> Result<RunResult, SessionError>;
            fn archive(id: SessionId) -> Result<(), SessionError>;
            fn export_session(id: SessionId) -> Result<Session, SessionError>;
            fn interrupt(id: SessionId) -> Result<(), SessionError>;
            fn interrupt_turn(id: SessionId, turn: TurnId) -> Result<(), SessionError>;
            fn interrupt_interaction(id: SessionId, interaction: InteractionId) -> Result<(), SessionError>;
            fn respond(id: SessionId, input: $crate::model::InputId, response: $crate::model::InputResponse)
                -> Result<(), SessionError>;
            fn pending_inputs(id: SessionId) -> Result<Vec<$crate::model::PendingInput>, SessionError>;
            fn steer(id: SessionId, turn: Option<TurnId>, content: $crate::model::InteractionContent)
                -> Result<$crate::inbox::injector::InteractionSubscription, SessionError>;
            fn read(id: SessionId) -> Result<SessionView, SessionError>;
            fn history(id: SessionId) -> Result<Session, SessionError>;
            fn history_at(id: SessionId) -> Result<(Session, u64), SessionError>;
            fn list(query: SessionQuery) -> Result<Vec<SessionSummary>, SessionError>;
            fn set_labels(id: SessionId, labels: std::collections::BTreeMap<String, String>)
                -> Result<(), SessionError>;
            fn archive_with(id: SessionId, mode: ArchiveMode) -> Result<(), SessionError>;
            fn event_injector(id: SessionId) -> Option<Arc<dyn SubscribableInjector>>;
            fn comms_runtime(id: SessionId) -> Option<Arc<dyn CommsRuntime>>;
            fn open_session(spec: SessionSpec) -> Result<SessionId, SessionError>;
            fn export_session_timeout(id: SessionId, timeout: Duration) -> Result<Session, SessionError>;
            fn archive_wait(id: SessionId, timeout: Duration) -> Result<(), SessionError>;
            fn wait_idle(id: SessionId, timeout: Duration) -> Result<(), SessionError>;
            fn restart(id: SessionId, timeout: Duration) -> Result<(), SessionError>;
            fn take_session(id: SessionId, timeout: Duration) -> Result<Session, SessionError>;
        );
    };
    (@methods $this:ident, $target:expr; $(fn $name:ident($($arg:ident: $type:ty),*) -> $out:ty;)*) => {
        $(#[allow(clippy::result_large_err)] // See `try_begin_turn`.
        fn $name(&$this, $($arg: $type),*) -> $out {
            $target.$name($($arg),*)
        })*
    };
}

pub(crate) use forward_session_service;
