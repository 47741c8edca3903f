//! Calls of many threads over one connection.

use crate::cluster::pipeline::Pipeline;
use crate::sync::{Arc, Mutex};

use super::{explore, join, spawn};

/// Each item is sent once, its caller gets the result of that item, two threads never send at the same time, and no
/// caller waits for ever.
#[test]
fn c81_each_call_is_sent_once_and_gets_its_own_answer() {
    explore(|| {
        let pipeline: Arc<Pipeline<u32, u32>> = Arc::new(Pipeline::new());
        let sent: Arc<Mutex<Vec<u32>>> = Arc::default();
        let is_sending: Arc<Mutex<bool>> = Arc::default();
        let callers: Vec<_> = (0..3)
            .map(|caller| {
                let (pipeline, sent, is_sending) = (Arc::clone(&pipeline), Arc::clone(&sent), Arc::clone(&is_sending));
                spawn(move || {
                    for item in [2 * caller, 2 * caller + 1] {
                        let result = pipeline.send(item, |items| {
                            let was_sending = std::mem::replace(&mut *is_sending.lock(), true);
                            assert!(!was_sending, "two threads send at the same time");
                            sent.lock().extend(items);
                            *is_sending.lock() = false;
                            items.iter().map(|item| item * 10).collect()
                        });
                        assert_eq!(result, Some(item * 10));
                        assert!(sent.lock().contains(&item), "the item is sent before it is answered");
                    }
                })
            })
            .collect();
        callers.into_iter().for_each(join);
        sent.lock().sort_unstable();
        assert_eq!(*sent.lock(), [0, 1, 2, 3, 4, 5]);
    });
}

/// A sender that panics answers its batch with nothing, and the next caller sends.
#[test]
fn c81_a_call_whose_sender_panics_is_answered() {
    explore(|| {
        let pipeline: Arc<Pipeline<u32, u32>> = Arc::new(Pipeline::new());
        let callers: Vec<_> = (0..3)
            .map(|item| {
                let pipeline = Arc::clone(&pipeline);
                spawn(move || {
                    let sent = crate::panics::contain(|| {
                        pipeline.send(item, |items| {
                            assert!(items[0] != 0, "told to");
                            items.to_vec()
                        })
                    });
                    match sent {
                        Ok(Some(result)) => assert_eq!(result, item),
                        Ok(None) => assert!(item != 0, "another thread has sent it"),
                        Err(_) => assert_eq!(item, 0, "only the sender of item 0 panics"),
                    }
                })
            })
            .collect();
        callers.into_iter().for_each(join);
        assert_eq!(pipeline.send(7, <[u32]>::to_vec), Some(7));
    });
}
