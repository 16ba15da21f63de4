//! Nobody hands on more than they hold: whatever somebody with a root key calls, in whatever order, what they obtain or
//! give to others lies within what they had, judged by a matcher that knows nothing of ostiary's own.

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ostiary::domain::capability::{Grant, Grants};
use ostiary::domain::id::RootKeyId;
use ostiary::domain::name::{Name, ROOT_KEY_NAME};
use ostiary::domain::network::AllowList;
use ostiary::domain::root_key::{IssuedRootKey, RootKey};
use ostiary::domain::secret::{Prefix, Secret};
use ostiary::domain::time::{Expiry, Timestamp};
use ostiary::error::Error;
use ostiary::pb::v1 as pb;
use ostiary::service::caller::{Call, Caller};
use ostiary::service::root_keys::{Insistence, RootKeyDraft, RootKeyPatch};
use ostiary::service::{Ostiary, Purging, Retention, Run, founding};
use ostiary::store::memory::MemoryEngine;
use ostiary::world::World;

use crate::harness::{House, START, at, root_key, texts};
use crate::root_keys::calls::{changing, denied, only, why};

/// How many calls deep.
const DEPTH: usize = 3;
const RESOURCES: [&str; 4] = ["apis", "rbac", "root_keys", "workspaces"];
const IDS: [&str; 3] = ["one", "two", "not_yet_made"];
const ACTIONS: [&str; 5] = ["read_api", "read_role", "delete_role", "rotate_root_key", "action_of_a_later_version"];
const MOMENTS: [u64; 3] = [10_000, 45_000, 90_000];
const ADDRESSES: [&str; 3] = ["127.0.0.1", "127.7.7.7", "10.0.0.1"];

/// All that a root key lets its holder do: what, when and from where. Nothing while it is disabled.
type Powers = HashSet<(usize, usize, usize, usize, usize)>;

fn agrees(segment: &str, asked: &str) -> bool {
    segment == "*" || segment == asked
}

fn grants_it(grant: &str, resource: &str, id: &str, action: &str) -> bool {
    let segments: Vec<&str> = grant.split('.').collect();
    let resource_agrees =
        if resource == "workspaces" { segments[0] == resource } else { agrees(segments[0], resource) };
    resource_agrees && agrees(segments[1], id) && agrees(segments[2], action)
}

fn powers(root_key: &RootKey) -> Powers {
    let mut powers = Powers::new();
    let grants: Vec<String> = root_key.grants.iter().map(ToString::to_string).collect();
    for (m, moment) in MOMENTS.into_iter().enumerate() {
        for (a, address) in ADDRESSES.into_iter().enumerate() {
            let alive = root_key.expiry.moment().is_none_or(|end| START + moment < end.millis());
            let near = root_key.allowed.is_empty() || {
                let address: IpAddr = address.parse().unwrap();
                root_key.allowed.iter().any(|network| network.contains(&address))
            };
            if !(root_key.enabled && alive && near) {
                continue;
            }
            for (r, resource) in RESOURCES.into_iter().enumerate() {
                for (i, id) in IDS.into_iter().enumerate() {
                    for (c, action) in ACTIONS.into_iter().enumerate() {
                        if grants.iter().any(|grant| grants_it(grant, resource, id, action)) {
                            powers.insert((r, i, c, m, a));
                        }
                    }
                }
            }
        }
    }
    powers
}

/// A root key as one might be asked for.
#[derive(Debug, Clone)]
struct Shape {
    grants: Grants,
    expiry: Expiry,
    allowed: AllowList,
}

fn shape(grants: &[&str], life: Option<u64>, networks: &[&str]) -> Shape {
    let grants = grants.iter().map(|grant| Grant::parse(grant).unwrap());
    let moment = life.map(|life| Timestamp::from_millis(START + life).unwrap());
    Shape {
        grants: Grants::collect(grants).unwrap(),
        expiry: moment.into(),
        allowed: AllowList::parse(networks.iter().copied()).unwrap(),
    }
}

#[derive(Debug, Clone)]
enum Move {
    Create(Shape),
    Update(RootKeyId, RootKeyPatch),
    Rotate(RootKeyId),
}

/// A workspace with an attacker in it.
struct Den {
    ostiary: Ostiary,
    keys: BTreeMap<RootKeyId, RootKey>,
    held: Vec<(RootKeyId, Secret)>,
    tried: HashSet<String>,
    succeeded: usize,
}

impl Den {
    /// The attacker's root key, and others that somebody else has: each shape three times, enabled and disabled.
    async fn new(own: &Shape, others: &[Shape]) -> Self {
        let world = Arc::new(World::made_up(Timestamp::from_millis(START).unwrap(), 1));
        let engine = Arc::new(MemoryEngine::new(1));
        let first = Secret::issue(&Prefix::root_key(), world.random());
        founding::found(engine.as_ref(), &world, first.clone()).await.unwrap();
        let ostiary = Ostiary::open(engine, world, Retention::default(), Purging::Allowed, crate::harness::CAPACITY)
            .await
            .unwrap();
        let mut den = Self { ostiary, keys: BTreeMap::new(), held: Vec::new(), tried: HashSet::new(), succeeded: 0 };
        let operator = den.caller(&first).await.unwrap();
        den.keys.insert(operator.root_key().id, operator.root_key().clone());
        for shape in others {
            for copy in 0..4 {
                let made = den.make(&operator, shape).await.unwrap().root_key;
                let patch = RootKeyPatch { enabled: Some(copy % 2 == 0), ..RootKeyPatch::default() };
                let made = den.update(&operator, made.id, patch).await.unwrap();
                den.keys.insert(made.id, made);
            }
        }
        let IssuedRootKey { root_key, secret } = den.make(&operator, own).await.unwrap();
        den.held.push((root_key.id, secret.unwrap()));
        den.keys.insert(root_key.id, root_key);
        den
    }

    async fn caller(&self, secret: &Secret) -> Result<Caller, Error> {
        let call = Call { remote: Some("127.0.0.1".parse().unwrap()), ..Call::default() };
        self.ostiary.authenticate(secret, call).await
    }

    async fn make(&self, caller: &Caller, shape: &Shape) -> Result<IssuedRootKey, Error> {
        let Shape { grants, expiry, allowed } = shape.clone();
        let name = Name::new("made", ROOT_KEY_NAME).unwrap();
        let draft = RootKeyDraft { name, grants, expiry, allowed };
        self.ostiary.create_root_key(caller, draft, Run::Apply).await.map(|done| done.answer)
    }

    async fn update(&self, caller: &Caller, id: RootKeyId, patch: RootKeyPatch) -> Result<RootKey, Error> {
        let done = self.ostiary.update_root_key(caller, id, patch, String::new(), Insistence::Forced, Run::Apply).await;
        done.map(|done| done.answer)
    }

    /// What to try: wide before narrow, others before oneself, so that the attacker does not begin by giving up.
    fn moves(&self, own: RootKeyId, shapes: &[Shape]) -> Vec<Move> {
        let mut seen = HashSet::new();
        let mut targets: Vec<RootKeyId> = Vec::new();
        for (id, root_key) in self.keys.iter().filter(|(id, _)| **id != own) {
            if seen.insert(looks(root_key)) {
                targets.push(*id);
            }
        }
        targets.push(own);
        let mut moves: Vec<Move> = shapes.iter().cloned().map(Move::Create).collect();
        moves.extend(targets.iter().copied().map(Move::Rotate));
        let mut patches = vec![RootKeyPatch { enabled: Some(true), ..RootKeyPatch::default() }];
        for Shape { grants, expiry, allowed } in shapes.iter().cloned() {
            let alone = RootKeyPatch::default();
            patches.push(RootKeyPatch { expiry: Some(expiry), ..alone.clone() });
            patches.push(RootKeyPatch { allowed: Some(allowed), ..alone.clone() });
            patches.push(RootKeyPatch { grants: Some(grants), ..alone });
        }
        let mut seen = HashSet::new();
        patches.retain(|patch| seen.insert(format!("{patch:?}")));
        for target in targets {
            moves.extend(patches.iter().cloned().map(|patch| Move::Update(target, patch)));
        }
        moves
    }

    /// Makes a move, and checks what came of it against what the attacker had to begin with.
    async fn play(&mut self, caller: &Caller, chosen: Move, own: &Powers) {
        let told = format!("{chosen:?} by {:?}", caller.root_key());
        let results: Vec<(RootKey, Option<Secret>)> = match chosen {
            Move::Create(shape) => {
                let made = self.make(caller, &shape).await;
                made.into_iter().map(|IssuedRootKey { root_key, secret }| (root_key, secret)).collect()
            }
            Move::Update(id, patch) => {
                self.update(caller, id, patch).await.into_iter().map(|key| (key, None)).collect()
            }
            Move::Rotate(id) => {
                let grace = Duration::from_secs(20);
                let done =
                    self.ostiary.rotate_root_key(caller, id, grace, String::new(), Insistence::Forced, Run::Apply);
                let rotated = done.await.into_iter().map(|done| done.answer);
                let both = |rotation: ostiary::service::root_keys::Rotation| {
                    [(rotation.issued.root_key, rotation.issued.secret), (rotation.previous, None)]
                };
                rotated.flat_map(both).collect()
            }
        };
        for (after, secret) in results {
            self.succeeded += 1;
            let had = self.keys.get(&after.id).map(powers).unwrap_or_default();
            let has = powers(&after);
            let beyond = has.iter().find(|power| !had.contains(power) && !own.contains(power));
            assert_eq!(beyond, None, "handed on {after:?}\nthrough {told}");
            if let Some(secret) = secret {
                assert!(has.is_subset(own), "obtained {after:?}\nthrough {told}");
                self.held.push((after.id, secret));
            }
            self.keys.insert(after.id, after);
        }
    }

    /// Tries everything, with everything obtained on the way, some calls deep.
    async fn attack(&mut self, shapes: &[Shape]) {
        let own = powers(&self.keys[&self.held[0].0]);
        for _ in 0..DEPTH {
            let mut seen = HashSet::new();
            for (id, secret) in self.held.clone() {
                if !seen.insert(looks(&self.keys[&id])) {
                    continue;
                }
                for chosen in self.moves(id, shapes) {
                    let Ok(caller) = self.caller(&secret).await else { break };
                    if self.tried.insert(self.signature(id, &chosen)) {
                        self.play(&caller, chosen, &own).await;
                    }
                }
            }
        }
    }

    /// What a move comes to: who makes it and on what, by their looks.
    fn signature(&self, own: RootKeyId, chosen: &Move) -> String {
        let on = |id: &RootKeyId| (looks(&self.keys[id]), *id == own);
        let made = match chosen {
            Move::Create(shape) => format!("{shape:?}"),
            Move::Update(id, patch) => format!("{patch:?} {:?}", on(id)),
            Move::Rotate(id) => format!("rotate {:?}", on(id)),
        };
        format!("{} {made}", looks(&self.keys[&own]))
    }
}

/// All about a root key that could matter to a decision.
fn looks(root_key: &RootKey) -> String {
    let RootKey { grants, enabled, expiry, allowed, rotated_to, .. } = root_key;
    let grants: Vec<String> = grants.iter().map(ToString::to_string).collect();
    format!("{grants:?} {enabled} {expiry:?} {allowed:?} {}", rotated_to.is_some())
}

/// All subsets, the wide ones first.
fn subsets(all: &[&'static str]) -> Vec<Vec<&'static str>> {
    let chosen = |mask: &u32| all.iter().enumerate().filter(|(n, _)| mask >> n & 1 == 1).map(|(_, one)| *one).collect();
    (0..1_u32 << all.len()).rev().map(|mask| chosen(&mask)).collect()
}

#[tokio::test]
async fn no_sequence_of_calls_obtains_a_permission_that_was_not_held() {
    const ALL: [&str; 4] = ["apis.*.read_api", "apis.one.*", "rbac.*.*", "*.*.read_role"];
    let acting = |grants: &[&'static str]| [grants, &["root_keys.*.*"]].concat();
    let shapes: Vec<Shape> = subsets(&ALL).iter().map(|grants| shape(&acting(grants), None, &[])).collect();
    let others = [shape(&acting(&ALL), None, &[]), shape(&ALL[..1], None, &[]), shape(&["*.*.*"], None, &[])];
    let mut succeeded = 0;
    for own in &shapes {
        let mut den = Den::new(own, &others).await;
        den.attack(&shapes).await;
        succeeded += den.succeeded;
    }
    assert!(succeeded > 300, "the attackers could do hardly anything: {succeeded}");
}

#[tokio::test]
async fn no_sequence_of_calls_outlives_the_caller_or_leaves_its_addresses() {
    let grants = ["root_keys.*.*", "apis.*.read_api"];
    let mut shapes = Vec::new();
    for life in [None, Some(60_000), Some(30_000)] {
        for networks in [&[][..], &["127.0.0.0/8"], &["127.0.0.1"]] {
            shapes.push(shape(&grants, life, networks));
        }
    }
    let wider = ["root_keys.*.*", "apis.*.*"];
    let others = [shape(&grants, None, &[]), shape(&grants, Some(30_000), &["127.0.0.1"]), shape(&wider, None, &[])];
    let mut succeeded = 0;
    for own in &shapes {
        let mut den = Den::new(own, &others).await;
        den.attack(&shapes).await;
        succeeded += den.succeeded;
    }
    assert!(succeeded > 300, "the attackers could do hardly anything: {succeeded}");
}

#[tokio::test]
async fn a_root_key_without_the_action_does_not_get_it_from_another_of_the_same_resource() {
    let house = House::unswept().await;
    let operator = house.operator().await;
    for action in ["create_root_key", "read_root_key", "update_root_key", "delete_root_key", "rotate_root_key"] {
        let (me, client) = operator.colleague(action, &[&format!("root_keys.*.{action}")]).await;
        let id = me.root_key_id.as_str();
        let all = pb::UpdateRootKeyRequest { permissions: texts(&["root_keys.*.*"]), ..changing(&me) };
        let outcomes = [
            ("create_root_key", client.make(root_key("more", &["root_keys.*.*"])).await.map(|_| ())),
            ("update_root_key", client.change(all).await.map(|_| ())),
        ];
        for (needed, outcome) in outcomes {
            let reason = if needed == action { "GRANT_EXCEEDS_OWN" } else { "PERMISSION_MISSING" };
            assert_eq!(why(outcome), denied(reason), "{action}");
        }
        if action != "rotate_root_key" {
            assert_eq!(why(client.rotate(id, 60_000).await), denied("PERMISSION_MISSING"));
        }
    }
}

#[tokio::test]
async fn what_is_created_belongs_to_the_caller_and_its_workspace_and_to_nobody_that_a_request_names() {
    let house = House::unswept().await;
    let operator = house.operator().await;
    let (workspace, tenant) = operator.tenant("tenant").await;
    let victim = operator.me().await.unwrap();
    // Fields that the message does not have: a workspace and a creator, were anybody to read them.
    let mut message = prost::Message::encode_to_vec(&root_key("mine", &["*.*.*"]));
    for (field, value) in [(14_u32, &victim.root_key_id), (20, &victim.workspace_id)] {
        prost::encoding::string::encode(field, value, &mut message);
    }
    let path = "/ostiary.v1.RootKeyService/CreateRootKey";
    let answer = tenant.raw(path, message, tonic::metadata::MetadataMap::new()).await.unwrap().into_inner();
    let made: pb::CreateRootKeyResponse = prost::Message::decode(answer.as_slice()).unwrap();
    let made = made.root_key.unwrap();
    assert_eq!(made.workspace_id, workspace.workspace_id);
    assert_eq!(made.created_by, Some(tenant.me().await.unwrap().root_key_id));
}

#[tokio::test]
async fn no_grants_mean_nothing_and_an_empty_list_never_stands_for_all() {
    let house = House::unswept().await;
    let operator = house.operator().await;
    assert_eq!(why(operator.make(root_key("empty", &[])).await).1, "FIELD_INVALID");
    let (made, client) = operator.colleague("narrow", &["root_keys.*.update_root_key"]).await;
    let emptied = pb::UpdateRootKeyRequest { update_mask: only(&["permissions"]), ..changing(&made) };
    assert_eq!(why(client.change(emptied).await).1, "FIELD_INVALID");
    let untouched = pb::UpdateRootKeyRequest { permissions: Vec::new(), name: Some("x".into()), ..changing(&made) };
    assert_eq!(client.change(untouched).await.unwrap().permissions, ["root_keys.*.update_root_key"]);
}

#[tokio::test]
async fn the_ceiling_stands_on_every_path_that_grants_and_the_refusal_does_not_list_what_others_hold() {
    let house = House::unswept().await;
    let operator = house.operator().await;
    let grants = ["root_keys.*.*", "apis.*.read_api"];
    let (me, client) = operator.mortal("attacker", &grants, 60_000).await;
    let (wide, _) = operator.colleague("wide", &["rbac.*.delete_role", "root_keys.*.*"]).await;
    let (off, _) = operator.colleague("off", &["rbac.*.delete_role"]).await;
    operator.change(pb::UpdateRootKeyRequest { enabled: Some(false), ..changing(&off) }).await.unwrap();
    let (equal, _) = operator.mortal("equal", &grants, 60_000).await;
    let more = |target: &pb::RootKey| pb::UpdateRootKeyRequest {
        permissions: texts(&["root_keys.*.*", "rbac.*.delete_role"]),
        ..changing(target)
    };
    let longer = |target: &pb::RootKey| pb::UpdateRootKeyRequest {
        expire_time: Some(at(house.now() + 60_001)),
        ..changing(target)
    };
    let attempts = [
        client.make(root_key("forever", &["apis.*.read_api"])).await.map(|_| ()),
        client.change(more(&me)).await.map(|_| ()),
        client.change(more(&equal)).await.map(|_| ()),
        client.change(longer(&me)).await.map(|_| ()),
        client.change(longer(&equal)).await.map(|_| ()),
        client.change(pb::UpdateRootKeyRequest { enabled: Some(true), ..changing(&off) }).await.map(|_| ()),
        client.change(pb::UpdateRootKeyRequest { name: Some("mine".into()), ..changing(&wide) }).await.map(|_| ()),
        client.rotate(&wide.root_key_id, 60_000).await.map(|_| ()),
        client.rotate(&off.root_key_id, 60_000).await.map(|_| ()),
    ];
    for (number, attempt) in attempts.into_iter().enumerate() {
        let status = attempt.unwrap_err();
        assert_eq!(crate::harness::reason(&status), "GRANT_EXCEEDS_OWN", "{number}");
        assert!(!status.message().contains("delete_role"), "{number}: {}", status.message());
    }
    let request = pb::CreateWorkspaceRequest { name: "mine".into(), ..Default::default() };
    assert_eq!(why(client.workspaces().create_workspace(request).await), denied("PERMISSION_MISSING"));
    for narrowing in [
        pb::UpdateRootKeyRequest { allowed_cidrs: texts(&["10.0.0.0/8"]), ..changing(&wide) },
        pb::UpdateRootKeyRequest { permissions: texts(&["rbac.*.delete_role"]), ..changing(&wide) },
        pb::UpdateRootKeyRequest { expire_time: Some(at(house.now() + 90_000)), ..changing(&wide) },
        pb::UpdateRootKeyRequest { enabled: Some(false), ..changing(&wide) },
    ] {
        client.change(narrowing).await.unwrap();
    }
    client.remove(&wide.root_key_id).await.unwrap();
}
