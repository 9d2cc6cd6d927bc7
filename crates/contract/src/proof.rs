//! How router and door prove to each other that they belong to the same session and generation.
//!
//! An address of a container is given to somebody else as soon as the container is gone. So the router shows with each
//! request that it knows the session's key, and the door shows with each answer that it does:
//!
//! ```text
//!  request   Edit-Proof: v1 <generation> <unix seconds> <nonce> <HMAC-SHA256 over session, generation, seconds, nonce>
//!  answer    Edit-Proof: v1 <HMAC-SHA256 over session, generation, nonce>
//! ```
//!
//! The key is the session's `proofKey`: 32 bytes, written as 64 hexadecimal digits, new in every generation. Nonces and
//! MACs are written in hexadecimal too. What is hashed begins with a word for its purpose, so that neither can stand for
//! the other; its parts are parted by line feeds, which none of them can contain.

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::id::{Generation, SessionId, hex};
use crate::session::ProofKey;
use crate::timestamp::Timestamp;

/// The name of the header, of requests and of answers.
pub const HEADER: &str = "edit-proof";
/// Seconds by which the clocks of router and door may differ.
pub const SKEW_MAX_SECONDS: i64 = 60;

const VERSION: &str = "v1";
const KEY_BYTES: usize = 32;

/// One side of the proof: what both know of a session in one generation.
#[derive(Debug, Clone)]
pub struct Proof {
    key: Key,
    session: SessionId,
    generation: Generation,
}

/// The bytes of the key. `Debug` does not show them.
#[derive(Clone)]
struct Key([u8; KEY_BYTES]);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(…)")
    }
}

/// What makes a request different from every other: 128 random bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Nonce([u8; 16]);

/// Why a request or an answer is not from where it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProofRefused {
    /// There is no proof, or not exactly one.
    #[error("there is no proof")]
    Missing,
    /// It is not of the form above.
    #[error("the proof is malformed")]
    Malformed,
    /// It is for another generation.
    #[error("the proof is for generation {asked}, and {acting} acts")]
    OtherGeneration {
        /// Who acts.
        acting: Generation,
        /// Who was asked for.
        asked: Generation,
    },
    /// It is too old, or from the future: a replay, or a clock that is wrong.
    #[error("the proof's time is off by {seconds} seconds")]
    Untimely {
        /// By how much; negative if it is old.
        seconds: i64,
    },
    /// Whoever made it does not know the key of this session.
    #[error("the proof is made with another key, or for another session")]
    WrongKey,
}

/// A key that is no 64 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a proof key is {KEY_BYTES} bytes in hexadecimal")]
pub struct InvalidProofKey;

impl Nonce {
    /// A nonce of random bytes.
    pub fn new(random: [u8; 16]) -> Self {
        Self(random)
    }
}

impl Proof {
    /// The proof of a session in a generation.
    pub fn new(
        key: &ProofKey,
        session: SessionId,
        generation: Generation,
    ) -> Result<Self, InvalidProofKey> {
        let key = unhex(&key.0).ok_or(InvalidProofKey)?;
        Ok(Self {
            key: Key(key),
            session,
            generation,
        })
    }

    /// The header value of a request.
    pub fn request(&self, now: Timestamp, nonce: Nonce) -> String {
        let seconds = now.unix_ms().div_euclid(1000);
        let mac = self.request_mac(seconds, nonce).finalize().into_bytes();
        format!(
            "{VERSION} {} {seconds} {} {}",
            self.generation,
            hex(&nonce.0),
            hex(&mac)
        )
    }

    /// Checks the header value of a request. The nonce is what the answer has to prove.
    pub fn verify_request(&self, value: &str, now: Timestamp) -> Result<Nonce, ProofRefused> {
        let mut parts = value.split(' ');
        let mut next = || parts.next().ok_or(ProofRefused::Malformed);
        let (version, generation, seconds, nonce, mac) =
            (next()?, next()?, next()?, next()?, next()?);
        if version != VERSION || parts.next().is_some() {
            return Err(ProofRefused::Malformed);
        }
        let asked = Generation(decimal(generation)?);
        let seconds: i64 = decimal(seconds)?;
        let nonce = Nonce(unhex(nonce).ok_or(ProofRefused::Malformed)?);
        let mac: [u8; 32] = unhex(mac).ok_or(ProofRefused::Malformed)?;
        if asked != self.generation {
            return Err(ProofRefused::OtherGeneration {
                acting: self.generation,
                asked,
            });
        }
        let off = seconds.saturating_sub(now.unix_ms().div_euclid(1000));
        if off.abs() > SKEW_MAX_SECONDS {
            return Err(ProofRefused::Untimely { seconds: off });
        }
        // In constant time: how much of it is right is nobody's business.
        self.request_mac(seconds, nonce)
            .verify_slice(&mac)
            .map_err(|_| ProofRefused::WrongKey)?;
        Ok(nonce)
    }

    /// The header value of the answer to a request with that nonce.
    pub fn answer(&self, nonce: Nonce) -> String {
        let mac = self.answer_mac(nonce).finalize().into_bytes();
        format!("{VERSION} {}", hex(&mac))
    }

    /// Checks the header value of an answer.
    pub fn verify_answer(&self, value: &str, nonce: Nonce) -> Result<(), ProofRefused> {
        let mac: [u8; 32] = value
            .strip_prefix(VERSION)
            .and_then(|rest| rest.strip_prefix(' '))
            .and_then(unhex)
            .ok_or(ProofRefused::Malformed)?;
        self.answer_mac(nonce)
            .verify_slice(&mac)
            .map_err(|_| ProofRefused::WrongKey)
    }

    fn request_mac(&self, seconds: i64, nonce: Nonce) -> Hmac<Sha256> {
        self.mac(&format!(
            "edit-proof request\n{}\n{}\n{seconds}\n{}",
            self.session,
            self.generation,
            hex(&nonce.0)
        ))
    }

    fn answer_mac(&self, nonce: Nonce) -> Hmac<Sha256> {
        self.mac(&format!(
            "edit-proof answer\n{}\n{}\n{}",
            self.session,
            self.generation,
            hex(&nonce.0)
        ))
    }

    fn mac(&self, text: &str) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key.0).expect("HMAC takes every key");
        mac.update(text.as_bytes());
        mac
    }
}

/// A number as we write it: only digits, so that there is one way to write each.
fn decimal<T: std::str::FromStr + ToString>(text: &str) -> Result<T, ProofRefused> {
    text.parse()
        .ok()
        .filter(|number: &T| number.to_string() == text)
        .ok_or(ProofRefused::Malformed)
}

fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != 2 * N {
        return None;
    }
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEY: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

    fn proof(key: &str, session: &str, generation: u64) -> Proof {
        Proof::new(
            &ProofKey(key.to_owned()),
            session.parse().expect("an id"),
            Generation(generation),
        )
        .expect("a key")
    }

    fn ours() -> Proof {
        proof(KEY, "amelia_s1", 7)
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_unix_ms(seconds * 1000)
    }

    const NONCE: Nonce = Nonce([0xab; 16]);

    /// For whoever writes the other side in another language.
    #[test]
    fn the_headers_are_these() {
        insta::assert_snapshot!(ours().request(at(1_700_000_000), NONCE), @"v1 7 1700000000 abababababababababababababababab f2f26f10c92e174f6326f33170d17ec1c1f09a882d3b68f1b4cafe5d64ab1c9f");
        insta::assert_snapshot!(ours().answer(NONCE), @"v1 99eff4c1b981c9dfeab88e83c54457380b6923f0195665083dc86b4c32798295");
    }

    #[test]
    fn who_knows_the_key_is_believed_within_a_minute() {
        let header = ours().request(at(1000), NONCE);
        for now in [940, 1000, 1060] {
            assert_eq!(ours().verify_request(&header, at(now)), Ok(NONCE));
        }
        for (now, seconds) in [(939, 61), (1061, -61)] {
            assert_eq!(
                ours().verify_request(&header, at(now)),
                Err(ProofRefused::Untimely { seconds })
            );
        }
        assert_eq!(ours().verify_answer(&ours().answer(NONCE), NONCE), Ok(()));
    }

    #[test]
    fn another_session_generation_or_key_is_refused() {
        let other_key = KEY.replace('0', "f");
        for other in [
            proof(KEY, "bertram_s1", 7),
            proof(&other_key, "amelia_s1", 7),
        ] {
            let header = other.request(at(1000), NONCE);
            assert_eq!(
                ours().verify_request(&header, at(1000)),
                Err(ProofRefused::WrongKey)
            );
            assert_eq!(
                ours().verify_answer(&other.answer(NONCE), NONCE),
                Err(ProofRefused::WrongKey)
            );
        }
        let older = proof(KEY, "amelia_s1", 6).request(at(1000), NONCE);
        assert_eq!(
            ours().verify_request(&older, at(1000)),
            Err(ProofRefused::OtherGeneration {
                acting: Generation(7),
                asked: Generation(6)
            })
        );
        let answer = ours().answer(Nonce([1; 16]));
        assert_eq!(
            ours().verify_answer(&answer, NONCE),
            Err(ProofRefused::WrongKey)
        );
    }

    #[test]
    fn a_key_is_32_bytes() {
        for key in [
            "",
            "00",
            &KEY[1..],
            &KEY.to_uppercase(),
            &format!("{KEY}00"),
        ] {
            let key = ProofKey(key.to_owned());
            let made = Proof::new(&key, "amelia_s1".parse().expect("an id"), Generation(1));
            assert!(made.is_err(), "{}", key.0);
        }
    }

    proptest! {
        #[test]
        fn a_changed_header_is_refused(at_byte in 0usize..128, to in "[ -~]") {
            let header = ours().request(at(1000), NONCE);
            let at_byte = at_byte % header.len();
            let mut changed = header.clone();
            changed.replace_range(at_byte..=at_byte, &to);
            prop_assume!(changed != header);
            prop_assert!(ours().verify_request(&changed, at(1000)).is_err());
        }

        #[test]
        fn whatever_comes_is_answered_without_a_panic(text in "\\PC{0,200}") {
            prop_assert!(ours().verify_request(&text, at(1000)).is_err());
            prop_assert!(ours().verify_answer(&text, NONCE).is_err());
        }
    }
}
