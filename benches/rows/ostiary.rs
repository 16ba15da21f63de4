//! ostiary, at its defaults, and what is in it.

use std::path::{Path, PathBuf};
use std::process::Command;

use bytes::Bytes;
use futures::StreamExt as _;
use http::HeaderValue;
use ostiary::pb::v1 as pb;
use pb::api_service_client::ApiServiceClient;
use pb::key_service_client::KeyServiceClient;
use pb::role_service_client::RoleServiceClient;
use tempfile::TempDir;
use tonic::metadata::AsciiMetadataValue;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;

use crate::Failed;
use crate::population::{Population, hash, question, taken};
use crate::process::{Address, Process};
use crate::wire::{VERIFY_KEY, Wire, framed};

/// Rows in one message of an import.
const CHUNK: usize = 1_000;

/// A client that presents the root key.
pub type Wired = InterceptedService<Channel, Present>;

/// A running server with a store of its own.
pub struct Ostiary {
    /// Its process.
    pub process: Process,
    bearer: HeaderValue,
    data: PathBuf,
    _place: TempDir,
}

/// A server, with keys that hold a role with a permission and have one limit that always applies.
pub struct Furnished {
    pub ostiary: Ostiary,
    pub population: Population,
    #[allow(dead_code, reason = "for the rows that add keys")]
    pub api_id: String,
}

impl Furnished {
    /// What a good key is answered, the same for all of them but for its ids.
    pub async fn answer(&self) -> Result<Bytes, Failed> {
        let wire = self.ostiary.wires(1).await?.remove(0);
        wire.unary(VERIFY_KEY, framed(&question(self.population.secret(0)))).await
    }
}

impl Ostiary {
    /// One with an empty store, on a disk and not in memory.
    pub fn start() -> Result<Self, Failed> {
        let place = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
        let data = place.path().join("data");
        let process = Process::start(&mut serve(&data))?;
        let root_key = std::fs::read_to_string(data.join("first-root-key"))?;
        let bearer = format!("Bearer {}", root_key.trim_end()).parse()?;
        Ok(Self { process, bearer, data, _place: place })
    }

    /// Where its store lies.
    #[allow(dead_code, reason = "for the rows that start it anew")]
    pub fn data(&self) -> &Path {
        &self.data
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

    /// Makes an API and a role, and fills the API with keys that hold it.
    pub async fn furnish(&self, population: &Population) -> Result<String, Failed> {
        let client = self.client().await?;
        let api_id = client.create_api("benched").await?;
        client.create_role("reader", &["documents.*"]).await?;
        let row = |place| row(&api_id, population.secret(place));
        client.import(population.number(), row).await?;
        Ok(api_id)
    }
}

/// The command that serves a store at the defaults.
fn serve(data: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ostiary"));
    command.args(["serve", "--listen", "127.0.0.1:0", "--data-dir"]).arg(data).env_clear();
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
        rate_limits: vec![pb::RateLimit {
            name: "calls".to_owned(),
            limit: 1_000_000_000,
            duration: Some(prost_types::Duration { seconds: 3_600, nanos: 0 }),
            auto_apply: true,
        }],
        ..Default::default()
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

    /// Makes a role with these permissions.
    pub async fn create_role(&self, name: &str, permissions: &[&str]) -> Result<(), Failed> {
        let permissions = permissions.iter().map(|slug| (*slug).to_owned()).collect();
        let request = pb::CreateRoleRequest { name: name.to_owned(), permissions, ..Default::default() };
        self.roles().create_role(request).await?;
        Ok(())
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
