//! The values of a kernel as a graph. Closures share their captured variables, so a value may be reached in several
//! ways, and may contain itself.

use std::collections::HashMap;
use std::mem;

use rhai::{Array, Dynamic, FnPtr, Map, Scope};

/// The depth limit of values. The interpreter recurses over them on its thread's stack.
pub(crate) const MOST_NESTED: usize = 500;
/// The memory limit of the variables of a function or a kernel.
pub(crate) const MOST_BYTES: usize = 128 << 20;

/// The approximate memory of a variable without its value.
const VARIABLE: usize = 64;
/// The approximate memory of an array's element, a map's entry, and a captured variable.
const ELEMENT: usize = mem::size_of::<Dynamic>();
const ENTRY: usize = 64;
const CAPTURED: usize = 128;

/// Copies variables. Copies share a value where the originals share one.
pub(crate) fn copy(scope: &Scope<'static>) -> Scope<'static> {
    let (mut copies, mut copy) = (Copies::default(), Scope::new());
    for (name, is_constant, value) in scope.iter_raw() {
        let value = copies.copy(value);
        if is_constant {
            copy.push_constant_dynamic(name, value);
        } else {
            copy.push_dynamic(name, value);
        }
    }
    copy
}

/// The copies of shared values, by the addresses of the originals.
#[derive(Default)]
struct Copies(HashMap<usize, Dynamic>);

impl Copies {
    fn copy(&mut self, value: &Dynamic) -> Dynamic {
        // This copies all values except shared ones.
        let mut copy = value.clone();
        self.separate(&mut copy);
        copy
    }

    /// Replaces the values that are shared with the original by copies.
    fn separate(&mut self, value: &mut Dynamic) {
        if value.is_shared() {
            *value = self.copy_shared(value);
        } else {
            for_each_inside(value, |inner| self.separate(inner));
        }
    }

    fn copy_shared(&mut self, value: &Dynamic) -> Dynamic {
        // This fails for a value that is being written. No value is, while no cell runs.
        let Some(original) = value.read_lock::<Dynamic>() else { return value.clone() };
        let mut copy = match self.0.get(&address(&original)) {
            Some(known) => known.clone(),
            None => self.copy_content(&original),
        };
        copy.set_tag(value.tag());
        copy
    }

    fn copy_content(&mut self, original: &Dynamic) -> Dynamic {
        // The copy is recorded before its content is copied, because the content may contain the value itself.
        let mut copy = Dynamic::UNIT.into_shared();
        self.0.insert(address(original), copy.clone());
        let content = self.copy(original);
        if let Some(mut place) = copy.write_lock::<Dynamic>() {
            *place = if original.is_read_only() { content.into_read_only() } else { content };
        }
        copy
    }
}

/// The identity of a shared value while it lives.
fn address(shared: &Dynamic) -> usize {
    shared as *const Dynamic as usize
}

/// Drops variables, including values that contain themselves. In a cycle no reference count falls to zero, so a plain
/// drop would leak them. It does not recurse, so deep values do not overflow the stack.
pub(crate) fn dismantle(scope: Scope<'static>) {
    let mut rest: Vec<Dynamic> = scope.into_iter().map(|(_, value, _)| value).collect();
    while let Some(mut value) = rest.pop() {
        if value.is_shared() {
            if let Some(mut content) = value.write_lock::<Dynamic>() {
                rest.push(mem::take(&mut *content));
            }
        } else {
            for_each_inside(&mut value, |inner| rest.push(mem::take(inner)));
        }
    }
}

/// The elements, entries or captured variables of a value that is not shared itself.
fn for_each_inside(value: &mut Dynamic, visit: impl FnMut(&mut Dynamic)) {
    // The kind is checked first, because a failed lock would still be held in the next branch.
    if value.is_array() {
        if let Some(mut array) = value.write_lock::<Array>() {
            array.iter_mut().for_each(visit);
        }
    } else if value.is_map() {
        if let Some(mut map) = value.write_lock::<Map>() {
            map.values_mut().for_each(visit);
        }
    } else if value.is_fnptr() {
        if let Some(mut function) = value.write_lock::<FnPtr>() {
            function.iter_curry_mut().for_each(visit);
        }
    }
}

/// The limit that values exceed.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Excess {
    Nested,
    Bytes,
}

impl Excess {
    pub(crate) fn message(self) -> String {
        match self {
            Self::Nested => format!("values are nested more than {MOST_NESTED} deep"),
            Self::Bytes => format!("the variables take more than {} MB", MOST_BYTES >> 20),
        }
    }
}

/// Measures values: their number, their memory and their depth.
#[derive(Default)]
pub(crate) struct Measure {
    pub(crate) values: u64,
    bytes: usize,
    /// The depth below each measured shared value, by address.
    known: HashMap<usize, usize>,
}

impl Measure {
    pub(crate) fn variables(&mut self, scope: &Scope<'_>) -> Result<(), Excess> {
        scope.iter_raw().try_for_each(|(name, _, value)| {
            self.bytes += VARIABLE + name.len();
            self.value(value)
        })
    }

    pub(crate) fn value(&mut self, value: &Dynamic) -> Result<(), Excess> {
        self.depth(value, MOST_NESTED).map(drop)
    }

    /// The depth of a value, which may be at most `allowed`.
    fn depth(&mut self, value: &Dynamic, allowed: usize) -> Result<usize, Excess> {
        if allowed == 0 {
            return Err(Excess::Nested);
        }
        self.values += 1;
        self.bytes += ELEMENT;
        let below = if value.is_shared() {
            self.depth_of_shared(value, allowed - 1)?
        } else if let Some(array) = value.read_lock::<Array>() {
            self.deepest(array.iter(), allowed - 1)?
        } else if let Some(map) = value.read_lock::<Map>() {
            self.bytes += map.keys().map(|key| ENTRY + key.len()).sum::<usize>();
            self.deepest(map.values(), allowed - 1)?
        } else if let Some(function) = value.read_lock::<FnPtr>() {
            self.bytes += CAPTURED;
            self.deepest(function.iter_curry(), allowed - 1)?
        } else {
            self.bytes += flat_size(value);
            0
        };
        if self.bytes > MOST_BYTES {
            return Err(Excess::Bytes);
        }
        Ok(below + 1)
    }

    fn deepest<'a>(&mut self, values: impl Iterator<Item = &'a Dynamic>, allowed: usize) -> Result<usize, Excess> {
        let mut deepest = 0;
        for value in values {
            deepest = deepest.max(self.depth(value, allowed)?);
        }
        Ok(deepest)
    }

    fn depth_of_shared(&mut self, value: &Dynamic, allowed: usize) -> Result<usize, Excess> {
        // A value that is being written is measured the next time.
        let Some(content) = value.read_lock::<Dynamic>() else { return Ok(0) };
        let address = address(&content);
        if let Some(&known) = self.known.get(&address) {
            return if known > allowed { Err(Excess::Nested) } else { Ok(known) };
        }
        // The depth ends where the value contains itself.
        self.known.insert(address, 0);
        self.bytes += CAPTURED;
        let depth = self.depth(&content, allowed)?;
        self.known.insert(address, depth);
        Ok(depth)
    }
}

/// The memory of the content of a string or a blob.
fn flat_size(value: &Dynamic) -> usize {
    if let Ok(text) = value.as_immutable_string_ref() {
        return text.len();
    }
    value.as_blob_ref().map_or(0, |blob| blob.len())
}
