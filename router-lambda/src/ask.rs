//! What was asked, as it came: nothing is decoded, joined or cleaned up before it has been judged.

use std::net::IpAddr;

use http::{HeaderMap, Method};
use relay::Proto;

/// The head of a request, from whichever front end. Path and query are the bytes of the request, not what a URL library
/// makes of them: `?raw` and `?raw=` are two different modules to a dev server.
#[derive(Debug, Clone, Copy)]
pub struct Head<'r> {
    /// The method.
    pub method: &'r Method,
    /// The path, raw, beginning with `/`.
    pub path: &'r str,
    /// The query, raw, without its `?`; none where there is no `?`.
    pub query: Option<&'r str>,
    /// The fields.
    pub headers: &'r HeaderMap,
    /// Who asks, after the hops that are trusted.
    pub visitor: Option<IpAddr>,
    /// How the visitor reached the first hop. It decides which cookie is ours.
    pub proto: Proto,
}

impl Head<'_> {
    /// The value of a field that is there exactly once and is visible ASCII.
    pub fn one(&self, name: impl http::header::AsHeaderName) -> Option<&str> {
        let mut values = self.headers.get_all(name).iter();
        let value = values.next()?.to_str().ok()?;
        values.next().is_none().then_some(value)
    }

    /// Path and query as they came.
    pub fn target(&self) -> String {
        match self.query {
            Some(query) => format!("{}?{query}", self.path),
            None => self.path.to_owned(),
        }
    }

    /// Whether a person's browser goes to a page with this request: only then is a page the right answer.
    pub fn is_navigation(&self) -> bool {
        if *self.method != Method::GET && *self.method != Method::HEAD {
            return false;
        }
        match self.one("sec-fetch-mode") {
            Some(mode) => mode == "navigate",
            // Before 2023 not every browser said so.
            None => self
                .one(http::header::ACCEPT)
                .is_some_and(|accept| accept.contains("text/html")),
        }
    }

    /// Whether this asks for a socket, well-formed or not.
    pub fn is_upgrade(&self) -> bool {
        self.headers.contains_key(http::header::UPGRADE)
    }

    /// Whether the request was made by a page of this very host, or by no page at all. Browsers say `Origin` with every
    /// POST and every socket; what says neither `Origin` nor `Sec-Fetch-Site` is a program, which has no cookies but its own.
    pub fn is_of_this_host(&self, host: &str) -> bool {
        let mut origins = self.headers.get_all(http::header::ORIGIN).iter();
        match (origins.next(), origins.next()) {
            (Some(origin), None) => {
                let expected = format!("{}://{host}", self.proto.as_str());
                origin
                    .to_str()
                    .is_ok_and(|origin| origin.eq_ignore_ascii_case(&expected))
            }
            (Some(_), Some(_)) => false,
            (None, _) => self
                .one("sec-fetch-site")
                .is_none_or(|site| site == "same-origin" || site == "none"),
        }
    }
}
