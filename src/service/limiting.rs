//! Limiting whatever callers name: what is counted, by which rate, all or nothing.

use std::collections::BTreeMap;

use sha2::{Digest as _, Sha256};

use crate::domain::audit::{EventName, Happening};
use crate::domain::capability::Capability;
use crate::domain::glob::Glob;
use crate::domain::id::{NamespaceId, OverrideId, Reference};
use crate::domain::kind::Kind;
use crate::domain::limit::Rate;
use crate::domain::name::{NAMESPACE_NAME, Name};
use crate::domain::namespace::Namespace;
use crate::domain::value::Facts;
use crate::domain::window::Admission;
use crate::error::Error;
use crate::store::tables::{self, Subject};

use super::caller::{Caller, Permit};
use super::change::{Changed, Effect, trying};
use super::namespaces::{self, find};
use super::windows::{Admissions, Ask, Remainder, Standing};
use super::{Done, Ostiary, Reading, Run};

/// Something that is to be let through.
#[derive(Debug, Clone)]
pub struct Charge {
    /// Where it counts.
    pub namespace: Reference<NamespaceId>,
    /// With whom.
    pub identifier: Name,
    /// What it is limited to, unless there is an exception.
    pub rate: Rate,
    /// How much it counts.
    pub cost: u64,
    /// How the request leads to its fields: `items[3].`, or nothing.
    pub path: String,
}

/// What the limit says to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Charged {
    /// How the limit stands.
    pub standing: Standing,
    /// The exception that took the place of the rate in the request.
    pub exception: Option<OverrideId>,
}

/// A charge with the rate that applies to it.
struct Weighed {
    namespace: NamespaceId,
    subject: Subject,
    rate: Rate,
    exception: Option<OverrideId>,
    cost: u64,
}

/// With whom an identifier counts.
fn subject(namespace: NamespaceId, identifier: &Name) -> Subject {
    let mut hasher = Sha256::new();
    hasher.update(namespace.bytes());
    hasher.update(identifier.as_str());
    let digest: [u8; 32] = hasher.finalize().into();
    let mut beginning = [0; 16];
    beginning.copy_from_slice(&digest[..16]);
    Subject::Identifier(beginning)
}

impl Reading {
    /// The charge with the rate of the exception that fits its identifier best, else with its own.
    async fn weigh(&self, namespace: &Namespace, charge: &Charge) -> Result<Weighed, Error> {
        let (workspace, id) = (namespace.workspace, namespace.id);
        let identifier = charge.identifier.as_str();
        let spelled = (workspace, id, Glob::literal(identifier).to_string());
        let exact = tables::OVERRIDE_IDENTIFIERS.read(self.view(), &spelled).await?;
        let fitting = exact.or_else(|| namespace.best_pattern(identifier));
        let exception = match fitting {
            Some(exception) => tables::OVERRIDES.read(self.view(), &(workspace, id, exception)).await?,
            None => None,
        };
        Ok(Weighed {
            namespace: id,
            subject: subject(id, &charge.identifier),
            rate: exception.as_ref().map_or(charge.rate, |exception| exception.rate),
            exception: exception.map(|exception| exception.id),
            cost: charge.cost,
        })
    }
}

impl Ostiary {
    /// Lets everything through that is charged, if every limit has room for it; else nothing.
    ///
    /// Under an idempotency key it counts once, however often it is called.
    pub async fn limit(&self, caller: &Caller, charges: Vec<Charge>) -> Result<Done<Vec<Charged>>, Error> {
        let permit = caller.permit(Capability::Limit)?;
        trying!(async {
            if self.is_remembered(caller).await? {
                // Answered as it was then. If it has been forgotten meanwhile, it begins anew.
                return self.change(permit, Run::Apply, |_| Err(Error::Conflict.into())).await;
            }
            self.charge(permit, &charges).await
        })
    }

    async fn charge(&self, permit: Permit<'_>, charges: &[Charge]) -> Result<Changed<Vec<Charged>>, Error> {
        let caller = permit.caller;
        let (reading, weighed) = self.weighed(caller, charges).await?;
        let ask = |weighed: &Weighed| Ask {
            inline: false,
            workspace: caller.workspace_id(),
            subject: weighed.subject,
            name: "",
            rate: weighed.rate,
            cost: weighed.cost,
        };
        let asks: Vec<Ask<'_>> = weighed.iter().map(ask).collect();
        let now = reading.now;
        let path = |index: usize| charges[index].path.clone();
        let admissions = self.windows.admit_if(&asks, None, now, || true).map_err(|full| full.error(path))?;
        let refused = |admission: &Admission| matches!(admission, Admission::Refused { .. });
        let counted = !admissions.iter().any(refused);
        // What was not counted is shown as it stands, without the charge.
        let free: Vec<Ask<'_>> = asks.iter().map(|ask| Ask { cost: 0, ..*ask }).collect();
        let standing = if counted { Admissions::new() } else { self.windows.peek(&free, now) };
        let mut charged = Vec::with_capacity(weighed.len());
        for (index, (weighed, admission)) in weighed.iter().zip(admissions).enumerate() {
            let stands = standing.get(index).copied().filter(|_| !refused(&admission));
            let standing = Standing::new(weighed.rate.limit(), stands.unwrap_or(admission), now);
            charged.push(Charged { standing, exception: weighed.exception });
        }
        if caller.call.idempotency.is_none() {
            return Ok(Changed { done: reading.done(charged), repeated: false });
        }
        // Nothing is waited for between the counting and the change's place in the queue: a caller who goes away
        // leaves both or neither.
        let namespaces: Vec<NamespaceId> = weighed.iter().map(|weighed| weighed.namespace).collect();
        let remembered = self
            .change(permit, Run::Apply, move |change| {
                for namespace in &namespaces {
                    change.insist(Capability::Limit, namespace, (Kind::Namespace, &namespace.to_string()))?;
                }
                Ok(Effect::Unchanged(charged.clone()))
            })
            .await;
        let ours = matches!(&remembered, Ok(Changed { repeated: false, .. }) | Err(Error::OutcomeUnknown));
        if counted && !ours {
            self.windows.take_back(&asks, now);
        }
        remembered
    }

    /// The charges with the rates that apply. Namespaces that are not there are made if the caller may do that.
    async fn weighed(&self, caller: &Caller, charges: &[Charge]) -> Result<(Reading, Vec<Weighed>), Error> {
        let mut reading = self.read(None).await?;
        let may_make = [Capability::Limit, Capability::CreateNamespace].map(|needed| caller.allowing_whole(needed));
        let mut namespaces: BTreeMap<String, Namespace> = BTreeMap::new();
        for Charge { namespace: reference, .. } in charges {
            let name = reference.to_string();
            if namespaces.contains_key(&name) {
                continue;
            }
            let workspace = caller.workspace_id();
            let mut found = reading.find_namespace(workspace, reference).await?;
            if found.is_none()
                && let Reference::Name(name) = reference
                && let [Some(_), Some(_)] = may_make
            {
                let name =
                    Name::new(name, NAMESPACE_NAME).map_err(|flaw| Error::field("namespace", flaw.to_string()))?;
                self.make_namespace_on_use(caller, name).await?;
                reading = self.read(None).await?;
                found = reading.find_namespace(workspace, reference).await?;
            }
            let found = found.ok_or_else(|| Error::not_found(Kind::Namespace, &name))?;
            self.insist(caller, Capability::Limit, found.id, (Kind::Namespace, &name), reading.now)?;
            namespaces.insert(name, found);
        }
        let mut weighed = Vec::with_capacity(charges.len());
        for charge in charges {
            // Comparing with many patterns takes its time: others go on in between.
            tokio::task::yield_now().await;
            weighed.push(reading.weigh(&namespaces[&charge.namespace.to_string()], charge).await?);
        }
        Ok((reading, weighed))
    }

    /// Forgets what was counted for an identifier, in spans of every length.
    pub async fn reset_identifier(
        &self,
        caller: &Caller,
        reference: Reference<NamespaceId>,
        identifier: Name,
        run: Run,
    ) -> Result<Done<()>, Error> {
        let permit = caller.permit(Capability::UpdateNamespace)?;
        trying!(async {
            let workspace = caller.workspace_id();
            let seen = self.read(None).await?.find_namespace(workspace, &reference).await?.map(|seen| seen.id);
            let (reference, named) = (reference.clone(), identifier.clone());
            let forgetting = |rest: Option<Remainder>| async move {
                let changed = self
                    .change(permit, run, move |change| {
                        let namespace = find(change, Capability::UpdateNamespace, &reference)?;
                        if Some(namespace.id) != seen {
                            return Err(Error::Conflict.into());
                        }
                        if let Some(rest) = &rest {
                            rest.save(change.tx)?;
                        }
                        let event = EventName::NAMESPACE_RESET_IDENTIFIER;
                        let facts = Facts::from([("identifier".into(), named.as_str().into())]);
                        Ok(Effect::Changed((), Happening::made(event, namespaces::target(&namespace), facts)))
                    })
                    .await?;
                let forgotten = run == Run::Apply && !changed.repeated;
                Ok((changed, forgotten))
            };
            match seen {
                Some(id) => {
                    let place = (workspace, subject(id, &identifier));
                    self.forget_windows(place, |rest| forgetting(Some(rest))).await
                }
                // There is nothing to forget, but a call that was made before to be answered.
                None => forgetting(None).await.map(|(changed, _)| changed),
            }
        })
    }
}
