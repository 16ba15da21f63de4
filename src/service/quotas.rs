//! How much a workspace may have and do.
//!
//! What it has is counted in rows that change with it, and compared inside the transaction that would add to it; how
//! often it calls is counted in memory. Both are exact, however many callers race.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;

use crate::domain::id::WorkspaceId;
use crate::domain::window::{Admission, Window};
use crate::domain::workspace::Quota;
use crate::error::Error;

use super::caller::Caller;
use super::change::{Change, Halt};
use super::{Ostiary, counts};

/// The span that calls are counted in.
const SPAN: Duration = Duration::from_secs(1);

/// The calls of workspaces that have a quota of them.
#[derive(Default)]
pub struct Meters(Mutex<HashMap<WorkspaceId, Window>>);

impl Ostiary {
    /// Counts a call against the quota of the caller's workspace.
    ///
    /// # Errors
    /// [`Error::QuotaExceeded`], with when to try again.
    pub fn count_call(&self, caller: &Caller) -> Result<(), Error> {
        let Some(limit) = caller.workspace().quotas.calls_per_second else { return Ok(()) };
        let mut meters = self.meters.0.lock();
        let window = meters.entry(caller.workspace_id()).or_default();
        match window.admit(self.world.now(), SPAN, limit, 1) {
            Admission::Admitted { .. } => Ok(()),
            Admission::Refused { retry_after, .. } => {
                Err(Error::QuotaExceeded { quota: Quota::CallsPerSecond, limit, retry_after })
            }
        }
    }
}

impl Change<'_, '_> {
    /// Refuses a change that has just made more keys than the workspace may have.
    pub fn insist_on_quota_of_keys(&mut self) -> Result<(), Halt> {
        let workspace = self.workspace();
        let has = counts::keys_now(self.tx, workspace)?;
        refuse_more(Quota::Keys, has, self.quotas().keys)
    }

    /// Refuses a change that has just made more root keys than the workspace may have.
    pub fn insist_on_quota_of_root_keys(&mut self) -> Result<(), Halt> {
        let workspace = self.workspace();
        let has = counts::root_keys_now(self.tx, workspace)?;
        refuse_more(Quota::RootKeys, has, self.quotas().root_keys)
    }
}

fn refuse_more(quota: Quota, has: u64, most: Option<u64>) -> Result<(), Halt> {
    match most {
        Some(limit) if has > limit => Err(Error::QuotaExceeded { quota, limit, retry_after: None }.into()),
        Some(_) | None => Ok(()),
    }
}
