//! The interactive prompt.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use rustyline::DefaultEditor;
use turnwise::crossbeam_channel::{bounded, Receiver};
use turnwise::{
    AgentEvent, ArchiveMode, SessionId, SessionQuery, SessionService, SessionSpec, StartTurnRequest, TurnHandle,
};
use turnwise_apps::{
    histories,
    lines::read_line,
    say::{say, warn},
};

use crate::report::{explain, show, show_output, show_result, to_terminal};
use crate::{seconds, Notebook};

const HELP: &str = "\
A line is a cell, and runs; a line that ends with a backslash goes on in the next.
A line that ends with ' &' runs in the background; what it prints is shown before the next prompt.
Ctrl-C interrupts the running cells, Ctrl-D ends the notebook. Lines that are typed ahead run next.
A cell that fails or is interrupted leaves nothing behind. Interrupts and limits take effect between two steps
of a cell: a native function, such as 'sort' on an array, runs to its end first, however long it takes.
At most: strings 1 MB, arrays 1 million elements, maps 100,000 entries, values nested 500 deep; in a kernel
10,000 variables of 128 MB and 1,000 functions with closures; all kernels together take what --memory allows.
  :open NAME            open a kernel and switch to it
  :switch NAME          switch to another kernel
  :list                 all kernels
  :read [NAME]          what a kernel shows of itself
  :export FILE [NAME]   keep a kernel's cells in a JSON file
  :resume FILE [NAME]   open a kernel from such a file: its cells run again, without output
  :interrupt [NAME]     interrupt a kernel's cell
  :wait                 wait for the cells in the background
  :archive [NAME]       end a kernel; a running cell is interrupted
  :limit SECONDS|off    how long a cell may take
  :quit                 end the notebook";

/// The number of lines of a background cell that wait to be shown.
const UNSHOWN: usize = 2_000;

/// The state of the prompt: the kernels by name, and the current one.
struct Prompt<'a> {
    notebook: &'a Notebook,
    kernels: BTreeMap<String, SessionId>,
    current: String,
    limit: Option<Duration>,
    background: Vec<Background>,
}

/// A cell that runs in the background.
struct Background {
    prefix: String,
    /// The output of the cell. After [`UNSHOWN`] lines the cell waits until they are shown, before the next prompt.
    events: Receiver<AgentEvent>,
    turn: TurnHandle,
}

/// The effect of a line on the loop.
enum Next {
    Go,
    Quit,
}

pub(crate) fn run(notebook: &Notebook, limit: Option<Duration>) -> Result<ExitCode, String> {
    let mut editor = DefaultEditor::new().map_err(|error| error.to_string())?;
    let (kernels, background) = (BTreeMap::new(), Vec::new());
    let mut prompt = Prompt { notebook, kernels, current: "main".into(), limit, background };
    prompt.open("main", SessionSpec::new())?;
    say("turnwise notebook: every line is a cell; :help lists the commands");
    while let Some(line) = read_line(&mut editor, &prompt.current)? {
        let _ = editor.add_history_entry(line.as_str());
        match prompt.on_line(line.trim()) {
            Ok(Next::Go) => {}
            Ok(Next::Quit) => break,
            Err(message) => warn(message),
        }
        prompt.background.retain_mut(|cell| !cell.show_news());
    }
    Ok(ExitCode::SUCCESS)
}

impl Background {
    /// Shows the output since the last call. Returns whether the cell has ended.
    fn show_news(&mut self) -> bool {
        // The result is polled before the events are read. So after the end of the cell, all of its events are read.
        let result = self.turn.try_wait();
        let mut terminal = to_terminal(&self.prefix);
        show_output(self.events.try_iter(), &mut terminal);
        result.map(|result| show_result(&result, &mut terminal)).is_some()
    }

    fn show_rest(self) {
        let mut terminal = to_terminal(&self.prefix);
        show_output(self.events.iter(), &mut terminal);
        show_result(&self.turn.wait(), &mut terminal);
    }
}

impl Prompt<'_> {
    fn on_line(&mut self, line: &str) -> Result<Next, String> {
        let Some(command) = line.strip_prefix(':') else {
            if !line.is_empty() {
                self.on_cell(line)?;
            }
            return Ok(Next::Go);
        };
        let words: Vec<&str> = command.split_whitespace().collect();
        match words[..] {
            ["help"] => say(HELP),
            ["open", name] => self.open(name, SessionSpec::new())?,
            ["switch", name] => {
                self.kernel(name)?;
                self.current = name.to_owned();
            }
            ["list"] => self.list()?,
            ["read"] => self.read(&self.current)?,
            ["read", name] => self.read(name)?,
            ["export", file] => self.export(file, &self.current)?,
            ["export", file, name] => self.export(file, name)?,
            ["resume", file] => self.resume(file, None)?,
            ["resume", file, name] => self.resume(file, Some(name))?,
            ["wait"] => self.background.drain(..).for_each(Background::show_rest),
            ["interrupt"] => self.interrupt(&self.current)?,
            ["interrupt", name] => self.interrupt(name)?,
            ["archive"] => self.archive(&self.current.clone())?,
            ["archive", name] => self.archive(name)?,
            ["limit", "off"] => self.limit = None,
            ["limit", text] => self.limit = Some(seconds(text)?),
            ["quit"] => return Ok(Next::Quit),
            _ => return Err(format!("error: unknown command ':{command}'; :help lists them")),
        }
        Ok(Next::Go)
    }

    fn on_cell(&mut self, line: &str) -> Result<(), String> {
        let background = line.strip_suffix(" &");
        let mut request = StartTurnRequest::new(background.unwrap_or(line));
        request.timeout = self.limit;
        let kernel = self.kernel(&self.current)?;
        if background.is_some() {
            let (event_tx, events) = bounded(UNSHOWN);
            let begun = self.notebook.begin_turn(kernel, request.event_tx(event_tx));
            let (prefix, turn) = (format!("[{}] ", self.current), begun.map_err(|error| explain(&error))?);
            self.background.push(Background { prefix, events, turn });
        } else {
            let stream = self.notebook.stream_turn(kernel, request).map_err(|error| explain(&error))?;
            show(stream, &mut to_terminal(""));
        }
        Ok(())
    }

    fn kernel(&self, name: &str) -> Result<SessionId, String> {
        let unknown = || format!("error: there is no kernel '{name}'; :open {name} makes one");
        self.kernels.get(name).copied().ok_or_else(unknown)
    }

    fn open(&mut self, name: &str, spec: SessionSpec) -> Result<(), String> {
        if self.kernels.contains_key(name) {
            return Err(format!("error: there is a kernel '{name}' already"));
        }
        let kernel = self.notebook.open_session(spec.label("name", name)).map_err(|error| explain(&error))?;
        self.kernels.insert(name.to_owned(), kernel);
        self.current = name.to_owned();
        Ok(())
    }

    fn list(&self) -> Result<(), String> {
        for kernel in self.notebook.list(SessionQuery::new()).map_err(|error| explain(&error))? {
            let name = kernel.labels.get("name").map_or("", String::as_str);
            let mark = if name == self.current { '*' } else { ' ' };
            say(format_args!("{mark} {name:<16} {:<9} {:>4} cells", kernel.state, kernel.message_count / 2));
        }
        Ok(())
    }

    fn read(&self, name: &str) -> Result<(), String> {
        let view = self.notebook.read(self.kernel(name)?).map_err(|error| explain(&error))?.state;
        say(format_args!("{name}: {}, {} cells, session {}", view.state, view.message_count / 2, view.session_id));
        if let Some(answer) = view.last_assistant_text.filter(|answer| !answer.is_empty()) {
            say(format_args!("last output:\n{}", answer.trim_end()));
        }
        Ok(())
    }

    fn export(&self, file: &str, name: &str) -> Result<(), String> {
        /// How long an export waits for a running cell. A longer cell should be interrupted first.
        const PATIENCE: Duration = Duration::from_secs(2);
        let exported = self.notebook.export_session_timeout(self.kernel(name)?, PATIENCE);
        let history = exported.map_err(|error| explain(&error))?;
        histories::save(&history, file)?;
        say(format_args!("{} cells of '{name}' are in {file}", history.messages().len() / 2));
        Ok(())
    }

    fn resume(&mut self, file: &str, name: Option<&str>) -> Result<(), String> {
        let history = histories::load(file, self.notebook)?;
        let short = history.id().short();
        self.open(name.unwrap_or(&short), SessionSpec::new().resume(history))
    }

    fn interrupt(&self, name: &str) -> Result<(), String> {
        self.notebook.interrupt(self.kernel(name)?).map_err(|error| explain(&error))
    }

    fn archive(&mut self, name: &str) -> Result<(), String> {
        let kernel = self.kernel(name)?;
        self.notebook.archive_with(kernel, ArchiveMode::Interrupt).map_err(|error| explain(&error))?;
        self.kernels.remove(name);
        if self.current == name {
            if let Some(other) = self.kernels.keys().next() {
                self.current = other.clone();
            }
        }
        Ok(())
    }
}
