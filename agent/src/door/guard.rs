//! Who may ask, and for what. Pure.
//!
//! A dev server shows source code to whoever asks. Three kinds of asker are kept out: a name that somebody else pointed at
//! this address (the `Host` is not ours), a page of another site in the developer's own browser (it says so in
//! `Sec-Fetch-Site` and `Origin`), and anybody who asks for what is no part of the site.

use std::net::IpAddr;
use std::path::{Component, Path, PathBuf};

use http::{HeaderMap, Method, StatusCode, Uri, header};
use relay::Proto;

/// The names under which the door may be asked for, beside `localhost`, `*.localhost` and literal addresses.
#[derive(Debug, Clone, Default)]
pub(crate) struct Hosts {
    /// Host names, in lower case, without a port.
    pub(crate) names: Vec<String>,
}

/// Why a request is refused.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) why: String,
}

/// Judges a request by its head. `proto` is how the visitor reached the router, where there is one.
pub(super) fn judge(
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
    hosts: &Hosts,
    shown_root: &Path,
    proto: Option<Proto>,
) -> Result<(), Refusal> {
    if *method == Method::CONNECT || *method == Method::TRACE {
        return refuse(
            StatusCode::METHOD_NOT_ALLOWED,
            format!("The method {method} is not taken here."),
        );
    }
    let host = judge_host(headers, hosts)?;
    judge_origin(method, headers, host, proto)?;
    judge_path(uri.path(), shown_root)
}

fn refuse<T>(status: StatusCode, why: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal {
        status,
        why: why.into(),
    })
}

fn judge_host<'a>(headers: &'a HeaderMap, hosts: &Hosts) -> Result<&'a str, Refusal> {
    let mut values = headers.get_all(header::HOST).iter();
    let (Some(host), None) = (
        values.next().and_then(|host| host.to_str().ok()),
        values.next(),
    ) else {
        return refuse(StatusCode::BAD_REQUEST, "A request names exactly one host.");
    };
    let name = host_name(host).to_ascii_lowercase();
    let ours = name == "localhost"
        || name.ends_with(".localhost")
        || is_address(&name)
        || hosts.names.contains(&name);
    if ours {
        Ok(host)
    } else {
        refuse(
            StatusCode::FORBIDDEN,
            "This environment is not known under that host name. Name it with --host if it should be.",
        )
    }
}

fn judge_origin(
    method: &Method,
    headers: &HeaderMap,
    host: &str,
    proto: Option<Proto>,
) -> Result<(), Refusal> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let upgrade = headers.contains_key(header::UPGRADE);
    let navigation = text("sec-fetch-mode") == Some("navigate")
        && text("sec-fetch-dest") == Some("document")
        && (method == Method::GET || method == Method::HEAD);
    // Following a link to a page is everybody's right; everything else is for our own pages, and for programs that
    // are no browser and say nothing.
    let foreign = matches!(text("sec-fetch-site"), Some("cross-site" | "same-site"));
    if foreign && (!navigation || upgrade) {
        return refuse(
            StatusCode::FORBIDDEN,
            "Another site's page may not ask for this.",
        );
    }
    match headers.get(header::ORIGIN) {
        Some(origin) if !navigation => {
            let own = origin
                .to_str()
                .ok()
                .and_then(|origin| origin.split_once("://"))
                .is_some_and(|(scheme, origin)| is_own(scheme, origin, host, proto));
            if own {
                Ok(())
            } else {
                refuse(
                    StatusCode::FORBIDDEN,
                    "Another site's page may not ask for this.",
                )
            }
        }
        _ => Ok(()),
    }
}

/// Whether an origin is the one that was asked. Behind a router that is reached by https, a page that came without is
/// somebody else's, put into the visitor's way.
fn is_own(scheme: &str, origin: &str, host: &str, proto: Option<Proto>) -> bool {
    let default_port = match scheme {
        "https" => ":443",
        "http" => ":80",
        _ => "",
    };
    let host = host.strip_suffix(default_port).unwrap_or(host);
    let secure = proto != Some(Proto::Https) || scheme == "https";
    secure && origin.eq_ignore_ascii_case(host)
}

fn judge_path(path: &str, shown_root: &Path) -> Result<(), Refusal> {
    // Whoever decodes once more than we do must not see another path: judged as it is, decoded, and decoded twice.
    let once = decode(path);
    let twice = decode(&once);
    for path in [path, &once, &twice] {
        if path.contains(['\0', '\\']) || path.split('/').any(|segment| segment == "..") {
            return refuse(StatusCode::BAD_REQUEST, "That is no path of a site.");
        }
        let hidden = |segment: &str| {
            let segment = segment.to_ascii_lowercase();
            segment == ".git"
                || segment == ".gitattributes"
                || segment == ".gitmodules"
                || segment == ".env"
                || segment.starts_with(".env.")
                || segment == "__edit-agent"
        };
        if path.split('/').any(hidden) {
            return refuse(StatusCode::NOT_FOUND, "There is nothing here.");
        }
        if let Some(at) = path.find("/@fs/") {
            let file = PathBuf::from(format!(
                "/{}",
                path[at + "/@fs/".len()..].trim_start_matches('/')
            ));
            let plain = file
                .components()
                .all(|component| matches!(component, Component::RootDir | Component::Normal(_)));
            if at != 0 || !plain || !file.starts_with(shown_root) {
                return refuse(StatusCode::FORBIDDEN, "That file is outside the site.");
            }
        }
    }
    Ok(())
}

/// The host without its port, and without the brackets of an IPv6 address.
fn host_name(host: &str) -> &str {
    if let Some(rest) = host.strip_prefix('[') {
        return rest.split(']').next().unwrap_or(rest);
    }
    host.rsplit_once(':')
        .map_or(host, |(name, _)| name)
        .trim_end_matches('.')
}

fn is_address(name: &str) -> bool {
    name.parse::<IpAddr>().is_ok()
}

/// Undoes percent-encoding. What is no valid encoding stays as it is.
fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let digits = bytes
            .get(at + 1..at + 3)
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match (bytes[at], digits) {
            (b'%', Some(byte)) => {
                decoded.push(byte);
                at += 3;
            }
            (byte, _) => {
                decoded.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(method: &Method, path: &str, headers: &[(&'static str, &str)]) -> u16 {
        behind(None, method, path, headers)
    }

    fn behind(
        proto: Option<Proto>,
        method: &Method,
        path: &str,
        headers: &[(&'static str, &str)],
    ) -> u16 {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().expect("a value"));
        }
        let hosts = Hosts {
            names: vec!["edit.ameliastamps.com".to_owned()],
        };
        judge(
            method,
            &path.parse().expect("a path"),
            &map,
            &hosts,
            Path::new("/srv/tree"),
            proto,
        )
        .map_or_else(|refusal| refusal.status.as_u16(), |()| 200)
    }

    #[test]
    fn only_our_own_names_are_answered() {
        for (host, expected) in [
            ("localhost:8080", 200),
            ("127.0.0.1:8080", 200),
            ("[::1]:8080", 200),
            ("edit.amelia.localhost:1", 200),
            ("edit.ameliastamps.com", 200),
            ("evil.example", 403),
            ("localhost.evil.example", 403),
            ("xlocalhost", 403),
            ("", 403),
        ] {
            assert_eq!(
                verdict(&Method::GET, "/", &[("host", host)]),
                expected,
                "{host}"
            );
        }
        assert_eq!(verdict(&Method::GET, "/", &[]), 400);
        assert_eq!(
            verdict(
                &Method::GET,
                "/",
                &[("host", "localhost"), ("host", "evil.example")]
            ),
            400
        );
    }

    #[test]
    fn other_sites_pages_may_link_here_and_nothing_else() {
        let with = |method: &Method, extra: &[(&'static str, &str)]| {
            verdict(
                method,
                "/src/secret.ts",
                &[&[("host", "localhost:8080")], extra].concat(),
            )
        };
        let navigation = [
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-mode", "navigate"),
            ("sec-fetch-dest", "document"),
        ];
        assert_eq!(with(&Method::GET, &navigation), 200);
        assert_eq!(with(&Method::POST, &navigation), 403);
        assert_eq!(
            with(
                &Method::GET,
                &[
                    ("sec-fetch-site", "cross-site"),
                    ("sec-fetch-mode", "no-cors"),
                    ("sec-fetch-dest", "script")
                ]
            ),
            403
        );
        assert_eq!(
            with(
                &Method::GET,
                &[
                    ("sec-fetch-site", "same-site"),
                    ("sec-fetch-mode", "cors"),
                    ("sec-fetch-dest", "empty")
                ]
            ),
            403
        );
        assert_eq!(
            with(&Method::GET, &[("origin", "http://localhost:3000")]),
            403
        );
        assert_eq!(
            with(
                &Method::GET,
                &[
                    ("origin", "http://localhost:8080"),
                    ("upgrade", "websocket")
                ]
            ),
            200
        );
        assert_eq!(
            with(
                &Method::GET,
                &[("origin", "null"), ("upgrade", "websocket")]
            ),
            403
        );
        assert_eq!(
            with(&Method::POST, &[]),
            200,
            "a program that is no browser"
        );
    }

    #[test]
    fn behind_the_router_pages_come_by_https() {
        let name = "edit.ameliastamps.com";
        let own = format!("https://{name}");
        let insecure = format!("http://{name}");
        for (proto, host, origin, expected) in [
            (Some(Proto::Https), name, own.as_str(), 200),
            (Some(Proto::Https), "edit.ameliastamps.com:443", &own, 200),
            (Some(Proto::Https), name, &insecure, 403),
            (Some(Proto::Https), name, "https://evil.example", 403),
            (Some(Proto::Https), name, "null", 403),
            // A router of a laptop, and a tunnel that a developer put before the door.
            (
                Some(Proto::Http),
                "edit.amelia.localhost:8000",
                "http://edit.amelia.localhost:8000",
                200,
            ),
            (None, name, &own, 200),
            (None, "localhost:80", "http://localhost", 200),
            (None, "localhost:443", "http://localhost", 403),
        ] {
            for more in [&[][..], &[("upgrade", "websocket")]] {
                let headers = [&[("host", host), ("origin", origin)], more].concat();
                assert_eq!(
                    behind(proto, &Method::GET, "/", &headers),
                    expected,
                    "{proto:?} {headers:?}"
                );
            }
        }
    }

    #[test]
    fn what_is_no_part_of_the_site_is_not_shown() {
        for (path, expected) in [
            ("/", 200),
            ("/src/pages/index.astro?raw", 200),
            ("/@fs/srv/tree/node_modules/x.js", 200),
            ("/@id/astro:scripts/x.js", 200),
            ("/.well-known/x", 200),
            ("/environment", 200),
            ("/@fs/etc/passwd", 403),
            ("/@fs/srv/tree-of-another/x", 403),
            ("/@fs//etc/passwd?raw", 403),
            ("/x/@fs/etc/passwd", 403),
            ("/%40fs/etc/passwd", 403),
            ("/%2540fs/etc/passwd", 403),
            ("/@fs/srv/tree/../../etc/passwd", 400),
            ("/@fs/srv/tree/%2e%2e/%2e%2e/etc/passwd", 400),
            ("/..%5cx", 400),
            ("/%00", 400),
            ("/.git/config", 404),
            ("/%2egit/config", 404),
            ("/sub/.GIT/HEAD", 404),
            ("/.env", 404),
            ("/.env.local?raw", 404),
            ("/%2Eenv", 404),
            ("/__edit-agent/boot", 404),
        ] {
            assert_eq!(
                verdict(&Method::GET, path, &[("host", "localhost")]),
                expected,
                "{path}"
            );
        }
    }
}
