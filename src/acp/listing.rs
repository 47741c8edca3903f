//! The answer of `session/list`.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use agent_client_protocol_schema::v1::{Error, ListSessionsRequest, ListSessionsResponse, SessionInfo};

use super::config::AcpConfig;
use super::stop::{error_of, invalid_params};
use super::{CWD_LABEL, TITLE_LABEL};
use crate::error::SessionError;
use crate::model::SessionId;
use crate::service::{SessionQuery, SessionService, SessionSummary};

/// One page of the sessions that have a working directory. Waits for the disk in a service that stores sessions.
pub(super) fn page(
    service: &impl SessionService,
    request: &ListSessionsRequest,
    config: &AcpConfig,
) -> Result<ListSessionsResponse, Error> {
    // One more than a page has: it tells whether another page follows.
    let mut query = SessionQuery::new().limit(config.page.saturating_add(1));
    if let Some(cwd) = &request.cwd {
        query = query.label(CWD_LABEL, path_text(cwd)?);
    }
    // The cursor is the id of the last session of the page before.
    query.after = match &request.cursor {
        Some(cursor) => Some(cursor.parse::<SessionId>().map_err(|_| unknown_cursor())?),
        None => None,
    };
    let mut found = Vec::new();
    loop {
        let sessions = match service.list(query.clone()) {
            Ok(sessions) => sessions,
            Err(SessionError::NotFound { .. }) => return Err(unknown_cursor()),
            Err(error) => return Err(error_of(error)),
        };
        let is_last = sessions.len() <= config.page;
        let page = &sessions[..sessions.len().min(config.page)];
        query.after = page.last().map(|session| session.session_id);
        found.extend(page.iter().filter_map(shown));
        match query.after {
            // Sessions without a working directory may leave a page empty. The client gets one with sessions.
            Some(_) if !is_last && found.is_empty() => {}
            Some(last) if !is_last => return Ok(ListSessionsResponse::new(found).next_cursor(last.to_string())),
            _ => return Ok(ListSessionsResponse::new(found)),
        }
    }
}

fn unknown_cursor() -> Error {
    invalid_params("the cursor is not one of session/list, or it is not valid any more")
}

/// A path as the value of a label.
pub(super) fn path_text(path: &Path) -> Result<String, Error> {
    match path.to_str() {
        Some(text) if path.is_absolute() => Ok(text.to_owned()),
        _ => Err(invalid_params("\"cwd\" is not an absolute path")),
    }
}

fn shown(session: &SessionSummary) -> Option<SessionInfo> {
    let cwd = PathBuf::from(session.labels.get(CWD_LABEL)?);
    let title = session.labels.get(TITLE_LABEL).cloned();
    Some(SessionInfo::new(session.session_id.to_string(), cwd).title(title).updated_at(iso8601(session.updated_at)))
}

/// The time as ISO 8601 in UTC, with seconds. `None` before 1970.
fn iso8601(time: SystemTime) -> Option<String> {
    const DAY: u64 = 24 * 60 * 60;
    let seconds = time.duration_since(SystemTime::UNIX_EPOCH).as_ref().map(Duration::as_secs).ok()?;
    let (year, month, day) = date_of(seconds / DAY);
    let (hour, minute, second) = (seconds % DAY / 3_600, seconds % 3_600 / 60, seconds % 60);
    Some(format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z"))
}

/// The year, month and day of the `days`th day after 1970-01-01, in the Gregorian calendar.
///
/// Years are counted from March, so that a leap day is the last day of its year. The months from March on then have the
/// lengths that `(153 * month + 2) / 5` adds up.
fn date_of(days: u64) -> (u64, u64, u64) {
    // Days since 0000-03-01, in periods of 400 years.
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_shown_as_iso_8601() {
        let at = |seconds| iso8601(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)).unwrap();
        assert_eq!(at(0), "1970-01-01T00:00:00Z");
        assert_eq!(at(951_782_400 + 86_399), "2000-02-29T23:59:59Z");
        assert_eq!(at(1_709_164_800), "2024-02-29T00:00:00Z");
        assert_eq!(at(1_735_689_599), "2024-12-31T23:59:59Z");
        assert_eq!(at(4_107_542_400), "2100-03-01T00:00:00Z");
        assert_eq!(iso8601(SystemTime::UNIX_EPOCH - Duration::from_secs(1)), None);
    }
}
