//! A root key: the credential with which a developer's own servers authenticate to ostiary.

use std::time::Duration;

use super::capability::{Capability, Grants};
use super::etag::Etag;
use super::id::{RootKeyId, WorkspaceId};
use super::name::Name;
use super::network::AllowList;
use super::rotation::{RotationRefused, rest_of_life};
use super::secret::{Digest, Secret};
use super::time::{Expiry, Timestamp};
use super::value::{Facts, Value};

/// The shortest time that a root key which rotates itself must leave itself, unless it insists.
pub const SELF_ROTATION_GRACE_MIN: Duration = Duration::from_secs(60);

/// A root key as stored: everything but its secret.
#[derive(Debug, Clone, PartialEq)]
pub struct RootKey {
    /// Its id.
    pub id: RootKeyId,
    /// The one workspace that it reaches.
    pub workspace: WorkspaceId,
    /// What people call it.
    pub name: Name,
    /// What it may do.
    pub grants: Grants,
    /// How it is found.
    pub digest: Digest,
    /// How it is shown: the beginning of the secret.
    pub start: String,
    /// Switched on.
    pub enabled: bool,
    /// How long it lives.
    pub expiry: Expiry,
    /// From where it may be used.
    pub allowed: AllowList,
    /// Whose successor it is.
    pub rotated_from: Option<RootKeyId>,
    /// Its successor.
    pub rotated_to: Option<RootKeyId>,
    /// Who made it; none for the first of a workspace made by the operator.
    pub created_by: Option<RootKeyId>,
    /// When it was made.
    pub created: Timestamp,
    /// When it last changed visibly.
    pub updated: Timestamp,
    /// Which version this is.
    pub etag: Etag,
    /// When it was deleted, for good.
    pub deleted: Option<Timestamp>,
}

/// What became of a root key: the first that applies, in this order, so that what is final comes first.
///
/// Its holder is refused in another order, in which being disabled comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Its life is over.
    Expired,
    /// Switched off.
    Disabled,
    /// It lives on for its grace period only.
    RotatedOut,
    /// Good.
    Active,
}

/// What about a root key goes beyond the caller's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Excess {
    /// It may do more.
    Permissions,
    /// It lives longer.
    Life,
    /// It may be used from more addresses.
    Addresses,
}

impl Excess {
    /// As a sentence names it.
    pub const fn noun(self) -> &'static str {
        match self {
            Self::Permissions => "permissions",
            Self::Life => "a life",
            Self::Addresses => "addresses",
        }
    }
}

/// What an issued root key is made of besides its predecessor.
#[derive(Debug, Clone)]
pub struct Successor {
    /// The new id.
    pub id: RootKeyId,
    /// How it will be found.
    pub digest: Digest,
    /// How it will be shown.
    pub start: String,
    /// Who rotates.
    pub by: RootKeyId,
}

/// A root key together with its secret: the only value that holds both, made once and handed out once.
#[derive(Debug, Clone)]
pub struct IssuedRootKey {
    /// The record.
    pub root_key: RootKey,
    /// The plaintext; absent where nothing was made because the call was a rehearsal.
    pub secret: Option<Secret>,
}

impl RootKey {
    /// What became of it.
    pub fn state(&self, now: Timestamp) -> State {
        if self.expiry.has_passed(now) {
            State::Expired
        } else if !self.enabled {
            State::Disabled
        } else if self.rotated_to.is_some() {
            State::RotatedOut
        } else {
            State::Active
        }
    }

    /// Whether it is one of those that a workspace must never run out of: enabled, never expiring, and able to
    /// create root keys.
    pub fn is_administrator(&self) -> bool {
        self.deleted.is_none()
            && self.enabled
            && self.expiry == Expiry::Never
            && self.grants.covers_whole(Capability::CreateRootKey)
    }

    /// Whether it counts against its workspace's quota: its successor counts for one that has been rotated.
    pub fn is_counted(&self) -> bool {
        self.deleted.is_none() && self.rotated_to.is_none()
    }

    /// Whether `other` is at most what this one is; else the first respect in which it goes beyond.
    pub fn covers(&self, other: &Self) -> Result<(), Excess> {
        if !self.grants.covers(&other.grants) {
            Err(Excess::Permissions)
        } else if other.expiry.outlives(self.expiry) {
            Err(Excess::Life)
        } else if !other.allowed.within(&self.allowed) {
            Err(Excess::Addresses)
        } else {
            Ok(())
        }
    }

    /// Whether becoming `next` would let it do anything that it could not do before.
    fn is_widened_by(&self, next: &Self) -> bool {
        !self.grants.covers(&next.grants)
            || next.expiry.outlives(self.expiry)
            || !next.allowed.within(&self.allowed)
            || (next.enabled && !self.enabled)
    }

    /// Whether a caller may turn `self` into `next`: anything on a root key whose permissions it covers as long as
    /// what is widened stays within its own; on others only narrowing.
    pub fn may_become(&self, next: &Self, caller: &Self) -> Result<(), Excess> {
        let widened = self.is_widened_by(next);
        let only_narrowed = !widened && self.name == next.name;
        if only_narrowed {
            return Ok(());
        }
        if !caller.grants.covers(&self.grants) {
            return Err(Excess::Permissions);
        }
        if widened { caller.covers(next) } else { Ok(()) }
    }

    /// Makes the successor, and ends this one's life after `grace`, never later than it would have ended anyway.
    pub fn rotated(
        &self,
        successor: Successor,
        grace: Duration,
        now: Timestamp,
    ) -> Result<(Self, Self), RotationRefused<RootKeyId>> {
        let rest = rest_of_life(self.rotated_to, self.expiry, grace, now)?;
        let Successor { id, digest, start, by } = successor;
        let previous =
            Self { rotated_to: Some(id), expiry: rest, updated: now, etag: self.etag.next(), ..self.clone() };
        let next = Self {
            id,
            digest,
            start,
            rotated_from: Some(self.id),
            rotated_to: None,
            created_by: Some(by),
            created: now,
            updated: now,
            etag: Etag::FIRST,
            ..self.clone()
        };
        Ok((next, previous))
    }

    /// What the audit log says of it.
    pub fn facts(&self) -> Facts {
        let mut facts = Facts::from([
            ("name".into(), self.name.as_str().into()),
            ("permissions".into(), self.grants.iter().map(ToString::to_string).collect()),
            ("start".into(), self.start.as_str().into()),
            ("enabled".into(), self.enabled.into()),
            ("allowed_cidrs".into(), self.allowed.iter().map(|network| network.to_string()).collect()),
        ]);
        facts.extend(self.expiry.moment().map(|moment| ("expire_time".into(), moment_fact(moment))));
        facts.extend(self.rotated_from.map(|id| ("rotated_from".into(), id.to_string().into())));
        facts.extend(self.rotated_to.map(|id| ("rotated_to".into(), id.to_string().into())));
        facts
    }
}

/// A moment in the audit log: RFC 3339, in UTC.
pub(super) fn moment_fact(moment: Timestamp) -> Value {
    Value::Text(moment.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::capability::Grant;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis_saturating(millis)
    }

    fn key(grants: &[&str]) -> RootKey {
        RootKey {
            id: RootKeyId::from_bytes([1; 16]),
            workspace: WorkspaceId::from_bytes([1; 16]),
            name: Name::new("backend", crate::domain::name::ROOT_KEY_NAME).unwrap(),
            grants: Grants::collect(grants.iter().map(|text| Grant::parse(text).unwrap())).unwrap(),
            digest: Digest::from_bytes([0; 32]),
            start: "example_0000".into(),
            enabled: true,
            expiry: Expiry::Never,
            allowed: AllowList::anyone(),
            rotated_from: None,
            rotated_to: None,
            created_by: None,
            created: at(0),
            updated: at(0),
            etag: Etag::FIRST,
            deleted: None,
        }
    }

    fn successor() -> Successor {
        Successor {
            id: RootKeyId::from_bytes([2; 16]),
            digest: Digest::from_bytes([2; 32]),
            start: "example_2222".into(),
            by: RootKeyId::from_bytes([3; 16]),
        }
    }

    #[test]
    fn rotation_keeps_what_a_key_is_and_never_extends_a_life() {
        let mut old = key(&["apis.*.create_key"]);
        let minute = Duration::from_secs(60);
        let (next, previous) = old.rotated(successor(), minute, at(1_000)).unwrap();
        assert_eq!(previous.expiry, Expiry::At(at(61_000)));
        assert_eq!((next.expiry, &next.grants, &next.name), (Expiry::Never, &old.grants, &old.name));
        assert_eq!((next.rotated_from, previous.rotated_to), (Some(old.id), Some(next.id)));

        old.expiry = Expiry::At(at(5_000));
        let (next, previous) = old.rotated(successor(), minute, at(1_000)).unwrap();
        assert_eq!((next.expiry, previous.expiry), (old.expiry, old.expiry));
    }

    #[test]
    fn an_expired_or_rotated_key_is_not_rotated() {
        let mut old = key(&["*.*.*"]);
        old.expiry = Expiry::At(at(5_000));
        assert_eq!(old.rotated(successor(), Duration::ZERO, at(5_000)).unwrap_err(), RotationRefused::Expired);
        let (next, previous) = old.rotated(successor(), Duration::from_secs(1), at(1)).unwrap();
        assert_eq!(
            previous.rotated(successor(), Duration::ZERO, at(2)).unwrap_err(),
            RotationRefused::AlreadyRotated(next.id)
        );
    }

    #[test]
    fn a_caller_that_does_not_cover_a_key_may_only_narrow_it() {
        let caller = key(&["root_keys.*.update_root_key"]);
        let target = key(&["*.*.*"]);
        let narrowed = [
            RootKey { enabled: false, ..target.clone() },
            RootKey { expiry: Expiry::At(at(9)), ..target.clone() },
            RootKey { grants: Grants::none(), ..target.clone() },
            RootKey { allowed: AllowList::parse(["10.0.0.0/8"]).unwrap(), ..target.clone() },
        ];
        for next in narrowed {
            assert_eq!(target.may_become(&next, &caller), Ok(()));
            assert_eq!(next.may_become(&target, &caller), Err(Excess::Permissions));
        }
        let renamed =
            RootKey { name: Name::new("mine", crate::domain::name::ROOT_KEY_NAME).unwrap(), ..target.clone() };
        assert_eq!(target.may_become(&renamed, &caller), Err(Excess::Permissions));
    }

    #[test]
    fn nobody_widens_past_their_own_life_or_addresses() {
        let caller = RootKey { expiry: Expiry::At(at(100)), ..key(&["*.*.*"]) };
        let target = RootKey { enabled: false, ..key(&["*.*.*"]) };
        let next = RootKey { enabled: true, ..target.clone() };
        assert_eq!(target.may_become(&next, &caller), Err(Excess::Life));
        let caller = RootKey { allowed: AllowList::parse(["10.0.0.0/8"]).unwrap(), ..key(&["*.*.*"]) };
        assert_eq!(target.may_become(&next, &caller), Err(Excess::Addresses));
    }
}
