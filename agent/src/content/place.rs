//! An address of content, and whether it is where content may come from. Pure.
//!
//! Readers of addresses disagree about dots, slashes, percent signs and what stands before an `@`. An address that has any of it
//! is not mended but refused: nobody who makes one by machine writes it.

use std::fmt;
use std::net::IpAddr;

/// Where content is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// An object of S3, or where a prefix begins.
    Bucket {
        /// The bucket.
        bucket: String,
        /// The key, as it is: nothing in it is encoded.
        key: String,
    },
    /// Behind https.
    Server(Address),
}

/// An address behind https.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address {
    /// Lower case; an address of the network without brackets.
    pub(super) host: String,
    /// The port.
    pub(super) port: u16,
    /// With its slash, as it was written.
    pub(super) path: String,
    /// Without its question mark.
    pub(super) query: Option<String>,
}

impl fmt::Display for Place {
    /// Without the query, which can be a capability.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // No key of a bucket has a query, but somebody may take it for one that does.
            Self::Bucket { bucket, key } => {
                write!(
                    f,
                    "s3://{bucket}/{}",
                    key.split('?').next().unwrap_or_default()
                )
            }
            Self::Server(address) => write!(f, "https://{}{}", address.authority(), address.path),
        }
    }
}

impl Place {
    /// Reads an address, or says what is wrong with it as the rest of a sentence.
    pub(super) fn read(text: &str) -> Result<Self, String> {
        let words = |what: &str| Err(format!("has an address with {what}"));
        if text
            .bytes()
            .any(|byte| !(b'!'..=b'~').contains(&byte) || b"\\\"<>^`{|}#".contains(&byte))
        {
            return words("characters that do not belong into one");
        }
        let Some((scheme, rest)) = text.split_once("://") else {
            return words("no scheme");
        };
        let Some((authority, tail)) = rest.split_once('/') else {
            return words("no path");
        };
        let tail = format!("/{tail}");
        match scheme {
            "s3" => {
                let key = tail.strip_prefix('/').unwrap_or_default().to_owned();
                let is_name = !authority.is_empty()
                    && authority.bytes().all(|byte| {
                        byte.is_ascii_lowercase()
                            || byte.is_ascii_digit()
                            || matches!(byte, b'.' | b'-')
                    });
                if !is_name {
                    return words("something else than a bucket's name");
                }
                refuse_dots(&key)?;
                Ok(Self::Bucket {
                    bucket: authority.to_owned(),
                    key,
                })
            }
            "https" => {
                let (host, port) = host_and_port(authority)?;
                let (path, query) = match tail.split_once('?') {
                    Some((path, query)) => (path.to_owned(), Some(query.to_owned())),
                    None => (tail, None),
                };
                refuse_tricks(&path)?;
                Ok(Self::Server(Address {
                    host,
                    port,
                    path,
                    query,
                }))
            }
            _ => words("another scheme than https and s3"),
        }
    }

    /// Whether this is `source` or below it.
    pub(super) fn continues(&self, source: &Self) -> bool {
        match (self, source) {
            (
                Self::Bucket { bucket, key },
                Self::Bucket {
                    bucket: allowed,
                    key: prefix,
                },
            ) => bucket == allowed && is_below(key, prefix),
            (Self::Server(address), Self::Server(allowed)) => {
                allowed.query.is_none()
                    && (&address.host, address.port) == (&allowed.host, allowed.port)
                    && is_below(&address.path, &allowed.path)
            }
            _ => false,
        }
    }
}

impl Address {
    /// Host and, if it is not the usual one, port.
    pub(super) fn authority(&self) -> String {
        let host = match self.ip() {
            Some(IpAddr::V6(ip)) => format!("[{ip}]"),
            _ => self.host.clone(),
        };
        match self.port {
            HTTPS_PORT => host,
            port => format!("{host}:{port}"),
        }
    }

    /// The address of the network, if it is one and no name.
    pub(super) fn ip(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }
}

const HTTPS_PORT: u16 = 443;

/// On the boundary of a segment: `/media` is no beginning of `/media-of-others`.
fn is_below(path: &str, prefix: &str) -> bool {
    match path.strip_prefix(prefix) {
        Some(rest) => {
            rest.is_empty() || prefix.is_empty() || prefix.ends_with('/') || rest.starts_with('/')
        }
        None => false,
    }
}

fn host_and_port(authority: &str) -> Result<(String, u16), String> {
    let wrong = || "has an address with something else than a host and a port".to_owned();
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (ip, after) = rest.split_once(']').ok_or_else(wrong)?;
            let ip: std::net::Ipv6Addr = ip.parse().map_err(|_| wrong())?;
            let port = match after {
                "" => None,
                after => Some(after.strip_prefix(':').ok_or_else(wrong)?),
            };
            (ip.to_string(), port)
        }
        None => {
            let (host, port) = match authority.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (authority, None),
            };
            let host = host.to_ascii_lowercase();
            let is_name = |label: &str| {
                !label.is_empty()
                    && label
                        .bytes()
                        .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
            };
            if !host.split('.').all(is_name) {
                return Err(wrong());
            }
            (host, port)
        }
    };
    let port = match port {
        None => HTTPS_PORT,
        Some(port) if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) => {
            port.parse().map_err(|_| wrong())?
        }
        Some(_) => return Err(wrong()),
    };
    Ok((host, port))
}

/// A segment that means another folder.
fn refuse_dots(path: &str) -> Result<(), String> {
    // What stands behind a semicolon is a parameter to some servers.
    let is_dots = |segment: &str| matches!(segment.split(';').next(), Some("." | ".."));
    if path.split('/').any(is_dots) {
        return Err("has an address with dots that mean another folder".to_owned());
    }
    Ok(())
}

/// As [`refuse_dots`], and what becomes of it when it is decoded, once or twice.
fn refuse_tricks(path: &str) -> Result<(), String> {
    refuse_dots(path)?;
    let mut rest = path;
    while let Some(at) = rest.find('%') {
        let code = rest
            .get(at + 1..at + 3)
            .unwrap_or_default()
            .to_ascii_lowercase();
        let is_hex = code.len() == 2 && code.bytes().all(|byte| byte.is_ascii_hexdigit());
        // The dot, both slashes, the percent sign itself, and control characters.
        if !is_hex
            || ["2e", "2f", "5c", "25", "7f"].contains(&code.as_str())
            || code.starts_with(['0', '1'])
        {
            return Err("has an address with a percent sign that hides something".to_owned());
        }
        rest = &rest[at + 3..];
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn is_allowed(address: &str, source: &str) -> bool {
        let (Ok(address), Ok(source)) = (Place::read(address), Place::read(source)) else {
            return false;
        };
        address.continues(&source)
    }

    #[test]
    fn an_address_continues_its_source_segment_by_segment() {
        for (address, source) in [
            (
                "https://media.example/amelia/a.jpg",
                "https://media.example/amelia/",
            ),
            (
                "https://media.example/amelia/a.jpg",
                "https://media.example/amelia",
            ),
            (
                "https://media.example/amelia/b/c.jpg?X-Amz-Signature=a%2Fb",
                "https://media.example/amelia/",
            ),
            ("https://MEDIA.example:443/a.jpg", "https://media.example/"),
            ("https://media.example/a%20b.jpg", "https://media.example/"),
            (
                "https://media.example:8443/a.jpg",
                "https://media.example:8443/",
            ),
            ("https://[::1]:8443/a.jpg", "https://[0::1]:8443/"),
            ("s3://media/amelia/a.jpg", "s3://media/amelia/"),
            ("s3://media/a%20b%.jpg", "s3://media/"),
            ("s3://media/x.jpg", "s3://media/"),
        ] {
            assert!(is_allowed(address, source), "{address} {source}");
        }
    }

    #[test]
    fn everything_else_is_refused() {
        let source = "https://media.example/amelia/";
        for address in [
            "https://media.example/amelia-of-others/a.jpg",
            "https://media.example/ameli",
            "https://media.example/a.jpg",
            "https://media.example/amelia/../bo/a.jpg",
            "https://media.example/amelia/./a.jpg",
            "https://media.example/amelia/..",
            "https://media.example/amelia/..;x/bo/a.jpg",
            "https://media.example/amelia/%2e%2e/bo/a.jpg",
            "https://media.example/amelia/.%2E/bo/a.jpg",
            "https://media.example/amelia/..%2fbo/a.jpg",
            "https://media.example/amelia/..%5Cbo/a.jpg",
            "https://media.example/amelia/%252e%252e/bo/a.jpg",
            "https://media.example/amelia/%00",
            "https://media.example/amelia/%zz",
            "https://media.example/amelia/%2",
            "https://media.example/amelia\\..\\bo",
            "https://media.example:8443/amelia/a.jpg",
            "https://media.example:/amelia/a.jpg",
            "https://media.example:+443/amelia/a.jpg",
            "https://media.example./amelia/a.jpg",
            "https://media.example@evil.example/amelia/a.jpg",
            "https://evil.example/https://media.example/amelia/a.jpg",
            "https://media.example.evil.example/amelia/a.jpg",
            "https://evil.example?https://media.example/amelia/a.jpg",
            "https://evil.example#@media.example/amelia/a.jpg",
            "http://media.example/amelia/a.jpg",
            "HTTPS://media.example/amelia/a.jpg",
            "https:///amelia/a.jpg",
            "//media.example/amelia/a.jpg",
            "https://media.example/amelia/a\n.jpg",
            "https://media.exämple/amelia/a.jpg",
            "s3://media.example/amelia/a.jpg",
            "",
        ] {
            assert!(!is_allowed(address, source), "{address}");
        }
        for address in [
            "s3://media/bo/a.jpg",
            "s3://media/amelia/../bo/a.jpg",
            "s3://media2/amelia/a.jpg",
            "s3://media/amelia2/a.jpg",
        ] {
            assert!(!is_allowed(address, "s3://media/amelia/"), "{address}");
            assert!(!is_allowed(address, "s3://media/amelia"), "{address}");
        }
        // A source with a query is none.
        assert!(!is_allowed("https://a.example/b", "https://a.example/?x"));
    }

    proptest! {
        /// What is allowed is, to a reader who decodes everything twice, still below the source.
        #[test]
        fn nothing_leads_out(rest in "([a-c./;?@:%\\\\]|%2[eEfF]|%5[cC]|%25|\\.\\./){0,12}") {
            let address = format!("https://media.example/amelia/{rest}");
            if is_allowed(&address, "https://media.example/amelia/") {
                let path = address.split('?').next().expect("a path");
                let decoded = path.replace("%25", "%").to_lowercase()
                    .replace("%2e", ".").replace("%2f", "/").replace("%5c", "/").replace('\\', "/");
                prop_assert!(decoded.starts_with("https://media.example/amelia/"));
                prop_assert!(!decoded.split('/').any(|segment| segment.split(';').next() == Some("..")), "{}", decoded);
            }
        }
    }
}
