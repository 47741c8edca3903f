//! The spans of sessions and turns, with the feature `tracing`. Without it the types here are empty, and cost nothing.
//!
//! # Which span is entered
//!
//! | The session thread calls the agent for | Entered |
//! |---|---|
//! | a turn or an interaction, with the snapshot after it; the build for a first turn | the turn's span |
//! | a build without a turn, the first snapshot, the endpoints, an export, the drops at the end | the session's span |
//!
//! A span is entered for the length of such calls, and not in between: a session that waits for work is in none. During
//! a wait of the agent its turn's span stays entered, below the agent's own spans.
//!
//! The session's span is a root, and the turn's span is its child. Both parents are explicit. So they do not depend on
//! the span that is current on the thread, which may be one that an earlier agent has left entered. The turn's span
//! *follows from* the span that was current where the turn began, because the turn may outlive that one.
//!
//! **Invariants.** A span that is entered here is exited on the same thread, in the opposite order, also by an unwind.
//! The subscriber is foreign code: its panics are contained, and no lock is held while it runs.

#[cfg(feature = "tracing")]
pub(crate) use on::{CallerSpan, SessionSpan, TurnSpan};

#[cfg(not(feature = "tracing"))]
pub(crate) use off::{CallerSpan, SessionSpan, TurnSpan};

#[cfg(feature = "tracing")]
mod on {
    use tracing::{info_span, Span};

    use crate::model::{SessionId, TurnId};
    use crate::panics::contain_and_log;

    /// The span that is current where a turn begins, if there is one. In a box, since it moves with every turn, and few
    /// have one.
    #[derive(Debug)]
    pub(crate) struct CallerSpan(Option<Box<OwnSpan>>);

    /// The span of a session.
    #[derive(Debug)]
    pub(crate) struct SessionSpan(OwnSpan);

    /// The span of a turn.
    #[derive(Debug)]
    pub(crate) struct TurnSpan(OwnSpan);

    /// Exits the span when dropped.
    #[must_use = "dropping it exits the span"]
    pub(crate) struct Entered<'a> {
        span: Option<tracing::span::Entered<'a>>,
    }

    /// A share of a span. Its drop may close the span.
    #[derive(Debug)]
    struct OwnSpan(Span);

    const SUBSCRIBER: &str = "a subscriber of spans";

    /// Makes a span; none, if the subscriber panics.
    fn make(span: impl FnOnce() -> Span) -> OwnSpan {
        let mut made = Span::none();
        contain_and_log(SUBSCRIBER, || made = span());
        OwnSpan(made)
    }

    impl OwnSpan {
        fn enter(&self) -> Entered<'_> {
            let mut span = None;
            contain_and_log(SUBSCRIBER, || span = Some(self.0.enter()));
            Entered { span }
        }
    }

    impl CallerSpan {
        pub(crate) fn current() -> Self {
            let current = make(Span::current);
            Self(current.0.id().map(|_| Box::new(current)))
        }
    }

    impl SessionSpan {
        pub(crate) fn new(id: SessionId) -> Self {
            Self(make(|| info_span!(target: "turnwise::session", parent: None, "session", session_id = %id)))
        }

        pub(crate) fn enter(&self) -> Entered<'_> {
            self.0.enter()
        }
    }

    impl TurnSpan {
        pub(crate) fn new(session: &SessionSpan, id: SessionId, turn: TurnId, caller: CallerSpan) -> Self {
            let parent = &session.0 .0;
            let span = make(
                || info_span!(target: "turnwise::session", parent: parent, "turn", session_id = %id, turn_id = %turn),
            );
            if let Some(caller) = caller.0 {
                contain_and_log(SUBSCRIBER, || {
                    span.0.follows_from(&caller.0);
                });
            }
            Self(span)
        }

        pub(crate) fn enter(&self) -> Entered<'_> {
            self.0.enter()
        }

        pub(crate) fn span(&self) -> &Span {
            &self.0 .0
        }
    }

    impl Entered<'_> {
        /// Exits the span.
        pub(crate) fn exit(self) {
            // The drop exits it, on every other way out too.
            drop(self);
        }
    }

    impl Drop for Entered<'_> {
        fn drop(&mut self) {
            if let Some(span) = self.span.take() {
                contain_and_log(SUBSCRIBER, move || drop(span));
            }
        }
    }

    impl Drop for OwnSpan {
        fn drop(&mut self) {
            let span = std::mem::replace(&mut self.0, Span::none());
            contain_and_log(SUBSCRIBER, move || drop(span));
        }
    }
}

#[cfg(not(feature = "tracing"))]
mod off {
    use std::marker::PhantomData;

    use crate::model::{SessionId, TurnId};

    #[derive(Debug)]
    pub(crate) struct CallerSpan;

    #[derive(Debug)]
    pub(crate) struct SessionSpan;

    #[derive(Debug)]
    pub(crate) struct TurnSpan;

    #[must_use = "dropping it exits the span"]
    pub(crate) struct Entered<'a>(PhantomData<&'a ()>);

    impl Entered<'_> {
        #[inline(always)]
        pub(crate) fn exit(self) {}
    }

    impl CallerSpan {
        #[inline(always)]
        pub(crate) fn current() -> Self {
            Self
        }
    }

    impl SessionSpan {
        #[inline(always)]
        pub(crate) fn new(_: SessionId) -> Self {
            Self
        }

        #[inline(always)]
        pub(crate) fn enter(&self) -> Entered<'_> {
            Entered(PhantomData)
        }
    }

    impl TurnSpan {
        #[inline(always)]
        pub(crate) fn new(_: &SessionSpan, _: SessionId, _: TurnId, _: CallerSpan) -> Self {
            Self
        }

        #[inline(always)]
        pub(crate) fn enter(&self) -> Entered<'_> {
            Entered(PhantomData)
        }
    }
}
