//! # Which limits to set
//!
//! | Limit | Default | Set it |
//! |---|---|---|
//! | [`max_sessions`](crate::ServiceConfig::max_sessions) | 64, or the argument of `new` | always: it bounds the program's memory and threads. An idle session takes 42 KiB plus its agent |
//! | [`max_running_turns`](crate::ServiceConfig::max_running_turns) | none | to the number of cores if turns compute; leave it unset if turns wait for a model or a person |
//! | [`timeout`](crate::StartTurnRequest#structfield.timeout) of a request | none | if no user can interrupt the turn. It stops only agents that check their token |
//! | [`stack_size`](crate::ServiceConfig::stack_size) | 2 MiB | higher for agents that recurse, such as interpreters; lower for ten thousand sessions |
//! | [`inbox_capacity`](crate::ServiceConfig::inbox_capacity) | 256 | to the backlog at which senders should get an error |
//! | [`turn_queue`](crate::ServiceConfig::turn_queue) | 16 | to the turns that may wait for one busy session, if requests [queue](crate::WhenBusy); 0 if none may |
//! | [`event_history`](crate::ServiceConfig::event_history) | 0 | if subscribers reconnect and replay missed events |
//! | [`idle_threads`](crate::ServiceConfig::idle_threads) | 4 | to 0 if a session's end must drop its thread-local values |
//! | [`Subscription::capacity`](crate::Subscription::capacity) | 1,024 | together with the [overflow](crate::Overflow): for a display drop old events, for a log block |
//! | your own event channel | as you create it | bounded: a full channel blocks the turn, so a slow reader cannot fill the memory |
//!
//! Three limits in this table make a turn wait: the running permits, the room in an event channel, and the room of a
//! subscriber with [`Overflow::Block`](crate::Overflow::Block). A turn lends its permit in each wait through its
//! [context](crate::TurnContext): [`sleep`](crate::TurnContext::sleep), [`recv`](crate::TurnContext::recv),
//! [`request_input`](crate::TurnContext::request_input), or [`without_permit`](crate::TurnContext::without_permit) for
//! any other wait. A turn whose request says so ([`WhenBusy::Queue`](crate::WhenBusy::Queue)) also waits for the turns
//! before it. Beyond a limit a call fails at once:
//! [`CapacityExceeded`](crate::SessionError::CapacityExceeded), [`Busy`](crate::SessionError::Busy),
//! [`QueueFull`](crate::SessionError::QueueFull), [`InjectError::Full`](crate::InjectError::Full). The program decides
//! whether to [retry](super::retries), and for how long. To wait for capacity instead,
//! [`reserve`](crate::EphemeralSessionService::reserve) it with a timeout, and pass the
//! [`Reservation`](crate::Reservation) to the create. A service that keeps its sessions can
//! [make room](super::lives#more-sessions-than-memory) by itself.
