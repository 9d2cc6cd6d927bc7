//! What [`crate::Objects`] promises.

#![allow(
    clippy::missing_panics_doc,
    reason = "a case of a test suite says what is wrong by panicking"
)]

use tokio::task::JoinSet;

use super::ObjectsUnderTest;
use super::records::{client, session_id};
use crate::{KEY_MAX_BYTES, PortError};

/// Turns each case into a test.
#[macro_export]
macro_rules! objects_conformance {
    ($under_test:expr) => {
        $crate::conformance_cases! { objects, $under_test,
            an_object_is_read_as_it_was_put
            an_unknown_object_is_none
            an_object_is_put_in_place_of_the_one_before
            a_deleted_object_is_gone
            an_object_of_more_than_the_limit_is_refused
            a_key_that_no_backend_takes_is_refused
            an_object_is_named_without_the_capability_in_its_key
            whoever_reads_while_others_write_reads_one_whole_object
        }
    };
}

/// Every byte, whatever the key.
pub async fn an_object_is_read_as_it_was_put(under_test: &dyn ObjectsUnderTest) {
    let objects = under_test.fresh().await;
    let bytes: Vec<u8> = (0..=255).cycle().take(70_000).collect();
    for key in [
        "one",
        "amelia/2026/work.bundle",
        "Grüße an alle & mehr+?%20#.jpg",
    ] {
        objects.put(key, bytes.clone()).await.expect("put");
        let read = objects.get(key, 100_000).await.expect("get");
        assert!(read == Some(bytes.clone()), "{key} has other bytes");
    }
    objects.put("empty", Vec::new()).await.expect("put");
    assert_eq!(
        objects.get("empty", 0).await.expect("get"),
        Some(Vec::new())
    );
}

/// Not an error.
pub async fn an_unknown_object_is_none(under_test: &dyn ObjectsUnderTest) {
    let objects = under_test.fresh().await;
    objects.put("a/b", vec![1]).await.expect("put");
    for key in ["a", "a/c", "b"] {
        assert_eq!(objects.get(key, 9).await.expect("get"), None, "{key}");
    }
}

/// Nothing of which is left.
pub async fn an_object_is_put_in_place_of_the_one_before(under_test: &dyn ObjectsUnderTest) {
    let objects = under_test.fresh().await;
    objects.put("one", vec![1; 100]).await.expect("put");
    objects.put("one", vec![2; 3]).await.expect("put again");
    assert_eq!(
        objects.get("one", 100).await.expect("get"),
        Some(vec![2; 3])
    );
}

/// And may be deleted again.
pub async fn a_deleted_object_is_gone(under_test: &dyn ObjectsUnderTest) {
    let objects = under_test.fresh().await;
    objects.put("a/one", vec![1]).await.expect("put");
    objects.put("a/two", vec![2]).await.expect("put");
    objects.delete("a/one").await.expect("delete");
    objects.delete("a/one").await.expect("delete again");
    assert_eq!(objects.get("a/one", 9).await.expect("get"), None);
    assert_eq!(objects.get("a/two", 9).await.expect("get"), Some(vec![2]));
}

/// To the byte.
pub async fn an_object_of_more_than_the_limit_is_refused(under_test: &dyn ObjectsUnderTest) {
    let objects = under_test.fresh().await;
    objects.put("one", vec![1; 1_000]).await.expect("put");
    let whole = objects.get("one", 1_000).await.expect("get");
    assert_eq!(whole, Some(vec![1; 1_000]));
    let refused = objects.get("one", 999).await.expect_err("too large");
    assert!(matches!(refused, PortError::Refused { .. }), "{refused:?}");
    assert!(refused.to_string().contains("999"), "{refused}");
}

/// Above all those that lead out of the folder.
pub async fn a_key_that_no_backend_takes_is_refused(under_test: &dyn ObjectsUnderTest) {
    let objects = under_test.fresh().await;
    let long = "a".repeat(KEY_MAX_BYTES + 1);
    for key in [
        "", "/", "/a", "a/", "a//b", ".", "..", "../a", "a/../b", "a/./b", "a\\b", "a\0b", "a\nb",
        &long,
    ] {
        let answers = [
            objects.put(key, vec![1]).await,
            objects.delete(key).await,
            objects.get(key, 9).await.map(|_| ()),
        ];
        for answer in answers {
            let refused = answer.expect_err("no key");
            assert!(matches!(refused, PortError::Refused { .. }), "{refused:?}");
        }
    }
}

/// A bundle of a session has the session's id in its key.
pub async fn an_object_is_named_without_the_capability_in_its_key(
    under_test: &dyn ObjectsUnderTest,
) {
    let objects = under_test.fresh().await;
    let session = session_id(&client("amelia"), 1);
    let key = format!("amelia/{session}/7.bundle");
    objects.put(&key, vec![1; 10]).await.expect("put");
    let said = objects
        .get(&key, 9)
        .await
        .expect_err("too large")
        .to_string();
    assert!(!said.contains(session.label()), "{said}");
    assert!(said.contains(session.redacted()), "{said}");
}

/// Never a part of one, nor parts of two.
pub async fn whoever_reads_while_others_write_reads_one_whole_object(
    under_test: &dyn ObjectsUnderTest,
) {
    let objects = under_test.fresh().await;
    objects.put("one", vec![0; 50_000]).await.expect("put");
    let mut writers = JoinSet::new();
    for writer in 1..=8_u8 {
        let objects = objects.clone();
        writers.spawn(async move {
            let bytes = vec![writer; 50_000 + usize::from(writer)];
            objects.put("one", bytes).await.expect("put");
        });
    }
    while !writers.is_empty() {
        let read = objects.get("one", 100_000).await.expect("get");
        let read = read.expect("it is never gone");
        let writer = read[0];
        assert_eq!(read.len(), 50_000 + usize::from(writer));
        assert!(read.iter().all(|byte| *byte == writer));
        while let Some(done) = writers.try_join_next() {
            done.expect("no writer panics");
        }
    }
}
