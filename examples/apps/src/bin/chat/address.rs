//! The address of an endpoint.

use std::fmt;

use ureq::http::Uri;

/// The address of an endpoint. It is shown without its query, which may hold a key.
#[derive(Clone, Debug, Default)]
pub(crate) struct Address {
    /// Without a slash at its end, and without `/chat/completions`.
    base: String,
    query: Option<String>,
}

const PATH: &str = "/chat/completions";

impl Address {
    /// # Errors
    /// Fails if the URL cannot be that of an endpoint. The text has the reason.
    pub(crate) fn parse(url: &str) -> Result<Self, String> {
        let url = url.trim();
        let (base, query) = url.split_once('?').map_or((url, None), |(base, query)| (base, Some(query)));
        let wrong = |why: &str| Err(format!("'{}' is not the URL of an endpoint: {why}", shown(base)));
        if url.contains('#') {
            return wrong("it has a fragment ('#'), which is never sent to a server");
        }
        let uri: Uri = match url.parse() {
            Ok(uri) => uri,
            Err(error) => return wrong(&format!("{error}")),
        };
        if !matches!(uri.scheme_str(), Some("http" | "https")) {
            return wrong("it begins neither with 'http://' nor with 'https://'");
        }
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        if authority.contains('@') {
            return wrong("it names a user; give the key with --key or OPENAI_API_KEY");
        }
        if uri.host().is_none_or(str::is_empty) || (uri.port().is_none() && ends_with_port(authority)) {
            return wrong("it names no server, or no port");
        }
        let base = base.trim_end_matches('/');
        let base = base.strip_suffix(PATH).unwrap_or(base).trim_end_matches('/').to_owned();
        Ok(Self { base, query: query.filter(|query| !query.is_empty()).map(str::to_owned) })
    }

    /// The URL of requests.
    pub(crate) fn of_completions(&self) -> String {
        match &self.query {
            Some(query) => format!("{}{PATH}?{query}", self.base),
            None => format!("{}{PATH}", self.base),
        }
    }
}

/// The URL without a user name and a password.
fn shown(base: &str) -> String {
    match (base.split_once("://"), base.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://...@{host}"),
        _ => base.to_owned(),
    }
}

/// Whether a colon follows the host, so that a port is expected.
fn ends_with_port(authority: &str) -> bool {
    authority.rsplit_once(':').is_some_and(|(_, port)| !port.contains(']'))
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.base)
    }
}
