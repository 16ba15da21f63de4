//! The model's keys, roles and permissions: who holds what, and who may change that.

use super::naive::{Key, Model, Mortal, Permission, Refusal, Role, There, missing, no};
use super::steps::{How, KeyChange, Life, Verb};
use super::verbs::{Answer, Caller};

type Outcome = Result<Answer, Refusal>;

impl Model {
    fn role_named(&self, caller: &Caller, reference: &str) -> Option<&Role> {
        let meant = |role: &&Role| role.id == reference || role.name == reference;
        self.roles.iter().filter(|role| role.home == caller.key.home && !role.deleted).find(meant)
    }

    fn permission_named(&self, caller: &Caller, reference: &str) -> Option<&Permission> {
        let meant = |one: &&Permission| one.id == reference || one.slug == reference;
        self.permissions.iter().filter(|one| one.home == caller.key.home && one.deleted.is_none()).find(meant)
    }

    fn living_roles(&self, ids: &[String]) -> Vec<String> {
        let lives = |id: &&String| self.roles.iter().any(|role| role.id == **id && !role.deleted);
        sorted(ids.iter().filter(lives).cloned().collect())
    }

    fn living_permissions(&self, ids: &[String]) -> Vec<String> {
        let lives = |id: &&String| self.permissions.iter().any(|one| one.id == **id && one.deleted.is_none());
        sorted(ids.iter().filter(lives).cloned().collect())
    }

    pub fn slugs(&self, ids: &[String]) -> Vec<String> {
        let held = self.permissions.iter().filter(|one| ids.contains(&one.id) && one.deleted.is_none());
        sorted(held.map(|one| one.slug.clone()).collect())
    }

    /// What is shown of what a key holds.
    pub fn shown(&self, key: &Key) -> Answer {
        format!("{:?} {:?}", self.living_roles(&key.roles), self.slugs(&key.permissions))
    }

    pub fn keys_of_role(&self, role: &str) -> usize {
        self.keys.iter().filter(|key| key.there == There::Here && key.roles.iter().any(|held| held == role)).count()
    }

    pub fn shown_role(&self, role: &Role) -> Answer {
        format!("{} {:?}", self.keys_of_role(&role.id), self.slugs(&role.permissions))
    }

    /// The roles of these names; those that are not held already must be the caller's to add.
    fn obtain_roles(&self, caller: &Caller, names: &[String], had: &[String]) -> Result<Vec<String>, Refusal> {
        let mut ids = Vec::new();
        for name in names {
            let role = self.role_named(caller, name);
            if role.is_none_or(|role| !had.contains(&role.id)) {
                caller.any("add_role_to_key")?;
                role.filter(|role| caller.may("add_role_to_key", &role.id)).ok_or_else(|| missing("ROLE"))?;
            }
            ids.extend(role.map(|role| role.id.clone()));
        }
        Ok(sorted(ids))
    }

    /// The permissions of these names; those that aren't there are made if the caller may.
    fn obtain(
        &mut self,
        caller: &Caller,
        names: &[String],
        (action, had): (&str, &[String]),
    ) -> Result<Vec<String>, Refusal> {
        let mut ids = Vec::new();
        for name in names {
            let found = self.permission_named(caller, name).cloned();
            if let Some(one) = found.as_ref().filter(|one| had.contains(&one.id)) {
                ids.push(one.id.clone());
                continue;
            }
            caller.any(action)?;
            let is_id = name.len() == 31 && name.starts_with("perm_");
            let may_make = !is_id && caller.may_all("create_permission") && caller.may_all(action);
            match found {
                Some(one) if caller.may(action, &one.id) => ids.push(one.id),
                None if may_make => ids.push(self.make_permission(caller, name)?),
                Some(_) | None => return Err(missing("PERMISSION")),
            }
        }
        Ok(sorted(ids))
    }

    fn make_permission(&mut self, caller: &Caller, slug: &str) -> Result<String, Refusal> {
        let home = caller.key.home.clone();
        let alike = |one: &Permission| one.slug.eq_ignore_ascii_case(slug);
        if self.permissions.iter().any(|one| one.home == home && one.deleted.is_none() && alike(one)) {
            return Err(no("AlreadyExists PERMISSION_ALREADY_EXISTS"));
        }
        let id = self.told.slugs.get(&(home.clone(), slug.to_owned())).cloned();
        let id = id.unwrap_or_else(|| format!("would be made: {slug}"));
        self.log(caller, "permission.create", &id);
        let (slug, name, updated) = (slug.to_owned(), String::new(), caller.now);
        self.permissions.push(Permission { id: id.clone(), home, slug, name, updated, version: 1, deleted: None });
        Ok(id)
    }

    /// Demands the right to take away what is in `had` and not in `has`.
    fn removals(caller: &Caller, action: &str, kind: &str, had: &[String], has: &[String]) -> Result<(), Refusal> {
        for id in had.iter().filter(|id| !has.contains(id)) {
            caller.any(action)?;
            if !caller.may(action, id) {
                return Err(missing(kind));
            }
        }
        Ok(())
    }

    /// A key that is at least restorable, in an API that is there, if the caller may.
    fn find_key(&self, caller: &Caller, action: &str, id: &str) -> Result<Key, Refusal> {
        let mine = |key: &&Key| key.id == id && key.home == caller.key.home && caller.may(action, &key.api);
        let found =
            self.keys.iter().find(mine).filter(|key| self.apis.iter().any(|api| api.id == key.api && !api.deleted));
        let there = |key: &&Key| key.there == There::Here || Self::restorable(key.there, caller.now);
        found.filter(there).cloned().ok_or_else(|| missing("KEY"))
    }

    fn find_key_here(&self, caller: &Caller, action: &str, id: &str) -> Result<Key, Refusal> {
        let key = self.find_key(caller, action, id)?;
        if key.there == There::Here { Ok(key) } else { Err(missing("KEY")) }
    }

    /// Writes what has become of a key, unless nothing has.
    fn rewrite(&mut self, caller: &Caller, before: &Key, mut after: Key) -> Outcome {
        if after != *before {
            after.updated = caller.now;
            after.version += 1;
            self.log(caller, "key.update", &after.id);
            *self.keys.iter_mut().find(|key| key.id == before.id).unwrap() = after.clone();
        }
        Ok(self.shown(&after))
    }

    fn with_roles(&self, key: &mut Key, has: Vec<String>) {
        if self.living_roles(&key.roles) != has {
            key.roles = has;
        }
    }

    fn with_permissions(&self, key: &mut Key, has: Vec<String>) {
        if self.living_permissions(&key.permissions) != has {
            key.permissions = has;
        }
    }

    fn set_roles(&self, caller: &Caller, key: &mut Key, names: &[String]) -> Result<(), Refusal> {
        let had = self.living_roles(&key.roles);
        let has = self.obtain_roles(caller, names, &had)?;
        Self::removals(caller, "remove_role_from_key", "ROLE", &had, &has)?;
        self.with_roles(key, has);
        Ok(())
    }

    fn set_permissions(&mut self, caller: &Caller, key: &mut Key, names: &[String]) -> Result<(), Refusal> {
        let had = self.living_permissions(&key.permissions);
        let has = self.obtain(caller, names, ("add_permission_to_key", &had))?;
        Self::removals(caller, "remove_permission_from_key", "PERMISSION", &had, &has)?;
        self.with_permissions(key, has);
        Ok(())
    }

    pub fn key_verb(&mut self, caller: &Caller, verb: &Verb) -> Outcome {
        let now = caller.now;
        match verb {
            Verb::CreateKey { api, roles, permissions, enabled, life, net } => {
                caller.any("create_key")?;
                let api = self.find_api(caller, "create_key", api)?;
                let roles = self.obtain_roles(caller, roles, &[])?;
                let permissions = self.obtain(caller, permissions, ("add_permission_to_key", &[]))?;
                let end = match life {
                    Life::AsTheApiSays => api.ttl.map(|ttl| now + ttl),
                    Life::Never => None,
                    Life::Until(end) => Some(*end),
                };
                let key = Key {
                    id: self.told.id.clone(),
                    home: caller.key.home.clone(),
                    api: api.id,
                    secret: self.told.secret.clone(),
                    name: String::new(),
                    roles,
                    permissions,
                    enabled: *enabled,
                    life: Mortal::until(end),
                    net: *net,
                    by: caller.key.id.clone(),
                    updated: now,
                    version: 1,
                    there: There::Here,
                };
                self.log(caller, "key.create", &key.id);
                self.keys.push(key.clone());
                Ok(self.shown(&key))
            }
            Verb::UpdateKey { id, patch } => {
                caller.any("update_key")?;
                let before = self.find_key_here(caller, "update_key", id)?;
                caller.etag()?;
                let KeyChange { name, enabled, expire, net, roles, permissions } = patch;
                let mut after = before.clone();
                after.name = name.clone().unwrap_or(after.name);
                after.enabled = enabled.unwrap_or(after.enabled);
                after.net = net.unwrap_or(after.net);
                after.life.become_until(expire.unwrap_or(before.life.end), now);
                if let Some(names) = roles {
                    self.set_roles(caller, &mut after, names)?;
                }
                if let Some(names) = permissions {
                    self.set_permissions(caller, &mut after, names)?;
                }
                self.rewrite(caller, &before, after)
            }
            Verb::DeleteKey { id, permanent } => {
                caller.any("delete_key")?;
                let mut key = self.find_key(caller, "delete_key", id)?;
                caller.etag()?;
                if !permanent && key.there != There::Here {
                    return Err(missing("KEY"));
                }
                if key.there == There::Here {
                    key.life.set_aside(now);
                }
                key.there = if *permanent { There::Gone } else { There::Deleted(now) };
                key.updated = now;
                key.version += 1;
                *self.keys.iter_mut().find(|key| key.id == *id).unwrap() = key;
                self.log(caller, "key.delete", id);
                Ok(String::new())
            }
            Verb::UndeleteKey { id } => {
                caller.any("delete_key")?;
                caller.any("create_key")?;
                caller.any("update_key")?;
                let mut key = self.find_key(caller, "delete_key", id)?;
                self.find_key(caller, "create_key", id)?;
                self.find_key(caller, "update_key", id)?;
                caller.etag()?;
                if key.there == There::Here {
                    return Err(no("AlreadyExists KEY_ALREADY_EXISTS"));
                }
                key.roles = self.living_roles(&key.roles);
                key.permissions = self.living_permissions(&key.permissions);
                for role in &key.roles {
                    caller.any("add_role_to_key")?;
                    if !caller.may("add_role_to_key", role) {
                        return Err(missing("ROLE"));
                    }
                }
                for one in &key.permissions {
                    caller.any("add_permission_to_key")?;
                    if !caller.may("add_permission_to_key", one) {
                        return Err(missing("PERMISSION"));
                    }
                }
                key.there = There::Here;
                key.updated = now;
                key.version += 1;
                *self.keys.iter_mut().find(|key| key.id == *id).unwrap() = key.clone();
                self.log(caller, "key.undelete", id);
                Ok(self.shown(&key))
            }
            Verb::GetKey { id } => {
                caller.any("read_key")?;
                self.find_key(caller, "read_key", id).map(|key| self.shown(&key))
            }
            Verb::LookupKey { secret } => {
                caller.any("read_key")?;
                let key = self.keys.iter().find(|key| key.secret == *secret).map(|key| key.id.clone());
                self.find_key_here(caller, "read_key", &key.unwrap_or_default()).map(|key| key.id)
            }
            Verb::AssignRoles { id, how, roles } => {
                caller.any("update_key")?;
                early(caller, *how, "add_role_to_key", "remove_role_from_key")?;
                let before = self.find_key_here(caller, "update_key", id)?;
                caller.etag()?;
                let mut after = before.clone();
                match how {
                    How::Add => {
                        let added = self.obtain_roles(caller, roles, &[])?;
                        let all = [self.living_roles(&before.roles), added].concat();
                        self.with_roles(&mut after, sorted(all));
                    }
                    How::Remove => {
                        for name in roles {
                            let role = self.role_named(caller, name);
                            let role = role.filter(|role| caller.may("remove_role_from_key", &role.id));
                            let role = role.ok_or_else(|| missing("ROLE"))?;
                            after.roles.retain(|held| *held != role.id);
                        }
                    }
                    How::Set => self.set_roles(caller, &mut after, roles)?,
                }
                self.rewrite(caller, &before, after)
            }
            Verb::AssignPermissions { id, how, permissions } => {
                caller.any("update_key")?;
                early(caller, *how, "add_permission_to_key", "remove_permission_from_key")?;
                let before = self.find_key_here(caller, "update_key", id)?;
                caller.etag()?;
                let mut after = before.clone();
                let had = self.living_permissions(&before.permissions);
                match how {
                    How::Add => {
                        let added = self.obtain(caller, permissions, ("add_permission_to_key", &[]))?;
                        self.with_permissions(&mut after, sorted([had, added].concat()));
                    }
                    How::Remove => {
                        let mut has = had;
                        for name in permissions {
                            let one = self.permission_named(caller, name);
                            let one = one.filter(|one| caller.may("remove_permission_from_key", &one.id));
                            let one = one.ok_or_else(|| missing("PERMISSION"))?;
                            has.retain(|held| *held != one.id);
                        }
                        self.with_permissions(&mut after, has);
                    }
                    How::Set => self.set_permissions(caller, &mut after, permissions)?,
                }
                self.rewrite(caller, &before, after)
            }
            other => unreachable!("{other:?}"),
        }
    }

    fn find_role(&self, caller: &Caller, action: &str, reference: &str) -> Result<Role, Refusal> {
        caller.any(action)?;
        let role = self.role_named(caller, reference).filter(|role| caller.may(action, &role.id));
        role.cloned().ok_or_else(|| missing("ROLE"))
    }

    fn find_permission(&self, caller: &Caller, action: &str, reference: &str) -> Result<Permission, Refusal> {
        caller.any(action)?;
        let one = self.permission_named(caller, reference).filter(|one| caller.may(action, &one.id));
        one.cloned().ok_or_else(|| missing("PERMISSION"))
    }

    fn free_name(&self, caller: &Caller, id: &str, name: &str) -> Result<(), Refusal> {
        let taken = |role: &&Role| {
            role.home == caller.key.home && !role.deleted && role.id != id && role.name.eq_ignore_ascii_case(name)
        };
        if self.roles.iter().any(|role| taken(&role)) { Err(no("AlreadyExists ROLE_ALREADY_EXISTS")) } else { Ok(()) }
    }

    fn rewrite_role(&mut self, caller: &Caller, before: &Role, mut after: Role) -> Outcome {
        if after != *before {
            after.updated = caller.now;
            after.version += 1;
            self.log(caller, "role.update", &after.id);
            *self.roles.iter_mut().find(|role| role.id == before.id).unwrap() = after.clone();
        }
        Ok(self.shown_role(&after))
    }

    pub fn role_verb(&mut self, caller: &Caller, verb: &Verb, rehearse: bool) -> Outcome {
        match verb {
            Verb::CreateRole { name, permissions } => {
                caller.any("create_role")?;
                let permissions = self.obtain(caller, permissions, ("add_permission_to_role", &[]))?;
                let id = self.told.id.clone();
                self.free_name(caller, &id, name)?;
                let (home, updated) = (caller.key.home.clone(), caller.now);
                let (name, description) = (name.clone(), String::new());
                let role = Role { id, home, name, description, permissions, updated, version: 1, deleted: false };
                self.log(caller, "role.create", &role.id);
                self.roles.push(role.clone());
                Ok(self.shown_role(&role))
            }
            Verb::UpdateRole { role, name, description } => {
                let before = self.find_role(caller, "update_role", role)?;
                caller.etag()?;
                let mut after = before.clone();
                after.name = name.clone().unwrap_or(after.name);
                after.description = description.clone().unwrap_or(after.description);
                self.free_name(caller, &after.id, &after.name)?;
                self.rewrite_role(caller, &before, after)
            }
            Verb::SetRolePermissions { role, permissions } => {
                let before = self.find_role(caller, "update_role", role)?;
                caller.etag()?;
                let had = self.living_permissions(&before.permissions);
                let has = self.obtain(caller, permissions, ("add_permission_to_role", &had))?;
                Self::removals(caller, "remove_permission_from_role", "PERMISSION", &had, &has)?;
                let mut after = before.clone();
                if has != had {
                    after.permissions = has;
                }
                self.rewrite_role(caller, &before, after)
            }
            Verb::DeleteRole { role } => {
                let before = self.find_role(caller, "delete_role", role)?;
                caller.etag()?;
                self.roles.iter_mut().find(|role| role.id == before.id).unwrap().deleted = true;
                self.log(caller, "role.delete", &before.id);
                Ok(if rehearse { self.shown_role(&before) } else { String::new() })
            }
            Verb::GetRole { role } => self.find_role(caller, "read_role", role).map(|role| self.shown_role(&role)),
            Verb::CreatePermission { slug } => {
                caller.any("create_permission")?;
                self.make_permission(caller, slug).map(|_| slug.clone())
            }
            Verb::UpdatePermission { permission, name } => {
                let before = self.find_permission(caller, "update_permission", permission)?;
                caller.etag()?;
                if before.name != *name {
                    let one = self.permissions.iter_mut().find(|one| one.id == before.id).unwrap();
                    one.name.clone_from(name);
                    one.updated = caller.now;
                    one.version += 1;
                    self.log(caller, "permission.update", &before.id);
                }
                Ok(before.slug)
            }
            Verb::DeletePermission { permission } => {
                let before = self.find_permission(caller, "delete_permission", permission)?;
                caller.etag()?;
                let holds = |held: &Vec<String>| held.contains(&before.id);
                let here = |key: &&Key| key.home == before.home && key.there == There::Here && holds(&key.permissions);
                let keys = self.keys.iter().filter(here).count();
                let roles = self.roles.iter().filter(|role| !role.deleted && holds(&role.permissions)).count();
                self.permissions.iter_mut().find(|one| one.id == before.id).unwrap().deleted = Some(caller.now);
                self.log(caller, "permission.delete", &before.id);
                Ok(if rehearse { format!("{keys} {roles}") } else { String::new() })
            }
            Verb::GetPermission { permission } => {
                self.find_permission(caller, "read_permission", permission).map(|one| one.slug)
            }
            other => unreachable!("{other:?}"),
        }
    }
}

/// Adding and removing need the right to it for something at least, before anything is looked up.
fn early(caller: &Caller, how: How, add: &str, remove: &str) -> Result<(), Refusal> {
    match how {
        How::Add => caller.any(add),
        How::Remove => caller.any(remove),
        How::Set => Ok(()),
    }
}

fn sorted(mut ids: Vec<String>) -> Vec<String> {
    ids.sort();
    ids.dedup();
    ids
}
