//! What a head looks like on the other side.

use http::HeaderValue;
use relay::{Forwarded, HostPolicy, Settings};

use crate::front::{Front, forwarded, plain};
use crate::upstream::Upstream;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[tokio::test]
async fn path_and_query_reach_the_upstream_byte_for_byte() {
    let upstream = Upstream::listen().await;
    let front = Front::of(upstream.address).await;
    let mut client = front.connect().await;
    let mut server = None;
    for target in [
        "/",
        "/?",
        "/styles.css?raw",
        "/src/a.ts?import&url",
        "/src/Header.astro?astro&type=style&index=0&lang.css",
        "/a?b=&c&=d&&e==f&b=",
        "/%5Bslug%5D?x=%5b&y=%2F..%2f",
        "//x",
        "//evil.example/x",
        "/a/../b/./c//d/",
        "/@fs/etc/passwd?import&raw??",
        "/@id/__x00__virtual:astro",
        "/a;b=c?d+e%20f%",
        "/\"{a}|^?{b}|\\^`'",
        "/~user/!$&'()*+,;=:@-._?/?",
        "/http://example.com/",
    ] {
        client
            .send(format!("GET {target} HTTP/1.1\r\nHost: site\r\n\r\n"))
            .await;
        let server = match &mut server {
            Some(server) => server,
            none => none.insert(upstream.accept().await),
        };
        assert_eq!(server.head().await.start, format!("GET {target} HTTP/1.1"));
        server.send(OK).await;
        assert_eq!(client.head().await.status(), 200, "{target}");
        assert_eq!(client.exactly(2).await, "ok");
    }
}

#[tokio::test]
async fn a_path_in_raw_utf_8_reaches_the_upstream_as_it_is() {
    let upstream = Upstream::listen().await;
    let front = Front::of(upstream.address).await;
    let mut client = front.connect().await;
    client
        .send("GET /überuns?café HTTP/1.1\r\nHost: site\r\n\r\n")
        .await;
    let mut server = upstream.accept().await;
    assert_eq!(server.head().await.start, "GET /überuns?café HTTP/1.1");
}

#[tokio::test]
async fn an_absolute_target_is_reduced_to_its_path() {
    let upstream = Upstream::listen().await;
    let front = Front::of(upstream.address).await;
    let mut client = front.connect().await;
    client
        .send("GET http://Site:8080/a?b HTTP/1.1\r\nHost: site:8080\r\n\r\n")
        .await;
    let mut server = upstream.accept().await;
    let request = server.head().await;
    assert_eq!(request.target(), "/a?b");
    assert_eq!(request.get("host"), Some("site:8080"));
}

#[tokio::test]
async fn options_for_the_whole_server_stays_an_asterisk() {
    let upstream = Upstream::listen().await;
    let front = Front::of(upstream.address).await;
    let mut client = front.connect().await;
    client
        .send("OPTIONS * HTTP/1.1\r\nHost: site\r\n\r\n")
        .await;
    let mut server = upstream.accept().await;
    assert_eq!(server.head().await.start, "OPTIONS * HTTP/1.1");
}

#[tokio::test]
async fn an_old_client_gets_an_answer_it_understands() {
    let upstream = Upstream::listen().await;
    let front = Front::of(upstream.address).await;
    let mut client = front.connect().await;
    client.send("GET / HTTP/1.0\r\nHost: site\r\n\r\n").await;
    let mut server = upstream.accept().await;
    assert_eq!(server.head().await.start, "GET / HTTP/1.1");
    server
        .send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n")
        .await;
    let response = client.head().await;
    assert_eq!(response.get("transfer-encoding"), None);
    assert_eq!(client.rest().await.0, "ok");
}

#[tokio::test]
async fn the_host_is_kept_or_set_as_the_caller_says() {
    let upstream = Upstream::listen().await;
    let kept = Front::of(upstream.address).await;
    let mut client = kept.connect().await;
    client
        .send("GET / HTTP/1.1\r\nHost: Edit.Acme.example:443\r\n\r\n")
        .await;
    assert_eq!(
        upstream.accept().await.head().await.get("host"),
        Some("Edit.Acme.example:443")
    );

    let set = relay::Upstream {
        host: HostPolicy::Set(HeaderValue::from_static("localhost:4321")),
        ..plain(upstream.address)
    };
    let set = Front::with(Settings::default(), set).await;
    for host in ["Host: edit.acme.example\r\n", ""] {
        let mut client = set.connect().await;
        client.send(format!("GET / HTTP/1.1\r\n{host}\r\n")).await;
        assert_eq!(
            upstream.accept().await.head().await.get("host"),
            Some("localhost:4321")
        );
    }
}

#[tokio::test]
async fn what_belongs_to_the_clients_connection_ends_here() {
    let upstream = Upstream::listen().await;
    let front = Front::of(upstream.address).await;
    let mut client = front.connect().await;
    client
        .send(
            "GET / HTTP/1.1\r\nHost: site\r\nConnection: keep-alive, X-Nominated\r\nConnection: , x-also ,bad token\r\n\
             Keep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nProxy-Authorization: Basic x\r\n\
             TE: gzip;q=0.5, Trailers\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMA\r\n\
             X-Nominated: 1\r\nX-Also: 2\r\nX-Kept: 3\r\nCookie: a=b\r\nCookie: c=d\r\n\r\n",
        )
        .await;
    let mut server = upstream.accept().await;
    let request = server.head().await;
    assert_eq!(
        request.names(),
        ["connection", "cookie", "cookie", "host", "te", "x-kept"]
    );
    assert_eq!(request.all("cookie"), ["a=b", "c=d"]);
    assert_eq!(
        request.get("te"),
        Some("trailers"),
        "what is said to keep, and nothing of gzip"
    );
    assert_eq!(request.get("connection"), Some("te"), "which goes with it");
}

#[tokio::test]
async fn what_belongs_to_the_upstreams_connection_ends_here() {
    let upstream = Upstream::listen().await;
    let front = Front::of(upstream.address).await;
    let mut client = front.connect().await;
    client.send("GET / HTTP/1.1\r\nHost: site\r\n\r\n").await;
    let mut server = upstream.accept().await;
    server.head().await;
    server
        .send(
            "HTTP/1.1 200 Fine By Me\r\nConnection: close, X-Internal\r\nKeep-Alive: timeout=5\r\nX-Internal: 1\r\n\
             Proxy-Authenticate: Basic\r\nUpgrade: h2c\r\nTransfer-Encoding: chunked\r\nDate: today\r\n\
             Set-Cookie: a=b\r\nSet-Cookie: c=d\r\nX-Kept: 3\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        )
        .await;
    let response = client.head().await;
    assert_eq!(response.start, "HTTP/1.1 200 Fine By Me");
    assert_eq!(
        response.names(),
        [
            "date",
            "set-cookie",
            "set-cookie",
            "transfer-encoding",
            "x-kept"
        ]
    );
    assert_eq!(response.all("set-cookie"), ["a=b", "c=d"]);
    assert_eq!(client.chunked_body().await, "ok");

    client
        .send("GET /next HTTP/1.1\r\nHost: site\r\n\r\n")
        .await;
    let mut server = upstream.accept().await;
    assert_eq!(
        server.head().await.target(),
        "/next",
        "the client's connection is not the upstream's"
    );
}

#[tokio::test]
async fn what_a_client_claims_to_be_is_replaced_by_what_the_caller_knows() {
    let claims = "GET / HTTP/1.1\r\nHost: site\r\nForwarded: for=10.0.0.1\r\nX-Forwarded-For: 10.0.0.1\r\n\
        X-Forwarded-For: 10.0.0.2\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: evil\r\nX-Forwarded-Port: 1\r\n\
        X-Forwarded-Prefix: /x\r\nX-Real-IP: 10.0.0.1\r\nX_Forwarded_For: 10.0.0.1\r\nX-Forwarded_Host: evil\r\n\
        Edit-Proof: forged\r\nEdit_Proof: forged\r\nTransfer_Encoding: chunked\r\nMy_Own: 1\r\n\r\n";
    let upstream = Upstream::listen().await;

    let silent = Front::of(upstream.address).await;
    let mut client = silent.connect().await;
    client.send(claims).await;
    let request = upstream.accept().await.head().await;
    assert_eq!(
        request.names(),
        ["edit-proof", "edit_proof", "host", "my_own"]
    );

    let telling = relay::Upstream {
        forwarded: forwarded(),
        ..plain(upstream.address)
    };
    let telling = Front::with(Settings::default(), telling).await;
    let mut client = telling.connect().await;
    client.send(claims).await;
    let request = upstream.accept().await.head().await;
    assert_eq!(
        request.names(),
        [
            "edit-proof",
            "host",
            "my_own",
            "x-forwarded-for",
            "x-forwarded-host",
            "x-forwarded-proto"
        ]
    );
    assert_eq!(request.get("x-forwarded-for"), Some("203.0.113.9"));
    assert_eq!(request.get("x-forwarded-proto"), Some("https"));
    assert_eq!(request.get("x-forwarded-host"), Some("edit.acme.example"));
    assert_eq!(request.get("edit-proof"), Some("v1 ours"));
}

#[tokio::test]
async fn a_client_cannot_nominate_away_what_the_caller_says() {
    let upstream = Upstream::listen().await;
    let telling = relay::Upstream {
        forwarded: forwarded(),
        ..plain(upstream.address)
    };
    let front = Front::with(Settings::default(), telling).await;
    let mut client = front.connect().await;
    client
        .send(
            "POST / HTTP/1.1\r\nHost: site\r\nContent-Length: 4\r\n\
             Connection: close, X-Forwarded-For, X-Forwarded-Proto, Edit-Proof, Host, Content-Length\r\n\r\nbody",
        )
        .await;
    let mut server = upstream.accept().await;
    let request = server.head().await;
    assert_eq!(request.get("x-forwarded-for"), Some("203.0.113.9"));
    assert_eq!(request.get("x-forwarded-proto"), Some("https"));
    assert_eq!(request.get("edit-proof"), Some("v1 ours"));
    assert_eq!(request.get("host"), Some("site"));
    assert_eq!(request.get("content-length"), Some("4"));
    assert_eq!(server.exactly(4).await, "body");
}

#[tokio::test]
async fn a_head_request_keeps_its_length_and_has_no_body() {
    let upstream = Upstream::listen().await;
    let front = Front::of(upstream.address).await;
    let mut client = front.connect().await;
    client.send("HEAD /a HTTP/1.1\r\nHost: site\r\n\r\n").await;
    let mut server = upstream.accept().await;
    assert_eq!(server.head().await.start, "HEAD /a HTTP/1.1");
    server
        .send("HTTP/1.1 200 OK\r\nContent-Length: 12345\r\n\r\n")
        .await;
    assert_eq!(client.head().await.get("content-length"), Some("12345"));

    for unsaid in ["", "Transfer-Encoding: chunked\r\n"] {
        client.send("HEAD /b HTTP/1.1\r\nHost: site\r\n\r\n").await;
        server.head().await;
        server
            .send(format!("HTTP/1.1 200 OK\r\n{unsaid}\r\n"))
            .await;
        assert_eq!(
            client.head().await.get("content-length"),
            None,
            "nobody said that the page is empty"
        );
    }
}

#[tokio::test]
async fn answers_without_a_body_leave_the_connection_usable() {
    let upstream = Upstream::listen().await;
    let front = Front::of(upstream.address).await;
    let mut client = front.connect().await;
    client
        .send("GET /a HTTP/1.1\r\nHost: site\r\nIf-None-Match: \"x\"\r\n\r\n")
        .await;
    let mut server = upstream.accept().await;
    assert_eq!(server.head().await.get("if-none-match"), Some("\"x\""));
    server
        .send("HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\nContent-Length: 500\r\n\r\n")
        .await;
    let response = client.head().await;
    assert_eq!(
        (response.status(), response.get("etag")),
        (304, Some("\"x\""))
    );

    client
        .send("DELETE /b HTTP/1.1\r\nHost: site\r\n\r\n")
        .await;
    assert_eq!(server.head().await.start, "DELETE /b HTTP/1.1");
    server.send("HTTP/1.1 204 No Content\r\n\r\n").await;
    let response = client.head().await;
    assert_eq!(
        (response.status(), response.get("content-length")),
        (204, None)
    );

    client.send("GET /c HTTP/1.1\r\nHost: site\r\n\r\n").await;
    assert_eq!(server.head().await.target(), "/c");
    server.send(OK).await;
    assert_eq!(client.head().await.status(), 200);
    assert_eq!(client.exactly(2).await, "ok");
}

#[tokio::test]
async fn a_range_passes_both_ways() {
    let upstream = Upstream::listen().await;
    let front = Front::of(upstream.address).await;
    let mut client = front.connect().await;
    client
        .send("GET /film.mp4 HTTP/1.1\r\nHost: site\r\nRange: bytes=2-3\r\nIf-Range: \"v\"\r\n\r\n")
        .await;
    let mut server = upstream.accept().await;
    let request = server.head().await;
    assert_eq!(
        (request.get("range"), request.get("if-range")),
        (Some("bytes=2-3"), Some("\"v\""))
    );
    server
        .send("HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 2-3/9\r\nAccept-Ranges: bytes\r\nContent-Length: 2\r\n\r\ncd")
        .await;
    let response = client.head().await;
    assert_eq!(
        (response.status(), response.get("content-range")),
        (206, Some("bytes 2-3/9"))
    );
    assert_eq!(client.exactly(2).await, "cd");
}

#[tokio::test]
async fn a_request_says_nothing_that_the_client_did_not_say() {
    let upstream = Upstream::listen().await;
    let silent = relay::Upstream {
        forwarded: Forwarded::default(),
        ..plain(upstream.address)
    };
    let front = Front::with(Settings::default(), silent).await;
    let mut client = front.connect().await;
    client
        .send("POST / HTTP/1.1\r\nHost: site\r\nContent-Length: 0\r\n\r\n")
        .await;
    let mut server = upstream.accept().await;
    assert_eq!(server.head().await.names(), ["content-length", "host"]);
    server.send(OK).await;
    client.head().await;
    client.exactly(2).await;
    client.send("POST / HTTP/1.1\r\nHost: site\r\n\r\n").await;
    assert_eq!(server.head().await.names(), ["host"]);
}
