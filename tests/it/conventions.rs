//! What all methods have in common: ids of calls, revisions, etags, trying without doing.

mod paging;
mod updates;

use ostiary::pb::v1 as pb;
use ostiary::store::Revision;
use prost_reflect::{DynamicMessage, Value};
use tonic::metadata::MetadataMap;
use tonic::{Code, Response, Status};
use tonic_types::StatusExt;

use crate::coverage::neighbours::{Neighbours, Objects};
use crate::coverage::walk::{self, Kind, Method, Object, body, bytes, methods, text};
use crate::harness::{Client, House, fields, reason};

async fn call(client: &Client, method: &Method, message: &DynamicMessage) -> Result<Response<Vec<u8>>, Status> {
    let mut metadata = MetadataMap::new();
    metadata.insert("x-request-id", "conventions".parse().unwrap());
    client.raw(&method.path, bytes(message), metadata).await
}

/// The `meta` of an answer.
fn meta(method: &Method, answer: &[u8]) -> pb::ResponseMeta {
    let answer = DynamicMessage::decode(method.output.clone(), answer).unwrap();
    let meta = answer.get_field_by_name("meta").unwrap();
    meta.as_message().unwrap().transcode_to().unwrap()
}

/// Objects that the method can be called with for real: one that restores a key gets a deleted one.
async fn prepared(there: &Neighbours, method: &Method) -> Objects {
    let mut objects = there.own.clone();
    if method.path.ends_with("/UndeleteKey") {
        let api_id = objects[&Kind::Api].id.clone();
        let (key, _) = there.operator.key(pb::CreateKeyRequest { api_id, ..Default::default() }).await;
        let request = pb::DeleteKeyRequest { key_id: key.key_id.clone(), ..Default::default() };
        there.operator.keys().delete_key(request).await.unwrap();
        objects.insert(Kind::Key, Object::of_id(key.key_id));
    }
    objects
}

/// Everything that can be read of the workspace, and the revision that it has.
async fn everything(client: &Client) -> Vec<(String, Vec<u8>)> {
    let mut all = Vec::new();
    // What is listed of one object only, of that of the operator's.
    let listed = Objects::from([(Kind::Namespace, Object::of_id("ours-2"))]);
    for method in methods().into_iter().filter(|method| method.path.contains("/List")) {
        let whole = walk::with(&body(&method.input, &listed), "page_size", Value::I32(1_000)).unwrap();
        let whole = walk::with(&whole, "show_deleted", Value::Bool(true)).unwrap_or(whole);
        let answer = call(client, &method, &whole).await;
        let told = answer.map_or_else(|status| status.message().as_bytes().to_vec(), tonic::Response::into_inner);
        all.push((method.path.clone(), told));
    }
    assert!(all.len() >= 7);
    all
}

#[tokio::test]
async fn every_answer_tells_its_call_and_the_revision_that_it_reflects() {
    let there = Neighbours::new().await;
    for method in methods() {
        let valid = body(&method.input, &prepared(&there, &method).await);
        let tried = walk::with(&valid, "validate_only", Value::Bool(true)).unwrap_or(valid);
        let response = call(&there.operator, &method, &tried).await.unwrap();
        let meta = meta(&method, response.get_ref());
        assert_eq!(meta.request_id, "conventions", "{}", method.path);
        assert_eq!(response.metadata().get("x-request-id").unwrap(), "conventions", "{}", method.path);
        meta.revision.parse::<Revision>().unwrap_or_else(|_| panic!("{}: {}", method.path, meta.revision));
    }
}

#[tokio::test]
async fn a_fit_request_id_is_adopted_and_any_other_replaced_in_answers_errors_and_the_audit_log() {
    let house = House::unswept().await;
    let mut client = house.operator().await;
    let longest = "a".repeat(64);
    let too_long = "a".repeat(65);
    let ids = [
        ("a", true),
        ("A-z_0-9", true),
        (longest.as_str(), true),
        (too_long.as_str(), false),
        ("", false),
        ("a b", false),
        ("a/b", false),
        ("a.b", false),
        ("{}", false),
    ];
    for (id, fit) in ids {
        client.headers.request_id = Some(id.to_owned());
        let request = pb::CreateApiRequest { name: "logged".into(), ..Default::default() };
        let response = client.apis().create_api(request).await.unwrap();
        let told = response.metadata().get("x-request-id").unwrap().to_str().unwrap().to_owned();
        assert_eq!(response.into_inner().meta.unwrap().request_id, told, "{id:?}");
        if fit {
            assert_eq!(told, id);
        } else {
            assert!(told.starts_with("req_") && told.len() == 30, "{id:?}: {told}");
        }
        let request = pb::ListAuditEventsRequest { page_size: 1_000, ..Default::default() };
        let events = client.audit().list_audit_events(request).await.unwrap().into_inner().events;
        assert_eq!(events.last().unwrap().request_id, told, "{id:?}");
        for secret in [None, Some(house.first.clone())] {
            let mut failing = client.clone();
            failing.headers.secret = secret;
            let error = failing.apis().get_api(pb::GetApiRequest::default()).await.unwrap_err();
            let header = error.metadata().get("x-request-id").unwrap().to_str().unwrap();
            assert_eq!(error.get_details_request_info().unwrap().request_id, header, "{id:?}");
            assert_eq!(header == id, fit, "{id:?}: {header}");
        }
    }
}

#[tokio::test]
async fn calls_without_a_request_id_get_different_ones() {
    let house = House::unswept().await;
    let client = house.operator().await;
    let mut seen = std::collections::HashSet::new();
    for _ in 0..20 {
        let response = client.root_keys().who_am_i(pb::WhoAmIRequest::default()).await.unwrap().into_inner();
        assert!(seen.insert(response.meta.unwrap().request_id));
    }
}

#[tokio::test]
async fn every_method_that_takes_an_etag_refuses_one_that_is_not_the_objects() {
    let there = Neighbours::new().await;
    let mut tried = 0;
    for method in methods().into_iter().filter(|method| method.input.get_field_by_name("etag").is_some()) {
        let objects = prepared(&there, &method).await;
        let before = everything(&there.operator).await;
        for etag in ["v999", "v0", "nonsense", "V1", " v1", "\"v1\"", "*"] {
            for validate_only in [false, true] {
                let message = walk::with(&body(&method.input, &objects), "etag", text(etag)).unwrap();
                let message = walk::with(&message, "validate_only", Value::Bool(validate_only)).unwrap();
                let status = call(&there.operator, &method, &message).await.expect_err(&method.path);
                let expected = (Code::Aborted, "ETAG_MISMATCH");
                assert_eq!((status.code(), reason(&status).as_str()), expected, "{}: {etag}", method.path);
            }
        }
        assert!(before == everything(&there.operator).await, "{} changed something", method.path);
        tried += 1;
    }
    // What is made has none yet; several have several; balances and counts move by themselves.
    let without = ["/Create", "/Batch", "/RevokeKeys", "/AdjustCredits", "/Limit", "/ResetIdentifier", "/ImportKeys"];
    let changing = |method: &Method| method.changes && !without.iter().any(|name| method.path.contains(name));
    assert_eq!(tried, methods().iter().filter(|method| changing(method)).count());
}

#[tokio::test]
async fn whatever_is_only_validated_changes_nothing_and_shows_no_secret() {
    let there = Neighbours::new().await;
    for method in methods().into_iter().filter(walk::can_be_tried) {
        let message = body(&method.input, &prepared(&there, &method).await);
        let message = walk::with(&message, "validate_only", Value::Bool(true)).unwrap();
        everything(&there.operator).await;
        let before = everything(&there.operator).await;
        let mut answers = Vec::new();
        for key in [None, Some("once"), Some("once")] {
            let client = key.map_or_else(|| there.operator.clone(), |key| there.operator.once(key));
            let mut metadata = MetadataMap::new();
            if let Some(key) = &client.headers.idempotency_key {
                metadata.insert("idempotency-key", key.parse().unwrap());
            }
            answers.push(client.raw(&method.path, bytes(&message), metadata).await.unwrap().into_inner());
        }
        assert!(before == everything(&there.operator).await, "{} changed something", method.path);
        for answer in answers {
            let answer = DynamicMessage::decode(method.output.clone(), answer.as_slice()).unwrap();
            if let Some(secret) = answer.get_field_by_name("secret") {
                assert_eq!(secret.as_str(), Some(""), "{}", method.path);
            }
        }
        // For real it works too, and does change something, so the comparison means something.
        let message = walk::with(&message, "validate_only", Value::Bool(false)).unwrap();
        let fresh = Neighbours::new().await;
        let message = if method.path.ends_with("/UndeleteKey") {
            body(&method.input, &prepared(&fresh, &method).await)
        } else {
            message
        };
        let before = everything(&fresh.operator).await;
        call(&fresh.operator, &method, &message).await.unwrap();
        // Updates without a field to update, and lists set to what they are, are no changes.
        let idle = ["/Update", "/Set", "/Remove", "/Adjust"].iter().any(|idle| method.path.contains(idle));
        assert_eq!(before == everything(&fresh.operator).await, idle, "{}", method.path);
    }
}

#[tokio::test]
async fn whatever_is_only_validated_is_refused_as_it_would_be() {
    let there = Neighbours::new().await;
    for method in methods().into_iter().filter(walk::can_be_tried) {
        let mut bad = vec![body(&method.input, &there.missing), DynamicMessage::new(method.input.clone())];
        for field in method.input.fields().filter(walk::is_required) {
            let mut without = body(&method.input, &there.own);
            without.clear_field(&field);
            bad.push(without);
        }
        for message in bad.into_iter().filter(|_| method.input.fields().any(|field| walk::is_required(&field))) {
            let tried = walk::with(&message, "validate_only", Value::Bool(true)).unwrap();
            let tried = call(&there.operator, &method, &tried).await;
            let names_something = method
                .input
                .fields()
                .any(|field| walk::is_required(&field) && matches!(walk::meaning(&field), walk::Meaning::Object(_)));
            let Err(tried) = tried else {
                assert!(!names_something, "{}", method.path);
                continue;
            };
            let done = call(&there.operator, &method, &message).await.expect_err(&method.path);
            assert_eq!((tried.code(), tried.message()), (done.code(), done.message()), "{}", method.path);
            assert_eq!(tried.details(), done.details(), "{}", method.path);
        }
    }
}

#[tokio::test]
async fn every_read_can_ask_for_a_revision_that_was_reached_and_for_no_other() {
    let there = Neighbours::new().await;
    let head = async || {
        let answer = there.operator.root_keys().who_am_i(pb::WhoAmIRequest::default()).await.unwrap().into_inner();
        let at_hand = answer.meta.unwrap().revision;
        let (epoch, counter) = at_hand.split_once('.').unwrap();
        (epoch.to_owned(), counter.parse::<u64>().unwrap(), at_hand.clone())
    };
    // Of many questions each asks for its own.
    let one = |method: &Method| !method.changes && method.input.get_field_by_name("min_revision").is_some();
    for method in methods().into_iter().filter(one) {
        let with =
            |revision: &str| walk::with(&body(&method.input, &there.own), "min_revision", text(revision)).unwrap();
        let (epoch, counter, at_hand) = head().await;
        for reached in [String::new(), at_hand.clone(), format!("{epoch}.0"), format!("{epoch}.{}", counter - 1)] {
            call(&there.operator, &method, &with(&reached)).await.unwrap_or_else(|status| {
                panic!("{}: {reached}: {status:?}", method.path);
            });
        }
        // A backup leaves an event.
        let (_, counter, at_hand) = head().await;
        let unknown = [
            format!("{epoch}.{}", counter + 1),
            format!("{epoch}.{}", u64::MAX),
            format!("ffffffffffffffff.{counter}"),
            "0000000000000000.0".to_owned(),
        ];
        for revision in unknown {
            let status = call(&there.operator, &method, &with(&revision)).await.expect_err(&method.path);
            let expected = (Code::FailedPrecondition, "REVISION_UNKNOWN");
            assert_eq!((status.code(), reason(&status).as_str()), expected, "{}: {revision}", method.path);
        }
        let malformed = [
            "x".to_owned(),
            ".".to_owned(),
            counter.to_string(),
            format!("{epoch}."),
            format!("{epoch}.-1"),
            format!("{epoch}.+1"),
            format!("{epoch}.01"),
            format!("{epoch}.1.1"),
            format!("{epoch}.{}0", u64::MAX),
            format!("{}.1", epoch.to_uppercase()),
            format!("0{epoch}.1"),
            format!(" {at_hand}"),
            format!("{at_hand}\0"),
        ];
        for revision in malformed {
            let status = call(&there.operator, &method, &with(&revision)).await.expect_err(&method.path);
            assert_eq!(status.code(), Code::InvalidArgument, "{}: {revision:?}", method.path);
            assert_eq!(fields(&status), ["min_revision"], "{}: {revision:?}", method.path);
        }
    }
}

#[tokio::test]
async fn the_revision_of_a_write_is_that_of_its_own_commit_and_reads_reflect_at_least_it() {
    let house = House::unswept().await;
    let client = house.operator().await;
    let mut last = String::new();
    for n in 0..5 {
        let request = pb::CreateApiRequest { name: format!("api {n}"), ..Default::default() };
        let made = client.apis().create_api(request).await.unwrap().into_inner();
        let revision = made.meta.unwrap().revision;
        assert_ne!(revision, last);
        let api_id = made.api.unwrap().api_id;
        let request = pb::GetApiRequest { api_id, min_revision: revision.clone() };
        assert_eq!(client.apis().get_api(request).await.unwrap().into_inner().meta.unwrap().revision, revision);
        let request = pb::ListAuditEventsRequest { page_size: 1_000, ..Default::default() };
        let events = client.audit().list_audit_events(request).await.unwrap().into_inner().events;
        assert_eq!(events.last().unwrap().revision, revision);
        last = revision;
    }
}
