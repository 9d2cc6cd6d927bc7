//! What [`crate::Secrets`] promises.

#![allow(
    clippy::missing_panics_doc,
    reason = "a case of a test suite says what is wrong by panicking"
)]

use super::SecretsUnderTest;
use crate::PortError;

/// Turns each case into a test.
#[macro_export]
macro_rules! secrets_conformance {
    ($under_test:expr) => {
        $crate::conformance_cases! { secrets, $under_test,
            a_secret_is_read_as_it_was_stored
            a_secret_is_not_shown
            a_secret_that_is_not_there_is_none
            what_is_no_reference_is_refused_and_not_repeated
        }
    };
}

/// With every line end: a key without its last one is no key.
pub async fn a_secret_is_read_as_it_was_stored(under_test: &dyn SecretsUnderTest) {
    let key = "-----BEGIN KEY-----\nGrüße+/=\n-----END KEY-----\n";
    for reference in under_test.store(key).await {
        let read = under_test.secrets().await.read(&reference).await;
        let read = read.expect("read").expect("stored");
        assert_eq!(read.expose(), key, "{reference}");
    }
}

/// Not even when somebody prints whatever has it.
pub async fn a_secret_is_not_shown(under_test: &dyn SecretsUnderTest) {
    for reference in under_test.store("hunter2").await {
        let read = under_test.secrets().await.read(&reference).await;
        let shown = format!("{read:?}");
        assert!(shown.contains("Secret(…)"), "{shown}");
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}

/// Not an error: the caller knows best what that means.
pub async fn a_secret_that_is_not_there_is_none(under_test: &dyn SecretsUnderTest) {
    for reference in under_test.missing().await {
        let read = under_test.secrets().await.read(&reference).await;
        assert_eq!(read.expect("read"), None, "{reference}");
    }
}

/// It may be the secret itself.
pub async fn what_is_no_reference_is_refused_and_not_repeated(under_test: &dyn SecretsUnderTest) {
    let secrets = under_test.secrets().await;
    for reference in [
        "",
        "hunter2",
        "env:",
        "env:hunter2=1",
        "file:",
        "ghp:hunter2",
        "-----BEGIN KEY hunter2-----",
    ] {
        let refused = secrets.read(reference).await.expect_err("no reference");
        assert!(matches!(refused, PortError::Refused { .. }), "{refused:?}");
        assert!(!refused.to_string().contains("hunter2"), "{refused}");
    }
}
