//! The cookie that says which session a browser has on a host. Its value is the session's id, which is the capability.
//!
//! Over https it is `__Host-edit-session`: no other host can set or read it. A browser does not keep a cookie of that name
//! over plain http, which only a laptop has, so that there it is `edit-session`.

use contract::SessionId;
use http::header::COOKIE;
use http::{HeaderMap, HeaderValue};
use relay::Proto;

use crate::ask::Head;

/// Over https.
pub const NAME: &str = "__Host-edit-session";
/// Over plain http.
pub const PLAIN_NAME: &str = "edit-session";

/// How long a browser keeps it: as long as a session is kept that nobody wakes.
const MAX_AGE_SECONDS: u64 = contract::session::KEPT.as_secs();

/// The name over this protocol.
pub fn name(proto: Proto) -> &'static str {
    match proto {
        Proto::Https => NAME,
        Proto::Http => PLAIN_NAME,
    }
}

/// The session that the browser has on this host. None if it says none, none that is valid, or two different ones: then
/// somebody has put one beside ours, and neither is believed. It is a valid id.
pub fn session<'r>(head: &Head<'r>) -> Option<&'r str> {
    let wanted = name(head.proto);
    let mut found: Option<&'r str> = None;
    for line in head.headers.get_all(COOKIE) {
        let line = line.to_str().ok()?;
        for pair in line.split(';') {
            let Some((name, value)) = pair.split_once('=') else {
                continue;
            };
            if name.trim() != wanted {
                continue;
            }
            let id = value.trim();
            if !SessionId::is_valid(id) || found.is_some_and(|other| other != id) {
                return None;
            }
            found = Some(id);
        }
    }
    found
}

/// The field that makes a browser keep this session on this host, and show it to no page's script.
pub fn set(proto: Proto, session: &SessionId) -> HeaderValue {
    let secure = match proto {
        Proto::Https => "; Secure",
        Proto::Http => "",
    };
    let text = format!(
        "{}={session}; Path=/; Max-Age={MAX_AGE_SECONDS}; HttpOnly; SameSite=Lax{secure}",
        name(proto)
    );
    HeaderValue::from_str(&text).expect("an id is visible ASCII")
}

/// Takes our cookies out of a request, however they are spelt, before it goes to a door: an address can be somebody else's by
/// now, and the id opens the session. The door does not need it.
pub fn without_ours(headers: &mut HeaderMap) {
    let ours = |pair: &[u8]| {
        let name = pair.split(|byte| *byte == b'=').next().unwrap_or_default();
        let name = name.trim_ascii();
        name.eq_ignore_ascii_case(NAME.as_bytes())
            || name.eq_ignore_ascii_case(PLAIN_NAME.as_bytes())
    };
    let lines: Vec<HeaderValue> = headers.get_all(COOKIE).iter().cloned().collect();
    if !lines
        .iter()
        .any(|line| line.as_bytes().split(|byte| *byte == b';').any(ours))
    {
        return;
    }
    headers.remove(COOKIE);
    for line in lines {
        let left: Vec<&[u8]> = line
            .as_bytes()
            .split(|byte| *byte == b';')
            .filter(|pair| !ours(pair))
            .map(<[u8]>::trim_ascii)
            .filter(|pair| !pair.is_empty())
            .collect();
        if let Ok(value) = HeaderValue::from_bytes(&left.join(&b"; "[..]))
            && !value.is_empty()
        {
            headers.append(COOKIE, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;

    fn of(lines: &[&str], proto: Proto) -> Option<String> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(COOKIE, HeaderValue::from_str(line).expect("ASCII"));
        }
        let head = Head {
            method: &Method::GET,
            path: "/",
            query: None,
            headers: &headers,
            visitor: None,
            proto,
        };
        session(&head).map(str::to_owned)
    }

    #[test]
    fn the_cookie_names_one_session_or_none() {
        let some = |id: &str| Some(id.to_owned());
        let https = |lines: &[&str]| of(lines, Proto::Https);
        assert_eq!(https(&["__Host-edit-session=amelia_a"]), some("amelia_a"));
        assert_eq!(
            https(&["theme=dark; __Host-edit-session=amelia_a;"]),
            some("amelia_a")
        );
        assert_eq!(
            https(&["theme=dark", "__Host-edit-session=amelia_a"]),
            some("amelia_a")
        );
        assert_eq!(
            https(&[
                "__Host-edit-session=amelia_a",
                "__Host-edit-session=amelia_a"
            ]),
            some("amelia_a")
        );
        for refused in [
            &["__Host-edit-session=amelia_a; __Host-edit-session=amelia_b"][..],
            &[
                "__Host-edit-session=amelia_a",
                "__Host-edit-session=amelia_b",
            ],
            &["__Host-edit-session=Amelia"],
            &["__Host-edit-session=amelia_a%00"],
            &["__host-edit-session=amelia_a"],
            &["edit-session=amelia_a"],
            &["x__Host-edit-session=amelia_a"],
            &["__Host-edit-session"],
            &[],
        ] {
            assert_eq!(https(refused), None, "{refused:?}");
        }
        assert_eq!(
            of(&["edit-session=amelia_a"], Proto::Http),
            some("amelia_a")
        );
        assert_eq!(of(&["__Host-edit-session=amelia_a"], Proto::Http), None);
    }

    #[test]
    fn no_door_hears_our_cookies_and_every_other_one_passes() {
        let cases = [
            (
                vec!["__Host-edit-session=a; theme=dark; b=2"],
                vec!["theme=dark; b=2"],
            ),
            (vec!["__Host-edit-session=a"], vec![]),
            (vec!["edit-session=a", "x=1"], vec!["x=1"]),
            (vec!["x=edit-session=a;  y"], vec!["x=edit-session=a;  y"]),
            (vec!["__HOST-EDIT-SESSION = a; x=1"], vec!["x=1"]),
        ];
        for (before, after) in cases {
            let mut headers = HeaderMap::new();
            for line in &before {
                headers.append(COOKIE, HeaderValue::from_str(line).expect("ASCII"));
            }
            without_ours(&mut headers);
            let left: Vec<_> = headers.get_all(COOKIE).iter().collect();
            assert_eq!(left, after, "{before:?}");
        }
    }
}
