//! A request's head, judged before anybody decides what becomes of it. Pure.
//!
//! Whoever decides and whoever is asked have to read one request in one way: one host, one path, one visitor. What could be
//! read in two ways is refused here, whoever it may be for.

use std::net::{IpAddr, SocketAddr};

use http::header::HOST;
use http::uri::{Authority, PathAndQuery};
use http::{HeaderMap, HeaderName, Method, StatusCode, Uri, Version};
use ipnet::IpNet;
use relay::Proto;

use crate::ask::Head;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// A request that can be read in one way.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    method: Method,
    target: PathAndQuery,
    headers: HeaderMap,
    /// Who asks; none if the hop that is trusted does not say.
    pub(super) visitor: Option<IpAddr>,
    /// How the visitor reached the first hop.
    pub(super) proto: Proto,
    /// Whether the host is an address: then it is no visitor, but somebody who asks the gateway itself.
    pub(super) is_by_address: bool,
}

/// Why a request is answered by nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) status: StatusCode,
    /// A sentence for whoever sent it.
    pub(super) why: &'static str,
}

impl Asked {
    /// Judges a head that came from `peer`.
    pub(super) fn judge(
        method: &Method,
        uri: &Uri,
        version: Version,
        headers: &HeaderMap,
        peer: IpAddr,
        trusted_hops: &[IpNet],
    ) -> Result<Self, Refused> {
        if *method == Method::CONNECT {
            return refuse(
                StatusCode::METHOD_NOT_ALLOWED,
                "The method CONNECT is not taken here.",
            );
        }
        if version != Version::HTTP_11 && version != Version::HTTP_10 {
            return refuse(
                StatusCode::HTTP_VERSION_NOT_SUPPORTED,
                "HTTP/1.1 is spoken here.",
            );
        }
        let host = host(headers)?;
        if uri.scheme().is_some() || uri.authority().is_some() {
            let of_the_web = matches!(uri.scheme_str(), Some("http" | "https"));
            let same = uri
                .authority()
                .is_some_and(|authority| authority.as_str().eq_ignore_ascii_case(host.as_str()));
            if !(of_the_web && same) {
                return refuse(
                    StatusCode::BAD_REQUEST,
                    "The request's target and its Host name different hosts.",
                );
            }
        }
        let Some(target) = uri
            .path_and_query()
            .filter(|target| target.as_str().starts_with('/'))
        else {
            return refuse(StatusCode::BAD_REQUEST, "The request's target is no path.");
        };
        let (visitor, proto) = visitor(peer, headers, trusted_hops);
        Ok(Self {
            method: method.clone(),
            target: target.clone(),
            is_by_address: is_address(&host),
            headers: headers.clone(),
            visitor,
            proto,
        })
    }

    /// The head, as the router reads it.
    pub(super) fn head(&self) -> Head<'_> {
        Head {
            method: &self.method,
            path: self.target.path(),
            query: self.target.query(),
            headers: &self.headers,
            visitor: self.visitor,
            proto: self.proto,
        }
    }
}

fn refuse<T>(status: StatusCode, why: &'static str) -> Result<T, Refused> {
    Err(Refused { status, why })
}

/// The one host, which is a name or an address and perhaps a port.
fn host(headers: &HeaderMap) -> Result<Authority, Refused> {
    let mut hosts = headers.get_all(HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else {
        return refuse(StatusCode::BAD_REQUEST, "A request names exactly one host.");
    };
    let host: Option<Authority> = Authority::try_from(host.as_bytes()).ok();
    host.filter(|host| {
        let name = host.host();
        // What remains after the name is nothing, or a port that there can be; a name of a user is before it.
        let port = &host.as_str()[name.len().min(host.as_str().len())..];
        let port_is_one = port.is_empty()
            || port
                .strip_prefix(':')
                .is_some_and(|port| !port.starts_with('+') && port.parse::<u16>().is_ok());
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte);
        host.as_str().starts_with(name)
            && !name.is_empty()
            && name.bytes().all(plain)
            && port_is_one
    })
    .ok_or(Refused {
        status: StatusCode::BAD_REQUEST,
        why: "The request's Host is no host.",
    })
}

fn is_address(host: &Authority) -> bool {
    let name = host.host();
    let name = name
        .strip_prefix('[')
        .and_then(|name| name.strip_suffix(']'))
        .unwrap_or(name);
    name.parse::<IpAddr>().is_ok()
}

/// Who asks, and how. A hop that is trusted has put the address it saw at the end of what it was told; nothing before that is
/// anybody's word but the visitor's. Whoever is no such hop is the visitor, and says nothing about itself.
fn visitor(peer: IpAddr, headers: &HeaderMap, trusted_hops: &[IpNet]) -> (Option<IpAddr>, Proto) {
    let peer = peer.to_canonical();
    if !trusted_hops.iter().any(|hop| hop.contains(&peer)) {
        return (Some(peer), Proto::Http);
    }
    let visitor = last(headers, &X_FORWARDED_FOR).and_then(address);
    let proto = match last(headers, &X_FORWARDED_PROTO) {
        Some(proto) if proto.eq_ignore_ascii_case("https") => Proto::Https,
        _ => Proto::Http,
    };
    (visitor, proto)
}

/// The last entry of a list.
fn last<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    let line = headers.get_all(name).iter().next_back()?.to_str().ok()?;
    line.rsplit(',').next().map(str::trim)
}

/// An address, with the visitor's port where the load balancer is told to say it.
fn address(text: &str) -> Option<IpAddr> {
    let address = text
        .parse::<IpAddr>()
        .or_else(|_| text.parse::<SocketAddr>().map(|address| address.ip()));
    address.ok().map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 7));

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            let value = HeaderValue::from_bytes(value.as_bytes()).expect("a value");
            headers.append(*name, value);
        }
        headers
    }

    fn judged(method: &Method, target: &str, lines: &[(&'static str, &str)]) -> u16 {
        let uri: Uri = target.parse().expect("a target");
        let headers = headers(lines);
        Asked::judge(method, &uri, Version::HTTP_11, &headers, PEER, &[])
            .map_or_else(|refused| refused.status.as_u16(), |_| 200)
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_refused() {
        let one = [("host", "edit.amelia.example")];
        for (target, expected) in [
            ("/", 200),
            ("/a/../b?x", 200),
            ("http://edit.amelia.example/x", 200),
            ("https://EDIT.amelia.example/x", 200),
            ("http://edit.amelia.example:80/x", 400),
            ("http://user@edit.amelia.example/x", 400),
            ("http://edit.bertram.example/x", 400),
            ("ftp://edit.amelia.example/x", 400),
            ("edit.amelia.example:80", 400),
            ("*", 400),
        ] {
            assert_eq!(judged(&Method::GET, target, &one), expected, "{target}");
        }
        assert_eq!(
            judged(&Method::CONNECT, "edit.amelia.example:443", &one),
            405
        );
        assert_eq!(judged(&Method::GET, "/", &[]), 400);
        assert_eq!(judged(&Method::GET, "/", &[one[0], one[0]]), 400);
    }

    #[test]
    fn a_host_is_a_host() {
        for (host, expected) in [
            ("edit.amelia.example", 200),
            ("edit.amelia.example:8443", 200),
            ("s_1--amelia.preview.example", 200),
            ("127.0.0.1", 200),
            ("[::1]:8080", 200),
            ("", 400),
            (":80", 400),
            ("h:", 400),
            ("h:99999", 400),
            ("h:+80", 400),
            ("h:80:80", 400),
            ("a b", 400),
            ("a,b", 400),
            ("a/b", 400),
            ("a%2eb", 400),
            ("user@h", 400),
            ("h\\x", 400),
            ("edit.amelia.example\u{e9}", 400),
        ] {
            assert_eq!(
                judged(&Method::GET, "/", &[("host", host)]),
                expected,
                "{host}"
            );
        }
    }

    #[test]
    fn the_visitor_is_whom_a_trusted_hop_saw_last() {
        let hops = ["198.51.100.0/24".parse().expect("a network")];
        let seen = |lines: &[(&'static str, &str)]| visitor(PEER, &headers(lines), &hops);
        let visitor_is = |text: &str| Some(text.parse().expect("an address"));
        for (lines, expected) in [
            (
                &[("x-forwarded-for", "203.0.113.9")][..],
                visitor_is("203.0.113.9"),
            ),
            (
                &[("x-forwarded-for", "10.0.0.1, 203.0.113.9")],
                visitor_is("203.0.113.9"),
            ),
            (
                &[
                    ("x-forwarded-for", "10.0.0.1"),
                    ("x-forwarded-for", "203.0.113.9"),
                ],
                visitor_is("203.0.113.9"),
            ),
            (
                &[("x-forwarded-for", "203.0.113.9:4711")],
                visitor_is("203.0.113.9"),
            ),
            (
                &[("x-forwarded-for", "[2001:db8::1]:4711")],
                visitor_is("2001:db8::1"),
            ),
            (
                &[("x-forwarded-for", "::ffff:203.0.113.9")],
                visitor_is("203.0.113.9"),
            ),
            (&[("x-forwarded-for", "203.0.113.9, unknown")], None),
            (&[("x-forwarded-for", "203.0.113.9,")], None),
            (&[], None),
        ] {
            assert_eq!(seen(lines).0, expected, "{lines:?}");
        }
        for (lines, expected) in [
            (&[("x-forwarded-proto", "https")][..], Proto::Https),
            (&[("x-forwarded-proto", "https, http")], Proto::Http),
            (&[("x-forwarded-proto", "wss")], Proto::Http),
            (&[], Proto::Http),
        ] {
            assert_eq!(seen(lines).1, expected, "{lines:?}");
        }
    }

    #[test]
    fn nobody_else_is_believed() {
        let claims = headers(&[
            ("x-forwarded-for", "203.0.113.9"),
            ("x-forwarded-proto", "https"),
        ]);
        assert_eq!(visitor(PEER, &claims, &[]), (Some(PEER), Proto::Http));
        let mapped: IpAddr = "::ffff:198.51.100.7".parse().expect("an address");
        let hops = ["198.51.100.7/32".parse().expect("a network")];
        assert_eq!(
            visitor(mapped, &claims, &hops).1,
            Proto::Https,
            "a listener of both families sees mapped addresses"
        );
    }

    #[test]
    fn who_asks_by_address_asks_the_gateway_itself() {
        for (host, expected) in [
            ("10.0.0.7:8080", true),
            ("[::1]", true),
            ("edit.amelia.example", false),
            ("10.0.0.7.example", false),
        ] {
            let uri = Uri::from_static("/");
            let headers = headers(&[("host", host)]);
            let asked = Asked::judge(&Method::GET, &uri, Version::HTTP_11, &headers, PEER, &[]);
            assert_eq!(asked.expect("a request").is_by_address, expected, "{host}");
        }
    }

    proptest! {
        #[test]
        fn whatever_the_host_is_it_is_judged_without_a_panic(host in proptest::collection::vec(any::<u8>(), 0..40)) {
            if let Ok(value) = HeaderValue::from_bytes(&host) {
                let mut headers = HeaderMap::new();
                headers.insert(HOST, value);
                let uri = Uri::from_static("/");
                drop(Asked::judge(&Method::GET, &uri, Version::HTTP_11, &headers, PEER, &[]));
            }
        }
    }
}
