//! Assembles the history of a run from the records of its threads and agents.

use std::collections::{HashMap, HashSet};

use turnwise::{AgentEvent, SessionEvent, SessionId, WhenBusy};

use crate::agent::{Stage, SAID};
use crate::answers::{Ending, Opened, Refused};
use crate::history::{Event, Followed, History, Key, Life, Listing, Stamp, Uid, What, Who, NEVER};
use crate::plan::{Plan, NAMED};
use crate::player::{Client, Notes, Scene};
use crate::task::Task;

/// Numbers the ids of a run.
#[derive(Default)]
struct Keys {
    keys: HashMap<SessionId, Key>,
    names: Vec<String>,
}

impl Keys {
    fn key(&mut self, id: SessionId) -> Key {
        let next = self.names.len();
        let names = &mut self.names;
        *self.keys.entry(id).or_insert_with(|| {
            let named = next < usize::from(NAMED);
            names.push(if named { format!("slot {next}") } else { format!("fresh {next}") });
            next
        })
    }
}

/// `heard`: the events that a subscriber of all sessions has got.
pub(crate) fn put_together(plan: &Plan, scene: &Scene, all: &mut [Notes], heard: &[SessionEvent]) -> History {
    let mut keys = Keys::default();
    for id in &scene.named {
        keys.key(*id);
    }
    let witnessed = std::mem::take(&mut *scene.stage.witnessed.lock().unwrap());
    let mut history = History {
        settings: plan.settings,
        names: Vec::new(),
        events: Vec::new(),
        listings: Vec::new(),
        counts: Vec::new(),
        lives: Vec::new(),
        results: Vec::new(),
        received: Vec::new(),
        started: Vec::new(),
        followed: Vec::new(),
    };
    let built: HashMap<Uid, SessionId> = witnessed
        .iter()
        .filter_map(|(id, event)| match event.what {
            What::BuildBegins { uid } => Some((uid, *id)),
            _ => None,
        })
        .collect();
    for (id, event) in all.iter_mut().flat_map(|notes| notes.events.drain(..)) {
        let of_agent = || event.what.creates().and_then(|uid| built.get(&uid).copied());
        // Without an id no session was registered.
        history.events.extend(id.or_else(of_agent).map(|id| (keys.key(id), event)));
    }
    history.events.extend(witnessed.into_iter().map(|(id, event)| (keys.key(id), event)));
    for notes in all.iter_mut() {
        history.counts.append(&mut notes.counts);
        history.results.append(&mut notes.results);
        history.followed.extend(notes.clients.drain(..).map(|client| followed(client, &scene.stage)));
        history.received.extend(notes.watched.iter().map(|(uid, events)| (*uid, !events.is_empty())));
        for listing in notes.listings.drain(..) {
            let answer =
                listing.answer.map(|entries| entries.into_iter().map(|(id, view)| (keys.key(id), view)).collect());
            let after = listing.after.map(|id| keys.key(id));
            let (call, ret, limit) = (listing.call, listing.ret, listing.limit);
            history.listings.push(Listing { who: listing.who, call, ret, after, limit, answer });
        }
    }
    for event in all.iter().flat_map(|notes| &notes.shutdowns) {
        history.events.extend((0..keys.names.len()).map(|key| (key, *event)));
    }
    history.started = heard.iter().filter_map(|event| Some((keys.key(event.session_id), started(event)?))).collect();
    history.names = keys.names;
    history.tell_refusals_apart();
    history.lives = history.find_lives();
    history
}

/// What a client has shown by the end of the run.
fn followed(client: Client, stage: &Stage) -> Followed {
    let Client { life, shown, seq, stream } = client;
    let whole = stage.whole.lock().unwrap().get(&life).cloned();
    let dropped = stream.dropped();
    let said = |event: &SessionEvent| match &event.event {
        AgentEvent::Custom { name, payload } if name == SAID => Some(payload.clone()),
        _ => None,
    };
    let events = std::iter::from_fn(|| stream.try_recv().ok()).map(|event| (event.seq, said(&event))).collect();
    Followed { whole, shown, seq, events, dropped }
}

/// The turn that has started with this event.
fn started(event: &SessionEvent) -> Option<Uid> {
    match &event.event {
        AgentEvent::RunStarted { prompt, .. } => prompt.parse().ok().map(|task: Task| task.uid),
        _ => None,
    }
}

impl History {
    /// Separates calls that were refused from calls whose turn or build failed, where the answer is the same. The
    /// agent's records decide. For turns that may queue they do not: the model decides.
    fn tell_refusals_apart(&mut self) {
        let (mut ran, mut built) = (HashSet::new(), HashSet::new());
        for (_, event) in &self.events {
            match event.what {
                What::Enter { uid, .. } => drop(ran.insert(uid)),
                What::BuildBegins { uid } => drop(built.insert(uid)),
                _ => {}
            }
        }
        let panicked: HashSet<Uid> =
            self.results.iter().filter(|(_, ending)| *ending == Ending::Panicked).map(|(uid, _)| *uid).collect();
        let mut refused = HashSet::new();
        for (_, event) in &mut self.events {
            match &mut event.what {
                What::Turn { uid, when_busy: WhenBusy::Refuse, answer, .. }
                    if answer.is_ok_and(|begun| begun.ended) && panicked.contains(uid) && !ran.contains(uid) =>
                {
                    *answer = Err(Refused::Faulted);
                    refused.insert(*uid);
                }
                What::Open { uid, answer, .. } => {
                    if let Err(Opened::Refused(closed)) = *answer {
                        if built.contains(uid) {
                            *answer = Err(Opened::Closed(closed));
                        }
                    }
                }
                _ => {}
            }
        }
        self.results.retain(|(uid, _)| !refused.contains(uid));
    }

    /// Whether turn `uid` was accepted.
    pub(crate) fn has_accepted(&self, uid: Uid) -> bool {
        self.events.iter().any(|(_, event)| match event.what {
            What::Turn { uid: other, answer: Ok(_), .. } | What::Create { uid: other, answer: Ok(_), .. } => {
                other == uid
            }
            _ => false,
        })
    }

    /// Whether turn `uid` may have waited in the queue, and left it without being run.
    pub(crate) fn may_be_withdrawn(&self, uid: Uid) -> bool {
        let runs = |what: &What| matches!(what, What::Enter { uid: other, .. } if *other == uid);
        let may_queue = |what: &What| matches!(what, What::Turn { uid: other, when_busy, .. } if *other == uid && *when_busy != WhenBusy::Refuse);
        let any = |is: &dyn Fn(&What) -> bool| self.events.iter().any(|(_, event)| is(&event.what));
        any(&may_queue) && !any(&runs)
    }

    /// The fewest and the most turns that were accepted. Of a call that waits, a refusal by a faulted session looks like
    /// a fault that ends the queue.
    pub(crate) fn accepted_turns(&self) -> (u64, u64) {
        let results: HashMap<Uid, Ending> = self.results.iter().copied().collect();
        let (mut certain, mut possible) = (0, 0);
        for (_, event) in &self.events {
            match event.what {
                What::Create { answer: Ok(_), .. } => certain += 1,
                What::Turn { uid, answer: Ok(begun), .. } => {
                    let is_open = begun.ended && results.get(&uid) == Some(&Ending::Panicked);
                    *(if is_open && self.may_be_withdrawn(uid) { &mut possible } else { &mut certain }) += 1;
                }
                _ => {}
            }
        }
        (certain, certain + possible)
    }

    /// The stamps between which each session certainly or possibly held capacity.
    fn find_lives(&self) -> Vec<Life> {
        let mut lives: Vec<Life> = Vec::new();
        for (key, event) in &self.events {
            let uid = match event.what {
                What::Create { uid, answer: Ok(_), .. } => uid,
                What::Open { uid, answer: Ok(()) | Err(Opened::Closed(_) | Opened::NotBuilt), .. } => uid,
                _ => continue,
            };
            let mut of_agent = self.agent_of(*key, uid);
            let begins = of_agent.next().map_or(NEVER, |event| event.call);
            let gone = of_agent.find(|event| matches!(event.what, What::Dropped | What::BuildEnds { well: false, .. }));
            lives.push(Life {
                key: *key,
                created_after: event.call,
                created_before: event.ret.min(begins),
                released_after: gone.map_or(NEVER, |event| event.ret),
                released_before: NEVER,
            });
        }
        let until: Vec<Stamp> = lives.iter().map(|life| self.gone_by(life, &lives)).collect();
        lives.iter_mut().zip(until).for_each(|(life, until)| life.released_before = until);
        lives
    }

    /// The records of the agent that creation `uid` has built, in order.
    fn agent_of(&self, key: Key, uid: Uid) -> impl Iterator<Item = &Event> {
        let mut of_agents: Vec<&Event> =
            self.events.iter().filter(|(other, _)| *other == key).map(|(_, event)| event).collect();
        of_agents.retain(|event| event.who == Who::Agent);
        of_agents.sort_by_key(|event| event.call);
        let mut rest =
            of_agents.into_iter().skip_while(move |event| event.what != (What::BuildBegins { uid })).peekable();
        let first = rest.next();
        first.into_iter().chain(rest.take_while(|event| !matches!(event.what, What::BuildBegins { .. })))
    }

    /// The earliest stamp at which an answer shows that the session has ended.
    fn gone_by(&self, life: &Life, lives: &[Life]) -> Stamp {
        let told = self.events.iter().filter(|(key, _)| *key == life.key).filter_map(|(_, event)| match event.what {
            What::Shutdown { timed_out: false, .. } => Some(event.ret),
            What::ArchiveWait(Ok(())) | What::Take(Ok(_)) if event.call > life.created_before => Some(event.ret),
            _ => None,
        });
        let next = lives.iter().filter(|other| other.key == life.key && other.created_after > life.created_before);
        let next = next.map(|other| other.created_before);
        told.chain(next).filter(|stamp| *stamp > life.created_before).min().unwrap_or(NEVER)
    }
}
