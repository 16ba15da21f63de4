//! What a verification costs, beside an empty call of the same size.
//!
//! ```sh
//! cargo bench --bench verify -- [KEYS] [CALLS]
//! ```
//!
//! Both servers are processes of their own, and both get the same load from this one: closed-loop, over some connections,
//! taking turns. What is compared is the CPU time that each server spends on a call, from `/proc`, so it holds on a machine
//! with few cores. The stock echo is tonic's default server on tokio's default runtime with the system's allocator. An
//! answer that is not `VALID` ends the run.

#![allow(clippy::disallowed_methods, reason = "it stands outside ostiary, with a clock of its own")]

use std::error::Error;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Instant;

use futures::StreamExt as _;
use futures::future::BoxFuture;
use ostiary::pb::v1 as pb;
use pb::key_service_client::KeyServiceClient;
use prost::Message as _;
use sha2::{Digest as _, Sha256};
use tonic::body::Body;
use tonic::metadata::AsciiMetadataValue;
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::transport::{Channel, Server};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

type Failed = Box<dyn Error + Send + Sync>;

/// Calls under way at a time, over so many connections.
const IN_FLIGHT: usize = 64;
const CONNECTIONS: usize = 4;
/// Times that each side is measured.
const ROUNDS: usize = 5;
/// Rows in one message of an import.
const CHUNK: usize = 1_000;
/// Ticks of the scheduler's clock in a second, as Linux tells them.
const TICKS: f64 = 100.0;

/// Answers everything with the same bytes.
#[derive(Clone)]
struct Echo(Arc<Vec<u8>>);

impl NamedService for Echo {
    const NAME: &'static str = "bench.Echo";
}

impl UnaryService<Vec<u8>> for Echo {
    type Response = Vec<u8>;
    type Future = std::future::Ready<Result<Response<Vec<u8>>, Status>>;

    fn call(&mut self, _: Request<Vec<u8>>) -> Self::Future {
        std::future::ready(Ok(Response::new(self.0.to_vec())))
    }
}

impl tower::Service<http::Request<Body>> for Echo {
    type Response = http::Response<Body>;
    type Error = std::convert::Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let echo = self.clone();
        Box::pin(async move { Ok(Grpc::new(ProstCodec::default()).unary(echo, request).await) })
    }
}

async fn serve_echo(bytes: usize) -> Result<(), Failed> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    eprintln!("serving address={}", listener.local_addr()?);
    let incoming = tonic::transport::server::TcpIncoming::from(listener).with_nodelay(Some(true));
    let echo = Echo(Arc::new(vec![b'x'; bytes]));
    Server::builder().add_service(echo).serve_with_incoming(incoming).await?;
    Ok(())
}

/// A server in a process of its own, ended with this.
struct Process {
    child: Child,
    address: String,
}

impl Process {
    /// Starts it and waits until it says where it serves. Its log is read to its end, so that it never waits for it.
    fn start(command: &mut Command) -> Result<Self, Failed> {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
        let log = child.stderr.take().ok_or("the log is piped")?;
        let mut lines = BufReader::new(log).lines();
        let address = loop {
            let line = lines.next().ok_or("the server ended before it served")??;
            if let Some((_, rest)) = line.split_once("serving address=") {
                break rest.split(' ').next().unwrap_or_default().to_owned();
            }
        };
        std::thread::spawn(move || lines.for_each(drop));
        Ok(Self { child, address })
    }

    /// Seconds of CPU that it has used, its own and the kernel's for it.
    fn cpu(&self) -> Result<f64, Failed> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        let (_, fields) = stat.rsplit_once(") ").ok_or("a line of another shape")?;
        let mut fields = fields.split(' ').skip(11);
        let mut ticks = || fields.next().unwrap_or_default().parse::<f64>();
        Ok((ticks()? + ticks()?) / TICKS)
    }

    async fn channels(&self) -> Result<Vec<Channel>, Failed> {
        let mut channels = Vec::new();
        for _ in 0..CONNECTIONS {
            channels.push(Channel::from_shared(format!("http://{}", self.address))?.connect().await?);
        }
        Ok(channels)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn secret(number: usize) -> String {
    // As long as one that ostiary issues, with a prefix.
    format!("key_{number:039}")
}

fn question(number: usize) -> pb::VerifyKeyRequest {
    pb::VerifyKeyRequest { key: secret(number), permissions: Some("documents.read".to_owned()), ..Default::default() }
}

fn bearing<T>(message: T, bearer: &AsciiMetadataValue) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", bearer.clone());
    request
}

/// Fills the server with keys that hold a role with a permission and have one limit that always applies.
async fn furnish(channel: Channel, bearer: &AsciiMetadataValue, number: usize) -> Result<(), Failed> {
    let mut apis = pb::api_service_client::ApiServiceClient::new(channel.clone());
    let request = pb::CreateApiRequest { name: "benched".to_owned(), ..Default::default() };
    let api = apis.create_api(bearing(request, bearer)).await?.into_inner().api.unwrap_or_default();
    let mut roles = pb::role_service_client::RoleServiceClient::new(channel.clone());
    let permissions = vec!["documents.*".to_owned()];
    let request = pb::CreateRoleRequest { name: "reader".to_owned(), permissions, ..Default::default() };
    roles.create_role(bearing(request, bearer)).await?;
    let row = move |number: usize| pb::ImportKeysRow {
        hash: Sha256::digest(secret(number)).iter().map(|byte| format!("{byte:02x}")).collect(),
        algorithm: pb::HashAlgorithm::Sha256Hex.into(),
        api_id: api.api_id.clone(),
        roles: vec!["reader".to_owned()],
        rate_limits: vec![pb::RateLimit {
            name: "calls".to_owned(),
            limit: 1_000_000_000,
            duration: Some(prost_types::Duration { seconds: 3_600, nanos: 0 }),
            auto_apply: true,
        }],
        ..Default::default()
    };
    let messages = (0..number)
        .step_by(CHUNK)
        .map(move |first| pb::ImportKeysRequest { rows: (first..number.min(first + CHUNK)).map(&row).collect() });
    let mut keys = KeyServiceClient::new(channel);
    let mut answers = keys.import_keys(bearing(futures::stream::iter(messages), bearer)).await?.into_inner();
    while let Some(answer) = answers.next().await {
        if let Some(failure) = answer?.failures.first() {
            return Err(format!("a row failed: {failure:?}").into());
        }
    }
    Ok(())
}

/// Makes calls, so many at a time, and says what the server spent on each, in microseconds, and how many it did a second.
async fn measure<F>(process: &Process, calls: usize, call: impl Fn(Channel, usize) -> F) -> Result<(f64, f64), Failed>
where
    F: Future<Output = Result<(), Failed>>,
{
    let channels = process.channels().await?;
    let next = AtomicUsize::new(0);
    let (before, began) = (process.cpu()?, Instant::now());
    let workers = (0..IN_FLIGHT).map(|worker| {
        let (channel, next, call) = (channels[worker % CONNECTIONS].clone(), &next, &call);
        async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= calls {
                    return Ok::<(), Failed>(());
                }
                call(channel.clone(), number).await?;
            }
        }
    });
    futures::future::try_join_all(workers).await?;
    let took = began.elapsed().as_secs_f64();
    let cpu = process.cpu()? - before;
    Ok((cpu * 1e6 / calls as f64, calls as f64 / took))
}

/// The median, with the least and the greatest.
fn summary(mut figures: Vec<f64>) -> (f64, f64, f64) {
    figures.sort_by(f64::total_cmp);
    (figures[figures.len() / 2], figures[0], figures[figures.len() - 1])
}

async fn run(keys: usize, calls: usize) -> Result<(), Failed> {
    let place = tempfile::tempdir()?;
    let data = place.path().join("data");
    let mut command = Command::new(env!("CARGO_BIN_EXE_ostiary"));
    command.args(["serve", "--listen", "127.0.0.1:0", "--data-dir"]).arg(&data).env_clear();
    let ostiary = Process::start(&mut command)?;
    let root_key = std::fs::read_to_string(data.join("first-root-key"))?;
    let bearer: AsciiMetadataValue = format!("Bearer {}", root_key.trim_end()).parse()?;
    let channel = ostiary.channels().await?.remove(0);
    furnish(channel.clone(), &bearer, keys).await?;
    let sample = KeyServiceClient::new(channel).verify_key(bearing(question(0), &bearer)).await?.into_inner();
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["echo", &sample.encoded_len().to_string()]);
    let echo = Process::start(&mut command)?;

    let request = vec![b'x'; question(0).encoded_len()];
    let empty = |channel: Channel, _: usize| {
        let (request, bearer) = (request.clone(), bearer.clone());
        async move {
            let mut grpc = tonic::client::Grpc::new(channel);
            grpc.ready().await?;
            let path = http::uri::PathAndQuery::from_static("/bench.Echo/Call");
            let codec: ProstCodec<Vec<u8>, Vec<u8>> = ProstCodec::default();
            grpc.unary(bearing(request, &bearer), path, codec).await?;
            Ok(())
        }
    };
    let verify = |channel: Channel, number: usize| {
        let bearer = bearer.clone();
        // All keys in turn, in no order that the store has.
        let question = question(number.wrapping_mul(7_919) % keys);
        async move {
            let answer = KeyServiceClient::new(channel).verify_key(bearing(question, &bearer)).await?.into_inner();
            match answer.verdict {
                Some(verdict) if verdict.valid => Ok(()),
                other => Err(format!("not valid: {other:?}").into()),
            }
        }
    };
    // Both warm up.
    measure(&echo, calls / 4, empty).await?;
    measure(&ostiary, calls / 4, verify).await?;
    let (mut of_echo, mut of_verify) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        of_echo.push(measure(&echo, calls, empty).await?);
        of_verify.push(measure(&ostiary, calls, verify).await?);
    }
    println!("{keys} keys, {calls} calls a round, {ROUNDS} rounds, {IN_FLIGHT} in flight");
    println!("| what | CPU a call, µs: median (min to max) | calls a second |");
    println!("|---|---|---|");
    let mut medians = Vec::new();
    for (what, figures) in [("stock echo", of_echo), ("VerifyKey", of_verify)] {
        let (cpu, least, most) = summary(figures.iter().map(|(cpu, _)| *cpu).collect());
        let (rate, ..) = summary(figures.iter().map(|(_, rate)| *rate).collect());
        println!("| {what} | {cpu:.1} ({least:.1} to {most:.1}) | {rate:.0} |");
        medians.push(cpu);
    }
    println!("calls per CPU second, beside the stock echo: {:.2}", medians[0] / medians[1]);
    Ok(())
}

fn main() -> Result<(), Failed> {
    // `cargo bench` adds a flag of its own.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let number = |place: usize, default: usize| arguments.get(place).map_or(Ok(default), |text| text.parse());
    match arguments.first().map(String::as_str) {
        Some("echo") => runtime.block_on(serve_echo(number(1, 0)?)),
        _ => runtime.block_on(run(number(0, 100_000)?, number(1, 40_000)?)),
    }
}
