//! What changes answer, in the form in which it is remembered for a call that is made again.
//!
//! A secret is never part of it.

use crate::domain::api::Api;
use crate::domain::credits::Uses;
use crate::domain::id::{ApiId, IdentityId, KeyId, PermissionId, RoleId, RootKeyId, WorkspaceId};
use crate::domain::identity::Identity;
use crate::domain::key::{DescribedKey, IssuedKey, RoleRef};
use crate::domain::name::{EXTERNAL_ID, Name, ROLE_NAME};
use crate::domain::permission::{Permission, Slug};
use crate::domain::role::Role;
use crate::domain::root_key::{IssuedRootKey, RootKey};
use crate::domain::time::Timestamp;
use crate::domain::workspace::Workspace;
use crate::pb::storage::{self, outcome::Outcome as Message};
use crate::store::records::{Stored, credits_message, cut_message, to_credits, to_cut};

use super::apis::CountedApi;
use super::identities::CountedIdentity;
use super::keys::{Reroll, Revocation};
use super::roles::CountedRole;
use super::root_keys::Rotation;
use super::workspaces::FoundedWorkspace;

/// The answer of a change.
pub trait Outcome: Sized {
    /// As it is remembered.
    fn to_outcome(&self) -> storage::Outcome;
    /// As it was remembered; none if what was remembered is the answer of something else.
    fn from_outcome(outcome: storage::Outcome) -> Option<Self>;
}

fn wrap(message: Message) -> storage::Outcome {
    storage::Outcome { outcome: Some(message) }
}

/// What was remembered, if it is of the expected kind.
macro_rules! expect {
    ($outcome:expr, $variant:ident) => {
        match $outcome.outcome? {
            Message::$variant(message) => message,
            _ => return None,
        }
    };
}

mod limits;

fn bytes16(bytes: &[u8]) -> Option<[u8; 16]> {
    bytes.try_into().ok()
}

fn workspace_id(bytes: &[u8]) -> Option<WorkspaceId> {
    bytes16(bytes).map(WorkspaceId::from_bytes)
}

impl Outcome for () {
    fn to_outcome(&self) -> storage::Outcome {
        wrap(Message::Nothing(true))
    }
    fn from_outcome(outcome: storage::Outcome) -> Option<Self> {
        expect!(outcome, Nothing).then_some(())
    }
}

fn root_key_message(root_key: &RootKey) -> storage::RootKeyOutcome {
    storage::RootKeyOutcome {
        workspace: root_key.workspace.bytes().to_vec(),
        id: root_key.id.bytes().to_vec(),
        root_key: Some(root_key.to_message()),
    }
}

fn to_root_key(message: storage::RootKeyOutcome) -> Option<RootKey> {
    let storage::RootKeyOutcome { workspace, id, root_key } = message;
    RootKey::from_message(&(workspace_id(&workspace)?, RootKeyId::from_bytes(bytes16(&id)?)), root_key?)
}

impl Outcome for RootKey {
    fn to_outcome(&self) -> storage::Outcome {
        wrap(Message::RootKey(root_key_message(self)))
    }
    fn from_outcome(outcome: storage::Outcome) -> Option<Self> {
        to_root_key(expect!(outcome, RootKey))
    }
}

impl Outcome for IssuedRootKey {
    fn to_outcome(&self) -> storage::Outcome {
        self.root_key.to_outcome()
    }
    fn from_outcome(outcome: storage::Outcome) -> Option<Self> {
        Some(Self { root_key: RootKey::from_outcome(outcome)?, secret: None })
    }
}

impl Outcome for Rotation {
    fn to_outcome(&self) -> storage::Outcome {
        let Self { issued, previous } = self;
        wrap(Message::Rotation(storage::RotationOutcome {
            next: Some(root_key_message(&issued.root_key)),
            previous: Some(root_key_message(previous)),
        }))
    }
    fn from_outcome(outcome: storage::Outcome) -> Option<Self> {
        let storage::RotationOutcome { next, previous } = expect!(outcome, Rotation);
        let issued = IssuedRootKey { root_key: to_root_key(next?)?, secret: None };
        Some(Self { issued, previous: to_root_key(previous?)? })
    }
}

impl Outcome for Vec<RootKeyId> {
    fn to_outcome(&self) -> storage::Outcome {
        wrap(Message::RootKeys(storage::Ids { ids: self.iter().map(|id| id.bytes().to_vec()).collect() }))
    }
    fn from_outcome(outcome: storage::Outcome) -> Option<Self> {
        let storage::Ids { ids } = expect!(outcome, RootKeys);
        ids.iter().map(|id| bytes16(id).map(RootKeyId::from_bytes)).collect()
    }
}

fn workspace_message(workspace: &Workspace, root_key: Option<&RootKey>) -> storage::Outcome {
    wrap(Message::Workspace(storage::WorkspaceOutcome {
        id: workspace.id.bytes().to_vec(),
        workspace: Some(workspace.to_message()),
        root_key: root_key.map(root_key_message),
    }))
}

impl Outcome for Workspace {
    fn to_outcome(&self) -> storage::Outcome {
        workspace_message(self, None)
    }
    fn from_outcome(outcome: storage::Outcome) -> Option<Self> {
        let storage::WorkspaceOutcome { id, workspace, root_key: _ } = expect!(outcome, Workspace);
        Self::from_message(&(workspace_id(&id)?,), workspace?)
    }
}

impl Outcome for FoundedWorkspace {
    fn to_outcome(&self) -> storage::Outcome {
        let Self { workspace, issued } = self;
        workspace_message(workspace, Some(&issued.root_key))
    }
    fn from_outcome(outcome: storage::Outcome) -> Option<Self> {
        let storage::WorkspaceOutcome { id, workspace, root_key } = expect!(outcome, Workspace);
        let workspace = Workspace::from_message(&(workspace_id(&id)?,), workspace?)?;
        Some(Self { workspace, issued: IssuedRootKey { root_key: to_root_key(root_key?)?, secret: None } })
    }
}

impl Outcome for CountedApi {
    fn to_outcome(&self) -> storage::Outcome {
        let Self { api, key_count } = self;
        wrap(Message::Api(storage::ApiOutcome {
            workspace: api.workspace.bytes().to_vec(),
            id: api.id.bytes().to_vec(),
            api: Some(api.to_message()),
            key_count: *key_count,
        }))
    }
    fn from_outcome(outcome: storage::Outcome) -> Option<Self> {
        let storage::ApiOutcome { workspace, id, api, key_count } = expect!(outcome, Api);
        let key = (workspace_id(&workspace)?, ApiId::from_bytes(bytes16(&id)?));
        Some(Self { api: Api::from_message(&key, api?)?, key_count })
    }
}

fn roles_message(roles: &[RoleRef]) -> storage::RoleRefs {
    let roles =
        roles.iter().map(|RoleRef { id, name }| storage::RoleRef { id: id.bytes().to_vec(), name: name.to_string() });
    storage::RoleRefs { roles: roles.collect() }
}

fn to_roles(message: storage::RoleRefs) -> Option<Vec<RoleRef>> {
    let roles = message.roles.into_iter().map(|storage::RoleRef { id, name }| {
        Some(RoleRef { id: RoleId::from_bytes(bytes16(&id)?), name: Name::new(&name, ROLE_NAME).ok()? })
    });
    roles.collect()
}

fn slugs_message(slugs: &[Slug]) -> storage::Texts {
    storage::Texts { texts: slugs.iter().map(ToString::to_string).collect() }
}

fn to_slugs(message: &storage::Texts) -> Option<Vec<Slug>> {
    message.texts.iter().map(|slug| Slug::new(slug).ok()).collect()
}

fn key_message(described: &DescribedKey) -> storage::KeyOutcome {
    let DescribedKey { key, roles, permissions, external_id, credits, last_used } = described;
    storage::KeyOutcome {
        workspace: key.workspace.bytes().to_vec(),
        id: key.id.bytes().to_vec(),
        key: Some(key.to_message()),
        roles: Some(roles_message(roles)),
        permissions: Some(slugs_message(permissions)),
        last_used: last_used.map(Timestamp::millis),
        external_id: external_id.as_ref().map(ToString::to_string),
        credits: credits.as_ref().map(credits_message),
    }
}

fn to_key(message: storage::KeyOutcome) -> Option<DescribedKey> {
    let storage::KeyOutcome { workspace, id, key, roles, permissions, last_used, external_id, credits } = message;
    let row = (workspace_id(&workspace)?, KeyId::from_bytes(bytes16(&id)?));
    Some(DescribedKey {
        key: crate::domain::key::Key::from_message(&row, key?)?,
        roles: to_roles(roles?)?,
        permissions: to_slugs(&permissions?)?,
        external_id: external_id.map(|text| Name::new(&text, EXTERNAL_ID)).transpose().ok()?,
        credits: match credits {
            None => None,
            Some(credits) => Some(to_credits(credits)?),
        },
        last_used: last_used.map(Timestamp::from_millis_saturating),
    })
}

impl Outcome for DescribedKey {
    fn to_outcome(&self) -> storage::Outcome {
        wrap(Message::Key(key_message(self)))
    }
    fn from_outcome(outcome: storage::Outcome) -> Option<Self> {
        to_key(expect!(outcome, Key))
    }
}

impl Outcome for Reroll {
    fn to_outcome(&self) -> storage::Outcome {
        let Self { issued, previous } = self;
        wrap(Message::Reroll(storage::RerollOutcome {
            next: Some(key_message(&issued.key)),
            previous: Some(key_message(previous)),
        }))
    }
    fn from_outcome(outcome: storage::Outcome) -> Option<Self> {
        let storage::RerollOutcome { next, previous } = expect!(outcome, Reroll);
        let issued = IssuedKey { key: to_key(next?)?, secret: None };
        Some(Self { issued, previous: to_key(previous?)? })
    }
}

impl Outcome for Revocation {
    fn to_outcome(&self) -> storage::Outcome {
        use storage::revocation_outcome::Keys;
        let keys = match self {
            Self::Counted(count) => Keys::Counted(*count),
            Self::Cut(cut) => Keys::Cut(cut_message(cut)),
        };
        wrap(Message::Revocation(storage::RevocationOutcome { keys: Some(keys) }))
    }
    fn from_outcome(outcome: storage::Outcome) -> Option<Self> {
        use storage::revocation_outcome::Keys;
        let storage::RevocationOutcome { keys } = expect!(outcome, Revocation);
        Some(match keys? {
            Keys::Counted(count) => Self::Counted(count),
            Keys::Cut(cut) => Self::Cut(to_cut(cut)?),
        })
    }
}

impl Outcome for IssuedKey {
    fn to_outcome(&self) -> storage::Outcome {
        self.key.to_outcome()
    }
    fn from_outcome(outcome: storage::Outcome) -> Option<Self> {
        Some(Self { key: DescribedKey::from_outcome(outcome)?, secret: None })
    }
}

impl Outcome for Uses {
    fn to_outcome(&self) -> storage::Outcome {
        let remaining = match self {
            Self::Unlimited => None,
            Self::Left(left) => Some(*left),
        };
        wrap(Message::Uses(storage::UsesOutcome { remaining }))
    }
    fn from_outcome(outcome: storage::Outcome) -> Option<Self> {
        let storage::UsesOutcome { remaining } = expect!(outcome, Uses);
        Some(remaining.map_or(Self::Unlimited, Self::Left))
    }
}

impl Outcome for CountedRole {
    fn to_outcome(&self) -> storage::Outcome {
        let Self { role, permissions, key_count } = self;
        wrap(Message::Role(storage::RoleOutcome {
            workspace: role.workspace.bytes().to_vec(),
            id: role.id.bytes().to_vec(),
            role: Some(role.to_message()),
            key_count: *key_count,
            permissions: Some(slugs_message(permissions)),
        }))
    }
    fn from_outcome(outcome: storage::Outcome) -> Option<Self> {
        let storage::RoleOutcome { workspace, id, role, key_count, permissions } = expect!(outcome, Role);
        let row = (workspace_id(&workspace)?, RoleId::from_bytes(bytes16(&id)?));
        Some(Self { role: Role::from_message(&row, role?)?, permissions: to_slugs(&permissions?)?, key_count })
    }
}

impl Outcome for Permission {
    fn to_outcome(&self) -> storage::Outcome {
        wrap(Message::Permission(storage::PermissionOutcome {
            workspace: self.workspace.bytes().to_vec(),
            id: self.id.bytes().to_vec(),
            permission: Some(self.to_message()),
        }))
    }
    fn from_outcome(outcome: storage::Outcome) -> Option<Self> {
        let storage::PermissionOutcome { workspace, id, permission } = expect!(outcome, Permission);
        let row = (workspace_id(&workspace)?, PermissionId::from_bytes(bytes16(&id)?));
        Self::from_message(&row, permission?)
    }
}

impl Outcome for CountedIdentity {
    fn to_outcome(&self) -> storage::Outcome {
        let Self { identity, key_count } = self;
        wrap(Message::Identity(storage::IdentityOutcome {
            workspace: identity.workspace.bytes().to_vec(),
            id: identity.id.bytes().to_vec(),
            identity: Some(identity.to_message()),
            key_count: *key_count,
        }))
    }
    fn from_outcome(outcome: storage::Outcome) -> Option<Self> {
        let storage::IdentityOutcome { workspace, id, identity, key_count } = expect!(outcome, Identity);
        let row = (workspace_id(&workspace)?, IdentityId::from_bytes(bytes16(&id)?));
        Some(Self { identity: Identity::from_message(&row, identity?)?, key_count })
    }
}
