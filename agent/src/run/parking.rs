//! What cannot be pushed when an environment stops: put where the next one finds it, and taken up by that one.
//!
//! The order is what makes it safe: it is put somewhere, then the record names the place, and only then what was taken up before is
//! cleared away. Whoever dies in between leaves something twice, and nothing nowhere.

use contract::session::{Parked, ParkedAt};

use super::backend::Backend;
use crate::draft::{Parking, RescueName};
use crate::environment::{Halted, Kept, TakenUpBefore, Unfinished};
use crate::failure::{Exit, Failure};
use crate::lease::Lease;
use crate::pipeline::Workshop;

/// Bytes of a bundle that are read back. A bundle holds what one environment's people changed by hand.
const BUNDLE_MAX_BYTES: u64 = 512 * 1024 * 1024;

/// Reads what is kept in bundles. One that cannot be read is no reason not to start: it stays where it is.
pub(super) async fn fetch(backend: &Backend, parked: Vec<Parked>) -> Vec<Kept> {
    let mut kept = Vec::new();
    for parked in parked {
        let bundle = match (&parked.place, &backend.rescue) {
            (ParkedAt::Ref(_), _) => None,
            (ParkedAt::Bundle(name), Some(store)) => {
                match store.get(name, BUNDLE_MAX_BYTES).await {
                    Ok(bundle) => bundle,
                    Err(error) => {
                        tracing::error!(error = %crate::chain(&error), bundle = name, "what was parked could not be read, and stays there");
                        None
                    }
                }
            }
            (ParkedAt::Bundle(name), None) => {
                tracing::error!(
                    bundle = name,
                    "something is parked in a bundle, and RESCUE_BUCKET does not say where"
                );
                None
            }
        };
        kept.push(Kept { parked, bundle });
    }
    kept
}

/// What is parked when nothing runs any more.
#[derive(Debug)]
pub(super) struct Rest {
    /// What the record is to name.
    pub(super) parked: Vec<Parked>,
    /// What was taken up whole, and can be cleared away once the record names the rest.
    taken_up: Vec<Parked>,
    workshop: Workshop,
}

/// Pushes what is left to push, and puts what the remote does not take where the next environment finds it. Nothing is done that
/// others can see once the session is another's.
pub(super) async fn park(
    halted: Halted,
    backend: &Backend,
    lease: &Lease,
) -> Result<Rest, Failure> {
    let mut workshop = match halted.workshop {
        Ok(workshop) => workshop,
        // What was parked before is still there, and the record goes on naming it.
        Err(Unfinished::CutOff) => {
            return Err(not_saved("the instruction that ran did not end in time"));
        }
        Err(Unfinished::Broke) => return Err(super::broke()),
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
    if !lease.may_act() {
        return Err(crate::environment::stepped_down(lease));
    }
    let pushed = if halted.may_push {
        workshop.push_what_is_left().await
    } else {
        Ok(true)
    };
    match pushed {
        Ok(true) => {}
        Ok(false) => tracing::warn!("the remote does not have everything; the rest is parked"),
        Err(error) => {
            tracing::warn!(error = %crate::chain(&error), "what is left could not be pushed; it is parked");
        }
    }
    if !lease.may_act() {
        return Err(crate::environment::stepped_down(lease));
    }
    let put = put(&mut workshop, name, backend).await?;
    let (whole, partly): (Vec<TakenUpBefore>, Vec<TakenUpBefore>) =
        halted.taken_up.into_iter().partition(|before| before.whole);
    let parked = |before: Vec<TakenUpBefore>| before.into_iter().map(|before| before.parked);
    Ok(Rest {
        // Of what did not fit when it was taken up, something is only where it was parked.
        parked: parked(partly).chain(put).collect(),
        taken_up: parked(whole).collect(),
        workshop,
    })
}

fn not_saved(why: &str) -> Failure {
    Failure::new(
        Exit::NotSaved,
        format!("what could not be pushed could not be parked either: {why}"),
        "What an instruction was to do is still in the queue. What was changed by hand is in the workspace and nowhere else. Check the remote, and RESCUE_BUCKET.",
    )
    .retryable(true)
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

impl Rest {
    /// Clears away what was taken up, now that it is pushed or parked anew and the record says where. What cannot be cleared away
    /// only takes room: taking it up again changes nothing.
    pub(super) async fn forget(mut self, backend: &Backend) {
        for parked in self.taken_up {
            let forgotten = match (&parked.place, &backend.rescue) {
                (ParkedAt::Bundle(key), Some(store)) => store
                    .delete(key)
                    .await
                    .map_err(|error| crate::chain(&error)),
                (ParkedAt::Bundle(_), None) => Ok(()),
                (ParkedAt::Ref(_), _) => self
                    .workshop
                    .forget_parked(parked.clone())
                    .await
                    .map(drop)
                    .map_err(|error| crate::chain(&error)),
            };
            if let Err(why) = forgotten {
                tracing::warn!(why, place = ?parked.place, "what was parked and taken up could not be cleared away");
            }
        }
    }
}
