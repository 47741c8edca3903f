//! Statuses other than 200, and parameters that a server does not know.

use crate::server::status;
use crate::support::fails_and_goes_on;

#[test]
fn a_refusal_is_a_message_and_the_conversation_stays() {
    let json = r#"{"error": {"message": "that is not the key", "type": "auth"}}"#;
    fails_and_goes_on(status(401, &[], json), "not authorised: 401 Unauthorized: that is not the key\n");
    fails_and_goes_on(status(403, &[], ""), "not authorised: 403 Forbidden\n");
    fails_and_goes_on(status(404, &[], "no such\nmodel"), "unknown model 'small': 404 Not Found: no such\n");
    fails_and_goes_on(status(400, &[], r#"{"error": "too long"}"#), "bad request: 400 Bad Request: too long\n");
    fails_and_goes_on(status(429, &[], "slower"), "rate limited: 429 Too Many Requests: slower\n");
    fails_and_goes_on(status(500, &[], "<html>"), "provider failure: 500 Internal Server Error: <html>\n");
    fails_and_goes_on(status(504, &[], ""), "timed out: 504 Gateway Timeout\n");
}
