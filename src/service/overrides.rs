//! Overrides: what some identifiers of a namespace are limited to, whatever callers ask for.

use crate::domain::audit::{EventName, Happening, Target};
use crate::domain::capability::Capability;
use crate::domain::etag::Etag;
use crate::domain::id::{NamespaceId, OverrideId, Reference, WorkspaceId};
use crate::domain::kind::Kind;
use crate::domain::limit::Rate;
use crate::domain::namespace::{Namespace, Override, PATTERNS_MAX, Pattern};
use crate::error::Error;
use crate::store::{Stop, Txn, tables};

use super::caller::Caller;
use super::change::{Change, Effect, Halt};
use super::listing::{ITEM_BYTES, Page, PageRequest};
use super::namespaces::{self, find};
use super::{Done, Ostiary, Revision, Run, counts};

fn target(exception: &Override) -> Target {
    Target::new(Kind::Override, exception.id, exception.pattern.text())
}

fn not_found(pattern: &Pattern) -> Error {
    Error::not_found(Kind::Override, pattern.text().as_str())
}

/// The exception of a namespace that concerns just this, inside a transaction.
fn look_up(tx: &mut Txn<'_>, namespace: &Namespace, pattern: &Pattern) -> Result<Option<Override>, Stop> {
    let spelled = (namespace.workspace, namespace.id, pattern.spelling());
    match tables::OVERRIDE_IDENTIFIERS.get(tx, &spelled)? {
        Some(id) => tables::OVERRIDES.get(tx, &row(namespace, id)),
        None => Ok(None),
    }
}

fn row(namespace: &Namespace, id: OverrideId) -> (WorkspaceId, NamespaceId, OverrideId) {
    (namespace.workspace, namespace.id, id)
}

/// Replaces an exception's rate.
fn replace(
    change: &mut Change<'_, '_>,
    namespace: &Namespace,
    before: Override,
    rate: Rate,
) -> Result<Effect<Override>, Halt> {
    if before.rate == rate {
        return Ok(Effect::Unchanged(before));
    }
    let after = Override { rate, updated: change.now, etag: before.etag.next(), ..before.clone() };
    tables::OVERRIDES.put(change.tx, &row(namespace, after.id), &after)?;
    let happening = Happening::changed(EventName::OVERRIDE_SET, target(&after), before.facts(), after.facts());
    Ok(Effect::Changed(after, happening.concerning(namespaces::target(namespace))))
}

/// Makes an exception where there is none.
fn make(change: &mut Change<'_, '_>, mut namespace: Namespace, made: Override) -> Result<Effect<Override>, Halt> {
    let (workspace, id) = (namespace.workspace, namespace.id);
    if let Some(glob) = made.pattern.glob() {
        if namespace.patterns.len() >= PATTERNS_MAX {
            let flaw = format!("would be one pattern more than the {PATTERNS_MAX} that a namespace can have");
            return Err(Error::field("identifier", flaw).into());
        }
        namespace.patterns.push((made.id, glob.clone()));
        tables::NAMESPACES.put(change.tx, &(workspace, id), &namespace)?;
    }
    tables::OVERRIDES.put(change.tx, &row(&namespace, made.id), &made)?;
    tables::OVERRIDE_IDENTIFIERS.put(change.tx, &(workspace, id, made.pattern.spelling()), &made.id)?;
    counts::overrides(change.tx, workspace, id, counts::By::Up)?;
    let happening = Happening::made(EventName::OVERRIDE_SET, target(&made), made.facts());
    Ok(Effect::Changed(made, happening.concerning(namespaces::target(&namespace))))
}

impl Ostiary {
    /// Makes an exception, or replaces the rate of the one that concerns just this.
    pub async fn set_override(
        &self,
        caller: &Caller,
        reference: Reference<NamespaceId>,
        (pattern, rate): (Pattern, Rate),
        etag: String,
        run: Run,
    ) -> Result<Done<Override>, Error> {
        let permit = caller.permit(Capability::SetOverride)?;
        let id = OverrideId::from_bytes(self.world.ulid());
        let changed = self
            .change(permit, run, move |change| {
                let namespace = find(change, Capability::SetOverride, &reference)?;
                let before = look_up(change.tx, &namespace, &pattern)?;
                // Who has read an exception that is gone must not take the new one for it.
                if !etag.is_empty() && before.as_ref().is_none_or(|before| !before.etag.matches(&etag)) {
                    return Err(Error::EtagMismatch.into());
                }
                if let Some(before) = before {
                    return replace(change, &namespace, before, rate);
                }
                let made = Override {
                    id,
                    workspace: namespace.workspace,
                    namespace: namespace.id,
                    pattern: pattern.clone(),
                    rate,
                    created: change.now,
                    updated: change.now,
                    etag: Etag::FIRST,
                };
                make(change, namespace, made)
            })
            .await?;
        Ok(changed.done)
    }

    /// One exception.
    pub async fn exception(
        &self,
        caller: &Caller,
        reference: Reference<NamespaceId>,
        pattern: Pattern,
        min_revision: Option<Revision>,
    ) -> Result<Done<Override>, Error> {
        let reading = self.read(min_revision).await?;
        let namespace = self.seen_namespace(caller, Capability::ReadOverride, &reference, &reading).await?;
        let spelled = (namespace.workspace, namespace.id, pattern.spelling());
        let id = tables::OVERRIDE_IDENTIFIERS.read(reading.view(), &spelled).await?;
        let id = id.ok_or_else(|| not_found(&pattern))?;
        let exception = tables::OVERRIDES.read(reading.view(), &row(&namespace, id)).await?;
        let exception = exception.ok_or_else(|| not_found(&pattern))?;
        Ok(reading.done(exception))
    }

    /// The exceptions of a namespace of which the identifier contains the text.
    pub async fn list_overrides(
        &self,
        caller: &Caller,
        reference: Reference<NamespaceId>,
        identifier_contains: Option<String>,
        page: PageRequest,
        min_revision: Option<Revision>,
    ) -> Result<Done<Page<Override>>, Error> {
        let reading = self.read(min_revision).await?;
        let namespace = self.seen_namespace(caller, Capability::ReadOverride, &reference, &reading).await?;
        let part = identifier_contains.map(|part| part.to_ascii_lowercase());
        let mut walk = self.walk(&tables::OVERRIDES, (namespace.workspace, namespace.id), &page)?;
        let mut found = Vec::new();
        while let Some((_, exception)) = walk.next(&reading).await? {
            if part.as_ref().is_none_or(|part| exception.pattern.text().folded().contains(part)) {
                found.push(exception);
                if walk.took(ITEM_BYTES) {
                    break;
                }
            }
        }
        Ok(reading.done(walk.page(&reading, found).await?))
    }

    /// Deletes an exception for good.
    pub async fn delete_override(
        &self,
        caller: &Caller,
        reference: Reference<NamespaceId>,
        pattern: Pattern,
        etag: String,
        run: Run,
    ) -> Result<Done<()>, Error> {
        let permit = caller.permit(Capability::DeleteOverride)?;
        let changed = self
            .change(permit, run, move |change| {
                let mut namespace = find(change, Capability::DeleteOverride, &reference)?;
                let before = look_up(change.tx, &namespace, &pattern)?.ok_or_else(|| not_found(&pattern))?;
                if !before.etag.matches(&etag) {
                    return Err(Error::EtagMismatch.into());
                }
                let (workspace, id) = (namespace.workspace, namespace.id);
                if before.pattern.glob().is_some() {
                    namespace.patterns.retain(|(held, _)| *held != before.id);
                    tables::NAMESPACES.put(change.tx, &(workspace, id), &namespace)?;
                }
                tables::OVERRIDES.remove(change.tx, &row(&namespace, before.id))?;
                tables::OVERRIDE_IDENTIFIERS.remove(change.tx, &(workspace, id, before.pattern.spelling()))?;
                counts::overrides(change.tx, workspace, id, counts::By::Down)?;
                let happening = Happening::removed(EventName::OVERRIDE_DELETE, target(&before), before.facts());
                Ok(Effect::Changed((), happening.concerning(namespaces::target(&namespace))))
            })
            .await?;
        Ok(changed.done)
    }
}
