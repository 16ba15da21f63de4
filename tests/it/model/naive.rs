//! The model: what ostiary means, as plainly as it can be said, straight from its contract. No index, no count, no
//! schedule, no transaction; every question is answered by looking at everything.
//!
//! It shares no code with ostiary. Ids and secrets, which nobody can foresee, it is told.

use std::collections::BTreeMap;

use super::steps::{ADDRESSES, SLUGS};

const DAY: u64 = 86_400_000;
pub const RETENTION: u64 = 90 * DAY;
pub const RESTORABLE: u64 = 30 * DAY;
/// An id of each kind that nothing has.
pub const NOBODY: [&str; 6] = [
    "rk_00000000000000000000000000",
    "api_00000000000000000000000000",
    "key_00000000000000000000000000",
    "role_00000000000000000000000000",
    "perm_00000000000000000000000000",
    "ws_00000000000000000000000000",
];
/// A secret that nobody has.
pub const NOSECRET: &str = "nonsense";

/// Code and reason of a refusal.
pub type Refusal = String;

#[derive(Debug, Clone, PartialEq)]
pub struct Workspace {
    pub id: String,
    pub name: String,
    pub enabled: bool,
    pub operator: bool,
    pub deleted: bool,
    pub version: u64,
}

#[derive(Debug, Clone, PartialEq)]
pub struct RootKey {
    pub id: String,
    pub home: String,
    pub secret: String,
    pub name: String,
    pub grants: Vec<String>,
    pub enabled: bool,
    pub life: Mortal,
    pub net: usize,
    pub from: Option<String>,
    pub to: Option<String>,
    pub by: Option<String>,
    pub updated: u64,
    pub version: u64,
    pub deleted: Option<u64>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Api {
    pub id: String,
    pub home: String,
    pub name: String,
    pub ttl: Option<u64>,
    pub protect: bool,
    pub net: usize,
    pub updated: u64,
    pub version: u64,
    pub deleted: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum There {
    Here,
    Deleted(u64),
    Gone,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Key {
    pub id: String,
    pub home: String,
    pub api: String,
    pub secret: String,
    pub name: String,
    pub roles: Vec<String>,
    pub permissions: Vec<String>,
    pub enabled: bool,
    pub life: Mortal,
    pub net: usize,
    pub by: String,
    pub updated: u64,
    pub version: u64,
    pub there: There,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Role {
    pub id: String,
    pub home: String,
    pub name: String,
    pub description: String,
    pub permissions: Vec<String>,
    pub updated: u64,
    pub version: u64,
    pub deleted: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Permission {
    pub id: String,
    pub home: String,
    pub slug: String,
    pub name: String,
    pub updated: u64,
    pub version: u64,
    pub deleted: Option<u64>,
}

/// A life, and which ends of lives are yet to be told of in the log: each is, once.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Mortal {
    pub end: Option<u64>,
    pub told: bool,
    pub untold: Vec<u64>,
}

impl Mortal {
    pub fn until(end: Option<u64>) -> Self {
        Self { end, ..Self::default() }
    }
    pub fn over(&self, now: u64) -> bool {
        self.end.is_some_and(|end| now >= end)
    }
    /// Its end no longer stands for the whole story: what has come is told nevertheless.
    pub fn set_aside(&mut self, now: u64) {
        if self.over(now) && !self.told {
            self.untold.extend(self.end);
            self.told = true;
        }
    }
    pub fn become_until(&mut self, end: Option<u64>, now: u64) {
        if end != self.end {
            self.set_aside(now);
            self.end = end;
            self.told = false;
        }
    }
    /// How many ends are told of now.
    fn tell(&mut self, now: u64, there: bool) -> usize {
        let mut ends = std::mem::take(&mut self.untold).len();
        if there && self.over(now) && !self.told {
            self.told = true;
            ends += 1;
        }
        ends
    }
    fn long_over(&self, now: u64) -> bool {
        self.told && self.end.is_some_and(|end| now >= end + RETENTION)
    }
}

/// An entry of the audit log: where, what, to what.
pub type Event = (String, &'static str, String);

#[derive(Debug, Clone, Default)]
pub struct Model {
    pub workspaces: Vec<Workspace>,
    pub root_keys: Vec<RootKey>,
    pub apis: Vec<Api>,
    pub keys: Vec<Key>,
    pub roles: Vec<Role>,
    pub permissions: Vec<Permission>,
    pub events: Vec<Event>,
    /// Secrets of root keys and keys that are no more.
    pub old_root_keys: Vec<(String, String)>,
    pub old_keys: Vec<(String, String)>,
    /// What the model is told of ids.
    pub told: Told,
    pub fault: Option<Fault>,
}

/// What can't be foreseen about the step at hand.
#[derive(Debug, Clone, Default)]
pub struct Told {
    pub id: String,
    pub secret: String,
    /// The first root key of a new workspace.
    pub root_key: String,
    /// Ids of the permissions that exist after the step, by workspace and slug.
    pub slugs: BTreeMap<(String, String), String>,
}

/// A fault planted on purpose, to show that comparing finds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    LivesOneMillisecondLonger,
    StarMatchesNothing,
    ForgetsToLogUpdates,
    HandsOnMoreThanItHolds,
    DeletedRolesStay,
    CountsDeletedKeys,
}

/// Code and reason, as they are compared.
pub fn no(refusal: &str) -> Refusal {
    refusal.to_owned()
}
pub fn denied() -> Refusal {
    no("PermissionDenied PERMISSION_MISSING")
}
pub fn exceeds() -> Refusal {
    no("PermissionDenied GRANT_EXCEEDS_OWN")
}
pub fn missing(kind: &str) -> Refusal {
    format!("NotFound {kind}_NOT_FOUND")
}
pub fn blocked(reason: &str) -> Refusal {
    format!("FailedPrecondition {reason}")
}

/// Which resource an action belongs to, and whether it is only ever about the whole.
pub fn resource(action: &str) -> (&'static str, bool) {
    match action {
        "create_api" => ("apis", true),
        "read_api" | "update_api" | "delete_api" | "create_key" | "read_key" | "update_key" | "delete_key"
        | "verify_key" => ("apis", false),
        "create_root_key" => ("root_keys", true),
        "read_root_key" | "update_root_key" | "delete_root_key" | "rotate_root_key" => ("root_keys", false),
        "create_workspace" | "read_workspace" | "update_workspace" | "delete_workspace" => ("workspaces", false),
        "create_role" | "create_permission" => ("rbac", true),
        "read_audit_log" => ("audit", true),
        _ => ("rbac", false),
    }
}

fn parts(grant: &str) -> [&str; 3] {
    grant.split('.').collect::<Vec<_>>().try_into().unwrap()
}

/// Whether a grant allows an action on the object of that id, or without one on everything.
pub fn allows(grant: &str, action: &str, id: Option<&str>) -> bool {
    let [on, what, may] = parts(grant);
    let (wanted, whole) = resource(action);
    let id = id.filter(|_| !whole);
    (on == wanted || (on == "*" && wanted != "workspaces"))
        && (what == "*" || Some(what) == id)
        && (may == "*" || may == action)
}

/// Whether a grant allows an action on anything at all.
pub fn allows_some(grant: &str, action: &str) -> bool {
    let [_, what, _] = parts(grant);
    allows(grant, action, Some(what)) || allows(grant, action, None)
}

/// Whether every one of `theirs` lies within a single one of `mine`.
pub fn covered(theirs: &[String], mine: &[String]) -> bool {
    let within = |theirs: &str, mine: &str| {
        let ([a, b, c], [x, y, z]) = (parts(theirs), parts(mine));
        (x == a || (x == "*" && a != "workspaces")) && (y == "*" || y == b) && (z == "*" || z == c)
    };
    theirs.iter().all(|theirs| mine.iter().any(|mine| within(theirs, mine)))
}

/// Grants as they are stored: one spelling, each once.
pub fn stored(grants: &[String]) -> Vec<String> {
    let mut grants: Vec<String> = grants
        .iter()
        .map(|grant| grant.strip_prefix("api.").map_or(grant.clone(), |rest| format!("apis.{rest}")))
        .collect();
    grants.sort();
    grants.dedup();
    grants
}

/// Whether an allow-list admits one of the addresses.
pub fn admits(net: usize, from: Option<usize>) -> bool {
    let beginning = ["", "10.", "10.1.", "192.168."][net];
    net == 0 || from.is_some_and(|from| ADDRESSES[from].starts_with(beginning))
}

fn within_net(inner: usize, outer: usize) -> bool {
    outer == 0 || inner == outer || (inner == 2 && outer == 1)
}

fn outlives(one: Option<u64>, other: Option<u64>) -> bool {
    match (one, other) {
        (_, None) => false,
        (None, Some(_)) => true,
        (Some(one), Some(other)) => one > other,
    }
}

/// Whether a slug covers what is asked for.
pub fn covers(slug: &str, asked: &str) -> bool {
    let (slug, asked): (Vec<&str>, Vec<&str>) = (slug.split('.').collect(), asked.split('.').collect());
    for (place, segment) in slug.iter().enumerate() {
        let last = place + 1 == slug.len();
        match asked.get(place) {
            None => return false,
            Some(_) if *segment == "*" && last => return true,
            Some(_) if *segment == "*" => {}
            Some(asked) if asked == segment => {}
            Some(_) => return false,
        }
    }
    slug.len() == asked.len()
}

impl RootKey {
    /// Which of the three it has more of than the other: no matter which, it may not be handed on.
    pub fn within(&self, other: &Self) -> bool {
        covered(&self.grants, &other.grants)
            && !outlives(self.life.end, other.life.end)
            && within_net(self.net, other.net)
    }
    pub fn wider_than(&self, before: &Self) -> bool {
        !self.within(before) || (self.enabled && !before.enabled)
    }
    pub fn longer_than(&self, before: &Self) -> bool {
        outlives(self.life.end, before.life.end)
    }
    pub fn is_administrator(&self) -> bool {
        self.deleted.is_none()
            && self.enabled
            && self.life.end.is_none()
            && self.grants.iter().any(|grant| allows(grant, "create_root_key", None))
    }
}

impl Model {
    /// Which root key a secret is of, if it may be used now and from there.
    pub fn recognise(&self, secret: &str, from: usize, now: u64) -> Result<RootKey, Refusal> {
        let fail = |reason: &str| format!("Unauthenticated {reason}");
        let there = self.root_keys.iter().find(|key| key.secret == secret && key.deleted.is_none());
        let there = there.ok_or_else(|| fail("ROOT_KEY_INVALID"))?;
        let home = self.workspaces.iter().find(|home| home.id == there.home && !home.deleted);
        let home = home.ok_or_else(|| fail("ROOT_KEY_INVALID"))?;
        if !home.enabled {
            return Err(fail("WORKSPACE_DISABLED"));
        }
        if !there.enabled {
            return Err(fail("ROOT_KEY_DISABLED"));
        }
        let late = u64::from(self.fault == Some(Fault::LivesOneMillisecondLonger));
        if there.life.end.is_some_and(|end| now >= end + late) {
            return Err(fail("ROOT_KEY_EXPIRED"));
        }
        if !admits(there.net, Some(from)) {
            return Err(fail("ROOT_KEY_ADDRESS"));
        }
        Ok(there.clone())
    }

    /// What passes with time is told, then what nobody can use any more is gone.
    pub fn sweep(&mut self, now: u64) {
        for key in &mut self.root_keys {
            for _ in 0..key.life.tell(now, key.deleted.is_none()) {
                self.events.push((key.home.clone(), "root_key.expire", key.id.clone()));
            }
        }
        for key in &mut self.keys {
            for _ in 0..key.life.tell(now, key.there == There::Here) {
                self.events.push((key.home.clone(), "key.expire", key.id.clone()));
            }
        }
        let dead: Vec<String> =
            self.workspaces.iter().filter(|home| home.deleted).map(|home| home.id.clone()).collect();
        let gone = |home: &String| dead.contains(home);
        let apis: Vec<String> =
            self.apis.iter().filter(|api| api.deleted || gone(&api.home)).map(|api| api.id.clone()).collect();
        let (old, keys) = std::mem::take(&mut self.keys).into_iter().partition(|key| match key.there {
            _ if apis.contains(&key.api) || gone(&key.home) => true,
            There::Here => key.life.long_over(now),
            There::Deleted(at) => now >= at + RESTORABLE,
            There::Gone => true,
        });
        self.keys = keys;
        self.old_keys.extend(Vec::into_iter(old).map(|key: Key| (key.id, key.secret)));
        let (old, root_keys) = std::mem::take(&mut self.root_keys).into_iter().partition(|key| match key.deleted {
            _ if gone(&key.home) => true,
            Some(at) => now >= at + RETENTION,
            None => key.life.long_over(now),
        });
        self.root_keys = root_keys;
        self.old_root_keys.extend(Vec::into_iter(old).map(|key: RootKey| (key.id, key.secret)));
        self.apis.retain(|api| !apis.contains(&api.id));
        let stay = self.fault == Some(Fault::DeletedRolesStay);
        self.roles.retain(|role| (stay || !role.deleted) && !gone(&role.home));
        let old = |permission: &Permission| permission.deleted.is_some_and(|at| now >= at + RETENTION);
        self.permissions.retain(|permission| !old(permission) && !gone(&permission.home));
        self.workspaces.retain(|home| !home.deleted);
    }

    /// When lives end that have not ended yet.
    pub fn ends(&self, now: u64) -> Vec<u64> {
        let lives = self.root_keys.iter().map(|key| &key.life).chain(self.keys.iter().map(|key| &key.life));
        lives.filter_map(|life| life.end).filter(|end| *end > now).collect()
    }

    pub fn root_key_ids(&self) -> Vec<String> {
        let old = self.old_root_keys.iter().map(|(id, _)| id.clone());
        self.root_keys.iter().map(|key| key.id.clone()).chain(old).chain([NOBODY[0].into()]).collect()
    }
    pub fn root_key_secrets(&self) -> Vec<String> {
        let old = self.old_root_keys.iter().map(|(_, secret)| secret.clone());
        self.root_keys.iter().map(|key| key.secret.clone()).chain(old).collect()
    }
    /// The secret of somebody who may do nearly everything, if there is one.
    pub fn an_administrator(&self, which: usize) -> String {
        let mighty = self.root_keys.iter().filter(|key| key.is_administrator() && key.net == 0);
        let mighty: Vec<&RootKey> = mighty.filter(|key| key.grants.contains(&"*.*.*".to_owned())).collect();
        match mighty.len() {
            0 => self.root_key_secrets().first().cloned().unwrap_or_else(|| NOSECRET.into()),
            // Most often the same, so that sequences have a subject.
            number => mighty[if which.is_multiple_of(4) { which / 4 % number } else { 0 }].secret.clone(),
        }
    }
    pub fn api_ids(&self) -> Vec<String> {
        self.apis.iter().map(|api| api.id.clone()).chain([NOBODY[1].into()]).collect()
    }
    pub fn key_ids(&self) -> Vec<String> {
        let old = self.old_keys.iter().map(|(id, _)| id.clone());
        self.keys.iter().map(|key| key.id.clone()).chain(old).chain([NOBODY[2].into()]).collect()
    }
    pub fn key_secrets(&self) -> Vec<String> {
        let old = self.old_keys.iter().map(|(_, secret)| secret.clone());
        self.keys.iter().map(|key| key.secret.clone()).chain(old).chain([NOSECRET.into()]).collect()
    }
    pub fn role_references(&self) -> Vec<String> {
        let names = super::steps::ROLE_NAMES.map(str::to_owned);
        self.roles.iter().map(|role| role.id.clone()).chain(names).chain([NOBODY[3].into()]).collect()
    }
    pub fn permission_references(&self) -> Vec<String> {
        let slugs = SLUGS.map(str::to_owned);
        let ids = self.permissions.iter().map(|permission| permission.id.clone());
        slugs.into_iter().chain(ids).chain([NOBODY[4].into()]).collect()
    }
    pub fn workspace_ids(&self) -> Vec<String> {
        self.workspaces.iter().map(|home| home.id.clone()).chain([NOBODY[5].into()]).collect()
    }

    /// Grants that mean something in the world as it is.
    pub fn grant_texts(&self) -> Vec<String> {
        let whole = [
            "*.*.*",
            "apis.*.*",
            "rbac.*.*",
            "root_keys.*.*",
            "apis.*.create_key",
            "api.*.read_key",
            "apis.*.verify_key",
            "rbac.*.add_permission_to_key",
            "rbac.*.create_permission",
            "root_keys.*.create_root_key",
            "workspaces.*.*",
            "workspaces.*.read_workspace",
            "*.*.update_key",
        ];
        let mut texts = whole.map(str::to_owned).to_vec();
        for api in &self.apis {
            texts.extend(["*", "read_key", "create_key", "update_key"].map(|may| format!("apis.{}.{may}", api.id)));
        }
        for role in &self.roles {
            texts.extend(["*", "add_role_to_key", "read_role"].map(|may| format!("rbac.{}.{may}", role.id)));
        }
        for one in &self.permissions {
            texts.extend(["*", "add_permission_to_key"].map(|may| format!("rbac.{}.{may}", one.id)));
        }
        texts.extend(self.root_keys.iter().map(|key| format!("root_keys.{}.*", key.id)));
        texts
    }
}
