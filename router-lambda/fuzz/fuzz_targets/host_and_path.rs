//! Whatever a host and a path are, they are read without a panic, and a landing stays on its host.
#![no_main]

use edit_router::host::{Host, Place};
use edit_router::path::{PathKind, landing};
use edit_router::policy::{Policy, Public};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|asked: (&str, &str, Option<&str>)| {
    let (host, path, query) = asked;
    let policy = Policy {
        edit_domain: "example.com".to_owned(),
        preview_domain: Some("preview.example.com".to_owned()),
        networks: Vec::new(),
        door_port: None,
        public: Public {
            proto: relay::Proto::Https,
            port: None,
        },
    };
    if let Ok(host) = Host::parse(host) {
        let _ = Place::of(&host.name, &policy);
    }
    if let PathKind::Entry { rest, .. } = PathKind::of(path)
        && let Some(to) = landing(rest, query)
    {
        assert!(
            to.starts_with('/') && !to.starts_with("//") && !to.contains('\\'),
            "{to:?}"
        );
        assert!(to.bytes().all(|byte| byte.is_ascii_graphic()));
    }
});
