//! An API key: the credential that developers hand to their customers, and what verifying one answers.

use std::net::IpAddr;
use std::time::Duration;

use super::api::Api;
use super::credits::{Credits, Uses};
use super::cut::Traces;
use super::etag::Etag;
use super::id::{ApiId, IdentityId, KeyId, RoleId, RootKeyId, WorkspaceId};
use super::identity::limit_facts;
use super::limit::Limits;
use super::name::Name;
use super::network::AllowList;
use super::permission::Slug;
use super::query::Query;
use super::role::Held;
use super::root_key::moment_fact;
use super::rotation::{RotationRefused, rest_of_life};
use super::secret::{Digest, Prefix, Secret};
use super::time::{Expiry, Timestamp};
use super::value::{Facts, Metadata, Value};
use super::workspace::Workspace;

/// How many roles a key can hold.
pub const ROLES_MAX: usize = 50;

/// Whether a key is still there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// Yes.
    Here,
    /// Deleted at this moment, and restorable for a while.
    Deleted(Timestamp),
    /// Deleted at this moment for good.
    Gone(Timestamp),
    /// Revoked by a filter, for good; the record stays for a while and says so.
    Revoked {
        /// When.
        at: Timestamp,
        /// By the cut that was made at this revision.
        by: u64,
        /// When it had been deleted before, if it had.
        deleted: Option<Timestamp>,
    },
}

/// An API key as stored: everything but its secret.
#[derive(Debug, Clone, PartialEq)]
pub struct Key {
    /// Its id.
    pub id: KeyId,
    /// Where it belongs.
    pub workspace: WorkspaceId,
    /// The set it is part of.
    pub api: ApiId,
    /// What people call it; may be empty.
    pub name: Name,
    /// What the secret begins with; none if it was issued elsewhere and that is not known.
    pub prefix: Option<Prefix>,
    /// How it is shown: the beginning of the secret, as far as it is known.
    pub start: String,
    /// How it is found.
    pub digest: Digest,
    /// Whose it is. The identity may have been deleted since.
    pub identity: Option<IdentityId>,
    /// What the developer keeps beside it.
    pub metadata: Metadata,
    /// Roles it holds, in the order of their ids. Some of them may have been deleted since.
    pub roles: Vec<RoleId>,
    /// Permissions it holds directly, ordered by slug. Some of them may have been deleted since.
    pub permissions: Vec<Held>,
    /// Switched on.
    pub enabled: bool,
    /// How long it lives.
    pub expiry: Expiry,
    /// From where it may be used.
    pub allowed: AllowList,
    /// How often it may be used.
    pub limits: Limits,
    /// The account that it shares with all that it was rerolled from and to, named after the first of them. None: it has
    /// never been rerolled and may be used without limit.
    pub meter: Option<KeyId>,
    /// Whose successor it is.
    pub rotated_from: Option<KeyId>,
    /// Its successor.
    pub rotated_to: Option<KeyId>,
    /// Who made it.
    pub created_by: RootKeyId,
    /// When it was made.
    pub created: Timestamp,
    /// When it last changed visibly.
    pub updated: Timestamp,
    /// Which version this is.
    pub etag: Etag,
    /// Whether it is still there.
    pub presence: Presence,
    /// The revision at which it was written last: cuts made later may take it.
    pub written: u64,
}

/// What became of a key: the first that applies, in this order, so that what is hardest to undo comes first.
///
/// A verification refuses in another order, in which being disabled comes before having expired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Revoked by a filter, for good.
    Revoked,
    /// Deleted; can be restored for a while.
    Deleted,
    /// Its life is over.
    Expired,
    /// Switched off.
    Disabled,
    /// It lives on for its grace period only.
    RotatedOut,
    /// Good.
    Active,
}

/// What a rerolled key is made of besides its predecessor.
#[derive(Debug, Clone)]
pub struct Successor {
    /// The new id.
    pub id: KeyId,
    /// How it will be found.
    pub digest: Digest,
    /// What its secret begins with.
    pub prefix: Prefix,
    /// How it will be shown.
    pub start: String,
    /// Who rerolls.
    pub by: RootKeyId,
}

/// A key together with its secret: the only value that holds both, made once and handed out once.
#[derive(Debug, Clone)]
pub struct IssuedKey {
    /// The record, with the names of what it holds.
    pub key: DescribedKey,
    /// The plaintext; absent where nothing was made because the call was a rehearsal.
    pub secret: Option<Secret>,
}

/// A role as it is named beside a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoleRef {
    /// Its id.
    pub id: RoleId,
    /// Its name.
    pub name: Name,
}

/// A key with what it holds resolved: only roles and permissions that still exist.
#[derive(Debug, Clone, PartialEq)]
pub struct DescribedKey {
    /// The record.
    pub key: Key,
    /// The roles it holds that still exist.
    pub roles: Vec<RoleRef>,
    /// The permissions it holds directly that still exist.
    pub permissions: Vec<Slug>,
    /// What the developer calls its identity, if that still exists.
    pub external_id: Option<Name>,
    /// What is left to use, unless it may be used without limit.
    pub credits: Option<Credits>,
    /// When it was last verified, as far as is known.
    pub last_used: Option<Timestamp>,
}

/// What is asked about a key.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// The moment it is asked at.
    pub now: Timestamp,
    /// The API that the caller expects the key to be of.
    pub audience: Option<ApiId>,
    /// Where the key's holder called from.
    pub client: Option<IpAddr>,
    /// What the key should be allowed to do.
    pub query: Option<&'a Query>,
    /// How many credits the call costs.
    pub cost: u64,
}

/// What a verdict needs to know besides the key itself.
#[derive(Debug, Clone, Copy)]
pub struct Surroundings<'a> {
    /// Whether the caller may verify keys of the key's API.
    pub caller_may_verify: bool,
    /// The key's workspace, with the cuts that may take it.
    pub home: &'a Workspace,
    /// The key's API, if there is a record of it.
    pub api: Option<&'a Api>,
    /// The permissions that count: held directly or through a role, all of them existing.
    pub permissions: &'a [Slug],
    /// The rate limits that the call would exceed.
    pub exceeded: &'a [Name],
    /// What is left to use.
    pub uses: Uses,
}

/// The answer about a key. The first refusal wins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// There is no such key, as far as this caller may know.
    NotFound,
    /// It is switched off.
    Disabled,
    /// Its life is over.
    Expired,
    /// It may not be used from there.
    Forbidden,
    /// It lacks these permissions.
    InsufficientPermissions(Vec<String>),
    /// It is used too often, by these limits.
    RateLimited(Vec<String>),
    /// It has too few credits left.
    UsageExceeded,
    /// It is good.
    Valid,
}

impl Verdict {
    /// What they are called, in the order of [`Verdict::place`].
    pub const NAMES: [&str; 8] = [
        "VALID",
        "NOT_FOUND",
        "DISABLED",
        "EXPIRED",
        "FORBIDDEN",
        "INSUFFICIENT_PERMISSIONS",
        "RATE_LIMITED",
        "USAGE_EXCEEDED",
    ];

    /// Which of the names it has.
    pub const fn place(&self) -> usize {
        match self {
            Self::Valid => 0,
            Self::NotFound => 1,
            Self::Disabled => 2,
            Self::Expired => 3,
            Self::Forbidden => 4,
            Self::InsufficientPermissions(_) => 5,
            Self::RateLimited(_) => 6,
            Self::UsageExceeded => 7,
        }
    }

    /// A sentence that says what was missing.
    pub fn reason(&self) -> String {
        match self {
            Self::NotFound => "there is no such key".to_owned(),
            Self::Disabled => "the key is disabled".to_owned(),
            Self::Expired => "the key has expired".to_owned(),
            Self::Forbidden => "the key may not be used from this address".to_owned(),
            Self::InsufficientPermissions(missing) => format!("the key lacks {}", missing.join(", ")),
            Self::RateLimited(exceeded) => format!("the key is used too often: {}", exceeded.join(", ")),
            Self::UsageExceeded => "the key has too few credits left".to_owned(),
            Self::Valid => String::new(),
        }
    }
}

impl Key {
    /// What became of it.
    pub fn state(&self, now: Timestamp) -> State {
        match self.presence {
            Presence::Revoked { .. } => return State::Revoked,
            Presence::Deleted(_) | Presence::Gone(_) => return State::Deleted,
            Presence::Here => {}
        }
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

    /// Whether there is nothing left of it to be shown: deleted for good, or longer ago than a deleted key can be restored.
    pub fn is_gone(&self, now: Timestamp, restorable: Duration) -> bool {
        match self.presence {
            Presence::Here | Presence::Revoked { deleted: None, .. } => false,
            // One that could no longer be restored when it was revoked does not come back to be shown.
            Presence::Revoked { at, by: _, deleted: Some(deleted) } => {
                Expiry::At(deleted.after(restorable)).has_passed(at)
            }
            Presence::Deleted(at) => Expiry::At(at.after(restorable)).has_passed(now),
            Presence::Gone(_) => true,
        }
    }

    /// What cuts look at.
    pub fn traces(&self) -> Traces<'_> {
        let Self { api, identity, ref roles, created_by, created, written, .. } = *self;
        Traces { api, identity, roles, created_by, created, written }
    }

    /// Whether it counts among those that there are: its successor counts for one that has been rerolled.
    pub fn is_counted(&self) -> bool {
        self.presence == Presence::Here && self.rotated_to.is_none()
    }

    /// Whether it is there and has a successor, which counts for it.
    pub fn is_replaced(&self) -> bool {
        self.presence == Presence::Here && self.rotated_to.is_some()
    }

    /// The name of what all its generations share.
    pub fn lineage(&self) -> KeyId {
        self.meter.unwrap_or(self.id)
    }

    /// Makes the successor, and ends this one's life after `grace`, never later than it would have ended anyway. Both
    /// count against the same account and limits.
    pub fn rerolled(
        &self,
        successor: Successor,
        grace: Duration,
        now: Timestamp,
    ) -> Result<(Self, Self), RotationRefused<KeyId>> {
        let rest = rest_of_life(self.rotated_to, self.expiry, grace, now)?;
        let Successor { id, digest, prefix, start, by } = successor;
        let meter = Some(self.lineage());
        let previous =
            Self { rotated_to: Some(id), expiry: rest, meter, updated: now, etag: self.etag.next(), ..self.clone() };
        let next = Self {
            id,
            digest,
            prefix: Some(prefix),
            start,
            meter,
            rotated_from: Some(self.id),
            rotated_to: None,
            created_by: by,
            created: now,
            updated: now,
            etag: Etag::FIRST,
            ..self.clone()
        };
        Ok((next, previous))
    }

    /// What the audit log says of it, without its metadata, which may be personal.
    pub fn facts(&self) -> Facts {
        let mut facts = Facts::from([
            ("api_id".into(), self.api.to_string().into()),
            ("name".into(), self.name.as_str().into()),
            ("start".into(), self.start.as_str().into()),
            ("enabled".into(), self.enabled.into()),
            ("roles".into(), self.roles.iter().map(ToString::to_string).collect()),
            ("permissions".into(), self.permissions.iter().map(|held| held.slug.as_str()).collect()),
            ("allowed_cidrs".into(), self.allowed.iter().map(|network| network.to_string()).collect()),
            ("metadata_fields".into(), self.metadata.facts().keys().map(String::as_str).collect::<Value>()),
        ]);
        facts.extend(self.expiry.moment().map(|moment| ("expire_time".into(), moment_fact(moment))));
        facts.extend(self.identity.map(|id| ("identity_id".into(), id.to_string().into())));
        facts.extend((!self.limits.is_empty()).then(|| ("rate_limits".into(), limit_facts(&self.limits))));
        facts.extend(self.rotated_from.map(|id| ("rotated_from".into(), id.to_string().into())));
        facts.extend(self.rotated_to.map(|id| ("rotated_to".into(), id.to_string().into())));
        facts
    }
}
