//! Imports many keys over one stream, lists them by every filter, revokes them by identity, and tells what it took.
//!
//! ```sh
//! OSTIARY_ROOT_KEY=… cargo run --release --example many_keys -- http://127.0.0.1:50051 1000000 PROCESS
//! ```
//!
//! The root key must be able to do everything in a workspace of its own that holds nothing else. With the id of the
//! server's process, on Linux, its memory is told after each step.

#![allow(clippy::disallowed_methods, reason = "it stands outside ostiary, with a clock and an environment of its own")]

use std::error::Error;
use std::time::Instant;

use futures::StreamExt as _;
use ostiary::pb::v1 as pb;
use pb::key_service_client::KeyServiceClient;
use sha2::{Digest as _, Sha256};
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;

type Failed = Box<dyn Error + Send + Sync>;

/// Rows in one message.
const CHUNK: usize = 1_000;
/// Every so many keys, one belongs to the identity that is revoked alone.
const OTHERS: usize = 1_000;

/// Presents the root key with every call.
#[derive(Clone)]
struct Present(tonic::metadata::AsciiMetadataValue);

impl tonic::service::Interceptor for Present {
    fn call(&mut self, mut request: tonic::Request<()>) -> Result<tonic::Request<()>, tonic::Status> {
        request.metadata_mut().insert("authorization", self.0.clone());
        Ok(request)
    }
}

type Wired = InterceptedService<Channel, Present>;

/// Tells how long each step takes, and how much memory the server has after it.
struct Teller {
    process: Option<String>,
    since: Instant,
}

impl Teller {
    fn tell(&mut self, what: &str) {
        let memory = self.process.as_ref().and_then(|process| {
            let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
            let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
            line.split_whitespace().nth(1)?.parse::<u64>().ok()
        });
        let memory = memory.map(|kib| format!(", {} MiB", kib / 1_024)).unwrap_or_default();
        println!("{what}: {:.1} s{memory}", self.since.elapsed().as_secs_f64());
        self.since = Instant::now();
    }
}

fn secret(number: usize) -> String {
    format!("customer secret {number}")
}

fn row(api_id: &str, number: usize) -> pb::ImportKeysRow {
    let identity = if number.is_multiple_of(OTHERS) { "few" } else { "most" };
    pb::ImportKeysRow {
        hash: Sha256::digest(secret(number)).iter().map(|byte| format!("{byte:02x}")).collect(),
        algorithm: pb::HashAlgorithm::Sha256Hex.into(),
        api_id: api_id.to_owned(),
        name: format!("customer {number}"),
        prefix: Some("old".to_owned()),
        roles: vec!["reader".to_owned()],
        permissions: vec!["documents.write".to_owned()],
        external_id: Some(identity.to_owned()),
        ..Default::default()
    }
}

async fn import(
    keys: &mut KeyServiceClient<Wired>,
    api_id: &str,
    number: usize,
    teller: &mut Teller,
) -> Result<(), Failed> {
    let api_id = api_id.to_owned();
    let messages = (0..number).step_by(CHUNK).map(move |first| pb::ImportKeysRequest {
        rows: (first..number.min(first + CHUNK)).map(|number| row(&api_id, number)).collect(),
    });
    let mut answers = keys.import_keys(futures::stream::iter(messages)).await?.into_inner();
    let mut imported = 0;
    while let Some(answer) = answers.next().await {
        let answer = answer?;
        if let Some(failure) = answer.failures.first() {
            return Err(format!("a row failed: {failure:?}").into());
        }
        imported += usize::try_from(answer.imported_count)?;
        if imported.is_multiple_of(number.div_ceil(10)) {
            teller.tell(&format!("imported {imported}"));
        }
    }
    if imported == number { Ok(()) } else { Err(format!("imported {imported} of {number}").into()) }
}

/// How many keys a filter finds, over all pages.
async fn listed(keys: &mut KeyServiceClient<Wired>, filter: pb::ListKeysFilter) -> Result<usize, Failed> {
    let mut request = pb::ListKeysRequest { page_size: 1_000, filter: Some(filter), ..Default::default() };
    let mut found = 0;
    loop {
        let page = keys.list_keys(request.clone()).await?.into_inner();
        found += page.keys.len();
        if page.next_page_token.is_empty() {
            return Ok(found);
        }
        request.page_token = page.next_page_token;
    }
}

/// Every field that a list of keys can be filtered by.
fn filters(api_id: &str, root_key: &str) -> Vec<(&'static str, pb::ListKeysFilter)> {
    let none = pb::ListKeysFilter::default;
    let soon = std::time::SystemTime::now() + std::time::Duration::from_secs(3_600);
    vec![
        ("none", none()),
        ("api_id", pb::ListKeysFilter { api_id: Some(api_id.to_owned()), ..none() }),
        ("role", pb::ListKeysFilter { role: Some("reader".to_owned()), ..none() }),
        ("permission", pb::ListKeysFilter { permission: Some("documents.write".to_owned()), ..none() }),
        ("state", pb::ListKeysFilter { state: Some(pb::KeyState::Disabled.into()), ..none() }),
        ("name_contains", pb::ListKeysFilter { name_contains: Some("customer 77".to_owned()), ..none() }),
        ("start", pb::ListKeysFilter { start: Some("old".to_owned()), ..none() }),
        ("created_by", pb::ListKeysFilter { created_by: Some(root_key.to_owned()), ..none() }),
        ("expire_before", pb::ListKeysFilter { expire_before: Some(soon.into()), ..none() }),
        ("last_used_before", pb::ListKeysFilter { last_used_before: Some(soon.into()), ..none() }),
        ("identity", pb::ListKeysFilter { identity: Some("few".to_owned()), ..none() }),
    ]
}

async fn revoke(keys: &mut KeyServiceClient<Wired>, identity: &str) -> Result<i64, Failed> {
    let filter = Some(pb::RevokeKeysFilter { identity: Some(identity.to_owned()), ..Default::default() });
    let request = pb::RevokeKeysRequest { filter, ..Default::default() };
    Ok(keys.revoke_keys(request).await?.into_inner().revoked_count)
}

async fn verified(
    keys: &mut KeyServiceClient<Wired>,
    numbers: impl Iterator<Item = usize>,
) -> Result<(usize, usize), Failed> {
    let ask = |number| pb::VerifyKeyRequest { key: secret(number), ..Default::default() };
    let requests = numbers.map(ask).collect();
    let answer = keys.batch_verify_keys(pb::BatchVerifyKeysRequest { requests }).await?.into_inner();
    let valid = |result: &&pb::BatchVerifyKeysResult| match &result.result {
        Some(pb::batch_verify_keys_result::Result::Verdict(verdict)) => verdict.valid,
        _ => false,
    };
    Ok((answer.results.iter().filter(valid).count(), answer.results.len()))
}

#[tokio::main]
async fn main() -> Result<(), Failed> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().unwrap_or_else(|| "http://127.0.0.1:50051".to_owned());
    let number: usize = arguments.next().map_or(Ok(1_000_000), |text| text.parse())?;
    let mut teller = Teller { process: arguments.next(), since: Instant::now() };
    let present = Present(format!("Bearer {}", std::env::var("OSTIARY_ROOT_KEY")?).parse()?);
    let channel = Channel::from_shared(address)?.connect().await?;
    let mut keys = KeyServiceClient::with_interceptor(channel.clone(), present.clone());
    let mut apis = pb::api_service_client::ApiServiceClient::with_interceptor(channel.clone(), present.clone());
    let mut roles = pb::role_service_client::RoleServiceClient::with_interceptor(channel.clone(), present.clone());
    let mut root_keys = pb::root_key_service_client::RootKeyServiceClient::with_interceptor(channel, present);
    let who = root_keys.who_am_i(pb::WhoAmIRequest::default()).await?.into_inner().root_key.unwrap_or_default();
    let request = pb::CreateApiRequest { name: "many keys".to_owned(), ..Default::default() };
    let api_id = apis.create_api(request).await?.into_inner().api.unwrap_or_default().api_id;
    let permissions = vec!["documents.read".to_owned()];
    let request = pb::CreateRoleRequest { name: "reader".to_owned(), permissions, ..Default::default() };
    roles.create_role(request).await?;

    teller.tell("prepared");
    import(&mut keys, &api_id, number, &mut teller).await?;
    for (name, filter) in filters(&api_id, &who.root_key_id) {
        let found = listed(&mut keys, filter).await?;
        teller.tell(&format!("listed by {name}: {found}"));
    }
    let sample =
        || (1..number).step_by(number.div_ceil(900).max(1) | 1).filter(|number| !number.is_multiple_of(OTHERS));
    let (valid, asked) = verified(&mut keys, sample()).await?;
    teller.tell(&format!("of {asked} verified, {valid} are good"));
    for identity in ["few", "most"] {
        let revoked = revoke(&mut keys, identity).await?;
        teller.tell(&format!("revoked {revoked} of {identity}"));
    }
    let (valid, asked) = verified(&mut keys, sample()).await?;
    teller.tell(&format!("of {asked} verified, {valid} are good"));
    Ok(())
}
