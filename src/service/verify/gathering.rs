//! Gathering what a verdict depends on, as it is at one moment.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use crate::domain::card::Card;
use crate::domain::credits::Meter;
use crate::domain::id::PermissionId;
use crate::domain::identity::Identity;
use crate::domain::key::RoleRef;
use crate::domain::limit;
use crate::domain::permission::Slug;
use crate::domain::workspace::Workspace;
use crate::error::Error;
use crate::service::caller::Caller;
use crate::service::counts::keys_of_identity_in;
use crate::service::credits::Account;
use crate::service::identities::CountedIdentity;
use crate::service::sight::{Holder, Seen, Setting, Sight};
use crate::service::{Ostiary, Reading, Revision};
use crate::store::cache::Entry;
use crate::store::tables::{self, Subject};

use super::{Detail, VerifyQuestion, WholeKey};

/// A key with what its verdict depends on.
pub(super) struct Gathered {
    holder: Seen<Holder>,
    setting: Arc<Setting>,
    identity: Option<Seen<Identity>>,
    meter: Option<Entry<Meter>>,
    pub(super) whole: Option<Box<WholeKey>>,
}

/// The same as it is looked at. What many calls share is not claimed by each of them: counting the claims would cost
/// more than the look.
#[derive(Clone, Copy)]
pub(super) struct Facts<'a> {
    pub home: &'a Workspace,
    pub holder: &'a Holder,
    pub setting: &'a Setting,
    pub identity: Option<&'a Identity>,
    pub meter: Option<&'a Meter>,
}

impl Sight<'_> {
    async fn gather(&mut self, home: &Workspace, question: &VerifyQuestion) -> Result<Option<Gathered>, Error> {
        let workspace = home.id;
        let Some(holder) = self.holder(home, &question.secret).await? else { return Ok(None) };
        let setting = self.setting(&holder.record, question.query.as_deref()).await?;
        let card = &holder.record.card;
        let identity = match card.identity {
            Some(id) => self.record(&tables::IDENTITIES, &(workspace, id)).await?,
            None => None,
        };
        let meter = match card.meter {
            Some(lineage) => {
                let meter = self.meter((workspace, lineage)).await?;
                // Without it the key would be good for ever.
                Some(meter.ok_or_else(|| Error::Internal(format!("the meter {lineage} is missing")))?)
            }
            None => None,
        };
        let mut gathered = Gathered { holder, setting, identity, meter, whole: None };
        if question.detail == Detail::Full {
            gathered.whole = self.whole(gathered.facts(home)).await?.map(Box::new);
        }
        Ok(Some(gathered))
    }

    async fn whole(&mut self, facts: Facts<'_>) -> Result<Option<WholeKey>, Error> {
        let workspace = facts.home.id;
        let card = &facts.holder.card;
        let roles = &facts.setting.roles;
        let through_roles = roles.iter().flat_map(|role| &role.record.permissions);
        let held: HashMap<PermissionId, &Slug> =
            card.traits.permissions.iter().chain(through_roles).map(|held| (held.id, &held.slug)).collect();
        let mut permissions = BTreeSet::new();
        for (id, slug) in held {
            if self.lives(workspace, id).await? {
                permissions.insert(slug.clone());
            }
        }
        let roles = roles.iter().map(|role| RoleRef { id: role.record.id, name: role.record.name.clone() }).collect();
        let view = self.view().await?;
        let identity = match facts.identity {
            Some(identity) => {
                let identity = identity.clone();
                let key_count = keys_of_identity_in(view, workspace, identity.id).await?;
                Some(CountedIdentity { identity, key_count })
            }
            None => None,
        };
        let key = tables::KEYS.read(view, &(workspace, card.id)).await?;
        let permissions = permissions.into_iter().collect();
        Ok(key.map(|key| WholeKey { key, roles, permissions, identity }))
    }
}

impl Gathered {
    pub(super) fn facts<'a>(&'a self, home: &'a Workspace) -> Facts<'a> {
        let Self { holder, setting, identity, meter, whole: _ } = self;
        Facts::new(home, holder, setting, identity.as_ref(), meter.as_ref())
    }
}

impl<'a> Facts<'a> {
    pub fn new(
        home: &'a Workspace,
        holder: &'a Seen<Holder>,
        setting: &'a Setting,
        identity: Option<&'a Seen<Identity>>,
        meter: Option<&'a Entry<Meter>>,
    ) -> Self {
        // An identity that has been deleted is none.
        let identity = identity.map(|identity| &identity.record).filter(|identity| identity.deleted.is_none());
        Self { home, holder: &holder.record, setting, identity, meter: meter.map(|meter| &meter.record) }
    }

    pub fn card(self) -> &'a Card {
        &self.holder.card
    }

    pub fn account(self) -> Account {
        (self.home.id, self.card().lineage())
    }

    /// With whom a limit counts.
    pub fn subject(self, counting: limit::Counting) -> Subject {
        match (counting, self.identity) {
            (limit::Counting::Identity, Some(identity)) => Subject::Identity(identity.id),
            (limit::Counting::Identity | limit::Counting::Key, _) => Subject::Key(self.card().lineage()),
        }
    }
}

impl Ostiary {
    /// The key that is asked about, with what its verdict depends on, as all of it was at one moment.
    pub(super) async fn gathered(
        &self,
        caller: &Caller,
        question: &VerifyQuestion,
        min_revision: Option<Revision>,
    ) -> Result<(Seen<Workspace>, Option<Gathered>, Revision), Error> {
        if self.has_reached(min_revision) && question.detail == Detail::Basic {
            let mut sight = Sight::remembering(self);
            let home = &caller.workspace;
            sight.include(home);
            match sight.gather(&home.record, question).await {
                Ok(gathered) => {
                    if let Some(revision) = sight.holds_at() {
                        return Ok((Arc::clone(home), gathered, revision));
                    }
                }
                // The store may have been opened again while it was looked at: the view below waits for that.
                Err(Error::StoreUnavailable) => {}
                Err(error) => return Err(error),
            }
        }
        let Reading { view, .. } = self.read(min_revision).await?;
        let revision = view.revision();
        let mut sight = Sight::anew(self, view);
        let home = sight.record(&tables::WORKSPACES, &(caller.workspace_id(),)).await?;
        let home = home.ok_or_else(|| Error::Internal("a recognised caller has no workspace".to_owned()))?;
        let gathered = sight.gather(&home.record, question).await?;
        Ok((home, gathered, revision))
    }
}
