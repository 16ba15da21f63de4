//! The model: what keys may use and how often, as plainly as it can be said. Every use is kept, and every question is
//! answered by looking at all of them.

use std::collections::BTreeMap;

use super::steps::{Asked, Deposit, Lim, Refill, Step, Wanted};

pub const DAY: u64 = 86_400_000;
const RETENTION: u64 = 90 * DAY;
const RESTORABLE: u64 = 30 * DAY;
/// The shortest windows that outlive a restart.
const SAVED_FROM: u64 = 60_000;

/// A fault planted on purpose, to show that comparing finds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    ForgetsTheWindowBefore,
    AddsRefills,
    CountsGenerationsApart,
    RevokesNoDeletedKeys,
    LetsNamedLimitsRelax,
}

/// What a step answers, or why not.
pub type Answer = Result<String, String>;

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum There {
    Here,
    Deleted(u64),
    Revoked(u64),
}

#[derive(Debug, Clone)]
pub struct Key {
    pub id: String,
    pub api: String,
    pub secret: String,
    /// The first of its line: all of a line share what they use.
    pub line: String,
    pub enabled: bool,
    pub end: Option<u64>,
    /// The identity, by when it was made.
    pub owner: Option<usize>,
    pub holds: bool,
    pub limits: Vec<Lim>,
    pub created: u64,
    pub to: Option<String>,
    pub there: There,
}

#[derive(Debug, Clone)]
pub struct Identity {
    pub name: &'static str,
    pub limits: Vec<Lim>,
    pub deleted: bool,
}

#[derive(Debug, Clone, Default)]
struct Account {
    left: Option<u64>,
    refill: Option<Refill>,
    since: u64,
}

/// Something that counted, in windows of one length.
#[derive(Debug, Clone)]
struct Use {
    whose: String,
    name: String,
    span: u64,
    time: u64,
    cost: u64,
}

#[derive(Debug, Clone)]
struct Exception {
    pattern: &'static str,
    limit: u64,
    span: u64,
}

#[derive(Debug, Clone)]
struct Namespace {
    name: &'static str,
    number: usize,
    exceptions: Vec<Exception>,
}

#[derive(Debug, Clone, Default)]
pub struct Model {
    pub apis: Vec<(String, Option<u64>)>,
    pub keys: Vec<Key>,
    pub identities: Vec<Identity>,
    accounts: BTreeMap<String, Account>,
    uses: Vec<Use>,
    namespaces: Vec<Namespace>,
    made: usize,
    pub fault: Option<Fault>,
    /// What the next thing that is made is called.
    pub told: (String, String),
}

fn no<T>(reason: &str) -> Result<T, String> {
    Err(reason.to_owned())
}

/// Year, month from 1, day from 1, and how long the month is, of a day counted from 1970.
fn date(mut day: u64) -> (u64, u64, u64) {
    let leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let mut year = 1970;
    while day >= 365 + u64::from(leap(year)) {
        day -= 365 + u64::from(leap(year));
        year += 1;
    }
    for (month, length) in (1..).zip([31, 28 + u64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]) {
        if day < length {
            return (month, day + 1, length);
        }
        day -= length;
    }
    unreachable!("a year has twelve months")
}

impl Refill {
    /// Whether it comes at the beginning of that day.
    fn comes(self, day: u64) -> bool {
        let (_, of_month, length) = date(day);
        self.day.is_none_or(|wanted| of_month == wanted.min(length))
    }
}

/// Whether the whole text fits the pattern.
fn fits(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern, text) {
        ([], []) => true,
        ([b'*', rest @ ..], _) => fits(rest, text) || (!text.is_empty() && fits(pattern, &text[1..])),
        ([b'?', rest @ ..], [_, tail @ ..]) => fits(rest, tail),
        ([c, rest @ ..], [d, tail @ ..]) => c == d && fits(rest, tail),
        (_, _) => false,
    }
}

impl Model {
    pub fn with(fault: Option<Fault>) -> Self {
        Self { fault, ..Self::default() }
    }

    pub fn api_lives(&self, id: &str) -> bool {
        self.apis.iter().any(|(api, _)| api == id)
    }

    pub fn owner(&self, key: &Key) -> Option<&Identity> {
        key.owner.map(|number| &self.identities[number]).filter(|one| !one.deleted)
    }

    fn living(&self, name: &str) -> Option<usize> {
        self.identities.iter().position(|one| one.name == name && !one.deleted)
    }

    fn obtain(&mut self, name: &'static str) -> usize {
        self.living(name).unwrap_or_else(|| {
            self.identities.push(Identity { name, limits: Vec::new(), deleted: false });
            self.identities.len() - 1
        })
    }

    pub fn keys_of(&self, identity: usize) -> usize {
        let counts = |key: &&Key| key.there == There::Here && key.to.is_none() && self.api_lives(&key.api);
        self.keys.iter().filter(counts).filter(|key| key.owner == Some(identity)).count()
    }

    /// What is left to use, refills that have come taken into account.
    pub fn left(&self, line: &str, now: u64) -> Option<u64> {
        let account = self.accounts.get(line)?;
        let left = account.left?;
        let refilled =
            account.refill.filter(|refill| (account.since / DAY + 1..=now / DAY).any(|day| refill.comes(day)));
        let adds = self.fault == Some(Fault::AddsRefills);
        Some(refilled.map_or(left, |refill| if adds { left + refill.amount } else { left.max(refill.amount) }))
    }

    fn settle(&mut self, line: &str, now: u64) {
        let left = self.left(line, now);
        let account = self.accounts.entry(line.to_owned()).or_default();
        (account.left, account.since) = (left, now);
    }

    fn used(&self, whose: &str, name: &str, span: u64, now: u64) -> u64 {
        let window = now / span;
        let of = |number: u64| -> u64 {
            let within = |one: &&Use| one.time / span == number;
            let same = |one: &&Use| (one.whose.as_str(), one.name.as_str(), one.span) == (whose, name, span);
            self.uses.iter().filter(same).filter(within).map(|one| one.cost).sum()
        };
        let before = if self.fault == Some(Fault::ForgetsTheWindowBefore) { 0 } else { of(window - 1) };
        of(window) + before * (span - now % span) / span
    }

    fn count(&mut self, whose: &str, name: &str, span: u64, (time, cost): (u64, u64)) {
        self.uses.push(Use { whose: whose.to_owned(), name: name.to_owned(), span, time, cost });
    }

    pub fn state(&self, key: &Key, now: u64) -> &'static str {
        match key.there {
            There::Revoked(_) => "Revoked",
            There::Deleted(_) => "Deleted",
            There::Here if key.end.is_some_and(|end| now >= end) => "Expired",
            There::Here if !key.enabled => "Disabled",
            There::Here if key.to.is_some() => "RotatedOut",
            There::Here => "Active",
        }
    }

    /// Keys that can still be seen.
    pub fn visible(&self, now: u64) -> impl Iterator<Item = &Key> {
        let gone = move |key: &&Key| matches!(key.there, There::Deleted(at) if now >= at + RESTORABLE);
        self.keys.iter().filter(|key| self.api_lives(&key.api)).filter(move |key| !gone(key))
    }

    fn find(&self, id: &str, now: u64) -> Result<usize, String> {
        let seen = self.visible(now).any(|key| key.id == id);
        let place = self.keys.iter().position(|key| key.id == id).filter(|_| seen);
        place.ok_or_else(|| "KEY_NOT_FOUND".to_owned())
    }

    fn find_here(&self, id: &str, now: u64) -> Result<usize, String> {
        let place = self.find(id, now)?;
        match self.keys[place].there {
            There::Here => Ok(place),
            There::Deleted(_) => no("KEY_NOT_FOUND"),
            There::Revoked(_) => no("KEY_REVOKED"),
        }
    }

    pub fn restart(&mut self) {
        self.uses.retain(|one| one.span >= SAVED_FROM);
    }

    pub fn sweep(&mut self, now: u64) {
        let apis = &self.apis;
        self.keys.retain(|key| {
            let over = match key.there {
                There::Here => key.end.is_some_and(|end| now >= end + RETENTION),
                There::Deleted(at) => now >= at + RESTORABLE,
                There::Revoked(at) => now >= at + RETENTION,
            };
            !over && apis.iter().any(|(api, _)| *api == key.api)
        });
    }

    pub fn take(&mut self, step: &Step, now: u64) -> Answer {
        match step {
            Step::Pass(_) => Ok(String::new()),
            Step::Sweep => {
                self.sweep(now);
                Ok(String::new())
            }
            Step::Restart => {
                self.restart();
                Ok(String::new())
            }
            Step::CreateApi { ttl } => {
                self.apis.push((self.told.0.clone(), *ttl));
                Ok(String::new())
            }
            Step::DeleteApi { api } => {
                let place = self.apis.iter().position(|(id, _)| id == api);
                self.apis.remove(place.ok_or_else(|| "API_NOT_FOUND".to_owned())?);
                Ok(String::new())
            }
            Step::Create { api, wanted, imported } => self.create(api, wanted, *imported, now),
            Step::Update { key, enabled, end, owner, limits } => {
                let place = self.find_here(key, now)?;
                let over = self.keys[place].to.is_some();
                let was = self.keys[place].end;
                if let Some(end) = end.filter(|end| *end != was) {
                    let longer = match (end, was) {
                        (_, None) => false,
                        (None, Some(_)) => true,
                        (Some(end), Some(was)) => end > was,
                    };
                    if over && longer {
                        return no("ALREADY_ROTATED");
                    }
                    self.keys[place].end = end;
                }
                if let Some(owner) = owner {
                    self.keys[place].owner = owner.map(|name| self.obtain(name));
                }
                let key = &mut self.keys[place];
                key.enabled = enabled.unwrap_or(key.enabled);
                key.limits = limits.clone().unwrap_or_else(|| key.limits.clone());
                Ok(String::new())
            }
            Step::SetCredits { key, credits } => {
                let place = self.find_here(key, now)?;
                let line = self.keys[place].line.clone();
                let left = credits.map(|(left, _)| left);
                let refill = credits.and_then(|(_, refill)| refill);
                self.accounts.insert(line, Account { left, refill, since: now });
                Ok(format!("{left:?}"))
            }
            Step::Adjust { key, deposit } => self.adjust(key, *deposit, now),
            Step::Verify(asked) => self.verify(asked, now),
            Step::Stream(asked) => Ok(format!("{:?}", self.verify(asked, now))),
            Step::Batch(all) => {
                let answers: Vec<Answer> = all.iter().map(|asked| self.verify(asked, now)).collect();
                Ok(format!("{answers:?}"))
            }
            Step::Reroll { key, grace } => {
                let place = self.find_here(key, now)?;
                let old = self.keys[place].clone();
                if old.to.is_some() {
                    return no("ALREADY_ROTATED");
                }
                if old.end.is_some_and(|end| now >= end) {
                    return no("KEY_EXPIRED");
                }
                let (id, secret) = self.told.clone();
                self.keys[place].to = Some(id.clone());
                self.keys[place].end = Some(old.end.map_or(now + grace, |end| end.min(now + grace)));
                let owner = old.owner.filter(|number| !self.identities[*number].deleted);
                self.keys.push(Key { id, secret, owner, created: now, ..old });
                Ok(String::new())
            }
            Step::Revoke { api, owner, holder, since, before, rehearse } => {
                if api.as_ref().is_some_and(|api| !self.api_lives(api)) {
                    return no("API_NOT_FOUND");
                }
                let identity = owner.map(|name| self.living(name));
                let fits = |key: &Key| {
                    api.as_ref().is_none_or(|api| key.api == *api)
                        && identity.is_none_or(|wanted| wanted.is_some() && key.owner == wanted)
                        && (!holder || key.holds)
                        && since.is_none_or(|since| key.created >= since)
                        && before.is_none_or(|before| key.created < before)
                };
                let taken: Vec<String> = self
                    .visible(now)
                    .filter(|key| !matches!(key.there, There::Revoked(_)) && fits(key))
                    .filter(|key| key.there == There::Here || self.fault != Some(Fault::RevokesNoDeletedKeys))
                    .map(|key| key.id.clone())
                    .collect();
                let here = |key: &&Key| key.there == There::Here && taken.contains(&key.id);
                let number = self.keys.iter().filter(here).count();
                for key in self.keys.iter_mut().filter(|key| !rehearse && taken.contains(&key.id)) {
                    key.there = There::Revoked(now);
                }
                Ok(number.to_string())
            }
            Step::Delete { key } => {
                let place = self.find_here(key, now)?;
                self.keys[place].there = There::Deleted(now);
                Ok(String::new())
            }
            Step::Undelete { key } => {
                let place = self.find(key, now)?;
                match self.keys[place].there {
                    There::Here => return no("KEY_ALREADY_EXISTS"),
                    There::Revoked(_) => return no("KEY_REVOKED"),
                    There::Deleted(_) => self.keys[place].there = There::Here,
                }
                let owner = self.keys[place].owner.filter(|number| !self.identities[*number].deleted);
                self.keys[place].owner = owner;
                Ok(String::new())
            }
            Step::CreateIdentity { name, limits } => {
                if self.living(name).is_some() {
                    return no("IDENTITY_ALREADY_EXISTS");
                }
                let place = self.obtain(name);
                self.identities[place].limits.clone_from(limits);
                Ok(String::new())
            }
            Step::UpdateIdentity { name, limits } => {
                let place = self.living(name).ok_or_else(|| "IDENTITY_NOT_FOUND".to_owned())?;
                self.identities[place].limits.clone_from(limits);
                Ok(String::new())
            }
            Step::DeleteIdentity { name } => {
                let place = self.living(name).ok_or_else(|| "IDENTITY_NOT_FOUND".to_owned())?;
                self.identities[place].deleted = true;
                Ok(String::new())
            }
            Step::Limit { namespace, items } => self.limit(namespace, items, now),
            Step::SetOverride { namespace, pattern, limit, span } => {
                let found = self.namespaces.iter_mut().find(|one| one.name == *namespace);
                let found = found.ok_or_else(|| "NAMESPACE_NOT_FOUND".to_owned())?;
                match found.exceptions.iter_mut().find(|one| one.pattern == *pattern) {
                    Some(one) => (one.limit, one.span) = (*limit, *span),
                    None => found.exceptions.push(Exception { pattern, limit: *limit, span: *span }),
                }
                Ok(String::new())
            }
            Step::DeleteOverride { namespace, pattern } => {
                let found = self.namespaces.iter_mut().find(|one| one.name == *namespace);
                let found = found.ok_or_else(|| "NAMESPACE_NOT_FOUND".to_owned())?;
                let place = found.exceptions.iter().position(|one| one.pattern == *pattern);
                found.exceptions.remove(place.ok_or_else(|| "OVERRIDE_NOT_FOUND".to_owned())?);
                Ok(String::new())
            }
            Step::Reset { namespace, identifier } => {
                let found = self.namespaces.iter().find(|one| one.name == *namespace);
                let number = found.ok_or_else(|| "NAMESPACE_NOT_FOUND".to_owned())?.number;
                let whose = format!("{number}/{identifier}");
                self.uses.retain(|one| one.whose != whose);
                Ok(String::new())
            }
            Step::CreateNamespace { namespace } => {
                if self.namespaces.iter().any(|one| one.name == *namespace) {
                    return no("NAMESPACE_ALREADY_EXISTS");
                }
                self.make(namespace);
                Ok(String::new())
            }
            Step::RenameNamespace { namespace, to } => {
                let place = self.namespaces.iter().position(|one| one.name == *namespace);
                let place = place.ok_or_else(|| "NAMESPACE_NOT_FOUND".to_owned())?;
                if namespace != to && self.namespaces.iter().any(|one| one.name == *to) {
                    return no("NAMESPACE_ALREADY_EXISTS");
                }
                self.namespaces[place].name = to;
                Ok(String::new())
            }
            Step::DeleteNamespace { namespace } => {
                let place = self.namespaces.iter().position(|one| one.name == *namespace);
                self.namespaces.remove(place.ok_or_else(|| "NAMESPACE_NOT_FOUND".to_owned())?);
                Ok(String::new())
            }
        }
    }

    fn create(&mut self, api: &str, wanted: &Wanted, imported: Option<&str>, now: u64) -> Answer {
        let Some((_, ttl)) = self.apis.iter().find(|(id, _)| id == api).cloned() else { return no("API_NOT_FOUND") };
        if imported.is_some_and(|secret| self.keys.iter().any(|key| key.secret == secret)) {
            return no("KEY_ALREADY_EXISTS");
        }
        let (id, secret) = self.told.clone();
        let Wanted { credits, limits, owner, end, holds } = wanted.clone();
        let owner = owner.map(|name| self.obtain(name));
        let (left, refill) = (credits.map(|(left, _)| left), credits.and_then(|(_, refill)| refill));
        self.accounts.insert(id.clone(), Account { left, refill, since: now });
        self.keys.push(Key {
            line: id.clone(),
            id,
            api: api.to_owned(),
            secret: imported.map_or(secret, str::to_owned),
            enabled: true,
            end: end.or(ttl.map(|ttl| now + ttl)),
            owner,
            holds,
            limits,
            created: now,
            to: None,
            there: There::Here,
        });
        Ok(String::new())
    }

    fn adjust(&mut self, key: &str, deposit: Deposit, now: u64) -> Answer {
        let place = self.find_here(key, now)?;
        let line = self.keys[place].line.clone();
        self.settle(&line, now);
        let account = self.accounts.entry(line).or_default();
        match (deposit, account.left) {
            (Deposit::Set(None), _) => (account.left, account.refill) = (None, None),
            (Deposit::Set(Some(left)), _) => account.left = Some(left),
            (Deposit::Add(_) | Deposit::Take(_), None) => return no("CREDITS_UNLIMITED"),
            (Deposit::Add(more), Some(left)) => account.left = Some(left + more),
            (Deposit::Take(fewer), Some(left)) => account.left = Some(left.saturating_sub(fewer)),
        }
        Ok(format!("{:?}", account.left))
    }

    /// The verdict: the code, what is left, and what each limit said.
    pub fn verify(&mut self, asked: &Asked, now: u64) -> Answer {
        let Asked { secret, cost, named, dry } = asked;
        let known = self.keys.iter().find(|key| key.secret == *secret && key.there == There::Here);
        let Some(key) = known.filter(|key| self.api_lives(&key.api)).cloned() else {
            return Ok("NotFound None []".to_owned());
        };
        let shared = self.owner(&key).map(|one| one.limits.clone()).unwrap_or_default();
        let identity = format!("identity {:?}", key.owner);
        let mut key = key;
        if self.fault == Some(Fault::CountsGenerationsApart) {
            key.line.clone_from(&key.id);
        }
        let stored = |name: &str| {
            let own = key.limits.iter().find(|limit| limit.name == name).map(|limit| (key.line.clone(), *limit));
            own.or_else(|| shared.iter().find(|limit| limit.name == name).map(|limit| (identity.clone(), *limit)))
        };
        // Name and span, whose, the smallest limit, the cost.
        let mut applied: BTreeMap<(&str, u64), (String, u64, u64)> = BTreeMap::new();
        let mut apply = |name, whose: String, (limit, span), cost| {
            let entry = applied.entry((name, span)).or_insert((whose, limit, cost));
            entry.1 = entry.1.min(limit);
        };
        for (name, cost, inline) in named {
            let found = stored(name);
            let whose = found.as_ref().map_or(key.line.clone(), |(whose, _)| whose.clone());
            let relaxed = inline.is_some() && self.fault == Some(Fault::LetsNamedLimitsRelax);
            if let Some((_, limit)) = found.as_ref().filter(|_| !relaxed) {
                apply(name, whose.clone(), (limit.limit, limit.span), *cost);
            }
            match inline {
                Some(rate) => apply(name, whose, *rate, *cost),
                None if found.is_none() => return no("FIELD_INVALID"),
                None => {}
            }
        }
        for name in key.limits.iter().chain(&shared).map(|limit| limit.name) {
            let (whose, limit) = stored(name).unwrap();
            if limit.auto && !named.iter().any(|(other, ..)| *other == name) {
                apply(name, whose, (limit.limit, limit.span), 1);
            }
        }
        let left = self.left(&key.line, now);
        let early = if !key.enabled {
            Some("Disabled")
        } else if key.end.is_some_and(|end| now >= end) {
            Some("Expired")
        } else {
            None
        };
        if let Some(code) = early {
            return Ok(format!("{code} {left:?} []"));
        }
        let used = |name: &str, span, whose: &str| self.used(whose, name, span, now);
        let fits = |((name, span), (whose, limit, cost)): (&(&str, u64), &(String, u64, u64))| {
            used(name, *span, whose) + cost <= *limit
        };
        let admitted = applied.iter().all(fits);
        let afforded = left.is_none_or(|left| *cost <= left);
        let code = match (admitted, afforded) {
            (false, _) => "RateLimited",
            (true, false) => "UsageExceeded",
            (true, true) => "Valid",
        };
        let consumed = code == "Valid" && !dry;
        let mut told = Vec::new();
        for (place, value) in &applied {
            let ((name, span), (whose, limit, cost)) = (place, value);
            let taken = used(name, *span, whose) + if consumed { *cost } else { 0 };
            told.push((*name, !fits((place, value)), *limit, limit.saturating_sub(taken)));
        }
        if consumed {
            for ((name, span), (whose, _, cost)) in &applied {
                self.count(whose, name, *span, (now, *cost));
            }
            self.settle(&key.line, now);
            let account = self.accounts.entry(key.line.clone()).or_default();
            account.left = account.left.map(|left| left - cost);
        }
        Ok(format!("{code} {:?} {told:?}", self.left(&key.line, now)))
    }

    fn make(&mut self, name: &'static str) {
        self.made += 1;
        self.namespaces.push(Namespace { name, number: self.made, exceptions: Vec::new() });
    }

    fn limit(&mut self, namespace: &'static str, items: &[(&'static str, u64, u64, u64)], now: u64) -> Answer {
        if !self.namespaces.iter().any(|one| one.name == namespace) {
            self.make(namespace);
        }
        let home = self.namespaces.iter().find(|one| one.name == namespace).unwrap().clone();
        let mut counted: Vec<(String, u64, u64)> = Vec::new();
        let mut told = Vec::new();
        for (identifier, limit, span, cost) in items {
            let literal = |one: &Exception| one.pattern.chars().filter(|c| !"*?".contains(*c)).count();
            let exact = home.exceptions.iter().find(|one| one.pattern == *identifier);
            let mut patterns: Vec<&Exception> = home
                .exceptions
                .iter()
                .filter(|one| one.pattern.contains(['*', '?']) && fits(one.pattern.as_bytes(), identifier.as_bytes()))
                .collect();
            // A stable sort: of equals the oldest stays first.
            patterns.sort_by_key(|one| usize::MAX - literal(one));
            let (limit, span) =
                exact.or(patterns.first().copied()).map_or((*limit, *span), |one| (one.limit, one.span));
            let whose = format!("{}/{identifier}", home.number);
            let before: u64 =
                counted.iter().filter(|one| (&one.0, one.1) == (&whose, span)).map(|(_, _, cost)| cost).sum();
            let used = self.used(&whose, "", span, now) + before;
            let passes = limit > 0 && used + cost <= limit;
            if passes {
                counted.push((whose.clone(), span, *cost));
            }
            told.push((passes, limit, whose, span, used, *cost));
        }
        let success = told.iter().all(|(passes, ..)| *passes);
        if success {
            for (whose, span, cost) in counted {
                self.count(&whose, "", span, (now, cost));
            }
        }
        let told: Vec<(bool, u64, u64)> = told
            .into_iter()
            .map(|(passes, limit, whose, span, used, cost)| {
                let left = match (passes, success) {
                    (true, true) => limit - used - cost,
                    // What passed but was not counted is shown as it stands.
                    (true, false) => limit.saturating_sub(self.used(&whose, "", span, now)),
                    (false, _) => limit.saturating_sub(used),
                };
                (passes, limit, left)
            })
            .collect();
        Ok(format!("{success} {told:?}"))
    }
}
