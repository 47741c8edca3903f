//! The world: its characters, their conversations, and the events of each frame. No call in a frame waits.

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
use crate::purse::{Accounts, Purse};

/// How long characters may take to end at the end of the program.
const GRACE: Duration = Duration::from_secs(5);
/// The matter of the story for the generator. The characters have the numbers below it.
const STORY: u64 = 1_000;

pub(crate) struct World {
    service: EphemeralSessionService<Minds>,
    /// The events of all sessions.
    everything: EventStream,
    characters: Vec<Character>,
    /// Conversations with characters that have left and still answer.
    farewells: Vec<Conversation>,
    /// The character that the player has spoken to last.
    beside: Option<usize>,
    purse: Purse,
    questions: Arc<AtomicU64>,
    bought: Arc<AtomicU64>,
    seed: u64,
    counts: Counts,
    says: bool,
}

/// One of the five characters. `id` is `None` while it is away.
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
    /// The first turn, which includes the build. The loop only polls its end.
    Awaking(TurnHandle),
    /// A turn whose words the player hears. Each frame reads all events, so the stream never gets full.
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
    /// A character could not come back because its old session still held capacity.
    no_room: u64,
    begun: u64,
    completed: u64,
    interrupted: u64,
    cut_off: u64,
    failed: u64,
    /// The player has spoken to a character that was busy or away.
    unheard: u64,
    /// Turns whose words the player hears.
    listened: u64,
    interrupts: u64,
    own_events: u64,
    events: u64,
}

/// An action of the story in a frame.
enum Deed {
    Speak(usize),
    WalkAway,
    Leave(usize, ArchiveMode),
}

/// The action of a frame, which depends on the seed and the frame only. Its effect depends on the timing of earlier
/// ones.
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
        let (questions, bought) = <(Arc<AtomicU64>, Arc<AtomicU64>)>::default();
        let minds = Minds { seed, questions: Arc::clone(&questions), bought: Arc::clone(&bought) };
        // The capacity is the number of characters. So a character can come back only after its old session has ended.
        let config = EphemeralSessionService::configure(minds)
            .max_sessions(ROLES.len())
            .stack_size(256 << 10)
            .thread_name_prefix("mind");
        let service = config.build().map_err(|error| error.to_string())?;
        // The events of a frame are read in the next one. A frame has far fewer events than this capacity.
        let everything = service.subscribe_all(Subscription::new().capacity(10_000));
        let characters = ROLES.iter().map(|_| Character { id: None, conversation: None }).collect();
        let (farewells, beside, purse, counts) = (Vec::new(), None, Purse::new(), Counts::default());
        Ok(Self { service, everything, characters, farewells, beside, purse, questions, bought, seed, counts, says })
    }

    /// Runs one frame.
    pub(crate) fn step(&mut self, frame: u64, meter: &mut Meter) {
        self.let_one_in(frame, meter);
        match deed(self.seed, frame) {
            Some(Deed::Speak(who)) => self.speak(who, frame, meter),
            Some(Deed::WalkAway) => self.walk_away(frame, meter),
            Some(Deed::Leave(who, mode)) => self.leave(who, mode, frame, meter),
            None => {}
        }
        self.listen(frame, meter);
        self.watch(frame, meter);
        self.pay(frame, meter);
    }

    /// Reads the events of all sessions since the last frame.
    fn watch(&mut self, frame: u64, meter: &mut Meter) {
        while let Ok(event) = meter.call("try_recv", || self.everything.try_recv()) {
            self.counts.events += 1;
            if let Some((who, news)) = self.purse.on_event(event) {
                self.say(frame, who, &news);
            }
        }
    }

    /// Answers the characters that ask for coins, as far as the purse allows.
    fn pay(&mut self, frame: u64, meter: &mut Meter) {
        self.purse.earn(frame);
        self.purse.decide(|session, input, response| {
            meter.call("respond", || self.service.respond(session, input, response)).is_ok()
        });
    }

    fn say(&self, frame: u64, who: usize, what: &str) {
        if self.says {
            say(format_args!("{:7.2} s  {:<5} {what}", (FRAME * frame as u32).as_secs_f64(), ROLES[who].name));
        }
    }

    /// Opens at most one absent character, because this thread has to start the session thread.
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
            // The old session still holds capacity. The next frame tries again.
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
                // The session is free, so the result of its last turn is there, and may not have been read yet.
                let talk = Talk::Speaking(stream);
                let last = self.characters[who].conversation.replace(Conversation { who, talk });
                self.farewells.extend(last);
            }
            // The character is still in its last conversation, or in one with another character.
            Err(error) => {
                self.counts.unheard += 1;
                self.say(frame, who, &format!("does not hear it ({})", error.code()));
            }
        }
    }

    /// The player walks away, which interrupts the character.
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
        // The player has not spoken to the character that comes back.
        self.beside = self.beside.filter(|beside| *beside != who);
    }

    /// Reads the words and results since the last frame.
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

    /// Reads a conversation. Returns it if it continues.
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
                // The stream has ended, so the result is there, and this does not wait.
                meter.call("wait", || stream.wait())
            }
        };
        let end = self.counts.note(&result);
        self.say(frame, who, end);
        None
    }

    /// Reads the words that have arrived. Returns whether the stream has ended.
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

    /// Ends all sessions after the last frame, reads the remaining events, and prints the report.
    pub(crate) fn end(&mut self, frames: u64) -> bool {
        let at_the_end = self.characters.iter().filter(|character| character.id.is_some()).count();
        let report = self.service.shutdown(GRACE);
        let mut meter = Meter::default();
        self.listen(frames, &mut meter);
        self.watch(frames, &mut meter);
        let (stats, asked) = (self.service.stats(), self.questions.load(Ordering::SeqCst));
        let Counts { created, archived, no_room, begun, completed, interrupted, cut_off, failed, .. } = self.counts;
        let Counts { unheard, listened, interrupts, events, own_events, .. } = self.counts;
        let purchases = &self.purse.accounts;
        let Accounts { granted, refused, timed_out, withdrawn, earned, spent, .. } = purchases;
        let bought = self.bought.load(Ordering::SeqCst);
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
            format!(
                "requests: {} asked, {granted} granted, {refused} refused, {timed_out} timed out, {withdrawn} withdrawn",
                purchases.asked
            ),
            format!(
                "coins: {} at first, {earned} earned, {spent} spent, {bought} received, {} left",
                Purse::FULL,
                self.purse.coins()
            ),
            format!("stuck: {stuck}"),
        ];
        say(lines.join("\n"));
        report.stuck.is_empty()
    }
}

impl Counts {
    /// Counts the end of a turn, and returns its description.
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
