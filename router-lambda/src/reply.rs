//! What an answer is made of: how a session stands in the words of the pages, and the answers that need nothing but a decision.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use contract::id::hex;
use contract::session::{Failure, State};
use contract::{ClientId, Session, Timestamp};
use http::{HeaderValue, Response, StatusCode};
use platform::Sessions;
use relay::{RelayError, Wait};
use tokio::time::Instant;

use crate::page::{self, Form, Standing};
use crate::path::landing;
use crate::route::{Decision, Why};
use crate::wake;

/// What is said where the records cannot be asked.
pub(crate) const RECORDS_DOWN: &str =
    "We cannot look it up at the moment. Nothing is lost; please try again in a moment.";
/// What is said to whoever has a link to a client that may have no environments.
pub(crate) const SUSPENDED: &str =
    "Editing is switched off for this website at the moment. Please ask whoever looks after it.";

/// Why an environment that is there cannot be seen: an operator has to look at networks and security groups. Another one is tried
/// only when a person asks for it.
pub(crate) static UNREACHABLE: LazyLock<Failure> = LazyLock::new(|| Failure {
    code: "unreachable".to_owned(),
    message:
        "The preview has started, and cannot be reached. Please tell whoever looks after your site."
            .to_owned(),
    retryable: true,
});

/// How long an estimate is gone by.
const ESTIMATE_FRESH: Duration = Duration::from_secs(60);
/// How long it may take to make one: a page without is better than a page that comes late.
const ESTIMATE_TIME_MAX: Duration = Duration::from_millis(500);
/// How many clients' estimates are remembered.
const ESTIMATES_MAX: usize = 10_000;

/// The answer to a decision that needs nothing else, and why, in a word.
pub(crate) fn plain(decision: &Decision<'_>, form: Form) -> (Response<Bytes>, &'static str) {
    match decision {
        Decision::Health => {
            let mut answer = Response::new(Bytes::from_static(b"ok\n"));
            answer.headers_mut().insert(
                http::header::CONTENT_TYPE,
                HeaderValue::from_static("text/plain"),
            );
            (answer, "health")
        }
        Decision::Refused(words) => (page::refused(StatusCode::BAD_REQUEST, words), "refused"),
        Decision::Misdirected => (page::misdirected(), "misdirected"),
        Decision::Method(allowed) => (page::wrong_method(allowed), "method"),
        Decision::Foreign => (
            page::refused(
                StatusCode::FORBIDDEN,
                "Another page asks for this. It is only for pages of this host.",
            ),
            "foreign",
        ),
        Decision::RecordsDown => (page::unavailable(RECORDS_DOWN, form), "records_down"),
        // Whatever else there is has been answered by whoever knows more; what has not is for nobody to see.
        _ => (page::not_found(form), "not_found"),
    }
}

/// How a session stands, for its pages. `why` is why its site cannot be seen; none if it can.
pub(crate) fn standing_of(session: &Session, why: Option<Why>, now: Timestamp) -> Standing<'_> {
    let until_the_lease_is_over = || {
        let left = session
            .lease_until
            .map_or(Duration::ZERO, |until| until.since(now));
        Standing::Held {
            again_in: left.max(Duration::from_secs(1)),
        }
    };
    match why {
        None => Standing::Ready,
        Some(Why::Asleep | Why::Lost) => Standing::Asleep,
        Some(Why::Waking) => Standing::Waking {
            phase: session.phase,
        },
        Some(Why::Draining) => Standing::Draining,
        Some(Why::Suspended) => Standing::Suspended,
        Some(Why::Unproven) => until_the_lease_is_over(),
        Some(Why::Nowhere | Why::Unreachable) => Standing::Failed {
            failure: &UNREACHABLE,
            again_in: None,
        },
        Some(Why::Failed) => match &session.failure {
            Some(failure) => Standing::Failed {
                failure,
                again_in: wake::again_at(session).map(|at| at.since(now)),
            },
            None => Standing::Asleep,
        },
    }
}

/// How long a wake has been going on.
pub(crate) fn elapsed(session: &Session, now: Timestamp) -> Option<Duration> {
    if session.state != State::Waking {
        return None;
    }
    session.woken_at.map(|woken| now.since(woken))
}

/// Where a page POSTs to wake, with where it wants to be then.
pub(crate) fn wake_address(here: &str) -> String {
    let mut address = "/_edit/wake?to=".to_owned();
    for byte in here.bytes() {
        // Everything that has a meaning in a query, or may not be in one.
        if byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'-' | b'.' | b'_' | b'~') {
            address.push(char::from(byte));
        } else {
            address.push_str(&format!("%{byte:02X}"));
        }
    }
    address
}

/// Where a form wants to be after a wake: a path and query of this host, `/` for anything else.
pub(crate) fn wanted(query: Option<&str>) -> String {
    let to = query
        .unwrap_or_default()
        .split('&')
        .find_map(|pair| pair.strip_prefix("to="));
    let decoded = to.and_then(unescape).unwrap_or_default();
    let (path, query) = match decoded.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (decoded.as_str(), None),
    };
    landing(path, query).unwrap_or_else(|| "/".to_owned())
}

fn unescape(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        if *first == b'%' {
            let digits = std::str::from_utf8(after.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &after[2..];
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    String::from_utf8(bytes).ok()
}

/// 128 random bits, as text.
pub(crate) fn nonce() -> String {
    hex(&random::<16>())
}

/// Random bytes.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the system has random bytes");
    bytes
}

/// What is said of a request that did not get through.
pub(crate) fn relay_words(error: &RelayError) -> String {
    let words = match error {
        RelayError::BodyTooLarge { .. } => "This is more than can be sent.",
        RelayError::HeadTooLarge { .. } => "The request's head is too large.",
        RelayError::TooManyTunnels { .. } => "Too many connections are open at the moment.",
        RelayError::RequestBody { .. }
        | RelayError::Timeout {
            wait: Wait::RequestBody,
            ..
        } => "The request broke off.",
        RelayError::Refused(_) => "The request is not one that can be passed on.",
        _ => "The site did not answer. Please try again in a moment.",
    };
    words.to_owned()
}

/// How long wakes take, by client.
#[derive(Debug, Default)]
pub(crate) struct Estimates(Mutex<HashMap<ClientId, (Option<Duration>, Instant)>>);

impl Estimates {
    /// How long a wake of this client is expected to take, from its own past ones.
    pub(crate) async fn of(&self, sessions: &dyn Sessions, client: &ClientId) -> Option<Duration> {
        if let Some((estimate, at)) = self.lock().get(client).copied()
            && at.elapsed() < ESTIMATE_FRESH
        {
            return estimate;
        }
        let listed = tokio::time::timeout(ESTIMATE_TIME_MAX, sessions.list(client)).await;
        let estimate = match listed {
            Ok(Ok(sessions)) => wake::estimate(&sessions),
            _ => None,
        };
        let mut known = self.lock();
        if known.len() >= ESTIMATES_MAX {
            known.clear();
        }
        known.insert(client.clone(), (estimate, Instant::now()));
        estimate
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<ClientId, (Option<Duration>, Instant)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn whoever_wakes_without_a_script_comes_back_to_where_he_was() {
        for here in ["/", "/about?a=1&raw", "/a%20b?to=/x", "/?"] {
            let address = wake_address(here);
            let query = address.split_once('?').map(|(_, query)| query);
            assert_eq!(wanted(query), here, "{address}");
        }
        for other in [
            "to=//evil.com",
            "to=%2F%2Fevil.com",
            "to=/%5Cevil.com",
            "to=https://evil.com",
            "to=%",
            "to=%zz",
            "to=%FF",
            "to=/%0d%0aSet-Cookie:x",
            "",
            "x=1",
        ] {
            assert_eq!(wanted(Some(other)), "/", "{other}");
        }
    }

    proptest! {
        #[test]
        fn nobody_is_sent_to_another_host(query in "\\PC{0,60}") {
            let to = wanted(Some(&query));
            prop_assert!(to.starts_with('/') && !to.starts_with("//") && !to.contains('\\'), "{}", to);
        }
    }
}
