//! No secret goes anywhere but to whom it belongs: not into the log at any level, not into errors, the audit log, the
//! store, or what `Debug` prints.
//!
//! Canaries are sent through every kind of call, right and wrong, and then looked for everywhere.

use std::collections::BTreeMap;

use crate::harness::{Client, House, root_key, texts};
use crate::process::Place;
use ostiary::domain::secret::{Prefix, Secret};
use ostiary::pb::v1 as pb;
use prost_reflect::{DescriptorPool, Kind};
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};

/// Everything that must not be found anywhere.
#[derive(Default)]
struct Canaries {
    secrets: Vec<String>,
    errors: Vec<Status>,
    calls: u32,
}

impl Canaries {
    fn add(&mut self, secret: &str) -> String {
        self.secrets.push(secret.to_owned());
        secret.to_owned()
    }

    /// What of them is in the bytes; the random part is enough to know one by.
    fn found_in(&self, place: &str, bytes: &[u8]) {
        for secret in &self.secrets {
            let random = secret.rsplit_once('_').map_or(secret.as_str(), |(_, random)| random);
            let found = bytes.windows(random.len()).any(|window| window == random.as_bytes());
            assert!(!found, "{place}: a secret that begins with {}", &secret[..secret.len().min(10)]);
        }
    }

    /// A client whose next call has an id of its own.
    fn call(&mut self, client: &Client) -> Client {
        self.calls += 1;
        let mut client = client.clone();
        client.headers.request_id = Some(format!("call-{:04}", self.calls));
        client
    }

    fn fails<T: std::fmt::Debug>(&mut self, result: Result<tonic::Response<T>, Status>) {
        self.errors.push(result.expect_err("it was to fail"));
    }
}

fn issued(prefix: &str, byte: u8) -> String {
    let prefix = if prefix == "ostiary" { Prefix::root_key() } else { Prefix::new(prefix).unwrap() };
    Secret::issue(&prefix, [byte; 24]).expose().to_owned()
}

/// Every kind of call, with secrets where they belong and where they do not.
async fn sing(client: &Client, canaries: &mut Canaries) {
    let first = client.headers.secret.clone().unwrap();
    canaries.add(&first);
    let once = canaries.add("idempotency-canary-5f3a");
    let made = canaries.call(&client.once(&once)).root_keys();
    let made = { made }.create_root_key(root_key("a server", &["*.*.*"])).await.unwrap().into_inner();
    assert!(!format!("{made:?}").contains(&made.secret));
    let server = canaries.add(&made.secret);
    let again = canaries.call(&client.once(&once)).root_keys();
    let again = { again }.create_root_key(root_key("a server", &["*.*.*"])).await.unwrap().into_inner();
    assert_eq!(again.secret, server, "it was delivered again");
    let root_key_id = made.root_key.unwrap().root_key_id;
    let request = pb::RotateRootKeyRequest { root_key_id, ..Default::default() };
    let rotated = canaries.call(client).root_keys().rotate_root_key(request).await.unwrap().into_inner();
    assert!(!format!("{rotated:?}").contains(&rotated.secret));
    let successor = canaries.add(&rotated.secret);
    let request = pb::CreateWorkspaceRequest { name: "tenant".into(), ..Default::default() };
    let tenant = canaries.call(client).workspaces().create_workspace(request).await.unwrap().into_inner();
    assert!(!format!("{tenant:?}").contains(&tenant.secret));
    canaries.add(&tenant.secret);

    let client = client.with(&successor);
    let request = pb::CreateApiRequest { name: "documents".into(), ..Default::default() };
    let api_id = canaries.call(&client).apis().create_api(request).await.unwrap().into_inner().api.unwrap().api_id;
    let request =
        pb::CreateKeyRequest { api_id: api_id.clone(), permissions: texts(&["documents.read"]), ..Default::default() };
    let made = canaries.call(&client).keys().create_key(request).await.unwrap().into_inner();
    assert!(!format!("{made:?}").contains(&made.secret));
    let key = canaries.add(&made.secret);
    let request = pb::CreateKeyRequest { api_id: api_id.clone(), ..Default::default() };
    let old = canaries.call(&client).keys().create_key(request).await.unwrap().into_inner();
    canaries.add(&old.secret);
    let request = pb::RerollKeyRequest { key_id: old.key.unwrap().key_id, ..Default::default() };
    let rerolled = canaries.call(&client).keys().reroll_key(request).await.unwrap().into_inner();
    assert!(!format!("{rerolled:?}").contains(&rerolled.secret));
    canaries.add(&rerolled.secret);
    for presented in [key.clone(), canaries.add(&issued("key", 1)), canaries.add("not-even-a-key-7d1e")] {
        let request = pb::VerifyKeyRequest { key: presented.clone(), ..Default::default() };
        assert!(!format!("{request:?}").contains(&presented));
        canaries.call(&client).keys().verify_key(request).await.unwrap();
        let request = pb::LookupKeyRequest { secret: presented.clone(), ..Default::default() };
        assert!(!format!("{request:?}").contains(&presented));
        let looked_up = canaries.call(&client).keys().lookup_key(request).await;
        assert_eq!(looked_up.is_ok(), presented == key);
        if looked_up.is_err() {
            canaries.fails(looked_up);
        }
    }
    let request = pb::VerifyKeyRequest { key: key.clone(), permissions: Some("a AND".into()), ..Default::default() };
    let refused = canaries.call(&client).keys().verify_key(request).await;
    canaries.fails(refused);

    // Not a root key, a root key that is over, one mistyped, and none.
    let mistyped = canaries.add(&format!("{}x", &server[..server.len() - 1]));
    for wrong in [&key, &server, &canaries.add(&issued("ostiary", 2)), &mistyped, "two words"] {
        let refused = canaries.call(&client.with(wrong)).root_keys().who_am_i(pb::WhoAmIRequest::default()).await;
        canaries.fails(refused);
    }

    // Secrets where ids, names, queries and grants belong.
    for lost in [key.clone(), successor.clone()] {
        let request = pb::GetKeyRequest { key_id: lost.clone(), ..Default::default() };
        let refused = canaries.call(&client).keys().get_key(request).await;
        canaries.fails(refused);
        let request = pb::GetApiRequest { api_id: lost.clone(), ..Default::default() };
        let refused = canaries.call(&client).apis().get_api(request).await;
        canaries.fails(refused);
        let request = pb::DeleteRoleRequest { role: lost.clone(), ..Default::default() };
        let refused = canaries.call(&client).roles().delete_role(request).await;
        canaries.fails(refused);
        let request = pb::GetIdentityRequest { identity: lost.clone(), ..Default::default() };
        let refused = canaries.call(&client).identities().get_identity(request).await;
        canaries.fails(refused);
        let request = pb::CreateIdentityRequest { external_id: lost.clone(), ..Default::default() };
        let refused = canaries.call(&client).identities().create_identity(request).await;
        canaries.fails(refused);
        let request = pb::DeletePermissionRequest { permission: lost.clone(), ..Default::default() };
        let refused = canaries.call(&client).permissions().delete_permission(request).await;
        canaries.fails(refused);
        let refused = canaries.call(&client).root_keys().create_root_key(root_key("x", &[&lost])).await;
        canaries.fails(refused);
        let request = pb::CreateKeyRequest { api_id: api_id.clone(), roles: vec![lost.clone()], ..Default::default() };
        let refused = canaries.call(&client).keys().create_key(request).await;
        canaries.fails(refused);
        let request = pb::ListKeysRequest { page_token: lost.clone(), ..Default::default() };
        let refused = canaries.call(&client).keys().list_keys(request).await;
        canaries.fails(refused);
        let request = pb::WhoAmIRequest { min_revision: lost.clone() };
        let refused = canaries.call(&client).root_keys().who_am_i(request).await;
        canaries.fails(refused);
        let update_mask = Some(prost_types::FieldMask { paths: vec![lost.clone()] });
        let request = pb::UpdateApiRequest { api_id: api_id.clone(), update_mask, ..Default::default() };
        let refused = canaries.call(&client).apis().update_api(request).await;
        canaries.fails(refused);
        let request = pb::VerifyKeyRequest { key: key.clone(), client_ip: Some(lost.clone()), ..Default::default() };
        let refused = canaries.call(&client).keys().verify_key(request).await;
        canaries.fails(refused);
        let request =
            pb::VerifyKeyRequest { key: key.clone(), permissions: Some(format!("({lost}")), ..Default::default() };
        let refused = canaries.call(&client).keys().verify_key(request).await;
        canaries.fails(refused);
    }

    // Bodies that can't be decoded, with a secret in them.
    canaries.calls += 1;
    let mut metadata = MetadataMap::new();
    metadata.insert("x-request-id", format!("call-{:04}", canaries.calls).parse().unwrap());
    let body = [&[0x0a, 0xff, 0x01][..], key.as_bytes()].concat();
    let refused = client.raw("/ostiary.v1.KeyService/VerifyKey", body, metadata).await;
    canaries.fails(refused);
}

#[tokio::test]
async fn no_secret_is_in_the_log_the_store_an_error_or_the_audit_log() {
    for format in ["text", "json"] {
        let place = Place::new();
        let server = place.serve(&["--log-level", "trace", "--log-format", format]);
        let mut canaries = Canaries::default();
        let client = server.client(&place.first_root_key()).await;
        sing(&client, &mut canaries).await;
        for status in &canaries.errors {
            canaries.found_in("an error's message", status.message().as_bytes());
            canaries.found_in("an error's details", status.details());
            canaries.found_in("an error", format!("{status:?}").as_bytes());
        }
        let request = pb::ListAuditEventsRequest { page_size: 1_000, ..Default::default() };
        let events = client.audit().list_audit_events(request).await.unwrap().into_inner().events;
        assert!(events.len() > 5);
        canaries.found_in("the audit log", format!("{events:?}").as_bytes());
        drop(client);
        let ended = server.stop();
        canaries.found_in("standard output", ended.stdout.as_bytes());
        canaries.found_in("the log", ended.stderr.as_bytes());
        canaries.found_in("the store", &std::fs::read(place.data().join("ostiary.redb")).unwrap());
        every_call_has_one_line(format, &ended.stderr, canaries.calls);
        if format == "json" {
            for line in ended.stderr.lines() {
                let line: serde_json::Value =
                    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
                assert!(line["level"].is_string() && line["timestamp"].is_string(), "{line}");
            }
        }
    }
}

/// One line for each call, with all that is needed to find it again.
fn every_call_has_one_line(format: &str, log: &str, calls: u32) {
    for call in 1..=calls {
        let id = format!("call-{call:04}");
        let lines: Vec<&str> = log.lines().filter(|line| line.contains(&id)).collect();
        assert_eq!(lines.len(), 1, "{id}: {lines:?}");
        let line = lines[0];
        for field in ["request_id", "method", "code", "reason", "duration_us", "root_key"] {
            let named = if format == "json" { format!("\"{field}\":") } else { format!("{field}=") };
            assert!(line.contains(&named), "{field}: {line}");
        }
        let recognised =
            !["ROOT_KEY_INVALID", "ROOT_KEY_MALFORMED", "ROOT_KEY_EXPIRED"].iter().any(|r| line.contains(r));
        let frequent = line.contains("/VerifyKey") || !recognised;
        assert_eq!(line.contains("DEBUG"), frequent, "{line}");
        assert_eq!(line.contains("INFO"), !frequent, "{line}");
        assert_eq!(line.contains("rk_"), recognised, "{line}");
    }
}

#[test]
fn every_field_that_carries_a_secret_is_marked_so_that_its_debug_hides_it() {
    let pool = DescriptorPool::decode(pb::DESCRIPTORS).unwrap();
    let mut marked = BTreeMap::new();
    for message in pool.all_messages().filter(|message| message.package_name() == "ostiary.v1") {
        for field in message.fields().filter(|field| field.kind() == Kind::String) {
            let redact =
                field.options().get_field_by_name("debug_redact").is_some_and(|value| value.as_bool() == Some(true));
            let speaks_of_one = field.name() == "secret"
                || (field.name() == "hash" && message.name() == "ImportKeysRow")
                || (field.name() == "key" && message.name().starts_with("Verify"));
            assert_eq!(redact, speaks_of_one, "{}", field.full_name());
            if redact {
                marked.insert(field.full_name().to_owned(), ());
            }
        }
    }
    let marked: Vec<&str> = marked.keys().map(String::as_str).collect();
    assert_eq!(
        marked,
        [
            "ostiary.v1.CreateKeyResponse.secret",
            "ostiary.v1.CreateRootKeyResponse.secret",
            "ostiary.v1.CreateWorkspaceResponse.secret",
            "ostiary.v1.ImportKeysRow.hash",
            "ostiary.v1.LookupKeyRequest.secret",
            "ostiary.v1.RerollKeyResponse.secret",
            "ostiary.v1.RotateRootKeyResponse.secret",
            "ostiary.v1.VerifyKeyRequest.key",
        ]
    );
}

#[tokio::test]
async fn the_domain_does_not_print_what_it_holds() {
    let house = House::new().await;
    let secret = Secret::presented(house.first.clone());
    assert_eq!(format!("{secret:?}"), "Secret(hidden)");
    assert!(!format!("{:?}", secret.digest()).contains(&house.first));
    let status = house.stranger().await.root_keys().who_am_i(pb::WhoAmIRequest::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
}
