//! The table of mutations. Each has a file, its edits, and the tests of which one has to fail.

use Proof::{Acp, Contract, History, Loom, Shuttle, Store};

/// A deliberate breakage of a protocol.
pub(crate) struct Mutation {
    pub(crate) name: &'static str,
    pub(crate) file: &'static str,
    /// Pairs of a text that is in the file exactly once, and its replacement.
    pub(crate) edits: &'static [(&'static str, &'static str)],
    /// The tests of which one has to fail.
    pub(crate) proof: Proof,
}

/// A way to run tests, with a filter of their names.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Proof {
    /// The tests of the contract, on real threads.
    Contract(&'static str),
    /// The tests of the connection to editors, over pipes and in its modules.
    Acp(&'static str),
    /// The tests of kept sessions, on real threads and real files.
    Store(&'static str),
    /// Random histories, on real threads. Only for a breakage that every run of the default length finds.
    History,
    /// The scenarios under shuttle.
    Shuttle(&'static str),
    /// The scenarios under loom.
    Loom(&'static str),
}

const fn mutation(
    name: &'static str,
    file: &'static str,
    edits: &'static [(&'static str, &'static str)],
    proof: Proof,
) -> Mutation {
    Mutation { name, file, edits, proof }
}

pub(crate) const MUTATIONS: &[Mutation] = &[
    // Admission, close, the end of a turn.
    mutation(
        "admission loads and stores instead of comparing and swapping",
        "src/status/gate.rs",
        &[(
            "self.0.compare_exchange_weak(seen.0, next, Ordering::SeqCst, Ordering::SeqCst)",
            "{ self.0.store(next, Ordering::SeqCst); Ok::<u64, u64>(next) }",
        )],
        Loom("c28"),
    ),
    mutation(
        "the end of a turn overwrites a concurrent close",
        "src/status/gate.rs",
        &[(
            "        GateState(self.0.fetch_and(!flags, Ordering::SeqCst) & !flags)",
            "        let seen = self.0.load(Ordering::SeqCst);\n        self.0.store(seen & !flags, Ordering::SeqCst);\n        GateState(seen & !flags)",
        )],
        Loom("c28"),
    ),
    mutation(
        "a response is accepted after the interrupt of its turn",
        "src/turn/input.rs",
        &[("if entry.cancel.is_cancelled() {", "if entry.cancel.is_cancelled() && list.entries.len() > 9 {")],
        Contract("c45_after_an_interrupt"),
    ),
    mutation(
        "a response leaves its request on the list",
        "src/turn/input.rs",
        &[("            self.take_off(&mut list, place)\n        };\n        entry.answer", "            list.entries[place].answer.clone()\n        };\n        entry")],
        Contract("c45_the_first_response_wins"),
    ),
    mutation(
        "a turn keeps its permit while it waits for input",
        "src/turn/input.rs",
        &[("        let permit = reentrancy::lend_permit_of(permit);", "        let permit = reentrancy::lend_permit_of(permit).filter(|_| false);")],
        Shuttle("c44_a_turn_that_waits"),
    ),
    mutation(
        "an answer that was accepted is lost to an interrupt",
        "src/turn/input.rs",
        &[("    let response = pending.end();", "    let response = pending.end().filter(|_| !cancel.is_cancelled());")],
        Contract("c45_of_a_response_and_an_interrupt"),
    ),
    mutation(
        "a close sends no wake-up command when a request that can be taken back is queued",
        "src/session/handle.rs",
        &[("!contents.items.iter().any(|command| matches!(command, Command::Wake))", "contents.items.is_empty()")],
        Shuttle("c27_a_close_is_noticed"),
    ),
    mutation(
        "a takeover closes a session whose turn runs",
        "src/status/gate.rs",
        &[("(gate & (RUNNING | CLOSED) == 0).then_some(gate | CLOSED)", "Some(gate | CLOSED)")],
        Shuttle("c42"),
    ),
    mutation(
        "a faulted session admits turns",
        "src/status/gate.rs",
        &[("} else if self.is_faulted() {\n            Err(Refusal::Faulted)", "} else if false {\n            Err(Refusal::Faulted)")],
        Shuttle("c31"),
    ),
    mutation(
        "the token is stored after the admission, outside of the lock",
        "src/session/admission.rs",
        &[(
            "        let mut admissions = self.admissions.lock();\n        let turn = self.gate().admit(reserved).map_err(|refusal| self.obstacle(refusal, &admissions))?;\n        admissions.admit",
            "        let turn = self.gate().admit(reserved).map_err(|refusal| self.obstacle(refusal, &self.admissions.lock()))?;\n        self.admissions.lock().admit",
        )],
        Loom("c28"),
    ),
    mutation(
        "an interrupt of one turn cancels any turn",
        "src/session/admission.rs",
        &[("if only.is_none_or(|only| only == turn.id)", "if only.is_none_or(|_| turn.id.get() > 0)")],
        Contract("c19"),
    ),
    // The queue of turns.
    mutation(
        "the gate opens between two queued turns",
        "src/session/admission.rs",
        &[("(Some(_), _) => self.gate().state(),", "(Some(_), _) => self.gate().end_turn(),")],
        Contract("c49_the_hand_over_lets"),
    ),
    mutation(
        "an accepted turn is pushed after the lock is given up",
        "src/session/admission.rs",
        &[(
            "            let turn_id = match gate.accept(reserved) {",
            "            let turn_id = match gate.state().is_running().then(|| gate.accept(reserved)).unwrap_or(Ok(TurnId::new(1))) {",
        ), (
            "            Err(Refusal::Busy) => {}\n",
            "            Err(Refusal::Busy) => { drop(admissions); crate::sync::yield_now(); admissions = self.admissions.lock(); }\n",
        )],
        Loom("c49_a_turn_that_is_accepted"),
    ),
    mutation(
        "a queued turn has no hook that withdraws it",
        "src/session/admission.rs",
        &[("                self.arm_withdrawal(turn_id, &cancel);\n", "")],
        Contract("c49_a_full_queue"),
    ),
    mutation(
        "a queued turn goes to the head of the queue",
        "src/session/admission.rs",
        &[("WhenBusy::Refuse | WhenBusy::Queue => queue.push_back(queued)", "WhenBusy::Refuse | WhenBusy::Queue => queue.push_front(queued)")],
        History,
    ),
    mutation(
        "the queue takes one turn more than its capacity",
        "src/session/admission.rs",
        &[("admissions.queue.len() >= capacity {", "admissions.queue.len() > capacity {")],
        History,
    ),
    mutation(
        "a turn that a full queue refuses takes a number",
        "src/session/admission.rs",
        &[("            return Err((Obstacle::Refused(SessionError::QueueFull", "            let _ = self.gate().accept(reserved);\n            return Err((Obstacle::Refused(SessionError::QueueFull")],
        History,
    ),
    mutation(
        "a superseding turn cancels the turn that is admitted after it is queued",
        "src/session/admission.rs",
        &[(
            "                    superseded.cancel_and_run_hooks(CancelReason::Superseded);",
            "                    drop(superseded);\n                    crate::sync::yield_now();\n                    let now = self.admissions.lock().token().cloned();\n                    now.into_iter().for_each(|now| now.cancel_and_run_hooks(CancelReason::Superseded));",
        )],
        History,
    ),
    mutation(
        "a withdrawn turn is not counted",
        "src/session/queue.rs",
        &[("        shared.counters.turns_withdrawn.add_one();\n", "        let _ = shared;\n")],
        History,
    ),
    mutation(
        "a close leaves the queue",
        "src/session/admission.rs",
        &[("        (admissions.token().cloned(), admissions.take_queue(self.status()))", "        (admissions.token().cloned(), VecDeque::new())")],
        Contract("c51_an_interrupting_archive"),
    ),
    mutation(
        "a close reads the queue before it closes the gate",
        "src/session/handle.rs",
        &[
            ("        let first = self.gate().close();\n        let hooks", "        let taken = self.take_to_cancel();\n        let first = self.gate().close();\n        let hooks"),
            ("let (cancel, queued) = self.take_to_cancel();", "let (cancel, queued) = taken;"),
        ],
        Loom("c51_a_close_finds"),
    ),
    mutation(
        "a superseding turn goes to the end of the queue",
        "src/session/admission.rs",
        &[("queue.push_front(queued)", "queue.push_back(queued)")],
        Contract("c50_the_running_turn"),
    ),
    mutation(
        "a full queue cancels the admitted turn all the same",
        "src/session/admission.rs",
        &[(
            "        if when_busy != WhenBusy::Refuse && admissions.queue.len() >= capacity {\n",
            "        if admissions.queue.len() >= capacity {\n            admissions.token().map(|token| token.cancel(CancelReason::Superseded));\n",
        )],
        Contract("c49_a_full_queue"),
    ),
    mutation(
        "a fault leaves the queue",
        "src/session/handle.rs",
        &[("        self.fail_queue(&error);\n", "")],
        Shuttle("c51_a_fault"),
    ),
    mutation(
        "a take in host mode does not wait for the queue",
        "src/session/thread.rs",
        &[
            ("if is_hosting { self.handle.close_if_nothing_queued() } else", "if is_hosting { gate.close() } else"),
            ("        if is_hosting && self.handle.has_queued_turns() {", "        if is_hosting && self.takeovers.len() > 9 {"),
        ],
        Shuttle("c49_a_take_comes"),
    ),
    mutation(
        "the withdrawal of the last queued turn does not wake the session thread",
        "src/session/admission.rs",
        &[("            self.wake();\n", "")],
        Shuttle("c49_a_take_comes"),
    ),
    mutation(
        "a failed build hands over to a queued turn",
        "src/session/admission.rs",
        &[("            admissions.is_ending = true;\n            admissions.take_queue(self.status())", "            admissions.is_ending = false;\n            VecDeque::<QueuedTurn>::new()")],
        Contract("c51_a_failed_build"),
    ),
    mutation(
        "a second cancel returns before the first has reached the child tokens",
        "src/cancel.rs",
        &[(
            "            let children = std::mem::take(&mut hooks.children);\n",
            "            let children = std::mem::take(&mut hooks.children);\n            drop(hooks);\n            crate::sync::yield_now();\n",
        )],
        Shuttle("c45_after_an_interrupt"),
    ),
    mutation(
        "a take that has lost finishes the close of another thread",
        "src/session/thread.rs",
        &[("        if is_taken {\n", "        if is_taken || gate.state().is_closed() {\n")],
        Shuttle("c40_host_mode_fails"),
    ),
    mutation(
        "of two takes the second forgets that the first has closed the session",
        "src/session/thread.rs",
        &[("                is_taken |= closed;\n", "                is_taken = closed;\n")],
        Shuttle("c43_one_of_two_takes"),
    ),
    mutation(
        "a turn that supersedes a build cancels it",
        "src/session/admission.rs",
        &[("let is_building = self.gate().state().is_building();", "let is_building = false;")],
        Contract("c50_a_turn_that_supersedes_a_build"),
    ),
    mutation(
        "an answer that was accepted before its event had room is lost",
        "src/turn/input.rs",
        &[("    let response = pending.end();\n", "    let response = pending.end().filter(|_| announced.is_ok());\n")],
        Contract("c45_an_answer_counts"),
    ),
    // Steering, and the wait for a message.
    mutation(
        "the end of a turn leaves the messages that steer it",
        "src/inbox/queue.rs",
        &[("contents.take_if(|item| item.steers.is_some())", "contents.take_if(|item| item.steers.is_some() && item.is_dismissal())")],
        Contract("c52_what_a_turn_has_not_taken"),
    ),
    mutation(
        "a message is accepted after the end of its turn's steering",
        "src/inbox/queue.rs",
        &[("            contents.extra.steering_over = Some(turn);\n", "            contents.extra.steering_over = Some(turn).filter(|_| false);\n")],
        Shuttle("c52_a_message_is_taken"),
    ),
    mutation(
        "a caller that steers gives the lock of the admissions up",
        "src/session/steering.rs",
        &[(
            "        match admissions.turn() {\n",
            "        let seen = admissions.turn();\n        drop(admissions);\n        match seen {\n",
        )],
        Shuttle("c52_a_message_is_taken"),
    ),
    mutation(
        "a message wakes no waiting thread",
        "src/inbox/queue.rs",
        &[("            let waiting = extra.waiting.clone();\n", "            let waiting: Vec<Arc<Signal>> = Vec::new();\n")],
        Shuttle("c52_two_waiting_threads"),
    ),
    mutation(
        "a close wakes no thread that waits for a message",
        "src/inbox/queue.rs",
        &[("(std::mem::take(&mut contents.items), contents.extra.waiting.clone())", "(std::mem::take(&mut contents.items), Vec::<Arc<Signal>>::new())")],
        Shuttle("c52_a_waiting_turn"),
    ),
    mutation(
        "a cancelled thread takes a message with it",
        "src/inbox/wait.rs",
        &[
            ("            cancel.check()?;\n", ""),
            ("(Some(message), _) => return Ok(Some(message)),", "(Some(message), _) => return cancel.check().map(|()| Some(message)),\n                (None, _) if cancel.is_cancelled() => return cancel.check().map(|()| None),"),
        ],
        Shuttle("c52_two_waiting_threads"),
    ),
    mutation(
        "a message wakes one waiting thread, whether it still waits or not",
        "src/inbox/queue.rs",
        &[("                waiting.iter().for_each(|signal| signal.notify());\n                Ok(())", "                waiting.iter().take(1).for_each(|signal| signal.notify());\n                Ok(())")],
        Shuttle("c52_two_waiting_threads"),
    ),
    mutation(
        "a list reads queue and gate without a check",
        "src/status/slab.rs",
        &[("self.gate.state() == gate && self.queue_length.state() == queue;", "self.gate.state() == gate || self.queue_length.state() == queue || queued < usize::MAX;")],
        Loom("c24_queue_and_gate"),
    ),
    mutation(
        "a read loads the gate once",
        "src/session/handle.rs",
        &[("if self.gate().state() == before {", "if self.gate().state() == before || true {")],
        Loom("c24"),
    ),
    mutation(
        "a reader accepts figures of two instants",
        "src/status/published.rs",
        &[("let is_consistent = version.is_multiple_of(2) && self.version.load(Ordering::Relaxed) == version;", "let is_consistent = version < u64::MAX;")],
        Contract("c24_lists"),
    ),
    mutation(
        "a session that changes during a list moves to the end of the page",
        "src/ephemeral/registry.rs",
        &[("page.insert(place - closed, summary)", "{ let _ = (place, closed); page.push(summary) }")],
        Contract("c24_lists"),
    ),
    mutation(
        "an admission that is given back does not wake the session thread",
        "src/session/admission.rs",
        &[("            self.handle.wake();\n", "")],
        Loom("c28"),
    ),
    mutation(
        "the gate is faulted before the message is stored",
        "src/session/handle.rs",
        &[
            ("        let last = std::mem::replace(&mut *self.fault.lock(), message.clone());\n        drop(last);\n        self.gate().fault();", "        self.gate().fault();\n        let last = std::mem::replace(&mut *self.fault.lock(), message.clone());\n        drop(last);"),
        ],
        Shuttle("c31"),
    ),
    mutation(
        "a fault leaves the inbox open",
        "src/session/handle.rs",
        &[("        // The faulted session runs no interactions.\n        self.shared.inbox.close_until_restart();\n", "")],
        Shuttle("c39_a_fault"),
    ),
    mutation(
        "a closed session's thread ends although a turn was admitted",
        "src/session/thread.rs",
        &[("if gate.is_closed() && !gate.is_running() {", "if gate.is_closed() {")],
        Shuttle("c28"),
    ),
    mutation(
        "host mode ends when the gate is closed, before the close is done",
        "src/session/thread.rs",
        &[("let is_closed = self.handle.is_close_done();", "let is_closed = self.handle.gate().state().is_closed();")],
        Shuttle("c41"),
    ),
    mutation(
        "a turn is answered before its snapshot is published",
        "src/session/thread.rs",
        &[("let commit = self.publish_unless_faulted(&result);", "let commit = Commit::Advance;")],
        Shuttle("c11"),
    ),
    mutation(
        "the gate opens before the active entry is cleared",
        "src/session/admission.rs",
        &[(
            "            break (next, std::mem::replace(&mut admissions.entry, entry), gate);",
            "            drop(admissions);\n            let mut admissions = self.admissions.lock();\n            break (next, std::mem::replace(&mut admissions.entry, entry), gate);",
        )],
        Shuttle("c20"),
    ),
    mutation(
        "a turn is answered before the gate opens",
        "src/turn/handle.rs",
        &[(
            "        slot.timings = TurnTimings { queued: slot.timings.queued, ..calls };",
            "        slot.timings = TurnTimings { queued: slot.timings.queued, ..calls };\n        self.outcome.finished.set();",
        )],
        Shuttle("c11"),
    ),
    mutation(
        "the outcome is announced before it is stored",
        "src/turn/handle.rs",
        &[(
            "        let mut slot = self.outcome.slot.lock();",
            "        self.outcome.finished.set();\n        let mut slot = self.outcome.slot.lock();",
        )],
        Loom("c11"),
    ),
    mutation(
        "a panic of the agent is not contained",
        "src/session/thread.rs",
        &[("let ran = contain(|| call(agent, context));", "let ran: Result<_, PanicMessage> = Ok(call(agent, context));")],
        Contract("c31"),
    ),
    mutation(
        "the end of host mode does not answer the subscribed interactions",
        "src/session/thread.rs",
        &[("        self.handle.shared().inbox.fail_subscribed();\n", "")],
        Contract("c40_however"),
    ),
    mutation(
        "an interaction has left the inbox before it is recorded as running",
        "src/inbox/queue.rs",
        &[
            ("            if !next.is_dismissal() {\n                extra.running = Some((next.interaction.id, cancel.clone()));\n            }\n            Some(next)\n        })\n", "            Some(next)\n        });\n        taken.iter().for_each(|next| self.begin_running(next, cancel));\n        taken\n"),
            ("        self.queue.change(|Contents { items, extra, .. }| {\n            let next = take_oldest(items, extra)?;", "        let taken = self.queue.change(|Contents { items, extra, .. }| {\n            let next = take_oldest(items, extra)?;"),
        ],
        Shuttle("c40_one_interaction"),
    ),
    mutation(
        "a cancelled turn does not cancel the interaction that it runs",
        "src/cancel.rs",
        &[("let of_children = children.iter().filter_map(", "let of_children = children.iter().take(0).filter_map(")],
        Contract("c40"),
    ),
    // Cancel tokens and hooks.
    mutation(
        "a guard does not wait for its hook",
        "src/cancel.rs",
        &[("while hooks.running.is_some_and(|(other, thread)| other == id && thread != current().id()) {", "while hooks.running.is_some_and(|(other, thread)| other == id && thread != current().id() && false) {")],
        Loom("c22"),
    ),
    mutation(
        "a hook that is armed after the cancel is not run",
        "src/cancel.rs",
        &[("            Some(_) => contain_and_log(\"a cancel hook\", hook),", "            Some(_) => drop(hook),")],
        Loom("c22"),
    ),
    mutation(
        "a thread that waits for a cancel is woken before the reason is set",
        "src/cancel.rs",
        &[(
            "        self.cell.state.compare_exchange(0, encode(reason)",
            "        self.cell.fired.set();\n        self.cell.state.compare_exchange(0, encode(reason)",
        )],
        Shuttle("c20"),
    ),
    mutation(
        "a token is not sealed at the end of its turn",
        "src/cancel.rs",
        &[("        self.cell.state.fetch_or(SEALED, Ordering::SeqCst);\n", "")],
        Contract("c19"),
    ),
    mutation(
        "a latch creates its channel without a check whether it is set",
        "src/wait/latch.rs",
        &[("if !self.is_set() {", "if !self.is_set() || true {")],
        Loom("latch"),
    ),
    mutation(
        "a latch drops its sender before it is set",
        "src/wait/latch.rs",
        &[
            ("        self.set.store(true, Ordering::SeqCst);\n        let sender = self.sender.lock().take();\n", "        let sender = self.sender.lock().take();\n"),
            ("        drop(sender);\n    }\n\n    /// Waits until", "        drop(sender);\n        self.set.store(true, Ordering::SeqCst);\n    }\n\n    /// Waits until"),
        ],
        Loom("latch"),
    ),
    // The queues at which a session thread waits.
    mutation(
        "an item wakes no thread",
        "src/wait/work_queue.rs",
        &[("if has_items { state.thread.set_notified() } else { None }", "if has_items && false { state.thread.set_notified() } else { None }")],
        Loom("work_queue"),
    ),
    mutation(
        "a thread records that it waits after its check of the queue, under another lock",
        "src/wait/work_queue.rs",
        &[(
            "            let mut state = self.state.lock();\n            let has_items = !state.contents.items.is_empty();\n            let next",
            "            let has_items = !self.state.lock().contents.items.is_empty();\n            let mut state = self.state.lock();\n            let next",
        )],
        Loom("work_queue"),
    ),
    mutation(
        "a thread that is about to wait gets no signal for the items in the queue",
        "src/wait/work_queue.rs",
        &[("        if has_items {\n            self.signal.notify();", "        if has_items && false {\n            self.signal.notify();")],
        Loom("work_queue"),
    ),
    mutation(
        "a closed queue accepts items",
        "src/wait/work_queue.rs",
        &[("            if contents.is_closed {\n", "            if contents.is_closed && false {\n")],
        Loom("work_queue"),
    ),
    mutation(
        "a thread that arrives sends no queued wake-up",
        "src/wait/wakeups.rs",
        &[("            [state.next(), state.next()]\n", "            [state.next().filter(|_| false), None]\n")],
        Loom("of_two_threads"),
    ),
    mutation(
        "a wake-up is queued after the check of the number in flight, under another lock",
        "src/wait/wakeups.rs",
        &[("                state.queue.push_back(sender.clone());", "                drop(state);\n                self.state.lock().queue.push_back(sender.clone());")],
        Shuttle("wakeups"),
    ),
    mutation(
        "a thread that has arrived stays counted as in flight",
        "src/wait/wakeups.rs",
        &[("            state.in_flight -= 1;\n", "")],
        Shuttle("wakeups"),
    ),
    mutation(
        "the limit of wake-ups falls below one",
        "src/wait/wakeups.rs",
        &[("        self.limit = limit.clamp(MIN_IN_FLIGHT, MAX_IN_FLIGHT);", "        self.limit = limit.clamp(0, MAX_IN_FLIGHT);")],
        Shuttle("wakeups"),
    ),
    mutation(
        "a thread does not report its arrival",
        "src/wait/work_queue.rs",
        &[("if let Self::Notified(throttle) = self {", "if let (Self::Notified(throttle), true) = (self, false) {")],
        Shuttle("wakeups"),
    ),
    mutation(
        "a session that leaves its select by another arm does not report the wake-up for a command",
        "src/session/thread.rs",
        &[("        commands.end_wait();\n", "        if matches!(ready, Ready::Commands) {\n            commands.end_wait();\n        }\n")],
        Shuttle("c40_a_session_that_leaves"),
    ),
    mutation(
        "a session that leaves its select by another arm does not report the wake-up for an interaction",
        "src/session/thread.rs",
        &[("        inbox.end_wait();\n", "        if matches!(ready, Ready::Inbox) {\n            inbox.end_wait();\n        }\n")],
        Shuttle("c40_a_session_that_exports"),
    ),
    mutation(
        "a close does not wake the session thread",
        "src/session/handle.rs",
        &[("            self.wake();\n        }\n        self.shared", "        }\n        self.shared")],
        Shuttle("c28"),
    ),
    mutation(
        "a page that has lost a session between two reads is returned",
        "src/ephemeral/registry.rs",
        &[("Ok((!is_full || closed == 0).then_some(page))", "Ok((!is_full || closed == 0 || true).then_some(page))")],
        Shuttle("c25"),
    ),
    // Permits.
    mutation(
        "a released permit is granted to no waiting thread",
        "src/permits/semaphore.rs",
        &[("        if before & HAS_WAITERS != 0 {", "        if before & HAS_WAITERS != 0 && false {")],
        Loom("c16"),
    ),
    mutation(
        "a thread that queues does not check for a free permit again",
        "src/permits/semaphore.rs",
        &[("        self.grant_free_permits();\n        in_queue();", "        in_queue();")],
        Loom("c16"),
    ),
    mutation(
        "two threads take the same permit",
        "src/permits/semaphore.rs",
        &[(
            "self.state.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_more)",
            "{ let seen = self.state.load(Ordering::SeqCst); one_more(seen).map(|more| { self.state.store(more, Ordering::SeqCst); seen }).ok_or(seen) }",
        )],
        Loom("c16"),
    ),
    mutation(
        "a permit granted in the instant of a cancel is lost",
        "src/permits/semaphore.rs",
        &[("(!self.leave_queue(&grant)).then(", "(!self.leave_queue(&grant) && false).then(")],
        Loom("c16"),
    ),
    mutation(
        "a waiting session keeps its permit",
        "src/permits/turn_permit.rs",
        &[("            if !state.is_running || !state.is_of(only) {\n                return None;\n            }\n            state.waits += 1;", "            if !state.is_running || true {\n                return None;\n            }\n            state.waits += 1;")],
        Shuttle("c16"),
    ),
    mutation(
        "the last wait of a turn does not count during its permit request",
        "src/permits/turn_permit.rs",
        &[
            ("        // A run always has a token.\n", "        self.waits = 0;\n"),
            ("        self.waits -= 1;\n        if self.waits > 0 {", "        if self.waits > 0 {"),
        ],
        Shuttle("c60"),
    ),
    mutation(
        "a permit that is granted while another thread waits is kept",
        "src/permits/turn_permit.rs",
        &[("        self.waits -= 1;\n        if self.waits > 0 {", "        self.waits -= 1;\n        if self.waits > 99 {")],
        Shuttle("c60"),
    ),
    mutation(
        "a sleep keeps the permit",
        "src/turn/shared.rs",
        &[("        let permit = reentrancy::lend_permit_of(&self.permit);\n", "        let permit = self.permit.as_ref();\n"), ("        if let Some(permit) = permit {\n            permit.end_wait();\n        }\n", "        let _ = (permit, reentrancy::has_waiter());\n")],
        Contract("c60"),
    ),
    mutation(
        "a thread of a turn that waits for room keeps the permit",
        "src/turn/events.rs",
        &[("                let _permit = reentrancy::lend_permit_of(&self.shared.permit);\n", "")],
        Contract("c60"),
    ),
    mutation(
        "a receive keeps the permit",
        "src/context/turn.rs",
        &[("        let _permit = reentrancy::lend_permit_of(&self.events.shared().permit);\n        wait()", "        let _ = reentrancy::has_waiter();\n        wait()")],
        Contract("c60_an_unknown_wait"),
    ),
    mutation(
        "a cancelled turn takes a message",
        "src/context/turn.rs",
        &[("        cancel.check()?;\n        // Without a wait", "        // Without a wait")],
        Contract("c60_a_cancelled_turn_receives"),
    ),
    mutation(
        "the time that remains is not counted from now",
        "src/time/clock.rs",
        &[("        at.saturating_duration_since(self.now())", "        at.saturating_duration_since(at)")],
        Contract("c63"),
    ),
    // Waits until a session is idle.
    mutation(
        "a caller that waits for an idle session reads the gate once",
        "src/session/handle.rs",
        &[("Ok((!self.check_idle(self.gate().state())?).then_some(wait))", "Ok(Some(wait))")],
        Shuttle("c53_a_wait_for_an_idle_session_misses_no_end"),
    ),
    mutation(
        "the end of a turn is reported to a caller that came after it",
        "src/session/idle.rs",
        &[("self.report(IdleReport::Idle, |entry| entry.seen <= ended);", "self.report(IdleReport::Idle, |_| ended > 0);")],
        Shuttle("c53_a_wait_for_an_idle_session_is_not_ended"),
    ),
    mutation(
        "a session counts as idle when it hands over to a queued turn",
        "src/session/handle.rs",
        &[("        if gate.refusal().is_ok() {\n            self.idle_waiters", "        if gate.turns() > 0 {\n            self.idle_waiters")],
        History,
    ),
    mutation(
        "a session counts as idle while its agent is built",
        "src/session/handle.rs",
        &[("        match gate.refusal() {\n            Ok(()) => Ok(true),", "        match gate.refusal() {\n            _ if gate.is_building() => Ok(true),\n            Ok(()) => Ok(true),")],
        History,
    ),
    mutation(
        "a fault does not end the wait for an idle session",
        "src/session/handle.rs",
        &[("        self.idle_waiters.report_end(IdleReport::Faulted);\n", "        let _ = IdleReport::Faulted;\n")],
        Contract("c53_a_close_or_a_fault"),
    ),
    // The committed history and its boundary.
    mutation(
        "the boundary is published before the history",
        "src/status/history.rs",
        &[("        committed.boundary = boundary;\n", "        committed.boundary = boundary;\n        drop(committed);\n        let mut committed = self.0.lock();\n")],
        Loom("c57"),
    ),
    mutation(
        "history and boundary are read under two locks",
        "src/status/history.rs",
        &[("        let committed = self.0.lock();\n        (committed.history.clone(), committed.boundary)", "        let history = self.get();\n        (history, self.0.lock().boundary)")],
        Loom("c57"),
    ),
    mutation(
        "the boundary stays when the history advances",
        "src/status/history.rs",
        &[("        committed.boundary = boundary;\n", "        let _ = boundary;\n")],
        History,
    ),
    mutation(
        "subscribers get the terminal event before the commit",
        "src/subscription/bus.rs",
        &[
            ("        let committed = commit(first + count - 1);\n", ""),
            ("        (above_limit, committed)\n", "        drop(state);\n        (above_limit, commit(first + count - 1))\n"),
        ],
        Shuttle("c57_a_receiver_or_subscriber"),
    ),
    mutation(
        "the boundary is before the terminal event",
        "src/subscription/bus.rs",
        &[("commit(first + count - 1)", "commit(first - 1)")],
        Contract("c57_the_history_is_that"),
    ),
    mutation(
        "the boundary is behind the terminal event if there is no subscriber",
        "src/subscription/bus.rs",
        &[("return Some((next + events) / ONE - 1)", "return Some((next + events) / ONE)")],
        Contract("c57_a_client_that_has_the_last"),
    ),
    mutation(
        "a receiver gets the terminal event before the commit",
        "src/turn/events.rs",
        &[(
            "            self.commit(commit, last);\n            if !self.has_no_receiver() {\n                self.send_or_wait(event(), &self.cancel, PermitDuringWait::GivenBack);\n            }\n            return;",
            "            if !self.has_no_receiver() {\n                self.send_or_wait(event(), &self.cancel, PermitDuringWait::GivenBack);\n            }\n            self.commit(commit, last);\n            return;",
        )],
        Shuttle("c57_a_receiver_or_subscriber"),
    ),
    mutation(
        "a receiver gets the terminal event before the subscribers",
        "src/turn/events.rs",
        &[(
            "        self.publish_last(iter::once(event), commit);\n        if let Some(event) = copy {\n            self.send_or_wait(event, &self.cancel, PermitDuringWait::GivenBack);\n        }\n",
            "        if let Some(event) = copy {\n            self.send_or_wait(event, &self.cancel, PermitDuringWait::GivenBack);\n        }\n        self.publish_last(iter::once(event), commit);\n",
        )],
        Shuttle("c57_a_receiver_or_subscriber"),
    ),
    mutation(
        "an interaction ends before it is committed",
        "src/turn/events.rs",
        &[
            ("        let above_limit = match self.bus().count_last_unobserved(terminals.len()) {", "        replies.into_iter().zip(&terminals).for_each(|(reply, terminal)| reply.end_with(terminal.clone()));\n        let above_limit = match self.bus().count_last_unobserved(terminals.len()) {"),
            ("        replies.into_iter().zip(&terminals).for_each(|(reply, terminal)| reply.end_with(terminal.clone()));\n        if !self.has_no_receiver() {", "        if !self.has_no_receiver() {"),
        ],
        Shuttle("c57_a_caller_of_an_interaction"),
    ),
    mutation(
        "host mode is committed at its end alone",
        "src/session/running.rs",
        &[("        self.settle_with(result, self.commit);", "        self.settle_with(result, Commit::Stay);")],
        Contract("c57_in_host_mode"),
    ),
    mutation(
        "a history that could not be exported moves the boundary",
        "src/session/thread.rs",
        &[("            None => committed.note_behind(),", "            None => {}")],
        Contract("c57_a_failed_export"),
    ),
    mutation(
        "a turn that has not run leaves the boundary",
        "src/session/running.rs",
        &[("commit: Commit::Advance }, input)", "commit: Commit::Stay }, input)")],
        Contract("c57_a_turn_cancelled_before"),
    ),
    mutation(
        "a new life begins with the boundary of no event",
        "src/session/handle.rs",
        &[("CommittedHistory::new(profile.history, after.event)", "CommittedHistory::new(profile.history, 0)")],
        Store("c57_a_kept_session"),
    ),
    mutation(
        "the record of a session in use is read as if it were at rest",
        "src/store/calls.rs",
        &[("                if let Some(life) = self.live.life(id) {\n                    return Ok(life.history_at());", "                if let Some(life) = self.live.life(id).filter(|_| id.as_uuid().is_nil()) {\n                    return Ok(life.history_at());")],
        Store("c57_an_archived_session"),
    ),
    mutation(
        "a record is read in the middle of a life that has ended since",
        "src/store/calls.rs",
        &[("                if !recorded.is_over && lease.recorded_history()?.is_over {", "                if !recorded.is_over && id.as_uuid().is_nil() {")],
        Shuttle("keeping_c57"),
    ),
    mutation(
        "the boundary of a killed life is that of its last save",
        "src/store/kept.rs",
        &[("(session.history.clone(), session.numbers.reserved().event)", "(session.history.clone(), session.numbers.events)")],
        Store("c57_after_a_kill"),
    ),
    // Restarts of faulted sessions.
    mutation(
        "a restart is refused until the faulted turn has ended",
        "src/session/admission.rs",
        &[("                    admissions.restart = Some(restart);\n                    return Ok(());", "                    drop(restart);\n                    self.gate().fail_restart();\n                    return Err(SessionError::Busy { id: self.id(), turn: admissions.turn() });")],
        Shuttle("c56_a_caller_of_a_queued_turn"),
    ),
    mutation(
        "a restart is not handed over at the end of the faulted turn",
        "src/session/admission.rs",
        &[("        if let Some(restart) = admissions.restart.take() {", "        if let Some(restart) = admissions.restart.take().filter(|_| admissions.queue.is_empty()) {")],
        Shuttle("c56_a_policy_restarts_beside"),
    ),
    mutation(
        "a session that restarts stays faulted during the build",
        "src/status/gate.rs",
        &[("count_change(gate) & !FAULTED | BUILDING | RUNNING", "count_change(gate) | BUILDING | RUNNING")],
        Contract("c56_meanwhile"),
    ),
    mutation(
        "the old agent is dropped after the new one is built",
        "src/session/thread.rs",
        &[("        self.drop_agent();\n        if self.handle.needs_no_agent()", "        if self.handle.needs_no_agent()")],
        Contract("c56_a_restart_builds"),
    ),
    mutation(
        "a restart opens the gate before the inbox",
        "src/session/thread.rs",
        &[("                self.handle.shared().inbox.reopen();\n                self.begin_idle_time();\n                guards.end_build();", "                guards.end_build();\n                self.handle.shared().inbox.reopen();")],
        Shuttle("c56_reads_show"),
    ),
    mutation(
        "a restart opens the inbox of a closed session",
        "src/inbox/queue.rs",
        &[("contents.is_closed = contents.extra.is_ended", "contents.is_closed = false")],
        Shuttle("c56_an_inbox_opens_again"),
    ),
    mutation(
        "a failed restart leaves the gate open",
        "src/status/gate.rs",
        &[("gate & !(BUILDING | RUNNING) | FAULTED;", "gate & !(BUILDING | RUNNING);")],
        Contract("c56_a_build_that_fails"),
    ),
    mutation(
        "a failed restart faults the gate after the lock is given up",
        "src/session/admission.rs",
        &[("            self.gate().fail_restart();\n            (admissions.entry.take(), queued)\n        };", "            (admissions.entry.take(), queued)\n        };\n        self.gate().fail_restart();")],
        Loom("c56_a_turn_that_is_accepted"),
    ),
    mutation(
        "a failed restart leaves its queue",
        "src/session/admission.rs",
        &[("            let queued = admissions.take_queue(self.status());\n            self.gate().fail_restart();", "            let queued = VecDeque::<QueuedTurn>::new();\n            self.gate().fail_restart();")],
        Contract("c56_a_build_that_fails_answers"),
    ),
    mutation(
        "a draining close waits for the build of a restart",
        "src/session/handle.rs",
        &[("self.needless_restart().and_then(|cancel| cancel.cancel(reason)),", "self.needless_restart().filter(|_| false).and_then(|cancel| cancel.cancel(reason)),")],
        Shuttle("c56_a_restart_that_races"),
    ),
    mutation(
        "an agent is built in a session that was closed before its restart was picked up",
        "src/session/thread.rs",
        &[("        if self.handle.needs_no_agent() {", "        if self.handle.needs_no_agent() && id.as_uuid().is_nil() {")],
        Shuttle("c56_a_close_at_the_end"),
    ),
    mutation(
        "a restart stores its token after the lock is given up",
        "src/session/admission.rs",
        &[("                    admissions.entry = Some(Active::of_restart(&restart));\n                    restart", "                    drop(admissions);\n                    let mut admissions = self.admissions.lock();\n                    admissions.entry = Some(Active::of_restart(&restart));\n                    restart")],
        Loom("c56_a_close_finds_the_token"),
    ),
    mutation(
        "a fault commits a half-written history",
        "src/session/thread.rs",
        &[("            Err(SessionError::Faulted { .. }) => Commit::Stay,", "            Err(SessionError::ShuttingDown) => Commit::Stay,")],
        Contract("c56_a_restart_builds"),
    ),
    mutation(
        "an export before a restart asks the agent that panicked",
        "src/session/thread.rs",
        &[("filter(|_| !self.handle.gate().state().is_building())", "filter(|_| true)")],
        Contract("c56_an_export_that_waits"),
    ),
    mutation(
        "a history is committed after the build alone",
        "src/status/history.rs",
        &[("committed.staged.take();", "committed.staged.take().filter(|_| boundary == 0);")],
        Contract("c56_a_restart_builds"),
    ),
    mutation(
        "a policy does not count its restarts",
        "src/session/thread.rs",
        &[("            self.restart_limit.count(clock);\n", "")],
        Contract("c56_a_policy_restarts_a_session"),
    ),
    mutation(
        "a policy counts its restarts for ever",
        "src/session/restart.rs",
        &[("now.saturating_duration_since(*at) >= within", "now.saturating_duration_since(*at) >= within * 100")],
        Contract("c56_a_policy_restarts_a_session"),
    ),
    mutation(
        "a restart by a policy follows the answer of the fault's caller",
        "src/session/thread.rs",
        &[
            ("        let fault = self.handle.fault(message);\n        self.restart_by_policy();\n        fault", "        self.handle.fault(message)"),
            ("        match self.loss().cloned() {\n            None => turn.end(result),", "        let is_fault = matches!(result, Err(SessionError::Faulted { .. }));\n        match self.loss().cloned() {\n            None => turn.end(result),"),
            ("        }\n        self.is_warm = true;\n    }\n\n    /// The error with which the session ends,", "        }\n        self.is_warm = true;\n        if is_fault {\n            self.restart_by_policy();\n        }\n    }\n\n    /// The error with which the session ends,"),
        ],
        Shuttle("c56_a_policy_restarts_beside"),
    ),
    // The wait-for graph, and waits on behalf of a turn.
    mutation(
        "the end of one wait removes the edges of the others",
        "src/reentrancy.rs",
        &[("position.map(|position| count.on_behalf.swap_remove(position).1)", "position.map(|position| { let turn = count.on_behalf.swap_remove(position).1; count.on_behalf.clear(); turn })")],
        Contract("c61_the_end_of_one_of_two_waits"),
    ),
    mutation(
        "a wait through a turn's service belongs to no turn",
        "src/reentrancy.rs",
        &[("        WAITER.with(|slot| *slot.borrow_mut() = Some(Rc::clone(&waiter)));\n", "")],
        Shuttle("c61_a_wait_on_behalf"),
    ),
    mutation(
        "a wait for any turn announces none of them",
        "src/reentrancy.rs",
        &[("        targets.iter().try_for_each(|target| waits.refuse_cycle(waiter, *target))?;\n", "")],
        Contract("c61_a_wait_for_any_turn_is_refused"),
    ),
    mutation(
        "a child is not cancelled with its parent",
        "src/context/sub_session.rs",
        &[("        parent.adopt(cancel);\n", "")],
        Shuttle("c62_a_child_that_begins"),
    ),
    mutation(
        "a leaked sub-session outlives its turn",
        "src/session/thread.rs",
        &[("        context.close_sub_sessions();\n", "")],
        Contract("c62_a_parent_that_panics"),
    ),
    mutation(
        "a sub-session may take longer than its parent",
        "src/context/sub_session.rs",
        &[("|timeout| timeout.min(left)", "|timeout| timeout.max(left)")],
        Contract("c62_a_sub_session_has"),
    ),
    mutation(
        "a cycle of waits is not checked for",
        "src/reentrancy.rs",
        &[("        if self.leads_to(target, waiter.key) {\n            return", "        if self.leads_to(target, waiter.key) && false {\n            return")],
        Shuttle("c33"),
    ),
    mutation(
        "an interrupt does not end the wait for a sub-agent",
        "src/reentrancy.rs",
        &[("let cancelled = cancel.as_ref().map_or_else(", "let cancelled = cancel.as_ref().filter(|_| false).map_or_else(")],
        Shuttle("c34"),
    ),
    mutation(
        "a turn's token ends no wait while the turn's error is converted to text",
        "src/session/thread.rs",
        &[("        turn.announce_end(&result);\n        match", "        self.own.end_turn();\n        turn.announce_end(&result);\n        match")],
        Contract("c34"),
    ),
    // Registry, capacity, shutdown.
    mutation(
        "a shutdown does not mark the registry",
        "src/ephemeral/registry.rs",
        &[("            sessions.shut_down = true;\n", "")],
        Shuttle("c29"),
    ),
    mutation(
        "a wait for a registration does not check the count first",
        "src/ephemeral/registry.rs",
        &[("        if sessions.registered > seen {", "        if sessions.registered > seen && false {")],
        Shuttle("c08"),
    ),
    mutation(
        "a removed entry is replaced by the last one",
        "src/ephemeral/registry.rs",
        &[("let slot = self.entries.get_mut(&id)?;\n        let Entry { handle, .. } = slot.entry.take()?;\n        let number = slot.number;\n        self.gaps += 1;", "let Slot { number, entry } = self.entries.swap_remove(&id)?;\n        let Entry { handle, .. } = entry?;")],
        Contract("c25"),
    ),
    mutation(
        "two sessions are registered with one id",
        "src/ephemeral/registry.rs",
        &[("            if sessions.contains(handle.id()) {", "            if sessions.contains(handle.id()) && false {")],
        Shuttle("c05"),
    ),
    mutation(
        "capacity comes back before the agent is dropped",
        "src/ephemeral/launch.rs",
        &[
            ("            let last_reply = thread::run(start);\n", "            registration.release();\n            let last_reply = thread::run(start);\n"),
            ("            // Capacity and id are free before the last callers are answered.\n            registration.release();\n", ""),
        ],
        Shuttle("c09"),
    ),
    mutation(
        "the end of a session is announced before its id is free",
        "src/ephemeral/core.rs",
        &[(
            "        self.core.registry.remove(self.handle.id());\n        self.handle.ended().set();",
            "        self.handle.ended().set();\n        self.core.registry.remove(self.handle.id());",
        )],
        Shuttle("c09"),
    ),
    mutation(
        "a session that ends leaves its streams open",
        "src/ephemeral/core.rs",
        &[("        self.handle.end();\n", "")],
        Shuttle("c37"),
    ),
    mutation(
        "a failed build answers before its capacity is free",
        "src/ephemeral/launch.rs",
        &[
            ("            registration.release();\n            if let", "            if let"),
            ("                contain_and_log(\"the drop of a session's error\", move || reply.send());\n            }\n", "                contain_and_log(\"the drop of a session's error\", move || reply.send());\n            }\n            registration.release();\n"),
        ],
        Shuttle("c03"),
    ),
    // Reservations.
    mutation(
        "a create overtakes a reserve that waits",
        "src/permits/semaphore.rs",
        &[("self.count_one_unless(HAS_WAITERS).map(", "self.count_one_unless(0).map(")],
        Shuttle("c54_no_unit"),
    ),
    mutation(
        "a shutdown does not end the waits for capacity",
        "src/ephemeral/registry.rs",
        &[("        self.shutdown.set();\n", "")],
        Shuttle("c54_a_shutdown"),
    ),
    mutation(
        "a reservation granted during a shutdown is kept",
        "src/ephemeral/reserve.rs",
        &[("        // The permit is dropped, and so given back, if the shutdown came first.\n        self.refuse_after_shutdown()?;\n", "")],
        Shuttle("c54_a_shutdown"),
    ),
    mutation(
        "a create spends the reservation of another service",
        "src/permits/reservation.rs",
        &[("take_if(|reservation| reservation.permit.is_of(capacity))", "take_if(|_| Arc::strong_count(capacity) > 0)")],
        Contract("c54_a_reservation_of_another"),
    ),
    mutation(
        "a failed create leaves the reservation to a clone",
        "src/store/launch.rs",
        &[("        self.live.claim_reservation(spec)?;\n", "")],
        Store("c54_a_create"),
    ),
    mutation(
        "a wait for capacity keeps the running permit",
        "src/ephemeral/reserve.rs",
        &[("let lent = reentrancy::lend_permit(deadline);", "let lent = reentrancy::lend_permit(deadline).filter(|_| false);")],
        Contract("c54_a_wait_on_a_session_thread_lends"),
    ),
    mutation(
        "a shutdown does not end the idle threads",
        "src/ephemeral/threads.rs",
        &[("            state.closed = true;\n            std::mem::take(&mut state.idle)", "            std::mem::take(&mut state.idle)")],
        Contract("c29"),
    ),
    // Deadlines.
    mutation(
        "an earlier deadline does not wake the timer thread",
        "src/timers.rs",
        &[("        if is_first {\n            self.changed.notify();", "        if is_first && false {\n            self.changed.notify();")],
        Shuttle("c23"),
    ),
    // Events.
    mutation(
        "an event is counted as unobserved without a check for subscribers",
        "src/subscription/bus.rs",
        &[("        while next & OBSERVED == 0 {", "        while next & OBSERVED == 0 || self.history_limit == 0 {")],
        Loom("c37"),
    ),
    mutation(
        "an emitter that waits for room is not woken by a cancel",
        "src/turn/events.rs",
        &[("                    recv(cancel.cancelled()) -> _ => cancel.check(),", "                    recv(crate::sync::never::<()>()) -> _ => cancel.check(),")],
        Shuttle("c21"),
    ),
    mutation(
        "a dropped stream does not wake the emitter that waits for room",
        "src/subscription/stream.rs",
        &[
            ("        self.shared.stream_dropped.set();\n", ""),
            ("        while self.events.try_recv().is_ok() {}\n", ""),
        ],
        Shuttle("c37"),
    ),
    mutation(
        "a shutdown ends the list of the subscribers of all sessions without a look at the sessions",
        "src/ephemeral/shutdown.rs",
        &[("    for session in &sessions {\n        core.global_subscribers", "    for session in sessions.iter().take(0) {\n        core.global_subscribers")],
        Shuttle("c37_a_session_that_is_created"),
    ),
    mutation(
        "the terminal event of a turn is not sent",
        "src/session/running.rs",
        &[("        self.context.events().emit_last(|| self.terminal_event(result), self.commit);\n", "        let _ = self.terminal_event(&result);\n")],
        Shuttle("c35"),
    ),
    // Inbox, host mode, comms.
    mutation(
        "a closed inbox keeps its interactions",
        "src/inbox/queue.rs",
        &[("(std::mem::take(&mut contents.items), contents.extra.waiting.clone())", "(VecDeque::<Incoming>::new(), contents.extra.waiting.clone())")],
        Shuttle("c39"),
    ),
    mutation(
        "a dropped interaction has no terminal event",
        "src/inbox/reply.rs",
        &[("        self.end_stream(AgentEvent::InteractionFailed {", "        drop(AgentEvent::InteractionFailed {")],
        Shuttle("c39"),
    ),
    mutation(
        "the usage of interactions is not added to that of the turn",
        "src/session/hosting.rs",
        &[("            usage: sum.usage + latest.usage,\n", "")],
        Contract("c40"),
    ),
    mutation(
        "sending to a full peer waits for room",
        "src/comms/local.rs",
        &[("        match peer.try_send(interaction) {", "        match peer.send(interaction).map_err(|back| TrySendError::Disconnected(back.0)) {")],
        Shuttle("c41"),
    ),
    mutation(
        "the name of an ended session stays taken",
        "src/comms/local.rs",
        &[("let sender = self.endpoint.network.peers.write().remove(&self.endpoint.name);", "let sender = self.endpoint.network.peers.read().get(&self.endpoint.name).cloned();")],
        Shuttle("c41"),
    ),
    // Kept sessions.
    mutation(
        "a turn is answered before it is kept",
        "src/store/agent.rs",
        &[("Ok(result) => self.save(Some(ended)).map(|()| result).map_err(AgentError::other),", "Ok(result) => Ok(result),")],
        Store("kept"),
    ),
    mutation(
        "a turn that ends after the archive clears the archived mark",
        "src/store/kept.rs",
        &[("        session.history = history;", "        session.history = history;\n        session.archived = false;")],
        Store("archive"),
    ),
    mutation(
        "two callers reserve the same lease at once",
        "src/store/kept.rs",
        &[("match leases.entries.get(&id).filter(|entry| entry.lease.strong_count() > 0) {", "match leases.entries.get(&id).filter(|entry| entry.lease.strong_count() > 99) {")],
        Shuttle("keeping"),
    ),
    mutation(
        "a session that is archived while it is resumed stays live",
        "src/store/launch.rs",
        &[("        if launch.is_closed() {", "        if launch.is_closed() && id.as_uuid().is_nil() {")],
        Shuttle("keeping"),
    ),
    mutation(
        "an interrupting archive does not cancel a turn that is being resumed",
        "src/store/kept.rs",
        &[("            true => ArchiveMode::Interrupt,", "            true => ArchiveMode::Drain,")],
        Shuttle("keeping"),
    ),
    mutation(
        "a session that is taken can be resumed before it is archived",
        "src/store/calls.rs",
        &[(
            "Ok((taken, _ended)) => return Ok(lease.archive(ArchiveMode::Drain)?.reloaded.unwrap_or(taken)),",
            "Ok((taken, _ended)) => {\n                    drop(lease);\n                    self.lease(id)?.archive(ArchiveMode::Drain)?;\n                    return Ok(taken);\n                }",
        )],
        Shuttle("keeping"),
    ),
    mutation(
        "a session with a failed save is unloaded",
        "src/store/calls.rs",
        &[("lease.map_or(Ok(()), |lease| lease.catch_up(", "lease.filter(|_| false).map_or(Ok(()), |lease| lease.catch_up(")],
        Store("running_turn_cannot_be_kept"),
    ),
    mutation(
        "a deleted session is saved again by its turn",
        "src/store/kept.rs",
        &[("            record.is_deleted = true;\n", "")],
        Store("deleted"),
    ),
    mutation(
        "an opening that is interrupted leaves a session in the store",
        "src/store/calls.rs",
        &[("            lease.withdraw(\"opened\");", "            let _ = lease.archive(ArchiveMode::Drain);")],
        Store("opening"),
    ),
    mutation(
        "an interrupted turn is saved before it is rolled back",
        "src/store/agent.rs",
        &[("            Err(error) if turn.is_cancelled() => {", "            Err(error) if false && turn.is_cancelled() => {"),
          ("            if let Some(ended) = ended {", "            if let Some(ended) = ended.filter(|_| false) {")],
        Store("rolled_back"),
    ),
    mutation(
        "an undecided lease refuses a create of its id",
        "src/store/kept.rs",
        &[("                    Some(entry) if entry.belongs_to_session => return Ok(None),", "                    Some(entry) if entry.belongs_to_session || to_launch => return Ok(None),")],
        Shuttle("keeping_a_call_about"),
    ),
    mutation(
        "a lease belongs to a session after the end of its life",
        "src/store/kept.rs",
        &[("        self.0.table.set_belongs_to_session(&self.0, false);", "        self.0.table.set_belongs_to_session(&self.0, true);")],
        Shuttle("keeping_a_shared_lease"),
    ),
    mutation(
        "a late launch archives a later life of its session",
        "src/store/launch.rs",
        &[("filter(|life| life.counts_in(&launch.record))", "filter(|life| life.counts_in(&launch.record) || true)")],
        Shuttle("keeping_a_late_launch"),
    ),
    mutation(
        "a caller that waits for a lease keeps its permit",
        "src/store/kept.rs",
        &[("            let waited = reentrancy::receive(changed.receiver(), &Deadline::never());", "            let waited = Ok::<_, reentrancy::WaitError>(drop(Deadline::never().receive(changed.receiver())));")],
        Store("a_turn_that_waits_for_a_lease"),
    ),
    mutation(
        "a refused turn of a stored session loses its request",
        "src/ephemeral/launch.rs",
        &[("            Err(error) => return Err(RefusedTurn::new(error, request)),\n        };\n        let guards", "            Err(error) => return Err(RefusedTurn::new(error, StartTurnRequest::new(request.prompt))),\n        };\n        let guards")],
        Store("gets_the_whole_request"),
    ),
    mutation(
        "an agent that did not resume its history is accepted",
        "src/store/agent.rs",
        &[("        if is_share || without_system(kept)", "        if is_share || true || without_system(kept)")],
        Store("c65"),
    ),
    mutation(
        "numbers begin at 1 in every life",
        "src/store/kept.rs",
        &[("after: numbers.reserved(),", "after: LastNumbers::default(),")],
        Store("c64"),
    ),
    mutation(
        "a turn's number is used before it is reserved",
        "src/status/gate.rs",
        &[("            if number > reserved {", "            if number > reserved && reserved == 0 {")],
        Store("c64"),
    ),
    mutation(
        "an event is numbered before its number is reserved",
        "src/subscription/bus.rs",
        &[("            if last <= self.numbers.last_event() {", "            if last <= self.numbers.last_event() || true {")],
        Store("c64"),
    ),
    mutation(
        "the orderly end of a life writes no exact numbers",
        "src/store/kept.rs",
        &[("        if lease.is_lost() || !session.numbers.finish(used) {", "        if used == used {")],
        Store("c64"),
    ),
    mutation(
        "a store does not compare the revision",
        "src/store/save.rs",
        &[("        if stored == seen {", "        if stored == seen || stored.is_some() {")],
        Store("c59"),
    ),
    mutation(
        "a repeated save conflicts with itself",
        "src/store/save.rs",
        &[("        if stored == Some(next) {", "        if stored == Some(next) && seen.is_none() {")],
        Store("c59"),
    ),
    mutation(
        "a save that has failed is not repeated before the next one",
        "src/store/kept.rs",
        &[("        if let Some(attempt) = record.unconfirmed.take() {", "        if let Some(attempt) = record.unconfirmed.take().filter(|_| false) {")],
        Store("c59"),
    ),
    mutation(
        "a session that is out of date stays live after a conflict",
        "src/store/kept.rs",
        &[("        self.loss.set(StoreError::Conflict { id }.about(self.id));", "        let _ = id;")],
        Shuttle("keeping_c59"),
    ),
    mutation(
        "the turns queued behind a conflict are run",
        "src/session/thread.rs",
        &[("        let queued = self.handle.end_queue(loss);\n", "        let queued = Vec::new();\n        let _ = loss;\n"),
          ("        if let Some(loss) = self.loss() {\n            return Err(loss.clone());\n        }\n", "")],
        Store("c59"),
    ),
    mutation(
        "a turn is answered with its conflict before the session has ended",
        "src/session/thread.rs",
        &[("        self.last_reply = Some(Box::new(LastReply::of_turns(turn.end_but_answer(result), queued)));", "        LastReply::of_turns(turn.end_but_answer(result), queued).send();")],
        Shuttle("keeping_c59"),
    ),
    mutation(
        "an archive gives up at the first conflict",
        "src/store/kept.rs",
        &[("        const ATTEMPTS: usize = 16;", "        const ATTEMPTS: usize = 1;")],
        Shuttle("keeping_c59_an_archive"),
    ),
    mutation(
        "a failed create deletes the session of another service",
        "src/store/agent.rs",
        &[("            StoreError::Conflict { id } => AgentError::other(NotBuilt(SessionError::AlreadyExists { id })),", "            StoreError::Conflict { id } => {\n                let _ = self.lease.delete();\n                AgentError::other(NotBuilt(SessionError::AlreadyExists { id }))\n            }")],
        Store("c59_a_session_that_another"),
    ),
    mutation(
        "a rewritten history counts as extended",
        "src/model/messages.rs",
        &[("        let is_extended = Arc::ptr_eq(&self.buffer, &earlier.buffer) && self.len() >= earlier.len();", "        let is_extended = self.len() >= earlier.len();")],
        Store("c66"),
    ),
    mutation(
        "a push to a shared history copies it",
        "src/model/messages.rs",
        &[("        match self.buffer.append(len, message) {", "        match Err::<(), Message>(message) {")],
        Store("c66"),
    ),
    mutation(
        "a rewrite leaves old messages in the file",
        "src/store/file/tables.rs",
        &[("            _ if save.is_rewrite => {\n                self.remove_messages(id)?;", "            _ if save.is_rewrite => {")],
        Store("c66"),
    ),
    mutation(
        "an append begins a new row at a place that is taken",
        "src/store/file/tables.rs",
        &[("        let mut chunk = last.unwrap_or_else(|| Chunk::new(id, count));", "        let mut chunk = last.map_or_else(|| Chunk::new(id, count), |last| Chunk::new(id, last.start));")],
        Store("c66"),
    ),
    mutation(
        "a converted record stays in the old table",
        "src/store/file/tables.rs",
        &[("            self.whole.remove(key(id)).map_err(StoreError::failed)?;", "            self.whole.get(key(id)).map_err(StoreError::failed)?;")],
        Store("version_1"),
    ),
    mutation(
        "a file of a newer version is opened",
        "src/store/file/tables.rs",
        &[("version.filter(|version| *version > VERSION)", "version.filter(|version| *version > VERSION + 99)")],
        Store("newer_version"),
    ),
    mutation(
        "a save is answered before it is written",
        "src/store/file.rs",
        &[("|saves| self.write_all(saves)", "|saves| vec![Ok(()); saves.len()]")],
        Store("saves_of_many"),
    ),
    mutation(
        "a batch is taken without the write lock",
        "src/store/batches.rs",
        &[("        let writing = self.writing.lock();\n        if", "        let writing = ();\n        if"), ("        drop(writing);\n", "        let () = writing;\n")],
        Shuttle("answered_with_its_own"),
    ),
    mutation(
        "all items of a batch get the result of the first",
        "src/store/batches.rs",
        &[("results.get(index)", "results.get(index * 0)")],
        Shuttle("answered_with_its_own"),
    ),
    // Unloading.
    mutation(
        "an interaction is accepted between the check of the inbox and the unload",
        "src/session/unload.rs",
        &[("self.shared().inbox.close_if_empty(close_gate)", "!self.shared().inbox.has_items() && close_gate()")],
        Shuttle("c55_a_message_that_is_accepted"),
    ),
    mutation(
        "a subscriber is added to a session that is being unloaded",
        "src/subscription/bus.rs",
        &[("        state.takes_no_queue |= is_closed;\n", "")],
        Shuttle("c55_a_subscriber_that_meets"),
    ),
    mutation(
        "a session is unloaded while it is subscribed to",
        "src/subscription/bus.rs",
        &[("let is_closed = !state.has_subscriber() && close();", "let is_closed = close();")],
        Shuttle("c55_a_subscriber_that_meets"),
    ),
    mutation(
        "a turn that meets an unload is refused",
        "src/store/room.rs",
        &[
            ("match self.live.life(id).filter(Life::is_unloading) {", "match self.live.life(id).filter(|_| false) {"),
            ("if self.is_in_motion(id) => {", "if self.is_in_motion(id) && id == SessionId::new() => {"),
        ],
        Shuttle("c55_a_turn_that_meets"),
    ),
    mutation(
        "a request to unload stays behind a turn",
        "src/session/unload.rs",
        &[("        if self.gate().state().refusal().is_ok() || self.is_unloading() {\n", "        if self.last_use().is_some() {\n")],
        Shuttle("c55_a_caller_that_needs_room"),
    ),
    mutation(
        "one look decides that there is no room",
        "src/store/room.rs",
        &[("last_look.as_ref() == Some(&states) {", "last_look.as_ref() != Some(&states) {")],
        Shuttle("c55_one_of_two_sessions"),
    ),
    mutation(
        "two callers of one stored session make room for it",
        "src/store/room.rs",
        &[("            Some(other) => Err(Arc::clone(other)),\n", "            Some(_) => Ok(Resume { resumes: self, id }),\n")],
        Shuttle("c55_two_callers"),
    ),
    mutation(
        "a turn that does not queue is refused because a subscriber resumes its session",
        "src/ephemeral/launch.rs",
        &[("when_busy != WhenBusy::Refuse || self.may_follow_opening(&handle)", "when_busy != WhenBusy::Refuse")],
        Shuttle("c55_a_turn_that_does_not_queue"),
    ),
    mutation(
        "every session whose turn ends is unloaded for one caller that waits",
        "src/session/unload.rs",
        &[("(under_way < waiters).then_some(under_way + 1)", "(under_way < waiters + 1_000).then_some(under_way + 1)")],
        Store("c55_one_session_is_unloaded"),
    ),
    mutation(
        "a session that becomes idle does not give way to a caller that waits",
        "src/session/unload.rs",
        &[("        if !self.capacity.has_waiters() {\n", "        if self.capacity.limit() > 0 {\n")],
        Shuttle("c55_a_reservation_gets"),
    ),
    mutation(
        "a candidate that was used since is unloaded",
        "src/store/room.rs",
        &[("life.unused_since() == Some(last_use)", "life.unused_since() >= Some(last_use)")],
        Store("c55_where_room"),
    ),
    mutation(
        "the idle time counts from the resume",
        "src/session/running.rs",
        &[("            shared.set_last_use(now);\n", "")],
        Store("c55_an_idle_session"),
    ),
    mutation(
        "a session that is not saved is unloaded",
        "src/session/thread.rs",
        &[("            return UnloadDecision::Unsaved;\n", "")],
        Store("c55_a_session_that_cannot_be_saved"),
    ),
    mutation(
        "a record's checksum is not checked",
        "src/store/file/encoding.rs",
        &[("if checksum([*v0, *v1], payload) != u32::from_le_bytes([*c0, *c1, *c2, *c3]) {", "if u32::from_le_bytes([*c0, *c1, *c2, *c3]) == checksum([9, 9], payload) {")],
        Store("damage"),
    ),
    mutation(
        "a newer record is read as one of the current version",
        "src/store/file/encoding.rs",
        &[("            if version > VERSION {", "            if version > VERSION + 999 {")],
        Store("newer"),
    ),
    mutation(
        "a file that is no store is overwritten",
        "src/store/file/opening.rs",
        &[
            ("    Ok(if length == 0 {", "    Ok(if length < 4096 {"),
            ("|| empty.metadata().map_err(failed)?.len() != 0", "|| empty.metadata().map_err(failed)?.len() > 4096"),
        ],
        Store("no_store"),
    ),
    // The connection to editors.
    mutation(
        "a cancellation before the begin of the turn is not seen by the worker",
        "src/acp/prompts.rs",
        &[("!state.is_cancelled);\n        state.is_cancelled", "!state.is_cancelled);\n        false")],
        Acp("c73_a_cancellation_is_seen"),
    ),
    mutation(
        "queued prompts are cancelled after the running one",
        "src/acp/prompts.rs",
        &[("prompts.iter().rev().filter_map(", "prompts.iter().filter_map(")],
        Acp("c73_turns_are_interrupted"),
    ),
    mutation(
        "a prompt that succeeds after its cancellation is not answered as cancelled",
        "src/acp/stop.rs",
        &[("    if is_cancelled {", "    if is_cancelled && result.is_err() {")],
        Acp("c73_a_cancelled_prompt"),
    ),
    mutation(
        "an error of the client allows",
        "src/acp/input.rs",
        &[("        (_, Err(_)) => None,", "        (_, Err(_)) => Some(\"allow_once\".to_owned()),")],
        Acp("c74_nothing_but"),
    ),
    mutation(
        "a request of the client before initialize is carried out",
        "src/acp/dispatch.rs",
        &[("method != \"initialize\" && self.link", "method.is_empty() && self.link")],
        Acp("c70_a_request_before"),
    ),
    mutation(
        "updates for a slow client have no limit",
        "src/acp/outbox.rs",
        &[("Places::new(updates.max(1))", "Places::new(updates.max(1_000))")],
        Acp("c76_a_client_that_does_not_read"),
    ),
    mutation(
        "an accepted request keeps its place after its answer",
        "src/acp/outbox.rs",
        &[("Some(self.requests.give_back.clone())", "None")],
        Acp("c76_the_number_of_requests"),
    ),
    mutation(
        "commands are carried out before the close that they follow",
        "src/acp/worker.rs",
        &[("            if self.closing.is_some() {", "            if self.closing.is_some() && is_done {")],
        Acp("c71_a_session_that_is_loaded_right_behind"),
    ),
    mutation(
        "a location that is not UTF-8 is sent",
        "src/acp/updates.rs",
        &[("location.path.to_str().is_some()", "!location.path.as_os_str().is_empty()")],
        Acp("c72_a_location"),
    ),
    mutation(
        "a worker that panics leaves its prompts without an answer",
        "src/acp/worker.rs",
        &[("for prompt in self.prompts.take_all()", "for prompt in self.prompts.take_all().into_iter().skip(9)")],
        Acp("c69_a_worker_that_panics"),
    ),
    mutation(
        "a line above the limit is read",
        "src/acp/frame.rs",
        &[("part.len() > self.limit;", "part.len() > self.limit + 9_999;")],
        Acp("c69_a_line_above"),
    ),
    mutation(
        "the answer of a queued prompt waits for the turn before it",
        "src/acp/worker.rs",
        &[("turn.handle.is_finished() && turn.events.is_empty()", "turn.handle.is_finished() && turn.events.len() == 7")],
        Acp("c73_a_queued_prompt"),
    ),
    mutation(
        "a lone surrogate of the client is no JSON",
        "src/acp/message.rs",
        &[("    is_changed.then_some(kept)", "    is_changed.then_some(kept).filter(Vec::is_empty)")],
        Acp("c69_a_lone_surrogate"),
    ),
    mutation(
        "a client with as many sessions as it may have cannot delete another one",
        "src/acp/dispatch.rs",
        &[("matches!(command, Command::Delete(_)) { DELETES }", "matches!(command, Command::Delete(_)) { 0 }")],
        Acp("c71_deletes_above"),
    ),
    mutation(
        "each cancellation interrupts a turn again",
        "src/acp/prompts.rs",
        &[("        state.turn.take()", "        state.turn")],
        Acp("c73_a_cancellation_is_seen"),
    ),
];
