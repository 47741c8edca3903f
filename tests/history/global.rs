//! The rules about several sessions: capacity, counts, and the order of lists. They are checked by intervals: when a
//! session certainly held capacity, and when it possibly did.

use crate::answers::Refused;
use crate::history::{Count, Counted, Event, History, Key, Life, Listing, Stamp, What};

impl Life {
    fn certainly_held(&self, at: Stamp) -> bool {
        self.created_before <= at && at <= self.released_after
    }

    fn possibly_held(&self, at: Stamp) -> bool {
        self.created_after <= at && at <= self.released_before
    }

    fn certainly_before(&self, other: &Self) -> bool {
        self.created_before < other.created_after
    }
}

/// The failures of the counts of a history.
pub(crate) fn check_counts(history: &History) -> Vec<String> {
    let (lives, max) = (&history.lives, history.settings.max_sessions);
    let mut wrongs = Vec::new();
    for life in lives {
        let held = certainly_held(lives, life.created_before);
        if held > max {
            let names: Vec<_> = lives.iter().filter(|other| other.certainly_held(life.created_before)).collect();
            let at = life.created_before;
            wrongs.push(format!("C02: {held} sessions hold capacity at {at}, the limit is {max}: {names:#?}"));
        }
    }
    wrongs.extend(history.counts.iter().filter_map(|count| check_count(history, count).err()));
    wrongs
}

fn certainly_held(lives: &[Life], at: Stamp) -> usize {
    lives.iter().filter(|life| life.certainly_held(at)).count()
}

fn possibly_held(lives: &[Life], at: Stamp) -> usize {
    lives.iter().filter(|life| life.possibly_held(at)).count()
}

fn check_count(history: &History, count: &Count) -> Result<(), String> {
    let (lives, max) = (&history.lives, history.settings.max_sessions);
    let Count { call, ret, of } = *count;
    let mut instants = (call..=ret).filter(|at| *at == call || lives.iter().any(|life| life.borders(*at)));
    let certainly = lives.iter().filter(|life| life.created_before < call).count() as u64;
    let possibly = lives.iter().filter(|life| life.created_after < ret).count() as u64;
    let fits = match of {
        Counted::Exceeded { active, max: told } => {
            active == max && told == max && instants.any(|at| possibly_held(lives, at) >= max)
        }
        Counted::Sessions(sessions) => {
            instants.any(|at| (certainly_held(lives, at)..=possibly_held(lives, at)).contains(&sessions))
        }
        Counted::RunningTurns(turns) => turns <= history.settings.max_running_turns.unwrap_or(max).min(max),
        Counted::Registered(sessions) => (certainly..=possibly).contains(&sessions),
        Counted::RegisteredAfter { seen, answer: Some(sessions) } => {
            sessions > seen && (certainly..=possibly).contains(&sessions)
        }
        Counted::RegisteredAfter { seen, answer: None } => certainly <= seen,
        Counted::Joined(sessions) => {
            sessions <= lives.iter().filter(|life| life.created_after < ret && life.released_before > call).count()
        }
    };
    if fits {
        Ok(())
    } else {
        let row = match of {
            Counted::Exceeded { .. } => "C02",
            Counted::Registered(_) | Counted::RegisteredAfter { .. } => "C08",
            Counted::RunningTurns(_) => "C16",
            Counted::Sessions(_) => "C09",
            Counted::Joined(_) => "C29",
        };
        Err(format!("{row}: {of:?} between {call} and {ret} is impossible: {lives:#?}"))
    }
}

impl Life {
    /// Whether one of its intervals begins or ends at `at`.
    fn borders(&self, at: Stamp) -> bool {
        [self.created_after, self.created_before, self.released_before, self.released_after.saturating_add(1)]
            .contains(&at)
    }
}

/// The failures of the order of lists.
pub(crate) fn check_order(history: &History) -> Vec<String> {
    let mut wrongs = Vec::new();
    for listing in &history.listings {
        let Ok(entries) = &listing.answer else { continue };
        let after = listing.after.into_iter();
        let keys: Vec<Key> = after.chain(entries.iter().map(|(key, _)| *key)).collect();
        for (place, later) in keys.iter().enumerate() {
            if let Some(earlier) = keys[..place].iter().find(|earlier| history.came_before(*later, **earlier, listing))
            {
                let names = (&history.names[*later], &history.names[*earlier]);
                wrongs.push(format!("C25: {} is listed after {}, and is older: {listing:?}", names.0, names.1));
            }
        }
        if listing.limit.is_some_and(|limit| entries.len() > limit) {
            wrongs.push(format!("C25: a list has more entries than its limit: {listing:?}"));
        }
    }
    wrongs.extend(check_lists_agree(history));
    wrongs
}

/// Checks that two sessions have the same order in every list. Only sessions whose ids were used once are compared.
fn check_lists_agree(history: &History) -> Vec<String> {
    let once = |key: &Key| history.lives.iter().filter(|life| life.key == *key).count() == 1;
    let mut orders: Vec<(Key, Key)> = Vec::new();
    for entries in history.listings.iter().filter_map(|listing| listing.answer.as_ref().ok()) {
        let keys: Vec<Key> = entries.iter().map(|(key, _)| *key).filter(once).collect();
        for (place, later) in keys.iter().enumerate() {
            orders.extend(keys[..place].iter().map(|earlier| (*earlier, *later)));
        }
    }
    let turned = orders.iter().filter(|(one, other)| one < other && orders.contains(&(*other, *one)));
    turned
        .map(|(one, other)| {
            format!("C25: {} and {} are listed in both orders", history.names[*one], history.names[*other])
        })
        .collect()
}

impl History {
    /// Whether `key` was certainly created before `other`, whichever of their sessions the list means.
    fn came_before(&self, key: Key, other: Key, listing: &Listing) -> bool {
        let mut pairs = self
            .may_be_meant(key, listing)
            .flat_map(|life| self.may_be_meant(other, listing).map(move |other| (life, other)))
            .peekable();
        pairs.peek().is_some() && pairs.all(|(life, other)| life.certainly_before(other))
    }

    /// The sessions of an id that a list may mean. For the cursor of the list this includes sessions that ended before
    /// it.
    fn may_be_meant<'a>(&'a self, key: Key, listing: &'a Listing) -> impl Iterator<Item = &'a Life> + Clone {
        let is_cursor = listing.after == Some(key);
        let during =
            move |life: &&Life| life.created_after < listing.ret && (is_cursor || life.released_before > listing.call);
        self.lives.iter().filter(move |life| life.key == key).filter(during)
    }

    /// The claims of lists about single sessions: listed, or not listed.
    pub(crate) fn listed(&self) -> Vec<(Key, Event)> {
        let mut events = Vec::new();
        for listing in &self.listings {
            let mut say = |key, what| {
                events.push((key, Event { who: listing.who, call: listing.call, ret: listing.ret, what }));
            };
            if let Some(after) = listing.after {
                let answer = listing.answer.as_ref().map(|_| ()).map_err(|refused| *refused);
                say(after, What::ListedAfter(answer));
            }
            let Ok(entries) = &listing.answer else { continue };
            let last = entries.last().map(|(key, _)| *key).filter(|_| Some(entries.len()) == listing.limit);
            for key in 0..self.names.len() {
                match entries.iter().find(|(other, _)| *other == key) {
                    Some((_, view)) => say(key, What::Listed(*view)),
                    None => {
                        let from = listing.after.is_none_or(|after| self.came_before(after, key, listing));
                        let to = last.is_none_or(|last| self.came_before(key, last, listing));
                        if from && to {
                            say(key, What::Unlisted);
                        }
                    }
                }
            }
        }
        events
    }
}

/// Checks that all results of a turn are equal, and that no export or take failed with an unexpected error.
pub(crate) fn check_results(history: &History) -> Vec<String> {
    let mut wrongs = Vec::new();
    for (place, (uid, ending)) in history.results.iter().enumerate() {
        if let Some((_, first)) = history.results[..place].iter().find(|(other, told)| other == uid && told != ending) {
            wrongs.push(format!("turn {uid} has ended twice, with different results: {first:?} and {ending:?}"));
        }
    }
    for (key, event) in &history.events {
        if let What::Export(Err(Refused::Other(code))) | What::Take(Err(Refused::Other(code))) = event.what {
            wrongs.push(format!("{}: {code}: {event}", history.names[*key]));
        }
    }
    wrongs
}
