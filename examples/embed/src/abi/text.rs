//! Texts that cross the border: UTF-8 with a length.
//!
//! A text that the library gives out is registered until the host frees it. So the free of a foreign pointer, or a
//! second free, is an error code. A text has a NUL after its last byte, which its length does not count.

use std::collections::HashMap;
use std::ffi::c_char;
use std::hash::{BuildHasherDefault, Hasher};
use std::{ptr, slice};

use parking_lot::Mutex;

use crate::codes::{Failure, TURNWISE_INVALID_ARGUMENT, TURNWISE_INVALID_UTF8, TURNWISE_UNKNOWN_TEXT};

/// Hashes an address: its high bits differ little and its lowest bits are 0.
#[derive(Default)]
struct AddressHasher(u64);

impl Hasher for AddressHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_usize(usize::from(*byte)));
    }

    fn write_usize(&mut self, value: usize) {
        self.0 = (self.0 ^ (value as u64 >> 4)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
}

/// The length of each text by its address.
type Texts = HashMap<usize, usize, BuildHasherDefault<AddressHasher>>;

static GIVEN: Mutex<Option<Texts>> = Mutex::new(None);

/// Copies a text, with room for the NUL that a callback or a host will find behind it.
pub(super) fn copy(text: &str) -> String {
    let mut copy = String::with_capacity(text.len() + 1);
    copy.push_str(text);
    copy
}

/// Gives a text out.
pub(super) fn give(text: String) -> *mut c_char {
    let mut bytes = text.into_bytes();
    bytes.reserve_exact(1);
    bytes.push(0);
    let len = bytes.len();
    let pointer = Box::into_raw(bytes.into_boxed_slice()).cast::<u8>();
    GIVEN.lock().get_or_insert_default().insert(pointer as usize, len);
    pointer.cast()
}

/// Takes a text back.
pub(super) fn take_back(pointer: *mut c_char) -> Result<(), Failure> {
    if pointer.is_null() {
        return Ok(());
    }
    let len = GIVEN.lock().as_mut().and_then(|given| given.remove(&(pointer as usize)));
    match len {
        Some(len) => {
            let text = ptr::slice_from_raw_parts_mut(pointer.cast::<u8>(), len);
            // SAFETY: `give` made this address and this length from a box, and this call alone has removed the entry.
            drop(unsafe { Box::from_raw(text) });
            Ok(())
        }
        None => Err(Failure::new(TURNWISE_UNKNOWN_TEXT, "the text was not given out, or it was freed already")),
    }
}

/// Reads the bytes of a text.
///
/// # Safety
/// If `data` is not null, `len` bytes can be read there, and nothing writes them for the lifetime `'a`.
unsafe fn bytes<'a>(data: *const c_char, len: usize, what: &str) -> Result<&'a [u8], Failure> {
    match (data.is_null(), len) {
        (_, 0) => Ok(&[]),
        (true, _) => Err(Failure::new(TURNWISE_INVALID_ARGUMENT, format!("{what} is null, and its length is {len}"))),
        (false, _) if isize::try_from(len).is_err() => {
            Err(Failure::new(TURNWISE_INVALID_ARGUMENT, format!("the length of {what} is {len}")))
        }
        // SAFETY: the caller promises that `len` bytes can be read and are not written. The length is in range.
        (false, _) => Ok(unsafe { slice::from_raw_parts(data.cast::<u8>(), len) }),
    }
}

/// Reads a text. A null pointer with the length 0 is the empty text.
///
/// # Safety
/// If `data` is not null, `len` bytes can be read there, and nothing writes them for the lifetime `'a`.
pub(super) unsafe fn read<'a>(data: *const c_char, len: usize, what: &str) -> Result<&'a str, Failure> {
    // SAFETY: the caller's promise.
    let bytes = unsafe { bytes(data, len, what) }?;
    std::str::from_utf8(bytes)
        .map_err(|error| Failure::new(TURNWISE_INVALID_UTF8, format!("{what} is not valid UTF-8: {error}")))
}
