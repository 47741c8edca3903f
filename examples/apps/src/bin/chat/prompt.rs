//! The prompt, with several conversations, of which one is current.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal};
use std::time::Duration;

use rustyline::DefaultEditor;
use turnwise::{
    ArchiveMode, AssistantBlock, Message, RunResult, Session, SessionError, SessionId, SessionQuery, SessionService,
    SessionSpec, StartTurnRequest, TurnHandle,
};
use turnwise_apps::{
    histories,
    lines::read_line,
    say::{plain_line, say, warn},
};

use crate::interrupts::Foreground;
use crate::options::Options;
use crate::show::{explain, without_controls};
use crate::Service;

const HELP: &str = "\
A line is a question to the conversation in front; a line that ends with a backslash goes on in the next.
A line that ends with ' &' is answered in the background, and shown before the next prompt once it is there.
Ctrl-C stops the answer that is being written and keeps what there is of it; Ctrl-D ends the program.
  /new NAME             begin a conversation
  /switch NAME          bring a conversation to the front
  /list                 all conversations
  /show [NAME]          all of a conversation
  /usage [NAME]         the tokens that it has used
  /stop [NAME]          stop a conversation's answer
  /wait                 wait for what is answered in the background
  /save FILE [NAME]     keep a conversation in a JSON file
  /load FILE NAME       go on with a conversation from such a file
  /archive [NAME]       end a conversation
  /quit                 end the program";

/// How long an export waits for a running answer.
const PATIENCE: Duration = Duration::from_secs(2);

struct Prompt<'a> {
    service: &'a Service,
    options: &'a Options,
    foreground: &'a Foreground,
    conversations: BTreeMap<String, SessionId>,
    current: String,
    /// The turns in the background, with the names of their conversations.
    background: Vec<(String, TurnHandle)>,
}

/// The effect of a line on the loop.
enum Next {
    Go,
    Quit,
}

pub(crate) fn run(service: &Service, options: &Options, foreground: &Foreground) -> Result<(), String> {
    let mut editor = DefaultEditor::new().map_err(|error| error.to_string())?;
    let (conversations, current, background) = (BTreeMap::new(), "main".to_owned(), Vec::new());
    let mut prompt = Prompt { service, options, foreground, conversations, current, background };
    prompt.open("main", prompt.spec())?;
    warn(format_args!("{} at {}; /help lists what there is", options.model, options.url));
    while let Some(line) = read_line(&mut editor, &prompt.current)? {
        let _ = editor.add_history_entry(line.as_str());
        match prompt.on_line(line.trim()) {
            Ok(Next::Go) => {}
            Ok(Next::Quit) => break,
            Err(message) => warn(message),
        }
        prompt.show_answered();
    }
    prompt.show_answered();
    if !io::stdin().is_terminal() {
        // All questions from a file or a pipe are answered, although the input ends before their answers.
        prompt.wait();
    }
    let stopped = prompt.background.len();
    if stopped > 0 {
        warn(format_args!("{stopped} answers in the background are stopped"));
    }
    Ok(())
}

impl Prompt<'_> {
    fn on_line(&mut self, line: &str) -> Result<Next, String> {
        let Some(command) = line.strip_prefix('/') else {
            if !line.is_empty() {
                self.on_question(line)?;
            }
            return Ok(Next::Go);
        };
        let words: Vec<&str> = command.split_whitespace().collect();
        match words[..] {
            ["help"] => warn(HELP),
            ["new", name] => self.open(name, self.spec())?,
            ["switch", name] => {
                self.conversation(name)?;
                self.current = name.to_owned();
            }
            ["list"] => self.list()?,
            ["show"] => self.show(&self.current)?,
            ["show", name] => self.show(name)?,
            ["usage"] => self.usage(&self.current)?,
            ["usage", name] => self.usage(name)?,
            ["wait"] => self.wait(),
            ["stop"] => self.stop(&self.current)?,
            ["stop", name] => self.stop(name)?,
            ["save", file] => self.save(file, &self.current)?,
            ["save", file, name] => self.save(file, name)?,
            ["load", file, name] => self.load(file, name)?,
            ["archive"] => self.archive(&self.current.clone())?,
            ["archive", name] => self.archive(name)?,
            ["quit"] => return Ok(Next::Quit),
            _ => return Err(format!("error: unknown command '/{command}'; /help lists them")),
        }
        Ok(Next::Go)
    }

    fn on_question(&mut self, line: &str) -> Result<(), String> {
        let background = line.strip_suffix(" &");
        let request = StartTurnRequest::new(background.unwrap_or(line)).timeout(self.options.timeout);
        let conversation = self.conversation(&self.current)?;
        if background.is_some() {
            // The turn has no receiver of events, so it never waits for one.
            let turn = self.service.begin_turn(conversation, request).map_err(|error| explain(&error))?;
            self.background.push((self.current.clone(), turn));
            return Ok(());
        }
        let stream = self.service.stream_turn(conversation, request).map_err(|error| explain(&error))?;
        self.foreground.show(stream).map(drop).map_err(|error| explain(&error))
    }

    /// Shows the answers in the background that have arrived since the last call.
    fn show_answered(&mut self) {
        self.background.retain_mut(|(name, turn)| match turn.try_wait() {
            Some(result) => {
                show_answer(name, &result);
                false
            }
            None => true,
        });
    }

    fn wait(&mut self) {
        for (name, turn) in self.background.drain(..) {
            show_answer(&name, &self.foreground.wait(turn));
        }
    }

    fn conversation(&self, name: &str) -> Result<SessionId, String> {
        let unknown = || format!("error: there is no conversation '{name}'; /new {name} begins one");
        self.conversations.get(name).copied().ok_or_else(unknown)
    }

    /// The specification of a new conversation.
    fn spec(&self) -> SessionSpec {
        let mut spec = SessionSpec::new();
        spec.system_prompt.clone_from(&self.options.system);
        spec
    }

    fn open(&mut self, name: &str, spec: SessionSpec) -> Result<(), String> {
        if name != plain_line(name) {
            return Err("error: a name is letters, and not what would tell the terminal something".into());
        }
        if self.conversations.contains_key(name) {
            return Err(format!("error: there is a conversation '{name}' already"));
        }
        let id = self.service.open_session(spec.label("name", name)).map_err(|error| explain(&error))?;
        self.conversations.insert(name.to_owned(), id);
        self.current = name.to_owned();
        Ok(())
    }

    fn list(&self) -> Result<(), String> {
        for conversation in self.service.list(SessionQuery::new()).map_err(|error| explain(&error))? {
            let name = conversation.labels.get("name").map_or("", String::as_str);
            let mark = if name == self.current { '*' } else { ' ' };
            let (messages, tokens) = (conversation.message_count, conversation.total_tokens);
            say(format_args!("{mark} {name:<16} {:<8} {messages:>4} messages {tokens:>8} tokens", conversation.state));
        }
        Ok(())
    }

    fn show(&self, name: &str) -> Result<(), String> {
        for message in self.history(name)?.messages() {
            match message {
                Message::System { content } => say(format_args!("system: {}", without_controls(content))),
                Message::User { content } => say(format_args!("you: {}", without_controls(content))),
                Message::Assistant { blocks, .. } => blocks.iter().for_each(show_block),
                Message::ToolResults { results } => {
                    results.iter().for_each(|result| say(format_args!("tool: {}", without_controls(&result.content))));
                }
            }
        }
        Ok(())
    }

    fn usage(&self, name: &str) -> Result<(), String> {
        let billing = self.service.read(self.conversation(name)?).map_err(|error| explain(&error))?.billing;
        let usage = billing.usage;
        say(format_args!(
            "{} tokens in, {} out, {} in all",
            usage.input_tokens, usage.output_tokens, billing.total_tokens
        ));
        Ok(())
    }

    fn stop(&self, name: &str) -> Result<(), String> {
        self.service.interrupt(self.conversation(name)?).map_err(|error| explain(&error))
    }

    fn history(&self, name: &str) -> Result<Session, String> {
        let exported = self.service.export_session_timeout(self.conversation(name)?, PATIENCE);
        exported.map_err(|error| explain(&error))
    }

    fn save(&self, file: &str, name: &str) -> Result<(), String> {
        let history = self.history(name)?;
        histories::save(&history, file)?;
        say(format_args!("{} messages of '{name}' are in {file}", history.messages().len()));
        Ok(())
    }

    fn load(&mut self, file: &str, name: &str) -> Result<(), String> {
        let history = histories::load(file, self.service)?;
        self.open(name, SessionSpec::new().resume(history))
    }

    fn archive(&mut self, name: &str) -> Result<(), String> {
        let conversation = self.conversation(name)?;
        self.service.archive_with(conversation, ArchiveMode::Interrupt).map_err(|error| explain(&error))?;
        self.conversations.remove(name);
        if self.current == name {
            if let Some(other) = self.conversations.keys().next() {
                self.current.clone_from(other);
            }
        }
        Ok(())
    }
}

fn show_answer(name: &str, result: &Result<RunResult, SessionError>) {
    let text = match result {
        Ok(result) => without_controls(&result.text),
        Err(error) => explain(error),
    };
    say(format_args!("[{name}] {}", text.trim_end()));
}

fn show_block(block: &AssistantBlock) {
    match block {
        AssistantBlock::Text { text } => say(format_args!("assistant: {}", without_controls(text))),
        AssistantBlock::ToolUse { name, args, .. } => {
            say(format_args!("assistant: {}({})", without_controls(name), without_controls(args)))
        }
        AssistantBlock::Reasoning { .. } => {}
    }
}
