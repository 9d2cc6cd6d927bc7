//! Whose host is asked for. The grammar is strict, and a host that is not ours is nobody's.
//!
//! | host | is |
//! |---|---|
//! | `edit.<client>.<domain>` | the edit host of a client |
//! | `<label>--<client>.<previewDomain>` | the host of one session of a client |
//! | any other name | perhaps one of the names that a client has in its configuration, such as `edit.ameliastamps.com` |

use std::borrow::Cow;

use contract::{ClientId, SessionId};
use http::HeaderMap;
use http::header::HOST;

use crate::policy::Policy;

/// Longest name that DNS knows.
const NAME_MAX_BYTES: usize = 253;

/// The value of a `Host` field, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host<'h> {
    /// In lower case, without a port.
    pub name: Cow<'h, str>,
    /// The port, where one is said.
    pub port: Option<u16>,
}

/// Why a `Host` field is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HostRefused {
    /// HTTP/1.1 requires it; health checks of a load balancer have none.
    #[error("there is no Host")]
    Missing,
    /// Two hops could read two different ones.
    #[error("there is more than one Host")]
    Several,
    /// It is no host name with an optional port.
    #[error("the Host is not a name of letters, digits, hyphens and dots, with an optional port")]
    Malformed,
}

impl<'h> Host<'h> {
    /// The one host that a request names.
    pub fn of(headers: &'h HeaderMap) -> Result<Self, HostRefused> {
        let mut values = headers.get_all(HOST).iter();
        let value = values.next().ok_or(HostRefused::Missing)?;
        if values.next().is_some() {
            return Err(HostRefused::Several);
        }
        Self::parse(value.to_str().map_err(|_| HostRefused::Malformed)?)
    }

    /// Reads `name` or `name:port`. Names are compared without case; no trailing dot, no empty label, no address in brackets.
    pub fn parse(text: &'h str) -> Result<Self, HostRefused> {
        let (name, port) = match text.split_once(':') {
            None => (text, None),
            Some((name, port)) => {
                let plain = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
                let port = port.parse().ok().filter(|port| plain && *port != 0);
                (name, Some(port.ok_or(HostRefused::Malformed)?))
            }
        };
        let label = |label: &str| {
            (1..=63).contains(&label.len())
                && label
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        };
        if name.len() > NAME_MAX_BYTES || !name.split('.').all(label) {
            return Err(HostRefused::Malformed);
        }
        let name = if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
            Cow::Owned(name.to_ascii_lowercase())
        } else {
            Cow::Borrowed(name)
        };
        Ok(Self { name, port })
    }

    /// Name and port as they are written into an address.
    pub fn authority(&self) -> String {
        match self.port {
            Some(port) => format!("{}:{port}", self.name),
            None => self.name.clone().into_owned(),
        }
    }
}

/// What a name is, as far as it can be told from the name alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place<'h> {
    /// The edit host of a client, if there is that client.
    Edit {
        /// A valid client id.
        client: &'h str,
    },
    /// The host of a session of a client, if there are both.
    Preview {
        /// A valid client id.
        client: &'h str,
        /// What stands behind the client in the session's id.
        label: &'h str,
    },
    /// A name of a client's own, if it is one.
    Named {
        /// The name.
        name: &'h str,
    },
}

impl<'h> Place<'h> {
    /// Reads a name, which is in lower case.
    pub fn of(name: &'h str, policy: &Policy) -> Self {
        if let Some(rest) = below(name, &policy.edit_domain)
            && let Some(client) = rest.strip_prefix("edit.")
            && is_client(client)
        {
            return Self::Edit { client };
        }
        if let Some(domain) = &policy.preview_domain
            && let Some(rest) = below(name, domain)
            // The last one: an id of a client has no `--`.
            && let Some((label, client)) = rest.rsplit_once("--")
            && is_client(client)
            && is_label(label)
        {
            return Self::Preview { client, label };
        }
        Self::Named { name }
    }
}

/// What stands before `.domain`.
fn below<'n>(name: &'n str, domain: &str) -> Option<&'n str> {
    name.strip_suffix(domain)?.strip_suffix('.')
}

/// As [`ClientId`] has it, without making one.
pub(crate) fn is_client(text: &str) -> bool {
    (2..=24).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
        && !text.contains("--")
}

/// What can be the first part of a session's host, and be told from the client behind it.
fn is_label(text: &str) -> bool {
    (1..=35).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// The name of a session's own host. None where it cannot have one: there is no preview domain, or its id is none that we
/// made and does not fit a host name.
pub fn preview_host(client: &ClientId, session: &SessionId, policy: &Policy) -> Option<String> {
    let domain = policy.preview_domain.as_deref()?;
    let (owner, label) = session.as_str().split_once('_')?;
    if owner != client.as_str() || !is_label(label) {
        return None;
    }
    Some(format!("{label}--{client}.{domain}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn policy() -> Policy {
        Policy {
            edit_domain: "webordinary.com".to_owned(),
            preview_domain: Some("preview.webordinary.com".to_owned()),
            ..Policy::for_tests()
        }
    }

    fn place(name: &str) -> String {
        let host = match Host::parse(name) {
            Ok(host) => host,
            Err(error) => return format!("{error:?}"),
        };
        match Place::of(&host.name, &policy()) {
            Place::Edit { client } => format!("edit of {client}"),
            Place::Preview { client, label } => format!("preview of {client}: {label}"),
            Place::Named { name } => format!("named {name}"),
        }
    }

    #[test]
    fn a_host_is_read_in_one_way() {
        for (host, expected) in [
            ("edit.amelia.webordinary.com", "edit of amelia"),
            ("EDIT.Amelia.WebOrdinary.com:8443", "edit of amelia"),
            ("edit.a-b.webordinary.com", "edit of a-b"),
            ("edit.ameliastamps.com", "named edit.ameliastamps.com"),
            ("x--amelia.preview.webordinary.com", "preview of amelia: x"),
            (
                "a--b--amelia.preview.webordinary.com",
                "preview of amelia: a--b",
            ),
            ("edit.webordinary.com", "named edit.webordinary.com"),
            ("edit.a.b.webordinary.com", "named edit.a.b.webordinary.com"),
            (
                "edit.a--b.webordinary.com",
                "named edit.a--b.webordinary.com",
            ),
            ("edit.-ab.webordinary.com", "named edit.-ab.webordinary.com"),
            (
                "edit.amelia.webordinary.com.evil.com",
                "named edit.amelia.webordinary.com.evil.com",
            ),
            (
                "edit.amelia.evilwebordinary.com",
                "named edit.amelia.evilwebordinary.com",
            ),
            (
                "--amelia.preview.webordinary.com",
                "named --amelia.preview.webordinary.com",
            ),
            (
                "x--amelia.y.preview.webordinary.com",
                "named x--amelia.y.preview.webordinary.com",
            ),
            ("edit.amelia.webordinary.com.", "Malformed"),
            ("edit.amelia.webordinary.com:", "Malformed"),
            ("edit.amelia.webordinary.com:0", "Malformed"),
            ("edit.amelia.webordinary.com:99999", "Malformed"),
            ("edit.amelia.webordinary.com:+80", "Malformed"),
            ("edit.amelia.webordinary.com:80:80", "Malformed"),
            ("edit.amelia.webordinary.com/x?", "Malformed"),
            ("edit.amelia.webordinary.com@evil.com", "Malformed"),
            ("edit..webordinary.com", "Malformed"),
            ("edit.am_elia.webordinary.com", "Malformed"),
            ("edit.amelia.webordinary.com\t", "Malformed"),
            ("[::1]", "Malformed"),
            ("", "Malformed"),
        ] {
            assert_eq!(place(host), expected, "{host}");
        }
    }

    #[test]
    fn a_session_has_the_host_that_is_read_as_its_own() {
        let client: ClientId = "amelia".parse().expect("an id");
        let session = SessionId::new(&client, [7; 16]);
        let host = preview_host(&client, &session, &policy()).expect("it fits");
        let expected = format!("preview of amelia: {}", session.label());
        assert_eq!(place(&host), expected);
        for other in ["amelia_a_b", "local", "bruno_abc", "amelia_-a"] {
            let other: SessionId = other.parse().expect("an id");
            assert_eq!(preview_host(&client, &other, &policy()), None, "{other}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic_and_what_is_accepted_has_no_other_reading(text in "\\PC{0,300}") {
            if let Ok(host) = Host::parse(&text) {
                prop_assert!(host.name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-".contains(&byte)));
            }
        }

        #[test]
        fn whoever_is_named_is_a_valid_client(name in "(edit\\.|[a-z0-9-]{0,8}--)?[a-z0-9.-]{0,40}\\.(preview\\.)?webordinary\\.com") {
            let policy = policy();
            match Place::of(&name, &policy) {
                Place::Edit { client } | Place::Preview { client, .. } => {
                    prop_assert!(client.parse::<ClientId>().is_ok());
                }
                Place::Named { name: named } => prop_assert_eq!(named, name.as_str()),
            }
        }
    }
}
