//! Texts, names and versions.

use std::ffi::{c_char, CStr};

use super::entry::run;
use super::structs::TurnwiseError;
use super::text;
use crate::codes;

/// The version of the interface. It rises with every change that a host could notice.
pub const TURNWISE_ABI_VERSION: u32 = 1;

/// Returns `TURNWISE_ABI_VERSION` of the library that is linked. Works in every process.
#[unsafe(no_mangle)]
pub extern "C" fn turnwise_abi_version() -> u32 {
    TURNWISE_ABI_VERSION
}

/// Returns the version of the package, a static text with a NUL at its end. Works in every process.
#[unsafe(no_mangle)]
pub extern "C" fn turnwise_version() -> *const c_char {
    static VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "\0");
    VERSION.as_ptr().cast()
}

/// Returns the name of a code without `TURNWISE_`, a static text with a NUL at its end. Works in every process.
#[unsafe(no_mangle)]
pub extern "C" fn turnwise_code_name(code: i32) -> *const c_char {
    let index = codes::ALL.iter().position(|(number, _)| *number == code);
    let name: &'static CStr = index.and_then(|index| codes::C_NAMES.get(index).copied()).unwrap_or(c"UNKNOWN");
    name.as_ptr()
}

/// Frees a text that the library has given out. A null pointer is no error.
///
/// Errors: `TURNWISE_UNKNOWN_TEXT` for any other pointer, and for a text that is freed already. The pointer itself is
/// not followed.
#[unsafe(no_mangle)]
pub extern "C" fn turnwise_string_free(text: *mut c_char) -> i32 {
    let no_error: *mut TurnwiseError = std::ptr::null_mut();
    // SAFETY: there is no struct for an error.
    unsafe { run(no_error, || text::take_back(text)) }
}
