//! What [`crate::Clients`] promises.

#![allow(
    clippy::missing_panics_doc,
    reason = "a case of a test suite says what is wrong by panicking"
)]

use super::records::{client, client_config};
use super::{StoreUnderTest, eventually};

/// Turns each case into a test.
#[macro_export]
macro_rules! clients_conformance {
    ($under_test:expr) => {
        $crate::conformance_cases! { clients, $under_test,
            a_client_is_read_as_it_was_put
            an_unknown_client_is_none
            the_last_writer_wins
            clients_are_listed_in_order
        }
    };
}

/// With everything that this build does not know.
pub async fn a_client_is_read_as_it_was_put(under_test: &dyn StoreUnderTest) {
    let clients = under_test.fresh().await.clients;
    let config = client_config("amelia");
    clients.put(&config).await.expect("put");
    let read = clients.get(&client("amelia")).await.expect("get");
    assert_eq!(read, Some(config));
}

/// Not an error.
pub async fn an_unknown_client_is_none(under_test: &dyn StoreUnderTest) {
    let clients = under_test.fresh().await.clients;
    clients.put(&client_config("amelia")).await.expect("put");
    assert_eq!(clients.get(&client("amelia-2")).await.expect("get"), None);
}

/// And nothing of what was there before is left.
pub async fn the_last_writer_wins(under_test: &dyn StoreUnderTest) {
    let clients = under_test.fresh().await.clients;
    clients.put(&client_config("amelia")).await.expect("put");
    let mut config = client_config("amelia");
    config.unknown.clear();
    config.settings.max_concurrent_sessions = 7;
    clients.put(&config).await.expect("put again");
    assert_eq!(
        clients.get(&client("amelia")).await.expect("get"),
        Some(config)
    );
}

/// Each once.
pub async fn clients_are_listed_in_order(under_test: &dyn StoreUnderTest) {
    let clients = under_test.fresh().await.clients;
    for name in ["zoe", "amelia", "mia", "amelia"] {
        clients.put(&client_config(name)).await.expect("put");
    }
    let expected = vec![client("amelia"), client("mia"), client("zoe")];
    eventually(async || {
        let listed = clients.list().await.expect("list");
        if listed == expected {
            Ok(())
        } else {
            Err(format!("{listed:?} is listed"))
        }
    })
    .await;
}
