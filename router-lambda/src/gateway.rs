//! The gateway: the front end that carries bytes and sockets between visitors and doors.
//!
//! ```text
//!  visitor ─▶ line (limits) ─▶ asked (one reading) ─▶ router ─┬─ answer ─────────────────────────────────┐
//!                                                             └─ forward ─▶ doors (proof) ─▶ relay ─▶ door │
//!          ◀─ access (one line) ◀─ sent (counted) ◀───────────────────────────────────────────────────────┘
//! ```
//!
//! The router decides, and is asked for every request; nothing is decided here but what can be read of a request at all
//! (`asked`). Whatever a door says is passed on only after it has proven who it is (`doors`).
//!
//! Stopping has one order: nobody new is let in; requests under way end, and their answers say `Connection: close`; sockets
//! are told that the server goes away; what has not ended when the time is over is cut, and counted.
//!
//! Somebody who names the gateway by an address, as a load balancer's health check does, asks the gateway itself:
//! `GET /_edit/health` is 200 while it takes visitors, and 503 while it stops.

pub(crate) mod access;
mod asked;
mod decides;
mod doors;
mod sent;
mod sockets;
mod turn;

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use contract::Timestamp;
use http::header::{CACHE_CONTROL, CONNECTION, CONTENT_TYPE};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use ipnet::IpNet;
use relay::Relay;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use access::Record;
use asked::{Asked, Refused};
use doors::{Doors, Failed};
use sent::{Sent, Source};
use sockets::Sockets;
use turn::{Limits, Line, Turn};

use crate::router::{Left, Outcome, Told};

pub use decides::Decides;

/// What a load balancer asks of the gateway itself.
const HEALTH: &str = "/_edit/health";

/// After a connection could not be accepted, most often because there are no more file descriptors: an end of others is
/// waited for, rather than asking the system without a pause.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Visitors that are refused at the door at a time, and how long that may take: whoever cannot be told is cut.
const REFUSALS_MAX: usize = 64;
const REFUSAL_MAX: Duration = Duration::from_secs(1);
const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 5\r\n\
    Content-Type: text/plain; charset=utf-8\r\nContent-Length: 43\r\n\r\nToo many visitors. Come again in a moment.\n";

/// How and how much. [`Settings::default`] is the gateway in production, behind an ALB.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where to listen; port 0 is any.
    pub address: SocketAddr,
    /// The hops whose `X-Forwarded-For` and `X-Forwarded-Proto` are believed: the networks of the load balancer. Default: none.
    pub trusted_hops: Vec<IpNet>,
    /// The longest a request's head may take from its first byte to its last. Default: 15 s.
    pub head_timeout: Duration,
    /// How long a connection stays open on which nothing is asked. Default: 75 s, longer than the 60 s of an ALB: who closes
    /// first has to be the one who asks.
    pub quiet_timeout: Duration,
    /// The longest a visitor may take nothing of what it is sent. Default: 2 min, a laptop that was closed for a moment.
    pub stalled_timeout: Duration,
    /// The most connections of visitors at a time, sockets not counted. Default: 8,192; with the sockets, and as many
    /// connections to doors, less than the 65,535 files of a Fargate task.
    pub connections_max: usize,
    /// The most sockets at a time. Default: 10,000.
    pub sockets_max: usize,
    /// The most sockets of a session at a time. Default: 64, a great many tabs.
    pub sockets_per_session_max: usize,
    /// How often the right to have a socket is looked at again. Default: 30 s.
    pub look_again: Duration,
    /// How long requests that are under way may take once the gateway stops. Default: 20 s, less than the 30 s that ECS waits.
    pub drain: Duration,
    /// The limits of what is carried; the most tunnels are said above.
    pub relay: relay::Settings,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            address: SocketAddr::from(([0, 0, 0, 0], 8080)),
            trusted_hops: Vec::new(),
            head_timeout: Duration::from_secs(15),
            quiet_timeout: Duration::from_secs(75),
            stalled_timeout: Duration::from_mins(2),
            connections_max: 8_192,
            sockets_max: 10_000,
            sockets_per_session_max: 64,
            look_again: Duration::from_secs(30),
            drain: Duration::from_secs(20),
            relay: relay::Settings::default(),
        }
    }
}

/// A gateway that listens, and serves nobody yet.
pub struct Gateway<R> {
    listener: TcpListener,
    address: SocketAddr,
    inner: Arc<Inner<R>>,
}

impl<R> fmt::Debug for Gateway<R> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Gateway")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

/// How a gateway has stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drained {
    /// The visitors' connections that had not ended in time, and were cut.
    pub connections_cut: usize,
}

struct Inner<R> {
    settings: Settings,
    router: R,
    doors: Doors,
    sockets: Sockets,
    connections: Arc<Semaphore>,
    refusals: Arc<Semaphore>,
    stop: CancellationToken,
    /// What has not ended by then is cut.
    cut: CancellationToken,
}

impl<R: Decides> Gateway<R> {
    /// Listens. Visitors wait until it serves.
    pub async fn bind(settings: Settings, router: R) -> io::Result<Self> {
        let listener = TcpListener::bind(settings.address).await?;
        Self::on(listener, settings, router)
    }

    /// Serves on what listens already, for whoever has to know the port first. Where to listen is not looked at.
    pub fn on(listener: TcpListener, settings: Settings, router: R) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let relay = Relay::new(relay::Settings {
            tunnels_max: settings.sockets_max,
            tunnels_per_pool_max: settings.sockets_per_session_max,
            ..settings.relay.clone()
        });
        let connections_max = settings.connections_max.min(Semaphore::MAX_PERMITS);
        let inner = Inner {
            router,
            doors: Doors::new(relay),
            sockets: Sockets::default(),
            connections: Arc::new(Semaphore::new(connections_max)),
            refusals: Arc::new(Semaphore::new(REFUSALS_MAX)),
            stop: CancellationToken::new(),
            cut: CancellationToken::new(),
            settings,
        };
        Ok(Self {
            listener,
            address,
            inner: Arc::new(inner),
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop`, and then until what was under way has ended or was cut.
    pub async fn serve(self, stop: CancellationToken) -> Drained {
        let Self {
            listener, inner, ..
        } = self;
        let visitors = TaskTracker::new();
        {
            let mut looks_again = pin!(inner.look_again());
            loop {
                tokio::select! {
                    biased;
                    () = stop.cancelled() => break,
                    never = &mut looks_again => match never {},
                    accepted = listener.accept() => match accepted {
                        Ok((stream, peer)) => Inner::let_in(&inner, stream, peer.ip(), &visitors),
                        Err(error) => {
                            tracing::warn!(%error, "a visitor's connection could not be accepted");
                            sleep(ACCEPT_PAUSE).await;
                        }
                    },
                }
            }
        }
        drop(listener);
        inner.drain(&visitors).await
    }
}

impl<R: Decides> Inner<R> {
    fn let_in(inner: &Arc<Self>, stream: TcpStream, peer: IpAddr, visitors: &TaskTracker) {
        if let Ok(place) = Arc::clone(&inner.connections).try_acquire_owned() {
            drop(visitors.spawn(Arc::clone(inner).converse(stream, peer, place)));
        } else {
            tracing::warn!(
                max = inner.settings.connections_max,
                "a visitor was refused: there are too many"
            );
            if let Ok(place) = Arc::clone(&inner.refusals).try_acquire_owned() {
                drop(visitors.spawn(refuse_at_the_door(stream, place)));
            }
        }
    }

    /// Serves one connection to its end.
    async fn converse(
        self: Arc<Self>,
        stream: TcpStream,
        peer: IpAddr,
        place: OwnedSemaphorePermit,
    ) {
        // An HMR message is small and alone: it must not wait for more to go with it.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "a connection keeps Nagle's algorithm");
        }
        let limits = Limits {
            quiet: self.settings.quiet_timeout,
            head: self.settings.head_timeout,
            stalled: self.settings.stalled_timeout,
        };
        let (line, turn) = Line::over(stream, limits);
        let service = service_fn(|request| {
            let (inner, turn) = (Arc::clone(&self), Arc::clone(&turn));
            async move { Ok::<_, Infallible>(inner.answer(request, peer, turn).await) }
        });
        let connection = http1::Builder::new()
            // As much as is passed on. What is larger is answered 431 by hyper, as is a head of more than 100 lines.
            .max_buf_size(relay::REQUEST_HEAD_MAX_BYTES)
            // The limits are the line's.
            .header_read_timeout(None)
            .serve_connection(TokioIo::new(line), service)
            .with_upgrades();
        let mut connection = pin!(connection);
        let stopped = tokio::select! {
            ended = connection.as_mut() => Some(ended),
            () = self.stop.cancelled() => None,
        };
        let ended = match stopped {
            Some(ended) => ended,
            None => {
                connection.as_mut().graceful_shutdown();
                tokio::select! {
                    ended = connection => ended,
                    () = self.cut.cancelled() => return,
                }
            }
        };
        drop(place);
        if let Err(error) = ended {
            note_the_end(&error);
        }
    }

    /// Answers one request.
    async fn answer(
        &self,
        request: Request<Incoming>,
        peer: IpAddr,
        turn: Arc<Turn>,
    ) -> Response<Sent> {
        turn.asked();
        let mut record = Record::of(&request);
        let response = match self.decide(request, peer, &mut record).await {
            Ok(response) => response,
            Err(Refused { status, why }) => {
                record.because(why);
                plain(status, why)
            }
        };
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            turn.upgraded();
        }
        Sent::response(response, record, turn)
    }

    async fn decide(
        &self,
        request: Request<Incoming>,
        peer: IpAddr,
        record: &mut Record,
    ) -> Result<Response<Source>, Refused> {
        let asked = Asked::judge(
            request.method(),
            request.uri(),
            request.version(),
            request.headers(),
            peer,
            &self.settings.trusted_hops,
        )?;
        if asked.is_by_address && asked.head().path == HEALTH {
            return Ok(self.health());
        }
        let head = asked.head();
        if head.is_upgrade() && self.stop.is_cancelled() {
            return Err(Refused {
                status: StatusCode::SERVICE_UNAVAILABLE,
                why: "This gateway stops. Ask again, and another one answers.",
            });
        }
        let forward = match self.router.handle(&head, Timestamp::now()).await {
            Outcome::Answer(response) => return Ok(self.told(response, record)),
            Outcome::Forward(forward) => forward,
        };
        record.belongs_to(&forward);
        let failed = match self.doors.ask(&asked, &forward, request).await {
            Ok(answer) => {
                if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
                    self.sockets.note(&forward);
                }
                return Ok(answer.pass_on().map(Source::Door));
            }
            Err(failed) => failed,
        };
        record.because(failed.why());
        let now = Timestamp::now();
        let response = match failed {
            Failed::Unproven(_) => self.router.unproven(&head, &forward, now).await,
            Failed::Unreachable(error) => {
                self.router.unreachable(&head, &forward, &error, now).await
            }
            Failed::Visitor(error) => {
                let (status, words) = doors::words(&error);
                return Ok(plain(status, words));
            }
        };
        Ok(self.told(response, record))
    }

    /// The router's own answer, without what it says to us only.
    fn told(&self, mut response: Response<Bytes>, record: &mut Record) -> Response<Source> {
        if let Some(told) = response.extensions_mut().remove::<Told>() {
            record.told(told);
        }
        if let Some(Left(pool)) = response.extensions_mut().remove::<Left>() {
            self.doors.forget(&pool);
        }
        own(response)
    }

    fn health(&self) -> Response<Source> {
        if self.stop.is_cancelled() {
            plain(StatusCode::SERVICE_UNAVAILABLE, "stopping")
        } else {
            plain(StatusCode::OK, "ok")
        }
    }

    /// Looks after the sockets, for ever.
    async fn look_again(&self) -> Infallible {
        loop {
            sleep(self.settings.look_again).await;
            for forward in self.sockets.doors() {
                if self.doors.sockets(&forward) == 0 {
                    self.sockets.forget(&forward);
                } else if !self.router.still(&forward, Timestamp::now()).await {
                    tracing::info!(
                        client = %forward.client,
                        session = forward.session.redacted(),
                        generation = %forward.generation,
                        sockets = self.doors.sockets(&forward),
                        "sockets are closed: the session is not live in this generation"
                    );
                    self.doors.forget(&forward.pool);
                    self.sockets.forget(&forward);
                }
            }
        }
    }

    /// Lets what is under way come to its end.
    async fn drain(&self, visitors: &TaskTracker) -> Drained {
        let limit = self.settings.drain;
        let deadline = Instant::now() + limit;
        tracing::info!(
            connections = visitors.len(),
            sockets = self.doors.all_sockets(),
            "the gateway stops"
        );
        self.stop.cancel();
        visitors.close();
        let all_ended = timeout_at(deadline, visitors.wait());
        let ((), ended) = tokio::join!(self.doors.close_sockets(limit), all_ended);
        let connections_cut = if ended.is_ok() { 0 } else { visitors.len() };
        if connections_cut > 0 {
            tracing::warn!(
                connections_cut,
                "connections did not end in time, and are cut"
            );
        }
        self.cut.cancel();
        visitors.wait().await;
        // Those whose 101 was on its way when the others were closed.
        self.doors.close_sockets(REFUSAL_MAX).await;
        Drained { connections_cut }
    }
}

/// What hyper has answered itself is written down too, as far as it is known.
fn note_the_end(error: &hyper::Error) {
    if error.is_parse() {
        let status = if error.is_parse_too_large() {
            431_u16
        } else {
            400
        };
        tracing::info!(target: "access", status, why = %error, "a request that cannot be read");
    } else {
        tracing::debug!(
            error = error as &dyn std::error::Error,
            "a visitor's connection ended"
        );
    }
}

/// Tells somebody for whom there is no place that there is none. The request is not read, but waited for: closing a connection
/// with something unread takes back what was said.
async fn refuse_at_the_door(mut stream: TcpStream, place: OwnedSemaphorePermit) {
    let told = async {
        stream.write_all(FULL).await?;
        stream.shutdown().await?;
        let mut unread = [0; 1024];
        while stream.read(&mut unread).await? > 0 {}
        Ok::<_, io::Error>(())
    };
    if let Ok(Err(error)) = timeout(REFUSAL_MAX, told).await {
        tracing::debug!(%error, "a refused visitor was not told");
    }
    drop(place);
}

fn own(response: Response<Bytes>) -> Response<Source> {
    response.map(|body| Source::Own(Full::new(body)))
}

/// A sentence of the gateway's own.
fn plain(status: StatusCode, words: &str) -> Response<Source> {
    let mut response = Response::new(Bytes::from(format!("{words}\n")));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // Whatever still comes of a request that was refused is not looked at.
    if status.is_client_error() || status.is_server_error() {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    own(response)
}
