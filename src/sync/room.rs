//! Whether the system has room for another thread, asked before it is started.
//!
//! Where the system refuses a thread, starting it is an error like any other. There is one limit, though, that Linux does not
//! apply before the thread runs: that of a process's memory maps, `vm.max_map_count`. The standard library gives every new
//! thread a second, small stack for its handler of stack overflows, on that thread itself, and where there is no map left for it
//! the program is aborted. So the maps are counted here, and threads are refused before the last ones are gone.
//!
//! To count them takes as long as there are many, so it is done only now and then: the more often, the fewer are left. Others
//! may use them too, so not too seldom either.

use std::io;

use super::Mutex;

/// Two stacks, each with a guard page.
const MAPS_OF_A_THREAD: usize = 4;
/// One part in so many of all maps is left for everything else: an allocator that gets none aborts the program too.
const RESERVE: usize = 32;

/// What others use of them between two counts has to fit into the reserve, too.
const MOST_UNCOUNTED: usize = 512;

/// How many threads may be started before the maps are counted again.
static UNCOUNTED: Mutex<usize> = Mutex::new(0);

/// An error where another thread might be one too many. Reads a file of `/proc` now and then.
pub(crate) fn room_for_a_thread() -> io::Result<()> {
    let mut uncounted = UNCOUNTED.lock();
    if *uncounted == 0 {
        *uncounted = match count() {
            Some((used, limit)) => threads_until_next_count(used, limit)?,
            // A system that has no such limit, or one that cannot say just now.
            None => 1,
        };
    }
    *uncounted -= 1;
    Ok(())
}

/// Maps in use, and how many there may be.
fn count() -> Option<(usize, usize)> {
    if !cfg!(target_os = "linux") {
        return None;
    }
    let limit = std::fs::read_to_string("/proc/sys/vm/max_map_count").ok()?.trim().parse().ok()?;
    let maps = std::fs::read("/proc/self/maps").ok()?;
    Some((maps.iter().filter(|byte| **byte == b'\n').count(), limit))
}

/// At least one.
fn threads_until_next_count(used: usize, limit: usize) -> io::Result<usize> {
    let room = limit.saturating_sub(limit / RESERVE).saturating_sub(used) / MAPS_OF_A_THREAD;
    match room {
        0 => {
            let text =
                format!("no room for another thread: {used} memory maps of {limit} are in use (vm.max_map_count)");
            Err(io::Error::new(io::ErrorKind::OutOfMemory, text))
        }
        room => Ok(room.div_ceil(2).min(MOST_UNCOUNTED)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_are_refused_before_the_last_maps_are_gone() {
        let limit = 65_530;
        let mut used = 40;
        let (mut threads, mut counts) = (0, 0);
        while let Ok(more) = threads_until_next_count(used, limit) {
            threads += more;
            used += more * MAPS_OF_A_THREAD;
            counts += 1;
        }
        assert!(threads > 15_800 && used < limit - 2_000, "{threads} threads, {used} maps");
        assert!(counts < 50, "{counts} counts");
        assert!(threads_until_next_count(limit + 1, limit).unwrap_err().to_string().contains("vm.max_map_count"));
    }

    #[test]
    fn this_process_has_room() {
        room_for_a_thread().unwrap();
        #[cfg(target_os = "linux")]
        assert!(count().is_some_and(|(used, limit)| used > 10 && used < limit));
    }
}
