//! The same verbs, done for real: parsed at the edge as the wire would, through recognition and the service.

use std::sync::Arc;
use std::time::Duration;

use ostiary::domain::capability::{Grant, Grants};
use ostiary::domain::id::{PermissionId, Reference, RoleId};
use ostiary::domain::key::DescribedKey;
use ostiary::domain::name::{API_NAME, DESCRIPTION, Description, KEY_NAME, Name, ROLE_NAME, ROOT_KEY_NAME};
use ostiary::domain::network::AllowList;
use ostiary::domain::permission::Slug;
use ostiary::domain::query::Query;
use ostiary::domain::secret::{Prefix, Secret};
use ostiary::domain::time::{Expiry, Timestamp};
use ostiary::domain::value::Metadata;
use ostiary::domain::workspace::Quotas;
use ostiary::error::Error;
use ostiary::rpc::status::reason;
use ostiary::service::apis::{ApiDraft, ApiPatch, CountedApi};
use ostiary::service::caller::{Call as Envelope, Caller, Idempotency};
use ostiary::service::keys::{Deletion, KeyDraft, KeyPatch};
use ostiary::service::pace::Pace;
use ostiary::service::permissions::{PermissionDraft, PermissionPatch};
use ostiary::service::roles::{CountedRole, RoleDraft, RolePatch};
use ostiary::service::root_keys::{Insistence, Reach, RootKeyDraft, RootKeyPatch};
use ostiary::service::verify::{Counting, Detail, VerifyQuestion};
use ostiary::service::workspaces::WorkspacePatch;
use ostiary::service::{Assignment, Done, Ostiary, PermissionAssignment, RoleAssignment, Run, founding};
use ostiary::service::{Purging, Retention, Revision};
use ostiary::store::Engine;
use ostiary::store::memory::MemoryEngine;
use ostiary::store::redb::{RedbEngine, RedbOptions};
use ostiary::world::World;
use tempfile::TempDir;

use super::naive::Refusal;
use super::steps::{ADDRESSES, Call, How, Life, NETS, Sent, Verb};
use crate::harness::{Kept, START};

const EPOCH: u64 = 0x0123_4567_89ab_cdef;

/// An ostiary without its server, and what it stands on.
pub struct Rig {
    pub world: Arc<World>,
    pub engine: Arc<dyn Engine>,
    pub ostiary: Ostiary,
    /// The secret of the first root key of all.
    pub first: String,
    kept: Kept,
    directory: TempDir,
}

impl Rig {
    pub async fn new(kept: Kept, seed: u64) -> Self {
        let directory = TempDir::new().unwrap();
        let world = Arc::new(World::made_up(Timestamp::from_millis(START).unwrap(), seed));
        let engine = open(kept, &directory);
        let secret = Secret::issue(&Prefix::root_key(), world.random());
        let first = secret.expose().to_owned();
        founding::found(engine.as_ref(), &world, secret).await.unwrap();
        let ostiary = serve(&engine, &world).await;
        Self { world, engine, ostiary, first, kept, directory }
    }

    /// Closes everything and opens it again. What is kept in memory stays in this process.
    pub async fn restart(&mut self) {
        match self.kept {
            Kept::OnDisk => {
                self.ostiary.close().await;
                self.engine = open(self.kept, &self.directory);
            }
            Kept::InMemory => self.ostiary.flush_usage(Pace::AtOnce).await.unwrap(),
        }
        self.ostiary = serve(&self.engine, &self.world).await;
    }

    pub fn now(&self) -> u64 {
        self.world.now().millis()
    }

    pub async fn recognise(&self, secret: &str, from: usize) -> Result<Caller, Error> {
        self.recognise_call(secret, from, None).await
    }

    async fn recognise_call(
        &self,
        secret: &str,
        from: usize,
        idempotency: Option<Idempotency>,
    ) -> Result<Caller, Error> {
        let remote = Some(ADDRESSES[from].parse().unwrap());
        let call = Envelope { remote, idempotency, ..Envelope::default() };
        self.ostiary.authenticate(&Secret::presented(secret.to_owned()), call).await
    }

    /// Makes the call, under an idempotency key if there is one.
    pub async fn call(&self, call: &Call, etag: &str, once: Option<&str>) -> Result<Done<Made>, Refusal> {
        let idempotency =
            once.map(|key| Idempotency::new(key, &Secret::presented(call.secret.clone()), verb_name(&call.verb)));
        let outcome = async {
            let caller = self.recognise_call(&call.secret, call.from, idempotency).await?;
            self.verb(&caller, call, etag.to_owned()).await
        };
        outcome.await.map_err(|error: Error| refusal(&error))
    }

    async fn verb(&self, caller: &Caller, call: &Call, etag: String) -> Result<Done<Made>, Error> {
        let run = if call.rehearse { Run::Rehearse } else { Run::Apply };
        let rehearsed = |text: String| if call.rehearse { text } else { String::new() };
        let insistence = |force: bool| if force { Insistence::Forced } else { Insistence::No };
        let ostiary = &self.ostiary;
        Ok(match &call.verb {
            Verb::CreateRootKey { name, grants: texts, expire, net } => {
                let draft = RootKeyDraft {
                    name: Name::new(name, ROOT_KEY_NAME).unwrap(),
                    grants: grants(texts),
                    expiry: expiry(*expire),
                    allowed: nets(*net),
                };
                ostiary.create_root_key(caller, draft, run).await?.with(|issued| Made {
                    id: issued.root_key.id.to_string(),
                    secret: secret(issued.secret),
                    ..Made::default()
                })
            }
            Verb::UpdateRootKey { id, patch, force } => {
                let patch = RootKeyPatch {
                    name: patch.name.as_ref().map(|name| Name::new(name, ROOT_KEY_NAME).unwrap()),
                    grants: patch.grants.as_ref().map(|texts| grants(texts)),
                    enabled: patch.enabled,
                    expiry: patch.expire.map(expiry),
                    allowed: patch.net.map(nets),
                };
                let id = parsed(id, ostiary::domain::id::RootKeyId::parse);
                ostiary
                    .update_root_key(caller, id, patch, etag, insistence(*force), run)
                    .await?
                    .with(|_| Made::default())
            }
            Verb::RotateRootKey { id, grace, force } => {
                let id = parsed(id, ostiary::domain::id::RootKeyId::parse);
                let grace = Duration::from_millis(*grace);
                let done = ostiary.rotate_root_key(caller, id, grace, etag, insistence(*force), run).await?;
                done.with(|rotation| Made {
                    id: rotation.issued.root_key.id.to_string(),
                    secret: secret(rotation.issued.secret),
                    ..Made::default()
                })
            }
            Verb::DeleteRootKey { id, cascade, force } => {
                let id = parsed(id, ostiary::domain::id::RootKeyId::parse);
                let reach = if *cascade { Reach::Descendants } else { Reach::Alone };
                let done = ostiary.delete_root_key(caller, id, etag, reach, insistence(*force), run).await?;
                done.with(|ids| Made::of(joined(ids)))
            }
            Verb::BatchDelete { ids, force } => {
                let ids = ids.iter().map(|id| parsed(id, ostiary::domain::id::RootKeyId::parse)).collect();
                let done = ostiary.batch_delete_root_keys(caller, ids, insistence(*force), run).await?;
                done.with(|ids| Made::of(joined(ids)))
            }
            Verb::GetRootKey { id } => {
                let id = parsed(id, ostiary::domain::id::RootKeyId::parse);
                ostiary.root_key(caller, id, None).await?.with(|found| Made::of(found.root_key.id.to_string()))
            }
            Verb::CreateApi { name, ttl, protect, net } => {
                let draft = ApiDraft {
                    name: Name::new(name, API_NAME).unwrap(),
                    default_prefix: None,
                    default_ttl: ttl.map(Duration::from_millis),
                    delete_protection: *protect,
                    allowed: nets(*net),
                };
                let done = ostiary.create_api(caller, draft, run).await?;
                done.with(|made| Made { id: made.api.id.to_string(), ..Made::default() })
            }
            Verb::UpdateApi { id, name, protect, ttl, net } => {
                let patch = ApiPatch {
                    name: name.as_ref().map(|name| Name::new(name, API_NAME).unwrap()),
                    default_prefix: None,
                    default_ttl: ttl.map(|ttl| ttl.map(Duration::from_millis)),
                    delete_protection: *protect,
                    allowed: net.map(nets),
                };
                let id = parsed(id, ostiary::domain::id::ApiId::parse);
                ostiary.update_api(caller, id, patch, etag, run).await?.with(counted)
            }
            Verb::DeleteApi { id } => {
                let done = ostiary.delete_api(caller, parsed(id, ostiary::domain::id::ApiId::parse), etag, run).await?;
                done.with(|keys| Made::of(rehearsed(keys.unwrap_or_default().to_string())))
            }
            Verb::GetApi { id } => {
                let id = parsed(id, ostiary::domain::id::ApiId::parse);
                ostiary.api(caller, id, None).await?.with(counted)
            }
            Verb::CreateKey { api, roles, permissions, enabled, life, net } => {
                let draft = KeyDraft {
                    api: parsed(api, ostiary::domain::id::ApiId::parse),
                    name: Name::default(),
                    prefix: None,
                    metadata: Metadata::default(),
                    roles: role_references(roles),
                    permissions: permission_references(permissions),
                    enabled: *enabled,
                    expiry: match life {
                        Life::AsTheApiSays => None,
                        Life::Never => Some(Expiry::Never),
                        Life::Until(end) => Some(expiry(Some(*end))),
                    },
                    allowed: nets(*net),
                    external_id: None,
                    credits: None,
                    limits: ostiary::domain::limit::Limits::default(),
                };
                ostiary.create_key(caller, draft, run).await?.with(|issued| Made {
                    id: issued.key.key.id.to_string(),
                    secret: secret(issued.secret),
                    text: shown(&issued.key),
                    ..Made::default()
                })
            }
            Verb::UpdateKey { id, patch } => {
                let patch = KeyPatch {
                    name: patch.name.as_ref().map(|name| Name::new(name, KEY_NAME).unwrap()),
                    metadata: None,
                    enabled: patch.enabled,
                    expiry: patch.expire.map(expiry),
                    allowed: patch.net.map(nets),
                    roles: patch.roles.as_ref().map(|roles| role_references(roles)),
                    permissions: patch.permissions.as_ref().map(|all| permission_references(all)),
                    ..KeyPatch::default()
                };
                ostiary.update_key(caller, key_id(id), patch, etag, run).await?.with(|key| Made::of(shown(&key)))
            }
            Verb::DeleteKey { id, permanent } => {
                let deletion = if *permanent { Deletion::Permanent } else { Deletion::Restorable };
                ostiary.delete_key(caller, key_id(id), deletion, etag, run).await?.with(|()| Made::default())
            }
            Verb::UndeleteKey { id } => {
                ostiary.undelete_key(caller, key_id(id), etag, run).await?.with(|key| Made::of(shown(&key)))
            }
            Verb::GetKey { id } => ostiary.key(caller, key_id(id), None).await?.with(|key| Made::of(shown(&key))),
            Verb::LookupKey { secret } => {
                let done = ostiary.look_up_key(caller, Secret::presented(secret.clone()), None).await?;
                done.with(|key| Made::of(key.key.id.to_string()))
            }
            Verb::AssignRoles { id, how, roles } => {
                let roles = role_references(roles);
                let assignment = RoleAssignment { key: key_id(id), how: assignment(*how), roles, etag };
                ostiary.assign_roles(caller, assignment, run).await?.with(|key| Made::of(shown(&key)))
            }
            Verb::AssignPermissions { id, how, permissions } => {
                let permissions = permission_references(permissions);
                let assignment = PermissionAssignment { key: key_id(id), how: assignment(*how), permissions, etag };
                ostiary.assign_permissions(caller, assignment, run).await?.with(|key| Made::of(shown(&key)))
            }
            Verb::Verify { secret, audience, query, client } => {
                let question = VerifyQuestion {
                    secret: Secret::presented(secret.clone()),
                    audience: audience.as_ref().map(|id| parsed(id, ostiary::domain::id::ApiId::parse)),
                    client: client.map(|from| ADDRESSES[from].parse().unwrap()),
                    query: (!query.is_empty()).then(|| Arc::new(Query::parse(query).unwrap())),
                    cost: 1,
                    limits: Vec::new(),
                    detail: Detail::Full,
                    counting: Counting::Use,
                };
                // Once from what is remembered, and once from the store alone: they never disagree.
                let remembered =
                    VerifyQuestion { detail: Detail::Basic, counting: Counting::DryRun, ..question.clone() };
                let remembered = ostiary.verify_key(caller, &remembered, None).await?.answer;
                ostiary.verify_key(caller, &question, None).await?.with(|found| {
                    assert_eq!(remembered.verdict, found.verdict);
                    let verdict = format!("{:?}", found.verdict);
                    Made::of(verdict.split('(').next().unwrap_or_default().to_owned())
                })
            }
            Verb::CreateRole { name, permissions } => {
                let draft = RoleDraft {
                    name: Name::new(name, ROLE_NAME).unwrap(),
                    description: Description::default(),
                    permissions: permission_references(permissions),
                };
                let done = ostiary.create_role(caller, draft, run).await?;
                done.with(|role| Made { id: role.role.id.to_string(), text: shown_role(&role), ..Made::default() })
            }
            Verb::UpdateRole { role, name, description } => {
                let patch = RolePatch {
                    name: name.as_ref().map(|name| Name::new(name, ROLE_NAME).unwrap()),
                    description: description.as_ref().map(|text| Description::new(text, DESCRIPTION).unwrap()),
                };
                let done = ostiary.update_role(caller, role_reference(role), patch, etag, run).await?;
                done.with(|role| Made::of(shown_role(&role)))
            }
            Verb::SetRolePermissions { role, permissions } => {
                let all = permission_references(permissions);
                let done = ostiary.set_role_permissions(caller, role_reference(role), all, etag, run).await?;
                done.with(|role| Made::of(shown_role(&role)))
            }
            Verb::DeleteRole { role } => {
                let done = ostiary.delete_role(caller, role_reference(role), etag, run).await?;
                done.with(|loss| {
                    let words =
                        |loss: ostiary::service::roles::RoleLoss| format!("{} {}", loss.keys, texts(&loss.permissions));
                    Made::of(loss.map(words).unwrap_or_default())
                })
            }
            Verb::GetRole { role } => {
                ostiary.role(caller, role_reference(role), None).await?.with(|role| Made::of(shown_role(&role)))
            }
            Verb::CreatePermission { slug } => {
                let slug = Slug::new(slug).unwrap();
                let draft = PermissionDraft { slug, name: Name::default(), description: Description::default() };
                ostiary.create_permission(caller, draft, run).await?.with(|made| Made::of(made.slug.to_string()))
            }
            Verb::UpdatePermission { permission, name } => {
                let patch = PermissionPatch { name: Some(Name::new(name, KEY_NAME).unwrap()), description: None };
                let reference = permission_reference(permission);
                let done = ostiary.update_permission(caller, reference, patch, etag, run).await?;
                done.with(|one| Made::of(one.slug.to_string()))
            }
            Verb::DeletePermission { permission } => {
                let done = ostiary.delete_permission(caller, permission_reference(permission), etag, run).await?;
                done.with(|holders| {
                    Made::of(holders.map(|loss| format!("{} {}", loss.keys, loss.roles)).unwrap_or_default())
                })
            }
            Verb::GetPermission { permission } => {
                let done = ostiary.permission(caller, permission_reference(permission), None).await?;
                done.with(|one| Made::of(one.slug.to_string()))
            }
            Verb::CreateWorkspace { name } => {
                let name = Name::new(name, ROOT_KEY_NAME).unwrap();
                ostiary.create_workspace(caller, name, Quotas::default(), run).await?.with(|made| Made {
                    id: made.workspace.id.to_string(),
                    root_key: made.issued.root_key.id.to_string(),
                    secret: secret(made.issued.secret),
                    text: String::new(),
                })
            }
            Verb::UpdateWorkspace { id, name, enabled } => {
                let name = name.as_ref().map(|name| Name::new(name, ROOT_KEY_NAME).unwrap());
                let patch = WorkspacePatch { name, enabled: *enabled, quotas: None };
                ostiary.update_workspace(caller, workspace_id(id), patch, etag, run).await?.with(|_| Made::default())
            }
            Verb::DeleteWorkspace { id } => {
                let done = ostiary.delete_workspace(caller, workspace_id(id), etag, run).await?;
                done.with(|loss| {
                    Made::of(loss.map(|loss| format!("{} {}", loss.keys, loss.root_keys)).unwrap_or_default())
                })
            }
            Verb::GetWorkspace { id } => {
                let done = ostiary.workspace(caller, workspace_id(id), None).await?;
                done.with(|home| Made::of(home.name.to_string()))
            }
        })
    }
}

/// What a call made, and what it said.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Made {
    pub id: String,
    pub secret: String,
    pub root_key: String,
    pub text: String,
}

impl Made {
    fn of(text: String) -> Self {
        Self { text, ..Self::default() }
    }
}

trait With<T> {
    fn with(self, made: impl FnOnce(T) -> Made) -> Done<Made>;
}

impl<T> With<T> for Done<T> {
    fn with(self, made: impl FnOnce(T) -> Made) -> Done<Made> {
        let revision: Revision = self.revision;
        Done { answer: made(self.answer), revision }
    }
}

fn open(kept: Kept, directory: &TempDir) -> Arc<dyn Engine> {
    match kept {
        Kept::InMemory => Arc::new(MemoryEngine::new(EPOCH)),
        Kept::OnDisk => {
            Arc::new(RedbEngine::open(RedbOptions::new(directory.path().join("ostiary.redb"), EPOCH)).unwrap())
        }
    }
}

async fn serve(engine: &Arc<dyn Engine>, world: &Arc<World>) -> Ostiary {
    let (engine, world) = (Arc::clone(engine), Arc::clone(world));
    Ostiary::open(engine, world, Retention::default(), Purging::Allowed, crate::harness::CAPACITY).await.unwrap()
}

/// Code and reason.
pub fn refusal(error: &Error) -> Refusal {
    format!("{:?} {}", tonic::Status::from(error.clone()).code(), reason(error))
}

fn parsed<I>(text: &str, parse: fn(&str) -> Result<I, ostiary::domain::Flaw>) -> I {
    parse(text).unwrap()
}
fn key_id(text: &str) -> ostiary::domain::id::KeyId {
    parsed(text, ostiary::domain::id::KeyId::parse)
}
fn workspace_id(text: &str) -> ostiary::domain::id::WorkspaceId {
    parsed(text, ostiary::domain::id::WorkspaceId::parse)
}
fn role_reference(text: &str) -> Reference<RoleId> {
    RoleId::parse(text).map_or_else(|_| Reference::Name(text.to_owned()), Reference::Id)
}
fn role_references(texts: &[String]) -> Vec<Reference<RoleId>> {
    texts.iter().map(|text| role_reference(text)).collect()
}
fn permission_reference(text: &str) -> Reference<PermissionId> {
    PermissionId::parse(text).map_or_else(|_| Reference::Name(text.to_owned()), Reference::Id)
}
fn permission_references(texts: &[String]) -> Vec<Reference<PermissionId>> {
    texts.iter().map(|text| permission_reference(text)).collect()
}
fn grants(texts: &[String]) -> Grants {
    Grants::collect(texts.iter().map(|text| Grant::parse(text).unwrap())).unwrap()
}
fn nets(which: usize) -> AllowList {
    AllowList::parse(NETS[which].iter().copied()).unwrap()
}
fn expiry(end: Option<u64>) -> Expiry {
    end.map(|end| Timestamp::from_millis(end).unwrap()).into()
}
fn secret(secret: Option<Secret>) -> String {
    secret.map(|secret| secret.expose().to_owned()).unwrap_or_default()
}
fn assignment(how: How) -> Assignment {
    match how {
        How::Add => Assignment::Add,
        How::Remove => Assignment::Remove,
        How::Set => Assignment::Set,
    }
}
fn texts(slugs: &[Slug]) -> String {
    let mut texts: Vec<&str> = slugs.iter().map(Slug::as_str).collect();
    texts.sort_unstable();
    format!("{texts:?}")
}
fn joined(ids: Vec<ostiary::domain::id::RootKeyId>) -> String {
    let mut ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
    ids.sort();
    ids.join(" ")
}
fn counted(counted: CountedApi) -> Made {
    Made::of(counted.key_count.to_string())
}
pub fn shown(key: &DescribedKey) -> String {
    let roles: Vec<String> = key.roles.iter().map(|role| role.id.to_string()).collect();
    format!("{roles:?} {}", texts(&key.permissions))
}
pub fn shown_role(role: &CountedRole) -> String {
    format!("{} {}", role.key_count, texts(&role.permissions))
}

/// Whether a verb changes anything, so that it can be made under an idempotency key.
pub fn is_mutation(verb: &Verb) -> bool {
    !matches!(
        verb,
        Verb::GetRootKey { .. }
            | Verb::GetApi { .. }
            | Verb::GetKey { .. }
            | Verb::LookupKey { .. }
            | Verb::Verify { .. }
            | Verb::GetRole { .. }
            | Verb::GetPermission { .. }
            | Verb::GetWorkspace { .. }
    )
}

fn verb_name(verb: &Verb) -> &'static str {
    if is_mutation(verb) { "a mutation" } else { "a reading" }
}

/// The etag to send: the right one is whatever the row of the object has.
pub fn etag(sent: Sent, right: impl FnOnce() -> Option<String>) -> String {
    match sent {
        Sent::Nothing => String::new(),
        Sent::Right => right().unwrap_or_default(),
        Sent::Wrong => "v0".to_owned(),
    }
}
