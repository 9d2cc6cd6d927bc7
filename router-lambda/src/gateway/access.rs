//! One line for each request: what was asked, what came of it, and nothing that opens a session.
//!
//! Neither query nor cookie is said, and of an id in a path or a host's label no more than anywhere else in a log.

use std::borrow::Cow;
use std::fmt::Write as _;

use contract::ClientId;
use http::header::HOST;
use http::{HeaderValue, Method, StatusCode, Uri};
use tokio::time::Instant;

use crate::router::{Forward, Told};

/// Characters of an id that a log shows.
const ID_SHOWN: usize = 8;
/// Bytes of a host or a path that a log shows: whoever asks for more is not worth a page of it.
const SHOWN_MAX_BYTES: usize = 256;

/// What is known of a request, until its answer has ended.
#[derive(Debug)]
pub(super) struct Record {
    method: Method,
    uri: Uri,
    host: Option<HeaderValue>,
    began: Instant,
    client: Option<ClientId>,
    /// The first characters of its id.
    session: Option<String>,
    why: Option<Cow<'static, str>>,
}

/// How an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The visitor was sent all of it.
    Whole,
    /// The door broke off, and the visitor was cut off.
    Broken,
    /// The visitor did not wait for the rest.
    Left,
}

impl Record {
    /// Of a request that has just come.
    pub(super) fn of<B>(request: &http::Request<B>) -> Self {
        Self {
            method: request.method().clone(),
            uri: request.uri().clone(),
            host: request.headers().get(HOST).cloned(),
            began: Instant::now(),
            client: None,
            session: None,
            why: None,
        }
    }

    /// Whether only the head of an answer is wanted.
    pub(super) fn asks_for_head(&self) -> bool {
        self.method == Method::HEAD
    }

    /// Which session it is for.
    pub(super) fn belongs_to(&mut self, forward: &Forward) {
        self.client = Some(forward.client.clone());
        self.session = Some(forward.session.redacted().to_owned());
    }

    /// What the router says of its answer. A reason that is known better already is kept.
    pub(super) fn told(&mut self, told: Told) {
        self.client = told.client.or(self.client.take());
        self.session = told.session.or(self.session.take());
        self.why.get_or_insert(Cow::Borrowed(told.why));
    }

    /// Why it was not simply answered.
    pub(super) fn because(&mut self, why: impl Into<Cow<'static, str>>) {
        self.why = Some(why.into());
    }

    /// Writes the line.
    pub(super) fn write(&self, status: StatusCode, bytes: u64, end: End) {
        if !tracing::enabled!(target: "access", tracing::Level::INFO) {
            return;
        }
        let why = match (end, self.why.as_deref()) {
            (_, Some(why)) => why,
            (End::Whole, None) => "",
            (End::Broken, None) => "the door broke off",
            (End::Left, None) => "the visitor left",
        };
        let host = self.host.as_ref().and_then(|host| host.to_str().ok());
        tracing::info!(
            target: "access",
            method = %self.method,
            host = shown_host(host.unwrap_or_default()),
            path = shown_path(self.uri.path()),
            status = status.as_u16(),
            bytes,
            ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX),
            session = self.session.as_deref().unwrap_or_default(),
            client = self.client.as_ref().map_or("", ClientId::as_str),
            why,
        );
    }
}

/// A path, without the id that is in an entry's.
pub(crate) fn shown_path(path: &str) -> String {
    let mut shown = String::new();
    let mut after_session = false;
    for (number, segment) in path.split('/').enumerate() {
        if number > 0 {
            shown.push('/');
        }
        // An id is made of a client and 26 characters, wherever it stands.
        if after_session || is_id(segment) {
            push_id(&mut shown, segment);
        } else {
            shown.push_str(segment);
        }
        after_session = segment.eq_ignore_ascii_case("session");
        if shown.len() > SHOWN_MAX_BYTES {
            break;
        }
    }
    cut(shown)
}

/// A host, without what its label says of an id.
fn shown_host(host: &str) -> String {
    match host.split_once("--") {
        Some((label, rest)) => {
            let mut shown = String::new();
            push_id(&mut shown, label);
            write!(shown, "--{rest}").expect("writing to a String never fails");
            cut(shown)
        }
        None => cut(host.to_owned()),
    }
}

fn is_id(segment: &str) -> bool {
    segment
        .rsplit_once('_')
        .is_some_and(|(client, label)| label.len() >= 26 && client.parse::<ClientId>().is_ok())
}

/// What may be shown of something that stands where an id does.
fn push_id(shown: &mut String, id: &str) {
    let label = id.rsplit_once('_').map_or(id, |(_, label)| label);
    shown.extend(label.chars().take(ID_SHOWN));
    if label.chars().nth(ID_SHOWN).is_some() {
        shown.push('…');
    }
}

fn cut(mut text: String) -> String {
    if text.len() > SHOWN_MAX_BYTES {
        let end = (0..=SHOWN_MAX_BYTES)
            .rev()
            .find(|end| text.is_char_boundary(*end))
            .unwrap_or_default();
        text.truncate(end);
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "amelia_abcdefghijklmnopqrstuvwxyz";

    #[test]
    fn a_log_shows_no_more_of_an_id_than_anywhere() {
        for (path, expected) in [
            ("/", "/"),
            ("/about/", "/about/"),
            ("/@vite/client", "/@vite/client"),
            ("/src/pages/session_notes.md", "/src/pages/session_notes.md"),
            (&format!("/session/{ID}/about"), "/session/abcdefgh…/about"),
            ("/session/amelia_a/about", "/session/a/about"),
            (&format!("/SESSION/{ID}"), "/SESSION/abcdefgh…"),
            (&format!("//session/{ID}"), "//session/abcdefgh…"),
            (&format!("/x/{ID}"), "/x/abcdefgh…"),
            ("/session/", "/session/"),
        ] {
            assert_eq!(shown_path(path), expected, "{path}");
        }
        for (host, expected) in [
            ("edit.amelia.example:8080", "edit.amelia.example:8080"),
            (
                "abcdefghijklmnopqrstuvwxyz--amelia.preview.example",
                "abcdefgh…--amelia.preview.example",
            ),
            ("a--amelia.preview.example", "a--amelia.preview.example"),
        ] {
            assert_eq!(shown_host(host), expected, "{host}");
        }
    }

    #[test]
    fn a_giant_path_makes_a_short_line() {
        let shown = shown_path(&format!("/{}", "é".repeat(10_000)));
        assert!(
            shown.len() <= SHOWN_MAX_BYTES + '…'.len_utf8(),
            "{}",
            shown.len()
        );
    }
}
