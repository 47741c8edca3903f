//! `tonari-actor`: actors with a thread each. They have no answers of their own, so a message brings a channel for it.

use std::sync::Mutex;

use ::turnwise::crossbeam_channel::{bounded, unbounded, Sender};
use tonari_actor::{Actor, Addr, Context, System};

use crate::peer::Peer;
use crate::task::Task;

pub(crate) struct Tonari {
    /// Replaced by another once its actors have been stopped: there is no other way to stop one.
    system: Mutex<System>,
}

impl Tonari {
    pub(crate) fn new() -> Self {
        Self { system: Mutex::new(System::new("peers")) }
    }
}

impl Peer for Tonari {
    const NAME: &'static str = "tonari";
    type Session = Addr<Message>;

    fn open(&self) -> Addr<Message> {
        self.system.lock().expect("nobody panics").spawn(Worker).expect("a thread")
    }

    fn ask(&self, session: &Addr<Message>, task: Task) {
        let (answer, answered) = bounded(1);
        session.send(Message { task, answer }).expect("it listens");
        answered.recv().expect("it answers");
    }

    fn ask_all(&self, sessions: &[Addr<Message>], task: Task) {
        let (answer, answered) = unbounded();
        for session in sessions {
            session.send(Message { task, answer: answer.clone() }).expect("it listens");
        }
        answered.iter().take(sessions.len()).for_each(drop);
    }

    fn cycle(&self) {
        let mut system = System::new("one actor");
        let session = system.spawn(Worker).expect("a thread");
        self.ask(&session, Task::Nothing);
        system.shutdown().expect("no panic");
    }

    fn close_all(&self, _sessions: Vec<Addr<Message>>) {
        let mut system = self.system.lock().expect("nobody panics");
        system.shutdown().expect("no panic");
        *system = System::new("peers");
    }
}

pub(crate) struct Message {
    task: Task,
    answer: Sender<()>,
}

struct Worker;

impl Actor for Worker {
    type Message = Message;
    type Error = String;
    type Context = Context<Message>;

    fn handle(&mut self, _context: &mut Context<Message>, message: Message) -> Result<(), String> {
        message.task.work();
        message.answer.send(()).map_err(|error| error.to_string())
    }
}
