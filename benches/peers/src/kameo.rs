//! `kameo`: actors that are tasks.

use std::convert::Infallible;

use kameo::actor::{Actor, ActorRef, Spawn};
use kameo::message::{Context, Message};
use tokio::runtime::Runtime;

use crate::peer::Peer;
use crate::task::Task;

pub(crate) struct Kameo<'r> {
    runtime: &'r Runtime,
}

impl<'r> Kameo<'r> {
    pub(crate) fn new(runtime: &'r Runtime) -> Self {
        Self { runtime }
    }
}

impl Peer for Kameo<'_> {
    const NAME: &'static str = "kameo";
    type Session = ActorRef<Worker>;

    fn open(&self) -> ActorRef<Worker> {
        self.runtime.block_on(async {
            let session = Worker::spawn(Worker);
            session.wait_for_startup().await;
            session
        })
    }

    fn ask(&self, session: &ActorRef<Worker>, task: Task) {
        self.runtime.block_on(async { session.ask(task).await.expect("the actor answers") });
    }

    fn ask_all(&self, sessions: &[ActorRef<Worker>], task: Task) {
        let asks = sessions.iter().map(|session| async move { session.ask(task).await.expect("the actor answers") });
        self.runtime.block_on(futures::future::join_all(asks));
    }

    fn cycle(&self) {
        self.runtime.block_on(async {
            let session = Worker::spawn(Worker);
            session.ask(Task::Nothing).await.expect("the actor answers");
            session.stop_gracefully().await.expect("the actor runs");
        });
    }

    fn close_all(&self, sessions: Vec<ActorRef<Worker>>) {
        self.runtime.block_on(async {
            for session in &sessions {
                session.stop_gracefully().await.expect("the actor runs");
                session.wait_for_shutdown().await;
            }
        });
    }
}

pub(crate) struct Worker;

impl Actor for Worker {
    type Args = Self;
    type Error = Infallible;

    async fn on_start(worker: Self, _actor: ActorRef<Self>) -> Result<Self, Infallible> {
        Ok(worker)
    }
}

impl Message<Task> for Worker {
    type Reply = ();

    async fn handle(&mut self, task: Task, _context: &mut Context<Self, ()>) {
        task.work_in_a_task().await;
    }
}
