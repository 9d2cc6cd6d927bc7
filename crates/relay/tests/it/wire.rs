//! One end of a TCP connection, in plain text.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// The longest anything may take that is waited for. Nothing is expected to take more than milliseconds.
const PATIENCE: Duration = Duration::from_secs(10);

/// Waits for `future`, but not for ever.
pub(crate) async fn within<T>(what: impl fmt::Display, future: impl Future<Output = T>) -> T {
    let output = tokio::time::timeout(PATIENCE, future).await;
    output.unwrap_or_else(|_| panic!("waited {PATIENCE:?} for {what}"))
}

/// Waits until `condition` holds, looking again whenever other tasks have had their turn.
pub(crate) async fn eventually(what: impl fmt::Display, condition: impl Fn() -> bool) {
    within(what, async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

pub(crate) struct Wire {
    stream: TcpStream,
    /// Read but not yet asked for.
    ahead: Vec<u8>,
}

/// How a connection ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum End {
    Closed,
    Reset,
}

impl Wire {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let stream = within("a connection", TcpStream::connect(address))
            .await
            .expect("connect");
        Self::over(stream)
    }

    pub(crate) fn over(stream: TcpStream) -> Self {
        stream.set_nodelay(true).expect("nodelay");
        Self {
            stream,
            ahead: Vec::new(),
        }
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        within("a write", self.stream.write_all(bytes.as_ref()))
            .await
            .expect("write");
    }

    /// Writes as much as is taken, until nothing has been for `pause`. Says how much that was.
    pub(crate) async fn send_until_stuck(&mut self, limit: usize, pause: Duration) -> usize {
        let piece = vec![b'x'; 64 * 1024];
        let mut sent = 0;
        while sent < limit {
            match tokio::time::timeout(pause, self.stream.write(&piece)).await {
                Ok(count) => sent += count.expect("write"),
                Err(_) => break,
            }
        }
        sent
    }

    /// Ends the sending direction only.
    pub(crate) async fn finish_sending(&mut self) {
        self.stream.shutdown().await.expect("shutdown");
    }

    /// Ends both directions at once, as a process does that is killed with unread data.
    pub(crate) fn reset(self) {
        self.stream.set_zero_linger().expect("linger");
    }

    async fn read_more(&mut self) -> io::Result<usize> {
        within(
            format!("more than {:?}", self.so_far()),
            self.stream.read_buf(&mut self.ahead),
        )
        .await
    }

    fn so_far(&self) -> String {
        String::from_utf8_lossy(&self.ahead[self.ahead.len().saturating_sub(500)..]).into_owned()
    }

    /// Everything up to and including `mark`.
    pub(crate) async fn read_through(&mut self, mark: &str) -> String {
        loop {
            let found = self
                .ahead
                .windows(mark.len())
                .position(|window| window == mark.as_bytes());
            if let Some(start) = found {
                let taken: Vec<u8> = self.ahead.drain(..start + mark.len()).collect();
                return String::from_utf8_lossy(&taken).into_owned();
            }
            let count = self.read_more().await.expect("read");
            assert!(
                count > 0,
                "the connection ended before {mark:?}, after {:?}",
                self.so_far()
            );
        }
    }

    /// A request's or a response's head.
    pub(crate) async fn head(&mut self) -> Head {
        Head::parse(&self.read_through("\r\n\r\n").await)
    }

    /// A head, unless the connection ends without one.
    pub(crate) async fn head_or_end(&mut self) -> Option<Head> {
        loop {
            if self.ahead.windows(4).any(|window| window == b"\r\n\r\n") {
                return Some(self.head().await);
            }
            match self.read_more().await {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    pub(crate) async fn exactly(&mut self, count: usize) -> String {
        while self.ahead.len() < count {
            let read = self.read_more().await.expect("read");
            assert!(read > 0, "the connection ended, after {:?}", self.so_far());
        }
        String::from_utf8_lossy(&self.ahead.drain(..count).collect::<Vec<_>>()).into_owned()
    }

    /// The next chunk of a chunked body; the last one is empty, and its trailers are still to be read.
    pub(crate) async fn chunk(&mut self) -> String {
        let size = self.read_through("\r\n").await;
        let size = usize::from_str_radix(size.trim(), 16).expect("a chunk's size");
        if size == 0 {
            return String::new();
        }
        let data = self.exactly(size).await;
        assert_eq!(self.exactly(2).await, "\r\n", "after a chunk");
        data
    }

    /// A chunked body without trailers, in one piece.
    pub(crate) async fn chunked_body(&mut self) -> String {
        let mut body = String::new();
        loop {
            let chunk = self.chunk().await;
            if chunk.is_empty() {
                assert_eq!(self.exactly(2).await, "\r\n", "after the last chunk");
                return body;
            }
            body.push_str(&chunk);
        }
    }

    /// Everything that still comes, and how it ends.
    pub(crate) async fn rest(&mut self) -> (String, End) {
        let end = loop {
            match self.read_more().await {
                Ok(0) => break End::Closed,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => break End::Reset,
                Err(error) => panic!("read: {error}"),
            }
        };
        let rest = std::mem::take(&mut self.ahead);
        (String::from_utf8_lossy(&rest).into_owned(), end)
    }

    /// The other side has ended the connection, one way or the other, and said nothing more.
    pub(crate) async fn is_gone(&mut self) {
        let (rest, _) = self.rest().await;
        assert_eq!(rest, "", "said before the end");
    }
}

#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) start: String,
    fields: Vec<(String, String)>,
}

impl Head {
    fn parse(text: &str) -> Self {
        let mut lines = text.split("\r\n").take_while(|line| !line.is_empty());
        let start = lines.next().unwrap_or_default().to_owned();
        let fields = lines
            .map(|line| {
                line.split_once(": ")
                    .unwrap_or_else(|| panic!("a header line: {line:?}"))
            })
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        Self { start, fields }
    }

    pub(crate) fn status(&self) -> u16 {
        self.start
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok())
            .expect("a status line")
    }

    pub(crate) fn target(&self) -> &str {
        self.start.split(' ').nth(1).expect("a request line")
    }

    /// All values of a field, in order.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        self.fields
            .iter()
            .filter(|(field, _)| field == name)
            .map(|(_, value)| value.as_str())
            .collect()
    }

    /// The value of a field that is there at most once.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let all = self.all(name);
        assert!(all.len() <= 1, "{name} is there {} times", all.len());
        all.first().copied()
    }

    pub(crate) fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.fields.iter().map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        names
    }
}
