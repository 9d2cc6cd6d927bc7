//! What a request gets. Pure: from what was asked, what is known of the session and the client, what the operator decided,
//! and the time, to one [`Decision`].
//!
//! ```text
//!  Head ──▶ Asked (host, path, cookie: which client, which session?) ──▶ looked up ──▶ route ──▶ Decision
//! ```
//!
//! - **Unknown and forbidden are one answer.** Whether there is a client, a session, or a session of another client is
//!   nobody's business.
//! - **Bytes of a site flow only** to a session that is ready under a living lease, at an address where containers may be.
//! - **Nothing wakes but a person**: the page's own POST. Whatever else comes while a session sleeps is told that it does.
//! - **Nothing leads anywhere but to parsed ids**: no address is made from what somebody wrote.

use std::fmt;
use std::net::SocketAddr;

use contract::client_config::ClientStatus;
use contract::session::State;
use contract::{ClientConfig, Session, SessionId, Timestamp};
use http::Method;

use crate::ask::Head;
use crate::cookie;
use crate::host::{Host, HostRefused, Place, preview_host};
use crate::path::{PathKind, landing};
use crate::policy::Policy;
use crate::rollout;

/// What was asked, taken apart: what has to be looked up is in it.
#[derive(Debug, Clone)]
pub struct Asked<'r> {
    /// Whose host.
    pub place: Place<'r>,
    /// What the path is.
    pub path: PathKind<'r>,
    /// The session that the browser has on this host: a valid id.
    pub cookie: Option<&'r str>,
    /// Name and port, as they are written into an address.
    host: &'r Host<'r>,
}

/// A session's id without an allocation.
#[derive(Clone, Copy)]
pub struct ShortId {
    bytes: [u8; Self::MAX],
    length: usize,
}

impl ShortId {
    /// A client, an underscore and a label; more than any id has.
    const MAX: usize = 64;

    fn of(parts: &[&str]) -> Option<Self> {
        let mut id = Self {
            bytes: [0; Self::MAX],
            length: 0,
        };
        for part in parts {
            let end = id.length + part.len();
            id.bytes
                .get_mut(id.length..end)?
                .copy_from_slice(part.as_bytes());
            id.length = end;
        }
        Some(id)
    }

    /// The id. It may be none that is valid; then there is no session of that name.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..self.length]).unwrap_or_default()
    }
}

impl fmt::Debug for ShortId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ShortId(…)")
    }
}

impl<'r> Asked<'r> {
    /// Takes a request apart. `host` is what [`Host::of`] read from it.
    pub fn of(head: &Head<'r>, host: &'r Host<'r>, policy: &Policy) -> Self {
        let place = Place::of(&host.name, policy);
        let path = match place {
            Place::Preview { .. } => PathKind::of_preview(head.path),
            Place::Edit { .. } | Place::Named { .. } => PathKind::of(head.path),
        };
        Self {
            place,
            path,
            cookie: cookie::session(head),
            host,
        }
    }

    /// The session whose record decides. None where none is needed.
    pub fn session(&self) -> Option<ShortId> {
        match (self.path, self.place) {
            (PathKind::Static { .. } | PathKind::New, _) => None,
            (PathKind::Entry { session, .. }, _) => ShortId::of(&[session]),
            // The browser has to have it, not only to name it.
            (_, Place::Preview { client, label }) => {
                let id = ShortId::of(&[client, "_", label])?;
                let entering = self.path == PathKind::Enter;
                let has = self.cookie == Some(id.as_str());
                (entering || has).then_some(id)
            }
            (_, Place::Edit { .. } | Place::Named { .. }) => ShortId::of(&[self.cookie?]),
        }
    }

    /// The host, as it is written into an address.
    pub fn authority(&self) -> String {
        self.host.authority()
    }
}

/// What is known of a session.
#[derive(Debug, Clone, Copy)]
pub enum Seen<'a> {
    /// Its record.
    Known(&'a Session),
    /// There is none, or none was asked for.
    Unknown,
    /// The records cannot be asked, and nothing of it is remembered.
    Down,
}

/// What a request gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision<'a> {
    /// A load balancer asks whether we are there.
    Health,
    /// It is not HTTP as it has to be.
    Refused(&'static str),
    /// The host is none of ours.
    Misdirected,
    /// There is nothing here, or nothing that the asker may see.
    NotFound,
    /// This method is not for this path.
    Method(&'static str),
    /// A page of another host asks.
    Foreign,
    /// The records cannot be asked.
    RecordsDown,
    /// An asset of ours.
    Static(&'a str),
    /// `/new`: a link is shown, with a button.
    Link,
    /// The button was pressed.
    Make,
    /// A token that leads into this session has to be read and spent.
    Enter {
        /// The session whose host this is.
        session: &'a Session,
    },
    /// The browser gets the session's cookie, and goes on to the site.
    Settle {
        /// Which session.
        session: &'a Session,
        /// To which path and query of this host.
        to: String,
        /// The session that the browser had here and has left: its sockets are closed.
        left: Option<SessionId>,
    },
    /// The browser goes on to the session's own host.
    ToHost {
        /// Which session.
        session: &'a Session,
        /// The host's name.
        host: String,
        /// To which path and query of it.
        to: String,
    },
    /// The browser has another session open on this host.
    Second {
        /// The one that was asked for.
        session: &'a Session,
        /// Where it would go.
        to: String,
    },
    /// The session is not ours to serve: the client's site is still edited elsewhere.
    Legacy {
        /// What to do.
        away: rollout::Away<'a>,
    },
    /// The door of this session, at this address.
    Proxy {
        /// Which session.
        session: &'a Session,
        /// Where its door is.
        address: SocketAddr,
    },
    /// The site is not there now.
    Wait {
        /// Which session.
        session: &'a Session,
        /// Why.
        why: Why,
    },
    /// A person wants it awake.
    Wake {
        /// Which session.
        session: &'a Session,
        /// How it is now.
        why: Option<Why>,
    },
    /// How it is, for the page that waits.
    State {
        /// Which session.
        session: &'a Session,
        /// Why the site is not there; none if it is.
        why: Option<Why>,
    },
}

/// Why a site is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// Nobody has woken it.
    Asleep,
    /// It is being woken.
    Waking,
    /// It saves everything and goes to sleep.
    Draining,
    /// It could not be woken.
    Failed,
    /// Its container was there, and has not been heard of for longer than its lease.
    Lost,
    /// Its record leads to where no container may be.
    Nowhere,
    /// What answers at its address did not prove itself, or does not answer.
    Unproven,
    /// It renews its lease, and for longer than one nobody has reached it.
    Unreachable,
    /// The client may have no environments.
    Suspended,
}

impl Why {
    /// One word, for logs and metrics.
    pub fn code(self) -> &'static str {
        match self {
            Self::Asleep => "asleep",
            Self::Waking => "waking",
            Self::Draining => "draining",
            Self::Failed => "failed",
            Self::Lost => "lost",
            Self::Nowhere => "nowhere",
            Self::Unproven => "unproven",
            Self::Unreachable => "unreachable",
            Self::Suspended => "suspended",
        }
    }
}

/// Where the door of a session is, or why it has none.
pub fn standing(
    config: &ClientConfig,
    session: &Session,
    policy: &Policy,
    now: Timestamp,
) -> Result<SocketAddr, Why> {
    if config.status == ClientStatus::Suspended {
        return Err(Why::Suspended);
    }
    let leased = session.lease_until.is_some_and(|until| until > now);
    match session.state {
        State::Dormant => Err(Why::Asleep),
        State::Failed => Err(Why::Failed),
        State::Waking | State::Ready | State::Draining if !leased => Err(Why::Lost),
        State::Waking => Err(Why::Waking),
        State::Draining => Err(Why::Draining),
        State::Ready => {
            let (Some(ip), Some(port)) = (&session.container_ip, session.port) else {
                return Err(Why::Nowhere);
            };
            policy.door(ip, port).ok_or(Why::Nowhere)
        }
    }
}

/// What a request gets whose host is not even read: before anything is looked up.
pub fn unread(head: &Head<'_>, refused: HostRefused) -> Decision<'static> {
    if is_health_check(head) {
        return Decision::Health;
    }
    match refused {
        HostRefused::Missing => Decision::Refused("The request names no host."),
        HostRefused::Several => Decision::Refused("The request names more than one host."),
        HostRefused::Malformed => Decision::Misdirected,
    }
}

/// A load balancer's own question. It names no host, or an address.
fn is_health_check(head: &Head<'_>) -> bool {
    head.one(http::header::USER_AGENT)
        .is_some_and(|agent| agent.starts_with("ELB-HealthChecker/"))
}

/// What a request gets. `client` is whose host it is, if anybody's; `seen` is what is known of [`Asked::session`].
pub fn route<'a>(
    head: &Head<'a>,
    asked: &Asked<'a>,
    client: Option<&'a ClientConfig>,
    seen: Seen<'a>,
    policy: &Policy,
    now: Timestamp,
) -> Decision<'a> {
    let Some(config) = client else {
        // Below our domains everything is ours, whether or not there is such a client.
        return match asked.place {
            Place::Named { .. } if is_health_check(head) => Decision::Health,
            Place::Named { .. } => Decision::Misdirected,
            Place::Edit { .. } | Place::Preview { .. } => Decision::NotFound,
        };
    };
    match asked.path {
        PathKind::Static { name } => return reading(head, Decision::Static(name)),
        PathKind::New => return new(head, asked, config),
        _ => {}
    }
    let session = match seen {
        Seen::Known(session) if session.client_id == config.client_id => session,
        Seen::Down => return Decision::RecordsDown,
        Seen::Known(_) | Seen::Unknown => {
            return match asked.path {
                PathKind::Entry { session, .. } => {
                    // It may be a session of the old system.
                    rollout::stranger(config, session)
                        .map_or(Decision::NotFound, |away| Decision::Legacy { away })
                }
                _ => Decision::NotFound,
            };
        }
    };
    let standing = standing(config, session, policy, now);
    match asked.path {
        PathKind::Entry { rest, .. } => entry(head, asked, config, session, rest, policy),
        PathKind::Enter => match asked.place {
            Place::Preview { .. } => reading(head, Decision::Enter { session }),
            Place::Edit { .. } | Place::Named { .. } => Decision::NotFound,
        },
        PathKind::State => reading(
            head,
            Decision::State {
                session,
                why: standing.err(),
            },
        ),
        PathKind::Wake => {
            if *head.method != Method::POST {
                return Decision::Method("POST");
            }
            if !head.is_of_this_host(&asked.authority()) {
                return Decision::Foreign;
            }
            if let Some(away) = rollout::session(config, &session.session_id) {
                return Decision::Legacy { away };
            }
            Decision::Wake {
                session,
                why: standing.err(),
            }
        }
        PathKind::Door | PathKind::Site => {
            if head.is_upgrade()
                && !(head.headers.contains_key(http::header::ORIGIN)
                    && head.is_of_this_host(&asked.authority()))
            {
                return Decision::Foreign;
            }
            // A switch takes effect for those as well who are there already, at their next page.
            if head.is_navigation()
                && let Some(away) = rollout::session(config, &session.session_id)
            {
                return Decision::Legacy { away };
            }
            match standing {
                Ok(address) => Decision::Proxy { session, address },
                Err(why) => Decision::Wait { session, why },
            }
        }
        // Answered above.
        PathKind::Static { .. } | PathKind::New => Decision::NotFound,
    }
}

/// A GET or HEAD, or a refusal.
fn reading<'a>(head: &Head<'_>, decision: Decision<'a>) -> Decision<'a> {
    if *head.method == Method::GET || *head.method == Method::HEAD {
        decision
    } else {
        Decision::Method("GET, HEAD")
    }
}

fn new<'a>(head: &Head<'a>, asked: &Asked<'a>, config: &'a ClientConfig) -> Decision<'a> {
    if matches!(asked.place, Place::Preview { .. }) {
        return Decision::NotFound;
    }
    if let Some(away) = rollout::all(config) {
        return Decision::Legacy { away };
    }
    match *head.method {
        Method::GET | Method::HEAD => Decision::Link,
        Method::POST if head.is_of_this_host(&asked.authority()) => Decision::Make,
        Method::POST => Decision::Foreign,
        _ => Decision::Method("GET, HEAD, POST"),
    }
}

/// The entry: to the session's own host where it has one, else onto this one.
fn entry<'a>(
    head: &Head<'a>,
    asked: &Asked<'a>,
    config: &'a ClientConfig,
    session: &'a Session,
    rest: &'a str,
    policy: &Policy,
) -> Decision<'a> {
    if let Some(away) = rollout::session(config, &session.session_id) {
        return Decision::Legacy { away };
    }
    let Some(to) = landing(rest, head.query) else {
        return Decision::Refused("This address leads nowhere.");
    };
    let host = preview_host(&config.client_id, &session.session_id, policy);
    let switching = *head.method == Method::POST;
    if !switching && *head.method != Method::GET && *head.method != Method::HEAD {
        return Decision::Method("GET, HEAD, POST");
    }
    if switching && !head.is_of_this_host(&asked.authority()) {
        return Decision::Foreign;
    }
    if let Some(host) = host {
        return Decision::ToHost { session, host, to };
    }
    let other = asked
        .cookie
        .filter(|cookie| *cookie != session.session_id.as_str());
    match other {
        Some(_) if !switching => Decision::Second { session, to },
        left => Decision::Settle {
            session,
            to,
            left: left.and_then(|left| left.parse().ok()),
        },
    }
}

#[cfg(test)]
mod tests;
