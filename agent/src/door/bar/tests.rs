use axum::body::Body;
use futures_util::stream;
use http_body_util::BodyExt as _;
use proptest::prelude::*;

use super::*;

const HOST: &str = "127.0.0.1:8080";

fn wanted() -> Wanted {
    Wanted {
        visitor: Visitor {
            host: HOST.to_owned(),
            digest: "sha256-D".to_owned(),
        },
        version: "1".into(),
        scheme: "http",
    }
}

fn tag() -> Tag {
    Tag {
        wanted: wanted(),
        pass: Pass::default(),
        has_base: false,
        is_in: false,
    }
}

const TAG: &str = r#"<script async src="/_edit/bar.js?v=1"></script>"#;

/// What comes out of each chunk, and at the end.
fn rewritten(chunks: &[&[u8]]) -> Vec<Vec<u8>> {
    let mut rewriting = Rewriting::new(tag());
    let mut out: Vec<Vec<u8>> = chunks
        .iter()
        .map(|chunk| rewriting.chunk(Bytes::copy_from_slice(chunk)).to_vec())
        .collect();
    out.push(rewriting.end().to_vec());
    out
}

fn text(page: &str) -> String {
    String::from_utf8(rewritten(&[page.as_bytes()]).concat()).expect("text")
}

#[test]
fn the_tag_stands_at_the_end_of_the_head() {
    for (page, expected) in [
        (
            "<!doctype html><html><head><title>a</title></head><body></body></html>",
            "<!doctype html><html><head><title>a</title>TAG</head><body></body></html>",
        ),
        (
            "<HEAD></HEAD >x<head></head>",
            "<HEAD>TAG</HEAD >x<head></head>",
        ),
        // No head that ends: where the document does.
        ("<title>a</title><p>b", "<title>a</title><p>bTAG"),
        ("", "TAG"),
        // What only looks like the end of a head.
        (
            "<head><script>'</head>'</script><!-- </head> --><title></head></title></head>",
            "<head><script>'</head>'</script><!-- </head> --><title></head></title>TAG</head>",
        ),
    ] {
        assert_eq!(text(page), expected.replace("TAG", TAG), "{page}");
    }
}

#[test]
fn a_base_does_not_send_the_script_elsewhere() {
    let page = text(r#"<head><base href="https://cdn.example/"></head>"#);
    assert!(
        page.contains(r#"src="http://127.0.0.1:8080/_edit/bar.js?v=1""#),
        "{page}"
    );
}

#[test]
fn a_policy_in_the_page_lets_the_script_in() {
    let policy = |content: &str| {
        text(&format!(
            r#"<head><meta http-equiv="Content-Security-Policy" content="{content}"></head>"#
        ))
    };
    let admitted = policy("default-src 'none'");
    assert!(
        admitted.contains(
            "script-src-elem 127.0.0.1:8080/_edit/bar.js; connect-src 127.0.0.1:8080/_edit/"
        ),
        "{admitted}"
    );
    assert!(
        policy("default-src &#39;self&#39;").contains(r#"content="default-src &#39;self&#39;">"#)
    );
    let digest = policy("script-src &#x27;strict-dynamic&#x27; a?b&amp;c");
    assert!(
        digest.contains("'sha256-D'") && digest.contains("b&amp;c"),
        "{digest}"
    );
    assert!(
        digest.contains(r#" integrity="sha256-D"></script>"#),
        "{digest}"
    );
    let nonce = policy("script-src 'strict-dynamic' 'nonce-abc'");
    assert!(nonce.contains(r#" nonce="abc"></script>"#), "{nonce}");
    let other = r#"<head><meta http-equiv="refresh" content="default-src 'none'"></head>"#;
    assert_eq!(text(other).replace(TAG, ""), other);
}

#[test]
fn nothing_of_a_page_is_held() {
    let out = rewritten(&[
        b"<!doctype html><head><title>a</title>",
        b"<style>p{}",
        b"</style></head><body><p>one",
        b"<p>two<di",
        b"v></div>",
    ]);
    let out: Vec<String> = out
        .into_iter()
        .map(|chunk| String::from_utf8(chunk).expect("text"))
        .collect();
    assert_eq!(out[0], "<!doctype html><head><title>a</title>");
    assert_eq!(out[1], "<style>p{}");
    assert_eq!(out[2], format!("</style>{TAG}</head><body><p>one"));
    // After the head, not even an unfinished tag is.
    assert_eq!(out[3], "<p>two<di");
    assert_eq!(out[5], "");
}

#[test]
fn an_endless_tag_passes_without_the_bar() {
    let page = format!(
        "<head><meta name=\"{}\"></head>x",
        "a".repeat(3 * HELD_MAX_BYTES)
    );
    let chunks: Vec<&[u8]> = page.as_bytes().chunks(64 * 1024).collect();
    let out = rewritten(&chunks).concat();
    let out = String::from_utf8(out).expect("text").replace(TAG, "");
    assert!(out == page, "{} of {} bytes", out.len(), page.len());
}

fn piece() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(vec![
            "<head>",
            "</head>",
            "<html>",
            "</html>",
            "<body>",
            "</body>",
            "<script>",
            "</script>",
            "<!--",
            "-->",
            "<title>",
            "</title>",
            "<",
            ">",
            "\"",
            "'",
            "<p class=\"ä\">",
            "<meta charset=utf-8>",
            "<svg>",
            "</svg>",
            "<textarea>",
            "<template>",
            "<![CDATA[",
            "]]>",
            "&amp;",
            "<a b='</head>'>",
            "</",
            "\u{1F600}",
            "\0",
            "<select>",
            "<meta http-equiv=refresh content=1>",
            "<noscript>",
            "</noscript>",
            "<!doctype html>",
            "\r\n",
        ])
        .prop_map(str::to_owned),
        "\\PC{0,4}",
    ]
}

proptest! {
    #[test]
    fn without_the_tag_the_page_is_what_the_site_sent(
        pieces in prop::collection::vec(piece(), 0..40),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        broken in any::<Option<prop::sample::Index>>(),
    ) {
        let mut page = pieces.concat().into_bytes();
        if let (Some(at), false) = (broken, page.is_empty()) {
            // Not even text.
            let at = at.index(page.len());
            page[at] = 0xff;
        }
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(page.len() + 1)).collect();
        cuts.extend([0, page.len()]);
        cuts.sort_unstable();
        let chunks: Vec<&[u8]> = cuts.windows(2).map(|cut| &page[cut[0]..cut[1]]).collect();
        let out = rewritten(&chunks).concat();
        let whole = rewritten(&[&page]).concat();
        prop_assert_eq!(&out, &whole, "however it is cut");
        let at = out.windows(TAG.len()).position(|window| window == TAG.as_bytes());
        let at = at.expect("the tag is in");
        let rest = [&out[..at], &out[at + TAG.len()..]].concat();
        prop_assert_eq!(rest, page);
    }
}

fn response(headers: &[(&str, &str)], body: Body) -> Response {
    let mut response = http::Response::builder();
    for (name, value) in headers {
        response = response.header(*name, *value);
    }
    response.body(body).expect("a response")
}

async fn body_of(response: Response) -> Vec<u8> {
    response
        .into_body()
        .collect()
        .await
        .expect("whole")
        .to_bytes()
        .to_vec()
}

#[tokio::test]
async fn only_pages_get_the_bar() {
    let page = "<head></head>";
    for (headers, gets) in [
        (&[("content-type", "text/html")][..], true),
        (&[("content-type", "Text/HTML; charset=utf-8")], true),
        (
            &[
                ("content-type", "text/html"),
                ("content-encoding", "identity"),
            ],
            true,
        ),
        (
            &[("content-type", "text/html"), ("content-encoding", "gzip")],
            false,
        ),
        (&[("content-type", "text/html;charset=UTF-16LE")], false),
        (&[("content-type", "text/html-x")], false),
        (&[("content-type", "application/xhtml+xml")], false),
        (&[], false),
    ] {
        let response = wanted().put_into(response(headers, Body::from(page)));
        let got = body_of(response).await != page.as_bytes();
        assert_eq!(got, gets, "{headers:?}");
    }
    for status in [204, 205, 206, 304] {
        let mut response = response(&[("content-type", "text/html")], Body::from(page));
        *response.status_mut() = StatusCode::from_u16(status).expect("a status");
        assert_eq!(
            body_of(wanted().put_into(response)).await,
            page.as_bytes(),
            "{status}"
        );
    }
}

#[tokio::test]
async fn what_the_head_says_of_the_bytes_goes_and_every_policy_lets_us_in() {
    let headers = [
        ("content-type", "text/html"),
        ("content-length", "13"),
        ("etag", "\"1\""),
        ("content-security-policy", "default-src 'none'"),
        (
            "content-security-policy",
            "img-src 'none', script-src 'self'",
        ),
        ("content-security-policy-report-only", "default-src 'none'"),
    ];
    let response = wanted().put_into(response(&headers, Body::from("<head></head>")));
    let headers = response.headers();
    assert!(!headers.contains_key("content-length") && !headers.contains_key("etag"));
    let policies: Vec<&[u8]> = headers
        .get_all("content-security-policy")
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    assert_eq!(
        policies,
        [
            &b"default-src 'none'; script-src-elem 127.0.0.1:8080/_edit/bar.js; connect-src 127.0.0.1:8080/_edit/"[..],
            b"img-src 'none', script-src 'self'"
        ]
    );
    assert_eq!(
        headers["content-security-policy-report-only"],
        "default-src 'none'"
    );
}

#[tokio::test]
async fn a_page_that_breaks_off_breaks_off_for_the_browser_too() {
    let broken = stream::iter([
        Ok(Bytes::from_static(b"<head></head><p>one")),
        Err(std::io::Error::other("the site went away")),
    ]);
    let body = Body::from_stream(broken);
    let mut body = wanted()
        .put_into(response(&[("content-type", "text/html")], body))
        .into_body();
    let first = body
        .frame()
        .await
        .expect("a frame")
        .expect("the first part");
    assert!(first.into_data().expect("data").ends_with(b"<p>one"));
    assert!(body.frame().await.expect("an end that is none").is_err());
}

#[test]
fn only_the_page_of_a_window_is_looked_at() {
    let bar = Bar::new();
    for (method, headers, expected) in [
        (Method::GET, &[("accept", "text/html,*/*")][..], true),
        (
            Method::GET,
            &[("sec-fetch-dest", "document"), ("accept", "*/*")],
            true,
        ),
        (
            Method::GET,
            &[("sec-fetch-dest", "iframe"), ("accept", "text/html")],
            false,
        ),
        (
            Method::GET,
            &[("sec-fetch-dest", "empty"), ("accept", "text/html")],
            false,
        ),
        (Method::GET, &[("accept", "*/*")], false),
        (Method::GET, &[], false),
        (Method::HEAD, &[("accept", "text/html")], false),
        (Method::POST, &[("sec-fetch-dest", "document")], false),
        (
            Method::GET,
            &[("accept", "text/html"), ("upgrade", "websocket")],
            false,
        ),
    ] {
        let mut request = http::Request::builder()
            .method(&method)
            .header("accept-encoding", "gzip, br")
            .header("range", "bytes=0-1");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (mut parts, ()) = request.body(()).expect("a request").into_parts();
        assert_eq!(
            bar.look_at(&mut parts).is_some(),
            expected,
            "{method} {headers:?}"
        );
        let encoding = if expected { "identity" } else { "gzip, br" };
        assert_eq!(parts.headers["accept-encoding"], encoding);
        assert_eq!(parts.headers.contains_key("range"), !expected);
    }
}

#[test]
fn the_script_is_small_and_has_its_words() {
    let bar = Bar::new();
    let script = std::str::from_utf8(&bar.script).expect("text");
    assert!(script.contains(r#""title":"Your draft""#) && !script.contains(WORDS));
    assert!(
        bar.compressed.len() <= 8 * 1024,
        "{} bytes",
        bar.compressed.len()
    );
    for forbidden in [
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
        "new Function",
        "window.",
    ] {
        assert!(
            !script.contains(forbidden),
            "{forbidden}: a page may forbid it"
        );
    }
}

#[test]
fn a_browser_that_takes_no_gzip_gets_none() {
    for (accepted, expected) in [
        ("gzip, deflate, br", true),
        ("br;q=1.0, gzip;q=0.5", true),
        ("gzip;q=0", false),
        ("br", false),
        ("xgzip", false),
        ("", false),
    ] {
        let mut headers = HeaderMap::new();
        headers.insert("accept-encoding", accepted.parse().expect("a value"));
        assert_eq!(takes_gzip(&headers), expected, "{accepted}");
    }
}
