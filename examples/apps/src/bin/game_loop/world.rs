//! The world: who is there, who talks, what happens next. Nothing here ever waits.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use std::time::Duration;

use turnwise::crossbeam_channel::TryRecvError;
use turnwise::{
    AgentEvent, ArchiveMode, CreateSessionRequest, EphemeralSessionService, EventStream, RunResult, SessionError,
    SessionId, SessionService, SessionSpec, StartTurnRequest, Subscription, TurnHandle, TurnStream,
};
use turnwise_apps::say::say;

use crate::frames::{Meter, FRAME};
use crate::minds::{dice, Minds, NAME, ROLES};

/// How long characters may take to end when the world does.
const GRACE: Duration = Duration::from_secs(5);
/// What the story's dice are rolled for; the characters' own come before.
const STORY: u64 = 1_000;

pub(crate) struct World {
    service: EphemeralSessionService<Minds>,
    /// Everything that happens, whoever began it.
    everything: EventStream,
    characters: Vec<Character>,
    /// With those who have left, and are still answering.
    farewells: Vec<Conversation>,
    /// Whom the player has spoken to last.
    beside: Option<usize>,
    questions: Arc<AtomicU64>,
    seed: u64,
    counts: Counts,
    says: bool,
}

/// One of the five; `id` is `None` while it is away.
struct Character {
    id: Option<SessionId>,
    conversation: Option<Conversation>,
}

/// A turn that the game has begun.
struct Conversation {
    who: usize,
    talk: Talk,
}

enum Talk {
    /// The first turn, while the character is built too: only its end is of interest.
    Awaking(TurnHandle),
    /// The player listens, word by word. A frame reads all that there is, so the stream never gets full.
    Speaking(TurnStream),
}

impl Talk {
    fn turn(&self) -> &TurnHandle {
        match self {
            Self::Awaking(turn) => turn,
            Self::Speaking(stream) => stream.handle(),
        }
    }
}

#[derive(Default)]
struct Counts {
    created: u64,
    archived: u64,
    /// A character wanted to come back before its place was free.
    no_room: u64,
    begun: u64,
    completed: u64,
    interrupted: u64,
    cut_off: u64,
    failed: u64,
    /// The player has spoken to somebody who was busy, or away.
    unheard: u64,
    /// Turns whose words the player listens to.
    listened: u64,
    interrupts: u64,
    own_events: u64,
    events: u64,
}

/// What the story has in store for a frame.
enum Deed {
    Speak(usize),
    WalkAway,
    Leave(usize, ArchiveMode),
}

/// By the seed and the frame alone. What has become of earlier deeds by then is a matter of time.
fn deed(seed: u64, frame: u64) -> Option<Deed> {
    let mut dice = dice(seed, STORY, frame);
    let who = dice.between(0..ROLES.len() as u64) as usize;
    match frame % 60 {
        50 if dice.between(0..2) == 0 => Some(Deed::Leave(who, ArchiveMode::Drain)),
        50 => Some(Deed::Leave(who, ArchiveMode::Interrupt)),
        phase if phase % 10 == 5 => Some(Deed::Speak(who)),
        phase if phase % 10 == 9 && dice.between(0..3) == 0 => Some(Deed::WalkAway),
        _ => None,
    }
}

impl World {
    pub(crate) fn new(seed: u64, says: bool) -> Result<Self, String> {
        let questions = Arc::new(AtomicU64::new(0));
        let minds = Minds { seed, questions: Arc::clone(&questions) };
        // No more places than characters: who comes back has to wait until its old self is gone.
        let config = EphemeralSessionService::configure(minds)
            .max_sessions(ROLES.len())
            .stack_size(256 << 10)
            .thread_name_prefix("mind");
        let service = config.build().map_err(|error| error.to_string())?;
        // What is said in a frame is read in the next; a frame has nowhere near as many events.
        let everything = service.subscribe_all(Subscription::new().capacity(10_000));
        let characters = ROLES.iter().map(|_| Character { id: None, conversation: None }).collect();
        let (farewells, beside, counts) = (Vec::new(), None, Counts::default());
        Ok(Self { service, everything, characters, farewells, beside, questions, seed, counts, says })
    }

    /// Everything that one frame does.
    pub(crate) fn step(&mut self, frame: u64, meter: &mut Meter) {
        self.let_one_in(frame, meter);
        match deed(self.seed, frame) {
            Some(Deed::Speak(who)) => self.speak(who, frame, meter),
            Some(Deed::WalkAway) => self.walk_away(frame, meter),
            Some(Deed::Leave(who, mode)) => self.leave(who, mode, frame, meter),
            None => {}
        }
        self.listen(frame, meter);
        self.counts.events += meter.call("try_iter", || self.everything.events().try_iter().count()) as u64;
    }

    fn say(&self, frame: u64, who: usize, what: &str) {
        if self.says {
            say(format_args!("{:7.2} s  {:<5} {what}", (FRAME * frame as u32).as_secs_f64(), ROLES[who].name));
        }
    }

    /// One at a time: a session's thread is started on this one.
    fn let_one_in(&mut self, frame: u64, meter: &mut Meter) {
        let Some(who) = self.characters.iter().position(|character| character.id.is_none()) else { return };
        let spec = SessionSpec::new().label(NAME, ROLES[who].name);
        let request = CreateSessionRequest::new("good morning").session(spec);
        match meter.call("begin_session", || self.service.begin_session(request)) {
            Ok(turn) => {
                self.counts.created += 1;
                self.counts.begun += 1;
                self.say(frame, who, "comes in");
                self.characters[who].id = Some(turn.session_id());
                self.characters[who].conversation = Some(Conversation { who, talk: Talk::Awaking(turn) });
            }
            // Its place is taken until its old self is gone: in the next frame, perhaps.
            Err(SessionError::CapacityExceeded { .. }) => self.counts.no_room += 1,
            Err(error) => self.say(frame, who, &error.to_string()),
        }
    }

    fn speak(&mut self, who: usize, frame: u64, meter: &mut Meter) {
        let Some(id) = self.characters[who].id else {
            self.counts.unheard += 1;
            return;
        };
        let request = StartTurnRequest::new("what news?");
        match meter.call("stream_turn", || self.service.stream_turn(id, request)) {
            Ok(stream) => {
                self.counts.begun += 1;
                self.counts.listened += 1;
                self.beside = Some(who);
                self.say(frame, who, "is asked for news");
                // The session is free, so the last result is there, and may not have been seen yet.
                let talk = Talk::Speaking(stream);
                let last = self.characters[who].conversation.replace(Conversation { who, talk });
                self.farewells.extend(last);
            }
            // Still in the last conversation, or in one with another character.
            Err(error) => {
                self.counts.unheard += 1;
                self.say(frame, who, &format!("does not hear it ({})", error.code()));
            }
        }
    }

    /// The player walks away: whoever is speaking stops.
    fn walk_away(&mut self, frame: u64, meter: &mut Meter) {
        let Some(who) = self.beside.take() else { return };
        let Some(Conversation { talk, .. }) = &self.characters[who].conversation else { return };
        self.counts.interrupts += 1;
        meter.call("interrupt", || talk.turn().interrupt());
        self.say(frame, who, "is left standing");
    }

    fn leave(&mut self, who: usize, mode: ArchiveMode, frame: u64, meter: &mut Meter) {
        let Some(id) = self.characters[who].id.take() else { return };
        self.counts.archived += 1;
        let archived = meter.call("archive", || self.service.archive_with(id, mode));
        self.say(frame, who, archived.map_or("has left already", |()| "leaves"));
        self.farewells.extend(self.characters[who].conversation.take());
        // Whoever comes back in its place has not been spoken to.
        self.beside = self.beside.filter(|beside| *beside != who);
    }

    /// What has been said since the last frame.
    fn listen(&mut self, frame: u64, meter: &mut Meter) {
        let talking = self.characters.iter_mut().filter_map(|character| character.conversation.take());
        for conversation in talking.chain(std::mem::take(&mut self.farewells)).collect::<Vec<_>>() {
            if let Some(going_on) = self.hear(conversation, frame, meter) {
                let character = &mut self.characters[going_on.who];
                if character.id == Some(going_on.talk.turn().session_id()) && character.conversation.is_none() {
                    character.conversation = Some(going_on);
                } else {
                    self.farewells.push(going_on);
                }
            }
        }
    }

    /// The conversation again, if it goes on.
    fn hear(&mut self, conversation: Conversation, frame: u64, meter: &mut Meter) -> Option<Conversation> {
        let Conversation { who, talk } = conversation;
        let result = match talk {
            Talk::Awaking(mut turn) => match meter.call("try_wait", || turn.try_wait()) {
                Some(result) => result,
                None => return Some(Conversation { who, talk: Talk::Awaking(turn) }),
            },
            Talk::Speaking(stream) => {
                if !self.hear_words(who, &stream, frame, meter) {
                    return Some(Conversation { who, talk: Talk::Speaking(stream) });
                }
                // The stream has ended, so the result is there.
                meter.call("wait", || stream.wait())
            }
        };
        let end = self.counts.note(&result);
        self.say(frame, who, end);
        None
    }

    /// What there is to be heard now. Whether that was the last of it.
    fn hear_words(&mut self, who: usize, stream: &TurnStream, frame: u64, meter: &mut Meter) -> bool {
        let mut words = Vec::new();
        let is_over = loop {
            match meter.call("try_recv", || stream.try_recv()) {
                Ok(event) => {
                    self.counts.own_events += 1;
                    if let AgentEvent::TextDelta { delta } = event {
                        words.push(delta);
                    }
                }
                Err(TryRecvError::Empty) => break false,
                Err(TryRecvError::Disconnected) => break true,
            }
        };
        if !words.is_empty() {
            self.say(frame, who, &words.join(" "));
        }
        is_over
    }

    /// After the last frame: everybody goes home, and what was still to be said is heard.
    pub(crate) fn end(&mut self, frames: u64) -> bool {
        let at_the_end = self.characters.iter().filter(|character| character.id.is_some()).count();
        let report = self.service.shutdown(GRACE);
        let mut meter = Meter::default();
        self.listen(frames, &mut meter);
        self.counts.events += self.everything.events().try_iter().count() as u64;
        let (stats, asked) = (self.service.stats(), self.questions.load(Ordering::SeqCst));
        let Counts { created, archived, no_room, begun, completed, interrupted, cut_off, failed, .. } = self.counts;
        let Counts { unheard, listened, interrupts, events, own_events, .. } = self.counts;
        let (all, missed, stuck) = (stats.turns_ended(), self.everything.dropped(), report.stuck.len());
        let lines = [
            format!(
                "sessions: {created} created, {archived} archived, {at_the_end} at the end, {no_room} times no room"
            ),
            format!(
                "turns: {begun} begun, {listened} listened to, {completed} completed, {interrupted} interrupted, {cut_off} cut off, \
                 {failed} failed; {unheard} times unheard"
            ),
            format!("interrupts: {interrupts}"),
            format!("questions: {asked} among characters; {all} turns in all"),
            format!("events: {events} seen, {own_events} of them in streams of turns, {missed} missed"),
            format!("stuck: {stuck}"),
        ];
        say(lines.join("\n"));
        report.stuck.is_empty()
    }
}

impl Counts {
    /// Counts the end of a turn, and says how it was.
    fn note(&mut self, result: &Result<RunResult, SessionError>) -> &'static str {
        use turnwise::CancelReason::Interrupted;
        let (count, end) = match result {
            Ok(_) => (&mut self.completed, "has said it all"),
            Err(error) => match error.cancel_reason() {
                Some(Interrupted) => (&mut self.interrupted, "falls silent"),
                Some(_) => (&mut self.cut_off, "is gone in the middle of it"),
                None => (&mut self.failed, "is at a loss for words"),
            },
        };
        *count += 1;
        end
    }
}
