//! What happens at the same time: one of it wins, and nothing goes through after it was forbidden.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use ostiary::domain::capability::{Grant, Grants};
use ostiary::domain::name::{Name, ROOT_KEY_NAME};
use ostiary::domain::network::AllowList;
use ostiary::domain::secret::{Prefix, Secret};
use ostiary::domain::time::{Expiry, Timestamp};
use ostiary::error::{Error, Unrecognised};
use ostiary::pb::v1 as pb;
use ostiary::server::Sweeping;
use ostiary::service::caller::{Call, Caller};
use ostiary::service::root_keys::{Insistence, Reach, RootKeyDraft, RootKeyPatch};
use ostiary::service::{Ostiary, Purging, Retention, Run, founding};
use ostiary::store::memory::MemoryEngine;
use ostiary::store::{Body, Commit, Engine, Failure, Marks, Priority, Revision, View};
use ostiary::world::World;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::harness::{Client, House, Kept, START, reason, span};
use crate::root_keys::calls::{changing, precondition, unauthenticated, why};

/// Calls made at the same time.
const MANY: usize = 64;

async fn both_kinds() -> [House; 2] {
    let in_memory = House::build(Kept::InMemory, Sweeping::ByHand, 3).await;
    [in_memory, House::build(Kept::OnDisk, Sweeping::ByHand, 3).await]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_rotations_at_the_same_time_one_wins_and_there_is_one_successor() {
    for house in both_kinds().await {
        let operator = house.operator().await;
        for (rivals, grace) in [(2, 60_000), (2, 0), (16, 60_000), (16, 0), (MANY, 60_000)] {
            let (old, _) = operator.colleague(&format!("{rivals} {grace}"), &["apis.*.read_api"]).await;
            let mut tasks = JoinSet::new();
            for _ in 0..rivals {
                let (client, id) = (operator.clone(), old.root_key_id.clone());
                tasks.spawn(async move { client.rotate(&id, grace).await });
            }
            let (won, lost): (Vec<_>, Vec<_>) = tasks.join_all().await.into_iter().partition(Result::is_ok);
            assert_eq!((won.len(), lost.len()), (1, rivals - 1));
            for outcome in lost {
                assert_eq!(why(outcome), precondition("ALREADY_ROTATED"));
            }
            let next = won.into_iter().next().unwrap().unwrap().next;
            let filter = pb::ListRootKeysFilter { name_contains: Some(old.name), ..Default::default() };
            assert_eq!(operator.names(filter).await.len(), 2);
            assert_eq!(operator.look(&old.root_key_id).await.unwrap().rotated_to, Some(next.root_key_id));
        }
    }
}

/// Everything that is recorded of this root key's doing: the revisions, in order.
async fn doings(operator: &Client, actor: &str) -> Vec<u64> {
    let filter = pb::ListAuditEventsFilter { actor_id: Some(actor.into()), ..Default::default() };
    let mut revisions = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = pb::ListAuditEventsRequest {
            page_size: 1_000,
            page_token,
            filter: Some(filter.clone()),
            ..Default::default()
        };
        let response = operator.audit().list_audit_events(request).await.unwrap().into_inner();
        revisions.extend(response.events.iter().map(|event| counter(&event.revision)));
        page_token = response.next_page_token;
        if page_token.is_empty() {
            return revisions;
        }
    }
}

fn counter(revision: &str) -> u64 {
    revision.rsplit_once('.').unwrap().1.parse().unwrap()
}

/// Forbids a worker everything in some way, and says at which revision.
async fn forbid(operator: &Client, worker: &pb::RootKey, way: &str) -> u64 {
    let root_key_id = worker.root_key_id.clone();
    let meta = match way {
        "delete" => {
            let request = pb::DeleteRootKeyRequest { root_key_id, ..Default::default() };
            operator.root_keys().delete_root_key(request).await.unwrap().into_inner().meta
        }
        "rotate" => {
            let request = pb::RotateRootKeyRequest { root_key_id, ..Default::default() };
            operator.root_keys().rotate_root_key(request).await.unwrap().into_inner().meta
        }
        "disable" => {
            let request = pb::UpdateRootKeyRequest { enabled: Some(false), ..changing(worker) };
            operator.root_keys().update_root_key(request).await.unwrap().into_inner().meta
        }
        _ => {
            let workspace_id = worker.workspace_id.clone();
            let request = pb::UpdateWorkspaceRequest { workspace_id, enabled: Some(false), ..Default::default() };
            operator.workspaces().update_workspace(request).await.unwrap().into_inner().meta
        }
    };
    counter(&meta.unwrap().revision)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_of_a_root_key_is_committed_after_what_forbade_it_was_acknowledged() {
    for house in both_kinds().await {
        let operator = house.operator().await;
        let ways = [
            ("delete", "ROOT_KEY_INVALID"),
            ("rotate", "ROOT_KEY_EXPIRED"),
            ("disable", "ROOT_KEY_DISABLED"),
            ("workspace", "WORKSPACE_DISABLED"),
        ];
        for (way, expected) in ways {
            let (workspace, tenant) = operator.tenant(way).await;
            let (worker, client) = tenant.colleague("worker", &["apis.*.create_api"]).await;
            let boss = if way == "workspace" { &operator } else { &tenant };
            let mut tasks = JoinSet::new();
            for n in 0..MANY {
                let client = client.clone();
                tasks.spawn(async move {
                    let mut done = 0;
                    loop {
                        let request = pb::CreateApiRequest { name: format!("api {n} {done}"), ..Default::default() };
                        match client.apis().create_api(request).await {
                            Ok(_) => done += 1,
                            Err(status) => return (done, reason(&status)),
                        }
                    }
                });
            }
            // Let some of them through first.
            while doings(&tenant, &worker.root_key_id).await.len() < MANY {
                tokio::task::yield_now().await;
            }
            let forbidden = forbid(boss, &worker, way).await;
            let ended = tasks.join_all().await;
            assert!(ended.iter().all(|(_, reason)| reason == expected), "{way}: {ended:?}");
            if way == "workspace" {
                let request = pb::UpdateWorkspaceRequest {
                    workspace_id: workspace.workspace_id,
                    enabled: Some(true),
                    ..Default::default()
                };
                operator.workspaces().update_workspace(request).await.unwrap();
            }
            let revisions = doings(&tenant, &worker.root_key_id).await;
            assert_eq!(revisions.len(), ended.iter().map(|(done, _)| done).sum::<usize>(), "{way}");
            assert!(revisions.iter().all(|revision| *revision < forbidden), "{way}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_under_one_idempotency_key_at_the_same_time_have_one_effect_and_one_answer() {
    for house in both_kinds().await {
        let operator = house.operator().await;
        let once = operator.once("create");
        let mut tasks = JoinSet::new();
        for _ in 0..MANY {
            let client = once.clone();
            tasks.spawn(async move {
                let request = crate::harness::root_key("once", &["apis.*.read_api"]);
                let pb::CreateRootKeyResponse { root_key, secret, meta } =
                    client.root_keys().create_root_key(request).await.unwrap().into_inner();
                (root_key.unwrap(), secret, meta.unwrap().revision)
            });
        }
        let answers = tasks.join_all().await;
        let (made, secret, _) = answers[0].clone();
        assert!(answers.iter().all(|answer| *answer == answers[0]));
        assert_eq!(operator.with(&secret).me().await.unwrap().root_key_id, made.root_key_id);

        let once = operator.once("rotate");
        let mut tasks = JoinSet::new();
        for _ in 0..MANY {
            let (client, root_key_id) = (once.clone(), made.root_key_id.clone());
            let grace_period = Some(span(60_000));
            let request = pb::RotateRootKeyRequest { root_key_id, grace_period, ..Default::default() };
            tasks.spawn(async move { client.rotate_as(request).await.unwrap().secret });
        }
        let secrets = tasks.join_all().await;
        assert!(secrets.iter().all(|secret| *secret == secrets[0]));
        let filter = pb::ListRootKeysFilter { name_contains: Some("once".into()), ..Default::default() };
        assert_eq!(operator.names(filter).await.len(), 2);

        let once = operator.once("delete");
        let mut tasks = JoinSet::new();
        for _ in 0..MANY {
            let (client, id) = (once.clone(), made.root_key_id.clone());
            tasks.spawn(async move { client.remove(&id).await.unwrap() });
        }
        assert!(tasks.join_all().await.iter().all(|ids| *ids == [made.root_key_id.clone()]));
        assert_eq!(operator.recorded("root_key.delete").await, [made.root_key_id]);
        assert_eq!(operator.recorded("root_key.rotate").await.len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_deletions_at_the_same_time_one_wins_and_the_others_find_nothing() {
    for house in both_kinds().await {
        let operator = house.operator().await;
        let (made, client) = operator.colleague("gone", &["apis.*.read_api"]).await;
        let mut tasks = JoinSet::new();
        for _ in 0..MANY {
            let (client, id) = (operator.clone(), made.root_key_id.clone());
            tasks.spawn(async move { client.remove(&id).await });
        }
        let (won, lost): (Vec<_>, Vec<_>) = tasks.join_all().await.into_iter().partition(Result::is_ok);
        assert_eq!(won.len(), 1);
        assert!(lost.into_iter().all(|outcome| why(outcome).1 == "ROOT_KEY_NOT_FOUND"));
        assert_eq!(why(client.me().await), unauthenticated("ROOT_KEY_INVALID"));
        assert_eq!(operator.recorded("root_key.delete").await.len(), 1);
    }
}

/// An engine that lets one change wait before its turn while others overtake it.
struct Stalling {
    engine: MemoryEngine,
    stall_next: AtomicBool,
    stalled: Semaphore,
    go_on: Semaphore,
}

impl Engine for Stalling {
    fn view(&self) -> BoxFuture<'_, Result<Box<dyn View>, Failure>> {
        self.engine.view()
    }
    fn transact(&self, priority: Priority, body: Body) -> BoxFuture<'_, Result<Revision, Failure>> {
        Box::pin(async move {
            if self.stall_next.swap(false, Ordering::SeqCst) {
                self.stalled.add_permits(1);
                self.go_on.acquire().await.unwrap().forget();
            }
            self.engine.transact(priority, body).await
        })
    }
    fn changes(&self, after: Revision) -> BoxStream<'static, Result<Arc<Commit>, Failure>> {
        self.engine.changes(after)
    }
    fn close(&self) -> BoxFuture<'_, ()> {
        self.engine.close()
    }
    fn marks(&self) -> &Arc<Marks> {
        self.engine.marks()
    }
    fn writable(&self) -> bool {
        self.engine.writable()
    }
}

fn draft(grants: &[&str]) -> RootKeyDraft {
    RootKeyDraft {
        name: Name::new("made", ROOT_KEY_NAME).unwrap(),
        grants: Grants::collect(grants.iter().map(|grant| Grant::parse(grant).unwrap())).unwrap(),
        expiry: Expiry::Never,
        allowed: AllowList::anyone(),
    }
}

#[tokio::test]
async fn a_change_that_was_overtaken_by_what_forbids_it_is_refused_though_it_began_earlier() {
    let engine = Arc::new(Stalling {
        engine: MemoryEngine::new(1),
        stall_next: AtomicBool::new(false),
        stalled: Semaphore::new(0),
        go_on: Semaphore::new(0),
    });
    let world = Arc::new(World::made_up(Timestamp::from_millis(START).unwrap(), 1));
    let first = Secret::issue(&Prefix::root_key(), world.random());
    founding::found(engine.as_ref(), &world, first.clone()).await.unwrap();
    let product = Arc::clone(&engine);
    let ostiary =
        Ostiary::open(product, Arc::clone(&world), Retention::default(), Purging::Allowed, crate::harness::CAPACITY)
            .await
            .unwrap();
    let ostiary = Arc::new(ostiary);
    let operator = ostiary.authenticate(&first, Call::default()).await.unwrap();
    let ways = [Unrecognised::Invalid, Unrecognised::Disabled, Unrecognised::Expired];
    for expected in ways {
        let grants = ["root_keys.*.create_root_key"];
        let worker = ostiary.create_root_key(&operator, draft(&grants), Run::Apply).await.unwrap().answer;
        let id = worker.root_key.id;
        let caller: Caller = ostiary.authenticate(&worker.secret.unwrap(), Call::default()).await.unwrap();
        engine.stall_next.store(true, Ordering::SeqCst);
        let late = {
            let ostiary = Arc::clone(&ostiary);
            tokio::spawn(async move { ostiary.create_root_key(&caller, draft(&grants), Run::Apply).await })
        };
        engine.stalled.acquire().await.unwrap().forget();
        world.advance(Duration::from_millis(1));
        let (no_etag, asked, apply) = (String::new(), Insistence::No, Run::Apply);
        match expected {
            Unrecognised::Invalid => {
                let done = ostiary.delete_root_key(&operator, id, no_etag, Reach::Alone, asked, apply);
                drop(done.await.unwrap());
            }
            Unrecognised::Disabled => {
                let patch = RootKeyPatch { enabled: Some(false), ..RootKeyPatch::default() };
                drop(ostiary.update_root_key(&operator, id, patch, no_etag, asked, apply).await.unwrap());
            }
            _ => drop(ostiary.rotate_root_key(&operator, id, Duration::ZERO, no_etag, asked, apply).await.unwrap()),
        }
        engine.go_on.add_permits(1);
        assert_eq!(late.await.unwrap().unwrap_err(), Error::Unauthenticated(expected));
    }
}
