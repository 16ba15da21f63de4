//! Whether what everybody sees is what the model says they see.

use std::collections::BTreeSet;

use ostiary::domain::key::{Presence, State as KeyState};
use ostiary::domain::network::AllowList;
use ostiary::domain::root_key::State;
use ostiary::domain::time::Expiry;
use ostiary::error::Error;
use ostiary::service::Done;
use ostiary::service::caller::Caller as Recognised;
use ostiary::service::keys::{KeyFilter, Shown};
use ostiary::service::listing::{Page, PageRequest};
use ostiary::service::root_keys::RootKeyFilter;

use super::naive::{Model, Refusal, RootKey, There};
use super::real::{Rig, refusal, shown, shown_role};
use super::steps::{Call, NETS, QUERIES, Sent, Verb};
use super::verbs::Caller;

/// More than any sequence makes, so that a list has one page.
const PAGE: usize = 1_000;

/// Compares what everybody is, what some see in every list, and what every key is worth.
pub async fn everything(rig: &Rig, model: &Model) -> Result<(), String> {
    let now = rig.now();
    let mut callers: Vec<RootKey> = Vec::new();
    for secret in model.root_key_secrets() {
        let is = rig.recognise(&secret, 0).await.map(|_| ()).map_err(|error| refusal(&error));
        let should = model.recognise(&secret, 0, now);
        callers.extend(should.clone().ok());
        same("recognition", &is, &should.map(|_| ()))?;
    }
    let mighty = |key: &RootKey| key.grants.contains(&"*.*.*".to_owned());
    for home in &model.workspaces {
        let mut here = callers.iter().filter(|key| key.home == home.id);
        let first = here.clone().find(|key| mighty(key));
        // Another one each time, so that in the end all have looked.
        let others: Vec<&RootKey> = here.by_ref().filter(|key| !mighty(key)).collect();
        let other = others.get(now as usize % others.len().max(1)).copied();
        for key in first.into_iter().chain(other) {
            let caller = rig.recognise(&key.secret, 0).await.map_err(|error| refusal(&error))?;
            let naive = Caller { key: key.clone(), operator: home.operator, etag: Sent::Nothing, now };
            lists(rig, model, &caller, &naive).await.map_err(|why| format!("seen by {}: {why}", key.id))?;
        }
        if let Some(key) = first {
            verdicts(rig, model, key).await?;
        }
    }
    Ok(())
}

/// Every key that ever was, asked for everything that is ever asked.
async fn verdicts(rig: &Rig, model: &Model, key: &RootKey) -> Result<(), String> {
    for secret in model.key_secrets() {
        for (place, query) in QUERIES.into_iter().enumerate() {
            let verb = Verb::Verify { secret: secret.clone(), audience: None, query, client: Some(place % 3) };
            let secret = key.secret.clone();
            let call = Call { secret, from: 0, etag: Sent::Nothing, rehearse: false, twice: false, verb };
            let is = rig.call(&call, "", None).await.map(|done| done.answer.text);
            same("verdict", &is, &model.clone().call(&call, rig.now()))?;
        }
    }
    Ok(())
}

async fn lists(rig: &Rig, model: &Model, caller: &Recognised, naive: &Caller) -> Result<(), String> {
    let ostiary = &rig.ostiary;
    let home = &naive.key.home;
    let now = naive.now;
    let all = || PageRequest { size: PAGE, token: String::new(), binding: [0; 32] };
    let should = |action: &str, rows: Vec<(String, String)>| -> Result<BTreeSet<String>, Refusal> {
        naive.any(action)?;
        Ok(rows.into_iter().filter(|(id, _)| naive.may(action, id)).map(|(_, words)| words).collect())
    };

    let is = ostiary.list_root_keys(caller, RootKeyFilter::default(), all(), None).await;
    let is = rows(is, |seen| {
        let key = &seen.root_key;
        let text = |id: Option<ostiary::domain::id::RootKeyId>| id.map(|id| id.to_string());
        let mut grants: Vec<String> = key.grants.iter().map(ToString::to_string).collect();
        grants.sort();
        let state = match seen.state {
            State::Active => "active",
            State::RotatedOut => "rotated out",
            State::Disabled => "disabled",
            State::Expired => "expired",
        };
        let (from, to, by) = (text(key.rotated_from), text(key.rotated_to), text(key.created_by));
        let life = (end(key.expiry), key.updated.millis(), key.etag.to_string());
        format!("{} {} {grants:?} {state} {} {from:?} {to:?} {by:?} {life:?}", key.id, key.name, nets(&key.allowed))
    });
    let keys = model.root_keys.iter().filter(|key| key.home == *home && key.deleted.is_none());
    let keys = keys.map(|key| {
        let RootKey { id, name, grants, net, from, to, by, life, updated, version, .. } = key;
        let state = match () {
            () if life.over(now) => "expired",
            () if !key.enabled => "disabled",
            () if to.is_some() => "rotated out",
            () => "active",
        };
        let life = (life.end, *updated, format!("v{version}"));
        let words = format!("{id} {name} {grants:?} {state} {} {from:?} {to:?} {by:?} {life:?}", NETS[*net].join(" "));
        (id.clone(), words)
    });
    same("root keys", &is, &should("read_root_key", keys.collect()))?;

    let is = rows(ostiary.list_apis(caller, None, all(), None).await, |seen| {
        let api = &seen.api;
        let ttl = api.default_ttl.map(|ttl| ttl.as_millis() as u64);
        let rest = (ttl, api.delete_protection, seen.key_count, api.updated.millis(), api.etag.to_string());
        format!("{} {} {} {rest:?}", api.id, api.name, nets(&api.allowed))
    });
    let apis = model.apis.iter().filter(|api| api.home == *home && !api.deleted);
    let apis = apis.map(|api| {
        let count = model.keys_of_api(&api.id) as u64;
        let rest = (api.ttl, api.protect, count, api.updated, format!("v{}", api.version));
        (api.id.clone(), format!("{} {} {} {rest:?}", api.id, api.name, NETS[api.net].join(" ")))
    });
    same("apis", &is, &should("read_api", apis.collect()))?;

    let filter = KeyFilter { deleted: Shown::Yes, ..KeyFilter::default() };
    let is = rows(ostiary.list_keys(caller, filter, all(), None).await, |seen| {
        let key = &seen.key;
        let deleted = match key.presence {
            Presence::Here => None,
            Presence::Deleted(at) | Presence::Gone(at) | Presence::Revoked { at, .. } => Some(at.millis()),
        };
        let state = match key.state(rig.world.now()) {
            KeyState::Active => "active",
            KeyState::Disabled => "disabled",
            KeyState::Expired => "expired",
            KeyState::Deleted => "deleted",
            KeyState::Revoked => "revoked",
            KeyState::RotatedOut => "rotated out",
        };
        let rest = (state, end(key.expiry), deleted, key.updated.millis(), key.etag.to_string());
        let by = key.created_by;
        format!("{} {} {} {} {} {by} {rest:?}", key.id, key.api, key.name, shown(seen), nets(&key.allowed))
    });
    let living = |api: &String| model.apis.iter().any(|one| one.id == *api && !one.deleted);
    let keys = model.keys.iter().filter(|key| key.home == *home && living(&key.api) && naive.may("read_key", &key.api));
    let keys = keys.filter(|key| key.there == There::Here || Model::restorable(key.there, now));
    let keys = keys.map(|key| {
        let deleted = match key.there {
            There::Deleted(at) => Some(at),
            There::Here | There::Gone => None,
        };
        let state = match () {
            () if deleted.is_some() => "deleted",
            () if key.life.over(now) => "expired",
            () if !key.enabled => "disabled",
            () => "active",
        };
        let rest = (state, key.life.end, deleted, key.updated, format!("v{}", key.version));
        let (by, net) = (&key.by, NETS[key.net].join(" "));
        format!("{} {} {} {} {net} {by} {rest:?}", key.id, key.api, key.name, model.shown(key))
    });
    same("keys", &is, &naive.any("read_key").map(|()| keys.collect()))?;

    let is = rows(ostiary.list_roles(caller, None, all(), None).await, |seen| {
        let role = &seen.role;
        let (words, version) = (shown_role(seen), role.etag);
        format!("{} {} {} {words} {} {version}", role.id, role.name, role.description, role.updated.millis())
    });
    let roles = model.roles.iter().filter(|role| role.home == *home && !role.deleted);
    let roles = roles.map(|role| {
        let (words, version) = (model.shown_role(role), format!("v{}", role.version));
        let words = format!("{} {} {} {words} {} {version}", role.id, role.name, role.description, role.updated);
        (role.id.clone(), words)
    });
    same("roles", &is, &should("read_role", roles.collect()))?;

    let is = rows(ostiary.list_permissions(caller, None, all(), None).await, |one| {
        format!("{} {} {} {} {}", one.id, one.slug, one.name, one.updated.millis(), one.etag)
    });
    let permissions = model.permissions.iter().filter(|one| one.home == *home && one.deleted.is_none());
    let permissions = permissions
        .map(|one| (one.id.clone(), format!("{} {} {} {} v{}", one.id, one.slug, one.name, one.updated, one.version)));
    same("permissions", &is, &should("read_permission", permissions.collect()))?;

    let is = rows(ostiary.list_workspaces(caller, None, all(), None).await, |home| {
        format!("{} {} {} {}", home.id, home.name, home.enabled, home.etag)
    });
    let homes = model.workspaces.iter().filter(|home| !home.deleted);
    let homes =
        homes.map(|home| (home.id.clone(), format!("{} {} {} v{}", home.id, home.name, home.enabled, home.version)));
    same("workspaces", &is, &should("read_workspace", homes.collect()))
}

fn rows<T>(page: Result<Done<Page<T>>, Error>, words: impl Fn(&T) -> String) -> Result<BTreeSet<String>, Refusal> {
    let page = page.map_err(|error| refusal(&error))?.answer;
    assert_eq!(page.next, "", "a list of a sequence has one page");
    Ok(page.items.iter().map(words).collect())
}

fn end(expiry: Expiry) -> Option<u64> {
    expiry.moment().map(ostiary::domain::time::Timestamp::millis)
}

fn nets(allowed: &AllowList) -> String {
    allowed.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

/// Compares what is with what should be.
pub fn same<T: PartialEq + std::fmt::Debug>(what: &str, is: &T, should: &T) -> Result<(), String> {
    if is == should { Ok(()) } else { Err(format!("{what}\n  is     {is:?}\n  should {should:?}")) }
}
