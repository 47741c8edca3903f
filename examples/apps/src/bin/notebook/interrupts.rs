//! Ctrl-C: interrupts whatever runs or is being built.

use turnwise::{ArchiveMode, SessionQuery, SessionService, SessionState, SessionSummary};
use turnwise_apps::ctrl_c::AtRest;

use crate::Notebook;

pub(crate) fn install(notebook: &Notebook, at_rest: AtRest) -> Result<(), ctrlc::Error> {
    // A weak handle: the signal handler lives as long as the program, the kernels need not.
    let notebook = notebook.downgrade();
    ctrlc::set_handler(move || {
        let interrupted = notebook.upgrade().map_or(0, |notebook| interrupt_all(&notebook));
        if interrupted == 0 {
            at_rest.act();
        }
    })
}

/// Interrupts every running cell. How many there were.
fn interrupt_all(notebook: &impl SessionService) -> usize {
    let kernels = notebook.list(SessionQuery::new()).unwrap_or_default();
    let interrupted = |kernel: &&SessionSummary| match kernel.state {
        // A resumed kernel that runs its cells again: no turn yet, so nothing is left of it.
        SessionState::Building => notebook.archive_with(kernel.session_id, ArchiveMode::Interrupt).is_ok(),
        _ => notebook.interrupt(kernel.session_id).is_ok(),
    };
    kernels.iter().filter(interrupted).count()
}
