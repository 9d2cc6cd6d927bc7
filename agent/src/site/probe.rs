//! Asks the dev server for a page, as a visitor would.

use std::net::SocketAddr;
use std::time::Duration;

use http_body_util::{BodyExt as _, Limited};
use hyper::body::Bytes;

use super::{Addresses, SiteProblem, request};

/// Bytes of a page that are read at the most.
const PAGE_MAX_BYTES: usize = 4 * 1024 * 1024;

/// What answered.
#[derive(Debug)]
pub(crate) enum Answer {
    /// Our dev server, with a page; `problem` if it was an error page, or none came in time.
    Page {
        /// Where.
        address: SocketAddr,
        /// What is wrong.
        problem: Option<SiteProblem>,
    },
    /// Somebody else.
    Stranger {
        /// Where.
        address: SocketAddr,
    },
}

/// Checks that `boot`'s process owns the port, and asks it for the front page. A site with a base answers below that only.
pub(crate) async fn first_page(
    address: SocketAddr,
    addresses: &Addresses,
    boot: &str,
    time: Duration,
) -> Answer {
    // The nonce is first: a stranger's page proves nothing.
    match get(address, &addresses.below_base("/__edit-agent/boot"), time).await {
        Ok((200, body)) if body == boot.as_bytes() => {}
        Ok(_) => return Answer::Stranger { address },
        Err(why) => {
            return Answer::Page {
                address,
                problem: Some(SiteProblem {
                    message: format!("the dev server does not answer: {why}"),
                    ..SiteProblem::default()
                }),
            };
        }
    }
    let problem = match get(address, &addresses.of("/"), time).await {
        Ok((status, _)) if status < 500 => None,
        Ok((status, body)) => Some(SiteProblem {
            message: format!("the front page answers {status}"),
            hint: title(&body),
            ..SiteProblem::default()
        }),
        Err(why) => Some(SiteProblem {
            message: format!("the front page does not answer: {why}"),
            ..SiteProblem::default()
        }),
    };
    Answer::Page { address, problem }
}

async fn get(address: SocketAddr, path: &str, time: Duration) -> Result<(u16, Bytes), String> {
    let asked = request::ask(address, path, "text/html", async |parts, body| {
        let body = Limited::new(body, PAGE_MAX_BYTES)
            .collect()
            .await
            .map_err(|error| error.to_string())?;
        Ok((parts.status.as_u16(), body.to_bytes()))
    });
    tokio::time::timeout(time, asked)
        .await
        .map_err(|_| format!("no answer within {} s", time.as_secs()))?
}

/// The title of an error page.
fn title(body: &[u8]) -> Option<String> {
    let body = String::from_utf8_lossy(&body[..body.len().min(8192)]).into_owned();
    let (_, rest) = body.split_once("<title>")?;
    Some(
        rest.split_once("</title>")?
            .0
            .trim()
            .chars()
            .take(200)
            .collect(),
    )
}
