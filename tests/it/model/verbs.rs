//! What each verb does to the model and answers, in the order of the contract: who, may they, is it there, may it be.

use super::naive::admits;
use super::naive::{
    Api, Fault, Model, Mortal, RESTORABLE, Refusal, RootKey, There, Workspace, allows, allows_some, blocked, covered,
    covers, denied, exceeds, missing, no, stored,
};
use super::steps::{Call, RootKeyChange, Sent, Verb};

/// What a step answers, as far as it is compared.
pub type Answer = String;
type Outcome = Result<Answer, Refusal>;

/// Who calls, in one step.
pub struct Caller {
    pub key: RootKey,
    pub operator: bool,
    pub etag: Sent,
    pub now: u64,
}

impl Caller {
    /// Demands the action on anything at all.
    pub fn any(&self, action: &str) -> Result<(), Refusal> {
        let some = self.key.grants.iter().any(|grant| allows_some(grant, action));
        if some && self.reaches(action) { Ok(()) } else { Err(denied()) }
    }
    pub fn may(&self, action: &str, id: &str) -> bool {
        self.reaches(action) && self.key.grants.iter().any(|grant| allows(grant, action, Some(id)))
    }
    pub fn may_all(&self, action: &str) -> bool {
        self.reaches(action) && self.key.grants.iter().any(|grant| allows(grant, action, None))
    }
    fn reaches(&self, action: &str) -> bool {
        self.operator || super::naive::resource(action).0 != "workspaces"
    }
    /// Demands that the etag, if one was sent, is the right one.
    pub fn etag(&self) -> Result<(), Refusal> {
        if self.etag == Sent::Wrong { Err(no("Aborted ETAG_MISMATCH")) } else { Ok(()) }
    }
}

impl Model {
    /// What the call comes to. Unless it succeeds and is meant, nothing is different afterwards.
    pub fn call(&mut self, call: &Call, now: u64) -> Outcome {
        let mut after = self.clone();
        let key = self.recognise(&call.secret, call.from, now)?;
        let operator = self.workspaces.iter().any(|home| home.id == key.home && home.operator);
        let caller = Caller { key, operator, etag: call.etag, now };
        let answer = after.verb(&caller, &call.verb, call.rehearse)?;
        if !call.rehearse {
            *self = after;
        }
        Ok(answer)
    }

    pub fn log(&mut self, caller: &Caller, event: &'static str, id: &str) {
        if self.fault == Some(Fault::ForgetsToLogUpdates) && event.ends_with(".update") {
            return;
        }
        self.events.push((caller.key.home.clone(), event, id.to_owned()));
    }

    fn verb(&mut self, caller: &Caller, verb: &Verb, rehearse: bool) -> Outcome {
        match verb {
            Verb::CreateRootKey { name, grants, expire, net } => {
                self.create_root_key(caller, (name, grants), (*expire, *net))
            }
            Verb::UpdateRootKey { id, patch, force } => self.update_root_key(caller, id, patch, *force),
            Verb::RotateRootKey { id, grace, force } => self.rotate_root_key(caller, id, *grace, *force),
            Verb::DeleteRootKey { id, cascade, force } => self.delete_root_key(caller, id, *cascade, *force),
            Verb::BatchDelete { ids, force } => self.batch_delete(caller, ids, *force),
            Verb::GetRootKey { id } => {
                caller.any("read_root_key")?;
                self.find_root_key(caller, "read_root_key", id).map(|key| key.id)
            }
            Verb::CreateApi { name, ttl, protect, net } => {
                caller.any("create_api")?;
                let id = self.told.id.clone();
                self.log(caller, "api.create", &id);
                let home = caller.key.home.clone();
                let (name, ttl, protect, net, updated) = (name.clone(), *ttl, *protect, *net, caller.now);
                self.apis.push(Api { id, home, name, ttl, protect, net, updated, version: 1, deleted: false });
                Ok(String::new())
            }
            Verb::UpdateApi { id, name, protect, ttl, net } => {
                caller.any("update_api")?;
                let before = self.find_api(caller, "update_api", id)?;
                caller.etag()?;
                let mut after = before.clone();
                after.name = name.clone().unwrap_or(after.name);
                after.protect = protect.unwrap_or(after.protect);
                after.ttl = ttl.unwrap_or(after.ttl);
                after.net = net.unwrap_or(after.net);
                if after != before {
                    after.updated = caller.now;
                    after.version += 1;
                    self.log(caller, "api.update", id);
                    *self.apis.iter_mut().find(|api| api.id == *id).unwrap() = after;
                }
                Ok(self.keys_of_api(id).to_string())
            }
            Verb::DeleteApi { id } => {
                caller.any("delete_api")?;
                let api = self.find_api(caller, "delete_api", id)?;
                caller.etag()?;
                if api.protect {
                    return Err(blocked("DELETE_PROTECTED"));
                }
                let keys = self.keys_of_api(id);
                self.apis.iter_mut().find(|api| api.id == *id).unwrap().deleted = true;
                self.log(caller, "api.delete", id);
                Ok(if rehearse { keys.to_string() } else { String::new() })
            }
            Verb::GetApi { id } => {
                caller.any("read_api")?;
                self.find_api(caller, "read_api", id)?;
                Ok(self.keys_of_api(id).to_string())
            }
            Verb::Verify { secret, audience, query, client } => {
                caller.any("verify_key")?;
                Ok(self.verdict(caller, secret, audience.as_deref(), query, *client).to_owned())
            }
            Verb::CreateWorkspace { .. }
            | Verb::UpdateWorkspace { .. }
            | Verb::DeleteWorkspace { .. }
            | Verb::GetWorkspace { .. } => self.workspace_verb(caller, verb, rehearse),
            Verb::CreateKey { .. }
            | Verb::UpdateKey { .. }
            | Verb::DeleteKey { .. }
            | Verb::UndeleteKey { .. }
            | Verb::GetKey { .. }
            | Verb::LookupKey { .. }
            | Verb::AssignRoles { .. }
            | Verb::AssignPermissions { .. } => self.key_verb(caller, verb),
            Verb::CreateRole { .. }
            | Verb::UpdateRole { .. }
            | Verb::SetRolePermissions { .. }
            | Verb::DeleteRole { .. }
            | Verb::GetRole { .. }
            | Verb::CreatePermission { .. }
            | Verb::UpdatePermission { .. }
            | Verb::DeletePermission { .. }
            | Verb::GetPermission { .. } => self.role_verb(caller, verb, rehearse),
        }
    }

    fn find_root_key(&self, caller: &Caller, action: &str, id: &str) -> Result<RootKey, Refusal> {
        let mine = |key: &&RootKey| key.id == id && key.home == caller.key.home && key.deleted.is_none();
        self.root_keys.iter().find(mine).filter(|_| caller.may(action, id)).cloned().ok_or_else(|| missing("ROOT_KEY"))
    }

    pub fn find_api(&self, caller: &Caller, action: &str, id: &str) -> Result<Api, Refusal> {
        let mine = |api: &&Api| api.id == id && api.home == caller.key.home && !api.deleted;
        self.apis.iter().find(mine).filter(|_| caller.may(action, id)).cloned().ok_or_else(|| missing("API"))
    }

    pub fn keys_of_api(&self, api: &str) -> usize {
        let counts = |there| there == There::Here || self.fault == Some(Fault::CountsDeletedKeys);
        self.keys.iter().filter(|key| key.api == api && counts(key.there)).count()
    }

    fn replace(&mut self, after: RootKey) {
        let place = self.root_keys.iter().position(|key| key.id == after.id).unwrap();
        self.root_keys[place] = after;
    }

    /// Refuses to take away the last administrator.
    fn keep_one(&self, before: &RootKey, force: bool) -> Result<(), Refusal> {
        let left = self.root_keys.iter().any(|key| key.home == before.home && key.is_administrator());
        if before.is_administrator() && !left && !force { Err(blocked("LAST_ADMINISTRATOR")) } else { Ok(()) }
    }

    fn create_root_key(
        &mut self,
        caller: &Caller,
        (name, grants): (&str, &[String]),
        (end, net): (Option<u64>, usize),
    ) -> Outcome {
        caller.any("create_root_key")?;
        let key = RootKey {
            id: self.told.id.clone(),
            home: caller.key.home.clone(),
            secret: self.told.secret.clone(),
            name: name.to_owned(),
            grants: stored(grants),
            enabled: true,
            life: Mortal::until(end),
            net,
            from: None,
            to: None,
            by: Some(caller.key.id.clone()),
            updated: caller.now,
            version: 1,
            deleted: None,
        };
        if !key.within(&caller.key) && self.fault != Some(Fault::HandsOnMoreThanItHolds) {
            return Err(exceeds());
        }
        self.log(caller, "root_key.create", &key.id);
        self.root_keys.push(key);
        Ok(String::new())
    }

    fn update_root_key(&mut self, caller: &Caller, id: &str, patch: &RootKeyChange, force: bool) -> Outcome {
        caller.any("update_root_key")?;
        let before = self.find_root_key(caller, "update_root_key", id)?;
        caller.etag()?;
        let mut after = before.clone();
        after.name = patch.name.clone().unwrap_or(after.name);
        after.grants = patch.grants.as_deref().map(stored).unwrap_or(after.grants);
        after.enabled = patch.enabled.unwrap_or(after.enabled);
        after.net = patch.net.unwrap_or(after.net);
        after.life.become_until(patch.expire.unwrap_or(before.life.end), caller.now);
        if after == before {
            return Ok(String::new());
        }
        if after.life.end != before.life.end {
            if before.life.over(caller.now) {
                return Err(blocked("ROOT_KEY_EXPIRED"));
            }
            if before.to.is_some() && after.longer_than(&before) {
                return Err(blocked("ALREADY_ROTATED"));
            }
        }
        let wider = after.wider_than(&before);
        if (wider || after.name != before.name) && !covered(&before.grants, &caller.key.grants) {
            return Err(exceeds());
        }
        if wider && !after.within(&caller.key) {
            return Err(exceeds());
        }
        after.updated = caller.now;
        after.version += 1;
        self.replace(after);
        self.keep_one(&before, force)?;
        self.log(caller, "root_key.update", id);
        Ok(String::new())
    }

    fn rotate_root_key(&mut self, caller: &Caller, id: &str, grace: u64, force: bool) -> Outcome {
        caller.any("rotate_root_key")?;
        if id == caller.key.id && grace < 60_000 && !force {
            return Err(no("InvalidArgument FIELD_INVALID"));
        }
        let before = self.find_root_key(caller, "rotate_root_key", id)?;
        caller.etag()?;
        if !before.within(&caller.key) {
            return Err(exceeds());
        }
        if before.to.is_some() {
            return Err(blocked("ALREADY_ROTATED"));
        }
        if before.life.over(caller.now) {
            return Err(blocked("ROOT_KEY_EXPIRED"));
        }
        let next = RootKey {
            id: self.told.id.clone(),
            secret: self.told.secret.clone(),
            from: Some(id.to_owned()),
            by: Some(caller.key.id.clone()),
            updated: caller.now,
            version: 1,
            ..before.clone()
        };
        let mut old = RootKey { to: Some(next.id.clone()), updated: caller.now, version: before.version + 1, ..before };
        let end = caller.now + grace;
        old.life.become_until(Some(old.life.end.map_or(end, |was| was.min(end))), caller.now);
        self.replace(old);
        self.root_keys.push(next);
        self.log(caller, "root_key.rotate", id);
        Ok(String::new())
    }

    /// Deletes them one by one, and says which.
    fn delete_all(&mut self, caller: &Caller, doomed: Vec<RootKey>, force: bool) -> Outcome {
        let mut ids: Vec<String> = doomed.iter().map(|key| key.id.clone()).collect();
        for before in doomed {
            let mut after = before.clone();
            after.deleted = Some(caller.now);
            after.life.set_aside(caller.now);
            self.replace(after);
            self.keep_one(&before, force)?;
            self.log(caller, "root_key.delete", &before.id);
        }
        ids.sort();
        Ok(ids.join(" "))
    }

    fn delete_root_key(&mut self, caller: &Caller, id: &str, cascade: bool, force: bool) -> Outcome {
        caller.any("delete_root_key")?;
        let named = self.find_root_key(caller, "delete_root_key", id)?;
        caller.etag()?;
        let mut line = vec![id.to_owned()];
        loop {
            let known = line.len();
            for key in self.root_keys.iter().filter(|_| cascade) {
                let parents = [&key.by, &key.from];
                if !line.contains(&key.id)
                    && parents.iter().any(|one| one.as_ref().is_some_and(|one| line.contains(one)))
                {
                    line.push(key.id.clone());
                }
            }
            if !cascade || line.len() == known {
                break;
            }
        }
        let mut doomed = vec![named];
        for other in line.iter().skip(1) {
            let found = self.find_root_key(caller, "delete_root_key", other);
            doomed.extend(found.ok().filter(|key| key.within(&caller.key)));
        }
        // In the order of their making but for the named one; the caller itself goes last.
        doomed[1..].sort_by(|a, b| a.id.cmp(&b.id));
        doomed.sort_by_key(|key| key.id == caller.key.id);
        self.delete_all(caller, doomed, force)
    }

    fn batch_delete(&mut self, caller: &Caller, ids: &[String], force: bool) -> Outcome {
        caller.any("delete_root_key")?;
        let doomed: Result<Vec<RootKey>, Refusal> =
            ids.iter().map(|id| self.find_root_key(caller, "delete_root_key", id)).collect();
        self.delete_all(caller, doomed?, force)
    }

    fn find_workspace(&self, caller: &Caller, action: &str, id: &str) -> Result<Workspace, Refusal> {
        let found = self.workspaces.iter().find(|home| home.id == id && !home.deleted);
        found.filter(|_| caller.may(action, id)).cloned().ok_or_else(|| missing("WORKSPACE"))
    }

    fn workspace_verb(&mut self, caller: &Caller, verb: &Verb, rehearse: bool) -> Outcome {
        match verb {
            Verb::CreateWorkspace { name } => {
                caller.any("create_workspace")?;
                if !caller.may_all("create_workspace") {
                    return Err(denied());
                }
                let (id, first) = (self.told.id.clone(), self.told.root_key.clone());
                let home = Workspace {
                    id: id.clone(),
                    name: name.clone(),
                    enabled: true,
                    operator: false,
                    deleted: false,
                    version: 1,
                };
                self.workspaces.push(home);
                self.root_keys.push(first_root_key(&id, &first, &self.told.secret, &["*.*.*"], caller.now));
                self.events.push((id.clone(), "root_key.create", first));
                self.log(caller, "workspace.create", &id);
                Ok(String::new())
            }
            Verb::UpdateWorkspace { id, name, enabled } => {
                caller.any("update_workspace")?;
                let before = self.find_workspace(caller, "update_workspace", id)?;
                caller.etag()?;
                let mut after = before.clone();
                after.name = name.clone().unwrap_or(after.name);
                after.enabled = enabled.unwrap_or(after.enabled);
                if after == before {
                    return Ok(String::new());
                }
                if before.operator && !after.enabled {
                    return Err(blocked("OPERATOR_WORKSPACE"));
                }
                after.version += 1;
                if !before.operator && self.fault != Some(Fault::ForgetsToLogUpdates) {
                    self.events.push((id.clone(), "workspace.update", id.clone()));
                }
                self.log(caller, "workspace.update", id);
                *self.workspaces.iter_mut().find(|home| home.id == *id).unwrap() = after;
                Ok(String::new())
            }
            Verb::DeleteWorkspace { id } => {
                caller.any("delete_workspace")?;
                let before = self.find_workspace(caller, "delete_workspace", id)?;
                caller.etag()?;
                if before.operator {
                    return Err(blocked("OPERATOR_WORKSPACE"));
                }
                let apis: Vec<&Api> = self.apis.iter().filter(|api| api.home == *id && !api.deleted).collect();
                let keys: usize = apis.iter().map(|api| self.keys_of_api(&api.id)).sum();
                let root_keys = self.root_keys.iter().filter(|key| key.home == *id && key.deleted.is_none()).count();
                self.workspaces.iter_mut().find(|home| home.id == *id).unwrap().deleted = true;
                self.log(caller, "workspace.delete", id);
                Ok(if rehearse { format!("{keys} {root_keys}") } else { String::new() })
            }
            Verb::GetWorkspace { id } => {
                caller.any("read_workspace")?;
                self.find_workspace(caller, "read_workspace", id).map(|home| home.name)
            }
            other => unreachable!("{other:?}"),
        }
    }

    /// The verdict about a key, by the table of the contract.
    pub fn verdict(
        &self,
        caller: &Caller,
        secret: &str,
        audience: Option<&str>,
        query: &str,
        client: Option<usize>,
    ) -> &'static str {
        let home = &caller.key.home;
        let known = self.keys.iter().find(|key| key.secret == secret && key.home == *home && key.there == There::Here);
        let Some(key) = known.filter(|key| caller.may("verify_key", &key.api)) else { return "NotFound" };
        let Some(api) = self.apis.iter().find(|api| api.id == key.api && !api.deleted) else { return "NotFound" };
        if audience.is_some_and(|wanted| wanted != key.api) {
            return "NotFound";
        }
        if !key.enabled {
            return "Disabled";
        }
        if key.life.over(caller.now) {
            return "Expired";
        }
        if !admits(api.net, client) || !admits(key.net, client) {
            return "Forbidden";
        }
        let mut ids = key.permissions.clone();
        let lives = |role: &super::naive::Role| !role.deleted || self.fault == Some(Fault::DeletedRolesStay);
        for role in self.roles.iter().filter(|role| key.roles.contains(&role.id) && lives(role)) {
            ids.extend(role.permissions.clone());
        }
        let living = self.permissions.iter().filter(|one| one.deleted.is_none() && ids.contains(&one.id));
        let slugs: Vec<&str> = living.map(|one| one.slug.as_str()).collect();
        let star = |slug: &str| self.fault == Some(Fault::StarMatchesNothing) && slug.contains('*');
        let holds = |asked: &str| slugs.iter().any(|slug| covers(slug, asked) && !star(slug));
        let enough = query.is_empty() || query.split(" OR ").any(|all| all.split(" AND ").all(holds));
        if enough { "Valid" } else { "InsufficientPermissions" }
    }

    /// Whether a deleted key can still be restored.
    pub fn restorable(there: There, now: u64) -> bool {
        matches!(there, There::Deleted(at) if now < at + RESTORABLE)
    }
}

pub fn first_root_key(home: &str, id: &str, secret: &str, grants: &[&str], now: u64) -> RootKey {
    RootKey {
        id: id.to_owned(),
        home: home.to_owned(),
        secret: secret.to_owned(),
        name: "first root key".to_owned(),
        grants: grants.iter().map(ToString::to_string).collect(),
        enabled: true,
        life: Mortal::default(),
        net: 0,
        from: None,
        to: None,
        by: None,
        updated: now,
        version: 1,
        deleted: None,
    }
}

impl Model {
    /// The etag of what the verb is about, where there is such a thing.
    pub fn version(&self, verb: &Verb) -> Option<String> {
        let root_key = |id: &String| self.root_keys.iter().find(|key| key.id == *id).map(|key| key.version);
        let api = |id: &String| self.apis.iter().find(|api| api.id == *id).map(|api| api.version);
        let key = |id: &String| self.keys.iter().find(|key| key.id == *id).map(|key| key.version);
        let home = |id: &String| self.workspaces.iter().find(|home| home.id == *id).map(|home| home.version);
        let version = match verb {
            Verb::UpdateRootKey { id, .. } | Verb::RotateRootKey { id, .. } | Verb::DeleteRootKey { id, .. } => {
                root_key(id)
            }
            Verb::UpdateApi { id, .. } | Verb::DeleteApi { id } => api(id),
            Verb::UpdateKey { id, .. }
            | Verb::DeleteKey { id, .. }
            | Verb::UndeleteKey { id }
            | Verb::AssignRoles { id, .. }
            | Verb::AssignPermissions { id, .. } => key(id),
            Verb::UpdateWorkspace { id, .. } | Verb::DeleteWorkspace { id } => home(id),
            // Names may be several things'; these go without.
            _ => None,
        };
        version.map(|version| format!("v{version}"))
    }
}
