//! Everything that the router says itself, in words: the waiting page, the pages of links, and every refusal.
//!
//! ```text
//!  what stands in the way ──▶ words ──┬─▶ Page: frame (brand, policy) ─▶ 503  ── script asks `state` ──┐
//!  (Standing, Failure, …)             ├─▶ Json: the same, for programs ◀──────────────────────────────┘
//!                                     └─▶ Text: one line, for whatever is neither
//! ```
//!
//! These are pure functions of what is known to an answer. No page asks any other host for anything, none has a script of its
//! own, and none needs one: what the script does, a button does. Nothing here starts anything: a page is shown to whoever
//! fetches an address, and that may be a scanner of mail; only a POST wakes.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use contract::ClientConfig;
use contract::session::{Failure, Phase};
use http::header::{ACCEPT, ALLOW, HeaderValue, RETRY_AFTER};
use http::{HeaderMap, Response, StatusCode};
use serde::Serialize;

mod asset;
mod colour;
mod frame;
mod words;

pub use asset::asset;

use frame::{Forms, Frame, answer, escape};
use words::Said;

/// In which form something is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Form {
    /// A page, for a person.
    Page,
    /// An object, for a program that wants one.
    Json,
    /// One line, for everything else: modules, images, programs that say nothing of what they want.
    Text,
}

impl Form {
    /// What this request wants. A page only where it is to be shown: a browser that navigates says so.
    pub fn of(headers: &HeaderMap) -> Self {
        let accepted = |kind: &str| {
            let mut lines = headers
                .get_all(ACCEPT)
                .iter()
                .filter_map(|line| line.to_str().ok());
            lines.any(|line| {
                line.split(',').any(|range| {
                    let name = range.split(';').next().unwrap_or_default();
                    name.trim().eq_ignore_ascii_case(kind)
                })
            })
        };
        let navigates = headers
            .get("sec-fetch-mode")
            .map(|mode| mode.as_bytes() == b"navigate");
        match navigates {
            Some(true) => Self::Page,
            None if accepted("text/html") => Self::Page,
            _ if accepted("application/json") => Self::Json,
            _ => Self::Text,
        }
    }
}

/// A visitor who waits for a session's site.
#[derive(Debug, Clone, Copy)]
pub struct Waiting<'a> {
    /// Whose site.
    pub client: &'a ClientConfig,
    /// How it stands.
    pub standing: Standing<'a>,
    /// How long ago the wake began.
    pub elapsed: Option<Duration>,
    /// How long it is expected to take in all: the median of this client's own past wakes. None if it was never woken.
    pub estimate: Option<Duration>,
    /// Where the page POSTs to wake it: a path and query of this host, made by us from parsed ids.
    pub wake: &'a str,
    /// Where the page asks how it stands: a path, with a query if need be. The script adds `seen=<mark>`, which is
    /// [`Standing::mark`] of what it knows; an answer may be held back until that is another one, for at most 25 s.
    pub state: &'a str,
    /// The path and query that the visitor asked for, raw. The one navigation when it is ready goes there.
    pub here: &'a str,
    /// Whether the script may POST by itself once a person sees the page.
    pub by_itself: bool,
}

/// What stands between a visitor and the site.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing<'a> {
    /// It sleeps, and wakes when a person asks for it.
    Asleep,
    /// It wakes.
    Waking {
        /// What it is doing; none as long as it has not said so.
        phase: Option<Phase>,
    },
    /// It can be seen now.
    Ready,
    /// It saves everything before it sleeps.
    Draining,
    /// It did not start, or broke off.
    Failed {
        /// Why.
        failure: &'a Failure,
        /// When the page may POST again by itself; none if only a person may.
        again_in: Option<Duration>,
    },
    /// As many environments of the client are awake as there may be.
    Full {
        /// How many.
        limit: u32,
    },
    /// The client may not use environments.
    Suspended,
    /// Somebody at its address did not prove to be it, and its lease is not over yet.
    Held {
        /// When it is.
        again_in: Duration,
    },
    /// The records cannot be read, so that nobody knows.
    RecordsDown,
}

impl Standing<'_> {
    /// The word for it, for programs.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Asleep => "asleep",
            Self::Waking { .. } => "waking",
            Self::Ready => "ready",
            Self::Draining => "draining",
            Self::Failed { .. } => "failed",
            Self::Full { .. } => "full",
            Self::Suspended => "suspended",
            Self::Held { .. } => "held",
            Self::RecordsDown => "unknown",
        }
    }

    /// What has to change before there is anything new to show: `waking.install`, `asleep`.
    pub fn mark(&self) -> &'static str {
        match self {
            Self::Waking { phase: Some(phase) } => match phase {
                Phase::Config => "waking.config",
                Phase::Claim => "waking.claim",
                Phase::Clone => "waking.clone",
                Phase::Install => "waking.install",
                Phase::Serve => "waking.serve",
            },
            _ => self.word(),
        }
    }

    /// Which of [`words::STEPS`] is being done.
    fn step(&self) -> Option<usize> {
        let Self::Waking { phase } = self else {
            return None;
        };
        Some(match phase {
            None | Some(Phase::Config | Phase::Claim) => 0,
            Some(Phase::Clone) => 1,
            Some(Phase::Install) => 2,
            Some(Phase::Serve) => 3,
        })
    }

    /// Whether it becomes another one without anybody doing anything, so that a browser without a script looks again.
    fn passes(&self) -> bool {
        matches!(
            self,
            Self::Waking { .. }
                | Self::Ready
                | Self::Draining
                | Self::Held { .. }
                | Self::RecordsDown
        )
    }

    /// Whether a person can ask for it to be woken.
    fn can_be_woken(&self) -> bool {
        matches!(self, Self::Asleep | Self::Failed { .. } | Self::Full { .. })
    }

    /// When the page may ask for it again by itself, or when the standing is over.
    fn again_in(&self) -> Option<Duration> {
        match self {
            Self::Failed { again_in, .. } => *again_in,
            Self::Held { again_in } => Some(*again_in),
            _ => None,
        }
    }

    /// When a program should ask again.
    fn retry_after(&self) -> Duration {
        match self {
            Self::Ready => Duration::from_secs(1),
            Self::Waking { .. } | Self::Draining => WAKING_RETRY,
            Self::Failed { again_in, .. } => again_in.unwrap_or(IDLE_RETRY),
            Self::Held { again_in } => *again_in,
            Self::RecordsDown => RECORDS_RETRY,
            Self::Asleep | Self::Full { .. } => IDLE_RETRY,
            Self::Suspended => SUSPENDED_RETRY,
        }
    }
}

/// While something goes on that takes half a minute.
const WAKING_RETRY: Duration = Duration::from_secs(2);
/// While the records cannot be read: a table that throttles is better a moment later.
const RECORDS_RETRY: Duration = Duration::from_secs(5);
/// While nothing happens unless somebody does something.
const IDLE_RETRY: Duration = Duration::from_secs(30);
/// While an operator has to do something.
const SUSPENDED_RETRY: Duration = Duration::from_secs(3600);

/// What a program gets, and the script draws from.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Told<'a> {
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    phase: Option<Phase>,
    #[serde(skip_serializing_if = "Option::is_none")]
    elapsed_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    estimate_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<&'a Failure>,
    #[serde(skip_serializing_if = "Option::is_none")]
    again_ms: Option<u64>,
    headline: &'static str,
    words: Cow<'static, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expectation: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    button: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    step: Option<usize>,
    mark: &'static str,
}

impl<'a> Told<'a> {
    fn of(waiting: &Waiting<'a>) -> Self {
        let Waiting { standing, .. } = waiting;
        let Said { headline, words } = words::waiting(standing);
        Self {
            state: standing.word(),
            phase: match standing {
                Standing::Waking { phase } => *phase,
                _ => None,
            },
            elapsed_ms: waiting.elapsed.map(milliseconds),
            estimate_ms: waiting.estimate.map(milliseconds),
            failure: match standing {
                Standing::Failed { failure, .. } => Some(failure),
                _ => None,
            },
            again_ms: standing.again_in().map(milliseconds),
            headline,
            words,
            expectation: match standing {
                Standing::Waking { .. } => {
                    Some(words::expectation(waiting.elapsed, waiting.estimate))
                }
                _ => None,
            },
            button: words::button(standing),
            step: standing.step(),
            mark: standing.mark(),
        }
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Whole seconds, rounded up: who comes back earlier comes for nothing.
fn seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

/// What a visitor gets instead of the site: 503, which no cache and no search engine keeps. For a program that is told that
/// it is ready: 200.
pub fn waiting(waiting: &Waiting<'_>, form: Form) -> Response<Bytes> {
    let told = Told::of(waiting);
    let mut answer = match form {
        Form::Page => waiting_page(waiting, &told),
        Form::Json if waiting.standing == Standing::Ready => json(StatusCode::OK, &told),
        Form::Json => json(StatusCode::SERVICE_UNAVAILABLE, &told),
        Form::Text => text(
            StatusCode::SERVICE_UNAVAILABLE,
            &format!("{}. {}", told.headline, told.words),
        ),
    };
    if answer.status() == StatusCode::SERVICE_UNAVAILABLE {
        let seconds = seconds(waiting.standing.retry_after()).max(1);
        answer
            .headers_mut()
            .insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    answer
}

/// How it stands, for the script that asks: the JSON of [`waiting`], always 200. That it sleeps is an answer to this question
/// and no failure of it; a browser writes every failure into its console.
pub fn state(waiting: &Waiting<'_>) -> Response<Bytes> {
    json(StatusCode::OK, &Told::of(waiting))
}

fn waiting_page(waiting: &Waiting<'_>, told: &Told<'_>) -> Response<Bytes> {
    let standing = &waiting.standing;
    let mut steps = String::new();
    for (index, step) in words::STEPS.iter().enumerate() {
        let class = match told.step {
            Some(now) if index < now => r#" class="done""#,
            Some(now) if index == now => r#" aria-current="step""#,
            _ => "",
        };
        steps.push_str(&format!("<li{class}><span>{step}</span></li>\n"));
    }
    let hidden = |hidden: bool| if hidden { " hidden" } else { "" };
    let share = match (standing, waiting.elapsed, waiting.estimate) {
        (Standing::Waking { .. }, Some(elapsed), Some(estimate)) => Some(share(elapsed, estimate)),
        _ => None,
    };
    let reference = match standing {
        Standing::Failed { failure, .. } => words::reference(&failure.code),
        _ => String::new(),
    };
    let look_again = if standing.passes() {
        format!(
            r#"<noscript><meta http-equiv="refresh" content="{}"></noscript>"#,
            seconds(standing.retry_after()).clamp(3, 60)
        )
    } else {
        String::new()
    };
    let body = format!(
        r#"<h1 id="headline">{headline}</h1>
<p id="words" role="status" aria-live="polite">{words}</p>
<div id="progress"{no_steps}>
<progress id="bar" max="100" value="{share}" aria-label="{bar_label}"{no_bar}></progress>
<ol id="steps" aria-label="{steps_label}">
{steps}</ol>
<p id="expectation" class="quiet">{expectation}</p>
</div>
<form id="wake" method="post" action="{wake}"{no_button}><button id="button">{button}</button></form>
<p id="open"{not_ready}><a class="button" id="link" href="{here}">{open}</a></p>
<p id="reference" class="quiet"{no_reference}>{reference}</p>"#,
        headline = told.headline,
        words = escape(&told.words),
        no_steps = hidden(told.step.is_none()),
        share = share.unwrap_or(0),
        bar_label = words::BAR_LABEL,
        no_bar = hidden(share.is_none()),
        steps_label = words::STEPS_LABEL,
        expectation = told.expectation.as_deref().unwrap_or_default(),
        no_reference = hidden(reference.is_empty()),
        reference = escape(&reference),
        wake = escape(waiting.wake),
        no_button = hidden(!standing.can_be_woken()),
        button = told.button.unwrap_or(words::WAKE),
        not_ready = hidden(*standing != Standing::Ready),
        here = escape(&of_this_host(waiting.here)),
        open = words::OPEN,
    );
    let now = serde_json::to_string(told).expect("words are JSON");
    let data = [
        ("role", "waiting"),
        ("now", now.as_str()),
        ("wake", waiting.wake),
        ("state", waiting.state),
        ("here", waiting.here),
        ("by-itself", if waiting.by_itself { "yes" } else { "no" }),
        ("offline", words::OFFLINE),
        ("reference", words::REFERENCE),
    ];
    Frame {
        client: Some(waiting.client),
        headline: told.headline,
        head: &look_again,
        body: &body,
        data: &data,
        forms: Forms::Here,
    }
    .answer(StatusCode::SERVICE_UNAVAILABLE)
}

/// How much is done of what is expected, in a hundred: never all of it as long as it is not.
fn share(elapsed: Duration, estimate: Duration) -> u8 {
    let (elapsed, estimate) = (elapsed.as_millis(), estimate.as_millis().max(1));
    u8::try_from((elapsed * 100 / estimate).min(95)).expect("at most 95")
}

/// A link to this raw path and query that cannot lead to another host: a browser takes `//name/` and `/\name/` for one.
fn of_this_host(here: &str) -> String {
    format!("/.{}{here}", if here.starts_with('/') { "" } else { "/" })
}

/// Behind a link to a new session: one button, which makes it. The script presses it once a person sees the page.
pub fn link(client: &ClientConfig, action: &str, by_itself: bool) -> Response<Bytes> {
    let body = format!(
        r#"<h1>{headline}</h1>
<p>{words}</p>
<form id="open" method="post" action="{action}"><button>{button}</button></form>"#,
        headline = words::LINK.headline,
        words = words::LINK.words,
        action = escape(action),
        button = escape(&words::open_site(frame::name(client))),
    );
    let data = [
        ("role", "link"),
        ("by-itself", if by_itself { "yes" } else { "no" }),
    ];
    Frame {
        client: Some(client),
        headline: words::LINK.headline,
        head: "",
        body: &body,
        data: &data,
        forms: Forms::ToSession,
    }
    .answer(StatusCode::OK)
}

/// The link has made a session already.
pub fn link_used() -> Response<Bytes> {
    words_alone(StatusCode::GONE, &words::LINK_USED, Form::Page)
}

/// The link is too old.
pub fn link_expired() -> Response<Bytes> {
    words_alone(StatusCode::GONE, &words::LINK_EXPIRED, Form::Page)
}

/// The link is none of ours, or not whole.
pub fn link_refused() -> Response<Bytes> {
    words_alone(StatusCode::FORBIDDEN, &words::LINK_REFUSED, Form::Page)
}

/// Another session of this client is open in this browser. A POST to `here_post` switches; the link `stay` goes back.
pub fn second_session(client: &ClientConfig, here_post: &str, stay: &str) -> Response<Bytes> {
    let body = format!(
        r#"<h1>{headline}</h1>
<p>{words}</p>
<form method="post" action="{post}"><button>{switch}</button></form>
<p><a href="{stay}">{stay_words}</a></p>"#,
        headline = words::SECOND_SESSION.headline,
        words = words::SECOND_SESSION.words,
        post = escape(here_post),
        switch = words::SWITCH,
        stay = escape(&of_this_host(stay)),
        stay_words = words::STAY,
    );
    Frame {
        client: Some(client),
        headline: words::SECOND_SESSION.headline,
        head: "",
        body: &body,
        data: &[],
        forms: Forms::ToSession,
    }
    .answer(StatusCode::CONFLICT)
}

/// There is nothing here for this visitor. The same, byte for byte, whatever the reason.
pub fn not_found(form: Form) -> Response<Bytes> {
    words_alone(StatusCode::NOT_FOUND, &words::NOT_FOUND, form)
}

/// The host is none that anybody here has.
pub fn misdirected() -> Response<Bytes> {
    text(StatusCode::MISDIRECTED_REQUEST, words::MISDIRECTED)
}

/// The request is not one that is carried out, and `words` say why.
pub fn refused(status: StatusCode, words: &str) -> Response<Bytes> {
    text(status, words)
}

/// The method is none that this address takes; `allowed` are those that it does, as `GET, HEAD`.
pub fn wrong_method(allowed: &'static str) -> Response<Bytes> {
    let mut answer = text(
        StatusCode::METHOD_NOT_ALLOWED,
        &words::wrong_method(allowed),
    );
    answer
        .headers_mut()
        .insert(ALLOW, HeaderValue::from_static(allowed));
    answer
}

/// Nothing can be said at the moment, not even whose site it is; `words` say what is the matter.
pub fn unavailable(words: &str, form: Form) -> Response<Bytes> {
    let said = Said {
        headline: words::UNAVAILABLE,
        words: words.to_owned().into(),
    };
    let mut answer = words_alone(StatusCode::SERVICE_UNAVAILABLE, &said, form);
    let seconds = HeaderValue::from(seconds(RECORDS_RETRY));
    answer.headers_mut().insert(RETRY_AFTER, seconds);
    answer
}

/// What the site answered is larger than can be sent here: an answer of a Lambda ends at 1 MB.
///
/// 507: "the server is unable to store the representation needed to successfully complete the request" (RFC 4918), which is
/// what is the matter. A 502 would be what the load balancer says by itself, and look like a site that is broken; a 413
/// speaks of the request; a 503 would be asked again.
pub fn too_large(client: Option<&ClientConfig>, form: Form) -> Response<Bytes> {
    said(
        StatusCode::INSUFFICIENT_STORAGE,
        client,
        &words::TOO_LARGE,
        form,
    )
}

/// Where there is no gateway there are no sockets: 501, because no other request for one would be carried out either.
pub fn no_sockets() -> Response<Bytes> {
    text(StatusCode::NOT_IMPLEMENTED, words::NO_SOCKETS)
}

fn words_alone(status: StatusCode, words: &Said, form: Form) -> Response<Bytes> {
    said(status, None, words, form)
}

fn said(
    status: StatusCode,
    client: Option<&ClientConfig>,
    Said { headline, words }: &Said,
    form: Form,
) -> Response<Bytes> {
    match form {
        Form::Page => {
            let body = format!("<h1>{headline}</h1>\n<p>{}</p>", escape(words));
            Frame {
                client,
                headline,
                head: "",
                body: &body,
                data: &[],
                forms: Forms::Here,
            }
            .answer(status)
        }
        Form::Json => json(
            status,
            &serde_json::json!({ "headline": headline, "words": words }),
        ),
        Form::Text => text(status, &format!("{headline}. {words}")),
    }
}

fn text(status: StatusCode, words: &str) -> Response<Bytes> {
    answer(status, "text/plain; charset=utf-8", format!("{words}\n"))
}

fn json(status: StatusCode, told: &impl Serialize) -> Response<Bytes> {
    let body = serde_json::to_string(told).expect("words are JSON");
    answer(status, "application/json", body)
}

#[cfg(test)]
mod tests;
