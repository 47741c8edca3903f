//! Turns in the background: their answers, the questions of their tools, and the lines for them.

use turnwise::SessionService;
use turnwise_apps::say::{plain_line, warn};

use crate::asking;
use crate::prompt::Prompt;
use crate::show::{explain, one_line, show_answer, without_controls};
use crate::shown::Shown;

impl Prompt<'_> {
    /// Waits for all turns in the background, and shows their answers.
    pub(crate) fn wait(&mut self) {
        while !self.background.is_empty() {
            self.wait_for(0);
        }
    }

    /// Waits for the oldest turn of the current conversation in the background. Returns whether there is one.
    pub(crate) fn wait_for_one(&mut self) -> bool {
        let oldest = self.background.iter().position(|(name, _)| *name == self.conversations.current);
        oldest.map(|oldest| self.wait_for(oldest)).is_some()
    }

    fn wait_for(&mut self, number: usize) {
        let (name, turn) = self.background.remove(number);
        let mut front = self.front();
        self.watch(&mut front, &Shown::silent(&turn));
        front.screen.lines(|| show_answer(&name, &turn.wait()));
        // Lines that were typed meanwhile have begun turns.
        match self.waiting.pop_front() {
            Some(asked) => {
                self.end(front);
                self.show_answers(asked);
            }
            None => self.end(front),
        }
    }

    /// Sends a line to the turn of the current conversation in the background.
    pub(crate) fn steer(&mut self, line: &str) -> Result<(), String> {
        let conversation = self.conversations.current_id()?;
        if let Err(error) = self.steering.send(self.service, conversation, None, line) {
            line.clone_into(&mut self.draft);
            return Err(error);
        }
        warn(format_args!("[sent to the answer: {}]", one_line(line)));
        Ok(())
    }

    /// Shows what has happened in the background since the last call: the lines that were taken in, the answers, and the
    /// questions of tools.
    pub(crate) fn show_background(&mut self) {
        for fate in self.steering.fates(u32::MAX) {
            warn(format_args!("[{fate}]"));
        }
        self.background.retain_mut(|(name, turn)| match turn.try_wait() {
            Some(result) => {
                show_answer(name, &result);
                false
            }
            None => true,
        });
        for (name, turn) in &self.background {
            let session = turn.session_id();
            for pending in self.service.pending_inputs(session).unwrap_or_default() {
                if pending.turn_id == turn.turn_id() && self.told.insert((session, pending.id)) {
                    let message = without_controls(&pending.request.message);
                    warn(format_args!("[{}] {message}\n/answer answers it, in that conversation", plain_line(name)));
                }
            }
        }
    }

    /// Shows what a tool asks in the current conversation, or answers it.
    pub(crate) fn answer(&self, line: &str) -> Result<(), String> {
        let conversation = self.conversations.current_id()?;
        let pending = self.service.pending_inputs(conversation).map_err(|error| explain(&error))?;
        let Some(asked) = pending.first() else { return Err("error: nothing is asked in this conversation".into()) };
        if line.trim().is_empty() {
            warn(without_controls(&asking::shown(&asked.request)));
            return Ok(());
        }
        let response = asking::response(line).ok_or_else(|| format!("error: the answer is {}", asking::KEYS))?;
        self.service.respond(conversation, asked.id, response).map_err(|error| explain(&error))
    }
}
