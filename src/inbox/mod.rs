//! What reaches a session outside of prompts: its inbox, and the injectors that fill it.
//!
//! # An interaction is always answered
//!
//! A bounded channel keeps its messages until its last *sender* goes, so a subscriber whose message sits in one could wait
//! for ever. So the inbox is a [`WorkQueue`](crate::wait::work_queue::WorkQueue): closing it takes every item out. And each item carries
//! its [`Reply`](reply::Reply), which ends the subscriber's stream when it is dropped, run or not.

pub(crate) mod injector;
pub(crate) mod queue;
pub(crate) mod reply;
