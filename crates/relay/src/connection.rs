//! One connection to an upstream, driven by whoever uses it.
//!
//! ```text
//!             ┌──────────────── one task: the exchange, then the response's body, or the tunnel ────────────────┐
//!   request ─▶│ sender ─▶ dispatcher ─▶ socket                       socket ─▶ dispatcher ─▶ response, its body  │
//!             └──────────────────────────────────────────────────────────────────────────────────────────────────┘
//!               between two exchanges nobody drives it: it lies in its pool, and is looked at when it is taken out
//! ```
//!
//! hyper hands a request to the dispatcher through a channel, and a dispatcher that finds its connection closed in the very
//! moment in which a request is put there leaves it in it: nobody answers, and nobody says so (seen once in some ten thousand
//! requests to upstreams that close at once). Where both are one task there is no such moment. Nor is a task woken for every
//! piece that passes.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};

use crate::BoxError;
use crate::pool::{Connector, Pool};
use crate::settings::RESPONSE_HEAD_MAX_BYTES;
use crate::upload::Upload;

/// What hyper does of a connection by itself: ready when it has ended.
type Dispatcher = Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>;

/// A connection to an upstream.
pub(crate) struct Connection {
    sender: SendRequest<Upload>,
    /// None once it has ended.
    dispatcher: Option<Dispatcher>,
    pub(crate) address: SocketAddr,
    /// Whether it has carried a response already. Only such a one can have been closed for idleness while a request was on its
    /// way to it; a fresh one that ends unanswered is an upstream that does not want the request.
    pub(crate) has_answered: bool,
}

/// Why there is no answer.
pub(crate) struct SendError {
    pub(crate) error: hyper::Error,
    /// The request, if nothing of it was sent.
    pub(crate) unsent: Option<Request<Upload>>,
    pub(crate) had_answered: bool,
}

impl Connection {
    /// Connects.
    pub(crate) async fn to(address: SocketAddr, connector: &Connector) -> io::Result<Self> {
        let stream = connector.connect(address).await?;
        let (sender, connection) = http1::Builder::new()
            // RESPONSE_HEADERS_MAX is hyper's default, which it keeps on the stack; a number said here goes on the heap.
            .max_buf_size(RESPONSE_HEAD_MAX_BYTES)
            .handshake(stream)
            .await
            .map_err(io::Error::other)?;
        Ok(Self {
            sender,
            dispatcher: Some(Box::pin(connection.with_upgrades())),
            address,
            has_answered: false,
        })
    }

    /// Sends a request and waits for the head of its answer.
    pub(crate) async fn send(
        mut self,
        request: Request<Upload>,
    ) -> Result<(Response<Incoming>, Self), SendError> {
        let mut answer = Box::pin(self.sender.try_send_request(request));
        let answer = std::future::poll_fn(|context| {
            self.drive(context);
            answer.as_mut().poll(context)
        })
        .await;
        match answer {
            Ok(response) => {
                self.has_answered = true;
                Ok((response, self))
            }
            Err(mut failed) => Err(SendError {
                unsent: failed.take_message(),
                error: failed.into_error(),
                had_answered: self.has_answered,
            }),
        }
    }

    /// Lets it do what it can. How it ends is heard by whoever waits for what it carries.
    fn drive(&mut self, context: &mut Context<'_>) {
        if let Some(dispatcher) = &mut self.dispatcher
            && dispatcher.as_mut().poll(context).is_ready()
        {
            self.dispatcher = None;
        }
    }

    /// Drives it to its end, which is where a connection that is upgraded is handed over.
    pub(crate) async fn end(mut self) {
        if let Some(dispatcher) = self.dispatcher.take()
            && let Err(error) = dispatcher.await
        {
            tracing::debug!(%error, "a connection to an upstream broke");
        }
    }

    /// Whether a request can be sent over it, as far as can be seen without waiting.
    pub(crate) fn is_usable(&mut self) -> bool {
        // Whoever takes it out will drive it, and asks to be woken then.
        self.drive(&mut Context::from_waker(Waker::noop()));
        self.dispatcher.is_some() && self.sender.is_ready()
    }
}

/// The body of a response, and the connection over which it comes. When it has come to its end the connection goes back into
/// its pool; if it is dropped before, the connection ends.
pub(crate) struct Download {
    incoming: Incoming,
    connection: Option<Connection>,
    pool: Arc<Pool>,
    ended: bool,
}

impl Download {
    pub(crate) fn new(incoming: Incoming, connection: Connection, pool: Arc<Pool>) -> Self {
        Self {
            incoming,
            connection: Some(connection),
            pool,
            ended: false,
        }
    }
}

impl http_body::Body for Download {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        let mut polled = Pin::new(&mut this.incoming).poll_frame(context);
        if polled.is_pending()
            && let Some(connection) = &mut this.connection
        {
            connection.drive(context);
            polled = Pin::new(&mut this.incoming).poll_frame(context);
        }
        this.ended = matches!(polled, Poll::Ready(None));
        polled.map_err(Into::into)
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take()
            && (self.ended || self.incoming.is_end_stream())
        {
            self.pool.put(connection);
        }
    }
}
