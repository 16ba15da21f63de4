//! What changes of namespaces, exceptions and what is counted in them answer.

use std::time::Duration;

use crate::domain::id::{NamespaceId, OverrideId};
use crate::domain::namespace::{Namespace, Override};
use crate::domain::time::Timestamp;
use crate::pb::storage::{self, outcome::Outcome as Message};
use crate::service::limiting::Charged;
use crate::service::namespaces::CountedNamespace;
use crate::service::windows::Standing;
use crate::store::records::{Stored, span_millis};

use super::{Outcome, bytes16, workspace_id, wrap};

impl Outcome for CountedNamespace {
    fn to_outcome(&self) -> storage::Outcome {
        let Self { namespace, override_count } = self;
        wrap(Message::Namespace(storage::NamespaceOutcome {
            workspace: namespace.workspace.bytes().to_vec(),
            id: namespace.id.bytes().to_vec(),
            namespace: Some(namespace.to_message()),
            override_count: *override_count,
        }))
    }
    fn from_outcome(outcome: storage::Outcome) -> Option<Self> {
        let storage::NamespaceOutcome { workspace, id, namespace, override_count } = expect!(outcome, Namespace);
        let row = (workspace_id(&workspace)?, NamespaceId::from_bytes(bytes16(&id)?));
        Some(Self { namespace: Namespace::from_message(&row, namespace?)?, override_count })
    }
}

impl Outcome for Override {
    fn to_outcome(&self) -> storage::Outcome {
        wrap(Message::Override(storage::OverrideOutcome {
            workspace: self.workspace.bytes().to_vec(),
            namespace: self.namespace.bytes().to_vec(),
            id: self.id.bytes().to_vec(),
            r#override: Some(self.to_message()),
        }))
    }
    fn from_outcome(outcome: storage::Outcome) -> Option<Self> {
        let storage::OverrideOutcome { workspace, namespace, id, r#override: exception } = expect!(outcome, Override);
        let namespace = NamespaceId::from_bytes(bytes16(&namespace)?);
        let row = (workspace_id(&workspace)?, namespace, OverrideId::from_bytes(bytes16(&id)?));
        Self::from_message(&row, exception?)
    }
}

impl Outcome for Vec<Charged> {
    fn to_outcome(&self) -> storage::Outcome {
        let charged = |charged: &Charged| {
            let Charged { standing: Standing { exceeded, limit, left, reset, retry_after }, exception } = charged;
            storage::Charged {
                refused: *exceeded,
                limit: *limit,
                left: *left,
                reset: reset.map(Timestamp::millis),
                retry_after: retry_after.map(span_millis),
                r#override: exception.map(|id| id.bytes().to_vec()).unwrap_or_default(),
            }
        };
        wrap(Message::Charged(storage::ChargedOutcome { charged: self.iter().map(charged).collect() }))
    }
    fn from_outcome(outcome: storage::Outcome) -> Option<Self> {
        let storage::ChargedOutcome { charged } = expect!(outcome, Charged);
        let to_charged = |charged: storage::Charged| {
            let storage::Charged { refused, limit, left, reset, retry_after, r#override: exception } = charged;
            let reset = reset.map(Timestamp::from_millis_saturating);
            let retry_after = retry_after.map(Duration::from_millis);
            let exception = match exception.as_slice() {
                [] => None,
                bytes => Some(OverrideId::from_bytes(bytes16(bytes)?)),
            };
            Some(Charged { standing: Standing { exceeded: refused, limit, left, reset, retry_after }, exception })
        };
        charged.into_iter().map(to_charged).collect()
    }
}
