//! Content that is kept elsewhere: a real server behind https, with its good and its bad days.

use std::convert::Infallible;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use futures_util::stream;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use sha2::Digest as _;
use tempfile::{NamedTempFile, TempDir};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::support::{Environment, PATIENCE, Repository, Start};

const DRAFT: &str = "edit/local";
const WINDOW: &[u8] = b"\xff\xd8 the shop's window \0\xff\xd9";

/// What it answers, by path.
struct Media {
    port: u16,
    folder: TempDir,
    /// The paths of all requests so far, and the names of their headers.
    seen: Seen,
    _tasks: JoinSet<()>,
}

impl Media {
    async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        certify(folder.path());
        let at = |name: &str| folder.path().join(name);
        let certificate = CertificateDer::from_pem_file(at("server.pem")).expect("a certificate");
        let key = PrivateKeyDer::from_pem_file(at("server.key")).expect("a key");
        let configuration = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("TLS 1.2 and 1.3")
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .expect("they belong together");
        let acceptor = TlsAcceptor::from(Arc::new(configuration));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let seen = Arc::default();
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, acceptor, Arc::clone(&seen)));
        Self {
            port,
            folder,
            seen,
            _tasks: tasks,
        }
    }

    fn at(&self, path: &str) -> String {
        format!("https://127.0.0.1:{}{path}", self.port)
    }

    /// The authority by which it is known.
    fn authority(&self) -> PathBuf {
        self.folder.path().join("authority.pem")
    }

    fn requests_of(&self, path: &str) -> usize {
        let seen = self.seen.lock().expect("no panic");
        seen.iter().filter(|(line, _)| line == path).count()
    }
}

/// An authority, and a certificate by it for this machine.
fn certify(folder: &Path) {
    let openssl = |line: &str| {
        let output = Command::new("openssl")
            .args(line.split(' '))
            .current_dir(folder)
            .output()
            .expect("openssl runs (Debian's package `openssl`)");
        let words = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{line}: {words}");
    };
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    openssl(&format!(
        "req -x509 {key} -keyout authority.key -out authority.pem -subj /CN=authority -days 2"
    ));
    openssl(&format!(
        "req {key} -keyout server.key -out server.csr -subj /CN=media"
    ));
    std::fs::write(folder.join("names"), "subjectAltName=IP:127.0.0.1\n").expect("written");
    openssl(
        "x509 -req -in server.csr -CA authority.pem -CAkey authority.key -CAcreateserial -days 2 -extfile names -out server.pem",
    );
}

type Seen = Arc<Mutex<Vec<(String, Vec<String>)>>>;

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, seen: Seen) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.expect("accepted");
        let (acceptor, seen) = (acceptor.clone(), Arc::clone(&seen));
        connections.spawn(async move {
            // Whoever does not trust us goes away again.
            let Ok(stream) = acceptor.accept(stream).await else {
                return;
            };
            let service = hyper::service::service_fn(move |request| {
                let seen = Arc::clone(&seen);
                async move { answer(&seen, &request).await }
            });
            hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await
                .ok();
        });
        while connections.try_join_next().is_some() {}
    }
}

type Answer = Response<BoxBody<Bytes, Infallible>>;

async fn answer(seen: &Seen, request: &Request<Incoming>) -> Result<Answer, Infallible> {
    let path = request.uri().path().to_owned();
    let headers = request.headers().keys().map(ToString::to_string).collect();
    let before = {
        let mut seen = seen.lock().expect("no panic");
        seen.push((path.clone(), headers));
        seen.iter().filter(|(line, _)| *line == path).count() - 1
    };
    let whole = |bytes: &'static [u8]| Response::new(Full::from(bytes).boxed());
    let status = |status, mut answer: Answer| {
        *answer.status_mut() = status;
        answer
    };
    Ok(match path.as_str() {
        "/media/moved.jpg" => {
            let mut moved = status(StatusCode::FOUND, whole(b""));
            let elsewhere = "/private/window.jpg".parse().expect("a path");
            moved.headers_mut().insert("location", elsewhere);
            moved
        }
        "/media/flaky.jpg" if before < 2 => status(StatusCode::SERVICE_UNAVAILABLE, whole(b"")),
        "/media/window.jpg" | "/private/window.jpg" | "/media/flaky.jpg" => whole(WINDOW),
        "/media/ill.jpg" => status(StatusCode::BAD_GATEWAY, whole(b"")),
        // It does not say how large it is, and would go on for ever.
        "/media/endless.bin" => {
            let frame = || Ok(Frame::data(Bytes::from_static(&[7; 16384])));
            Response::new(StreamBody::new(stream::repeat_with(frame)).boxed())
        }
        "/media/slow.jpg" => {
            let first = stream::iter([Ok(Frame::data(Bytes::from_static(b"\xff\xd8")))]);
            let body = futures_util::StreamExt::chain(first, stream::pending());
            Response::new(StreamBody::new(body).boxed())
        }
        "/media/silent.jpg" => std::future::pending().await,
        _ => status(StatusCode::NOT_FOUND, whole(b"")),
    })
}

/// An instruction in a file.
fn instruction(url: &str, content: &[u8]) -> NamedTempFile {
    let sha256: String = sha2::Sha256::digest(content)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let change =
        json!({ "op": "write", "path": "public/window.jpg", "contentUrl": url, "sha256": sha256 });
    in_a_file(&json!({ "action": { "type": "edit", "changes": [change] } }))
}

fn in_a_file(message: &Value) -> NamedTempFile {
    let mut file = NamedTempFile::new().expect("a file");
    file.write_all(message.to_string().as_bytes())
        .expect("written");
    file
}

async fn is_unavailable(
    environment: &Environment,
    url: &str,
    content: &[u8],
    words: &str,
) -> Value {
    let file = instruction(url, content);
    let path = file.path().display().to_string();
    let receipt = environment
        .is_rejected(&[&path], "content_unavailable")
        .await;
    let message = receipt["error"]["message"].as_str().unwrap_or_default();
    assert!(message.contains(words), "{words}: {receipt:#}");
    assert_eq!(
        receipt["error"]["details"][0]["path"], "$.action.changes[0].contentUrl",
        "{receipt:#}"
    );
    assert!(!receipt.to_string().contains("secret"), "{receipt:#}");
    receipt
}

#[tokio::test(flavor = "multi_thread")]
async fn content_comes_from_allowed_places_and_from_nowhere_else() {
    let (media, stranger) = (Media::start().await, Media::start().await);
    let site = Repository::amelia();
    let environment = Start::of(&site.address())
        .with(&["--content-source", &media.at("/media/")])
        .with(&["--content-source", &stranger.at("/media/")])
        .variable("SSL_CERT_FILE", &media.authority().display().to_string())
        .ready()
        .await;
    let tip = || site.git(&["rev-parse", "--verify", "--quiet", DRAFT]);

    let presigned = media.at("/media/window.jpg?X-Amz-Signature=secret");
    let receipt = environment
        .lands(&[instruction(&presigned, WINDOW).path()])
        .await;
    assert_eq!(receipt["filesChanged"], json!(["public/window.jpg"]));
    assert_eq!(environment.get("/window.jpg").await.body, WINDOW);
    let kept = site.git(&["cat-file", "-s", &format!("{DRAFT}:public/window.jpg")]);
    assert_eq!(kept, WINDOW.len().to_string());
    let landed = tip();

    // A server that has trouble is asked again, but not for ever.
    let receipt =
        is_unavailable(&environment, &media.at("/media/flaky.jpg"), b"x", "SHA-256").await;
    assert!(receipt["commit"].is_null(), "{receipt:#}");
    assert_eq!(media.requests_of("/media/flaky.jpg"), 3);
    is_unavailable(
        &environment,
        &media.at("/media/ill.jpg"),
        WINDOW,
        "502, 3 times",
    )
    .await;

    for (path, words) in [
        ("/media/moved.jpg", "302, a redirect, and none is followed"),
        ("/media/gone.jpg", "is answered by 404"),
        ("/media/endless.bin", "has more than 20971520 bytes"),
        ("/media/slow.jpg", "said nothing for 10 s"),
        ("/media/silent.jpg", "said nothing for 10 s"),
    ] {
        is_unavailable(&environment, &media.at(path), WINDOW, words).await;
        assert_eq!(media.requests_of(path), 1, "{path}");
    }
    for path in [
        "/private/window.jpg?secret",
        "/media/%2e%2e/private/window.jpg",
        "/media/../private/window.jpg",
    ] {
        let receipt =
            is_unavailable(&environment, &media.at(path), WINDOW, "public/window.jpg").await;
        let hint = receipt["error"]["hint"].as_str().unwrap_or_default();
        assert!(hint.contains("contentSources"), "{receipt:#}");
    }
    let metadata = "https://169.254.170.2/v2/credentials/7";
    is_unavailable(
        &environment,
        metadata,
        WINDOW,
        "no place that the client's policy allows",
    )
    .await;
    assert_eq!(media.requests_of("/private/window.jpg"), 0);
    // Who cannot prove to be the right server is told nothing.
    is_unavailable(
        &environment,
        &stranger.at("/media/window.jpg"),
        WINDOW,
        "cannot prove who it is",
    )
    .await;
    assert_eq!(stranger.requests_of("/media/window.jpg"), 0);

    // Nothing of ours is told to anybody, and nothing of all this left a trace.
    let seen = media.seen.lock().expect("no panic").clone();
    for (path, headers) in seen {
        assert_eq!(
            headers,
            ["host", "accept", "accept-encoding", "user-agent"],
            "{path}"
        );
    }
    assert_eq!(tip(), landed);
    let (_, code, log) = environment.stop().await;
    assert_eq!(code, 0);
    assert!(!log.contains("secret"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_called_off_is_not_waited_for() {
    let media = Media::start().await;
    let site = Repository::amelia();
    let environment = Start::of(&site.address())
        .with(&["--content-source", &media.at("/media/")])
        .variable("SSL_CERT_FILE", &media.authority().display().to_string())
        .ready()
        .await;
    let file = instruction(&media.at("/media/silent.jpg"), WINDOW);
    let path = file.path().display().to_string();
    environment
        .send(&["--no-wait", "--id", "silent", &path])
        .await;
    let asked = tokio::time::timeout(PATIENCE, async {
        while media.requests_of("/media/silent.jpg") == 0 {
            tokio::task::yield_now().await;
        }
    });
    asked.await.expect("the server is asked");
    let (code, receipt) = environment.send(&["--cancel", "silent"]).await;
    assert_eq!(
        (code, receipt["status"].as_str()),
        (0, Some("cancelled")),
        "{receipt:#}"
    );
    let receipt = environment.final_receipt("silent").await;
    assert_eq!(receipt["status"], "cancelled", "{receipt:#}");
    assert_eq!(environment.get("/window.jpg").await.status, 404);
}

#[tokio::test]
async fn a_place_for_content_is_checked_before_anything_starts() {
    for source in [
        "http://127.0.0.1:8000/media/",
        "s3://media/",
        "https://media.example",
        "https://a@b.example/",
    ] {
        let (code, words) = Start::of(".")
            .with(&["--content-source", source])
            .failure()
            .await;
        assert_eq!(code, 2, "{words}");
        assert!(words.contains("must be https://host/path"), "{words}");
    }
}
