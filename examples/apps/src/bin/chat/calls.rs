//! The tool calls of a reply, assembled from pieces.
//!
//! A piece names its call by a number, by an id, or not at all. Servers differ in which of these they omit or repeat.
//! These rules apply, in this order:
//!
//! 1. A known id names its call. But with another number and a name, the piece begins a second call with this id.
//! 2. A new id begins a call if the piece has a name or no number, or if no call has its number.
//! 3. Without an id, the piece belongs to the last call with its number, or without a number to the last call.
//! 4. A piece with a name begins another call if the call of the rules above is complete, or has another name.
//! 5. Arguments after complete arguments, without a name or a new id, belong to no call: the calls cannot be told
//!    apart.
//!
//! A call whose arguments are not one whole JSON object does not run. No call runs if the calls cannot be told apart.

use std::collections::HashSet;

use serde_json::Value;
use uuid::Uuid;

use crate::events::Broken;
use crate::json::{self, Joiner, Nesting};
use crate::tools;

/// A tool call.
#[derive(Clone, Debug, Default)]
pub(crate) struct ToolCall {
    /// The number from the server, if it has sent one.
    index: Option<i64>,
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) args: String,
    joiner: Joiner,
    nesting: Nesting,
    /// The arguments are one whole value, so no more arguments can follow.
    is_complete: bool,
    /// The server has sent the name again after complete arguments. It may have begun another call of the same tool.
    is_named_again: bool,
}

/// The calls that have arrived so far.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    calls: Vec<ToolCall>,
    /// A piece has arrived that belongs to none of the calls.
    is_ambiguous: bool,
}

/// One piece of a call. A field that the server omits or leaves empty is absent.
struct CallPiece {
    index: Option<i64>,
    id: Option<String>,
    name: Option<String>,
    args: String,
}

impl ToolCall {
    /// The arguments: one JSON object. A call without arguments has an empty one.
    ///
    /// # Errors
    /// Fails if the arguments are anything else, such as half an object. The text is for the model.
    pub(crate) fn arguments(&self) -> Result<&str, String> {
        match self.args.trim() {
            "" | "null" => Ok("{}"),
            args => match serde_json::from_str(args) {
                Ok(Value::Object(_)) => Ok(args),
                Ok(_) => Err("not run: the arguments are not a JSON object".into()),
                Err(error) => Err(format!("not run: the arguments are not one JSON object: {error}")),
            },
        }
    }

    /// Whether the call has neither a name nor arguments.
    fn is_empty(&self) -> bool {
        self.name.is_empty() && self.args.is_empty()
    }

    /// Adds a piece that belongs to this call.
    fn take(&mut self, piece: CallPiece) {
        self.index = self.index.or(piece.index);
        if let Some(id) = piece.id.filter(|_| self.id.is_empty()) {
            self.id = id;
        }
        if let Some(name) = piece.name {
            self.is_named_again |= self.is_complete;
            self.name = continued_name(&self.name, &name).unwrap_or(name);
        }
        let args = self.joiner.push(&piece.args);
        for byte in args.bytes() {
            self.is_complete |= self.nesting.closes(byte);
        }
        self.args.push_str(&args);
    }
}

impl CallPiece {
    fn of(piece: &Value) -> Self {
        let function = Some(&piece["function"]).filter(|function| function.is_object()).unwrap_or(piece);
        Self {
            index: json::whole_number(&piece["index"]),
            id: json::named(&piece["id"]),
            name: function["name"].as_str().and_then(|_| json::named(&function["name"])),
            args: match &function["arguments"] {
                Value::String(args) => args.clone(),
                args @ (Value::Object(_) | Value::Array(_)) => args.to_string(),
                _ => String::new(),
            },
        }
    }

    fn says_something(&self) -> bool {
        self.name.is_some() || self.id.is_some() || !self.args.is_empty()
    }
}

/// The call to which a piece belongs.
enum Place {
    /// The piece continues the call at this position.
    Of(usize),
    /// The piece begins a call.
    New,
    /// The piece repeats a call.
    Repeated,
    /// The piece may belong to several calls, or to none.
    Unknown,
}

impl Calls {
    /// Takes the pieces of one delta. Returns whether any of them was new.
    pub(crate) fn take<'a>(&mut self, pieces: impl Iterator<Item = &'a Value>) -> bool {
        let (mut taken, mut is_new) = (Vec::new(), false);
        for piece in pieces.map(CallPiece::of).filter(CallPiece::says_something) {
            let place = self.place_of(&piece);
            let place = self.apart_from(&taken, place, &piece);
            is_new |= !matches!(place, Place::Repeated);
            taken.extend(self.put(place, piece));
        }
        is_new
    }

    /// Two pieces of one delta that seem to belong to one call are two calls, unless their id names that call.
    fn apart_from(&self, taken: &[usize], place: Place, piece: &CallPiece) -> Place {
        match place {
            Place::Of(at) if taken.contains(&at) && piece.id.as_deref() != Some(&self.calls[at].id) => {
                match &piece.name {
                    Some(_) => Place::New,
                    None if piece.index.is_none() => Place::Unknown,
                    None => place,
                }
            }
            place => place,
        }
    }

    /// Adds a piece to its call, and returns the position of the call.
    fn put(&mut self, place: Place, piece: CallPiece) -> Option<usize> {
        let at = match place {
            Place::Of(at) => at,
            Place::New => {
                // This is the second of two calls of one tool. Its name has arrived in a piece of its own.
                let is_same = |last: &&mut ToolCall| last.is_named_again && last.index == piece.index;
                let again = self.calls.last_mut().filter(|last| piece.name.is_none() && is_same(last));
                let name = again.map(|last| {
                    last.is_named_again = false;
                    last.name.clone()
                });
                self.calls.push(ToolCall { name: name.unwrap_or_default(), ..ToolCall::default() });
                self.calls.len() - 1
            }
            Place::Repeated => return None,
            Place::Unknown => {
                self.is_ambiguous = true;
                return None;
            }
        };
        self.calls[at].take(piece);
        Some(at)
    }

    fn place_of(&self, piece: &CallPiece) -> Place {
        if let Some(id) = &piece.id {
            if let Some(at) = self.with_id(id, piece) {
                return self.go_on(at, piece);
            }
        }
        let Some(at) = self.last_with(piece.index) else { return self.without_mate(piece) };
        match &piece.id {
            // Some servers give every piece of a call a new id. A piece that begins a call has a name.
            Some(_) if !self.calls[at].id.is_empty() && (piece.name.is_some() || piece.index.is_none()) => Place::New,
            _ => self.go_on(at, piece),
        }
    }

    /// The call that an id names.
    fn with_id(&self, id: &str, piece: &CallPiece) -> Option<usize> {
        let has_number = |call: &ToolCall| call.index == piece.index || call.index.is_none() || piece.index.is_none();
        let with_number = self.calls.iter().rposition(|call| call.id == id && has_number(call));
        // With another number and a name the piece begins a second call with this id.
        with_number.or_else(|| self.calls.iter().rposition(|call| call.id == id && piece.name.is_none()))
    }

    /// The last call with this number, or the last one of all.
    fn last_with(&self, index: Option<i64>) -> Option<usize> {
        match index {
            Some(_) => self.calls.iter().rposition(|call| call.index == index),
            None => self.calls.len().checked_sub(1),
        }
    }

    /// The place of a piece whose number no call has.
    fn without_mate(&self, piece: &CallPiece) -> Place {
        match self.calls.last() {
            // The number arrives later than the beginning of the call.
            Some(last) if last.index.is_none() && piece.name.is_none() && !last.is_complete => {
                Place::Of(self.calls.len() - 1)
            }
            _ => Place::New,
        }
    }

    /// The place of a piece that names this call: it continues the call, repeats it, or begins another one.
    fn go_on(&self, at: usize, piece: &CallPiece) -> Place {
        let call = &self.calls[at];
        let (has_args, is_complete) = (!piece.args.trim().is_empty(), call.is_complete);
        let has_same_id = piece.id.as_deref() == Some(&call.id);
        match &piece.name {
            None if has_args && is_complete && call.is_named_again => Place::New,
            None if has_args && is_complete => Place::Unknown,
            None => Place::Of(at),
            Some(_) if call.name.is_empty() && !is_complete => Place::Of(at),
            Some(name) if *name == call.name => match has_args && is_complete {
                true if has_same_id && piece.args.trim() == call.args.trim() => Place::Repeated,
                true => Place::New,
                false => Place::Of(at),
            },
            Some(name) => {
                let goes_on = call.args.trim().is_empty() && continued_name(&call.name, name).is_some();
                if goes_on {
                    Place::Of(at)
                } else {
                    Place::New
                }
            }
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.calls.iter().all(ToolCall::is_empty) && !self.is_ambiguous
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// The complete calls. Each has a unique id, because a result has to name its call.
    ///
    /// # Errors
    /// Fails if the pieces of the calls cannot be told apart.
    pub(crate) fn finish(&mut self) -> Result<Vec<ToolCall>, Broken> {
        let is_orphan = |call: &ToolCall| call.name.is_empty() && !matches!(call.args.trim(), "" | "{}" | "null");
        if self.is_ambiguous || self.calls.iter().any(is_orphan) {
            let why = "its tool calls cannot be told apart, so none is run (--no-tools leaves the tools out)";
            return Err(Broken::Malformed(why.into()));
        }
        let mut calls = std::mem::take(&mut self.calls);
        calls.retain(|call| !call.is_empty());
        let mut known = HashSet::new();
        for call in &mut calls {
            let rest = call.joiner.finish();
            call.args = json::mended(&(std::mem::take(&mut call.args) + &rest));
            if call.name.is_empty() {
                call.name = "unnamed".into();
            }
            if call.id.is_empty() || !known.insert(call.id.clone()) {
                call.id = format!("call-{}", Uuid::now_v7().simple());
            }
        }
        Ok(calls)
    }
}

/// The name from its beginning and its rest, if it is or begins the name of a tool. Some servers send names in pieces.
fn continued_name(begin: &str, rest: &str) -> Option<String> {
    if begin.is_empty() || tools::is_known(begin) {
        return None;
    }
    let name = if rest.starts_with(begin) { rest.to_owned() } else { format!("{begin}{rest}") };
    tools::is_begun(&name).then_some(name)
}
