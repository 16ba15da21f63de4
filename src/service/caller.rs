//! Who is asking, and what they may do.
//!
//! A [`Caller`] comes only from [`Ostiary::authenticate`], a [`Permit`] only from a caller.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::domain::capability::{Capability, Grant, Resource};
use crate::domain::id::{RootKeyId, WorkspaceId};
use crate::domain::kind::Kind;
use crate::domain::root_key::RootKey;
use crate::domain::secret::{self, Prefix, Secret};
use crate::domain::time::Timestamp;
use crate::domain::workspace::{Purpose, Workspace};
use crate::error::{Error, Unrecognised};
pub use crate::world::Deadline;

use super::Ostiary;
use super::sight::{Remembered, Seen, Sight};
use super::usage::Tally;

/// The call that somebody makes: what is known of it before its message is read.
#[derive(Debug, Clone, Default)]
pub struct Call {
    /// Its id.
    pub request_id: String,
    /// From where.
    pub remote: Option<IpAddr>,
    /// With what, in the caller's own words.
    pub user_agent: String,
    /// Under which idempotency key, if any.
    pub idempotency: Option<Idempotency>,
    /// Until when somebody waits for the whole answer, if they have said so.
    pub deadline: Option<Deadline>,
}

/// A call that is to take effect once, however often it is made.
#[derive(Clone)]
pub struct Idempotency {
    /// The digest of the caller's idempotency key.
    pub key: [u8; 32],
    /// What the first answer's secret is sealed under; ostiary keeps neither of the two it is derived from.
    pub seal: Arc<Zeroizing<[u8; 32]>>,
    /// The method.
    pub method: String,
    /// The digest of the request.
    pub request: [u8; 32],
}

impl std::fmt::Debug for Idempotency {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Idempotency").field("method", &self.method).finish_non_exhaustive()
    }
}

impl Idempotency {
    /// A call of `method` under the caller's idempotency key. The request's digest is added once it has been read.
    pub fn new(key: &str, secret: &Secret, method: &str) -> Self {
        let mut seal = Zeroizing::new([0; 32]);
        hkdf::Hkdf::<Sha256>::new(Some(key.as_bytes()), secret.expose().as_bytes())
            .expand(b"ostiary: delivering a secret again", seal.as_mut_slice())
            .expect("32 bytes are within what one expansion yields");
        Self {
            key: Sha256::digest(key.as_bytes()).into(),
            seal: Arc::new(seal),
            method: method.to_owned(),
            request: [0; 32],
        }
    }
}

/// Somebody who has proven to hold a good root key.
#[derive(Debug, Clone)]
pub struct Caller {
    pub(super) root_key: Seen<Remembered>,
    pub(super) workspace: Seen<Workspace>,
    /// The call that they make.
    pub call: Arc<Call>,
}

/// That a caller may do something, to some object at least. What exactly is proven where the effect is.
#[derive(Debug, Clone, Copy)]
pub struct Permit<'a> {
    pub(super) caller: &'a Caller,
    pub(super) need: Option<Capability>,
}

impl Caller {
    /// The caller's root key, as it was when the call began.
    pub fn root_key(&self) -> &RootKey {
        &self.root_key.record.root_key
    }

    /// The caller's workspace.
    pub fn workspace(&self) -> &Workspace {
        &self.workspace.record
    }

    /// The one workspace that the caller reaches.
    pub fn workspace_id(&self) -> WorkspaceId {
        self.workspace().id
    }

    /// The call, to be changed for this caller alone.
    pub fn call_mut(&mut self) -> &mut Call {
        Arc::make_mut(&mut self.call)
    }

    /// Where the use of the caller's root key is counted.
    pub fn tally(&self) -> &Arc<Tally> {
        &self.root_key.record.tally
    }

    /// Where the caller's root key lies.
    pub(super) fn row(&self) -> (WorkspaceId, RootKeyId) {
        (self.workspace_id(), self.root_key().id)
    }

    /// That the caller may do this to some object at least; otherwise it is denied before anything is looked up.
    pub fn permit(&self, capability: Capability) -> Result<Permit<'_>, Error> {
        if holds_any(self.root_key(), self.workspace(), capability) {
            Ok(Permit { caller: self, need: Some(capability) })
        } else {
            Err(Error::PermissionMissing(capability))
        }
    }

    /// Whether the caller may do this to the object of that id.
    pub fn may(&self, capability: Capability, id: impl std::fmt::Display) -> bool {
        allowing(self.root_key(), self.workspace(), capability, Some(&id.to_string())).is_some()
    }

    /// Which of the caller's permissions lets it do this to the object of that id.
    pub(super) fn allowing(&self, capability: Capability, id: &str) -> Option<&Grant> {
        allowing(self.root_key(), self.workspace(), capability, Some(id))
    }

    /// The same, where the id is spelled out only if that is needed.
    pub(super) fn allowing_object(&self, capability: Capability, id: impl std::fmt::Display) -> Option<&Grant> {
        let grant = self.root_key().grants.allowing_object(capability, id);
        grant.filter(|_| reaches(self.workspace(), capability))
    }

    /// Which of the caller's permissions lets it do this as such.
    pub(super) fn allowing_whole(&self, capability: Capability) -> Option<&Grant> {
        allowing(self.root_key(), self.workspace(), capability, None)
    }
}

/// Whether the root key holds the capability for anything at all. Workspaces are managed from the operator's only.
pub(super) fn holds_any(root_key: &RootKey, workspace: &Workspace, capability: Capability) -> bool {
    reaches(workspace, capability) && root_key.grants.any(capability)
}

/// Which permission of the root key covers this.
pub(super) fn allowing<'a>(
    root_key: &'a RootKey,
    workspace: &Workspace,
    capability: Capability,
    id: Option<&str>,
) -> Option<&'a Grant> {
    root_key.grants.allowing(capability, id).filter(|_| reaches(workspace, capability))
}

fn reaches(workspace: &Workspace, capability: Capability) -> bool {
    capability.resource() != Resource::Workspaces || workspace.purpose == Purpose::Operator
}

/// Whether a root key is good at this moment and from this address: one order of checks for every door.
pub(super) fn recognise(
    root_key: Option<&RootKey>,
    workspace: Option<&Workspace>,
    remote: Option<IpAddr>,
    now: Timestamp,
) -> Result<(), Unrecognised> {
    let there = root_key.filter(|root_key| root_key.deleted.is_none());
    let home = workspace.filter(|workspace| workspace.deleted.is_none());
    let (Some(root_key), Some(workspace)) = (there, home) else { return Err(Unrecognised::Invalid) };
    if !workspace.enabled {
        Err(Unrecognised::WorkspaceDisabled)
    } else if !root_key.enabled {
        Err(Unrecognised::Disabled)
    } else if root_key.expiry.has_passed(now) {
        Err(Unrecognised::Expired)
    } else if !root_key.allowed.admits(remote) {
        Err(Unrecognised::Address)
    } else {
        Ok(())
    }
}

impl Ostiary {
    /// Recognises the holder of a root key by its secret.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`] with the first check that failed. A secret that can't be a root key's by its form is
    /// refused before anything is looked up.
    pub async fn authenticate(&self, secret: &Secret, call: Call) -> Result<Caller, Error> {
        let refuse = Error::Unauthenticated;
        if !secret.has_prefix(&Prefix::root_key()) || !secret.well_formed() {
            return Err(refuse(Unrecognised::Invalid));
        }
        let (digest, now) = (secret.digest(), self.world.now());
        let (root_key, workspace) = match self.memory.root_key_at_hand(digest) {
            Some((root_key, workspace)) => {
                recognise(Some(&root_key.record.root_key), Some(&workspace.record), call.remote, now)
                    .map_err(Error::Unauthenticated)?;
                (root_key, workspace)
            }
            // In memory of its own, so that whoever does not need it does not carry it around.
            None => Box::pin(self.recognised(digest, call.remote)).await?,
        };
        root_key.record.tally.root_key_used(now);
        Ok(Caller { root_key, workspace, call: Arc::new(call) })
    }

    /// Lets the caller of a stream in for one more message. None: they are as they were.
    ///
    /// # Errors
    /// What a new call would fail with: [`Error::Unauthenticated`], or [`Error::PermissionMissing`] if they hold the
    /// capability for nothing any more.
    pub async fn readmit(&self, caller: &Caller, capability: Capability) -> Result<Option<Caller>, Error> {
        let changed = self.look_again(caller, capability).await?;
        changed.as_ref().unwrap_or(caller).tally().root_key_used(self.world.now());
        Ok(changed)
    }

    /// The same while no message comes, which does not count as a use of the root key.
    ///
    /// # Errors
    /// As [`Ostiary::readmit`].
    pub async fn look_again(&self, caller: &Caller, capability: Capability) -> Result<Option<Caller>, Error> {
        let marks = self.memory.cache.marks();
        if caller.root_key.holds(marks) && caller.workspace.holds(marks) {
            // Nothing has changed but the time.
            let (root_key, workspace) = (caller.root_key(), caller.workspace());
            recognise(Some(root_key), Some(workspace), caller.call.remote, self.world.now())
                .map_err(Error::Unauthenticated)?;
            return Ok(None);
        }
        let (root_key, workspace) = self.recognised(caller.root_key().digest, caller.call.remote).await?;
        let again = Caller { root_key, workspace, ..caller.clone() };
        again.permit(capability)?;
        Ok(Some(again))
    }

    /// A root key and its workspace as they are, if the root key is good.
    async fn recognised(
        &self,
        digest: secret::Digest,
        remote: Option<IpAddr>,
    ) -> Result<(Seen<Remembered>, Seen<Workspace>), Error> {
        let mut sight = Sight::remembering(self);
        let mut first = true;
        loop {
            let seen = sight.root_key_and_home(digest).await;
            // The store may have been opened again while it was looked at: the next view waits for that.
            let moved = first && matches!(seen, Err(Error::StoreUnavailable));
            first = false;
            if !moved
                && let (root_key, workspace) = seen?
                && sight.holds_at().is_some()
            {
                let records =
                    (root_key.as_ref().map(|seen| &seen.record.root_key), workspace.as_ref().map(|seen| &seen.record));
                recognise(records.0, records.1, remote, self.world.now()).map_err(Error::Unauthenticated)?;
                return root_key.zip(workspace).ok_or(Error::Unauthenticated(Unrecognised::Invalid));
            }
            sight = Sight::anew(self, self.engine.view().await?);
        }
    }

    /// Counts that this permission of the caller's is what allowed a call.
    pub(super) fn allowed_by(&self, caller: (WorkspaceId, RootKeyId), grant: &Grant, now: Timestamp) {
        self.usage.tally(caller).grant_used(grant, 1, now);
    }

    /// Counts what let the caller see a list with these objects on it.
    pub(super) fn shown(
        &self,
        caller: &Caller,
        capability: Capability,
        ids: impl Iterator<Item = impl std::fmt::Display>,
        now: Timestamp,
    ) {
        let each = ids.filter_map(|id| caller.allowing(capability, &id.to_string()));
        let grants: BTreeSet<&Grant> = caller.allowing_whole(capability).into_iter().chain(each).collect();
        for grant in grants {
            self.allowed_by((caller.workspace_id(), caller.root_key().id), grant, now);
        }
    }

    /// Whether the caller may do this to the object; if not, the answer is that of an object that isn't there.
    pub(super) fn insist(
        &self,
        caller: &Caller,
        capability: Capability,
        id: impl std::fmt::Display,
        (kind, name): (Kind, &str),
        now: Timestamp,
    ) -> Result<(), Error> {
        let grant = caller.allowing(capability, &id.to_string()).ok_or_else(|| Error::not_found(kind, name))?;
        self.allowed_by((caller.workspace_id(), caller.root_key().id), grant, now);
        Ok(())
    }
}
