//! `ractor`: actors that are tasks.

use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use tokio::runtime::Runtime;

use crate::peer::Peer;
use crate::task::Task;

pub(crate) struct Ractor<'r> {
    runtime: &'r Runtime,
}

impl<'r> Ractor<'r> {
    pub(crate) fn new(runtime: &'r Runtime) -> Self {
        Self { runtime }
    }
}

impl Peer for Ractor<'_> {
    const NAME: &'static str = "ractor";
    type Session = ActorRef<Message>;

    fn open(&self) -> ActorRef<Message> {
        self.runtime.block_on(spawn())
    }

    fn ask(&self, session: &ActorRef<Message>, task: Task) {
        self.runtime.block_on(ask(session, task));
    }

    fn ask_all(&self, sessions: &[ActorRef<Message>], task: Task) {
        let asks = sessions.iter().map(|session| ask(session, task));
        self.runtime.block_on(futures::future::join_all(asks));
    }

    fn cycle(&self) {
        self.runtime.block_on(async {
            let session = spawn().await;
            ask(&session, Task::Nothing).await;
            session.stop(None);
        });
    }

    fn close_all(&self, sessions: Vec<ActorRef<Message>>) {
        self.runtime.block_on(async {
            for session in sessions {
                session.stop_and_wait(None, None).await.expect("the actor runs");
            }
        });
    }
}

async fn spawn() -> ActorRef<Message> {
    let (session, _task) = Actor::spawn(None, Worker, ()).await.expect("the actor starts");
    session
}

async fn ask(session: &ActorRef<Message>, task: Task) {
    ractor::call!(session, Message, task).expect("the actor answers");
}

pub(crate) struct Message(Task, RpcReplyPort<()>);

struct Worker;

impl Actor for Worker {
    type Msg = Message;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _actor: ActorRef<Message>, _arguments: ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn handle(
        &self,
        _actor: ActorRef<Message>,
        Message(task, reply): Message,
        _state: &mut (),
    ) -> Result<(), ActorProcessingErr> {
        task.work_in_a_task().await;
        Ok(reply.send(())?)
    }
}
