//! The purse of the party. Only the loop may spend from it, so no lock guards it.
//!
//! A character that wants to buy something asks the loop by an input request, and its turn waits without its running
//! permit. The loop learns of requests from the events of the sessions. It decides between two frames, and never waits
//! for a character.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use turnwise::{AgentEvent, InputId, InputOutcome, InputRequest, InputResponse, SessionEvent, SessionId};

/// The kind of request by which a character asks for coins.
pub(crate) const PURCHASE: &str = "purchase";
/// The answer of the loop that has paid.
pub(crate) const PAID: &str = "paid";
/// The loop pays no more for one thing.
const MOST: u64 = 20;
/// The party earns a coin in each of this many frames.
const WAGE: u64 = 20;

/// The payload of a request: what the loop needs to know of it.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Purchase {
    pub(crate) who: usize,
    pub(crate) thing: String,
    pub(crate) price: u64,
}

pub(crate) struct Purse {
    coins: u64,
    /// The requests that have not been resolved, oldest first.
    open: VecDeque<Open>,
    pub(crate) accounts: Accounts,
}

struct Open {
    session: SessionId,
    input: InputId,
    purchase: Purchase,
    is_decided: bool,
}

/// The sums of a whole game.
#[derive(Default)]
pub(crate) struct Accounts {
    pub(crate) asked: u64,
    pub(crate) granted: u64,
    pub(crate) refused: u64,
    /// The purse did not have enough coins in time.
    pub(crate) timed_out: u64,
    /// The turn that asked was told to stop.
    pub(crate) withdrawn: u64,
    pub(crate) earned: u64,
    pub(crate) spent: u64,
}

impl Purse {
    /// The number of coins at the beginning.
    pub(crate) const FULL: u64 = 6;

    pub(crate) fn new() -> Self {
        Self { coins: Self::FULL, open: VecDeque::new(), accounts: Accounts::default() }
    }

    pub(crate) fn coins(&self) -> u64 {
        self.coins
    }

    pub(crate) fn earn(&mut self, frame: u64) {
        if frame % WAGE == WAGE - 1 {
            self.coins += 1;
            self.accounts.earned += 1;
        }
    }

    /// Notes a request, or its end. Returns the news for the player.
    pub(crate) fn on_event(&mut self, event: SessionEvent) -> Option<(usize, String)> {
        let session = event.session_id;
        match event.event {
            AgentEvent::InputRequested { input_id, request } => self.on_requested(session, input_id, &request),
            AgentEvent::InputResolved { input_id, outcome } => self.on_resolved(session, input_id, outcome),
            _ => None,
        }
    }

    fn on_requested(&mut self, session: SessionId, input: InputId, request: &InputRequest) -> Option<(usize, String)> {
        let payload = request.payload.as_deref().filter(|_| request.kind == PURCHASE)?;
        let purchase: Purchase = serde_json::from_str(payload).ok()?;
        let news = (purchase.who, format!("asks for {}", request.message));
        self.accounts.asked += 1;
        self.open.push_back(Open { session, input, purchase, is_decided: false });
        Some(news)
    }

    fn on_resolved(&mut self, session: SessionId, input: InputId, outcome: InputOutcome) -> Option<(usize, String)> {
        let place = self.open.iter().position(|open| open.session == session && open.input == input)?;
        let Purchase { who, thing, .. } = self.open.remove(place)?.purchase;
        let accounts = &mut self.accounts;
        let (count, news) = match outcome {
            InputOutcome::Answered => (&mut accounts.granted, format!("gets {thing}")),
            InputOutcome::Declined => (&mut accounts.refused, format!("does not get {thing}")),
            InputOutcome::TimedOut => (&mut accounts.timed_out, format!("waits for {thing} no longer")),
            _ => (&mut accounts.withdrawn, format!("needs {thing} no longer")),
        };
        *count += 1;
        Some((who, news))
    }

    /// Decides each open request that can be decided in this frame, oldest first. A request that the purse cannot pay
    /// yet stays pending until its timeout. `respond` returns whether the request was still pending.
    pub(crate) fn decide(&mut self, mut respond: impl FnMut(SessionId, InputId, InputResponse) -> bool) {
        for open in self.open.iter_mut().filter(|open| !open.is_decided) {
            let price = open.purchase.price;
            let response = match price {
                _ if price > MOST => InputResponse::Declined { reason: Some("too dear".into()) },
                _ if price > self.coins => continue,
                _ => InputResponse::Answer(PAID.into()),
            };
            let pays = matches!(response, InputResponse::Answer(_));
            open.is_decided = true;
            // If the turn was told to stop in the meantime, no character gets the answer, and nothing is paid.
            if respond(open.session, open.input, response) && pays {
                self.coins -= price;
                self.accounts.spent += price;
            }
        }
    }
}
