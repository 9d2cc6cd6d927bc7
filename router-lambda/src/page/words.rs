//! Every sentence that the router says to a visitor, in one place. `docs/waiting.md` shows them all.
//!
//! As in the agent's `words.rs`: an owner has a website and has never heard of how it is made. A sentence says what happened,
//! and what they can do; never by which means.

use std::borrow::Cow;
use std::time::Duration;

use contract::session::{Failure, Phase};

use super::Standing;

/// A headline and what follows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Said {
    /// Without a full stop.
    pub(super) headline: &'static str,
    /// One or more sentences.
    pub(super) words: Cow<'static, str>,
}

impl Said {
    const fn new(headline: &'static str, words: &'static str) -> Self {
        Self {
            headline,
            words: Cow::Borrowed(words),
        }
    }
}

/// What is done while it wakes, in order: the list on the page.
pub(super) const STEPS: [&str; 4] = [
    "Getting ready",
    "Fetching the site",
    "Putting its building blocks in place",
    "Opening the first page",
];
/// What the list is, for who does not see it.
pub(super) const STEPS_LABEL: &str = "What is done";
/// What the bar is, for who does not see it.
pub(super) const BAR_LABEL: &str = "How far it is";
/// On the button that wakes.
pub(super) const WAKE: &str = "Wake it up";
/// On the button that tries once more.
pub(super) const TRY_AGAIN: &str = "Try again";
/// On the link to the site, where the page does not go there by itself.
pub(super) const OPEN: &str = "Open the page";
/// While the router does not answer the page.
pub(super) const OFFLINE: &str = "This page does not get an answer at the moment. It keeps trying.";
/// What helps whoever is asked for help.
pub(super) const REFERENCE: &str = "If you ask for help, please say: {code}";

/// What is said while a session's site cannot be shown.
pub(super) fn waiting(standing: &Standing<'_>) -> Said {
    const STARTING: &str = "The preview is starting";
    match standing {
        Standing::Asleep => Said::new(
            "The preview is asleep",
            "It wakes up when you want to see it.",
        ),
        Standing::Waking { phase } => Said::new(
            STARTING,
            match phase {
                None | Some(Phase::Config | Phase::Claim) => "Getting ready.",
                Some(Phase::Clone) => "Fetching the site.",
                Some(Phase::Install) => "Putting the site’s building blocks in place.",
                Some(Phase::Serve) => "Opening the first page.",
            },
        ),
        Standing::Ready => Said::new("The preview is ready", "It can be opened now."),
        Standing::Draining => Said::new(
            "The preview is closing",
            "Everything is being saved. It can be opened again in a moment.",
        ),
        Standing::Failed { failure, again_in } => failed(failure, again_in.is_some()),
        Standing::Full { limit } => Said {
            headline: "All previews are in use",
            words: match limit {
                0 | 1 => "Another preview of this site is open, and there can be one at a time. \
                      It closes by itself when nobody uses it."
                    .into(),
                _ => format!(
                    "{limit} previews of this site are open, and there can be no more at a time. \
                     They close by themselves when nobody uses them."
                )
                .into(),
            },
        },
        Standing::Suspended => Said::new(
            "The preview is switched off",
            "Please ask whoever looks after your site.",
        ),
        Standing::Held { .. } => Said::new(
            "The preview is coming back",
            "It lost touch for a moment, and is found again. This takes a minute at most.",
        ),
        Standing::RecordsDown => Said::new(
            UNAVAILABLE,
            "Something on our side does not answer at the moment. This page keeps trying.",
        ),
    }
}

/// Why it did not start, and what becomes of it. What the record says of it in a developer's words is not shown.
fn failed(failure: &Failure, by_itself: bool) -> Said {
    let Said { headline, words } = why(&failure.code);
    Said {
        headline,
        words: format!("{words} {}", what_next(by_itself, failure.retryable)).into(),
    }
}

/// What happened, by the code of a failure: the agent's (`failure.rs`) and the router's own.
fn why(code: &str) -> Said {
    match code {
        "environment_lost" | "not_saved" | "interrupted" => {
            Said::new("The preview stopped", "It ended when it should not have.")
        }
        "client_suspended" => Said::new(
            "The preview is switched off",
            "Previews of this site are not to be had at the moment.",
        ),
        _ => Said::new("The preview did not start", why_it_did_not_start(code)),
    }
}

fn why_it_did_not_start(code: &str) -> &'static str {
    match code {
        "no_capacity" | "launch_throttled" => "There is no room for it at the moment.",
        "too_slow" | "wake_timeout" => "It took much longer than it should.",
        "remote_unavailable" => "The place where the site is kept does not answer at the moment.",
        "remote_refused" => "The place where the site is kept does not let us in.",
        "repository_unusable" => "What is kept of the site cannot be used as it is.",
        "install_failed" => "The site’s building blocks could not be put in place.",
        "storage" => "There was no room for the site’s files.",
        "config_invalid" | "launch_refused" | "node_missing" | "port_taken" => {
            "Something is not set up as it should be."
        }
        _ => "Something went wrong on our side.",
    }
}

/// What becomes of it after a failure.
fn what_next(by_itself: bool, retryable: bool) -> &'static str {
    match (by_itself, retryable) {
        (true, _) => "It is tried again in a moment.",
        (false, true) => "You can try it again.",
        (false, false) => "Somebody who looks after the site has to see to it first.",
    }
}
/// What is on the button; none where a person can only wait.
pub(super) fn button(standing: &Standing<'_>) -> Option<&'static str> {
    match standing {
        Standing::Asleep => Some(WAKE),
        Standing::Failed { .. } | Standing::Full { .. } => Some(TRY_AGAIN),
        _ => None,
    }
}

/// How long it is expected to take, after what it took before.
pub(super) fn expectation(elapsed: Option<Duration>, estimate: Option<Duration>) -> String {
    /// Beyond what it takes usually: wakes differ by as much.
    const GRACE: Duration = Duration::from_secs(5);
    let Some(estimate) = estimate else {
        return "The first time takes a little longer.".to_owned();
    };
    if elapsed.is_some_and(|elapsed| elapsed > estimate + estimate / 2 + GRACE) {
        return "It takes longer than usual this time.".to_owned();
    }
    let usually = match estimate.as_secs() {
        0..8 => "a few seconds".to_owned(),
        // To the next five: nobody waits by the second.
        seconds @ 8..53 => format!("about {} seconds", (seconds + 2) / 5 * 5),
        53..90 => "about a minute".to_owned(),
        seconds => format!("about {} minutes", (seconds + 30) / 60),
    };
    format!("It usually takes {usually}.")
}

/// What helps whoever is asked for help: the code of the failure, if it can be said.
pub(super) fn reference(code: &str) -> String {
    REFERENCE.replace("{code}", code)
}

/// Behind a link to a new session.
pub(super) const LINK: Said = Said::new(
    "Your preview",
    "Here you see your site as it is being changed, before everybody else does.",
);

/// On the button behind a link.
pub(super) fn open_site(name: &str) -> String {
    format!("Open {name}")
}

/// A link that has made a session already.
pub(super) const LINK_USED: Said = Said::new(
    "This link was used already",
    "A link opens a preview once. If it was you, the preview is still where you opened it. Otherwise please ask for a new link.",
);
/// A link that is too old.
pub(super) const LINK_EXPIRED: Said = Said::new(
    "This link is too old",
    "A link opens a preview for a short time only. Please ask for a new one.",
);
/// A link that is none of ours, or not whole.
pub(super) const LINK_REFUSED: Said = Said::new(
    "This link does not work",
    "It is not complete, or it is none of ours. Please copy all of it, or ask for a new one.",
);
/// Another session of this client in the same browser.
pub(super) const SECOND_SESSION: Said = Said::new(
    "Another preview is open",
    "Another preview of this site is open in this browser, and there can be one at a time. Nothing is lost if you switch.",
);
/// On the button that switches.
pub(super) const SWITCH: &str = "Switch to this one";
/// On the link that stays.
pub(super) const STAY: &str = "Stay with the other one";
/// Whatever is not here, and whatever is not for this visitor.
pub(super) const NOT_FOUND: Said = Said::new(
    "There is nothing here",
    "Please check the address, or open the link again that you were sent.",
);
/// Over everything that cannot be said more exactly.
pub(super) const UNAVAILABLE: &str = "The preview cannot be reached";
/// A file that cannot be sent without a gateway.
pub(super) const TOO_LARGE: Said = Said::new(
    "This is too large to be shown here",
    "It is in the site all the same. Only the preview cannot show it.",
);
/// For a program that asks for a host that nobody here has.
pub(super) const MISDIRECTED: &str = "This host is not served here.";
/// For a program that asks for a socket where there are none.
pub(super) const NO_SOCKETS: &str =
    "There are no sockets at this address. Pages look for changes by themselves.";

/// For a program that uses a method that is not taken.
pub(super) fn wrong_method(allowed: &str) -> String {
    format!("This address takes {allowed} only.")
}

#[cfg(test)]
mod tests;
