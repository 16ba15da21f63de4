//! Every method of every service, as the descriptor has them: none gets by the gate, none tells what it must not.

pub mod neighbours;
mod oracles;
pub mod walk;

use ostiary::domain::capability::Capability;
use ostiary::domain::secret::{Prefix, Secret};
use tonic::metadata::{AsciiMetadataValue, MetadataMap};
use tonic::{Code, Response, Status};
use tonic_types::StatusExt;

use crate::harness::{Client, reason};
use neighbours::Neighbours;
use walk::{Kind, Method, body, bytes, methods};

/// What can't be the body of anything.
const GARBAGE: &[u8] = &[0xff, 0xff, 0xff, 0xff];

/// A call with these `authorization` entries.
async fn present(
    client: &Client,
    method: &Method,
    message: &[u8],
    entries: &[&str],
) -> Result<Response<Vec<u8>>, Status> {
    let mut metadata = MetadataMap::new();
    metadata.insert("x-request-id", AsciiMetadataValue::from_static("coverage"));
    for entry in entries {
        metadata.append("authorization", entry.parse().unwrap());
    }
    client.raw(&method.path, message.to_vec(), metadata).await
}

fn refused(method: &Method, what: &str, result: Result<Response<Vec<u8>>, Status>) -> Status {
    match result {
        Ok(_) => panic!("{}: {what} was let in", method.path),
        Err(status) => status,
    }
}

#[tokio::test]
async fn no_method_lets_anybody_in_without_a_root_key_and_none_looks_at_the_message_first() {
    let there = Neighbours::new().await;
    let stranger = there.house.stranger().await;
    let good = &there.house.first;
    let api_key = &there.own[&Kind::Secret].id;
    let unknown = Secret::issue(&Prefix::root_key(), [3; 24]);
    let (head, last) = good.split_at(good.len() - 1);
    let misspelled = format!("{head}{}", if last == "0" { '1' } else { '0' });
    let bearer = |secret: &str| format!("Bearer {secret}");
    let cases: [(&str, Vec<String>, &str); 16] = [
        ("no root key", vec![], "ROOT_KEY_MISSING"),
        ("no token", vec!["Bearer".into()], "ROOT_KEY_MALFORMED"),
        ("an empty token", vec!["Bearer ".into()], "ROOT_KEY_MALFORMED"),
        ("nothing at all", vec![String::new()], "ROOT_KEY_MALFORMED"),
        ("another scheme", vec![format!("Basic {good}")], "ROOT_KEY_MALFORMED"),
        ("no scheme", vec![good.clone()], "ROOT_KEY_MALFORMED"),
        ("a tab", vec![format!("Bearer\t{good}")], "ROOT_KEY_MALFORMED"),
        ("two spaces", vec![format!("Bearer  {good}")], "ROOT_KEY_MALFORMED"),
        ("two tokens", vec![format!("Bearer {good} {good}")], "ROOT_KEY_MALFORMED"),
        ("two entries", vec![bearer(good), bearer(good)], "ROOT_KEY_MALFORMED"),
        ("two different entries", vec![bearer(good), "Basic x".into()], "ROOT_KEY_MALFORMED"),
        ("a very long token", vec![bearer(&"a".repeat(513))], "ROOT_KEY_MALFORMED"),
        ("an unknown root key", vec![bearer(unknown.expose())], "ROOT_KEY_INVALID"),
        ("an API key", vec![bearer(api_key)], "ROOT_KEY_INVALID"),
        ("a wrong checksum", vec![bearer(&misspelled)], "ROOT_KEY_INVALID"),
        ("a word", vec![bearer("secret")], "ROOT_KEY_INVALID"),
    ];
    for method in methods() {
        // So that the failures of one method are paid off before those of the next.
        there.house.pass(3_600_000);
        let valid = bytes(&body(&method.input, &there.own));
        for (what, entries, expected) in &cases {
            let entries: Vec<&str> = entries.iter().map(String::as_str).collect();
            let with_valid = refused(&method, what, present(&stranger, &method, &valid, &entries).await);
            let with_garbage = refused(&method, what, present(&stranger, &method, GARBAGE, &entries).await);
            assert_eq!(with_valid.code(), Code::Unauthenticated, "{}: {what}", method.path);
            assert_eq!(reason(&with_valid), *expected, "{}: {what}", method.path);
            assert_eq!(with_valid.message(), with_garbage.message(), "{}: {what}", method.path);
            assert_eq!(with_valid.details(), with_garbage.details(), "{}: {what}", method.path);
        }
    }
}

#[tokio::test]
async fn the_scheme_may_be_spelled_in_any_case() {
    let there = Neighbours::new().await;
    let stranger = there.house.stranger().await;
    for method in methods().iter().filter(|method| method.capability.is_none()) {
        for scheme in ["Bearer", "bearer", "BEARER"] {
            let entry = format!("{scheme} {}", there.house.first);
            assert!(present(&stranger, method, &[], &[&entry]).await.is_ok(), "{}: {scheme}", method.path);
        }
    }
}

#[tokio::test]
async fn every_method_denies_a_root_key_that_holds_everything_else_before_its_message_is_decoded() {
    let there = Neighbours::new().await;
    let mut covered = 0;
    for method in methods() {
        let Some(needed) = method.capability else { continue };
        let others: Vec<String> =
            Capability::ALL.iter().filter(|other| **other != needed).map(ToString::to_string).collect();
        let client = there.caller(&others).await;
        let known = bytes(&body(&method.input, &there.own));
        let unknown = bytes(&body(&method.input, &there.missing));
        let mut answers = Vec::new();
        for message in [known.as_slice(), unknown.as_slice(), &[], GARBAGE] {
            let status = refused(&method, "an ungranted key", present(&client, &method, message, &[]).await);
            let info = status.get_details_error_info().unwrap();
            assert_eq!((status.code(), info.reason.as_str()), (Code::PermissionDenied, "PERMISSION_MISSING"));
            assert_eq!(info.metadata["permission"], needed.to_string(), "{}", method.path);
            for held in &others {
                let repeats = needed.to_string().contains(held);
                assert!(repeats || !status.message().contains(held), "{} tells what is held", method.path);
            }
            answers.push((status.code(), status.message().to_owned(), status.details().to_vec()));
        }
        assert!(answers.iter().all(|answer| *answer == answers[0]), "{}", method.path);
        covered += 1;
    }
    let open = methods().iter().filter(|method| method.capability.is_none()).count();
    assert_eq!(covered + open, methods().len());
    assert_eq!(open, 2, "WhoAmI and GetServerInfo ask for nothing");
}

#[tokio::test]
async fn every_method_takes_the_bodies_that_these_tests_make() {
    let there = Neighbours::new().await;
    for method in methods() {
        let valid = body(&method.input, &there.own);
        let tried = walk::with(&valid, "validate_only", prost_reflect::Value::Bool(true)).unwrap_or(valid);
        if let Err(status) = present(&there.operator, &method, &bytes(&tried), &[]).await {
            // Restoring a key that is there is refused for what it is, not for how it was asked for.
            assert_eq!(reason(&status), "KEY_ALREADY_EXISTS", "{}: {status:?}", method.path);
        }
    }
}

#[tokio::test]
async fn every_required_field_is_demanded_by_its_name() {
    let there = Neighbours::new().await;
    // What is wrong with one question of a stream is said in its own answer.
    for method in methods().into_iter().filter(|method| !method.path.ends_with("/StreamVerifyKeys")) {
        let required: Vec<_> = method.input.fields().filter(walk::is_required).collect();
        for field in &required {
            let mut without = body(&method.input, &there.own);
            without.clear_field(field);
            let status =
                refused(&method, "half a body", present(&there.operator, &method, &bytes(&without), &[]).await);
            assert_eq!(status.code(), Code::InvalidArgument, "{} without {}", method.path, field.name());
            assert_eq!(crate::harness::fields(&status), [field.name()], "{}", method.path);
        }
        if !required.is_empty() {
            let status = refused(&method, "no body", present(&there.operator, &method, &[], &[]).await);
            let mut told = crate::harness::fields(&status);
            let mut names: Vec<&str> = required.iter().map(prost_reflect::FieldDescriptor::name).collect();
            told.sort_unstable();
            names.sort_unstable();
            assert_eq!(told, names, "{}: all at once", method.path);
        }
    }
}

#[tokio::test]
async fn health_and_reflection_are_open_to_everybody() {
    let there = Neighbours::new().await;
    let stranger = there.house.stranger().await;
    let healthy = stranger.raw("/grpc.health.v1.Health/Check", Vec::new(), MetadataMap::new()).await.unwrap();
    assert_eq!(healthy.get_ref().as_slice(), [8, 1], "SERVING");
    assert!(healthy.metadata().contains_key("x-request-id"));
    for version in ["v1", "v1alpha"] {
        let path = format!("/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo");
        // Field 7, `list_services`, empty.
        let listed = stranger.raw(&path, vec![0x3a, 0], MetadataMap::new()).await.unwrap().into_inner();
        let listed = String::from_utf8_lossy(&listed).into_owned();
        for service in walk::pool().services().filter(|service| service.package_name() == "ostiary.v1") {
            assert!(listed.contains(service.full_name()), "{path} lacks {}", service.full_name());
        }
        assert!(listed.contains("grpc.health.v1.Health") && listed.contains("envoy.service.auth.v3.Authorization"));
    }
}

#[tokio::test]
async fn a_path_that_is_no_method_is_unimplemented_for_everybody_whatever_it_resembles() {
    let there = Neighbours::new().await;
    let stranger = there.house.stranger().await;
    let paths = [
        "/",
        "//",
        "/ostiary.v1.KeyService",
        "/ostiary.v1.KeyService/",
        "/ostiary.v1.KeyService/Nope",
        "/ostiary.v1.KeyService/verifyKey",
        "/ostiary.v1.KeyService/VerifyKey/",
        "/ostiary.v1.KeyService//VerifyKey",
        "//ostiary.v1.KeyService/VerifyKey",
        "/ostiary.v1.KeyService/Verify%4bey",
        "/x/../ostiary.v1.KeyService/VerifyKey",
        "/ostiary.v1.Nope/VerifyKey",
        "/ostiary.v2.KeyService/VerifyKey",
        "/grpc.health.v1.Health/Nope",
        "/grpc.health.v1.Health/../../ostiary.v1.KeyService/VerifyKey",
    ];
    for path in paths {
        for client in [&there.operator, &stranger] {
            let status = client.raw(path, Vec::new(), MetadataMap::new()).await.unwrap_err();
            assert_eq!((status.code(), reason(&status).as_str()), (Code::Unimplemented, "UNIMPLEMENTED"), "{path}");
            assert!(status.get_details_request_info().is_some(), "{path}");
        }
    }
}
