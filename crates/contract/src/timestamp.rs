//! Times on the wire: RFC 3339, UTC, milliseconds.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::id::IdError;

/// A moment, written as `2026-11-22T09:30:00.000Z`. Precision is one millisecond.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String", extend("format" = "date-time", "pattern" = PATTERN))]
pub struct Timestamp(i64);

/// The shape of RFC 3339 as programs write it. Which days and hours there are is `format`'s to say.
const PATTERN: &str = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?(Z|[+-][0-9]{2}:[0-9]{2})$";

impl Timestamp {
    /// The moment `milliseconds` after 1970-01-01T00:00:00Z. Moments outside the years 1 to 9999 are clamped.
    pub fn from_unix_ms(milliseconds: i64) -> Self {
        const FIRST: i64 = -62_135_596_800_000;
        const LAST: i64 = 253_402_207_200_000;
        Self(milliseconds.clamp(FIRST, LAST))
    }

    /// The clock's present moment. Decisions never call this: they are given `now`.
    pub fn now() -> Self {
        Self::from_unix_ms(jiff::Timestamp::now().as_millisecond())
    }

    /// Milliseconds since 1970-01-01T00:00:00Z.
    pub fn unix_ms(self) -> i64 {
        self.0
    }

    /// The time that has passed since `earlier`, zero if it lies in the future.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// The moment `duration` after this one.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        let milliseconds = i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        Self::from_unix_ms(self.0.saturating_add(milliseconds))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let moment =
            jiff::Timestamp::from_millisecond(self.0).expect("clamped to the years 1 to 9999");
        write!(f, "{moment:.3}")
    }
}

impl FromStr for Timestamp {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        // jiff reads much more than RFC 3339 (basic format, no seconds, `[Europe/Berlin]`), which no other reader of
        // our records could be expected to do.
        has_shape(text)
            .then(|| text.parse::<jiff::Timestamp>().ok())
            .flatten()
            .map(|moment| Self::from_unix_ms(moment.as_millisecond()))
            .ok_or_else(|| {
                IdError(
                    "a time is RFC 3339 with an offset, such as 2026-11-22T09:30:00.000Z"
                        .to_owned(),
                )
            })
    }
}

/// Whether a text matches [`PATTERN`].
fn has_shape(text: &str) -> bool {
    let matches = |text: &[u8], shape: &[u8]| {
        let digit_or_same = |(byte, want): (&u8, &u8)| {
            if *want == b'0' {
                byte.is_ascii_digit()
            } else {
                byte == want
            }
        };
        text.len() == shape.len() && text.iter().zip(shape).all(digit_or_same)
    };
    let Some((moment, mut rest)) = text.as_bytes().split_at_checked(19) else {
        return false;
    };
    if let Some(fraction) = rest.strip_prefix(b".") {
        let digits = fraction
            .iter()
            .take_while(|byte| byte.is_ascii_digit())
            .count();
        if !(1..=9).contains(&digits) {
            return false;
        }
        rest = &fraction[digits..];
    }
    matches(moment, b"0000-00-00T00:00:00")
        && (rest == b"Z" || matches(rest, b"+00:00") || matches(rest, b"-00:00"))
}

impl TryFrom<String> for Timestamp {
    type Error = IdError;
    fn try_from(text: String) -> Result<Self, IdError> {
        text.parse()
    }
}

impl From<Timestamp> for String {
    fn from(moment: Timestamp) -> String {
        moment.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_written_in_utc_with_milliseconds() {
        let moment: Timestamp = "2026-11-22T10:30:00+01:00".parse().expect("valid");
        assert_eq!(moment.to_string(), "2026-11-22T09:30:00.000Z");
        assert_eq!(moment.to_string().parse(), Ok(moment));
    }

    #[test]
    fn only_rfc_3339_is_a_time() {
        for text in [
            "2026-11-22T09:30:00Z",
            "2026-11-22T09:30:00.1-08:00",
            "2024-02-29T23:59:59.123456789+00:00",
        ] {
            assert!(text.parse::<Timestamp>().is_ok(), "{text}");
        }
        for text in [
            "",
            "2026-11-22",
            "2026-11-22T09:30:00",
            "2026-11-22T09:30Z",
            "2026-11-22 09:30:00Z",
            "20261122T093000Z",
            "2026-11-22T09:30:00+01:00[Europe/Berlin]",
            "2026-11-22T09:30:00.Z",
            "2026-11-22T09:30:00+0100",
            "2026-13-22T09:30:00Z",
            "2025-02-29T09:30:00Z",
            "2026-11-22T25:30:00Z",
            "1763804000",
            "2026-11-2éT09:30:00Z",
        ] {
            assert!(text.parse::<Timestamp>().is_err(), "{text}");
        }
    }

    #[test]
    fn time_runs_forward_and_never_below_zero() {
        let early = Timestamp::from_unix_ms(1_000);
        let late = early.plus(Duration::from_millis(250));
        assert_eq!(late.since(early), Duration::from_millis(250));
        assert_eq!(early.since(late), Duration::ZERO);
    }
}
