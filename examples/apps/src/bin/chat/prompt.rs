//! The prompt: lines are questions to the current conversation, or commands.

use std::collections::{HashSet, VecDeque};
use std::io::{self, IsTerminal};
use std::mem;

use rustyline::DefaultEditor;
use turnwise::{
    InputId, SessionError, SessionId, SessionService, SessionState, StartTurnRequest, TurnHandle, TurnStream, WhenBusy,
};
use turnwise_apps::{
    lines::continue_line,
    say::{plain_line, warn},
};

use crate::conversations::Conversations;
use crate::draft::{steering, Typed};
use crate::front::Reading;
use crate::interrupts::Foreground;
use crate::options::Options;
use crate::show::explain;
use crate::steering::Steering;
use crate::Service;

const HELP: &str = "\
A line is a question to the conversation in front; a line that ends with a backslash goes on in the next.
A line that ends with ' &' is answered in the background, and shown before the next prompt once it is there.
A question to a conversation that is still being answered waits in its queue. A line that is typed while an answer is
written is such a question. Commands that are typed meanwhile run after the answers, and so do the lines behind them;
/answer, /help, /list, /stop, /unqueue and /usage run at once.
A line that begins with '!', or that Alt-Enter ends while an answer is written, goes to that answer: the assistant takes
it in before its next step, or goes on with it at the end of the answer.
A tool that changes something asks first: y allows it once, a always in this conversation, and n refuses it.
Ctrl-C stops the answer that is being written and keeps what there is of it; the questions that wait are answered next.
Ctrl-D ends the program.
  /new NAME             begin a conversation
  /switch NAME          bring a conversation to the front
  /list                 all conversations
  /show [NAME]          all of a conversation
  /usage [NAME]         the tokens that it has used
  /stop [NAME]          stop a conversation's answer
  /unqueue              withdraw the questions that wait in the conversation in front, and the commands behind them
  /answer [TEXT]        what a tool asks in the conversation in front, and the answer: y, a, n, or n and the reason
  /wait                 wait for what is answered in the background
  /save FILE [NAME]     keep a conversation in a JSON file
  /load FILE NAME       go on with a conversation from such a file
  /archive [NAME]       end a conversation
  /quit                 end the program";

pub(crate) struct Prompt<'a> {
    pub(crate) service: &'a Service,
    pub(crate) options: &'a Options,
    pub(crate) foreground: &'a Foreground,
    pub(crate) conversations: Conversations<'a>,
    /// The turns in the background, with the names of their conversations.
    pub(crate) background: Vec<(String, TurnHandle)>,
    /// The questions that were typed while an answer was written.
    pub(crate) waiting: VecDeque<Asked>,
    /// The lines that were typed meanwhile and run after the answers.
    pub(crate) later: VecDeque<Typed>,
    /// The lines that were typed meanwhile, for the history of the line editor.
    pub(crate) typed: Vec<String>,
    /// The lines that were sent to turns in the background.
    pub(crate) steering: Steering,
    /// The begin of the next line.
    pub(crate) draft: String,
    /// The questions of turns in the background that the user knows.
    pub(crate) told: HashSet<(SessionId, InputId)>,
}

/// A question of the user to a model, with its answer.
pub(crate) struct Asked {
    pub(crate) question: String,
    pub(crate) stream: TurnStream,
}

/// The effect of a line on the loop.
pub(crate) enum Next {
    Go,
    Quit,
}

pub(crate) fn run(service: &Service, options: &Options, foreground: &Foreground) -> Result<(), String> {
    let mut editor = DefaultEditor::new().map_err(|error| error.to_string())?;
    let mut prompt = Prompt {
        service,
        options,
        foreground,
        conversations: Conversations::begin(service, options)?,
        background: Vec::new(),
        waiting: VecDeque::new(),
        later: VecDeque::new(),
        typed: Vec::new(),
        steering: Steering::default(),
        draft: String::new(),
        told: HashSet::new(),
    };
    warn(format_args!("{} at {}; /help lists what there is", options.model, options.url));
    while let Some(line) = prompt.next_line(&mut editor)? {
        match prompt.on_line(line.trim()) {
            Ok(Next::Go) => {}
            Ok(Next::Quit) => break,
            Err(message) => warn(message),
        }
        prompt.show_background();
    }
    prompt.show_background();
    if !io::stdin().is_terminal() {
        // All questions from a file or a pipe are answered, although the input ends before their answers.
        prompt.wait();
        prompt.show_background();
    }
    let stopped = prompt.background.len();
    if stopped > 0 {
        warn(format_args!("{stopped} answers in the background are stopped"));
    }
    Ok(())
}

impl Prompt<'_> {
    /// The next line: one that was typed while an answer was written, or one from the editor.
    fn next_line(&mut self, editor: &mut DefaultEditor) -> Result<Option<String>, String> {
        for line in self.typed.drain(..) {
            let _ = editor.add_history_entry(line);
        }
        let name = &self.conversations.current;
        let line = match self.later.pop_front() {
            Some(Typed::Line(line)) => line,
            Some(Typed::Steer(line)) => format!("!{line}"),
            Some(Typed::End) => return Ok(None),
            None => {
                let line = continue_line(editor, name, &mem::take(&mut self.draft))?;
                self.typed.extend(line.clone());
                return Ok(line);
            }
        };
        warn(format_args!("{}> {line}", plain_line(name)));
        Ok(Some(line))
    }

    fn on_line(&mut self, line: &str) -> Result<Next, String> {
        if let Some(command) = line.strip_prefix('/') {
            return self.on_command(command);
        }
        match steering(line) {
            Some(line) => self.steer(line)?,
            None if line.is_empty() => {}
            None => self.on_question(line)?,
        }
        Ok(Next::Go)
    }

    pub(crate) fn on_command(&mut self, command: &str) -> Result<Next, String> {
        let words: Vec<&str> = command.split_whitespace().collect();
        let conversations = &mut self.conversations;
        let current = conversations.current.clone();
        match words[..] {
            ["help"] => warn(HELP),
            ["new", name] => conversations.new_one(name)?,
            ["switch", name] => conversations.switch(name)?,
            ["list"] => conversations.list()?,
            ["show"] => conversations.show(&current)?,
            ["show", name] => conversations.show(name)?,
            ["usage"] => conversations.usage(&current)?,
            ["usage", name] => conversations.usage(name)?,
            ["wait"] => self.wait(),
            ["stop"] => conversations.stop(&current)?,
            ["stop", name] => conversations.stop(name)?,
            ["unqueue"] => self.unqueue(),
            ["answer", ..] => self.answer(command.trim_start().strip_prefix("answer").unwrap_or_default())?,
            ["save", file] => conversations.save(file, &current)?,
            ["save", file, name] => conversations.save(file, name)?,
            ["load", file, name] => conversations.load(file, name)?,
            ["archive"] => conversations.archive(&current)?,
            ["archive", name] => conversations.archive(name)?,
            ["quit"] => return Ok(Next::Quit),
            _ => return Err(format!("error: unknown command '/{command}'; /help lists them")),
        }
        Ok(Next::Go)
    }

    fn on_question(&mut self, line: &str) -> Result<(), String> {
        let Some(question) = line.strip_suffix(" &") else {
            let stream = self.begin(line, Service::stream_turn)?;
            self.tell_queued(stream.handle());
            self.show_answers(Asked { question: line.to_owned(), stream });
            return Ok(());
        };
        // The turn has no receiver of events, so it never waits for one.
        let turn = self.begin(question, Service::begin_turn)?;
        self.tell_queued(&turn);
        self.background.push((self.conversations.current.clone(), turn));
        Ok(())
    }

    /// Begins a turn of the current conversation. If its queue is full, the line is not lost: the editor shows it again,
    /// or, without a terminal, the oldest question is answered first.
    fn begin<T>(
        &mut self,
        question: &str,
        begin: impl Fn(&Service, SessionId, StartTurnRequest) -> Result<T, SessionError>,
    ) -> Result<T, String> {
        let conversation = self.conversations.current_id()?;
        loop {
            match begin(self.service, conversation, self.request(conversation, question)) {
                Err(SessionError::QueueFull { .. }) if !self.options.can_ask && self.wait_for_one() => {}
                Err(error) => {
                    if matches!(error, SessionError::QueueFull { .. }) {
                        question.clone_into(&mut self.draft);
                    }
                    return Err(explain(&error));
                }
                Ok(begun) => return Ok(begun),
            }
        }
    }

    /// The request of a question. Its time includes that of the answers before it, because the time in the queue counts.
    pub(crate) fn request(&self, conversation: SessionId, question: &str) -> StartTurnRequest {
        let ahead = self.service.read(conversation).map_or(0, |session| match session.state.state {
            SessionState::Idle => 0,
            _ => session.state.queued_turns as u32 + 1,
        });
        let timeout = self.options.timeout.saturating_mul(ahead + 1);
        StartTurnRequest::new(question).timeout(timeout).when_busy(WhenBusy::Queue)
    }

    fn tell_queued(&self, turn: &TurnHandle) {
        if let Some(message) = self.queued(turn) {
            warn(format_args!("[{message}]"));
        }
    }

    /// The message about a turn that waits in the queue.
    pub(crate) fn queued(&self, turn: &TurnHandle) -> Option<String> {
        let count = self.service.read(turn.session_id()).ok()?.state.queued_turns;
        let verb = if count == 1 { "waits" } else { "wait" };
        // The turn may have been taken from the queue meanwhile.
        (turn.is_queued() && count > 0).then(|| format!("queued, {count} {verb}"))
    }

    /// How keys are read while an answer is written.
    pub(crate) fn reading(&self) -> Reading {
        if self.options.can_ask {
            Reading::Always
        } else {
            Reading::Never
        }
    }
}
