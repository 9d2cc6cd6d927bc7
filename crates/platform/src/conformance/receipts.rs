//! What [`crate::Receipts`] promises.

#![allow(
    clippy::missing_panics_doc,
    reason = "a case of a test suite says what is wrong by panicking"
)]

use std::time::Duration;

use contract::{Receipt, Status};
use tokio::task::JoinSet;

use super::records::{client, dawn, instruction, receipt, session_id};
use super::{StoreUnderTest, eventually};
use crate::Put;

/// Turns each case into a test.
#[macro_export]
macro_rules! receipts_conformance {
    ($under_test:expr) => {
        $crate::conformance_cases! { receipts, $under_test,
            a_receipt_is_read_as_it_was_put
            an_unknown_receipt_is_none
            a_passing_receipt_is_overwritten
            a_final_receipt_is_never_overwritten
            the_same_final_receipt_may_be_put_again
            of_many_final_receipts_at_once_exactly_one_stands
            the_same_instruction_of_two_sessions_has_two_receipts
            a_receipt_is_found_by_its_client
            the_latest_receipts_come_first
        }
    };
}

/// Whole.
pub async fn a_receipt_is_read_as_it_was_put(under_test: &dyn StoreUnderTest) {
    let receipts = under_test.fresh().await.receipts;
    let amelia = client("amelia");
    let accepted = receipt(&amelia, "one", Status::Accepted);
    assert_eq!(receipts.put(&accepted).await.expect("put"), Put::Written);
    let read = receipts
        .get(&session_id(&amelia, 1), &instruction("one"))
        .await
        .expect("get");
    assert_eq!(read, Some(accepted));
}

/// Whether session, instruction or client is another.
pub async fn an_unknown_receipt_is_none(under_test: &dyn StoreUnderTest) {
    let receipts = under_test.fresh().await.receipts;
    let (amelia, mia) = (client("amelia"), client("mia"));
    receipts
        .put(&receipt(&amelia, "one", Status::Accepted))
        .await
        .expect("put");
    let other_session = receipts
        .get(&session_id(&amelia, 2), &instruction("one"))
        .await;
    assert_eq!(other_session.expect("get"), None);
    let other_instruction = receipts
        .get(&session_id(&amelia, 1), &instruction("two"))
        .await;
    assert_eq!(other_instruction.expect("get"), None);
    assert_eq!(
        receipts
            .find(&mia, &instruction("one"))
            .await
            .expect("find"),
        None
    );
    assert_eq!(
        receipts
            .recent(&session_id(&mia, 1), 10)
            .await
            .expect("recent"),
        []
    );
}

/// By a passing or a final one.
pub async fn a_passing_receipt_is_overwritten(under_test: &dyn StoreUnderTest) {
    let receipts = under_test.fresh().await.receipts;
    let amelia = client("amelia");
    for status in [
        Status::Accepted,
        Status::Running,
        Status::Applied,
        Status::Pushed,
    ] {
        let next = receipt(&amelia, "one", status);
        assert_eq!(receipts.put(&next).await.expect("put"), Put::Written);
        let read = receipts
            .get(&next.session_id, &next.instruction_id)
            .await
            .expect("get");
        assert_eq!(read, Some(next));
    }
}

/// Neither by a passing nor by another final one; the answer says what stands.
pub async fn a_final_receipt_is_never_overwritten(under_test: &dyn StoreUnderTest) {
    let receipts = under_test.fresh().await.receipts;
    let amelia = client("amelia");
    let ends = [
        Status::Pushed,
        Status::Published,
        Status::Rejected,
        Status::Failed,
        Status::Cancelled,
        Status::Interrupted,
    ];
    for (end, name) in ends
        .into_iter()
        .zip(["one", "two", "three", "four", "five", "six"])
    {
        let standing = receipt(&amelia, name, end);
        assert_eq!(receipts.put(&standing).await.expect("put"), Put::Written);
        let other_words = Receipt {
            summary: "Something else".to_owned(),
            ..standing.clone()
        };
        let attempts = [
            receipt(&amelia, name, Status::Running),
            receipt(&amelia, name, Status::Accepted),
            other_words,
        ];
        for attempt in attempts {
            let answer = receipts.put(&attempt).await.expect("put");
            assert_eq!(answer, Put::FinalStands(standing.clone()));
        }
        let read = receipts
            .get(&standing.session_id, &standing.instruction_id)
            .await
            .expect("get");
        assert_eq!(read, Some(standing));
    }
}

/// As after a reply that was lost.
pub async fn the_same_final_receipt_may_be_put_again(under_test: &dyn StoreUnderTest) {
    let receipts = under_test.fresh().await.receipts;
    let pushed = receipt(&client("amelia"), "one", Status::Pushed);
    assert_eq!(receipts.put(&pushed).await.expect("put"), Put::Written);
    assert_eq!(
        receipts.put(&pushed).await.expect("put again"),
        Put::Written
    );
}

/// And all the others are told which one.
pub async fn of_many_final_receipts_at_once_exactly_one_stands(under_test: &dyn StoreUnderTest) {
    let receipts = under_test.fresh().await.receipts;
    let amelia = client("amelia");
    let mut writers = JoinSet::new();
    for writer in 0..20 {
        let mine = Receipt {
            attempts: writer,
            ..receipt(&amelia, "one", Status::Failed)
        };
        let receipts = receipts.clone();
        writers.spawn(async move { (mine.clone(), receipts.put(&mine).await.expect("put")) });
    }
    let answers = writers.join_all().await;
    let stands = receipts
        .get(&session_id(&amelia, 1), &instruction("one"))
        .await
        .expect("get")
        .expect("one of them was written");
    for (mine, answer) in answers {
        let expected = if mine == stands {
            Put::Written
        } else {
            Put::FinalStands(stands.clone())
        };
        assert_eq!(answer, expected);
    }
}

/// The id of an instruction is unique in a session.
pub async fn the_same_instruction_of_two_sessions_has_two_receipts(
    under_test: &dyn StoreUnderTest,
) {
    let receipts = under_test.fresh().await.receipts;
    let amelia = client("amelia");
    let first = receipt(&amelia, "one", Status::Pushed);
    let second = Receipt {
        session_id: session_id(&amelia, 2),
        ..receipt(&amelia, "one", Status::Failed)
    };
    assert_eq!(receipts.put(&first).await.expect("put"), Put::Written);
    assert_eq!(receipts.put(&second).await.expect("put"), Put::Written);
    for expected in [first, second] {
        let read = receipts
            .get(&expected.session_id, &expected.instruction_id)
            .await
            .expect("get");
        assert_eq!(read, Some(expected));
    }
}

/// The one that was accepted last, if several sessions have one.
pub async fn a_receipt_is_found_by_its_client(under_test: &dyn StoreUnderTest) {
    let receipts = under_test.fresh().await.receipts;
    let amelia = client("amelia");
    let newer = Receipt {
        accepted_at: dawn().plus(Duration::from_mins(1)),
        ..receipt(&amelia, "one", Status::Running)
    };
    let older = Receipt {
        session_id: session_id(&amelia, 2),
        ..receipt(&amelia, "one", Status::Pushed)
    };
    let of_another = receipt(&client("mia"), "one", Status::Failed);
    for each in [&newer, &older, &of_another] {
        receipts.put(each).await.expect("put");
    }
    eventually(async || {
        match receipts
            .find(&amelia, &instruction("one"))
            .await
            .expect("find")
        {
            Some(found) if found == newer => Ok(()),
            other => Err(format!("found {other:?}")),
        }
    })
    .await;
}

/// Up to the limit, and of this session only.
pub async fn the_latest_receipts_come_first(under_test: &dyn StoreUnderTest) {
    let receipts = under_test.fresh().await.receipts;
    let amelia = client("amelia");
    for minute in [3, 1, 4, 2] {
        let accepted_at = dawn().plus(Duration::from_mins(minute));
        let name = format!("minute-{minute}");
        receipts
            .put(&Receipt {
                accepted_at,
                ..receipt(&amelia, &name, Status::Accepted)
            })
            .await
            .expect("put");
    }
    let of_another = Receipt {
        session_id: session_id(&amelia, 2),
        ..receipt(&amelia, "other", Status::Accepted)
    };
    receipts.put(&of_another).await.expect("put");

    let recent = async |limit| {
        let recent = receipts
            .recent(&session_id(&amelia, 1), limit)
            .await
            .expect("recent");
        recent
            .into_iter()
            .map(|receipt| receipt.instruction_id.to_string())
            .collect::<Vec<_>>()
    };
    assert_eq!(recent(3).await, ["minute-4", "minute-3", "minute-2"]);
    assert_eq!(
        recent(9).await,
        ["minute-4", "minute-3", "minute-2", "minute-1"]
    );
    assert_eq!(recent(0).await, Vec::<String>::new());
}
