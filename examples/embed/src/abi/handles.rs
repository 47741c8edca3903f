//! The table of handles. A handle is a number that is checked, not a pointer:
//!
//! ```text
//! 63      56 55                  32 31                   0
//! +---------+----------------------+---------------------+
//! |  kind   |  generation (1, ..)  |  index of the slot  |
//! +---------+----------------------+---------------------+
//! ```
//!
//! A slot is used again after a close, with the next generation. A slot whose generations are used up is not used again,
//! so that no closed handle becomes valid. The table owns one share of an object, and a call takes another one for its
//! length. So a close frees nothing that a thread uses: the last user frees the object.

use std::sync::Arc;

use parking_lot::RwLock;

use crate::codes::{Failure, TURNWISE_INVALID_HANDLE, TURNWISE_STALE, TURNWISE_TOO_MANY_HANDLES, TURNWISE_WRONG_KIND};
use crate::host::service::Service;
use crate::host::subscription::Subscription;
use crate::host::turn::Turn;

/// The kinds of handles. Contexts have a table of their own.
pub(super) const KIND_SERVICE: u8 = 0x51;
pub(super) const KIND_TURN: u8 = 0x52;
pub(super) const KIND_SUBSCRIPTION: u8 = 0x53;
pub(super) const KIND_CONTEXT: u8 = 0x54;

/// The generations have 24 bits, and 0 is none.
pub(super) const LAST_GENERATION: u32 = (1 << 24) - 1;

/// An object with a handle.
#[derive(Clone, Debug)]
pub(super) enum Object {
    Service(Arc<Service>),
    Turn(Arc<Turn>),
    Subscription(Arc<Subscription>),
}

/// The slots. Generic, so that a test can use up the generations of one.
#[derive(Debug)]
struct Table<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
}

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    object: Option<T>,
}

static TABLE: RwLock<Table<Object>> = RwLock::new(Table { slots: Vec::new(), free: Vec::new() });

impl<T> Table<T> {
    /// Puts an object into a free slot, or into a new one. Returns the generation and the index.
    fn insert(&mut self, object: T) -> Option<(u32, u32)> {
        if let Some(index) = self.free.pop() {
            let slot = self.slots.get_mut(index as usize)?;
            slot.generation += 1;
            slot.object = Some(object);
            return Some((slot.generation, index));
        }
        let index = u32::try_from(self.slots.len()).ok()?;
        self.slots.push(Slot { generation: 1, object: Some(object) });
        Some((1, index))
    }

    /// Takes an object out. The slot is free, unless its generations are used up.
    fn remove(&mut self, generation: u32, index: u32) -> Option<T> {
        let slot = self.slots.get_mut(index as usize).filter(|slot| slot.generation == generation)?;
        let object = slot.object.take()?;
        if generation < LAST_GENERATION {
            self.free.push(index);
        }
        Some(object)
    }
}

/// The parts of a handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Parts {
    pub(super) kind: u8,
    pub(super) generation: u32,
    pub(super) index: u32,
}

impl Parts {
    pub(super) fn of(handle: u64) -> Self {
        let [kind, ..] = handle.to_be_bytes();
        #[expect(clippy::cast_possible_truncation, reason = "the lower half is the index")]
        Self { kind, generation: (handle >> 32) as u32 & LAST_GENERATION, index: handle as u32 }
    }

    pub(super) fn handle(self) -> u64 {
        u64::from(self.kind) << 56 | u64::from(self.generation) << 32 | u64::from(self.index)
    }
}

impl Object {
    fn kind(&self) -> u8 {
        match self {
            Self::Service(_) => KIND_SERVICE,
            Self::Turn(_) => KIND_TURN,
            Self::Subscription(_) => KIND_SUBSCRIPTION,
        }
    }
}

pub(super) fn invalid(handle: u64) -> Failure {
    Failure::new(TURNWISE_INVALID_HANDLE, format!("{handle:#x} is no handle"))
}

pub(super) fn stale(handle: u64) -> Failure {
    Failure::new(TURNWISE_STALE, format!("the handle {handle:#x} is closed"))
}

pub(super) fn wrong_kind(handle: u64, expected: &str) -> Failure {
    Failure::new(TURNWISE_WRONG_KIND, format!("the handle {handle:#x} is not one of {expected}"))
}

/// Gives an object a handle.
pub(super) fn insert(object: Object) -> Result<u64, Failure> {
    let kind = object.kind();
    let full = || Failure::new(TURNWISE_TOO_MANY_HANDLES, "the table of handles is full");
    let (generation, index) = TABLE.write().insert(object).ok_or_else(full)?;
    Ok(Parts { kind, generation, index }.handle())
}

/// Why a handle names no object of the table.
fn missing(handle: u64, slot: Option<&Slot<Object>>) -> Failure {
    let parts = Parts::of(handle);
    match slot {
        Some(slot) if (1..=slot.generation).contains(&parts.generation) => match parts.kind {
            KIND_SERVICE | KIND_TURN | KIND_SUBSCRIPTION => stale(handle),
            _ => invalid(handle),
        },
        _ => invalid(handle),
    }
}

/// The object of a handle.
pub(super) fn get(handle: u64) -> Result<Object, Failure> {
    let parts = Parts::of(handle);
    if parts.kind == KIND_CONTEXT {
        return Err(wrong_kind(handle, "a service, a turn or a subscription"));
    }
    let table = TABLE.read();
    let slot = table.slots.get(parts.index as usize);
    let object = slot.filter(|slot| slot.generation == parts.generation).and_then(|slot| slot.object.as_ref());
    match object {
        Some(object) if object.kind() == parts.kind => Ok(object.clone()),
        // The number was changed: no such handle was given out.
        Some(_) => Err(invalid(handle)),
        None => Err(missing(handle, slot)),
    }
}

/// Takes the object of a handle out of the table. The handle is stale from now on.
pub(super) fn remove(handle: u64) -> Result<Object, Failure> {
    get(handle)?;
    let parts = Parts::of(handle);
    // Another thread may have closed it meanwhile.
    TABLE.write().remove(parts.generation, parts.index).ok_or_else(|| stale(handle))
}

/// The service of a handle.
pub(super) fn service(handle: u64) -> Result<Arc<Service>, Failure> {
    match get(handle)? {
        Object::Service(service) => Ok(service),
        _ => Err(wrong_kind(handle, "a service")),
    }
}

/// The turn of a handle.
pub(super) fn turn(handle: u64) -> Result<Arc<Turn>, Failure> {
    match get(handle)? {
        Object::Turn(turn) => Ok(turn),
        _ => Err(wrong_kind(handle, "a turn")),
    }
}

/// The subscription of a handle.
pub(super) fn subscription(handle: u64) -> Result<Arc<Subscription>, Failure> {
    match get(handle)? {
        Object::Subscription(subscription) => Ok(subscription),
        _ => Err(wrong_kind(handle, "a subscription")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c91_a_handle_has_its_kind_its_generation_and_its_index() {
        let parts = Parts { kind: KIND_TURN, generation: LAST_GENERATION, index: u32::MAX };
        assert_eq!(Parts::of(parts.handle()), parts);
    }

    #[test]
    fn c91_a_slot_whose_generations_are_used_up_is_not_used_again() {
        let mut table = Table { slots: Vec::new(), free: Vec::new() };
        assert_eq!(table.insert("first"), Some((1, 0)));
        assert_eq!(table.remove(1, 0), Some("first"));
        assert_eq!(table.remove(1, 0), None);
        assert_eq!(table.insert("second"), Some((2, 0)));
        assert_eq!(table.remove(1, 0), None);
        table.slots[0].generation = LAST_GENERATION;
        assert_eq!(table.remove(LAST_GENERATION, 0), Some("second"));
        assert_eq!(table.insert("third"), Some((1, 1)));
    }

    #[test]
    fn c91_numbers_that_were_never_given_out_are_no_handles() {
        for handle in [0, 1, u64::MAX, Parts { kind: KIND_TURN, generation: 0, index: 0 }.handle()] {
            assert_eq!(get(handle).unwrap_err().code, TURNWISE_INVALID_HANDLE, "{handle:#x}");
        }
        let future = Parts { kind: KIND_TURN, generation: LAST_GENERATION, index: 0 }.handle();
        assert_eq!(get(future).unwrap_err().code, TURNWISE_INVALID_HANDLE);
    }
}
