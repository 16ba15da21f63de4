//! A whole ostiary in a made-up world: repeatable randomness, a clock in the test's hand, real tonic on loopback.

#![allow(dead_code, reason = "each part is used by some of the test modules")]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ostiary::config::address::Address;
use ostiary::config::bounds::Bounds;
use ostiary::domain::secret::{Prefix, Secret};
use ostiary::domain::time::Timestamp;
use ostiary::pb::v1 as pb;
use ostiary::rpc::proxies::TrustedProxies;
use ostiary::rpc::traces::Spans;
use ostiary::server::crew::Crew;
use ostiary::server::{self, Running, Serving, Sweeping};
use ostiary::service::{Capacity, Ostiary, Purging, Retention, founding};
use ostiary::store::Engine;
use ostiary::store::memory::MemoryEngine;
use ostiary::store::redb::{RedbEngine, RedbOptions};
use ostiary::world::World;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use tonic::metadata::{AsciiMetadataValue, MetadataMap};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};
use tonic_types::StatusExt;

/// 2026-01-01T00:00:00Z, when the made-up world begins.
pub const START: u64 = 1_767_225_600_000;
/// Memory for a product with few rows.
pub const CAPACITY: Capacity = Capacity { cache_bytes: 1 << 20, windows: 100_000 };
/// An epoch for stores made in tests.
const EPOCH: u64 = 0x0123_4567_89ab_cdef;

/// Where the rows lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// In a redb file in a temporary directory.
    OnDisk,
    /// In memory, by the engine that runs every body twice.
    InMemory,
}

/// A running ostiary.
pub struct House {
    pub world: Arc<World>,
    pub engine: Arc<dyn Engine>,
    pub ostiary: Arc<Ostiary>,
    pub address: std::net::SocketAddr,
    /// The secret of the operator's first root key: `*.*.*` and `workspaces.*.*`.
    pub first: String,
    running: Option<Running>,
    stop: CancellationToken,
    kept: Kept,
    directory: TempDir,
    sweeping: Sweeping,
}

impl House {
    /// On disk, swept in the background.
    pub async fn new() -> Self {
        Self::build(Kept::OnDisk, Sweeping::InBackground, 1).await
    }

    /// On disk, swept only by [`House::sweep`].
    pub async fn unswept() -> Self {
        Self::build(Kept::OnDisk, Sweeping::ByHand, 1).await
    }

    /// Any way.
    pub async fn build(kept: Kept, sweeping: Sweeping, seed: u64) -> Self {
        let directory = TempDir::new().unwrap();
        let world = Arc::new(World::made_up(Timestamp::from_millis(START).unwrap(), seed));
        let engine: Arc<dyn Engine> = match kept {
            Kept::InMemory => Arc::new(MemoryEngine::new(EPOCH)),
            Kept::OnDisk => open(&directory),
        };
        let secret = Secret::issue(&Prefix::root_key(), world.random());
        let first = secret.expose().to_owned();
        founding::found(engine.as_ref(), &world, secret).await.unwrap();
        let (ostiary, running, stop) = serve(Arc::clone(&engine), &world, sweeping).await;
        let address = tcp(&running);
        Self { world, engine, ostiary, address, first, running: Some(running), stop, kept, directory, sweeping }
    }

    /// Stops it cleanly and starts it again on the same file, in the same world. On disk only.
    pub async fn restart(&mut self) {
        assert_eq!(self.kept, Kept::OnDisk, "what is in memory does not outlive its process");
        self.halt().await;
        // The file is held until the engine is gone.
        self.engine = Arc::new(MemoryEngine::new(EPOCH));
        let engine = open(&self.directory);
        let (ostiary, running, stop) = serve(Arc::clone(&engine), &self.world, self.sweeping).await;
        self.engine = engine;
        self.address = tcp(&running);
        self.ostiary = ostiary;
        self.running = Some(running);
        self.stop = stop;
    }

    /// The store's file.
    pub fn file(&self) -> PathBuf {
        self.directory.path().join("ostiary.redb")
    }

    /// Bytes of it.
    pub fn file_size(&self) -> u64 {
        self.file().metadata().unwrap().len()
    }

    /// Stops it cleanly.
    pub async fn halt(&mut self) {
        self.stop.cancel();
        if let Some(running) = self.running.take() {
            running.finished().await.unwrap();
        }
    }

    /// Lets that many milliseconds pass.
    pub fn pass(&self, millis: u64) {
        self.world.advance(Duration::from_millis(millis));
    }

    /// Does what is due.
    pub async fn sweep(&self) {
        self.ostiary.sweep_due().await.unwrap();
    }

    /// Now, in milliseconds.
    pub fn now(&self) -> u64 {
        self.world.now().millis()
    }

    /// A client with the operator's first root key.
    pub async fn operator(&self) -> Client {
        self.client(&self.first).await
    }

    /// A client with this root key.
    pub async fn client(&self, secret: &str) -> Client {
        Client::connect(self.address, Some(secret.to_owned())).await
    }

    /// A client without any.
    pub async fn stranger(&self) -> Client {
        Client::connect(self.address, None).await
    }
}

impl Drop for House {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn open(directory: &TempDir) -> Arc<dyn Engine> {
    Arc::new(RedbEngine::open(RedbOptions::new(directory.path().join("ostiary.redb"), EPOCH)).unwrap())
}

async fn serve(
    engine: Arc<dyn Engine>,
    world: &Arc<World>,
    sweeping: Sweeping,
) -> (Arc<Ostiary>, Running, CancellationToken) {
    let ostiary =
        Ostiary::open(engine, Arc::clone(world), Retention::default(), Purging::Allowed, crate::harness::CAPACITY)
            .await
            .unwrap();
    let ostiary = Arc::new(ostiary);
    let stop = CancellationToken::new();
    let running = server::serve(Arc::clone(&ostiary), serving(sweeping), stop.clone()).await.unwrap();
    (ostiary, running, stop)
}

/// Where a server listens on the network.
pub fn tcp(running: &Running) -> SocketAddr {
    let tcp = |address: &Address| match address {
        Address::Tcp(address) => Some(*address),
        Address::Unix(_) | Address::Systemd => None,
    };
    running.addresses.iter().find_map(tcp).unwrap()
}

/// On a free port of this machine.
pub fn serving(sweeping: Sweeping) -> Serving {
    let addresses = vec!["127.0.0.1:0".parse().unwrap()];
    Serving {
        addresses,
        handed: Vec::new(),
        tls: None,
        proxies: TrustedProxies::default(),
        bounds: Bounds { drain: Duration::from_secs(5), ..Bounds::default() },
        sweeping,
        crew: Crew::here(),
        web: None,
        spans: Spans::default(),
    }
}

/// Puts the root key, and what else a test wants, on every call.
#[derive(Clone, Default)]
pub struct Headers {
    pub secret: Option<String>,
    pub idempotency_key: Option<String>,
    pub request_id: Option<String>,
    pub forwarded_for: Option<String>,
}

impl Interceptor for Headers {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let mut set = |name: &'static str, value: &Option<String>| {
            if let Some(value) = value {
                request.metadata_mut().insert(name, AsciiMetadataValue::try_from(value.as_str()).unwrap());
            }
        };
        set("authorization", &self.secret.as_ref().map(|secret| format!("Bearer {secret}")));
        set("idempotency-key", &self.idempotency_key);
        set("x-request-id", &self.request_id);
        set("x-forwarded-for", &self.forwarded_for);
        Ok(request)
    }
}

/// The method whose answers have no end, of which [`Client::raw`] takes the first.
const ENDLESS: &str = "/ostiary.v1.AuditLogService/WatchAuditEvents";

/// Somebody who calls ostiary.
#[derive(Clone)]
pub struct Client {
    pub channel: Channel,
    pub headers: Headers,
}

type Wired = InterceptedService<Channel, Headers>;

macro_rules! services {
    ($($method:ident, $module:ident, $client:ident;)*) => {
        impl Client {
            $(pub fn $method(&self) -> pb::$module::$client<Wired> {
                pb::$module::$client::with_interceptor(self.channel.clone(), self.headers.clone())
            })*
        }
    };
}
services! {
    root_keys, root_key_service_client, RootKeyServiceClient;
    workspaces, workspace_service_client, WorkspaceServiceClient;
    apis, api_service_client, ApiServiceClient;
    keys, key_service_client, KeyServiceClient;
    roles, role_service_client, RoleServiceClient;
    permissions, permission_service_client, PermissionServiceClient;
    identities, identity_service_client, IdentityServiceClient;
    rate_limits, rate_limit_service_client, RateLimitServiceClient;
    audit, audit_log_service_client, AuditLogServiceClient;
    maintenance, maintenance_service_client, MaintenanceServiceClient;
}

impl Client {
    pub async fn connect(address: std::net::SocketAddr, secret: Option<String>) -> Self {
        let channel = Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
        Self { channel, headers: Headers { secret, ..Headers::default() } }
    }

    /// The same connection with another root key.
    pub fn with(&self, secret: &str) -> Self {
        let headers = Headers { secret: Some(secret.to_owned()), ..self.headers.clone() };
        Self { headers, ..self.clone() }
    }

    /// The same, under an idempotency key.
    pub fn once(&self, idempotency_key: &str) -> Self {
        let headers = Headers { idempotency_key: Some(idempotency_key.to_owned()), ..self.headers.clone() };
        Self { headers, ..self.clone() }
    }

    /// Calls a method by its path with a message as bytes, and gets the answer as bytes.
    pub async fn raw(&self, path: &str, message: Vec<u8>, metadata: MetadataMap) -> Result<Response<Vec<u8>>, Status> {
        let mut grpc = tonic::client::Grpc::new(self.channel.clone());
        grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        let mut request = Request::from_parts(metadata, tonic::Extensions::default(), message);
        if let Some(secret) = &self.headers.secret {
            let value = AsciiMetadataValue::try_from(format!("Bearer {secret}")).unwrap();
            request.metadata_mut().insert("authorization", value);
        }
        if path != ENDLESS {
            return grpc.unary(request, path.parse().unwrap(), Bytes).await;
        }
        let (metadata, mut answers, extensions) =
            grpc.server_streaming(request, path.parse().unwrap(), Bytes).await?.into_parts();
        let first = answers.message().await?.expect("it has no end");
        Ok(Response::from_parts(metadata, first, extensions))
    }

    /// A root key with these permissions and no end.
    pub async fn root_key(&self, name: &str, permissions: &[&str]) -> (pb::RootKey, String) {
        let response = self.root_keys().create_root_key(root_key(name, permissions)).await.unwrap().into_inner();
        (response.root_key.unwrap(), response.secret)
    }

    /// An API.
    pub async fn api(&self, name: &str) -> pb::Api {
        let request = pb::CreateApiRequest { name: name.into(), ..Default::default() };
        self.apis().create_api(request).await.unwrap().into_inner().api.unwrap()
    }

    /// A role with these permissions, made on the way.
    pub async fn role(&self, name: &str, permissions: &[&str]) -> pb::Role {
        let request =
            pb::CreateRoleRequest { name: name.into(), permissions: texts(permissions), ..Default::default() };
        self.roles().create_role(request).await.unwrap().into_inner().role.unwrap()
    }

    /// A key in an API.
    pub async fn key(&self, request: pb::CreateKeyRequest) -> (pb::Key, String) {
        let response = self.keys().create_key(request).await.unwrap().into_inner();
        (response.key.unwrap(), response.secret)
    }

    /// What verifying a key for these permissions comes to.
    pub async fn verdict(&self, key: &str, permissions: Option<&str>) -> pb::Verdict {
        let request =
            pb::VerifyKeyRequest { key: key.into(), permissions: permissions.map(Into::into), ..Default::default() };
        self.keys().verify_key(request).await.unwrap().into_inner().verdict.unwrap()
    }

    /// The names of all events of the workspace, in order.
    pub async fn events(&self) -> Vec<String> {
        let request = pb::ListAuditEventsRequest { page_size: 1_000, ..Default::default() };
        let response = self.audit().list_audit_events(request).await.unwrap().into_inner();
        response.events.into_iter().map(|event| event.event).collect()
    }
}

/// A request for a root key with these permissions and no end.
pub fn root_key(name: &str, permissions: &[&str]) -> pb::CreateRootKeyRequest {
    pb::CreateRootKeyRequest { name: name.into(), permissions: texts(permissions), ..Default::default() }
}

pub fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(ToString::to_string).collect()
}

/// A moment on the wire.
pub fn at(millis: u64) -> prost_types::Timestamp {
    prost_types::Timestamp { seconds: (millis / 1_000) as i64, nanos: (millis % 1_000) as i32 * 1_000_000 }
}

/// A span on the wire.
pub fn span(millis: u64) -> prost_types::Duration {
    prost_types::Duration { seconds: (millis / 1_000) as i64, nanos: (millis % 1_000) as i32 * 1_000_000 }
}

/// The reason of an error.
pub fn reason(status: &Status) -> String {
    status.get_details_error_info().map(|info| info.reason).unwrap_or_default()
}

/// Code and reason of an error, or what it was instead.
pub fn refusal<T: std::fmt::Debug>(result: Result<Response<T>, Status>) -> (tonic::Code, String) {
    let status = result.expect_err("it was to be refused");
    (status.code(), reason(&status))
}

/// The fields that an error complains of, in order.
pub fn fields(status: &Status) -> Vec<String> {
    let violations = status.get_details_bad_request().map(|details| details.field_violations).unwrap_or_default();
    violations.into_iter().map(|violation| violation.field).collect()
}

/// Messages as they are.
#[derive(Default, Clone, Copy)]
pub struct Bytes;

impl tonic::codec::Codec for Bytes {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl tonic::codec::Encoder for Bytes {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, buffer: &mut tonic::codec::EncodeBuf<'_>) -> Result<(), Status> {
        bytes::BufMut::put_slice(buffer, &item);
        Ok(())
    }
}

impl tonic::codec::Decoder for Bytes {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, buffer: &mut tonic::codec::DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        let length = bytes::Buf::remaining(buffer);
        Ok(Some(bytes::Buf::copy_to_bytes(buffer, length).to_vec()))
    }
}

impl House {
    /// In memory, where every decision is made twice, swept only by [`House::sweep`].
    pub async fn in_memory() -> Self {
        Self::build(Kept::InMemory, Sweeping::ByHand, 1).await
    }
}

impl Client {
    /// Somebody with a root key that may do this and nothing else.
    pub async fn limited(&self, permissions: &[&str]) -> Self {
        let (_, secret) = self.root_key("limited", permissions).await;
        self.with(&secret)
    }

    /// The administrator of another workspace, made for it.
    pub async fn neighbour(&self, name: &str) -> Self {
        let request = pb::CreateWorkspaceRequest { name: name.into(), ..Default::default() };
        let secret = self.workspaces().create_workspace(request).await.unwrap().into_inner().secret;
        self.with(&secret)
    }

    /// The same, whose calls come with this note of a proxy.
    pub fn forwarded(&self, addresses: &str) -> Self {
        let headers = Headers { forwarded_for: Some(addresses.to_owned()), ..self.headers.clone() };
        Self { headers, ..self.clone() }
    }

    /// The same, whose calls all have this id.
    pub fn named(&self, request_id: &str) -> Self {
        let headers = Headers { request_id: Some(request_id.to_owned()), ..self.headers.clone() };
        Self { headers, ..self.clone() }
    }

    /// A key of the API with this name and all else as it comes.
    pub async fn plain_key(&self, api: &pb::Api, name: &str) -> (pb::Key, String) {
        let request = pb::CreateKeyRequest { api_id: api.api_id.clone(), name: name.into(), ..Default::default() };
        self.key(request).await
    }

    /// The key as it is.
    pub async fn get_key(&self, key_id: &str) -> Result<pb::Key, Status> {
        let request = pb::GetKeyRequest { key_id: key_id.into(), ..Default::default() };
        self.keys().get_key(request).await.map(|response| response.into_inner().key.unwrap())
    }

    /// What a verification comes to.
    pub async fn verify(&self, request: pb::VerifyKeyRequest) -> pb::Verdict {
        self.keys().verify_key(request).await.unwrap().into_inner().verdict.unwrap()
    }

    /// All events of the workspace, in order.
    pub async fn log(&self) -> Vec<pb::AuditEvent> {
        let request = pb::ListAuditEventsRequest { page_size: 1_000, ..Default::default() };
        self.audit().list_audit_events(request).await.unwrap().into_inner().events
    }
}

/// All of an error but the name in it, so that two can be compared byte for byte. Names must be equally long, and both
/// calls of the same id.
pub fn but_for<T: std::fmt::Debug>(result: Result<Response<T>, Status>, name: &str) -> (tonic::Code, String, Vec<u8>) {
    let status = result.expect_err("it was to be refused");
    let mut details = status.details().to_vec();
    let blank = vec![b'?'; name.len()];
    while let Some(at) = details.windows(name.len()).position(|window| window == name.as_bytes()) {
        details[at..at + name.len()].copy_from_slice(&blank);
    }
    (status.code(), status.message().replace(name, "?"), details)
}

/// A mask of these paths.
pub fn mask(paths: &[&str]) -> Option<prost_types::FieldMask> {
    Some(prost_types::FieldMask { paths: texts(paths) })
}
