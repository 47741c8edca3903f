//! `tonari-actor`: actors that each have a thread. A message has no reply of its own, so it carries a channel for one.

use std::sync::Mutex;

use ::turnwise::crossbeam_channel::{bounded, unbounded, Sender};
use tonari_actor::{Actor, Addr, Context, System};

use crate::peer::Peer;
use crate::task::Task;

pub(crate) struct Tonari {
    /// Replaced when its actors have been stopped. Only the shutdown of a system stops an actor.
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
        self.system.lock().expect("the lock is not poisoned").spawn(Worker).expect("a thread")
    }

    fn ask(&self, session: &Addr<Message>, task: Task) {
        let (answer, answered) = bounded(1);
        session.send(Message { task, answer }).expect("the actor runs");
        answered.recv().expect("the actor answers");
    }

    fn ask_all(&self, sessions: &[Addr<Message>], task: Task) {
        let (answer, answered) = unbounded();
        for session in sessions {
            session.send(Message { task, answer: answer.clone() }).expect("the actor runs");
        }
        answered.iter().take(sessions.len()).for_each(drop);
    }

    fn cycle(&self) {
        let mut system = System::new("one actor");
        let session = system.spawn(Worker).expect("a thread");
        self.ask(&session, Task::Nothing);
        system.shutdown().expect("no actor panics");
    }

    fn close_all(&self, _sessions: Vec<Addr<Message>>) {
        let mut system = self.system.lock().expect("the lock is not poisoned");
        system.shutdown().expect("no actor panics");
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
