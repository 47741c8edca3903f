//! Structs that cross the border. The first field of each is its size, as the host's compiler knows it.
//!
//! The size is read before any other field. A field beyond the size has its default, which is all zero. A struct that is
//! larger than this version's is taken only if the bytes beyond are zero: the host uses no field that is unknown here.
//! Nothing is written past the size.

use std::ffi::{c_char, c_void};
use std::mem::{size_of, MaybeUninit};
use std::ptr;

use library::SessionId;

use crate::codes::{Failure, TURNWISE_INVALID_ARGUMENT, TURNWISE_INVALID_STRUCT};

/// A handle: a checked number, not a pointer. 0 is none.
pub type TurnwiseHandle = u64;

/// A struct whose first field is its size, and for which all zero is a valid value.
///
/// # Safety
/// The type is `repr(C)`, its first field is a `usize`, and all zero is a valid value of every field.
pub(super) unsafe trait SizedStruct: Copy {}

/// Why a call failed. The host sets `size` and passes zero in all other fields.
///
/// A failed call sets the fields. A call that succeeds leaves them as they are. The host frees `message` by
/// `turnwise_string_free`; a call overwrites an old one without freeing it.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct TurnwiseError {
    /// The size of the struct, in bytes.
    pub size: usize,
    /// The code, also the result of the call.
    pub code: i32,
    /// One of the `TURNWISE_CANCEL_` numbers if the failure is a cancellation; 0 otherwise.
    pub cancel_reason: i32,
    /// Whether the same request may succeed later, because a provider failed temporarily: 0 or 1.
    pub is_retryable: i32,
    /// Unused: 0.
    pub reserved: i32,
    /// The text for people, with a NUL at its end.
    pub message: *mut c_char,
    /// The length of the text, in bytes, without the NUL.
    pub message_len: usize,
}

/// The result of a turn. The host sets `size`, and frees `text` and `structured_output` by `turnwise_string_free`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct TurnwiseResult {
    /// The size of the struct, in bytes.
    pub size: usize,
    /// The number of the turn in its session.
    pub turn: u64,
    /// The id of the session, as text with a NUL at its end.
    pub session_id: [c_char; 40],
    /// One of the `TURNWISE_STOP_` numbers.
    pub stop_reason: i32,
    /// The number of model calls.
    pub model_calls: u32,
    /// The number of tool calls.
    pub tool_calls: u32,
    /// Unused: 0.
    pub reserved: u32,
    /// The tokens read.
    pub input_tokens: u64,
    /// The tokens written.
    pub output_tokens: u64,
    /// The answer, with a NUL at its end.
    pub text: *mut c_char,
    /// The length of the answer, in bytes.
    pub text_len: usize,
    /// The structured output as JSON; null if there is none.
    pub structured_output: *mut c_char,
    /// The length of the structured output, in bytes.
    pub structured_output_len: usize,
}

/// An item of a queue. The host sets `size`, and frees `json` by `turnwise_string_free`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct TurnwiseEvent {
    /// The size of the struct, in bytes.
    pub size: usize,
    /// `TURNWISE_EVENT` or `TURNWISE_TURN_FINISHED`.
    pub kind: i32,
    /// Unused: 0.
    pub reserved: i32,
    /// The handle of the turn that has ended, of the kind `TURNWISE_TURN_FINISHED`; 0 otherwise.
    pub turn_handle: TurnwiseHandle,
    /// The number of the turn in its session; 0 if the event belongs to none, or if the queue does not say.
    pub turn: u64,
    /// The number of the event in its session; 0 if the queue does not say.
    pub seq: u64,
    /// The id of the session, as text with a NUL at its end.
    pub session_id: [c_char; 40],
    /// The event as JSON, an object with the field `type`; null for `TURNWISE_TURN_FINISHED`.
    pub json: *mut c_char,
    /// The length of the JSON, in bytes.
    pub json_len: usize,
}

/// An agent: functions that run on the thread of its session, and the host's context for them.
///
/// No function may throw a C++ exception or leave by `longjmp`: behaviour is undefined then. A function gets texts as
/// pointer and length, with a NUL behind, which are valid until it returns. `context` is used by all session threads at
/// the same time, until `drop_context` is called.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct TurnwiseAgent {
    /// The size of the struct, in bytes.
    pub size: usize,
    /// The host's data for all agents of the service.
    pub context: *mut c_void,
    /// Builds the agent of a session: stores its data in `*state`. `ctx` is the context of the build, for
    /// `turnwise_context_check`, `turnwise_context_sleep` and `turnwise_context_emit`. `spec` is JSON. Any result but 0
    /// fails the build, with the text of `turnwise_context_fail` if there is one; `build` then frees what it has made.
    /// Optional: without it the data is null.
    pub build: Option<
        extern "C" fn(
            context: *mut c_void,
            ctx: TurnwiseHandle,
            spec: *const c_char,
            spec_len: usize,
            state: *mut *mut c_void,
        ) -> i32,
    >,
    /// Runs a turn. The answer is that of `turnwise_context_answer`. Any result but 0 fails the turn; the result of a
    /// context function may be passed on. Required.
    pub run_turn: Option<
        extern "C" fn(
            context: *mut c_void,
            state: *mut c_void,
            ctx: TurnwiseHandle,
            prompt: *const c_char,
            prompt_len: usize,
        ) -> i32,
    >,
    /// Frees the data of an agent. Optional.
    pub drop_state: Option<extern "C" fn(context: *mut c_void, state: *mut c_void)>,
    /// Frees the context, after every other call. It runs on the thread that frees the last of the service, which may be
    /// a session thread. Not called if the creation of the service fails. Optional.
    pub drop_context: Option<extern "C" fn(context: *mut c_void)>,
    /// Asks for a call when a turn of this agent is told to stop, to abort what `run_turn` waits for. It runs on the
    /// thread that tells, while `run_turn` may run on its own. It is not called after `run_turn` has returned. A
    /// wait in it is `TURNWISE_REENTRANT`. Optional.
    pub on_cancel: Option<extern "C" fn(context: *mut c_void, state: *mut c_void)>,
}

/// The settings of a service.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct TurnwiseServiceOptions {
    /// The size of the struct, in bytes.
    pub size: usize,
    /// The agent. Required. The table is copied.
    pub agent: *const TurnwiseAgent,
    /// The path of the store's file, in UTF-8; null for a service in memory.
    pub store_path: *const c_char,
    /// The length of the path, in bytes.
    pub store_path_len: usize,
    /// More settings as JSON; null for the defaults.
    pub settings: *const c_char,
    /// The length of the JSON, in bytes.
    pub settings_len: usize,
}

// SAFETY: each type is `repr(C)` and begins with a `usize`. Its fields are integers, pointers, arrays of integers and
// optional functions: all zero is a value of each.
unsafe impl SizedStruct for TurnwiseError {}
// SAFETY: as above.
unsafe impl SizedStruct for TurnwiseResult {}
// SAFETY: as above.
unsafe impl SizedStruct for TurnwiseEvent {}
// SAFETY: as above.
unsafe impl SizedStruct for TurnwiseAgent {}
// SAFETY: as above.
unsafe impl SizedStruct for TurnwiseServiceOptions {}

/// Reads the size of a struct and checks it.
///
/// # Safety
/// If `from` is not null, the bytes that its first field says can be read.
unsafe fn checked_size<T: SizedStruct>(from: *const T, what: &str) -> Result<usize, Failure> {
    if from.is_null() {
        return Err(Failure::new(TURNWISE_INVALID_ARGUMENT, format!("{what} is null")));
    }
    if !from.is_aligned() {
        return Err(Failure::new(TURNWISE_INVALID_ARGUMENT, format!("{what} is not aligned")));
    }
    // SAFETY: the pointer is not null and aligned, and the size is the first field.
    let size = unsafe { from.cast::<usize>().read() };
    let known = size_of::<T>();
    // The first version of each struct has more than the size. A struct that ends inside of its size says nothing.
    if size < 2 * size_of::<usize>() || size > 64 * known {
        return Err(Failure::new(TURNWISE_INVALID_STRUCT, format!("{what} says that its size is {size}")));
    }
    let beyond = known..size;
    // SAFETY: the caller promises that `size` bytes can be read.
    if beyond.into_iter().any(|offset| unsafe { from.cast::<u8>().add(offset).read() } != 0) {
        let text = format!("{what} has {size} bytes, and uses fields beyond the {known} that this version knows");
        return Err(Failure::new(TURNWISE_INVALID_STRUCT, text));
    }
    Ok(size)
}

/// Reads a struct. Fields beyond its size are zero.
///
/// # Safety
/// If `from` is not null, the bytes that its first field says can be read, and each field is zero or valid.
pub(super) unsafe fn read<T: SizedStruct>(from: *const T, what: &str) -> Result<T, Failure> {
    // SAFETY: the caller's promise.
    let size = unsafe { checked_size(from, what) }?;
    let mut value = MaybeUninit::<T>::zeroed();
    // SAFETY: both sides have that many bytes, and do not overlap. All zero is a valid value, and so is what the caller
    // has written over it; a field that the size cuts in two is reset below.
    unsafe {
        ptr::copy_nonoverlapping(
            from.cast::<u8>(),
            value.as_mut_ptr().cast::<u8>(),
            whole_words(size.min(size_of::<T>())),
        );
        Ok(value.assume_init())
    }
}

/// The size without a word that it cuts in two, so that no pointer is read by half.
fn whole_words(size: usize) -> usize {
    size - size % size_of::<usize>()
}

/// Checks a struct that will be written.
///
/// # Safety
/// As for [`read`].
pub(super) unsafe fn check<T: SizedStruct>(to: *mut T, what: &str) -> Result<(), Failure> {
    // SAFETY: the caller's promise.
    unsafe { checked_size(to.cast_const(), what) }.map(drop)
}

/// Writes a struct, except for its size, and not past it.
///
/// # Safety
/// `to` has passed [`check`], and its bytes can be written.
pub(super) unsafe fn write<T: SizedStruct>(to: *mut T, value: &T) {
    let begin = size_of::<usize>();
    // SAFETY: `check` has read the size, so it can be read. The copy is within both structs, which do not overlap.
    unsafe {
        let size = whole_words(to.cast::<usize>().read().min(size_of::<T>()));
        ptr::copy_nonoverlapping(
            ptr::from_ref(value).cast::<u8>().add(begin),
            to.cast::<u8>().add(begin),
            size.saturating_sub(begin),
        );
    }
}

/// Whether the host's struct has the field that ends at `end`. A text for a missing field is not given out.
///
/// # Safety
/// `to` has passed [`check`].
pub(super) unsafe fn has_room<T: SizedStruct>(to: *const T, end: usize) -> bool {
    // SAFETY: `check` has read the size, so it can be read.
    unsafe { to.cast::<usize>().read() >= end }
}

/// An id as text in a field of 40 bytes. Every turn has one, so it is written without an allocation.
pub(super) fn id_field(id: SessionId) -> [c_char; 40] {
    let mut text = [0_u8; 40];
    // A UUID has 36 bytes, so 4 NULs follow.
    id.as_uuid().hyphenated().encode_lower(&mut text);
    text.map(|byte| byte as c_char)
}
