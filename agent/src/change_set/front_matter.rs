//! stub
use serde_json::{Map, Value};
use contract::SitePath;
use super::fault::Fault;
#[derive(Debug, Clone, Copy)]
pub(super) struct Edit<'c> { pub(super) set: &'c Map<String, Value>, pub(super) unset: &'c [String] }
impl Edit<'_> {
    pub(super) fn apply(&self, _path: &SitePath, _content: &[u8]) -> Result<Vec<u8>, Vec<Fault>> { Ok(vec![]) }
    pub(super) fn collision(&self, _path: &SitePath, _base: &[u8], _present: &[u8]) -> Result<Option<String>, Vec<Fault>> { Ok(None) }
}
