//! The conversations of the prompt, of which one is current, and the commands about them.

use std::collections::BTreeMap;
use std::time::Duration;

use turnwise::{ArchiveMode, Session, SessionId, SessionQuery, SessionService, SessionSpec};
use turnwise_apps::{
    histories,
    say::{plain_line, say},
};

use crate::options::Options;
use crate::show::{explain, show_message};
use crate::Service;

/// How long an export waits for a running answer.
const PATIENCE: Duration = Duration::from_secs(2);

pub(crate) struct Conversations<'a> {
    service: &'a Service,
    options: &'a Options,
    ids: BTreeMap<String, SessionId>,
    pub(crate) current: String,
}

impl<'a> Conversations<'a> {
    /// One conversation, `main`.
    pub(crate) fn begin(service: &'a Service, options: &'a Options) -> Result<Self, String> {
        let mut conversations = Self { service, options, ids: BTreeMap::new(), current: String::new() };
        conversations.new_one("main")?;
        Ok(conversations)
    }

    pub(crate) fn id(&self, name: &str) -> Result<SessionId, String> {
        let unknown = || format!("error: there is no conversation '{name}'; /new {name} begins one");
        self.ids.get(name).copied().ok_or_else(unknown)
    }

    pub(crate) fn current_id(&self) -> Result<SessionId, String> {
        self.id(&self.current)
    }

    pub(crate) fn new_one(&mut self, name: &str) -> Result<(), String> {
        let mut spec = SessionSpec::new();
        spec.system_prompt.clone_from(&self.options.system);
        self.open(name, spec)
    }

    pub(crate) fn load(&mut self, file: &str, name: &str) -> Result<(), String> {
        let history = histories::load(file, self.service)?;
        self.open(name, SessionSpec::new().resume(history))
    }

    fn open(&mut self, name: &str, spec: SessionSpec) -> Result<(), String> {
        if name != plain_line(name) {
            return Err("error: a name is letters, and not what would tell the terminal something".into());
        }
        if self.ids.contains_key(name) {
            return Err(format!("error: there is a conversation '{name}' already"));
        }
        let id = self.service.open_session(spec.label("name", name)).map_err(|error| explain(&error))?;
        self.ids.insert(name.to_owned(), id);
        self.current = name.to_owned();
        Ok(())
    }

    pub(crate) fn switch(&mut self, name: &str) -> Result<(), String> {
        self.id(name)?;
        self.current = name.to_owned();
        Ok(())
    }

    pub(crate) fn list(&self) -> Result<(), String> {
        for conversation in self.service.list(SessionQuery::new()).map_err(|error| explain(&error))? {
            let name = conversation.labels.get("name").map_or("", String::as_str);
            let mark = if name == self.current { '*' } else { ' ' };
            let (messages, tokens) = (conversation.message_count, conversation.total_tokens);
            let queued = match conversation.queued_turns {
                0 => String::new(),
                queued => format!(" {queued} queued"),
            };
            let state = conversation.state;
            say(format_args!("{mark} {name:<16} {state:<8} {messages:>4} messages {tokens:>8} tokens{queued}"));
        }
        Ok(())
    }

    pub(crate) fn show(&self, name: &str) -> Result<(), String> {
        self.history(name)?.messages().iter().for_each(show_message);
        Ok(())
    }

    pub(crate) fn usage(&self, name: &str) -> Result<(), String> {
        let billing = self.service.read(self.id(name)?).map_err(|error| explain(&error))?.billing;
        let usage = billing.usage;
        say(format_args!(
            "{} tokens in, {} out, {} in all",
            usage.input_tokens, usage.output_tokens, billing.total_tokens
        ));
        Ok(())
    }

    pub(crate) fn stop(&self, name: &str) -> Result<(), String> {
        self.service.interrupt(self.id(name)?).map_err(|error| explain(&error))
    }

    pub(crate) fn save(&self, file: &str, name: &str) -> Result<(), String> {
        let history = self.history(name)?;
        histories::save(&history, file)?;
        say(format_args!("{} messages of '{name}' are in {file}", history.messages().len()));
        Ok(())
    }

    pub(crate) fn archive(&mut self, name: &str) -> Result<(), String> {
        let conversation = self.id(name)?;
        self.service.archive_with(conversation, ArchiveMode::Interrupt).map_err(|error| explain(&error))?;
        self.ids.remove(name);
        if self.current == name {
            if let Some(other) = self.ids.keys().next() {
                self.current.clone_from(other);
            }
        }
        Ok(())
    }

    fn history(&self, name: &str) -> Result<Session, String> {
        let exported = self.service.export_session_timeout(self.id(name)?, PATIENCE);
        exported.map_err(|error| explain(&error))
    }
}
