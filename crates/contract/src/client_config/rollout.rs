//! How a client's visitors come over from the system that was there before.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Domains, parse::check_domain};
use crate::reader::Node;

/// Which sessions the old system still has, and how they get there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Rollout {
    /// Who has them.
    pub mode: RolloutMode,
    /// Where the old system is: `https://host`, with a port if need be, and nothing after it (`http://` on this machine
    /// only). Never a domain of the client's own edit environments: that would send a visitor round in a circle.
    pub legacy_origin: Origin,
    /// Of a hundred sessions, how many are ours: 0 to 100. Required where the mode is `percent`, and used there only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub percent: Option<u8>,
    /// Unknown fields.
    #[serde(flatten)]
    #[schemars(skip)]
    pub unknown: Map<String, Value>,
}

impl Rollout {
    /// Of a hundred sessions, how many are ours.
    pub fn ours(&self) -> u8 {
        match self.mode {
            RolloutMode::Legacy => 0,
            // A record that says neither is one that `parse` refuses: nobody is sent to where they did not ask to go.
            RolloutMode::Percent => self.percent.unwrap_or(0).min(100),
            RolloutMode::New => 100,
        }
    }
}

/// Who has a client's sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum RolloutMode {
    /// The old system has all of them.
    Legacy,
    /// A share of them is ours, always the same ones.
    Percent,
    /// All of them are ours.
    New,
}

/// Scheme, host and port of an HTTP server, as `https://host[:port]`: no user, no path, no query.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Origin(String);

impl Origin {
    /// As it was written: `https://legacy.example:8443`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is spoken to under TLS.
    pub fn is_secure(&self) -> bool {
        self.0.starts_with("https:")
    }

    /// Host and port as a `Host` field has them: `legacy.example:8443`.
    pub fn authority(&self) -> &str {
        self.0.split_once("://").map_or("", |(_, rest)| rest)
    }

    /// The host alone.
    pub fn host(&self) -> &str {
        host_and_port(self.authority()).0
    }

    /// The port: 443 or 80 where none is written.
    pub fn port(&self) -> u16 {
        let default = if self.is_secure() { 443 } else { 80 };
        let (_, port) = host_and_port(self.authority());
        // A port that is none was refused when the origin was read.
        port.and_then(|port| port.parse().ok()).unwrap_or(default)
    }
}

fn host_and_port(authority: &str) -> (&str, Option<&str>) {
    match authority.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (authority, None),
    }
}

/// A text is no origin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "must be https://<host>, with :<port> if need be and nothing after it; http:// on this machine only, such as http://localhost:8080"
)]
pub struct OriginError;

impl FromStr for Origin {
    type Err = OriginError;

    fn from_str(text: &str) -> Result<Self, OriginError> {
        let (scheme, authority) = text.split_once("://").ok_or(OriginError)?;
        let (host, port) = host_and_port(authority);
        let port_fits = port.is_none_or(|port| {
            // What starts with 0 or with a sign is written in one way only.
            port.starts_with(|first: char| ('1'..='9').contains(&first))
                && port.parse::<u16>().is_ok()
        });
        let host_fits = check_domain(host).is_ok();
        match scheme {
            "https" if host_fits && port_fits => {}
            // Anywhere else the visitors of a draft would travel in the clear.
            "http" if host_fits && port_fits && is_here(host) => {}
            _ => return Err(OriginError),
        }
        Ok(Self(text.to_owned()))
    }
}

/// Whether a host never leaves this machine (RFC 6761).
fn is_here(host: &str) -> bool {
    host == "localhost" || host.ends_with(".localhost") || host == "127.0.0.1"
}

impl TryFrom<String> for Origin {
    type Error = OriginError;

    fn try_from(text: String) -> Result<Self, OriginError> {
        text.parse()
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<Origin> for String {
    fn from(origin: Origin) -> Self {
        origin.0
    }
}

impl JsonSchema for Origin {
    fn schema_name() -> Cow<'static, str> {
        "Origin".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": r"^(https://[a-z0-9.-]+|http://(([a-z0-9.-]+\.)?localhost|127\.0\.0\.1))(:[1-9][0-9]{0,4})?$",
            "description": "Scheme, host and port of an HTTP server, as `https://host[:port]`: no user, no path, no query.",
        })
    }
}

/// Reads a rollout; nothing if something of it is wrong, which is a problem. `own` are the client's domains, if they could
/// be read.
pub(super) fn read(node: &Node<'_>, own: Option<&Domains>) -> Option<Rollout> {
    let fields = node.open_fields(&["mode", "legacyOrigin", "percent"])?;
    let mode = fields
        .required("mode", "legacy, percent or new")
        .and_then(|node| {
            node.choice(
                "mode",
                &[
                    ("legacy", RolloutMode::Legacy),
                    ("percent", RolloutMode::Percent),
                    ("new", RolloutMode::New),
                ],
            )
        });
    let legacy_origin = fields
        .required("legacyOrigin", "where the old system is, https://<host>")
        .and_then(|node| {
            let origin: Origin = node.parse()?;
            let loops = own.is_some_and(|own| {
                own.edit == origin.host() || own.aliases.iter().any(|alias| alias == origin.host())
            });
            if loops {
                return node.wrong(
                    "must not be the domain of the edit environments or an alias of it: a visitor would be sent round in a circle",
                );
            }
            Some(origin)
        });
    let percent = if mode == Some(RolloutMode::Percent) {
        fields.required(
            "percent",
            "of a hundred sessions, how many are ours: 0 to 100",
        )
    } else {
        fields.optional("percent")
    };
    let percent = percent.and_then(|node| node.whole_number(0..=100));
    Some(Rollout {
        mode: mode?,
        legacy_origin: legacy_origin?,
        percent: percent.map(|percent| u8::try_from(percent).expect("at most 100")),
        unknown: fields.unknown(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_scheme_host_and_port_and_nothing_more() {
        for (text, host, port) in [
            ("https://legacy.example", "legacy.example", 443),
            ("https://legacy.example:8443", "legacy.example", 8443),
            ("https://192.0.2.7", "192.0.2.7", 443),
            ("http://localhost:3000", "localhost", 3000),
            ("http://legacy.localhost", "legacy.localhost", 80),
            ("http://127.0.0.1:1", "127.0.0.1", 1),
            ("http://localhost:65535", "localhost", 65_535),
        ] {
            let origin: Origin = text.parse().expect(text);
            assert_eq!((origin.host(), origin.port()), (host, port), "{text}");
            assert_eq!(origin.to_string(), text);
        }
        for text in [
            "",
            "legacy.example",
            "https://",
            "https://legacy.example/",
            "https://legacy.example/old",
            "https://legacy.example?q",
            "https://legacy.example#f",
            "https://user@legacy.example",
            "https://user:word@legacy.example",
            "https://Legacy.example",
            "https://legacy.example.",
            "https://legacy_.example",
            "https://legacy.example:",
            "https://legacy.example:0",
            "https://legacy.example:080",
            "https://legacy.example:+80",
            "https://legacy.example:65536",
            "https://[::1]",
            "https://::1",
            "https://a:b:1",
            "https://a b",
            "https://a\\b",
            "http://legacy.example",
            "http://localhost.example",
            "http://192.0.2.7",
            "ftp://legacy.example",
            "javascript://legacy.example",
            "//legacy.example",
        ] {
            assert_eq!(text.parse::<Origin>(), Err(OriginError), "{text}");
        }
    }

    #[test]
    fn how_many_are_ours_follows_from_the_mode() {
        let rollout = |mode, percent| Rollout {
            mode,
            legacy_origin: "https://legacy.example".parse().expect("an origin"),
            percent,
            unknown: Map::new(),
        };
        for (mode, percent, ours) in [
            (RolloutMode::Legacy, Some(80), 0),
            (RolloutMode::Percent, Some(80), 80),
            (RolloutMode::Percent, None, 0),
            (RolloutMode::New, Some(80), 100),
        ] {
            assert_eq!(rollout(mode, percent).ours(), ours, "{mode:?}");
        }
    }
}
