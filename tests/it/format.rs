//! What only grows: ids and secrets that are out there, and stores that lie on disks.
//!
//! `golden/store.txt` is a store as the first release writes it: every kind of row, in a made-up world. Writing the
//! same again must give the same bytes, and those bytes must open and answer.

use std::fmt::Write as _;
use std::sync::Arc;

use crate::harness::{START, span, texts};
use bytes::Bytes;
use ostiary::domain::id::{ApiId, EventId, KeyId, PermissionId, RequestId, RoleId, RootKeyId, WorkspaceId};
use ostiary::domain::secret::{Prefix, Secret};
use ostiary::domain::time::Timestamp;
use ostiary::pb::v1 as pb;
use ostiary::rpc::front::Front;
use ostiary::rpc::proxies::TrustedProxies;
use ostiary::rpc::standing::Standing;
use ostiary::service::pace::Pace;
use ostiary::service::{Ostiary, Purging, Retention, founding};
use ostiary::store::memory::MemoryEngine;
use ostiary::store::{Decision, Engine, Priority};
use ostiary::world::World;
use tokio_util::sync::CancellationToken;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::{Request, Status};

const GOLDEN: &str = include_str!("golden/store.txt");
const SEED: u64 = 20_260_101;
/// Rows of one tag at most; there are far fewer.
const ROWS_MAX: usize = 1_000;

#[test]
fn ids_are_written_as_they_always_were() {
    let counting: [u8; 16] = std::array::from_fn(|i| i as u8 * 0x11);
    let ulid = "0024h36h2ncsvrh6daqf6dvvqz";
    let ids = [
        WorkspaceId::from_bytes(counting).to_string(),
        RootKeyId::from_bytes(counting).to_string(),
        ApiId::from_bytes(counting).to_string(),
        KeyId::from_bytes(counting).to_string(),
        RoleId::from_bytes(counting).to_string(),
        PermissionId::from_bytes(counting).to_string(),
        EventId::from_bytes(counting).to_string(),
        RequestId::from_bytes(counting).to_string(),
    ];
    let expected = ["ws", "rk", "api", "key", "role", "perm", "evt", "req"].map(|prefix| format!("{prefix}_{ulid}"));
    assert_eq!(ids, expected);
    assert_eq!(KeyId::FIRST.to_string(), "key_00000000000000000000000000");
    assert_eq!(KeyId::LAST.to_string(), "key_7zzzzzzzzzzzzzzzzzzzzzzzzz");
}

#[test]
fn secrets_are_written_and_digested_as_they_always_were() {
    let example = Prefix::new("example").unwrap();
    let counting: [u8; 24] = std::array::from_fn(|i| i as u8);
    let golden = include_str!("golden/secrets.txt");
    let mut written = String::new();
    for (name, random) in [("counting", counting), ("zero", [0; 24]), ("full", [0xff; 24])] {
        let secret = Secret::issue(&example, random);
        assert!(secret.well_formed());
        let digest = hex(&secret.digest().bytes());
        writeln!(written, "{name} {} {} {digest}", secret.expose(), secret.start()).unwrap();
    }
    assert_eq!(written, golden);
}

/// Says the same of every call, and calls in a fixed order.
#[derive(Clone)]
struct Same {
    secret: String,
    idempotency_key: Option<&'static str>,
}

impl Interceptor for Same {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let metadata = request.metadata_mut();
        metadata.insert("authorization", format!("Bearer {}", self.secret).parse().unwrap());
        metadata.insert("user-agent", "golden/1".parse().unwrap());
        metadata.insert("x-request-id", "golden".parse().unwrap());
        if let Some(idempotency_key) = self.idempotency_key {
            metadata.insert("idempotency-key", idempotency_key.parse().unwrap());
        }
        Ok(request)
    }
}

type Wired = InterceptedService<Front, Same>;

/// A product over an engine, called without a socket in between.
struct Golden {
    engine: Arc<dyn Engine>,
    ostiary: Arc<Ostiary>,
    first: String,
}

impl Golden {
    async fn open(engine: Arc<dyn Engine>) -> Self {
        let world = Arc::new(World::made_up(Timestamp::from_millis(START).unwrap(), SEED));
        let secret = Secret::issue(&Prefix::root_key(), world.random());
        let first = secret.expose().to_owned();
        founding::found(engine.as_ref(), &world, secret).await.unwrap();
        let ostiary =
            Ostiary::open(Arc::clone(&engine), world, Retention::default(), Purging::Allowed, crate::harness::CAPACITY)
                .await
                .unwrap();
        Self { engine, ostiary: Arc::new(ostiary), first }
    }

    fn wired(&self) -> (Front, Same) {
        let (_, health) = tonic_health::server::health_reporter();
        let front = Front::new(
            ostiary::rpc::services(&self.ostiary, health, &CancellationToken::new()),
            Arc::clone(&self.ostiary),
            TrustedProxies::default(),
            8_192,
            ostiary::rpc::traces::Spans::default(),
        );
        let standing = Arc::new(Standing::new(Timestamp::EPOCH));
        (
            front.facing(Some("192.0.2.1".parse().unwrap()), standing),
            Same { secret: self.first.clone(), idempotency_key: None },
        )
    }

    fn root_keys(&self) -> pb::root_key_service_client::RootKeyServiceClient<Wired> {
        let (front, same) = self.wired();
        pb::root_key_service_client::RootKeyServiceClient::with_interceptor(front, same)
    }

    fn apis(&self) -> pb::api_service_client::ApiServiceClient<Wired> {
        let (front, same) = self.wired();
        pb::api_service_client::ApiServiceClient::with_interceptor(front, same)
    }

    fn keys(&self) -> pb::key_service_client::KeyServiceClient<Wired> {
        let (front, mut same) = self.wired();
        same.idempotency_key = Some("golden");
        pb::key_service_client::KeyServiceClient::with_interceptor(front, same)
    }

    fn workspaces(&self) -> pb::workspace_service_client::WorkspaceServiceClient<Wired> {
        let (front, same) = self.wired();
        pb::workspace_service_client::WorkspaceServiceClient::with_interceptor(front, same)
    }

    fn roles(&self) -> pb::role_service_client::RoleServiceClient<Wired> {
        let (front, same) = self.wired();
        pb::role_service_client::RoleServiceClient::with_interceptor(front, same)
    }

    /// One of everything.
    async fn fill(&self) {
        let request = pb::CreateRootKeyRequest {
            name: "service".into(),
            permissions: texts(&["apis.*.verify_key", "rbac.*.read_role"]),
            expiration: Some(pb::create_root_key_request::Expiration::Ttl(span(86_400_000))),
            allowed_cidrs: texts(&["192.0.2.0/24", "2001:db8::/32"]),
            ..Default::default()
        };
        let root_key = self.root_keys().create_root_key(request).await.unwrap().into_inner().root_key.unwrap();
        let request = pb::RotateRootKeyRequest {
            root_key_id: root_key.root_key_id,
            grace_period: Some(span(60_000)),
            ..Default::default()
        };
        self.root_keys().rotate_root_key(request).await.unwrap();
        let request = pb::CreateApiRequest {
            name: "documents".into(),
            default_prefix: Some("docs".into()),
            default_ttl: Some(span(3_600_000)),
            delete_protection: true,
            allowed_cidrs: texts(&["198.51.100.7"]),
            ..Default::default()
        };
        let api_id = self.apis().create_api(request).await.unwrap().into_inner().api.unwrap().api_id;
        let request = pb::CreateRoleRequest {
            name: "Editor".into(),
            description: "may write".into(),
            permissions: texts(&["documents.read", "documents.write"]),
            ..Default::default()
        };
        self.roles().create_role(request).await.unwrap();
        let metadata = [("plan", prost_types::value::Kind::StringValue("gold".into()))]
            .map(|(name, kind)| (name.to_owned(), prost_types::Value { kind: Some(kind) }));
        let request = pb::CreateKeyRequest {
            api_id,
            name: "customer 42".into(),
            metadata: Some(prost_types::Struct { fields: metadata.into() }),
            roles: texts(&["Editor"]),
            permissions: texts(&["billing.read"]),
            ..Default::default()
        };
        let key = self.keys().create_key(request).await.unwrap().into_inner().secret;
        let request = pb::VerifyKeyRequest { key, client_ip: Some("198.51.100.7".into()), ..Default::default() };
        let verdict = self.keys().verify_key(request).await.unwrap().into_inner().verdict.unwrap();
        assert_eq!(verdict.code(), pb::VerificationCode::Valid);
        let quotas =
            pb::WorkspaceQuotas { max_keys: Some(1_000), max_root_keys: Some(20), calls_per_second: Some(100) };
        let request = pb::CreateWorkspaceRequest { name: "tenant".into(), quotas: Some(quotas), ..Default::default() };
        self.workspaces().create_workspace(request).await.unwrap();
        self.ostiary.save_time().await.unwrap();
        self.ostiary.flush_usage(Pace::AtOnce).await.unwrap();
    }

    /// Every row: key and value in hexadecimal.
    async fn dump(&self) -> String {
        let view = self.engine.view().await.unwrap();
        let mut text = String::new();
        for tag in 1..=0xfe_u8 {
            for (key, value) in view.scan(vec![tag]..vec![tag + 1], ROWS_MAX).await.unwrap() {
                writeln!(text, "{} {}", hex(&key), hex(&value)).unwrap();
            }
        }
        text
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

fn unhex(text: &str) -> Bytes {
    let digits = text.as_bytes().chunks(2);
    digits.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn empty() -> Arc<dyn Engine> {
    Arc::new(MemoryEngine::new(0x0123_4567_89ab_cdef))
}

#[tokio::test]
async fn what_is_stored_is_stored_as_it_always_was() {
    let golden = Golden::open(empty()).await;
    golden.fill().await;
    let written = golden.dump().await;
    if written != GOLDEN {
        let place = concat!(env!("CARGO_TARGET_TMPDIR"), "/store.txt");
        std::fs::write(place, &written).unwrap();
        let differing = written.lines().filter(|line| !GOLDEN.lines().any(|golden| golden == *line)).count();
        panic!(
            "{differing} rows are not written as tests/it/golden/store.txt has them. Stores on disk must stay readable: \
             if that is taken care of, add the new form, which is in {place}"
        );
    }
}

#[tokio::test]
async fn a_store_of_the_first_release_opens_and_answers() {
    let engine = empty();
    for line in GOLDEN.lines() {
        let (key, value) = line.split_once(' ').unwrap();
        let (key, value) = (unhex(key), unhex(value));
        let body = Box::new(move |tx: &mut ostiary::store::Txn<'_>| {
            tx.put(key.clone(), value.clone())?;
            Ok(Decision::Commit)
        });
        engine.transact(Priority::Interactive, body).await.unwrap();
    }
    // It has been founded, so this only opens it.
    let golden = Golden::open(engine).await;
    let root_keys = golden.root_keys().list_root_keys(pb::ListRootKeysRequest::default()).await.unwrap().into_inner();
    let names: Vec<_> = root_keys.root_keys.iter().map(|root_key| (root_key.name.as_str(), root_key.state())).collect();
    use pb::RootKeyState::{Active, RotatedOut};
    assert_eq!(names, [("first root key", Active), ("service", RotatedOut), ("service", Active)]);
    assert_eq!(root_keys.root_keys[2].allowed_cidrs, ["192.0.2.0/24", "2001:db8::/32"]);
    let keys = golden.keys().list_keys(pb::ListKeysRequest::default()).await.unwrap().into_inner().keys;
    assert_eq!(keys.len(), 1);
    assert_eq!((keys[0].name.as_str(), keys[0].prefix.as_str()), ("customer 42", "docs"));
    assert_eq!((keys[0].roles[0].name.as_str(), &keys[0].permissions), ("Editor", &texts(&["billing.read"])));
    let roles = golden.roles().list_roles(pb::ListRolesRequest::default()).await.unwrap().into_inner().roles;
    assert_eq!((roles[0].permissions.clone(), roles[0].key_count), (texts(&["documents.read", "documents.write"]), 1));
    let apis = golden.apis().list_apis(pb::ListApisRequest::default()).await.unwrap().into_inner().apis;
    assert_eq!((apis[0].default_ttl, apis[0].key_count), (Some(span(3_600_000)), 1));
    let request = pb::ListWorkspacesRequest::default();
    let workspaces = golden.workspaces().list_workspaces(request).await.unwrap().into_inner().workspaces;
    let quotas = pb::WorkspaceQuotas { max_keys: Some(1_000), max_root_keys: Some(20), calls_per_second: Some(100) };
    let told: std::collections::BTreeMap<_, _> =
        workspaces.iter().map(|workspace| (workspace.name.as_str(), workspace.quotas)).collect();
    assert_eq!(told, [("default", None), ("tenant", Some(quotas))].into());
}
