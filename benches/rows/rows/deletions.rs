//! Whether a call that ends many keys is acknowledged about as soon as one that ends a single key.

use std::time::{Duration, Instant};

use ostiary::domain::id::{ApiId, IdentityId, RoleId, RootKeyId};
use ostiary::domain::key::Key;
use ostiary::pb::v1::{self as pb, VerificationCode};

use crate::Failed;
use crate::answers::code;
use crate::bench::Bench;
use crate::figures::Summary;
use crate::fixture::{Loader, prepared};
use crate::ostiary::{Client, Ostiary, Store};
use crate::population::{Population, question};
use crate::report::{Bound, Report};
use crate::wire::{VERIFY_KEY, framed};

/// How long a server is waited for until it has done what a call left behind, and what all calls of a kind did.
const QUIET_WITHIN: Duration = Duration::from_secs(60);
const QUIET_AFTER_ALL_WITHIN: Duration = Duration::from_secs(300);

/// A call that ends keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    DeleteRole,
    DeleteApi,
    RevokeByApi,
    RevokeByIdentity,
    RevokeByRole,
    RevokeByCreator,
}

const KINDS: [Kind; 6] = [
    Kind::DeleteRole,
    Kind::DeleteApi,
    Kind::RevokeByApi,
    Kind::RevokeByIdentity,
    Kind::RevokeByRole,
    Kind::RevokeByCreator,
];

/// Keys that have everything in common by which they can be ended.
struct Set {
    api: String,
    role: String,
    identity: String,
    creator: String,
    /// One of its keys.
    secret: String,
}

impl Kind {
    /// What is done, for people.
    fn name(self) -> &'static str {
        match self {
            Self::DeleteRole => "DeleteRole",
            Self::DeleteApi => "DeleteApi",
            Self::RevokeByApi => "RevokeKeys by API",
            Self::RevokeByIdentity => "RevokeKeys by identity",
            Self::RevokeByRole => "RevokeKeys by role",
            Self::RevokeByCreator => "RevokeKeys by creator",
        }
    }

    /// What a key answers afterwards.
    fn spoilt(self) -> VerificationCode {
        match self {
            Self::DeleteRole => VerificationCode::InsufficientPermissions,
            Self::DeleteApi
            | Self::RevokeByApi
            | Self::RevokeByIdentity
            | Self::RevokeByRole
            | Self::RevokeByCreator => VerificationCode::NotFound,
        }
    }
}

pub async fn run(bench: &Bench) -> Result<Report, Failed> {
    let rounds = bench.options.rounds();
    let number = bench.options.keys(1_000_000);
    // Of either size one for each call; beside those for all keys stand further small ones.
    let (many, ones) = (KINDS.len() * rounds, (KINDS.len() + 1) * rounds);
    let each = number / many;
    let (store, _) = prepared(Store::new()?).await?;
    let population = Population::drawn(each * many + ones, 31);
    let ostiary = store.serve()?;
    let client = ostiary.client().await?;
    let mut sets = Vec::new();
    for set in 0..many + ones {
        // The keys of a set do not lie next to each other.
        let secret = population.secret(if set < many { set } else { each * many + set - many }).to_owned();
        sets.push(furnish(&client, set, secret).await?);
    }
    let wholes = whole_roles(&client, rounds).await?;
    let store = fill(ostiary.kill(), &sets, &wholes, &population, (many, each)).await?;
    let ostiary = store.serve()?;
    let client = ostiary.client().await?;
    let mut report = Report::default();
    let (mut large, mut small) = (Vec::new(), Vec::new());
    for (round, role) in wholes.iter().enumerate() {
        quiet(bench, &ostiary, QUIET_WITHIN).await?;
        large.push(delete_role(&client, role).await?);
        quiet(bench, &ostiary, QUIET_WITHIN).await?;
        let set = &sets[many + KINDS.len() * rounds + round];
        small.push(end(&ostiary, &client, Kind::DeleteRole, set, 1).await?);
    }
    tell(&mut report, Kind::DeleteRole.name(), population.number(), &large, &small);
    for (place, kind) in KINDS.into_iter().enumerate() {
        quiet(bench, &ostiary, QUIET_AFTER_ALL_WITHIN).await?;
        let (mut large, mut small) = (Vec::new(), Vec::new());
        for round in 0..rounds {
            let set = place * rounds + round;
            for (times, set, keys) in [(&mut large, set, each), (&mut small, many + set, 1)] {
                quiet(bench, &ostiary, QUIET_WITHIN).await?;
                times.push(end(&ostiary, &client, kind, &sets[set], keys).await?);
            }
        }
        tell(&mut report, kind.name(), each, &large, &small);
    }
    report.note(format!(
        "{} keys in one server: {many} sets of {each} keys that have an API, a role, an identity and a creator in common, \
         {ones} such sets of one key, and {rounds} roles that all keys hold. Each call ends a set that nothing has ended before; \
         large and small take turns. Before each call the server is given up to {} s to do what the one before left behind.",
        population.number(),
        QUIET_WITHIN.as_secs()
    ));
    Ok(report)
}

fn tell(report: &mut Report, what: &str, keys: usize, large: &[f64], small: &[f64]) {
    let ratio = Summary::of_ratios(large, small);
    report.bar(&format!("{what}, {keys} keys beside one"), Bound::AtMost(3.0), ratio);
    report.figure(&format!("{what}, {keys} keys"), "ms", Summary::of(large.iter().copied()));
    report.figure(&format!("{what}, one key beside {keys}"), "ms", Summary::of(small.iter().copied()));
}

/// Makes what the keys of a set are to have in common.
async fn furnish(client: &Client, set: usize, secret: String) -> Result<Set, Failed> {
    let name = format!("set-{set}");
    let api = client.create_api(&name).await?;
    let role = client.create_role(&name, &["documents.*"]).await?;
    let identity = pb::CreateIdentityRequest { external_id: name.clone(), ..Default::default() };
    let identity = client.identities().create_identity(identity).await?.into_inner().identity.unwrap_or_default();
    let creator =
        pb::CreateRootKeyRequest { name, permissions: vec!["apis.*.create_key".to_owned()], ..Default::default() };
    let creator = client.root_keys().create_root_key(creator).await?.into_inner().root_key.unwrap_or_default();
    Ok(Set { api, role, identity: identity.identity_id, creator: creator.root_key_id, secret })
}

/// Roles for all keys. They give nothing that is asked for, so that a key is not good because of them.
async fn whole_roles(client: &Client, number: usize) -> Result<Vec<String>, Failed> {
    let mut roles = Vec::new();
    for role in 0..number {
        roles.push(client.create_role(&format!("everyone-{role}"), &["pictures.read"]).await?);
    }
    Ok(roles)
}

async fn fill(
    store: Store,
    sets: &[Set],
    wholes: &[String],
    population: &Population,
    (many, each): (usize, usize),
) -> Result<Store, Failed> {
    let flawed = |flaw| format!("{flaw:?}");
    let mut common = Vec::new();
    for Set { api, role, identity, creator, secret: _ } in sets {
        let api = ApiId::parse(api).map_err(flawed)?;
        let mut roles = vec![RoleId::parse(role).map_err(flawed)?];
        for role in wholes {
            roles.push(RoleId::parse(role).map_err(flawed)?);
        }
        roles.sort_unstable();
        let identity = IdentityId::parse(identity).map_err(flawed)?;
        common.push((api, roles, identity, RootKeyId::parse(creator).map_err(flawed)?));
    }
    let vary = |place: usize, key: &mut Key| {
        let set = if place < each * many { place % many } else { place - each * many + many };
        let (api, roles, identity, creator) = &common[set];
        (key.api, key.roles, key.identity, key.created_by) = (*api, roles.clone(), Some(*identity), *creator);
    };
    let loader = Loader::open(&store, &sets[0].api).await?;
    loader.load(population, vary).await?;
    loader.close().await;
    Ok(store)
}

/// Waits until the server has nothing more to do, or too long.
async fn quiet(bench: &Bench, ostiary: &Ostiary, within: Duration) -> Result<(), Failed> {
    if bench.options.small {
        return Ok(());
    }
    let since = Instant::now();
    while since.elapsed() < within {
        let before = ostiary.process.clock().read()?;
        tokio::time::sleep(Duration::from_millis(500)).await;
        if ostiary.process.clock().read()?.since(&before) < Duration::from_millis(15) {
            break;
        }
    }
    Ok(())
}

/// Ends a set, checks that one of its keys is no longer good, and tells how many milliseconds the call took.
async fn end(ostiary: &Ostiary, client: &Client, kind: Kind, set: &Set, keys: usize) -> Result<f64, Failed> {
    let wire = ostiary.wires(1).await?.remove(0);
    let ask = async || code(wire.unary(VERIFY_KEY, framed(&question(&set.secret))).await?);
    let before = ask().await?;
    if before != VerificationCode::Valid {
        return Err(format!("{before:?} before {}", kind.name()).into());
    }
    let filter = pb::RevokeKeysFilter::default();
    let took = match kind {
        Kind::DeleteRole => delete_role(client, &set.role).await?,
        Kind::DeleteApi => {
            let request = pb::DeleteApiRequest { api_id: set.api.clone(), ..Default::default() };
            let began = Instant::now();
            client.apis().delete_api(request).await?;
            began.elapsed().as_secs_f64() * 1e3
        }
        Kind::RevokeByApi => {
            let filter = pb::RevokeKeysFilter { api_id: Some(set.api.clone()), ..filter };
            revoke(client, filter, keys).await?
        }
        Kind::RevokeByIdentity => {
            let filter = pb::RevokeKeysFilter { identity: Some(set.identity.clone()), ..filter };
            revoke(client, filter, keys).await?
        }
        Kind::RevokeByRole => {
            let filter = pb::RevokeKeysFilter { role: Some(set.role.clone()), ..filter };
            revoke(client, filter, keys).await?
        }
        Kind::RevokeByCreator => {
            let filter = pb::RevokeKeysFilter { created_by: Some(set.creator.clone()), ..filter };
            revoke(client, filter, keys).await?
        }
    };
    let after = ask().await?;
    if after == kind.spoilt() { Ok(took) } else { Err(format!("{after:?} after {}", kind.name()).into()) }
}

async fn delete_role(client: &Client, role: &str) -> Result<f64, Failed> {
    let request = pb::DeleteRoleRequest { role: role.to_owned(), ..Default::default() };
    let began = Instant::now();
    client.roles().delete_role(request).await?;
    Ok(began.elapsed().as_secs_f64() * 1e3)
}

async fn revoke(client: &Client, filter: pb::RevokeKeysFilter, keys: usize) -> Result<f64, Failed> {
    let request = pb::RevokeKeysRequest { filter: Some(filter), ..Default::default() };
    let began = Instant::now();
    let answer = client.keys().revoke_keys(request).await?.into_inner();
    let took = began.elapsed().as_secs_f64() * 1e3;
    match usize::try_from(answer.revoked_count) {
        Ok(count) if count == keys => Ok(took),
        _ => Err(format!("{} keys revoked and not {keys}", answer.revoked_count).into()),
    }
}
