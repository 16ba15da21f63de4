//! ostiary, at its defaults, and what is in it.

use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use bytes::Bytes;
use futures::StreamExt as _;
use http::HeaderValue;
use ostiary::pb::v1 as pb;
use pb::api_service_client::ApiServiceClient;
use pb::audit_log_service_client::AuditLogServiceClient;
use pb::identity_service_client::IdentityServiceClient;
use pb::key_service_client::KeyServiceClient;
use pb::role_service_client::RoleServiceClient;
use pb::root_key_service_client::RootKeyServiceClient;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tonic::metadata::AsciiMetadataValue;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;

use crate::Failed;
use crate::answers::{codes, valid};
use crate::population::{Population, hash, question, questions, taken};
use crate::process::{Address, Process};
use crate::wire::{BATCH_VERIFY_KEYS, VERIFY_KEY, Wire, framed};

/// Rows in one message of an import.
const CHUNK: usize = 1_000;
/// Keys asked about in one call while warming up.
const WARMED_AT_ONCE: usize = 1_000;

/// A client that presents the root key.
pub type Wired = InterceptedService<Channel, Present>;

/// Where a store lies, and goes with this unless it is kept.
pub struct Store {
    /// The directory.
    pub data: PathBuf,
    place: Option<TempDir>,
}

/// A running server with a store of its own.
pub struct Ostiary {
    /// Its process.
    pub process: Process,
    /// What it serves.
    pub store: Store,
    bearer: HeaderValue,
}

/// A server, with keys that hold a role with a permission and have one limit that always applies.
pub struct Furnished {
    pub ostiary: Ostiary,
    pub population: Population,
}

impl Furnished {
    /// Asks about every key once, so that what can be remembered is.
    pub async fn warm(&self) -> Result<(), Failed> {
        let wire = self.ostiary.wires(1).await?.remove(0);
        let number = self.population.number();
        for first in (0..number).step_by(WARMED_AT_ONCE) {
            let places = first..number.min(first + WARMED_AT_ONCE);
            let request = questions(places.map(|place| self.population.secret(place)));
            codes(wire.unary(BATCH_VERIFY_KEYS, request).await?)?.into_iter().try_for_each(valid)?;
        }
        Ok(())
    }

    /// What a good key is answered, the same for all of them but for its ids.
    pub async fn answer(&self) -> Result<Bytes, Failed> {
        let wire = self.ostiary.wires(1).await?.remove(0);
        wire.unary(VERIFY_KEY, framed(&question(self.population.secret(0)))).await
    }
}

impl Store {
    /// A place for one, on a disk and not in memory.
    pub fn new() -> Result<Self, Failed> {
        Self::within(Path::new(env!("CARGO_TARGET_TMPDIR")))
    }

    /// A place for one in this directory.
    pub fn within(directory: &Path) -> Result<Self, Failed> {
        let place = tempfile::tempdir_in(directory)?;
        Ok(Self { data: place.path().join("data"), place: Some(place) })
    }

    /// One that stays.
    pub fn kept(data: PathBuf) -> Self {
        Self { data, place: None }
    }

    /// The same once more, to be changed.
    pub fn copied(&self) -> Result<Self, Failed> {
        let copy = Self::new()?;
        std::fs::DirBuilder::new().mode(0o700).create(&copy.data)?;
        for entry in std::fs::read_dir(&self.data)? {
            let entry = entry?;
            std::fs::copy(entry.path(), copy.data.join(entry.file_name()))?;
        }
        Ok(copy)
    }

    /// The file with all rows.
    pub fn file(&self) -> PathBuf {
        self.data.join("ostiary.redb")
    }

    /// The first root key, which nobody has taken away.
    pub fn root_key(&self) -> Result<String, Failed> {
        Ok(std::fs::read_to_string(self.data.join("first-root-key"))?.trim_end().to_owned())
    }

    /// Starts a server on it.
    pub fn serve(self) -> Result<Ostiary, Failed> {
        self.serve_at("127.0.0.1:0")
    }

    /// Starts a server on it that listens there.
    pub fn serve_at(self, listen: &str) -> Result<Ostiary, Failed> {
        self.serve_with(&["--listen", listen])
    }

    /// Starts a server on it with these options.
    pub fn serve_with(self, options: &[&str]) -> Result<Ostiary, Failed> {
        let process = Process::start(&mut serve(&self.data, options))?;
        let bearer = format!("Bearer {}", self.root_key()?).parse()?;
        Ok(Ostiary { process, store: self, bearer })
    }

    /// Starts a server on it that tells its metrics.
    pub fn serve_with_metrics(self) -> Result<Ostiary, Failed> {
        let admin = format!("unix:{}", self.admin().display());
        self.serve_with(&["--listen", "127.0.0.1:0", "--admin-listen", &admin])
    }

    /// Where it tells them.
    fn admin(&self) -> PathBuf {
        self.data.with_extension("admin")
    }

    /// Gives it another place in the same file system, where it stays.
    pub fn keep(mut self, place: &Path) -> Result<Self, Failed> {
        if self.place.is_some() {
            std::fs::rename(&self.data, place)?;
            self.data = place.to_owned();
            self.place = None;
        }
        Ok(self)
    }
}

impl Ostiary {
    /// One with an empty store.
    pub fn start() -> Result<Self, Failed> {
        Store::new()?.serve()
    }

    /// Kills it, and leaves what it served.
    pub fn kill(self) -> Store {
        self.store
    }

    /// The header that presents the root key.
    pub fn bearer(&self) -> &HeaderValue {
        &self.bearer
    }

    /// One of its metrics, if it was started to tell them, by its name and labels.
    pub async fn metric(&self, name: &str) -> Result<f64, Failed> {
        let mut stream = UnixStream::connect(self.store.admin()).await?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await?;
        let mut page = String::new();
        stream.read_to_string(&mut page).await?;
        let figure = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        Ok(figure.ok_or_else(|| format!("the metrics do not tell of {name}"))?.parse()?)
    }

    /// Connections for a load.
    pub async fn wires(&self, number: usize) -> Result<Vec<Wire>, Failed> {
        connect(&self.process, &self.bearer, number).await
    }

    /// Connections of the same load to another server, which gets the same header.
    pub async fn wires_to(&self, other: &Process, number: usize) -> Result<Vec<Wire>, Failed> {
        connect(other, &self.bearer, number).await
    }

    /// A connection for calls that are not load.
    pub async fn client(&self) -> Result<Client, Failed> {
        let Address::Tcp(address) = &self.process.address else { return Err("it listens on a socket".into()) };
        let channel = Channel::from_shared(format!("http://{address}"))?.connect().await?;
        Ok(Client { channel, present: Present(AsciiMetadataValue::try_from(self.bearer.as_bytes())?) })
    }

    /// Makes an API and a role, which keys are to hold.
    pub async fn prepare(&self) -> Result<String, Failed> {
        let client = self.client().await?;
        client.create_role("reader", &["documents.*"]).await?;
        client.create_api("benched").await
    }

    /// The same, and fills the API with keys that hold the role.
    pub async fn furnish(&self, population: &Population) -> Result<String, Failed> {
        let api_id = self.prepare().await?;
        let client = self.client().await?;
        let row = |place| row(&api_id, population.secret(place));
        client.import(population.number(), row).await?;
        Ok(api_id)
    }
}

/// The command that serves a store at the defaults but for these options.
fn serve(data: &Path, options: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ostiary"));
    command.arg("serve").args(options).arg("--data-dir").arg(data).env_clear();
    command
}

async fn connect(process: &Process, bearer: &HeaderValue, number: usize) -> Result<Vec<Wire>, Failed> {
    let mut wires = Vec::new();
    for _ in 0..number {
        wires.push(Wire::connect(&process.address, bearer).await?);
    }
    Ok(wires)
}

/// A key that holds the role and has one limit that always applies.
pub fn row(api_id: &str, secret: &str) -> pb::ImportKeysRow {
    pb::ImportKeysRow {
        hash: hash(secret),
        algorithm: pb::HashAlgorithm::Sha256Hex.into(),
        api_id: api_id.to_owned(),
        roles: vec!["reader".to_owned()],
        rate_limits: vec![calls()],
        ..Default::default()
    }
}

/// A limit that nothing reaches and every verification counts for.
pub fn calls() -> pb::RateLimit {
    pb::RateLimit {
        name: "calls".to_owned(),
        limit: 1_000_000_000,
        duration: Some(prost_types::Duration { seconds: 3_600, nanos: 0 }),
        auto_apply: true,
    }
}

/// Makes calls that are not load.
#[derive(Clone)]
pub struct Client {
    channel: Channel,
    present: Present,
}

/// Presents the root key with every call.
#[derive(Clone)]
pub struct Present(AsciiMetadataValue);

impl Interceptor for Present {
    fn call(&mut self, mut request: tonic::Request<()>) -> Result<tonic::Request<()>, tonic::Status> {
        request.metadata_mut().insert("authorization", self.0.clone());
        Ok(request)
    }
}

impl Client {
    pub fn apis(&self) -> ApiServiceClient<Wired> {
        ApiServiceClient::with_interceptor(self.channel.clone(), self.present.clone())
    }

    pub fn audit(&self) -> AuditLogServiceClient<Wired> {
        AuditLogServiceClient::with_interceptor(self.channel.clone(), self.present.clone())
    }

    pub fn identities(&self) -> IdentityServiceClient<Wired> {
        IdentityServiceClient::with_interceptor(self.channel.clone(), self.present.clone())
    }

    pub fn root_keys(&self) -> RootKeyServiceClient<Wired> {
        RootKeyServiceClient::with_interceptor(self.channel.clone(), self.present.clone())
    }

    pub fn keys(&self) -> KeyServiceClient<Wired> {
        KeyServiceClient::with_interceptor(self.channel.clone(), self.present.clone())
    }

    pub fn roles(&self) -> RoleServiceClient<Wired> {
        RoleServiceClient::with_interceptor(self.channel.clone(), self.present.clone())
    }

    /// Makes an API and tells its id.
    pub async fn create_api(&self, name: &str) -> Result<String, Failed> {
        let request = pb::CreateApiRequest { name: name.to_owned(), ..Default::default() };
        Ok(self.apis().create_api(request).await?.into_inner().api.unwrap_or_default().api_id)
    }

    /// Makes a role with these permissions and tells its id.
    pub async fn create_role(&self, name: &str, permissions: &[&str]) -> Result<String, Failed> {
        let permissions = permissions.iter().map(|slug| (*slug).to_owned()).collect();
        let request = pb::CreateRoleRequest { name: name.to_owned(), permissions, ..Default::default() };
        Ok(self.roles().create_role(request).await?.into_inner().role.unwrap_or_default().role_id)
    }

    /// Imports so many keys over one stream.
    pub async fn import(&self, number: usize, row: impl Fn(usize) -> pb::ImportKeysRow) -> Result<(), Failed> {
        let (messages, stream) = futures::channel::mpsc::channel(4);
        let send = async {
            let mut messages = messages;
            for first in (0..number).step_by(CHUNK) {
                let rows = (first..number.min(first + CHUNK)).map(&row).collect();
                futures::SinkExt::send(&mut messages, pb::ImportKeysRequest { rows }).await?;
            }
            drop(messages);
            Ok::<(), Failed>(())
        };
        let receive = async {
            let mut keys = self.keys();
            let mut answers = keys.import_keys(stream).await?.into_inner();
            while let Some(answer) = answers.next().await {
                taken(&answer?)?;
            }
            Ok::<(), Failed>(())
        };
        futures::future::try_join(send, receive).await.map(drop)
    }
}
