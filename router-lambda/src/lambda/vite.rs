//! The part of the dev server in the browser, without its socket.
//!
//! A load balancer answers 400 to a socket for a function before the function hears of it. The dev server's own client then
//! asks for one every second, for good. So a page gets ours: the same names to import, styles put into the page as the dev
//! server wants them, and instead of a socket a question to the door every two seconds: has anything been shown since?

use bytes::Bytes;
use http::{HeaderValue, Method, Response, StatusCode, header};

use super::reads;

/// Where a page asks for it. The dev server puts no base before it.
const PATH: &str = "/@vite/client";
const CLIENT: &str = include_str!("vite_client.js");

/// Ours, if it is asked for.
pub(super) fn client(method: &Method, path: &str) -> Option<Response<Bytes>> {
    if path != PATH || !reads(method) {
        return None;
    }
    let body = if *method == Method::HEAD { "" } else { CLIENT };
    let mut response = Response::new(Bytes::from_static(body.as_bytes()));
    *response.status_mut() = StatusCode::OK;
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/javascript; charset=utf-8"),
    );
    // The next one may come through a gateway, and be the dev server's own.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Some(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_client_of_the_dev_server_is_replaced() {
        let names = [
            "ErrorOverlay",
            "createHotContext",
            "injectQuery",
            "removeStyle",
            "updateStyle",
        ];
        let client = client(&Method::GET, "/@vite/client").expect("ours");
        let text = std::str::from_utf8(client.body()).expect("a text");
        for name in names {
            assert!(
                text.contains(&format!("export function {name}("))
                    || text.contains(&format!("export const {name} =")),
                "{name} is imported by what Vite makes"
            );
        }
        assert!(!text.contains("WebSocket"));
        for (method, path) in [
            (Method::POST, "/@vite/client"),
            (Method::GET, "/@vite/env"),
            (Method::GET, "/@vite/client/"),
            (Method::GET, "/x/@vite/client"),
        ] {
            assert!(super::client(&method, path).is_none(), "{method} {path}");
        }
        assert!(
            super::client(&Method::HEAD, "/@vite/client")
                .expect("ours")
                .body()
                .is_empty()
        );
    }
}
