//! A load balancer with a function behind it, as AWS documents it: <https://docs.aws.amazon.com/elasticloadbalancing/latest/application/lambda-functions.html>.
//!
//! ```text
//!   browser ──HTTP──▶ Alb ──event──▶ invoke ──▶ …
//!           ◀─HTTP──      ◀─answer──
//! ```
//!
//! It does what is documented and no more: nothing is decoded; keys and fields are told as maps, with all of their values or with the
//! last one; bodies that are no text are base64; a socket is refused with 400, a body of more than 1 MB with 413, and an answer
//! that is none, or has more than 1 MB, is a 502.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

const LIMIT_BYTES: usize = 1024 * 1024;

/// What is done with an event.
pub type Invoke = Arc<
    dyn Fn(String) -> Pin<Box<dyn Future<Output = Result<String, String>> + Send>> + Send + Sync,
>;

/// How it is set up.
#[derive(Debug, Clone, Copy)]
pub struct Manner {
    /// `lambda.multi_value_headers.enabled`.
    pub multi_value: bool,
    /// Whether its listener is one of https. The stand-in itself speaks plain http either way.
    pub https: bool,
}

/// A load balancer that runs until it is dropped.
#[derive(Debug)]
pub struct Alb {
    address: SocketAddr,
    invoked: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

impl Alb {
    pub async fn start(manner: Manner, invoke: Invoke) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .expect("a port");
        let address = listener.local_addr().expect("it is bound");
        let invoked = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&invoked);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((connection, peer)) = listener.accept().await {
                let (invoke, counted) = (Arc::clone(&invoke), Arc::clone(&counted));
                let service = service_fn(move |request| {
                    let (invoke, counted) = (Arc::clone(&invoke), Arc::clone(&counted));
                    async move {
                        Ok::<_, std::convert::Infallible>(
                            balance(request, peer, manner, invoke, &counted).await,
                        )
                    }
                });
                connections.spawn(async move {
                    let serving = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(connection), service);
                    serving.await.ok();
                });
            }
        });
        Self {
            address,
            invoked,
            _tasks: tasks,
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How often the function was invoked.
    pub fn invoked(&self) -> usize {
        self.invoked.load(Ordering::Relaxed)
    }
}

async fn balance(
    request: Request<Incoming>,
    peer: SocketAddr,
    manner: Manner,
    invoke: Invoke,
    invoked: &AtomicUsize,
) -> Response<Full<Bytes>> {
    let (parts, body) = request.into_parts();
    if parts.headers.contains_key(header::UPGRADE) {
        return own(StatusCode::BAD_REQUEST);
    }
    let Ok(body) = Limited::new(body, LIMIT_BYTES).collect().await else {
        return own(StatusCode::PAYLOAD_TOO_LARGE);
    };
    let body = body.to_bytes();
    let asked = Asked {
        method: parts.method.as_str(),
        path: parts.uri.path(),
        query: parts.uri.query(),
        headers: &parts.headers,
        body: &body,
        peer,
    };
    let event = event(&asked, manner);
    invoked.fetch_add(1, Ordering::Relaxed);
    match invoke(event).await {
        Ok(answer) => answered(&answer).unwrap_or_else(|| own(StatusCode::BAD_GATEWAY)),
        Err(_) => own(StatusCode::BAD_GATEWAY),
    }
}

/// What it answers itself.
fn own(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from_static(
        b"the load balancer's own answer",
    )));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::SERVER, "awselb/2.0".parse().expect("a value"));
    response
}

/// A request, taken apart.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    pub method: &'a str,
    pub path: &'a str,
    pub query: Option<&'a str>,
    pub headers: &'a HeaderMap,
    pub body: &'a [u8],
    pub peer: SocketAddr,
}

/// The event that a function gets.
pub fn event(asked: &Asked<'_>, manner: Manner) -> String {
    let mut parameters: Vec<(String, String)> = Vec::new();
    for pair in asked
        .query
        .unwrap_or_default()
        .split('&')
        .filter(|pair| !pair.is_empty())
    {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        parameters.push((key.to_owned(), value.to_owned()));
    }
    let mut fields: Vec<(String, String)> = Vec::new();
    for (name, value) in asked.headers {
        let passes = ![
            "connection",
            "keep-alive",
            "te",
            "transfer-encoding",
            "upgrade",
            "x-forwarded-proto",
            "x-forwarded-port",
        ]
        .contains(&name.as_str());
        if passes && name != "x-forwarded-for" {
            fields.push((
                name.as_str().to_owned(),
                String::from_utf8_lossy(value.as_bytes()).into_owned(),
            ));
        }
    }
    let claimed = asked.headers.get_all("x-forwarded-for").iter();
    let chain: Vec<String> = claimed
        .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
        .chain([asked.peer.ip().to_string()])
        .collect();
    fields.push(("x-forwarded-for".to_owned(), chain.join(", ")));
    let (proto, port) = if manner.https {
        ("https", "443")
    } else {
        ("http", "80")
    };
    fields.push(("x-forwarded-port".to_owned(), port.to_owned()));
    fields.push(("x-forwarded-proto".to_owned(), proto.to_owned()));
    fields.push((
        "x-amzn-trace-id".to_owned(),
        "Root=1-5c536348-3d683b8b04734faae651f476".to_owned(),
    ));

    let (text, is_base64) = if is_text(asked.headers) {
        (String::from_utf8_lossy(asked.body).into_owned(), false)
    } else {
        (STANDARD.encode(asked.body), !asked.body.is_empty())
    };
    let [parameters_name, fields_name] = if manner.multi_value {
        ["multiValueQueryStringParameters", "multiValueHeaders"]
    } else {
        ["queryStringParameters", "headers"]
    };
    format!(
        r#"{{"requestContext":{{"elb":{{"targetGroupArn":"arn:aws:elasticloadbalancing:us-east-1:123456789012:targetgroup/router/0123"}}}},"httpMethod":{},"path":{},"{parameters_name}":{},"{fields_name}":{},"body":{},"isBase64Encoded":{is_base64}}}"#,
        quoted(asked.method),
        quoted(asked.path),
        map(&parameters, manner.multi_value),
        map(&fields, manner.multi_value),
        quoted(&text),
    )
}

/// Which bodies come as they are.
fn is_text(headers: &HeaderMap) -> bool {
    let kind = headers
        .get(header::CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok())
        .unwrap_or_default();
    let known = [
        "application/json",
        "application/javascript",
        "application/xml",
    ];
    !headers.contains_key(header::CONTENT_ENCODING)
        && (kind.starts_with("text/") || known.iter().any(|known| kind.starts_with(known)))
}

fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("a text is JSON")
}

/// Keys in the order in which they were there first.
fn map(pairs: &[(String, String)], multi_value: bool) -> String {
    let mut keys: Vec<&str> = Vec::new();
    for (key, _) in pairs {
        if !keys.contains(&key.as_str()) {
            keys.push(key);
        }
    }
    let mut json = String::from("{");
    for (number, key) in keys.iter().enumerate() {
        let comma = if number > 0 { "," } else { "" };
        let mut values = pairs
            .iter()
            .filter(|(name, _)| name == key)
            .map(|(_, value)| quoted(value));
        let value = if multi_value {
            format!("[{}]", values.collect::<Vec<_>>().join(","))
        } else {
            values.next_back().expect("there is one")
        };
        write!(json, "{comma}{}:{value}", quoted(key)).expect("a text takes everything");
    }
    json.push('}');
    json
}

/// The answer of a function as HTTP; none if a load balancer makes a 502 of it.
fn answered(json: &str) -> Option<Response<Full<Bytes>>> {
    if json.len() > LIMIT_BYTES {
        return None;
    }
    let answer: Value = serde_json::from_str(json).ok()?;
    let status = StatusCode::from_u16(u16::try_from(answer["statusCode"].as_u64()?).ok()?).ok()?;
    let text = answer["body"].as_str()?;
    let body = if answer["isBase64Encoded"].as_bool()? {
        Bytes::from(STANDARD.decode(text).ok()?)
    } else {
        Bytes::from(text.to_owned())
    };
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    let mut head = 0;
    let mut add = |name: &str, value: &str| {
        // Hop by hop, and the length, are its own business.
        if [
            "connection",
            "transfer-encoding",
            "content-length",
            "keep-alive",
        ]
        .contains(&name.to_ascii_lowercase().as_str())
        {
            return Some(());
        }
        head += name.len() + value.len() + 4;
        let name: http::HeaderName = name.parse().ok()?;
        response.headers_mut().append(name, value.parse().ok()?);
        Some(())
    };
    if let Some(fields) = answer["multiValueHeaders"].as_object() {
        for (name, values) in fields {
            for value in values.as_array()? {
                add(name, value.as_str()?)?;
            }
        }
    } else {
        for (name, value) in answer["headers"].as_object()? {
            add(name, value.as_str()?)?;
        }
    }
    (head <= 32 * 1024).then_some(response)
}
