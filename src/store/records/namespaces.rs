//! Namespaces of rate limits on disk, and the exceptions in them.

use std::time::Duration;

use crate::domain::etag::Etag;
use crate::domain::glob::Glob;
use crate::domain::id::{NamespaceId, OverrideId, WorkspaceId};
use crate::domain::limit::Rate;
use crate::domain::name::{IDENTIFIER, NAMESPACE_NAME, Name};
use crate::domain::namespace::{Namespace, Override, Pattern};
use crate::pb::storage;

use super::limits::span_millis;
use super::{Stored, id, millis, moment, optional_moment};

impl Stored<(WorkspaceId, NamespaceId)> for Namespace {
    type Message = storage::Namespace;

    fn to_message(&self) -> storage::Namespace {
        let Self { id: _, workspace: _, name, patterns, created, updated, etag, deleted } = self;
        let pattern =
            |(id, glob): &(OverrideId, Glob)| storage::Pattern { id: id.bytes().to_vec(), text: glob.to_string() };
        storage::Namespace {
            name: name.to_string(),
            patterns: patterns.iter().map(pattern).collect(),
            created: millis(*created),
            updated: millis(*updated),
            etag: etag.count(),
            deleted: deleted.map(millis),
        }
    }

    fn from_message(&(workspace, key): &(WorkspaceId, NamespaceId), message: storage::Namespace) -> Option<Self> {
        let storage::Namespace { name, patterns, created, updated, etag, deleted } = message;
        let pattern = |storage::Pattern { id: bytes, text }: storage::Pattern| {
            Some((id(&bytes, OverrideId::from_bytes)?, Glob::parse(&text).ok()?))
        };
        Some(Self {
            id: key,
            workspace,
            name: Name::new(&name, NAMESPACE_NAME).ok()?,
            patterns: patterns.into_iter().map(pattern).collect::<Option<_>>()?,
            created: moment(created)?,
            updated: moment(updated)?,
            etag: Etag::from_count(etag),
            deleted: optional_moment(deleted)?,
        })
    }
}

impl Stored<(WorkspaceId, NamespaceId, OverrideId)> for Override {
    type Message = storage::Override;

    fn to_message(&self) -> storage::Override {
        let Self { id: _, workspace: _, namespace: _, pattern, rate, created, updated, etag } = self;
        storage::Override {
            identifier: pattern.text().to_string(),
            limit: rate.limit(),
            span: span_millis(rate.span()),
            created: millis(*created),
            updated: millis(*updated),
            etag: etag.count(),
        }
    }

    fn from_message(
        &(workspace, namespace, key): &(WorkspaceId, NamespaceId, OverrideId),
        message: storage::Override,
    ) -> Option<Self> {
        let storage::Override { identifier, limit, span, created, updated, etag } = message;
        Some(Self {
            id: key,
            workspace,
            namespace,
            pattern: Pattern::new(Name::new(&identifier, IDENTIFIER).ok()?).ok()?,
            rate: Rate::or_block(limit, Duration::from_millis(span)).ok()?,
            created: moment(created)?,
            updated: moment(updated)?,
            etag: Etag::from_count(etag),
        })
    }
}
