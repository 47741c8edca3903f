//! Checks that the system has room for another thread, before the thread is started.
//!
//! If the system refuses a thread, the start returns an error. One limit is different: Linux applies the limit of a
//! process's memory maps, `vm.max_map_count`, only after the thread runs. On each new thread the standard library
//! allocates a second, small stack for its handler of stack overflows. If there is no map left for that stack, the
//! program aborts. So this module counts the maps, and refuses threads before the last maps are used.
//!
//! A count takes time in proportion to the number of maps, so it is not made for every thread. The fewer maps are left,
//! the more often they are counted. Other code may use maps too, so a limit applies to the threads between two counts.

use std::io;

use super::Mutex;

/// The maps of two stacks, each with a guard page.
const MAPS_PER_THREAD: usize = 4;
/// One part in this many of all maps stays free for other code: an allocator that gets no map aborts the program too.
const RESERVE: usize = 32;

/// The limit of threads between two counts. The maps that other code uses in that time must fit into the reserve.
const MAX_UNCOUNTED: usize = 512;

/// The number of threads that may be started before the next count.
static UNCOUNTED: Mutex<usize> = Mutex::new(0);

/// Returns an error if another thread might be one too many. Sometimes reads two files of `/proc`.
pub(crate) fn room_for_a_thread() -> io::Result<()> {
    let mut uncounted = UNCOUNTED.lock();
    if *uncounted == 0 {
        *uncounted = match count() {
            Some((used, limit)) => threads_until_next_count(used, limit)?,
            // The system has no such limit, or cannot report it now.
            None => 1,
        };
    }
    *uncounted -= 1;
    Ok(())
}

/// The number of maps in use, and the limit.
fn count() -> Option<(usize, usize)> {
    if !cfg!(target_os = "linux") {
        return None;
    }
    let limit = std::fs::read_to_string("/proc/sys/vm/max_map_count").ok()?.trim().parse().ok()?;
    let maps = std::fs::read("/proc/self/maps").ok()?;
    Some((maps.iter().filter(|byte| **byte == b'\n').count(), limit))
}

/// The number of threads until the next count, at least one. Returns an error if there is no room for one.
fn threads_until_next_count(used: usize, limit: usize) -> io::Result<usize> {
    let room = limit.saturating_sub(limit / RESERVE).saturating_sub(used) / MAPS_PER_THREAD;
    match room {
        0 => {
            let text =
                format!("no room for another thread: {used} memory maps of {limit} are in use (vm.max_map_count)");
            Err(io::Error::new(io::ErrorKind::OutOfMemory, text))
        }
        room => Ok(room.div_ceil(2).min(MAX_UNCOUNTED)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_are_refused_before_the_last_maps_are_used() {
        let limit = 65_530;
        let mut used = 40;
        let (mut threads, mut counts) = (0, 0);
        while let Ok(more) = threads_until_next_count(used, limit) {
            threads += more;
            used += more * MAPS_PER_THREAD;
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
