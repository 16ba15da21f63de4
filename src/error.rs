//! Why not, sorted by what the caller should do about it.
//!
//! Every layer above the domain answers with this one type. It knows nothing of gRPC; `rpc/status.rs`
//! gives each variant its code, reason and details. No variant carries a secret, and none carries
//! internal text that would reach a caller: [`Error::Internal`] keeps its words for the log.

use std::fmt;
use std::time::Duration;

use crate::domain::capability::Capability;
use crate::domain::id::{KeyId, RootKeyId};
use crate::domain::kind::Kind;
use crate::domain::workspace::Quota;
use crate::domain::{Flaw, query::QueryFlaw, secret};
use crate::store::Failure;

/// One field that can't be what it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The path of the field in the request, as in the proto: `permissions[3]`.
    pub field: String,
    /// Why not.
    pub flaw: Flaw,
}

impl Violation {
    /// A field and why it can't be that.
    pub fn new(field: impl Into<String>, flaw: Flaw) -> Self {
        Self { field: field.into(), flaw }
    }
}

/// Why nobody was recognised. In the order in which the checks are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unrecognised {
    /// No `authorization` header.
    Missing,
    /// Not exactly one `Bearer <root key>`.
    Malformed,
    /// No such root key: unknown, deleted, or not a root key at all.
    Invalid,
    /// Its workspace is disabled.
    WorkspaceDisabled,
    /// It is disabled.
    Disabled,
    /// It has expired.
    Expired,
    /// It may not be used from this address.
    Address,
}

impl Unrecognised {
    /// Whether there is such a root key, so that whoever shows it has proven to know it.
    pub const fn is_known(self) -> bool {
        match self {
            Self::Missing | Self::Malformed | Self::Invalid => false,
            Self::WorkspaceDisabled | Self::Disabled | Self::Expired | Self::Address => true,
        }
    }
}

/// What stands in the way of a change that is otherwise fine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Obstacle {
    /// The root key has expired, which is final.
    RootKeyExpired,
    /// The root key has a successor already.
    AlreadyRotated {
        /// Which.
        successor: RootKeyId,
    },
    /// The key has expired.
    KeyExpired,
    /// The key has been revoked, which is final.
    KeyRevoked,
    /// The key has a successor already.
    AlreadyRerolled {
        /// Which.
        successor: KeyId,
    },
    /// The key may be used without limit, so there is no balance to change.
    CreditsUnlimited,
    /// The workspace would be left without an administrator.
    LastAdministrator,
    /// The operator workspace can't be disabled or deleted.
    OperatorWorkspace,
    /// The API is protected against deletion.
    DeleteProtected,
    /// The revision asked for was never issued by this store.
    RevisionUnknown,
}

/// Why not.
#[derive(Debug, Clone, PartialEq)]
pub enum Error {
    /// Present a good root key.
    Unauthenticated(Unrecognised),
    /// Get this permission.
    PermissionMissing(Capability),
    /// Ask for less: nobody hands on more than they hold.
    GrantExceedsOwn(String),
    /// Check the name. Also the answer for what the caller may not see.
    NotFound {
        /// What was looked for.
        kind: Kind,
        /// The id or name as the caller gave it.
        name: String,
    },
    /// Choose another name.
    AlreadyExists {
        /// What exists.
        kind: Kind,
        /// Its name.
        name: String,
    },
    /// The key that should be imported is one that the workspace has, or has had and still keeps.
    DigestTaken,
    /// The call had succeeded before, and its secret can't be shown again.
    SecretAlreadyDelivered {
        /// What was made.
        kind: Kind,
        /// Its id.
        id: String,
    },
    /// Correct these fields.
    Invalid(Vec<Violation>),
    /// Correct the permission query.
    Query {
        /// The field that holds it.
        field: &'static str,
        /// Where and why.
        flaw: QueryFlaw,
    },
    /// Start the listing again.
    PageToken,
    /// Use a new idempotency key.
    IdempotencyKeyReused,
    /// Change the state of things first.
    Precondition {
        /// What is in the way.
        obstacle: Obstacle,
        /// The object that is.
        subject: String,
        /// A sentence with the remedy.
        description: String,
    },
    /// Read it again: somebody changed it.
    EtagMismatch,
    /// Try again: others kept changing it meanwhile.
    Conflict,
    /// Wait before presenting more root keys.
    AttemptsLimited {
        /// How long.
        retry_after: Duration,
    },
    /// Have or do less, or get a larger quota.
    QuotaExceeded {
        /// Which.
        quota: Quota,
        /// How much it allows.
        limit: u64,
        /// How long to wait, where waiting helps.
        retry_after: Option<Duration>,
    },
    /// Send less at once.
    MessageTooLarge,
    /// Try again in a moment; nothing was done.
    Overloaded {
        /// How long to wait.
        retry_after: Duration,
    },
    /// Try again later; nothing was done.
    StoreUnavailable,
    /// Look before trying again: it may have been done.
    OutcomeUnknown,
    /// Try another instance.
    ShuttingDown,
    /// Give it more time.
    DeadlineExceeded,
    /// No such method.
    Unimplemented,
    /// Report it with the request id. The text is for the log.
    Internal(String),
}

impl Error {
    /// One field that can't be what it is.
    pub fn field(field: impl Into<String>, flaw: impl Into<std::borrow::Cow<'static, str>>) -> Self {
        Self::Invalid(vec![Violation::new(field, Flaw::new(flaw))])
    }

    /// Not there, or not for this caller's eyes.
    pub fn not_found(kind: Kind, name: impl fmt::Display) -> Self {
        Self::NotFound { kind, name: secret::fit_to_show(&name.to_string()).into_owned() }
    }

    /// Whether it is ostiary's own failing rather than an answer.
    pub const fn is_fault(&self) -> bool {
        matches!(self, Self::Internal(_) | Self::StoreUnavailable | Self::OutcomeUnknown | Self::Overloaded { .. })
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Unavailable(_) => Self::StoreUnavailable,
            Failure::Unknown(_) => Self::OutcomeUnknown,
            Failure::Overloaded => Self::Overloaded { retry_after: Duration::from_millis(100) },
            Failure::Closed => Self::ShuttingDown,
            Failure::TooLarge { what, limit } => {
                Self::Internal(format!("a transaction passed its bound: {what}, {limit}"))
            }
            Failure::Corrupt(what) => Self::Internal(format!("stored data is damaged: {what}")),
            Failure::Panicked => Self::Internal("a transaction panicked".to_owned()),
            Failure::Compacted => Self::Internal("a change feed fell behind".to_owned()),
        }
    }
}

impl From<Violation> for Error {
    fn from(violation: Violation) -> Self {
        Self::Invalid(vec![violation])
    }
}
