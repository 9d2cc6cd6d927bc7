//! An upstream that the test plays itself.

use std::net::SocketAddr;

use tokio::net::TcpListener;

use crate::wire::{Wire, within};

pub(crate) struct Upstream {
    listener: TcpListener,
    pub(crate) address: SocketAddr,
}

impl Upstream {
    pub(crate) async fn listen() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let address = listener.local_addr().expect("address");
        Self { listener, address }
    }

    /// The address of an upstream that is down: nothing listens there any more.
    pub(crate) async fn down() -> SocketAddr {
        Self::listen().await.address
    }

    pub(crate) async fn accept(&self) -> Wire {
        let (stream, _) = within("a connection of the relay", self.listener.accept())
            .await
            .expect("accept");
        Wire::over(stream)
    }

    /// Nobody has connected beyond those who were accepted. True only of what has happened before: call it when the client
    /// has its answer.
    pub(crate) async fn nobody_else_came(&self) {
        tokio::select! {
            biased;
            accepted = self.listener.accept() => panic!("somebody connected: {accepted:?}"),
            () = settle() => {}
        }
    }
}

/// Lets every task that can run do so, several times over.
async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}
