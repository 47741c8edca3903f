//! A feed: events that a worker passes on to a client in batches, and the credit that the client gives for them.
//!
//! A batch has the epoch of its worker, and the number of its first event within that epoch. A worker repeats a batch
//! whose answer it did not get, and a worker that has lost the session may still send. So the client drops what it has
//! seen, and all that is of an earlier epoch. What is missing it reports, since no worker sends it again. A batch without
//! events may tell it that events are missing, for the case that none follow.

use serde::de::DeserializeOwned;

use crate::cluster::messages::{cost, WINDOW};
use crate::cluster::wire::Entry;

/// Some events of a feed, as JSON.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Batch {
    epoch: u64,
    first: u64,
    count: u64,
    /// Whether no more events follow.
    is_last: bool,
    body: Vec<u8>,
}

/// What a batch brings.
pub(super) struct Received<E> {
    /// Whether events before these are missing, or may be.
    pub(super) is_truncated: bool,
    /// The events that were not seen before, with their costs.
    pub(super) events: Vec<(E, u64)>,
    pub(super) is_last: bool,
}

/// How far a feed was read.
#[derive(Default)]
pub(super) struct Feed {
    /// 0 before the first batch. The epochs of sessions begin with 1.
    epoch: u64,
    /// How many events of the epoch were seen, or are missing.
    seen: u64,
    credit: Credit,
    /// Whether missing events were the last that was reported, with no event since.
    has_told_gap: bool,
}

/// How much of a feed the worker may send, in one epoch.
struct Credit {
    /// The costs of the events that were read.
    consumed: u64,
    /// The sum of costs up to which the worker may send.
    granted: u64,
}

impl Default for Credit {
    fn default() -> Self {
        Self { consumed: 0, granted: WINDOW }
    }
}

impl Credit {
    /// An event was read. Returns the new sum, if it is time to tell the worker.
    fn consume(&mut self, cost: u64) -> Option<u64> {
        self.consumed = self.consumed.saturating_add(cost);
        let next = self.consumed.saturating_add(WINDOW);
        if next - self.granted.min(next) < WINDOW / 4 {
            return None;
        }
        self.granted = next;
        Some(next)
    }

    /// Events are missing, and their costs are not known. The worker has not sent more than it was granted, so that much
    /// counts as read. With less the worker would wait for a credit that never comes.
    fn skip(&mut self) {
        self.consumed = self.consumed.max(self.granted);
    }
}

impl Batch {
    /// Reads the fields of an entry behind the name of the feed. `None` if they are not those of a batch.
    pub(super) fn read(entry: Entry) -> Option<Self> {
        let mut fields = entry.into_iter().skip(2);
        let mut field = |name: &[u8]| fields.next().filter(|found| found == name).and_then(|_| fields.next());
        let epoch = number(&field(b"epoch")?)?;
        let first = number(&field(b"first")?)?;
        let count = number(&field(b"count")?)?;
        let is_last = field(b"last")? == b"1";
        Some(Self { epoch, first, count, is_last, body: field(b"body")? })
    }
}

impl Feed {
    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Takes a batch in. `None` if it is of an earlier epoch.
    pub(super) fn receive<E: DeserializeOwned>(&mut self, batch: &Batch) -> Option<Received<E>> {
        if batch.epoch < self.epoch {
            return None;
        }
        let is_next_epoch = batch.epoch > self.epoch && self.epoch > 0;
        if batch.epoch > self.epoch {
            *self = Self { epoch: batch.epoch, has_told_gap: self.has_told_gap, ..Self::default() };
        }
        let seen_before = (self.seen + 1).saturating_sub(batch.first).min(batch.count);
        let is_missing = batch.first > self.seen + 1;
        self.seen = self.seen.max(batch.first.saturating_sub(1).saturating_add(batch.count));
        let bodies = elements(&batch.body).filter(|bodies| bodies.len() as u64 == batch.count);
        let is_damaged = bodies.is_none();
        let mut events = Vec::new();
        let mut is_unreadable = false;
        for body in bodies.unwrap_or_default().into_iter().skip(usize::try_from(seen_before).unwrap_or(usize::MAX)) {
            match serde_json::from_slice(body) {
                Ok(event) => events.push((event, cost(body.len()))),
                // Of a later version of this crate.
                Err(_) => is_unreadable = true,
            }
        }
        if is_missing || is_damaged || is_unreadable {
            self.credit.skip();
        }
        // The end of a feed may have a later epoch than its events.
        let has_gap = (is_next_epoch && batch.count > 0) || is_missing || is_damaged || is_unreadable;
        // Once for all that is missing at one place.
        let is_truncated = has_gap && !self.has_told_gap;
        self.has_told_gap = (has_gap || self.has_told_gap) && events.is_empty();
        Some(Received { is_truncated, events, is_last: batch.is_last })
    }

    /// An event was read. Returns the new sum of costs up to which the worker may send, if it is time to tell it.
    pub(super) fn consume(&mut self, cost: u64) -> Option<u64> {
        self.credit.consume(cost)
    }
}

/// The elements of a JSON array, each as it stands in the text: its length is its cost for the worker too.
fn elements(array: &[u8]) -> Option<Vec<&[u8]>> {
    let inner = array.trim_ascii().strip_prefix(b"[")?.strip_suffix(b"]")?;
    let (mut found, mut depth, mut start) = (Vec::new(), 0_usize, 0);
    let (mut in_text, mut is_escaped) = (false, false);
    for (at, &byte) in inner.iter().enumerate() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if in_text => is_escaped = true,
            b'"' => in_text = !in_text,
            _ if in_text => {}
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.checked_sub(1)?,
            b',' if depth == 0 => {
                found.push(&inner[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    let last = &inner[start..];
    if !(found.is_empty() && last.trim_ascii().is_empty()) {
        found.push(last);
    }
    (depth == 0 && !in_text).then_some(found)
}

pub(super) fn number(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::AgentEvent;

    fn batch(epoch: u64, first: u64, events: &[AgentEvent], is_last: bool) -> Batch {
        let body = serde_json::to_vec(events).unwrap();
        Batch { epoch, first, count: events.len() as u64, is_last, body }
    }

    fn delta(text: &str) -> AgentEvent {
        AgentEvent::TextDelta { delta: text.into() }
    }

    fn texts(received: &Received<AgentEvent>) -> Vec<&str> {
        let text = |(event, _): &'_ (AgentEvent, u64)| match event {
            AgentEvent::TextDelta { .. } => (),
            other => panic!("{other:?}"),
        };
        received.events.iter().for_each(text);
        received
            .events
            .iter()
            .map(|(event, _)| if let AgentEvent::TextDelta { delta } = event { delta } else { "" })
            .collect()
    }

    #[test]
    fn c85_a_batch_is_read_from_the_fields_of_its_entry() {
        let entry = |text: &str| text.split(' ').map(|word| word.as_bytes().to_vec()).collect::<Entry>();
        let read = Batch::read(entry("events f epoch 3 first 1 count 1 last 1 body [1]")).unwrap();
        assert!(read == Batch { epoch: 3, first: 1, count: 1, is_last: true, body: b"[1]".to_vec() });
        assert!(Batch::read(entry("events f epoch 3 first 1 count 1 last 1")).is_none());
        assert!(Batch::read(entry("events f epoch three first 1 count 1 last 1 body [1]")).is_none());
    }

    #[test]
    fn c85_repeated_events_are_dropped_and_missing_ones_reported() {
        let mut feed = Feed::default();
        let mut receive = |batch: Batch| feed.receive::<AgentEvent>(&batch);
        let first = receive(batch(4, 1, &[delta("a"), delta("b")], false)).unwrap();
        assert_eq!((texts(&first), first.is_truncated, first.is_last), (vec!["a", "b"], false, false));
        let repeated = receive(batch(4, 1, &[delta("a"), delta("b")], false)).unwrap();
        assert!(repeated.events.is_empty() && !repeated.is_truncated);
        let overlapping = receive(batch(4, 2, &[delta("b"), delta("c")], false)).unwrap();
        assert_eq!((texts(&overlapping), overlapping.is_truncated), (vec!["c"], false));
        let behind_a_gap = receive(batch(4, 6, &[delta("f")], false)).unwrap();
        assert_eq!((texts(&behind_a_gap), behind_a_gap.is_truncated), (vec!["f"], true));
        let last = receive(batch(4, 7, &[], true)).unwrap();
        assert!(last.is_last && last.events.is_empty() && !last.is_truncated);
    }

    #[test]
    fn c85_events_of_an_earlier_epoch_are_dropped_and_a_later_one_reported() {
        let mut feed = Feed::default();
        assert!(!feed.receive::<AgentEvent>(&batch(4, 1, &[delta("a")], false)).unwrap().is_truncated);
        let next = feed.receive(&batch(6, 1, &[delta("b")], false)).unwrap();
        assert_eq!((texts(&next), next.is_truncated, feed.epoch()), (vec!["b"], true, 6));
        assert!(feed.receive::<AgentEvent>(&batch(4, 2, &[delta("c")], true)).is_none());
        let same = feed.receive(&batch(6, 2, &[delta("d")], false)).unwrap();
        assert_eq!((texts(&same), same.is_truncated), (vec!["d"], false));
    }

    #[test]
    fn c85_missing_events_are_reported_once_also_if_none_follow() {
        let gap = |epoch, first| Batch { epoch, first, count: 0, is_last: false, body: b"[]".to_vec() };
        let mut feed = Feed::default();
        assert!(!feed.receive::<AgentEvent>(&batch(1, 1, &[delta("a")], false)).unwrap().is_truncated);
        assert!(!feed.receive::<AgentEvent>(&gap(1, 2)).unwrap().is_truncated, "nothing is missing");
        assert!(feed.receive::<AgentEvent>(&gap(1, 5)).unwrap().is_truncated);
        assert!(!feed.receive::<AgentEvent>(&gap(1, 1 << 53)).unwrap().is_truncated);
        let next = feed.receive(&batch(2, 1, &[delta("b")], false)).unwrap();
        assert_eq!((texts(&next), next.is_truncated), (vec!["b"], false));
        assert!(feed.receive::<AgentEvent>(&batch(3, 1, &[delta("c")], true)).unwrap().is_truncated);
    }

    #[test]
    fn c85_credit_is_given_by_quarters_of_the_window_and_begins_again_with_an_epoch() {
        let mut feed = Feed::default();
        feed.receive::<AgentEvent>(&batch(1, 1, &[delta("a")], false));
        assert_eq!(feed.consume(WINDOW / 8), None);
        assert_eq!(feed.consume(WINDOW / 8), Some(WINDOW / 4 + WINDOW));
        assert_eq!(feed.consume(WINDOW / 4 - 1), None);
        assert_eq!(feed.consume(1), Some(WINDOW / 2 + WINDOW));
        feed.receive::<AgentEvent>(&batch(2, 1, &[delta("a")], false));
        assert_eq!(feed.consume(WINDOW / 4), Some(WINDOW / 4 + WINDOW));
    }

    #[test]
    fn c85_a_gap_does_not_hold_up_the_worker_for_ever() {
        let mut feed = Feed::default();
        // All that it may send is lost, but for the last event: it waits for a higher sum than it was granted.
        feed.receive::<AgentEvent>(&batch(1, 1_000, &[delta("a")], false));
        assert!(feed.consume(cost(1)).is_some_and(|sum| sum >= 2 * WINDOW));
    }

    #[test]
    fn c85_an_event_that_cannot_be_read_is_reported_and_the_others_are_not_lost() {
        let body =
            br#"[{"type":"text_delta","delta":"a"},{"type":"of_a_later_version"},{"type":"text_delta","delta":"b"}]"#;
        let batch = Batch { epoch: 1, first: 1, count: 3, is_last: false, body: body.to_vec() };
        let received = Feed::default().receive(&batch).unwrap();
        assert_eq!((texts(&received), received.is_truncated), (vec!["a", "b"], true));
    }

    #[test]
    fn c85_the_elements_of_an_array_stand_as_they_were_sent() {
        let parts = |text: &'static str| {
            let parts = elements(text.as_bytes())?;
            Some(parts.into_iter().map(|part| std::str::from_utf8(part).unwrap()).collect::<Vec<_>>())
        };
        assert_eq!(parts("[]"), Some(vec![]));
        assert_eq!(
            parts(r#"[{"a":[1,2],"b":"x,]}\"\\"},"y",3]"#),
            Some(vec![r#"{"a":[1,2],"b":"x,]}\"\\"}"#, r#""y""#, "3"])
        );
        assert_eq!([parts("[{]"), parts("[\"]"), parts("1"), parts("[}]")], [None, None, None, None]);
    }
}
