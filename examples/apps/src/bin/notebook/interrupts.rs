//! Ctrl-C, which interrupts all cells that run, and all kernels that are being built.

use turnwise::{ArchiveMode, SessionQuery, SessionService, SessionState, SessionSummary};
use turnwise_apps::ctrl_c::AtRest;

use crate::Notebook;

pub(crate) fn install(notebook: &Notebook, at_rest: AtRest) -> Result<(), ctrlc::Error> {
    // The handle is weak, because the signal handler lives as long as the program.
    let notebook = notebook.downgrade();
    ctrlc::set_handler(move || {
        let interrupted = notebook.upgrade().map_or(0, |notebook| interrupt_all(&notebook));
        if interrupted == 0 {
            at_rest.act();
        }
    })
}

/// Interrupts every running cell. Returns their number.
fn interrupt_all(notebook: &impl SessionService) -> usize {
    let kernels = notebook.list(SessionQuery::new()).unwrap_or_default();
    let interrupted = |kernel: &&SessionSummary| match kernel.state {
        // A resumed kernel runs its cells again. It has no turn to interrupt, so it is archived.
        SessionState::Building => notebook.archive_with(kernel.session_id, ArchiveMode::Interrupt).is_ok(),
        _ => notebook.interrupt(kernel.session_id).is_ok(),
    };
    kernels.iter().filter(interrupted).count()
}
