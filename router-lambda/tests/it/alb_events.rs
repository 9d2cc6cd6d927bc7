//! What load balancers tell of requests, and that it is read as it was asked.

use std::net::SocketAddr;
use std::path::PathBuf;

use edit_router::lambda::alb::AlbRequest;
use http::{HeaderMap, HeaderName, HeaderValue};
use proptest::prelude::*;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::support::alb::{Asked, Manner, event};

fn fixtures() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fixtures/alb")
}

/// The targets that browsers ask dev servers for.
pub fn corpus() -> Vec<String> {
    let text = std::fs::read_to_string(fixtures().join("corpus.txt")).expect("the corpus");
    let targets: Vec<String> = text
        .lines()
        .filter(|line| line.starts_with('/'))
        .map(str::to_owned)
        .collect();
    assert!(targets.len() >= 150, "{} targets", targets.len());
    targets
}

#[derive(serde::Deserialize)]
struct Example {
    why: String,
    // As it is written: a value would forget the order.
    event: Box<RawValue>,
    out: Value,
}

#[test]
fn every_documented_event_is_read_as_it_was_asked() {
    let mut read = 0;
    for entry in std::fs::read_dir(fixtures().join("events")).expect("the events") {
        let path = entry.expect("an entry").path();
        let text = std::fs::read_to_string(&path).expect("a text");
        let Example { why, event, out } = serde_json::from_str(&text).expect("an example");
        let name = format!("{}: {why}", path.display());
        let parsed = AlbRequest::parse(event.get().as_bytes());
        read += 1;
        if let Some(status) = out["refused"].as_u64() {
            let refused = parsed.expect_err(&name);
            assert_eq!(u64::from(refused.why.status().as_u16()), status, "{name}");
            assert_eq!(refused.multi_value, out["multiValue"], "{name}");
            continue;
        }
        let request = parsed.unwrap_or_else(|refused| panic!("{name}: {refused}"));
        assert_eq!(request.method.as_str(), out["method"], "{name}");
        assert_eq!(
            request.head().target(),
            out["target"].as_str().unwrap_or_default(),
            "{name}"
        );
        let visitor = request.visitor().map(|visitor| visitor.to_string());
        assert_eq!(visitor.as_deref(), out["visitor"].as_str(), "{name}");
        assert_eq!(request.proto().as_str(), out["proto"], "{name}");
        assert_eq!(request.multi_value, out["multiValue"], "{name}");
        assert_eq!(
            request.is_health_check(),
            out["healthCheck"] == true,
            "{name}"
        );
        for (field, values) in out["headers"].as_object().into_iter().flatten() {
            let found: Vec<&str> = request
                .headers
                .get_all(field)
                .iter()
                .filter_map(|value| value.to_str().ok())
                .collect();
            assert_eq!(serde_json::json!(found), *values, "{name}");
        }
        for field in out["without"].as_array().into_iter().flatten() {
            assert!(
                !request
                    .headers
                    .contains_key(field.as_str().unwrap_or_default()),
                "{name}"
            );
        }
        let body: String = request
            .body
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        assert_eq!(body, out["bodyHex"].as_str().unwrap_or_default(), "{name}");
    }
    assert!(read >= 25, "{read} examples");
}

fn told(target: &str, headers: &HeaderMap, body: &[u8], multi_value: bool) -> String {
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    };
    let peer: SocketAddr = "203.0.113.9:40000".parse().expect("an address");
    let asked = Asked {
        method: "POST",
        path,
        query,
        headers,
        body,
        peer,
    };
    let manner = Manner {
        multi_value,
        https: true,
    };
    event(&asked, manner)
}

#[test]
fn every_target_that_a_browser_asks_for_is_told_byte_for_byte() {
    for target in corpus() {
        for multi_value in [false, true] {
            let event = told(&target, &HeaderMap::new(), b"", multi_value);
            let request = AlbRequest::parse(event.as_bytes())
                .unwrap_or_else(|refused| panic!("{target}: {refused}"));
            let single_value_repeats = !multi_value
                && (target.contains("?a&a")
                    || target.contains("import&import")
                    || target.contains("sort=price&sort"));
            if !single_value_repeats {
                assert_eq!(request.head().target(), target, "all values: {multi_value}");
            }
        }
    }
}

/// What comes out of each target that cannot be told, as the table at the head of the parser says.
#[test]
fn what_is_lost_on_the_way_is_what_is_written_down() {
    for (asked, all_values, one_value) in [
        ("/a?raw=", "/a?raw", "/a?raw"),
        ("/a?", "/a", "/a"),
        ("/a?a&&b", "/a?a&b", "/a?a&b"),
        ("/a?a&", "/a?a", "/a?a"),
        ("/a?=", "/a", "/a"),
        ("/a?a=1&b&a=2", "/a?a=1&a=2&b", "/a?a=2&b"),
    ] {
        for (multi_value, expected) in [(true, all_values), (false, one_value)] {
            let event = told(asked, &HeaderMap::new(), b"", multi_value);
            let request = AlbRequest::parse(event.as_bytes()).expect("a request");
            assert_eq!(
                request.head().target(),
                expected,
                "{asked}, all values: {multi_value}"
            );
        }
    }
}

/// A path as it can be on the wire.
fn path() -> impl Strategy<Value = String> {
    "/[a-zA-Z0-9/@._~!$'()*+,;:\\[\\]%-]{0,40}"
}

/// A query in which no key is there twice, and no pair is empty.
fn query() -> impl Strategy<Value = String> {
    let pair = (
        "[a-zA-Z0-9@._%/+-]{1,8}",
        proptest::option::of("[a-zA-Z0-9@._%/+?=-]{1,12}"),
    );
    proptest::collection::vec(pair, 0..6).prop_map(|pairs| {
        let mut keys = std::collections::BTreeSet::new();
        let pairs = pairs
            .into_iter()
            .filter(|(key, _)| keys.insert(key.clone()));
        let pairs: Vec<String> = pairs
            .map(|(key, value)| value.map_or(key.clone(), |value| format!("{key}={value}")))
            .collect();
        pairs.join("&")
    })
}

proptest! {
    #[test]
    fn a_request_comes_out_as_it_went_in(
        path in path(),
        query in query(),
        fields in proptest::collection::vec(("x-[a-z0-9_-]{1,10}", "[!-~]([ -~]{0,20}[!-~])?"), 0..10),
        body in proptest::collection::vec(any::<u8>(), 0..300),
        kind in proptest::option::of(Just("application/octet-stream")),
    ) {
        let target = if query.is_empty() { path } else { format!("{path}?{query}") };
        let mut headers = HeaderMap::new();
        for (name, value) in &fields {
            let name: HeaderName = name.parse().expect("a name");
            headers.append(name, HeaderValue::from_str(value).expect("a value"));
        }
        if let Some(kind) = kind {
            headers.insert("content-type", HeaderValue::from_static(kind));
        }
        let event = told(&target, &headers, &body, true);
        let request = AlbRequest::parse(event.as_bytes()).expect("a request");
        prop_assert_eq!(request.head().target(), target);
        prop_assert_eq!(&request.body[..], &body[..]);
        prop_assert_eq!(request.visitor().map(|visitor| visitor.to_string()), Some("203.0.113.9".to_owned()));
        for name in headers.keys() {
            let before: Vec<_> = headers.get_all(name).iter().collect();
            let after: Vec<_> = request.headers.get_all(name).iter().collect();
            prop_assert_eq!(before, after);
        }
    }

    #[test]
    fn no_bytes_make_it_fall_over(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        drop(AlbRequest::parse(&bytes));
    }

    #[test]
    fn no_json_makes_it_fall_over(
        method in json(), path in json(), one in json(), all in json(), fields in json(), all_fields in json(), body in json(), flag in json(),
    ) {
        let event = format!(
            r#"{{"requestContext":{{"elb":{{}}}},"httpMethod":{method},"path":{path},"queryStringParameters":{one},"multiValueQueryStringParameters":{all},
            "headers":{fields},"multiValueHeaders":{all_fields},"body":{body},"isBase64Encoded":{flag}}}"#
        );
        if let Ok(request) = AlbRequest::parse(event.as_bytes()) {
            let head = request.head();
            prop_assert!(head.path.starts_with('/'));
            // Whatever it is, it is one line of HTTP.
            prop_assert!(head.target().bytes().all(|byte| byte > b' ' && byte != 0x7f), "{}", head.target());
            let target: http::uri::PathAndQuery = head.target().parse().expect("it was judged");
            prop_assert_eq!(target.as_str(), head.target());
        }
    }
}

/// Something that is more often of the right kind than not.
fn json() -> impl Strategy<Value = String> {
    let text = "\\PC{0,12}".prop_map(|text| serde_json::to_string(&text).expect("a text"));
    let target = path().prop_map(|text| serde_json::to_string(&text).expect("a text"));
    let list = proptest::collection::vec("[ -~]{0,6}", 0..3)
        .prop_map(|list| serde_json::to_string(&list).expect("a list"));
    let map = proptest::collection::vec(("[!-~]{0,6}", "[ -~]{0,6}"), 0..4).prop_map(|map| {
        serde_json::to_string(
            &map.into_iter()
                .collect::<std::collections::BTreeMap<_, _>>(),
        )
        .expect("a map")
    });
    let lists = proptest::collection::vec(
        ("[!-~]{0,6}", proptest::collection::vec("[ -~]{0,6}", 0..3)),
        0..4,
    )
    .prop_map(|map| {
        serde_json::to_string(
            &map.into_iter()
                .collect::<std::collections::BTreeMap<_, _>>(),
        )
        .expect("a map")
    });
    prop_oneof![
        4 => target,
        2 => text,
        1 => list,
        3 => map,
        3 => lists,
        1 => Just("null".to_owned()),
        1 => Just("true".to_owned()),
        1 => Just("1e400".to_owned()),
        1 => Just("\"\\ud800\"".to_owned()),
        1 => Just("\"GET\"".to_owned()),
        1 => Just("{\"a\":{\"b\":[]}}".to_owned()),
    ]
}
