//! Signed tokens: a link that makes a session, and the step from an edit host to a session's own.
//!
//! ```text
//!  t = v1.<kid>.<payload>.<mac>      payload: JSON in base64url      mac: HMAC-SHA256 over purpose, kid and payload, in base64url
//! ```
//!
//! A token says what it is for, so that neither can stand for the other. It expires, and its nonce is spent when it is used.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use contract::id::hex;
use contract::{ClientId, SessionId, ThreadId, Timestamp};
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::Sha256;

const VERSION: &str = "v1";
/// Longer than any of ours; an address has to fit a mail and the 16 KB of a load balancer's request line.
const TOKEN_MAX_BYTES: usize = 4096;
/// The fewest bytes of a key: as many as the digest has.
const KEY_MIN_BYTES: usize = 32;

/// What a link says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Link {
    /// Whose site.
    pub client_id: ClientId,
    /// The conversation to go on with; a new one if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thread_id: Option<ThreadId>,
    /// Who is invited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_id: Option<String>,
    /// Until when it can be used: seconds since 1970.
    pub exp: i64,
    /// What makes it one that is used once.
    pub nonce: String,
}

/// What leads from an edit host to a session's own host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entrance {
    /// Into which session.
    pub session_id: SessionId,
    /// To which path and query of its host.
    pub to: String,
    /// Until when: seconds since 1970.
    pub exp: i64,
    /// What makes it one that is used once.
    pub nonce: String,
}

/// What a token can be for.
pub trait Claims: Serialize + DeserializeOwned {
    /// A word that is signed along.
    const PURPOSE: &'static str;
    /// Until when it can be used: seconds since 1970.
    fn expires(&self) -> i64;
}

impl Claims for Link {
    const PURPOSE: &'static str = "edit-link";
    fn expires(&self) -> i64 {
        self.exp
    }
}

impl Claims for Entrance {
    const PURPOSE: &'static str = "edit-enter";
    fn expires(&self) -> i64 {
        self.exp
    }
}

/// Why a token opens nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LinkRefused {
    /// It is none of ours, or was changed on its way.
    #[error("the link is none that we made")]
    Forged,
    /// It was ours.
    #[error("the link has expired")]
    Expired,
}

/// The keys with which tokens are signed: the first one signs, all of them are believed, so that keys can be replaced without
/// a moment in which no link works.
#[derive(Clone)]
pub struct LinkKeys(Vec<Key>);

#[derive(Clone)]
struct Key {
    kid: String,
    secret: Vec<u8>,
}

impl std::fmt::Debug for LinkKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kids: Vec<&str> = self.0.iter().map(|key| key.kid.as_str()).collect();
        write!(f, "LinkKeys({})", kids.join(", "))
    }
}

/// Why keys cannot be used. It repeats none of them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidKeys(&'static str);

impl std::str::FromStr for LinkKeys {
    type Err = InvalidKeys;

    /// Reads `<kid>:<hex>[,<kid>:<hex>…]`: a name of letters and digits, and at least 32 bytes.
    fn from_str(text: &str) -> Result<Self, InvalidKeys> {
        let mut keys: Vec<Key> = Vec::new();
        for part in text.split(',') {
            let (kid, secret) = part
                .trim()
                .split_once(':')
                .ok_or(InvalidKeys("each key is <name>:<hexadecimal digits>"))?;
            let named = (1..=16).contains(&kid.len())
                && kid.bytes().all(|byte| byte.is_ascii_alphanumeric());
            if !named || keys.iter().any(|key| key.kid == kid) {
                return Err(InvalidKeys(
                    "the name of a key is 1 to 16 letters and digits, and no other key has it",
                ));
            }
            let secret = unhex(secret).filter(|secret| secret.len() >= KEY_MIN_BYTES);
            let secret = secret.ok_or(InvalidKeys("a key is at least 64 hexadecimal digits"))?;
            keys.push(Key {
                kid: kid.to_owned(),
                secret,
            });
        }
        Ok(Self(keys))
    }
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok())
        .collect()
}

impl LinkKeys {
    /// One key of random bytes.
    pub fn of(random: [u8; 32]) -> Self {
        Self(vec![Key {
            kid: "local".to_owned(),
            secret: random.to_vec(),
        }])
    }

    /// As [`std::str::FromStr`] reads it: a secret.
    pub fn reveal(&self) -> String {
        let keys: Vec<String> = self
            .0
            .iter()
            .map(|key| format!("{}:{}", key.kid, hex(&key.secret)))
            .collect();
        keys.join(",")
    }

    /// Signs a token.
    pub fn sign<C: Claims>(&self, claims: &C) -> String {
        let key = &self.0[0];
        let payload = serde_json::to_vec(claims).expect("claims are plain data");
        let payload = URL_SAFE_NO_PAD.encode(payload);
        let mac = URL_SAFE_NO_PAD.encode(mac::<C>(key, &payload).finalize().into_bytes());
        format!("{VERSION}.{}.{payload}.{mac}", key.kid)
    }

    /// Reads a token that was signed by one of the keys and has not expired. Whether it was used before is in its nonce's row.
    pub fn read<C: Claims>(&self, token: &str, now: Timestamp) -> Result<C, LinkRefused> {
        if token.len() > TOKEN_MAX_BYTES {
            return Err(LinkRefused::Forged);
        }
        let mut parts = token.split('.');
        let mut next = || parts.next().ok_or(LinkRefused::Forged);
        let (version, kid, payload, signed) = (next()?, next()?, next()?, next()?);
        if version != VERSION || parts.next().is_some() {
            return Err(LinkRefused::Forged);
        }
        let key = self
            .0
            .iter()
            .find(|key| key.kid == kid)
            .ok_or(LinkRefused::Forged)?;
        let signed = URL_SAFE_NO_PAD
            .decode(signed)
            .map_err(|_| LinkRefused::Forged)?;
        // In constant time.
        mac::<C>(key, payload)
            .verify_slice(&signed)
            .map_err(|_| LinkRefused::Forged)?;
        let payload = URL_SAFE_NO_PAD
            .decode(payload)
            .map_err(|_| LinkRefused::Forged)?;
        let claims: C = serde_json::from_slice(&payload).map_err(|_| LinkRefused::Forged)?;
        if claims.expires() <= now.unix_ms().div_euclid(1000) {
            return Err(LinkRefused::Expired);
        }
        Ok(claims)
    }
}

fn mac<C: Claims>(key: &Key, payload: &str) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(&key.secret).expect("HMAC takes every key");
    // None of the parts can contain a line feed.
    mac.update(format!("{}\n{}\n{payload}", C::PURPOSE, key.kid).as_bytes());
    mac
}

/// The value of `t` in a query. None if it is not there exactly once.
pub fn token(query: Option<&str>) -> Option<&str> {
    let mut found = query?.split('&').filter_map(|pair| pair.strip_prefix("t="));
    let token = found.next()?;
    found.next().is_none().then_some(token)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn keys(text: &str) -> LinkKeys {
        text.parse().expect("keys")
    }

    fn first() -> String {
        format!("a:{}", "11".repeat(32))
    }

    fn second() -> String {
        format!("b:{}", "22".repeat(32))
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_unix_ms(second * 1000)
    }

    fn link() -> Link {
        Link {
            client_id: "amelia".parse().expect("an id"),
            thread_id: Some("spring".parse().expect("an id")),
            user_id: None,
            exp: 100,
            nonce: "n".to_owned(),
        }
    }

    #[test]
    fn a_link_is_believed_until_it_expires_and_whichever_key_signed_it() {
        let old = keys(&first()).sign(&link());
        let both = keys(&format!("{},{}", second(), first()));
        assert_eq!(both.read(&old, at(99)), Ok(link()));
        assert_eq!(both.read::<Link>(&old, at(100)), Err(LinkRefused::Expired));
        assert_eq!(
            keys(&second()).read::<Link>(&old, at(0)),
            Err(LinkRefused::Forged),
            "a key that was taken away"
        );
        let entrance = Entrance {
            session_id: "amelia_a".parse().expect("an id"),
            to: "/".to_owned(),
            exp: 100,
            nonce: "n".to_owned(),
        };
        let entrance = both.sign(&entrance);
        assert_eq!(
            both.read::<Link>(&entrance, at(0)),
            Err(LinkRefused::Forged),
            "it is for something else"
        );
    }

    #[test]
    fn keys_are_said_without_being_shown() {
        let both = keys(&format!("{}, {}", second(), first()));
        assert_eq!(format!("{both:?}"), "LinkKeys(b, a)");
        assert_eq!(keys(&both.reveal()).reveal(), both.reveal());
        for refused in [
            "",
            "a",
            "a:",
            "a:11",
            "a:zz",
            &format!("a b:{}", "11".repeat(32)),
            &format!("{0},{0}", first()),
        ] {
            let error = refused
                .parse::<LinkKeys>()
                .expect_err("not keys")
                .to_string();
            assert!(!error.contains("1111"), "{error}");
        }
    }

    #[test]
    fn a_query_has_one_token() {
        assert_eq!(token(Some("t=v1.a")), Some("v1.a"));
        assert_eq!(token(Some("x=1&t=v1.a&y")), Some("v1.a"));
        for none in [None, Some(""), Some("t"), Some("xt=1"), Some("t=a&t=b")] {
            assert_eq!(token(none), None, "{none:?}");
        }
    }

    proptest! {
        #[test]
        fn whoever_changes_a_character_of_a_link_has_none(place in 0_usize..400, by in 1_u8..=255) {
            let keys = keys(&first());
            let mut token = keys.sign(&link()).into_bytes();
            let place = place % token.len();
            token[place] = token[place].wrapping_add(by);
            if let Ok(token) = String::from_utf8(token) {
                prop_assert_eq!(keys.read::<Link>(&token, at(0)), Err(LinkRefused::Forged));
            }
        }
    }
}
