//! HTTP and WebSocket reverse proxy, used by the door (in front of the site) and by the gateway (in front of doors).
//!
//! ```text
//! caller's server ──request──▶ head ──▶ upload ──▶ pool ──▶ upstream
//!                 ◀─response── head ◀─────(body as it comes)────┘
//!                 ◀══════════════ tunnel ══════════════▶          (after the upstream's 101 only)
//! ```
//!
//! The caller has decided who may see what, and names one address per call; nothing here resolves a name, follows a
//! redirect, caches, rewrites a path or looks into a body. Both directions are streamed: nothing is kept but what the
//! sockets hold, and whoever is slow slows the other side down.
//!
//! What it promises:
//!
//! - **One reading of every message.** Heads are rebuilt (`head`): hop-by-hop fields and whatever `Connection` nominates are
//!   gone in both directions, `Host` and the length of the body are said once, `CONNECT` is refused, `Upgrade` passes only
//!   as part of a well-formed WebSocket handshake. Path and query go through byte for byte.
//! - **An incomplete response never looks complete.** When the upstream breaks off, the body ends in an error and the
//!   caller's server cuts the connection.
//! - **Whoever leaves is let go.** Dropping the future or the response's body ends the request at the upstream.
//! - **Sent twice only if it cannot matter**: a request of which nothing was sent, and a bodiless idempotent one that met
//!   a kept connection just as the upstream closed it; once, over a new connection.
//! - **Nothing is passed on before the caller has seen the head**, if it wants to: [`Relay::ask`] instead of [`Relay::forward`].
//! - **Limits**: [`Settings`], [`REQUEST_HEAD_MAX_BYTES`], [`REQUEST_HEADERS_MAX`], [`RESPONSE_HEAD_MAX_BYTES`] and
//!   [`RESPONSE_HEADERS_MAX`]. Each is a [`RelayError`] that says which.
//!
//! What it leaves to the caller's server: reading heads (hyper's limits and header timeout), answering 100 to
//! `Expect: 100-continue` (hyper does, when the body is first read), and upgrading its own connection
//! (`axum::serve` and `serve_connection_with_upgrades` do). Interim responses of the upstream (100, 103) are not passed on,
//! because hyper's server cannot send any.

mod connection;
mod error;
mod frames;
mod head;
mod pool;
mod settings;
mod tunnel;
mod upload;
mod upstream;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt as _;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use tokio::time::{Instant, timeout_at};

use connection::{Connection, Download, SendError};
use head::BodySize;
use pool::{Pool, Pools};
use tunnel::{Tunnel, Tunnels};
use upload::{Phase, Progress, Upload};

pub use error::{Refusal, RelayError, Violation, Wait};
pub use settings::{
    REQUEST_HEAD_MAX_BYTES, REQUEST_HEADERS_MAX, RESPONSE_HEAD_MAX_BYTES, RESPONSE_HEADERS_MAX,
    Settings,
};
pub use upstream::{Forwarded, HostPolicy, PoolKey, Proto, Upstream};

/// Any error of a body.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The body of a response, streamed from the upstream. `axum::body::Body::new` takes it.
pub type Body = UnsyncBoxBody<Bytes, BoxError>;

/// The relay: kept connections to upstreams, and the tunnels made of upgraded ones. Cheap to clone; all clones are one
/// relay. It has to be made and used within a tokio runtime.
#[derive(Clone)]
pub struct Relay {
    inner: Arc<Inner>,
}

struct Inner {
    settings: Arc<Settings>,
    pools: Pools,
    tunnels: Tunnels,
}

impl fmt::Debug for Relay {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Relay")
            .field("settings", &self.inner.settings)
            .field("open_tunnels", &self.open_tunnels())
            .finish_non_exhaustive()
    }
}

impl Relay {
    /// A relay with these limits. It connects to nothing yet.
    pub fn new(settings: Settings) -> Self {
        let settings = Arc::new(settings);
        let pools = Pools::new(Arc::clone(&settings));
        let tunnels = Tunnels::new(&settings);
        Self {
            inner: Arc::new(Inner {
                settings,
                pools,
                tunnels,
            }),
        }
    }

    /// Sends `request` to `upstream` and streams the answer back, whatever its status: [`ask`](Self::ask), for a caller that
    /// passes everything on.
    pub async fn forward<B>(
        &self,
        request: http::Request<B>,
        upstream: &Upstream,
    ) -> Result<http::Response<Body>, RelayError>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        self.ask(request, upstream).await.map(Answer::pass_on)
    }

    /// Sends `request` to `upstream` and returns with the head of the answer, whatever its status. Dropping the future before
    /// that, or the answer or its body after, ends the request at the upstream.
    ///
    /// A 101 is returned only for a WebSocket handshake that the upstream has accepted. No tunnel exists before it is passed
    /// on.
    pub async fn ask<B>(
        &self,
        request: http::Request<B>,
        upstream: &Upstream,
    ) -> Result<Answer, RelayError>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let Inner {
            settings,
            pools,
            tunnels,
        } = &*self.inner;
        let pool = pools.of(&upstream.pool_key);
        let (mut parts, body) = request.into_parts();
        let asked_for_head = parts.method == http::Method::HEAD;
        let size = BodySize::of(&body);
        let upgrade = parts.extensions.remove::<OnUpgrade>();
        let websocket =
            head::rewrite_request(&mut parts, size, settings.request_body_max, upstream)?;
        let handshake = if websocket {
            let client = upgrade.ok_or(RelayError::Refused(Refusal::NotUpgradable))?;
            Some((client, tunnels.slot(settings, &pool.slots)?))
        } else {
            None
        };

        let exchange = Exchange {
            address: upstream.address,
            settings,
            pools,
            websocket,
        };
        let answer = if size == BodySize::None {
            let again = parts.method.is_idempotent().then(|| parts.clone());
            let request = http::Request::from_parts(parts, Upload::none());
            match exchange.send(Some(&pool), request, None).await {
                Err(Failure {
                    kept_connection: true,
                    ..
                }) if let Some(parts) = again => {
                    let request = http::Request::from_parts(parts, Upload::none());
                    exchange.send(None, request, None).await
                }
                answer => answer,
            }
        } else {
            let (upload, progress) = Upload::of(body, size, settings.request_body_max);
            let request = http::Request::from_parts(parts, upload);
            exchange.send(Some(&pool), request, Some(&progress)).await
        };
        let (mut response, connection) = answer.map_err(|failure| failure.error)?;
        let upstream_upgrade = hyper::upgrade::on(&mut response);

        let (mut parts, incoming) = response.into_parts();
        let switched = head::rewrite_response(&mut parts, websocket, upstream.address)?;
        let (tunnel, body) = if switched && let Some((client, slot)) = handshake {
            let tunnel = Tunnel {
                client,
                upstream: upstream_upgrade,
                connection,
                slot,
                pool_key: upstream.pool_key.clone(),
                forgotten: Arc::clone(&pool.tunnels),
                settings: Arc::clone(settings),
            };
            (Some(tunnel), NoBody.boxed_unsync())
        } else {
            let download = Download::new(incoming, connection, pool);
            let body = if asked_for_head || has_no_body(parts.status) {
                // Nothing comes, so that the connection is free at once.
                drop(download);
                NoBody.boxed_unsync()
            } else {
                download.boxed_unsync()
            };
            (None, body)
        };
        Ok(Answer {
            response: http::Response::from_parts(parts, body),
            tunnel: tunnel.map(|tunnel| (Arc::clone(&self.inner), tunnel)),
        })
    }

    /// How many tunnels there are: those whose upstream has answered 101, and that have not ended.
    pub fn open_tunnels(&self) -> usize {
        self.inner.tunnels.open()
    }

    /// How many tunnels a pool has, those included whose upstream has not answered yet.
    pub fn open_tunnels_of(&self, pool_key: &PoolKey) -> usize {
        self.inner.pools.tunnels_of(pool_key)
    }

    /// Ends all tunnels: their clients are told that the server goes away (1001), at the next end of a frame, and nothing more
    /// is sent into them. Waits for their ends, at most until `deadline` has passed; a tunnel that cannot say it in time is cut.
    /// Tunnels opened afterwards are new ones: whoever wants none has to refuse their requests first.
    pub async fn close_tunnels(&self, deadline: Duration) {
        self.inner.tunnels.close(deadline).await;
    }

    /// Forgets a pool, because what it led to is no more: unused connections are closed, tunnels are ended, and requests in
    /// flight run to their end on connections that are not used again.
    pub fn forget(&self, pool_key: &PoolKey) {
        self.inner.pools.forget(pool_key);
    }
}

/// The head of an answer of which nothing has been passed on. Dropping it ends the request at the upstream: for a caller that
/// has found that it is not the one who should have answered.
#[must_use = "an answer that is dropped ends its request"]
pub struct Answer {
    response: http::Response<Body>,
    /// What a 101 becomes.
    tunnel: Option<(Arc<Inner>, Tunnel)>,
}

impl fmt::Debug for Answer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Answer")
            .field("status", &self.response.status())
            .finish_non_exhaustive()
    }
}

impl Answer {
    /// The status.
    pub fn status(&self) -> http::StatusCode {
        self.response.status()
    }

    /// The fields.
    pub fn headers(&self) -> &http::HeaderMap {
        self.response.headers()
    }

    /// The fields, for a caller that takes out its own.
    pub fn headers_mut(&mut self) -> &mut http::HeaderMap {
        self.response.headers_mut()
    }

    /// The response, which the caller sends to the client as it is. The tunnel of a 101 begins when the caller's server has
    /// upgraded the client's connection, and is given up if that does not happen within [`Settings::upgrade_timeout`].
    pub fn pass_on(self) -> http::Response<Body> {
        if let Some((relay, tunnel)) = self.tunnel {
            relay.tunnels.start(tunnel);
        }
        self.response
    }
}

/// One request on its way to one address.
struct Exchange<'relay> {
    address: SocketAddr,
    settings: &'relay Settings,
    pools: &'relay Pools,
    websocket: bool,
}

/// Why there is no answer.
struct Failure {
    error: RelayError,
    /// Whether a connection ended that had worked before: the upstream may have closed it before it saw the request.
    kept_connection: bool,
}

impl From<RelayError> for Failure {
    fn from(error: RelayError) -> Self {
        Self {
            error,
            kept_connection: false,
        }
    }
}

impl Exchange<'_> {
    /// Sends a request over a connection of this pool, or over a new one.
    async fn send(
        &self,
        pool: Option<&Pool>,
        request: http::Request<Upload>,
        progress: Option<&Progress>,
    ) -> Result<(http::Response<Incoming>, Connection), Failure> {
        in_time(
            self.over_some_connection(pool, request, progress),
            self.address,
            self.limit(),
            progress,
        )
        .await?
    }

    async fn over_some_connection(
        &self,
        pool: Option<&Pool>,
        mut request: http::Request<Upload>,
        progress: Option<&Progress>,
    ) -> Result<(http::Response<Incoming>, Connection), Failure> {
        loop {
            let kept = pool.and_then(|pool| pool.take(self.address));
            let connection = match kept {
                Some(connection) => connection,
                None => self.connect().await?,
            };
            match connection.send(request).await {
                Ok(answered) => return Ok(answered),
                // The upstream had closed it, and has seen nothing.
                Err(SendError {
                    unsent: Some(unsent),
                    had_answered: true,
                    ..
                }) => request = unsent,
                Err(failed) => return Err(self.failure(failed, progress)),
            }
        }
    }

    async fn connect(&self) -> Result<Connection, RelayError> {
        let address = self.address;
        let connecting = Connection::to(address, &self.pools.connector);
        connecting.await.map_err(|source| {
            if source.kind() == io::ErrorKind::TimedOut {
                RelayError::Timeout {
                    address,
                    wait: Wait::Connect,
                    limit: self.settings.connect_timeout,
                }
            } else {
                RelayError::Connect { address, source }
            }
        })
    }

    /// What is waited for, and how long.
    fn limit(&self) -> (Wait, Option<Duration>) {
        if self.websocket {
            (Wait::Upgrade, Some(self.settings.upgrade_timeout))
        } else {
            (Wait::ResponseHead, self.settings.response_head_timeout)
        }
    }

    /// hyper says little about what went wrong; the rest is in the chain of sources.
    fn failure(&self, failed: SendError, progress: Option<&Progress>) -> Failure {
        let address = self.address;
        let SendError {
            error,
            unsent,
            had_answered,
        } = failed;
        match progress.map(|progress| progress.read().0) {
            Some(Phase::TooLarge) => {
                let limit = self.settings.request_body_max.unwrap_or(u64::MAX);
                return RelayError::BodyTooLarge {
                    limit,
                    declared: false,
                }
                .into();
            }
            Some(Phase::Broken) => {
                return RelayError::RequestBody {
                    source: error.into(),
                }
                .into();
            }
            Some(Phase::Client | Phase::Upstream) | None => {}
        }
        if error.is_parse() {
            let what = Violation::Malformed;
            return RelayError::Protocol {
                address,
                what,
                source: Some(error.into()),
            }
            .into();
        }
        // The body was shorter than its `Content-Length`, and hyper closed the connection rather than pretend.
        if error.is_body_write_aborted() || error.is_user() {
            return RelayError::RequestBody {
                source: error.into(),
            }
            .into();
        }
        let sent = unsent.is_none() && !error.is_canceled();
        Failure {
            error: RelayError::Disconnected {
                address,
                sent,
                source: error.into(),
            },
            kept_connection: had_answered,
        }
    }
}

/// Waits for an answer. The clock starts anew whenever the request's body makes progress, so that a long upload is no slow
/// upstream.
async fn in_time<T>(
    answer: impl Future<Output = T>,
    address: SocketAddr,
    (wait, limit): (Wait, Option<Duration>),
    progress: Option<&Progress>,
) -> Result<T, RelayError> {
    let Some(limit) = limit else {
        return Ok(answer.await);
    };
    let mut answer = std::pin::pin!(answer);
    let mut deadline = settings::later(Instant::now(), limit);
    loop {
        if let Ok(answer) = timeout_at(deadline, &mut answer).await {
            return Ok(answer);
        }
        let mut wait = wait;
        if let Some(progress) = progress {
            let (phase, since) = progress.read();
            let extended = settings::later(since, limit);
            if extended > deadline {
                deadline = extended;
                continue;
            }
            if phase == Phase::Client {
                wait = Wait::RequestBody;
            }
        }
        return Err(RelayError::Timeout {
            address,
            wait,
            limit,
        });
    }
}

fn has_no_body(status: http::StatusCode) -> bool {
    matches!(
        status,
        http::StatusCode::NO_CONTENT | http::StatusCode::NOT_MODIFIED
    )
}

/// The body of a response that has none, such as one to `HEAD`. It does not claim to be of no *length*, because servers
/// (axum) make a `Content-Length: 0` of that, which would be a lie about the page.
struct NoBody;

impl http_body::Body for NoBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        true
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body::Body as _;
    use tokio::sync::mpsc;

    const LIMIT: Duration = Duration::from_secs(10);
    const NEARLY: Duration = Duration::from_secs(9);

    fn settings() -> Settings {
        Settings {
            response_head_timeout: Some(LIMIT),
            upgrade_timeout: LIMIT / 10,
            ..Settings::default()
        }
    }

    /// Waits for this as an exchange does.
    async fn in_time<T>(
        answer: impl Future<Output = T>,
        websocket: bool,
        progress: Option<&Progress>,
    ) -> Result<T, RelayError> {
        let settings = Arc::new(settings());
        let exchange = Exchange {
            address: SocketAddr::from(([127, 0, 0, 1], 80)),
            settings: &settings,
            pools: &Pools::new(Arc::clone(&settings)),
            websocket,
        };
        super::in_time(answer, exchange.address, exchange.limit(), progress).await
    }

    /// A body that the test writes, and the upload made of it.
    fn upload() -> (mpsc::Sender<Bytes>, Upload, Arc<Progress>) {
        struct Written(mpsc::Receiver<Bytes>);
        impl http_body::Body for Written {
            type Data = Bytes;
            type Error = BoxError;
            fn poll_frame(
                mut self: Pin<&mut Self>,
                context: &mut Context<'_>,
            ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
                self.0
                    .poll_recv(context)
                    .map(|piece| Some(Ok(Frame::data(piece?))))
            }
        }
        let (pieces, source) = mpsc::channel(1);
        let (upload, progress) = Upload::of(Written(source), BodySize::Unknown, None);
        (pieces, upload, progress)
    }

    async fn next_piece(upload: &mut Upload) -> Option<Bytes> {
        let frame =
            std::future::poll_fn(|context| Pin::new(&mut *upload).poll_frame(context)).await?;
        frame.ok()?.into_data().ok()
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_does_not_come_is_waited_for_as_long_as_it_may_take() {
        let started = Instant::now();
        let error = in_time(std::future::pending::<()>(), false, None)
            .await
            .unwrap_err();
        assert!(matches!(
            error,
            RelayError::Timeout {
                wait: Wait::ResponseHead,
                limit: LIMIT,
                ..
            }
        ));
        assert_eq!(started.elapsed().as_secs(), LIMIT.as_secs());

        let started = Instant::now();
        let error = in_time(std::future::pending::<()>(), true, None)
            .await
            .unwrap_err();
        assert!(matches!(
            error,
            RelayError::Timeout {
                wait: Wait::Upgrade,
                ..
            }
        ));
        assert_eq!(started.elapsed().as_secs(), LIMIT.as_secs() / 10);
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_upload_is_no_slow_upstream() {
        let (pieces, mut upload, progress) = upload();
        let started = Instant::now();
        let client = async {
            for _ in 0..10 {
                tokio::time::advance(NEARLY).await;
                pieces.send(Bytes::from_static(b"x")).await.unwrap();
            }
            drop(pieces);
        };
        let upstream = async {
            while next_piece(&mut upload).await.is_some() {}
            tokio::time::sleep(NEARLY).await;
            "answer"
        };
        let (answer, ()) = tokio::join!(in_time(upstream, false, Some(&progress)), client);
        assert_eq!(answer.unwrap(), "answer");
        assert!(started.elapsed() > NEARLY * 10);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_holds_up_an_upload_is_the_one_waited_for() {
        let (pieces, mut upload, progress) = upload();
        pieces.send(Bytes::from_static(b"x")).await.unwrap();
        let reads_all = async { while next_piece(&mut upload).await.is_some() {} };
        let error = in_time(reads_all, false, Some(&progress))
            .await
            .unwrap_err();
        assert!(matches!(
            error,
            RelayError::Timeout {
                wait: Wait::RequestBody,
                ..
            }
        ));

        pieces.send(Bytes::from_static(b"x")).await.unwrap();
        let reads_one = async {
            next_piece(&mut upload).await;
            std::future::pending::<()>().await;
        };
        let error = in_time(reads_one, false, Some(&progress))
            .await
            .unwrap_err();
        assert!(matches!(
            error,
            RelayError::Timeout {
                wait: Wait::ResponseHead,
                ..
            }
        ));
    }
}
