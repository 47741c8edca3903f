//! Calls that start no turn: reads, lists, exports, the inbox, subscriptions, figures.

use std::time::{Duration, Instant};

use turnwise::{EventSource, Session, SessionQuery, SessionService, SessionSummary, Subscription};

use super::{inject_refused, refused, Client, Player, RawListing, Service, LONG};
use crate::agent::{figures_of, give_way, last_of, life_of, texts_of};
use crate::answers::{Figures, Refused, View};
use crate::history::{Counted, What, Who};
use crate::plan::{Patience, Script, Slot};
use crate::task::Task;

/// The shorter timeout of a wait until a session is idle.
const SHORT: Duration = Duration::from_micros(200);

impl Player<'_> {
    pub(super) fn read(&mut self, slot: Slot) {
        self.call(
            slot,
            |service, id| service.read(id),
            |answer| {
                What::Read(refused(answer.map(|view| View {
                    turns: view.state.turns,
                    queued: view.state.queued_turns,
                    state: view.state.state,
                    active: view.state.is_active,
                    figures: Figures {
                        messages: view.state.message_count,
                        tokens: view.billing.total_tokens,
                        last: last_of(view.state.last_assistant_text.as_deref()),
                    },
                })))
            },
        );
    }

    pub(super) fn list(&mut self, after: Option<Slot>, limit: Option<u8>) {
        let after = after.and_then(|slot| self.id(slot));
        let limit = limit.map(usize::from);
        let mut query = SessionQuery::new();
        (query.after, query.limit) = (after, limit);
        let call = self.now();
        let answer = refused(self.scene.service.list(query));
        let ret = self.now();
        let answer = answer.map(|entries| entries.iter().map(|entry| (entry.session_id, view_of(entry))).collect());
        let who = Who::Thread(self.number);
        self.notes.listings.push(RawListing { who, call, ret, after, limit, answer });
    }

    pub(super) fn export(&mut self, slot: Slot) {
        let mut kept = None;
        self.wait_call(
            slot,
            |service, id| service.export_session(id),
            |answer| {
                kept = answer.as_ref().ok().cloned();
                What::Export(refused(answer.map(|session| figures_of(&session))))
            },
        );
        self.kept = kept.or(self.kept.take());
    }

    pub(super) fn take(&mut self, slot: Slot) {
        let mut kept = None;
        self.wait_call(
            slot,
            |service, id| service.take_session(id, LONG),
            |answer| {
                kept = answer.as_ref().ok().cloned();
                What::Take(refused(answer.map(|session| figures_of(&session))))
            },
        );
        self.kept = kept.or(self.kept.take());
    }

    pub(super) fn inject(&mut self, slot: Slot, script: Script) {
        let task = Task { uid: self.uid(), script };
        let mut subscription = None;
        let inject = |service: &Service, id| {
            let injector = service.event_injector(id).ok_or(Refused::NotFound)?;
            let injected = injector.inject_with_subscription(task.to_string(), EventSource::Rpc);
            injected.map(|injected| subscription = Some(injected)).map_err(inject_refused)
        };
        self.call(slot, inject, |answer| What::Inject { dismissal: false, answer });
        self.notes.interactions.extend(subscription.map(|subscription| (task.uid, subscription)));
    }

    pub(super) fn dismiss(&mut self, slot: Slot) {
        let dismiss = |service: &Service, id| {
            let injector = service.event_injector(id).ok_or(Refused::NotFound)?;
            injector.dismiss(EventSource::Rpc).map_err(inject_refused)
        };
        self.call(slot, dismiss, |answer| What::Inject { dismissal: true, answer });
    }

    pub(super) fn subscribe(&mut self, slot: Slot, capacity: u8) {
        let mut stream = None;
        let options = Subscription::new().capacity(usize::from(capacity));
        self.call(
            slot,
            |service, id| service.subscribe(id, options),
            |answer| What::Subscribe(refused(answer.map(|subscribed| stream = Some(subscribed)))),
        );
        self.notes.streams.extend(stream);
    }

    /// Reads the history, subscribes from its boundary, and reads again. Both histories have to be of the same session: a
    /// later one may have the same id, and then the events do not belong to the first history.
    pub(super) fn follow(&mut self, slot: Slot) {
        let Some((history, seq)) = self.history(slot) else { return };
        let mut stream = None;
        let options = Subscription::new().from_seq(seq + 1).capacity(1 << 16);
        self.call(
            slot,
            |service, id| service.subscribe(id, options),
            |answer| What::Subscribe(refused(answer.map(|subscribed| stream = Some(subscribed)))),
        );
        let (Some(stream), Some((again, _))) = (stream, self.history(slot)) else { return };
        if let Some(life) = life_of(&history).filter(|life| life_of(&again) == Some(*life)) {
            self.notes.clients.push(Client { life, shown: texts_of(&history), seq, stream });
        }
    }

    fn history(&mut self, slot: Slot) -> Option<(Session, u64)> {
        let mut read = None;
        self.call(
            slot,
            |service, id| service.history_at(id),
            |answer| {
                let figures = refused(answer).map(|(history, seq)| (figures_of(&history), read = Some((history, seq))));
                What::History(figures.map(|(figures, ())| figures))
            },
        );
        read
    }

    pub(super) fn wait_idle(&mut self, slot: Slot, patience: Patience) {
        let timeout = match patience {
            Patience::None => Duration::ZERO,
            Patience::Short => SHORT,
            Patience::Long => LONG,
        };
        let mut ended = Ok(());
        let began = Instant::now();
        self.wait_call(
            slot,
            |service, id| service.wait_idle(id, timeout),
            |answer| {
                ended = refused(answer);
                What::WaitIdle(ended)
            },
        );
        if ended == Err(Refused::TimedOut) && began.elapsed() < timeout {
            self.scene.stage.wrong(format!("C53: a wait for an idle session ended before its timeout of {timeout:?}"));
        }
    }

    pub(super) fn stats(&mut self) {
        let call = self.now();
        let stats = self.scene.service.stats();
        self.count(call, Counted::Sessions(stats.sessions));
        self.count(call, Counted::RunningTurns(stats.running_turns));
    }

    pub(super) fn registrations(&mut self) {
        let call = self.now();
        let seen = self.scene.service.registered_sessions();
        self.count(call, Counted::Registered(seen));
        give_way(1);
        let call = self.now();
        let answer = self.scene.service.wait_session_registered(seen, Duration::ZERO);
        self.count(call, Counted::RegisteredAfter { seen, answer });
    }
}

/// The view in the entry of a list, which has no text.
fn view_of(entry: &SessionSummary) -> View {
    View {
        state: entry.state,
        active: entry.is_active,
        turns: entry.turns,
        queued: entry.queued_turns,
        figures: Figures { messages: entry.message_count, tokens: entry.total_tokens, last: 0 },
    }
}
