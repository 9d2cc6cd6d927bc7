//! Whose turn it is on a visitor's connection, and how long that may take.
//!
//! ```text
//!            first byte of a head        head complete            answer has ended
//!   quiet ────────────────────────▶ asks ────────────▶ answered ───────────────────▶ quiet
//!     │ 75 s: closed                  │ 15 s: 408         │ nothing taken for 2 min: cut
//!     ▼                               ▼                   └──────────▶ a socket: the relay's limits
//! ```
//!
//! hyper has one limit for a quiet connection and for a slow head, and says nothing when it is passed; a connection that is
//! kept for a load balancer has to stay open longer than a head may take.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until};

/// What a visitor hears whose head does not come to an end.
const TOO_SLOW: &[u8] =
    b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";

/// How long each turn may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// A connection on which nothing is asked.
    pub(super) quiet: Duration,
    /// A head, from its first byte to its last.
    pub(super) head: Duration,
    /// A visitor that takes nothing of what is sent.
    pub(super) stalled: Duration,
}

/// Whose turn it is. Shared by the connection and by whoever answers on it.
#[derive(Debug)]
pub(super) struct Turn(Mutex<(Phase, Instant)>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Quiet,
    Asks,
    Answered,
    Socket,
}

impl Turn {
    fn new() -> Self {
        Self(Mutex::new((Phase::Quiet, Instant::now())))
    }

    /// A request's head is complete.
    pub(super) fn asked(&self) {
        self.set(Phase::Answered);
    }

    /// The answer has ended.
    pub(super) fn answered(&self) {
        if self.read().0 != Phase::Socket {
            self.set(Phase::Quiet);
        }
    }

    /// The connection becomes a socket.
    pub(super) fn upgraded(&self) {
        self.set(Phase::Socket);
    }

    fn set(&self, phase: Phase) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = (phase, Instant::now());
    }

    fn read(&self) -> (Phase, Instant) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A visitor's connection, with its limits.
#[derive(Debug)]
pub(super) struct Line {
    stream: TcpStream,
    turn: Arc<Turn>,
    limits: Limits,
    /// Since when the visitor has taken nothing; none while it takes.
    stalled_since: Option<Instant>,
    /// Set when it is first needed, and put off only when it rings: most turns end long before.
    clock: Option<Pin<Box<Sleep>>>,
}

impl Line {
    /// A connection that is quiet yet.
    pub(super) fn over(stream: TcpStream, limits: Limits) -> (Self, Arc<Turn>) {
        let turn = Arc::new(Turn::new());
        let line = Self {
            stream,
            turn: Arc::clone(&turn),
            limits,
            stalled_since: None,
            clock: None,
        };
        (line, turn)
    }

    /// Ready when `deadline` has passed.
    fn passed(&mut self, deadline: Instant, context: &mut Context<'_>) -> Poll<()> {
        let clock = self
            .clock
            .get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if clock.deadline() > deadline {
            clock.as_mut().reset(deadline);
        }
        loop {
            ready!(clock.as_mut().poll(context));
            if clock.deadline() >= deadline {
                return Poll::Ready(());
            }
            clock.as_mut().reset(deadline);
        }
    }

    /// What a write came to. One that is put off has to go on within the limit.
    fn written<T>(
        &mut self,
        result: Poll<io::Result<T>>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        if result.is_ready() {
            self.stalled_since = None;
            return result;
        }
        let since = *self.stalled_since.get_or_insert_with(Instant::now);
        if self.turn.read().0 == Phase::Socket {
            return Poll::Pending;
        }
        let deadline = since + self.limits.stalled;
        ready!(self.passed(deadline, context));
        Poll::Ready(Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "the visitor takes nothing of what is sent",
        )))
    }
}

impl AsyncRead for Line {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let filled = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        let (phase, since) = self.turn.read();
        if read.is_ready() {
            if phase == Phase::Quiet && buffer.filled().len() > filled {
                self.turn.set(Phase::Asks);
            }
            return read;
        }
        match phase {
            Phase::Quiet => {
                let deadline = since + self.limits.quiet;
                ready!(self.passed(deadline, context));
                // As if the visitor had closed: there is nothing to be said.
                Poll::Ready(Ok(()))
            }
            Phase::Asks => {
                let deadline = since + self.limits.head;
                ready!(self.passed(deadline, context));
                // What of an earlier answer is still to be sent would be broken in two.
                if self.stalled_since.is_none()
                    && let Err(error) = self.stream.try_write(TOO_SLOW)
                {
                    tracing::debug!(%error, "a slow visitor was not told");
                }
                Poll::Ready(Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "the head of the request did not come to its end",
                )))
            }
            Phase::Answered | Phase::Socket => Poll::Pending,
        }
    }
}

impl AsyncWrite for Line {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, data);
        self.written(written, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, data);
        self.written(written, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // hyper does not read again before something has come, but it flushes after each answer.
        if let (Phase::Quiet, since) = self.turn.read() {
            let deadline = since + self.limits.quiet;
            if self.passed(deadline, context).is_ready() {
                context.waker().wake_by_ref();
            }
        }
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
