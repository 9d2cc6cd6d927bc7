//! Which instruction has which action, for the words about it: a receipt does not say, and its commit only once there is one.
//!
//! Noted where an instruction comes in and where it is carried out, because not all come in at the door: the queue has
//! others, and the agent asks by itself for what was published elsewhere.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use contract::{Instruction, InstructionId};

/// Instructions whose action is remembered: as many as can wait.
const KINDS_MAX: usize = 1000;

/// The actions of the newest instructions. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Kinds(Arc<Mutex<VecDeque<(InstructionId, &'static str)>>>);

impl Kinds {
    pub(crate) fn remember(&self, instruction: &Instruction) {
        let id = &instruction.instruction_id;
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|(known, _)| known != id);
        if known.len() == KINDS_MAX {
            known.pop_front();
        }
        known.push_back((id.clone(), instruction.action.kind()));
    }

    /// The word for an instruction's action, if it is known.
    pub(crate) fn of(&self, id: &InstructionId) -> Option<&'static str> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = known.iter().rev().find(|(known, _)| known == id);
        found.map(|(_, kind)| *kind)
    }
}
