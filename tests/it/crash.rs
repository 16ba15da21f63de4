//! Killed at any moment: what was answered is there, and nothing is there by half.
//!
//! Four callers change things until the process is killed under them; each has at most one call without an answer.
//! After the next start every call that was answered must have happened, every other wholly or not at all, and the
//! audit log must tell of each change exactly once.

mod accounts;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::harness::{Client, at, span, texts};
use crate::process::Place;
use ostiary::domain::time::Timestamp;
use ostiary::pb::v1 as pb;
use ostiary::world::World;
use tonic::{Code, Status};

/// How often it is killed.
const KILLS: u32 = 100;
/// Calls that a caller makes at most between two kills.
const CALLS_MAX: usize = 60;
/// A process is killed once it has answered fewer calls than this, however long they take.
const ANSWERS_MAX: u16 = 48;
/// And then some time after, in microseconds.
const GRACE_MAX: u16 = 4_000;

/// How many calls have been answered since the process started.
type Answers = Arc<AtomicUsize>;

/// How a call ended for its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Answered,
    Unknown,
}

/// What a caller knows of a key that it asked for.
#[derive(Debug)]
struct KeyStory {
    name: String,
    created: Fate,
    secret: Option<String>,
    renamed: Option<Fate>,
    deleted: Option<Fate>,
}

/// What a caller knows of a role that it asked for: its name, and how making and deleting it ended.
#[derive(Debug)]
struct RoleStory {
    name: String,
    created: Fate,
    deleted: Option<Fate>,
}

/// What a caller knows of a root key that it rotates again and again: the secrets in order, and the last call's fate.
#[derive(Debug)]
struct RotationStory {
    generations: Vec<(pb::RootKey, String)>,
    last: Fate,
}

/// What the audit log must tell: how often each event happened to each object.
type Ledger = BTreeMap<(String, String), u32>;

fn expect(ledger: &mut Ledger, event: &str, id: &str) {
    *ledger.entry((event.to_owned(), id.to_owned())).or_default() += 1;
}

/// A call that was not answered, because the process was killed. Anything else is a bug.
fn killed(status: &Status) -> Fate {
    assert!(matches!(status.code(), Code::Unavailable | Code::Cancelled | Code::Unknown), "{status:?}");
    Fate::Unknown
}

async fn make_keys(
    client: Client,
    answers: Answers,
    api_id: String,
    role: String,
    caller: &'static str,
) -> Vec<KeyStory> {
    let mut stories = Vec::new();
    for number in 0..CALLS_MAX / 3 {
        let name = format!("{caller} {number}");
        stories.push(KeyStory { name, created: Fate::Unknown, secret: None, renamed: None, deleted: None });
        let story = stories.last_mut().unwrap();
        let request = pb::CreateKeyRequest {
            api_id: api_id.clone(),
            name: story.name.clone(),
            roles: vec![role.clone()],
            ..Default::default()
        };
        let made = match client.keys().create_key(request).await {
            Ok(made) => made.into_inner(),
            Err(status) => return killed(&status).leaving(stories),
        };
        story.created = Fate::Answered;
        answers.fetch_add(1, Ordering::Relaxed);
        story.secret = Some(made.secret);
        let key_id = made.key.unwrap().key_id;
        let name = Some(format!("{} renamed", story.name));
        let request = pb::UpdateKeyRequest { key_id: key_id.clone(), name, ..Default::default() };
        story.renamed = Some(Fate::Unknown);
        if let Err(status) = client.keys().update_key(request).await {
            return killed(&status).leaving(stories);
        }
        story.renamed = Some(Fate::Answered);
        answers.fetch_add(1, Ordering::Relaxed);
        if number % 3 == 0 {
            story.deleted = Some(Fate::Unknown);
            let request = pb::DeleteKeyRequest { key_id, ..Default::default() };
            if let Err(status) = client.keys().delete_key(request).await {
                return killed(&status).leaving(stories);
            }
            story.deleted = Some(Fate::Answered);
            answers.fetch_add(1, Ordering::Relaxed);
        }
    }
    stories
}

impl Fate {
    /// The stories so far, the last of them with this end.
    fn leaving<T>(self, stories: Vec<T>) -> Vec<T> {
        assert_eq!(self, Self::Unknown);
        stories
    }
}

async fn make_roles(client: Client, answers: Answers, kill: u32) -> Vec<RoleStory> {
    let mut stories = Vec::new();
    for number in 0..CALLS_MAX / 2 {
        stories.push(RoleStory { name: format!("role {kill} {number}"), created: Fate::Unknown, deleted: None });
        let story = stories.last_mut().unwrap();
        let request = pb::CreateRoleRequest {
            name: story.name.clone(),
            permissions: texts(&["documents.read"]),
            ..Default::default()
        };
        if let Err(status) = client.roles().create_role(request).await {
            return killed(&status).leaving(stories);
        }
        story.created = Fate::Answered;
        answers.fetch_add(1, Ordering::Relaxed);
        if number % 2 == 0 {
            story.deleted = Some(Fate::Unknown);
            let request = pb::DeleteRoleRequest { role: story.name.clone(), ..Default::default() };
            if let Err(status) = client.roles().delete_role(request).await {
                return killed(&status).leaving(stories);
            }
            story.deleted = Some(Fate::Answered);
            answers.fetch_add(1, Ordering::Relaxed);
        }
    }
    stories
}

async fn rotate(client: Client, answers: Answers, first: (pb::RootKey, String)) -> RotationStory {
    let mut story = RotationStory { generations: vec![first], last: Fate::Answered };
    for _ in 0..CALLS_MAX / 2 {
        let root_key_id = story.generations.last().unwrap().0.root_key_id.clone();
        let grace_period = Some(span(3_600_000));
        let request = pb::RotateRootKeyRequest { root_key_id, grace_period, ..Default::default() };
        match client.root_keys().rotate_root_key(request).await {
            Ok(answer) => {
                let answer = answer.into_inner();
                answers.fetch_add(1, Ordering::Relaxed);
                story.generations.push((answer.root_key.unwrap(), answer.secret));
            }
            Err(status) => {
                story.last = killed(&status);
                break;
            }
        }
    }
    story
}

/// Whether something happened: it must have if it was answered, and must not have if it was never asked for.
fn check(happened: bool, fate: Option<Fate>, what: &str) -> bool {
    match fate {
        Some(Fate::Answered) => assert!(happened, "{what} was answered and is lost"),
        None => assert!(!happened, "{what} was never asked for"),
        Some(Fate::Unknown) => {}
    }
    happened
}

async fn check_keys(client: &Client, api_id: &str, role: &pb::Role, stories: &[KeyStory], ledger: &mut Ledger) {
    let filter = Some(pb::ListKeysFilter { api_id: Some(api_id.to_owned()), ..Default::default() });
    let request = pb::ListKeysRequest { filter, show_deleted: true, page_size: 1_000, ..Default::default() };
    let keys = client.keys().list_keys(request).await.unwrap().into_inner().keys;
    let mut found = 0;
    for story in stories {
        let mut listed = keys.iter().filter(|key| key.name.trim_end_matches(" renamed") == story.name);
        let key = listed.next();
        assert!(listed.next().is_none(), "{} is there twice", story.name);
        if !check(key.is_some(), Some(story.created), &story.name) {
            continue;
        }
        let key = key.unwrap();
        found += 1;
        expect(ledger, "key.create", &key.key_id);
        let renamed = key.name.ends_with(" renamed");
        if check(renamed, story.renamed, &format!("the new name of {}", story.name)) {
            expect(ledger, "key.update", &key.key_id);
        }
        let deleted = key.state() == pb::KeyState::Deleted;
        if check(deleted, story.deleted, &format!("the end of {}", story.name)) {
            expect(ledger, "key.delete", &key.key_id);
        }
        let request = pb::GetKeyRequest { key_id: key.key_id.clone(), ..Default::default() };
        assert_eq!(&client.keys().get_key(request).await.unwrap().into_inner().key.unwrap(), key);
        let Some(secret) = story.secret.clone() else { continue };
        let verdict = client.verdict(&secret, Some("documents.read")).await;
        let code = if deleted { pb::VerificationCode::NotFound } else { pb::VerificationCode::Valid };
        assert_eq!(verdict.code(), code, "{}", story.name);
        let looked_up = client.keys().lookup_key(pb::LookupKeyRequest { secret, ..Default::default() }).await;
        match looked_up {
            Ok(looked_up) => assert_eq!(looked_up.into_inner().key.unwrap().key_id, key.key_id),
            Err(status) => assert!(deleted && status.code() == Code::NotFound, "{status:?}"),
        }
    }
    assert_eq!(keys.len(), found, "a key that nobody asked for");
    let live = keys.iter().filter(|key| key.state() != pb::KeyState::Deleted).count() as i64;
    let request = pb::GetApiRequest { api_id: api_id.to_owned(), ..Default::default() };
    assert_eq!(client.apis().get_api(request).await.unwrap().into_inner().api.unwrap().key_count, live);
    let request = pb::GetRoleRequest { role: role.role_id.clone(), ..Default::default() };
    assert_eq!(client.roles().get_role(request).await.unwrap().into_inner().role.unwrap().key_count, live);
}

async fn check_roles(client: &Client, stories: &[RoleStory], told: &Ledger, ledger: &mut Ledger, names: &Names) {
    for story in stories {
        let request = pb::GetRoleRequest { role: story.name.clone(), ..Default::default() };
        let there = match client.roles().get_role(request).await {
            Ok(answer) => Some(answer.into_inner().role.unwrap().role_id),
            Err(status) => {
                assert_eq!(status.code(), Code::NotFound, "{status:?}");
                None
            }
        };
        // Of a role that is gone the audit log alone tells whether it ever was.
        let id = names.get(&("role.create".to_owned(), story.name.clone()));
        if !check(id.is_some(), Some(story.created), &story.name) {
            assert_eq!(there, None, "{} is there without an event", story.name);
            continue;
        }
        let id = id.unwrap();
        expect(ledger, "role.create", id);
        if check(there.is_none(), story.deleted, &format!("the end of {}", story.name)) {
            expect(ledger, "role.delete", id);
        } else {
            assert_eq!(there.as_ref(), Some(id));
            assert_eq!(told.get(&("role.delete".to_owned(), id.clone())), None);
        }
    }
}

async fn check_rotations(client: &Client, story: &RotationStory, ledger: &mut Ledger) {
    let get = async |root_key_id: &str| {
        let request = pb::GetRootKeyRequest { root_key_id: root_key_id.to_owned(), ..Default::default() };
        client.root_keys().get_root_key(request).await.unwrap().into_inner().root_key.unwrap()
    };
    let (last, earlier) = story.generations.split_last().unwrap();
    for (index, (known, _)) in earlier.iter().enumerate() {
        let root_key = get(&known.root_key_id).await;
        assert_eq!(root_key.rotated_to.as_ref(), Some(&story.generations[index + 1].0.root_key_id));
        assert_eq!(root_key.state(), pb::RootKeyState::RotatedOut);
        assert!(root_key.expire_time.is_some());
        expect(ledger, "root_key.rotate", &root_key.root_key_id);
    }
    for (index, (known, secret)) in story.generations.iter().enumerate() {
        let own = client.with(secret).root_keys().who_am_i(pb::WhoAmIRequest::default()).await.unwrap();
        let own = own.into_inner().root_key.unwrap();
        assert_eq!(own.root_key_id, known.root_key_id);
        let predecessor = index.checked_sub(1).map(|index| &story.generations[index].0.root_key_id);
        assert_eq!(own.rotated_from.as_ref(), predecessor);
    }
    let newest = get(&last.0.root_key_id).await;
    let rotated = newest.rotated_to.is_some();
    assert_eq!(newest.expire_time.is_some(), rotated, "a successor and a shorter life come together");
    if rotated {
        assert_eq!(story.last, Fate::Unknown, "a rotation that nobody asked for");
        expect(ledger, "root_key.rotate", &newest.root_key_id);
        let successor = get(&newest.rotated_to.unwrap()).await;
        assert_eq!(successor.rotated_from, Some(newest.root_key_id));
        assert_eq!(successor.expire_time, None);
    }
}

/// Ids by event and name.
type Names = BTreeMap<(String, String), String>;

/// The events that changes wrote since a moment, counted and by name; and the moment of the last.
async fn told_since(client: &Client, since: u64) -> (Ledger, Names, u64) {
    let (mut ledger, mut names, mut last) = (Ledger::new(), Names::new(), since);
    let mut page_token = String::new();
    loop {
        let filter = Some(pb::ListAuditEventsFilter { after: Some(at(since)), ..Default::default() });
        let request = pb::ListAuditEventsRequest { page_size: 1_000, page_token, filter, ..Default::default() };
        let page = client.audit().list_audit_events(request).await.unwrap().into_inner();
        for event in page.events {
            let target = &event.targets[0];
            expect(&mut ledger, &event.event, &target.id);
            names.insert((event.event, target.name.clone()), target.id.clone());
            let time = event.time.unwrap();
            last = last.max(time.seconds as u64 * 1_000 + time.nanos as u64 / 1_000_000);
        }
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return (ledger, names, last);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_answered_survives_a_hundred_kills_and_nothing_is_there_by_half() {
    // For repeatable draws only: the processes live in real time.
    let draws = World::made_up(Timestamp::from_millis_saturating(0), 20_260_101);
    let place = Place::new();
    let mut server = place.serve(&["--log-level", "warn,ostiary::server=info"]);
    let secret = place.first_root_key();
    let (mut since, mut unanswered, mut answered) = (0, 0_u32, 0_usize);
    for kill in 0..KILLS {
        let client = server.client(&secret).await;
        let api_id = client.api(&format!("api {kill}")).await.api_id;
        let role = client.role(&format!("reader {kill}"), &["documents.read"]).await;
        let rotating = client.root_key(&format!("rotating {kill}"), &["apis.*.verify_key"]).await;
        let (mut earlier, _, begun) = told_since(&client, since).await;
        let mut makers = Vec::new();
        let answers = Answers::default();
        for caller in ["one", "two"] {
            let client = server.client(&secret).await;
            makers.push(tokio::spawn(make_keys(
                client,
                Arc::clone(&answers),
                api_id.clone(),
                role.role_id.clone(),
                caller,
            )));
        }
        let roles = tokio::spawn(make_roles(server.client(&secret).await, Arc::clone(&answers), kill));
        let rotations = tokio::spawn(rotate(server.client(&secret).await, Arc::clone(&answers), rotating));
        let draw = |most: u16| u16::from_be_bytes(draws.random::<2>()) % most;
        let enough = usize::from(draw(ANSWERS_MAX));
        // There are more calls to make than this, so it comes.
        while answers.load(Ordering::Relaxed) < enough {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        tokio::time::sleep(Duration::from_micros(draw(GRACE_MAX).into())).await;
        let ended = server.kill();
        assert_eq!(ended.code, None, "it was killed, and had not ended by itself: {ended:?}");
        let mut keys = Vec::new();
        for maker in makers {
            keys.extend(maker.await.unwrap());
        }
        let (roles, rotations) = (roles.await.unwrap(), rotations.await.unwrap());

        server = place.serve(&["--log-level", "warn,ostiary::server=info"]);
        let client = server.client(&secret).await;
        let (mut told, names, _) = told_since(&client, begun).await;
        // The moment that both lists share.
        earlier.retain(|event, _| told.contains_key(event));
        told.retain(|event, _| !earlier.contains_key(event));
        let mut ledger = Ledger::new();
        check_keys(&client, &api_id, &role, &keys, &mut ledger).await;
        check_roles(&client, &roles, &told, &mut ledger, &names).await;
        check_rotations(&client, &rotations, &mut ledger).await;
        assert_eq!(told, ledger, "the audit log tells of each change exactly once");
        since = begun;
        answered += ledger.len();
        unanswered += u32::from(rotations.last == Fate::Unknown)
            + keys
                .iter()
                .filter(|key| [Some(key.created), key.renamed, key.deleted].contains(&Some(Fate::Unknown)))
                .count() as u32;
    }
    assert!(unanswered > KILLS, "the kills came between call and answer, not between calls: {unanswered}");
    assert!(answered > 100 * usize::from(ANSWERS_MAX) / 3, "there was something to lose: {answered}");
    assert_eq!(server.stop().code, Some(0));
}
