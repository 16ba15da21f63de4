//! API keys on disk.

use std::collections::BTreeMap;

use crate::domain::etag::Etag;
use crate::domain::id::{ApiId, IdentityId, KeyId, RoleId, RootKeyId, WorkspaceId};
use crate::domain::key::{Key, Presence};
use crate::domain::name::{KEY_NAME, Name};
use crate::domain::secret::Prefix;
use crate::domain::time::{Expiry, Timestamp};
use crate::domain::value::Metadata;
use crate::pb::{self, storage};

use super::limits::{limit_messages, to_limits};
use super::{Stored, allow_list, digest, held, id, millis, moment, networks, optional_id, optional_moment, to_held};

impl Stored<(WorkspaceId, KeyId)> for Key {
    type Message = storage::Key;

    fn to_message(&self) -> storage::Key {
        let Self {
            id: _,
            workspace: _,
            api,
            name,
            prefix,
            start,
            digest,
            identity,
            metadata,
            roles,
            permissions,
            enabled,
            expiry,
            allowed,
            limits,
            meter,
            rotated_from,
            rotated_to,
            created_by,
            created,
            updated,
            etag,
            presence,
            written,
        } = self;
        storage::Key {
            api: api.bytes().to_vec(),
            name: name.to_string(),
            prefix: prefix.as_ref().map(ToString::to_string).unwrap_or_default(),
            start: start.clone(),
            digest: digest.bytes().to_vec(),
            metadata: (!metadata.facts().is_empty()).then(|| pb::from_facts(metadata.facts())),
            roles: roles.iter().map(|role| role.bytes().to_vec()).collect(),
            permissions: held(permissions),
            enabled: *enabled,
            expires: expiry.moment().map(millis),
            allowed: networks(allowed),
            created_by: created_by.bytes().to_vec(),
            created: millis(*created),
            updated: millis(*updated),
            etag: etag.count(),
            absence: match presence {
                Presence::Here => None,
                Presence::Deleted(at) => Some(storage::key::Absence::Deleted(millis(*at))),
                Presence::Gone(at) => Some(storage::key::Absence::Gone(millis(*at))),
                Presence::Revoked { at, by, deleted } => Some(storage::key::Absence::Revoked(storage::Revoked {
                    at: millis(*at),
                    by: *by,
                    deleted: deleted.map(millis),
                })),
            },
            written: *written,
            identity: identity.map(|id| id.bytes().to_vec()),
            limits: limit_messages(limits),
            meter: meter.map(|id| id.bytes().to_vec()),
            rotated_from: rotated_from.map(|id| id.bytes().to_vec()),
            rotated_to: rotated_to.map(|id| id.bytes().to_vec()),
        }
    }

    fn from_message(&(workspace, key): &(WorkspaceId, KeyId), message: storage::Key) -> Option<Self> {
        let storage::Key {
            api,
            name,
            prefix,
            start,
            digest: digest_bytes,
            metadata,
            roles,
            permissions,
            enabled,
            expires,
            allowed,
            created_by,
            created,
            updated,
            etag,
            absence,
            written,
            identity,
            limits,
            meter,
            rotated_from,
            rotated_to,
        } = message;
        Some(Self {
            id: key,
            workspace,
            api: id(&api, ApiId::from_bytes)?,
            name: Name::new(&name, KEY_NAME).ok()?,
            prefix: match prefix.as_str() {
                "" => None,
                text => Some(Prefix::new(text).ok()?),
            },
            start,
            digest: digest(&digest_bytes)?,
            identity: optional_id(identity.as_deref(), IdentityId::from_bytes)?,
            metadata: Metadata::new(metadata.map(pb::to_facts).unwrap_or_default()).ok()?,
            roles: roles.iter().map(|role| id(role, RoleId::from_bytes)).collect::<Option<_>>()?,
            permissions: to_held(&permissions)?,
            enabled,
            expiry: Expiry::from(optional_moment(expires)?),
            allowed: allow_list(&allowed)?,
            limits: to_limits(limits)?,
            meter: optional_id(meter.as_deref(), KeyId::from_bytes)?,
            rotated_from: optional_id(rotated_from.as_deref(), KeyId::from_bytes)?,
            rotated_to: optional_id(rotated_to.as_deref(), KeyId::from_bytes)?,
            created_by: id(&created_by, RootKeyId::from_bytes)?,
            created: moment(created)?,
            updated: moment(updated)?,
            etag: Etag::from_count(etag),
            presence: match absence {
                None => Presence::Here,
                Some(storage::key::Absence::Deleted(at)) => Presence::Deleted(moment(at)?),
                Some(storage::key::Absence::Gone(at)) => Presence::Gone(moment(at)?),
                Some(storage::key::Absence::Revoked(storage::Revoked { at, by, deleted })) => {
                    Presence::Revoked { at: moment(at)?, by, deleted: optional_moment(deleted)? }
                }
            },
            written,
        })
    }
}

/// When some keys were last used, ordered by their ids.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LastUses(pub BTreeMap<KeyId, Timestamp>);

impl Stored<(u16,)> for LastUses {
    type Message = storage::LastUses;

    fn to_message(&self) -> storage::LastUses {
        let keys = self.0.keys().flat_map(|id| id.bytes()).collect();
        storage::LastUses { keys, moments: self.0.values().map(|moment| millis(*moment)).collect() }
    }

    fn from_message(_: &(u16,), message: storage::LastUses) -> Option<Self> {
        let storage::LastUses { keys, moments } = message;
        let (ids, rest) = keys.as_chunks::<16>();
        if !rest.is_empty() || ids.len() != moments.len() {
            return None;
        }
        let uses = ids.iter().zip(moments).map(|(id, last)| Some((KeyId::from_bytes(*id), moment(last)?)));
        Some(Self(uses.collect::<Option<_>>()?))
    }
}
