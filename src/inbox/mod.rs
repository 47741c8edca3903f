//! A session's inbox: the messages that reach a session outside of prompts, and the injectors that push them.
//!
//! # An interaction is always answered
//!
//! A bounded channel keeps its messages until its last *sender* is dropped. A subscriber whose message sits in such a
//! channel could wait for ever. So the inbox is a [`WorkQueue`](crate::wait::work_queue::WorkQueue): closing it takes
//! every item out. And each item carries its [`Reply`](reply::Reply), whose drop ends the subscriber's stream, whether
//! the interaction ran or not.

pub(crate) mod injector;
pub(crate) mod queue;
pub(crate) mod reply;
pub(crate) mod wait;
