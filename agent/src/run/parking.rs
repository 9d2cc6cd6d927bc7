//! What cannot be pushed when an environment stops: put where the next one finds it, and taken up by that one.

use std::sync::Arc;
use std::time::Duration;

use contract::session::{Parked, ParkedAt};
use platform::Objects;

use super::backend::{Backend, failure};
use crate::draft::{Parking, RescueName};
use crate::environment::Halted;
use crate::failure::{Exit, Failure};
use crate::lease::Lease;
use crate::pipeline::Workshop;

/// How long parking may take in all.
const TIME_MAX: Duration = Duration::from_secs(60);
/// Bytes of a bundle that are read back. A bundle holds what one environment's people changed by hand.
const BUNDLE_MAX_BYTES: u64 = 512 * 1024 * 1024;

/// Reads a bundle that was kept, if what is parked is one.
pub(super) async fn fetch(
    backend: &Backend,
    parked: Option<&Parked>,
) -> Result<Option<Vec<u8>>, Failure> {
    let Some(ParkedAt::Bundle(name)) = parked.map(|parked| &parked.place) else {
        return Ok(None);
    };
    let store = rescue(backend)?;
    store
        .get(name, BUNDLE_MAX_BYTES)
        .await
        .map_err(|error| failure("read what was parked", &error))
}

fn rescue(backend: &Backend) -> Result<&Arc<dyn Objects>, Failure> {
    backend.rescue.as_ref().ok_or_else(|| {
        Failure::new(
            Exit::Backend,
            "something is parked in a bundle, and there is no rescue bucket",
            "Set RESCUE_BUCKET to the bucket that the bundle was put into.",
        )
    })
}

/// Puts what the remote does not have where the next environment finds it, and clears away what was taken up. Returns what the
/// record is to say is parked.
pub(super) async fn park(
    halted: Halted,
    backend: &Backend,
    lease: &Lease,
) -> Result<Option<Parked>, Failure> {
    let (whole, partly): (Vec<_>, Vec<_>) =
        halted.taken_up.into_iter().partition(|before| before.whole);
    let Some(mut workshop) = halted.workshop else {
        // Nobody knows what is in it: what was parked before is still there.
        return Ok(partly
            .into_iter()
            .chain(whole)
            .next()
            .map(|before| before.parked));
    };
    let identity = &halted.seat.identity;
    let name = RescueName {
        generation: lease.generation(),
        bundle: format!(
            "{}/{}-{}.bundle",
            identity.client_id,
            identity
                .branch
                .trim_start_matches("edit/")
                .replace('/', "-"),
            lease.generation()
        ),
        ask_remote: true,
    };
    let parking = tokio::time::timeout(TIME_MAX, put(&mut workshop, name, backend));
    let parked = parking
        .await
        .unwrap_or_else(|_| Err(not_saved("parking took too long")))?;
    for before in whole {
        forget(&mut workshop, backend, &before.parked).await;
    }
    // Of what did not fit when it was taken up, something is only where it was parked.
    Ok(parked.or_else(|| partly.into_iter().next().map(|before| before.parked)))
}

fn not_saved(why: &str) -> Failure {
    Failure::new(
        Exit::NotSaved,
        format!("what could not be pushed could not be parked either: {why}"),
        "It is in the workspace and nowhere else. Check the remote, and RESCUE_BUCKET.",
    )
}

async fn put(
    workshop: &mut Workshop,
    name: RescueName,
    backend: &Backend,
) -> Result<Option<Parked>, Failure> {
    let work = workshop.park(name).await.map_err(Failure::from)?;
    for left in &work.left {
        tracing::error!(what = left.what, why = left.why, "it was not parked");
    }
    match work.parking {
        Parking::Nothing => Ok(None),
        Parking::Ref(parked) => {
            tracing::warn!(place = ?parked.place, commits = parked.commits, files = parked.files.len(), "what could not be pushed is parked on the remote");
            Ok(Some(parked))
        }
        Parking::Bundle { parked, bytes, why } => {
            let ParkedAt::Bundle(key) = &parked.place else {
                return Err(not_saved(&why));
            };
            let Some(store) = &backend.rescue else {
                return Err(not_saved(&format!("{why}; and there is no rescue bucket")));
            };
            store
                .put(key, bytes)
                .await
                .map_err(|error| not_saved(&format!("{why}; {}", crate::chain(&error))))?;
            tracing::warn!(why, place = ?parked.place, commits = parked.commits, files = parked.files.len(), "what could not be pushed is parked in a bundle");
            Ok(Some(parked))
        }
    }
}

/// Clears away what was taken up, now that it is pushed or parked anew. What cannot be cleared away only takes room.
async fn forget(workshop: &mut Workshop, backend: &Backend, parked: &Parked) {
    let forgotten = match (&parked.place, &backend.rescue) {
        (ParkedAt::Bundle(key), Some(store)) => store
            .delete(key)
            .await
            .map_err(|error| crate::chain(&error)),
        (ParkedAt::Bundle(_), None) => Ok(()),
        (ParkedAt::Ref(_), _) => workshop
            .forget_parked(parked.clone())
            .await
            .map(drop)
            .map_err(|error| crate::chain(&error)),
    };
    if let Err(why) = forgotten {
        tracing::warn!(why, place = ?parked.place, "what was parked and taken up could not be cleared away");
    }
}
