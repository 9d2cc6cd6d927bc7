//! Addresses are given to somebody else under load, and nobody sees anybody else's page.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use edit_router::router::Forward;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::support::door::{Door, Leaving, Manner, Who};
use crate::support::table::{Served, UNPROVEN, UNREACHABLE};
use crate::support::wire::within;

/// How often two sessions change places.
const RECYCLINGS: usize = 2_000;
/// Who looks at each of them meanwhile.
const VISITORS_EACH: usize = 8;
/// Recyclings between two of which the router's records are behind: the most that may happen before it hears of them.
const BEHIND_FOR: Duration = Duration::from_millis(2);

/// A visitor's connection is for so many pages, before it looks at a socket.
const PAGES_BETWEEN_SOCKETS: usize = 20;

const SWITCHED: &str = "HTTP/1.1 101";

/// What the visitors of all clients have seen.
#[derive(Default)]
struct Seen {
    own_pages: watch::Sender<usize>,
    own_sockets: AtomicUsize,
    excuses: AtomicUsize,
    foreign: AtomicUsize,
    stop: AtomicBool,
}

fn host(who: &Who) -> String {
    format!("edit.{}.example", who.client)
}

/// Looks at pages, again and again over one connection as a browser does, and has a socket now and then.
async fn visits(gateway: SocketAddr, who: Who, other: Who, seen: Arc<Seen>) {
    while !seen.stop.load(Ordering::Relaxed) {
        // A connection that is cut in the middle is one way of not showing somebody else's page.
        drop(looks(gateway, &who, &seen).await);
        drop(listens(gateway, &who, &other, &seen).await);
    }
}

async fn looks(gateway: SocketAddr, who: &Who, seen: &Seen) -> io::Result<()> {
    let mut stream = BufReader::new(TcpStream::connect(gateway).await?);
    for look in 0..PAGES_BETWEEN_SOCKETS {
        let request = format!("GET /{look} HTTP/1.1\r\nHost: {}\r\n\r\n", host(who));
        stream.write_all(request.as_bytes()).await?;
        let mut length = None;
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line).await? == 0 {
                return Ok(());
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length: ") {
                length = value.trim().parse().ok();
            }
            if line == "\r\n" {
                break;
            }
        }
        let mut body = vec![0; length.expect("an answer says its length")];
        let mut filled = 0;
        while filled < body.len() {
            let count = stream.read(&mut body[filled..]).await?;
            filled += count;
            // What came before the cut is looked at as well.
            if count == 0 {
                break;
            }
        }
        let body = String::from_utf8_lossy(&body[..filled]);
        if body == UNPROVEN || body == UNREACHABLE {
            seen.excuses.fetch_add(1, Ordering::Relaxed);
        } else if body == who.page() {
            seen.own_pages.send_modify(|pages| *pages += 1);
        } else if !who.page().starts_with(&*body) {
            seen.foreign.fetch_add(1, Ordering::Relaxed);
        }
    }
    Ok(())
}

async fn listens(gateway: SocketAddr, who: &Who, other: &Who, seen: &Seen) -> io::Result<()> {
    let mut stream = TcpStream::connect(gateway).await?;
    let request = format!(
        "GET /socket HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        host(who)
    );
    stream.write_all(request.as_bytes()).await?;
    let mut all = Vec::new();
    // A first word, or an excuse.
    while !all.ends_with(b"\n") && !all.ends_with(who.client.as_str().as_bytes()) {
        if stream.read_buf(&mut all).await? == 0 {
            break;
        }
    }
    stream.shutdown().await?;
    let ended = stream.read_to_end(&mut all).await;
    let all = String::from_utf8_lossy(&all);
    if all.starts_with(SWITCHED) && all.contains(who.client.as_str()) {
        seen.own_sockets.fetch_add(1, Ordering::Relaxed);
    }
    if all.contains(other.client.as_str()) {
        seen.foreign.fetch_add(1, Ordering::Relaxed);
    }
    ended.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_byte_of_another_client_is_seen_while_addresses_are_recycled() {
    let clients = [Who::new("amelia", 1), Who::new("bertram", 1)];
    let doors = [
        Door::at(
            "127.0.0.2:0".parse().expect("an address"),
            &clients[0],
            Manner::Honest,
        )
        .await,
        Door::at(
            "127.0.0.3:0".parse().expect("an address"),
            &clients[1],
            Manner::Honest,
        )
        .await,
    ];
    let served = Served::new().await;
    let leads = |who: &Who, door: &Door| {
        let row: Forward = who.at(door.address);
        served.table.leads(&host(who), row);
    };
    leads(&clients[0], &doors[0]);
    leads(&clients[1], &doors[1]);
    let seen = Arc::<Seen>::default();
    let mut visitors = JoinSet::new();
    let [amelia, bertram] = &clients;
    for (who, other) in [(amelia, bertram), (bertram, amelia)] {
        for _ in 0..VISITORS_EACH {
            let seen = Arc::clone(&seen);
            visitors.spawn(visits(served.address, who.clone(), other.clone(), seen));
        }
    }

    // Each time in a new generation every other time, as a session that was woken elsewhere; and in the same one, as a row that
    // is simply wrong.
    let mut generation = 1;
    for recycling in 1..=RECYCLINGS {
        let leaving = [Leaving::Stays, Leaving::Cut, Leaving::TakenOver][recycling % 3];
        if recycling % 2 == 0 {
            generation += 1;
        }
        let now = [
            Who::new("amelia", generation),
            Who::new("bertram", generation),
        ];
        let (first, second) = (&doors[recycling % 2], &doors[(recycling + 1) % 2]);
        first.is_given_to(&now[0], leaving);
        second.is_given_to(&now[1], leaving);
        // The records are behind.
        tokio::time::sleep(BEHIND_FOR).await;
        leads(&now[0], first);
        leads(&now[1], second);
        // And right for as long as it takes somebody to see a page.
        let mut pages = seen.own_pages.subscribe();
        let before = *pages.borrow_and_update();
        within(
            "a page of somebody's own",
            pages.wait_for(|pages| *pages > before),
        )
        .await
        .expect("the visitors go on");
    }
    seen.stop.store(true, Ordering::Relaxed);
    within("the visitors", async {
        while let Some(visitor) = visitors.join_next().await {
            visitor.expect("a visitor sees only what it may");
        }
    })
    .await;

    let count = |number: &AtomicUsize| number.load(Ordering::Relaxed);
    assert_eq!(count(&seen.foreign), 0, "foreign answers");
    let pages = *seen.own_pages.borrow();
    assert!(pages > RECYCLINGS, "{pages} pages");
    assert!(
        count(&seen.own_sockets) > 10,
        "{} sockets",
        count(&seen.own_sockets)
    );
    assert!(
        count(&seen.excuses) > RECYCLINGS / 10,
        "{} excuses",
        count(&seen.excuses)
    );
    assert!(
        served.table.unproven_doors() > RECYCLINGS / 10,
        "{} unproven",
        served.table.unproven_doors()
    );
}
