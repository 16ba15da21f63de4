//! Keys that were issued elsewhere: brought in by digest, good with the secrets that customers have.

use base64::Engine as _;
use futures::StreamExt;
use ostiary::pb::v1 as pb;
use ostiary::server::Sweeping;
use pb::{HashAlgorithm as Algorithm, VerificationCode as Code};
use sha2::{Digest as _, Sha256, Sha512};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code as Grpc;
use tonic_types::StatusExt;

use crate::harness::{Client, House, Kept, START, at, fields, reason, span, texts};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn sha256(secret: &str) -> String {
    hex(&Sha256::digest(secret))
}

/// A row with nothing but what must be there.
fn row(api: &pb::Api, secret: &str) -> pb::ImportKeysRow {
    hashed(api, sha256(secret), Algorithm::Sha256Hex)
}

fn hashed(api: &pb::Api, hash: String, algorithm: Algorithm) -> pb::ImportKeysRow {
    pb::ImportKeysRow { hash, algorithm: algorithm.into(), api_id: api.api_id.clone(), ..Default::default() }
}

impl Client {
    /// A stream of rows, and its answers.
    async fn importing(&self) -> (mpsc::Sender<pb::ImportKeysRequest>, tonic::Streaming<pb::ImportKeysResponse>) {
        let (requests, receiver) = mpsc::channel(8);
        let answers = self.keys().import_keys(ReceiverStream::new(receiver)).await.unwrap().into_inner();
        (requests, answers)
    }

    async fn import(&self, rows: Vec<pb::ImportKeysRow>) -> pb::ImportKeysResponse {
        let (requests, mut answers) = self.importing().await;
        requests.send(pb::ImportKeysRequest { rows }).await.unwrap();
        drop(requests);
        let answer = answers.next().await.unwrap().unwrap();
        assert!(answers.next().await.is_none());
        answer
    }

    async fn import_one(&self, row: pb::ImportKeysRow) -> Result<String, (String, Vec<String>)> {
        let answer = self.import(vec![row]).await;
        match answer.failures.first() {
            None => Ok(answer.key_ids[0].clone()),
            Some(failure) => Err(why(failure)),
        }
    }

    async fn code(&self, secret: &str) -> Code {
        self.verdict(secret, None).await.code()
    }
}

/// The reason, and the fields it is about.
fn why(failure: &pb::ImportKeysFailure) -> (String, Vec<String>) {
    let error = failure.error.clone().unwrap();
    let details = prost::Message::encode_to_vec(&error);
    let status = tonic::Status::with_details(Grpc::from_i32(error.code), error.message, details.into());
    assert!(status.get_details_request_info().is_some());
    (reason(&status), fields(&status))
}

#[tokio::test]
async fn customers_go_on_with_the_secrets_they_have_however_their_digests_were_made() {
    let mut house = House::build(Kept::OnDisk, Sweeping::ByHand, 21).await;
    let client = house.operator().await;
    let api = client.api("documents").await;
    let secrets = ["plain", "sk_test_1", "another one with spaces", "mycompany_BRTRKFsL_51FwqftsmMDHHbJAMEXXHCgG"];
    assert_eq!(client.code(secrets[0]).await, Code::NotFound);
    let answer = client
        .import(vec![
            row(&api, secrets[0]),
            hashed(
                &api,
                base64::engine::general_purpose::STANDARD.encode(Sha256::digest(secrets[1])),
                Algorithm::Sha256Base64,
            ),
            hashed(&api, hex(&Sha512::digest(secrets[2])), Algorithm::Sha512Hex),
            hashed(&api, sha256("51FwqftsmMDHHbJAMEXXHCgG"), Algorithm::PrefixedApiKey),
        ])
        .await;
    assert_eq!((answer.imported_count, answer.failures.len(), answer.key_ids.len()), (4, 0, 4));
    for round in ["at once", "after a restart"] {
        let client = house.operator().await;
        for (secret, key_id) in secrets.iter().zip(&answer.key_ids) {
            let verdict = client.verdict(secret, None).await;
            assert_eq!((verdict.code(), verdict.key_id.as_ref()), (Code::Valid, Some(key_id)), "{secret} {round}");
        }
        for other in ["plai", "Plain", "sk_test_2", "51FwqftsmMDHHbJAMEXXHCgG", "x_51FwqftsmMDHHbJAMEXXHCg"] {
            assert_eq!(client.code(other).await, Code::NotFound, "{other} {round}");
        }
        let lookup = pb::LookupKeyRequest { secret: secrets[2].into(), ..Default::default() };
        let found = client.keys().lookup_key(lookup).await.unwrap().into_inner().key.unwrap();
        assert_eq!(found.key_id, answer.key_ids[2]);
        house.restart().await;
    }
    // The neighbour has imported nothing.
    let neighbour = house.operator().await.neighbour("neighbour").await;
    assert_eq!(neighbour.code(secrets[0]).await, Code::NotFound);
}

#[tokio::test]
async fn a_row_carries_all_that_a_key_can_and_is_shown_so() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let api = client.api("documents").await;
    client.role("reader", &["documents.read"]).await;
    let row = pb::ImportKeysRow {
        name: "Ada".into(),
        prefix: Some("sk_test".into()),
        roles: texts(&["reader"]),
        permissions: texts(&["documents.write"]),
        enabled: Some(true),
        expiration: Some(pb::import_keys_row::Expiration::Ttl(span(60_000))),
        allowed_cidrs: texts(&["10.0.0.0/8"]),
        external_id: Some("user-7".into()),
        credits: Some(pb::Credits { remaining: Some(1), refill: None }),
        rate_limits: vec![pb::RateLimit {
            name: "calls".into(),
            limit: 5,
            duration: Some(span(1_000)),
            auto_apply: true,
        }],
        ..row(&api, "sk_test_1")
    };
    let key_id = client.import_one(row).await.unwrap();
    let key = client.get_key(&key_id).await.unwrap();
    assert_eq!((key.name.as_str(), key.prefix.as_str(), key.start.as_str()), ("Ada", "sk_test", "sk_test"));
    assert_eq!((key.external_id.as_deref(), key.expire_time), (Some("user-7"), Some(at(START + 60_000))));
    assert_eq!((key.permissions, key.rate_limits.len()), (texts(&["documents.write"]), 1));
    let asked = pb::VerifyKeyRequest {
        key: "sk_test_1".into(),
        client_ip: Some("10.1.2.3".into()),
        permissions: Some("documents.read AND documents.write".into()),
        ..Default::default()
    };
    assert_eq!(client.verify(asked.clone()).await.code(), Code::Valid);
    assert_eq!(client.verify(asked).await.code(), Code::UsageExceeded);
    let events = client.log().await;
    let event = events.iter().find(|event| event.event == "key.import").unwrap();
    assert_eq!((event.targets[0].id.as_str(), event.targets[0].name.as_str()), (key_id.as_str(), "Ada"));
    assert!(!format!("{events:?}").contains(&sha256("sk_test_1")), "a digest is nobody's to read");
}

#[tokio::test]
async fn a_key_of_unknown_prefix_is_rerolled_to_one_with_the_prefix_of_its_api() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let api = client.api("documents").await;
    let reroll = async |key_id: String| {
        let request = pb::RerollKeyRequest { key_id, grace_period: Some(span(60_000)), ..Default::default() };
        client.keys().reroll_key(request).await.unwrap().into_inner()
    };
    let first = client.import_one(row(&api, "from elsewhere 1")).await.unwrap();
    let key = client.get_key(&first).await.unwrap();
    assert_eq!((key.prefix.as_str(), key.start.as_str()), ("", ""));
    let rerolled = reroll(first).await;
    assert!(rerolled.secret.starts_with("key_"));
    assert_eq!(rerolled.key.unwrap().prefix, "key");
    let request =
        pb::UpdateApiRequest { api_id: api.api_id.clone(), default_prefix: Some("doc".into()), ..Default::default() };
    client.apis().update_api(request).await.unwrap();
    let second = client.import_one(row(&api, "from elsewhere 2")).await.unwrap();
    let rerolled = reroll(second).await;
    assert!(rerolled.secret.starts_with("doc_"));
    assert_eq!(
        (client.code("from elsewhere 2").await, client.code(&rerolled.secret).await),
        (Code::Valid, Code::Valid)
    );
    house.pass(60_000);
    assert_eq!(
        (client.code("from elsewhere 2").await, client.code(&rerolled.secret).await),
        (Code::Expired, Code::Valid)
    );
    let third = pb::ImportKeysRow { prefix: Some("sk_live".into()), ..row(&api, "from elsewhere 3") };
    let third = client.import_one(third).await.unwrap();
    assert!(reroll(third).await.secret.starts_with("sk_live_"));
}

#[tokio::test]
async fn bad_rows_and_duplicates_are_told_row_by_row_and_the_others_are_imported() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let api = client.api("documents").await;
    let (_, issued) = client.plain_key(&api, "issued here").await;
    let never = format!("api_{}", "7".repeat(26));
    let rows = vec![
        row(&api, "a"),
        row(&api, "a"),
        row(&api, &issued),
        hashed(&api, "5a".into(), Algorithm::Sha256Hex),
        hashed(&api, sha256("b"), Algorithm::Unspecified),
        pb::ImportKeysRow { api_id: never, ..row(&api, "c") },
        pb::ImportKeysRow { name: "x".repeat(256), prefix: Some("_".into()), ..row(&api, "d") },
        pb::ImportKeysRow { roles: texts(&["nobody"]), ..row(&api, "e") },
        pb::ImportKeysRow {
            expiration: Some(pb::import_keys_row::Expiration::ExpireTime(at(START - 1))),
            ..row(&api, "f")
        },
        hashed(&api, sha256("a"), Algorithm::PrefixedApiKey),
        pb::ImportKeysRow { name: "Ada".into(), ..row(&api, "g") },
    ];
    let number = rows.len();
    let answer = client.import(rows).await;
    let told: Vec<(i32, String, Vec<String>)> = answer
        .failures
        .iter()
        .map(|failure| {
            let (reason, fields) = why(failure);
            (failure.index, reason, fields)
        })
        .collect();
    let failed = |index, reason: &str, fields: &[&str]| (index, reason.to_owned(), texts(fields));
    assert_eq!(
        told,
        [
            failed(1, "KEY_ALREADY_EXISTS", &[]),
            failed(3, "FIELD_INVALID", &["hash"]),
            failed(4, "FIELD_INVALID", &["algorithm"]),
            failed(5, "API_NOT_FOUND", &[]),
            failed(6, "FIELD_INVALID", &["name", "prefix"]),
            failed(7, "ROLE_NOT_FOUND", &[]),
            failed(8, "FIELD_INVALID", &["expire_time"]),
        ]
    );
    assert_eq!(answer.imported_count, 4);
    assert_eq!(answer.key_ids.len(), number);
    for (index, id) in answer.key_ids.iter().enumerate() {
        let failed = told.iter().any(|(failed, ..)| usize::try_from(*failed) == Ok(index));
        assert_eq!(id.is_empty(), failed, "{index}");
    }
    assert_eq!(client.get_key(&answer.key_ids[10]).await.unwrap().name, "Ada");
    assert!(!format!("{answer:?}").contains(&sha256("a")));
    // Sent again, everything is there already.
    assert_eq!(client.import_one(row(&api, "g")).await.unwrap_err().0, "KEY_ALREADY_EXISTS");
    assert_eq!(client.code("a").await, Code::Valid);
    assert_eq!(client.code("x_a").await, Code::Valid);
}

#[tokio::test]
async fn a_secret_issued_here_is_that_of_its_key_whoever_imports_its_digest() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let api = client.api("documents").await;
    let (key, issued) = client.plain_key(&api, "issued here").await;
    let imported = client.import_one(row(&api, &issued)).await.unwrap();
    assert_ne!(imported, key.key_id);
    assert_eq!(client.verdict(&issued, None).await.key_id.as_deref(), Some(key.key_id.as_str()));
    let request = pb::DeleteKeyRequest { key_id: key.key_id, ..Default::default() };
    client.keys().delete_key(request).await.unwrap();
    assert_eq!(client.code(&issued).await, Code::NotFound, "the one beside it does not bring it back");
}

#[tokio::test]
async fn what_is_remembered_of_one_secret_never_answers_for_another_that_shares_a_token_with_it() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let api = client.api("documents").await;
    let (key, issued) = client.plain_key(&api, "issued here").await;
    let (_, token) = issued.rsplit_once('_').unwrap();
    let imported = client.import_one(hashed(&api, sha256(token), Algorithm::PrefixedApiKey)).await.unwrap();
    let other = format!("x_{token}");
    assert_eq!(client.verdict(&other, None).await.key_id, Some(imported));
    assert_eq!(client.verdict(&issued, None).await.key_id.as_deref(), Some(key.key_id.as_str()));
    let request = pb::DeleteKeyRequest { key_id: key.key_id, ..Default::default() };
    client.keys().delete_key(request).await.unwrap();
    assert_eq!((client.code(&issued).await, client.code(&other).await), (Code::NotFound, Code::Valid));
}

#[tokio::test]
async fn of_two_imported_keys_that_fit_a_secret_the_first_stays_the_one_it_leads_to() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let api = client.api("documents").await;
    let first = client.import_one(hashed(&api, sha256("token"), Algorithm::PrefixedApiKey)).await.unwrap();
    assert_eq!(client.verdict("from_token", None).await.key_id.as_ref(), Some(&first));
    client.import_one(row(&api, "from_token")).await.unwrap();
    // What is remembered says the same as the store.
    for view in [pb::VerificationView::Basic, pb::VerificationView::Full] {
        let request = pb::VerifyKeyRequest { key: "from_token".into(), view: view.into(), ..Default::default() };
        assert_eq!(client.verify(request).await.key_id.as_ref(), Some(&first));
    }
}

#[tokio::test]
async fn a_digest_is_taken_as_long_as_its_key_is_kept_deleted_or_revoked() {
    let house = House::build(Kept::InMemory, Sweeping::ByHand, 22).await;
    let client = house.operator().await;
    let api = client.api("documents").await;
    let deleted = client.import_one(row(&api, "deleted")).await.unwrap();
    client.import_one(row(&api, "revoked")).await.unwrap();
    let request = pb::DeleteKeyRequest { key_id: deleted, ..Default::default() };
    client.keys().delete_key(request).await.unwrap();
    let filter = Some(pb::RevokeKeysFilter { api_id: Some(api.api_id.clone()), ..Default::default() });
    client.keys().revoke_keys(pb::RevokeKeysRequest { filter, ..Default::default() }).await.unwrap();
    for secret in ["deleted", "revoked"] {
        assert_eq!(client.import_one(row(&api, secret)).await.unwrap_err().0, "KEY_ALREADY_EXISTS", "{secret}");
        assert_eq!(client.code(secret).await, Code::NotFound);
    }
    house.sweep().await;
    house.pass(91 * 24 * 3_600_000);
    house.sweep().await;
    for secret in ["deleted", "revoked"] {
        client.import_one(row(&api, secret)).await.unwrap();
        assert_eq!(client.code(secret).await, Code::Valid, "{secret}");
    }
}

#[tokio::test]
async fn importing_needs_for_each_row_what_making_its_key_needs() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let own = client.api("own").await;
    let other = client.api("other").await;
    client.role("reader", &[]).await;
    let create = format!("apis.{}.create_key", own.api_id);
    let narrow = client.limited(&[&create]).await;
    narrow.import_one(row(&own, "a")).await.unwrap();
    let of_other = narrow.import_one(row(&other, "b")).await.unwrap_err();
    assert_eq!(of_other.0, "API_NOT_FOUND");
    // What is known by a digest elsewhere is not told to whoever may not look there.
    client.import_one(row(&other, "c")).await.unwrap();
    assert_eq!(narrow.import_one(row(&other, "c")).await.unwrap_err(), of_other);
    let cases = [
        (pb::ImportKeysRow { roles: texts(&["reader"]), ..row(&own, "d") }, "PERMISSION_MISSING"),
        (pb::ImportKeysRow { permissions: texts(&["x.y"]), ..row(&own, "d") }, "PERMISSION_MISSING"),
        (pb::ImportKeysRow { external_id: Some("user".into()), ..row(&own, "d") }, "PERMISSION_MISSING"),
    ];
    for (row, expected) in cases {
        assert_eq!(narrow.import_one(row.clone()).await.unwrap_err().0, expected, "{row:?}");
    }
    let none = client.limited(&["apis.*.read_key"]).await;
    let (_requests, receiver) = mpsc::channel(1);
    let status = none.keys().import_keys(ReceiverStream::new(receiver)).await.unwrap_err();
    assert_eq!(status.code(), Grpc::PermissionDenied);
}

#[tokio::test]
async fn a_stream_takes_message_after_message_and_ends_when_its_caller_does() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let api = client.api("documents").await;
    let (root_key, secret) = client.root_key("importer", &["apis.*.create_key"]).await;
    let importer = client.with(&secret);
    let (requests, mut answers) = importer.importing().await;
    for message in 0..3 {
        let rows = (0..1_000).map(|n| row(&api, &format!("secret {message} {n}"))).collect();
        requests.send(pb::ImportKeysRequest { rows }).await.unwrap();
        let answer = answers.next().await.unwrap().unwrap();
        assert_eq!(answer.imported_count, 1_000);
    }
    let request = pb::DeleteRootKeyRequest { root_key_id: root_key.root_key_id, ..Default::default() };
    client.root_keys().delete_root_key(request).await.unwrap();
    // The stream may have been looked at, and ended, before this gets there.
    let _late = requests.send(pb::ImportKeysRequest { rows: vec![row(&api, "too late")] }).await;
    let status = answers.next().await.unwrap().unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Grpc::Unauthenticated, "ROOT_KEY_INVALID"));
    assert_eq!(client.code("secret 2 999").await, Code::Valid);
    assert_eq!(client.code("too late").await, Code::NotFound);
}

#[tokio::test]
async fn a_message_has_1_to_1000_rows() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let api = client.api("documents").await;
    for number in [0, 1_001] {
        let (requests, mut answers) = client.importing().await;
        requests.send(pb::ImportKeysRequest { rows: vec![row(&api, "a"); number] }).await.unwrap();
        let status = answers.next().await.unwrap().unwrap_err();
        assert_eq!((status.code(), fields(&status)), (Grpc::InvalidArgument, texts(&["rows"])));
        assert!(status.message().contains("1 to 1000"));
    }
    assert_eq!(client.code("a").await, Code::NotFound);
}

#[tokio::test]
async fn the_quota_of_keys_holds_in_the_middle_of_a_message() {
    let house = House::in_memory().await;
    let operator = house.operator().await;
    let request = pb::CreateWorkspaceRequest {
        name: "tenant".into(),
        quotas: Some(pb::WorkspaceQuotas { max_keys: Some(5), ..Default::default() }),
        ..Default::default()
    };
    let made = operator.workspaces().create_workspace(request).await.unwrap().into_inner();
    let tenant = house.client(&made.secret).await;
    let api = tenant.api("documents").await;
    let answer = tenant.import((0..8).map(|n| row(&api, &format!("secret {n}"))).collect()).await;
    assert_eq!(answer.imported_count, 5);
    let reasons: Vec<String> = answer.failures.iter().map(|failure| why(failure).0).collect();
    assert_eq!(reasons, ["QUOTA_EXCEEDED"; 3]);
}
