//! An identity: the customer's user or organisation that keys belong to.

use super::etag::Etag;
use super::id::{IdentityId, WorkspaceId};
use super::limit::Limits;
use super::name::Name;
use super::time::Timestamp;
use super::value::{Facts, Metadata, Value};

/// Whose keys they are, and the limits that those keys share.
#[derive(Debug, Clone, PartialEq)]
pub struct Identity {
    /// Its id.
    pub id: IdentityId,
    /// Where it belongs.
    pub workspace: WorkspaceId,
    /// What the developer calls it; unique in the workspace, and never changed.
    pub external_id: Name,
    /// What the developer keeps beside it.
    pub metadata: Metadata,
    /// What its keys share.
    pub limits: Limits,
    /// When it was made.
    pub created: Timestamp,
    /// When it last changed visibly.
    pub updated: Timestamp,
    /// Which version this is.
    pub etag: Etag,
    /// When it was deleted, for good.
    pub deleted: Option<Timestamp>,
}

impl Identity {
    /// What the audit log says of it, without its metadata, which may be personal.
    pub fn facts(&self) -> Facts {
        Facts::from([
            ("external_id".into(), self.external_id.as_str().into()),
            ("rate_limits".into(), limit_facts(&self.limits)),
            ("metadata_fields".into(), self.metadata.facts().keys().map(String::as_str).collect::<Value>()),
        ])
    }
}

/// Limits in the audit log: `name: 10 in 1m`.
pub(super) fn limit_facts(limits: &Limits) -> Value {
    limits
        .iter()
        .map(|limit| {
            let span = humantime::format_duration(limit.rate.span());
            let always = match limit.application {
                super::limit::Application::Always => ", always",
                super::limit::Application::WhenNamed => "",
            };
            format!("{}: {} in {span}{always}", limit.name, limit.rate.limit())
        })
        .collect()
}
