//! The prompt while answers are written: the lines that are typed meanwhile, and the questions that wait.

use std::mem;

use turnwise::SessionService;
use turnwise_apps::say::warn;

use crate::draft::Typed;
use crate::front::{Front, Next};
use crate::prompt::{Asked, Prompt};
use crate::show::{explain, one_line};
use crate::shown::Shown;

impl<'a> Prompt<'a> {
    /// Shows an answer, and then those of the questions that are typed meanwhile.
    pub(crate) fn show_answers(&mut self, first: Asked) {
        let mut front = self.front();
        let mut next = Some(first);
        while let Some(Asked { stream, .. }) = next {
            self.watch(&mut front, &Shown::stream(&stream));
            // The error is shown, and the next answer is not affected by it.
            let _ = front.show_end(stream.wait());
            next = self.waiting.pop_front();
            if let Some(asked) = &next {
                front.screen.line(&format!("{}> {}", self.conversations.current, asked.question));
                front.screen.begin_answer();
            }
        }
        self.end(front);
    }

    /// Shows a turn until its end, and acts on the lines that are typed meanwhile. Ctrl-C interrupts this turn.
    pub(crate) fn watch(&mut self, front: &mut Front<'_>, shown: &Shown<'_>) {
        let foreground = self.foreground;
        foreground.during(shown.turn, || loop {
            match front.next(shown) {
                Next::Line(line) => {
                    self.on_line_meanwhile(front, line.trim());
                    self.typed.push(line);
                }
                Next::EndOfInput => {
                    front.screen.note("the program ends after the answers");
                    self.later.push_back(Typed::End);
                }
                Next::Ended => break,
            }
        });
    }

    fn on_line_meanwhile(&mut self, front: &mut Front<'_>, line: &str) {
        let is_command = line.starts_with('/');
        if let Some(command) = line.strip_prefix('/').filter(|command| is_immediate(command)) {
            if let Err(message) = front.screen.lines(|| self.on_command(command)) {
                front.screen.line(&message);
            }
        } else if is_command || !self.later.is_empty() {
            // The lines after a command that runs later may depend on it.
            self.run_later(front, line);
        } else {
            self.queue(front, line);
        }
    }

    /// Puts a question into the queue of its conversation. If the queue is full, the question is asked after the answers.
    fn queue(&mut self, front: &mut Front<'_>, line: &str) {
        let question = line.strip_suffix(" &").unwrap_or(line);
        let begun = self.conversations.current_id().and_then(|conversation| {
            let stream = self.service.stream_turn(conversation, self.request(conversation, question));
            stream.map_err(|error| explain(&error))
        });
        match begun {
            Ok(stream) => {
                let message = self.queued(stream.handle()).unwrap_or_else(|| "asked".into());
                front.screen.note(&format!("{message}: {}", one_line(question)));
                self.waiting.push_back(Asked { question: question.to_owned(), stream });
            }
            Err(message) => {
                front.screen.line(&message);
                self.run_later(front, line);
            }
        }
    }

    fn run_later(&mut self, front: &mut Front<'_>, line: &str) {
        front.screen.note(&format!("after the answers: {}", one_line(line)));
        self.later.push_back(Typed::Line(line.to_owned()));
    }

    /// Withdraws the questions of the current conversation that wait, and the lines that would run after them.
    pub(crate) fn unqueue(&mut self) {
        let mut withdrawn = 0;
        self.waiting.retain(|Asked { question, stream }| {
            let is_queued = stream.handle().is_queued();
            if is_queued {
                stream.handle().interrupt();
                warn(format_args!("[withdrawn: {question}]"));
                withdrawn += 1;
            }
            !is_queued
        });
        for line in mem::take(&mut self.later) {
            if let Typed::Line(line) = line {
                warn(format_args!("[withdrawn: {line}]"));
            }
            withdrawn += 1;
        }
        for (name, turn) in &self.background {
            if *name == self.conversations.current && turn.is_queued() {
                turn.interrupt();
                withdrawn += 1;
            }
        }
        if withdrawn == 0 {
            warn("[nothing waits]");
        }
    }

    pub(crate) fn front(&mut self) -> Front<'a> {
        Front::new(self.service, self.reading(), mem::take(&mut self.draft))
    }

    /// Ends the output of answers. The keys that were pressed last are lines of the prompt.
    pub(crate) fn end(&mut self, front: Front<'_>) {
        let (mut draft, keys) = front.end();
        for key in keys {
            self.later.extend(draft.press(key));
        }
        self.draft = draft.take();
    }
}

/// Whether a command runs at once, although an answer is being written. None of these waits for an answer.
fn is_immediate(command: &str) -> bool {
    let name = command.split_whitespace().next().unwrap_or_default();
    matches!(name, "answer" | "help" | "list" | "stop" | "unqueue" | "usage")
}
