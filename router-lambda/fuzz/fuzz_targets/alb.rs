//! Whatever a load balancer sends, it is a request that is one line of HTTP, or it is refused.
#![no_main]

use edit_router::lambda::alb::AlbRequest;
use http::uri::PathAndQuery;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|event: &[u8]| {
    let Ok(request) = AlbRequest::parse(event) else {
        return;
    };
    let target = request.head().target();
    assert!(target.starts_with('/'));
    assert!(
        target.bytes().all(|byte| byte > b' ' && byte != 0x7f),
        "{target:?}"
    );
    let read: PathAndQuery = target.parse().expect("it was judged");
    assert_eq!(read.as_str(), target);
    assert!(request.headers.len() <= relay::REQUEST_HEADERS_MAX);
    let _ = (
        request.visitor(),
        request.proto(),
        request.is_health_check(),
    );
});
