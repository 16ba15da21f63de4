//! Nothing that a request can name tells whether it exists: an object that the caller may not see is answered byte for
//! byte like one that was never made.

use prost_reflect::{DynamicMessage, Kind as Shape, Value};
use tonic::Code;

use super::neighbours::{Neighbours, Objects};
use super::walk::{
    Kind, Meaning, Method, Object, Place, body, bytes, meaning, methods, places, set, spelled, text, with,
};
use super::{GARBAGE, present};
use crate::harness::{Client, fields, reason, texts};
use ostiary::pb::v1 as pb;
use tonic_types::StatusExt;

/// All that an answer tells, with the name of one object replaced by that of another.
#[derive(Debug, PartialEq)]
struct Told {
    code: Code,
    reason: String,
    message: String,
    details: Vec<u8>,
    answer: Vec<u8>,
}

impl std::fmt::Display for Told {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { code, reason, message, details: _, answer } = self;
        write!(f, "{code:?} {reason} {message:?} {}", String::from_utf8_lossy(answer).escape_debug())
    }
}

async fn told(client: &Client, method: &Method, message: &[u8], (from, to): (&str, &str)) -> Told {
    match present(client, method, message, &[]).await {
        Ok(response) => Told {
            code: Code::Ok,
            reason: String::new(),
            message: String::new(),
            details: Vec::new(),
            answer: replaced(response.get_ref(), from, to),
        },
        Err(status) => Told {
            code: status.code(),
            reason: reason(&status),
            message: status.message().replace(from, to),
            details: replaced(status.details(), from, to),
            answer: Vec::new(),
        },
    }
}

fn replaced(bytes: &[u8], from: &str, to: &str) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let mut bytes = bytes.to_vec();
    let places: Vec<usize> =
        bytes.windows(from.len()).enumerate().filter(|(_, part)| *part == from.as_bytes()).map(|(at, _)| at).collect();
    for at in places {
        bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
    }
    bytes
}

/// The spellings under which the object can be named.
fn spellings(object: &Object, by_name: bool) -> Vec<&str> {
    let name = object.name.as_deref().filter(|_| by_name);
    [Some(object.id.as_str()), name].into_iter().flatten().collect()
}

/// The body as it is, and with everything else in it that might be looked at too early.
fn variants(plain: &DynamicMessage, place: &Place) -> Vec<(String, DynamicMessage)> {
    let mut all = vec![("plain".to_owned(), plain.clone())];
    let switches = ["validate_only", "force", "cascade", "permanent", "show_deleted", "dry_run"];
    for switch in switches {
        all.extend(with(plain, switch, Value::Bool(true)).map(|body| (switch.to_owned(), body)));
    }
    for field in ["etag", "page_token", "min_revision"] {
        all.extend(with(plain, field, text("nonsense")).map(|body| (format!("a wrong {field}"), body)));
    }
    let last = place.last().unwrap();
    if last.is_list() && place.len() == 1 {
        let value = plain.get_field(last).into_owned();
        let one = value.as_list().unwrap()[0].clone();
        let crowd: Vec<Value> = (0..20).map(|n| text(&format!("crowd.{n:02}"))).collect();
        let bodies = [
            ("first of 21", [vec![one.clone()], crowd.clone()].concat()),
            ("last of 21", {
                let mut all = crowd;
                all.push(one);
                all
            }),
        ];
        for (what, entries) in bodies {
            let mut body = plain.clone();
            set(&mut body, place, Value::List(entries));
            all.push((what.to_owned(), body));
        }
    }
    all
}

/// Compares what a caller is told of an object that it must not learn of with what it is told of none; returns how
/// many fields were compared.
async fn compare(there: &Neighbours, client: &Client, objects: &Objects, who: &str, kinds: &[Kind]) -> usize {
    let (mut compared, mut telling) = (0, Vec::new());
    for method in methods() {
        for place in places(&method.input) {
            let field = place.last().unwrap();
            let (kind, mentioned) = match meaning(field) {
                Meaning::Object(kind) => (kind, false),
                Meaning::Mention(kind) => (kind, true),
                Meaning::Plain => continue,
            };
            // What is merely mentioned stands beside what the caller sees of the same workspace.
            if !kinds.contains(&kind) || (mentioned && objects[&Kind::Api].id == there.own[&Kind::Api].id) {
                continue;
            }
            let by_name =
                matches!(field.name(), "role" | "roles" | "permission" | "permissions" | "identity" | "namespace");
            let (hidden, missing) = (&there.hidden[&kind], &there.missing[&kind]);
            for (hidden, missing) in spellings(hidden, by_name).into_iter().zip(spellings(missing, by_name)) {
                let naming = |name: &str| {
                    let mut message = body(&method.input, objects);
                    set(&mut message, &place, text(name));
                    variants(&message, &place)
                };
                for ((variant, of_hidden), (_, of_missing)) in naming(hidden).into_iter().zip(naming(missing)) {
                    let what = format!("{who}: {} {} {hidden}, {variant}", method.path, spelled(&place));
                    let of_hidden = told(client, &method, &bytes(&of_hidden), (hidden, missing)).await;
                    let of_missing = told(client, &method, &bytes(&of_missing), (hidden, missing)).await;
                    if of_hidden != of_missing {
                        telling.push(format!("{what}: {of_hidden} of it, {of_missing} of none"));
                    }
                }
            }
            compared += 1;
        }
    }
    assert!(telling.is_empty(), "these tell whether an object exists:\n{}", telling.join("\n"));
    compared
}

#[tokio::test]
async fn objects_of_another_workspace_are_answered_like_objects_that_do_not_exist() {
    let there = Neighbours::new().await;
    let compared = compare(&there, &there.tenant, &there.tenants, "another workspace", &Kind::ALL).await;
    assert!(compared >= 45, "only {compared} fields");
}

#[tokio::test]
async fn objects_that_a_grant_does_not_name_are_answered_like_objects_that_do_not_exist() {
    let there = Neighbours::new().await;
    for kind in Kind::ALL {
        let client = there.narrow(kind).await;
        let compared = compare(&there, &client, &there.own, "a narrow grant", &[kind]).await;
        assert!(compared > 0, "{kind:?}");
    }
}

#[tokio::test]
async fn without_any_grant_for_a_kind_nothing_tells_which_objects_of_it_exist() {
    let there = Neighbours::new().await;
    for kind in Kind::ALL {
        let client = there.without(kind).await;
        compare(&there, &client, &there.own, "no grant", &[kind]).await;
    }
}

#[tokio::test]
async fn an_object_out_of_sight_is_not_found_by_the_name_of_its_kind_and_one_in_sight_is_found() {
    let there = Neighbours::new().await;
    for kind in Kind::ALL {
        let client = there.narrow(kind).await;
        for method in methods() {
            let addressed = |field: &prost_reflect::FieldDescriptor| meaning(field) == Meaning::Object(kind);
            let required = super::walk::is_required;
            let Some(field) = method.input.fields().find(|field| required(field) && addressed(field)) else { continue };
            let mut message = body(&method.input, &there.own);
            let seen = with(&message, "validate_only", Value::Bool(true)).unwrap_or_else(|| message.clone());
            set(&mut message, &[field], text(&there.hidden[&kind].id));
            let of_own = told(&client, &method, &bytes(&seen), ("-", "-")).await;
            let allowed = [Code::Ok, Code::AlreadyExists];
            assert!(allowed.contains(&of_own.code), "{}: {of_own:?}", method.path);
            let of_hidden = told(&client, &method, &bytes(&message), ("-", "-")).await;
            if method.path.ends_with("/VerifyKey") {
                // A verdict is data: not found, in words that fit every unknown key.
                assert_eq!(of_hidden.code, Code::Ok);
                continue;
            }
            let expected = (Code::NotFound, kind.not_found());
            assert_eq!((of_hidden.code, of_hidden.reason.as_str()), expected, "{}", method.path);
        }
    }
}

#[tokio::test]
async fn a_message_that_cannot_be_decoded_is_an_invalid_argument_to_those_who_may_call() {
    let there = Neighbours::new().await;
    for method in methods() {
        let told = told(&there.operator, &method, GARBAGE, ("-", "-")).await;
        assert_eq!((told.code, told.reason.as_str()), (Code::InvalidArgument, "FIELD_INVALID"), "{}", method.path);
    }
}

#[test]
fn every_field_of_every_request_has_a_meaning_here() {
    for method in methods() {
        for place in places(&method.input) {
            meaning(place.last().unwrap());
            let inner = match place.last().unwrap().kind() {
                Shape::Message(inner) => inner.full_name().to_owned(),
                _ => continue,
            };
            let known = [
                "google.protobuf.",
                "ostiary.v1.List",
                "ostiary.v1.RevokeKeysFilter",
                "ostiary.v1.WorkspaceQuotas",
                "ostiary.v1.RateLimit",
                "ostiary.v1.Credit",
                "ostiary.v1.VerifyRateLimit",
                "ostiary.v1.VerifyKeyRequest",
                "ostiary.v1.ImportKeysRow",
                "ostiary.v1.BatchLimitItem",
            ];
            assert!(known.iter().any(|known| inner.starts_with(known)), "{}: {inner}", method.path);
        }
    }
}

#[tokio::test]
async fn who_may_take_no_permission_away_at_all_is_denied_by_the_name_of_what_is_missing() {
    let there = Neighbours::new().await;
    let (key_id, role) = (there.own[&Kind::Key].id.clone(), there.own[&Kind::Role].id.clone());
    let permissions = texts(&["some.permission"]);
    let request =
        pb::SetKeyPermissionsRequest { key_id: key_id.clone(), permissions: permissions.clone(), ..Default::default() };
    there.operator.keys().set_key_permissions(request).await.unwrap();
    let request = pb::SetRolePermissionsRequest { role: role.clone(), permissions, ..Default::default() };
    there.operator.roles().set_role_permissions(request).await.unwrap();
    let client = there.caller(&["apis.*.update_key".to_owned(), "rbac.*.update_role".to_owned()]).await;
    let update_mask = Some(prost_types::FieldMask { paths: texts(&["permissions"]) });
    let update = pb::UpdateKeyRequest { key_id: key_id.clone(), update_mask, ..Default::default() };
    let set = pb::SetKeyPermissionsRequest { key_id, ..Default::default() };
    let of_role = pb::SetRolePermissionsRequest { role, ..Default::default() };
    let denials = [
        (client.keys().update_key(update).await.unwrap_err(), "rbac.*.remove_permission_from_key"),
        (client.keys().set_key_permissions(set).await.unwrap_err(), "rbac.*.remove_permission_from_key"),
        (client.roles().set_role_permissions(of_role).await.unwrap_err(), "rbac.*.remove_permission_from_role"),
    ];
    for (status, missing) in denials {
        let info = status.get_details_error_info().unwrap();
        assert_eq!((status.code(), info.reason.as_str()), (Code::PermissionDenied, "PERMISSION_MISSING"));
        assert_eq!(info.metadata["permission"], missing);
    }
}

#[tokio::test]
async fn a_call_makes_at_most_20_permissions_on_the_way() {
    let there = Neighbours::new().await;
    let create = async |name: &str, from: usize, to: usize| {
        let permissions = (from..to).map(|n| format!("made.{n}")).collect();
        let request = pb::CreateRoleRequest { name: name.into(), permissions, ..Default::default() };
        there.operator.roles().create_role(request).await
    };
    let status = create("too many", 0, 21).await.unwrap_err();
    assert_eq!((reason(&status).as_str(), fields(&status)), ("FIELD_INVALID", texts(&["permissions"])));
    create("as many as may be", 0, 20).await.unwrap();
    create("as many again", 0, 40).await.unwrap();
    assert!(create("one more", 0, 61).await.is_err());
}
