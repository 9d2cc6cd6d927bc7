//! One request to the dev server, on a connection of its own, as a visitor would make it.

use std::net::SocketAddr;

use http::header;
use http::response::Parts;
use http_body_util::Empty;
use hyper::body::{Bytes, Incoming};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// Asks, and has `read` read the answer. An error is what went wrong with the connection, in words.
pub(crate) async fn ask<T, F>(
    address: SocketAddr,
    path: &str,
    accept: &str,
    read: impl FnOnce(Parts, Incoming) -> F,
) -> Result<T, String>
where
    F: Future<Output = Result<T, String>>,
{
    let stream = TcpStream::connect(address)
        .await
        .map_err(|error| error.to_string())?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    let request = hyper::Request::get(path)
        .header(header::HOST, address.to_string())
        .header(header::ACCEPT, accept)
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    let answer = async {
        let response = sender
            .send_request(request)
            .await
            .map_err(|error| error.to_string())?;
        let (parts, body) = response.into_parts();
        read(parts, body).await
    };
    tokio::pin!(answer);
    tokio::select! {
        answer = &mut answer => answer,
        // The connection is driven here; it ends before the answer only if it breaks.
        ended = connection => match ended {
            Ok(()) => answer.await,
            Err(error) => Err(error.to_string()),
        },
    }
}
