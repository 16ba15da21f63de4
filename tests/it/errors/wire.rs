//! What goes wrong before a message is a message, or after the caller has stopped waiting.

use std::net::SocketAddr;
use std::time::Duration;

use futures::{StreamExt, stream};
use prost::Message;
use tonic::metadata::MetadataMap;
use tonic::{Code, Status, Streaming};
use tonic_types::StatusExt;

use super::{Detail, check, check_common};
use crate::harness::{Client, House, reason};
use ostiary::pb::v1 as pb;

/// Calls as no client of tonic's does, which would watch the deadline itself; what is read is the head of the answer.
pub async fn bare(house: &House, path: &str, headers: &[(&str, &str)], message: &[u8]) -> Status {
    bare_at(house.address, &house.first, path, headers, message).await
}

/// The same, for a server at this address.
pub async fn bare_at(
    address: SocketAddr,
    root_key: &str,
    path: &str,
    headers: &[(&str, &str)],
    message: &[u8],
) -> Status {
    use hyper_util::rt::{TokioExecutor, TokioIo};
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.unwrap();
    let running = tokio::spawn(connection);
    let mut request = http::Request::post(format!("http://{address}{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("authorization", format!("Bearer {root_key}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    let framed = [&[0], length.as_slice(), message].concat();
    let request = request.body(http_body_util::Full::new(bytes::Bytes::from(framed))).unwrap();
    let response = sender.send_request(request).await.unwrap();
    running.abort();
    Status::from_header_map(response.headers()).unwrap_or_else(|| Status::ok("let through"))
}

/// Calls by a body that comes in these pieces, each a frame of its own; what is read is the end of the answer.
pub async fn in_pieces(house: &House, path: &str, headers: &[(&str, &str)], pieces: Vec<Vec<u8>>) -> (Vec<u8>, Status) {
    use http_body_util::BodyExt;
    use hyper_util::rt::{TokioExecutor, TokioIo};
    let stream = tokio::net::TcpStream::connect(house.address).await.unwrap();
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.unwrap();
    let running = tokio::spawn(connection);
    let mut request = http::Request::post(format!("http://{}{path}", house.address))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("authorization", format!("Bearer {}", house.first));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    // Each piece waits its turn, so that none is sent together with the one before.
    let pieces = futures::stream::iter(pieces).then(|piece| async move {
        tokio::task::yield_now().await;
        Ok::<_, std::convert::Infallible>(http_body::Frame::data(bytes::Bytes::from(piece)))
    });
    let request = request.body(http_body_util::StreamBody::new(Box::pin(pieces))).unwrap();
    let response = sender.send_request(request).await.unwrap();
    let head = Status::from_header_map(response.headers());
    let body = response.into_body().collect().await.unwrap();
    let end = body.trailers().and_then(Status::from_header_map);
    running.abort();
    (body.to_bytes().to_vec(), head.or(end).unwrap())
}

#[tokio::test]
async fn a_verification_is_answered_alike_in_however_many_frames_it_comes() {
    let house = House::unswept().await;
    let operator = house.operator().await;
    let api = operator.api("documents").await;
    let secret = operator.plain_key(&api, "framed").await.1;
    let message = pb::VerifyKeyRequest { key: secret, ..Default::default() }.encode_to_vec();
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    let framed = [&[0], length.as_slice(), &message].concat();
    let cuts = [vec![], vec![5], vec![2], vec![5, 9], vec![framed.len()], vec![0], vec![1, 2, 3]];
    for cuts in cuts {
        let mut pieces = Vec::new();
        let mut begin = 0;
        for cut in cuts.iter().copied().chain([framed.len()]) {
            pieces.push(framed[begin..cut].to_vec());
            begin = cut;
        }
        let (answer, status) = in_pieces(&house, VERIFY_KEY, &[], pieces).await;
        assert_eq!(status.code(), Code::Ok, "{cuts:?}: {status:?}");
        let answer = pb::VerifyKeyResponse::decode(&answer[5..]).unwrap();
        assert!(answer.verdict.unwrap().valid, "{cuts:?}");
        assert!(!answer.meta.unwrap().request_id.is_empty());
    }
    let compressed = [&[1], &framed[1..]].concat();
    for headers in [&[][..], &[("grpc-encoding", "gzip")]] {
        let (_, status) = in_pieces(&house, VERIFY_KEY, headers, vec![compressed.clone()]).await;
        assert_ne!(status.code(), Code::Ok, "{status:?}");
    }
}

const VERIFY_KEY: &str = "/ostiary.v1.KeyService/VerifyKey";
const CREATE_KEY: &str = "/ostiary.v1.KeyService/CreateKey";
const CREATE_ROLE: &str = "/ostiary.v1.RoleService/CreateRole";

async fn send(client: &Client, path: &str, message: Vec<u8>) -> Status {
    client.raw(path, message, MetadataMap::new()).await.unwrap_err()
}

/// A field of bytes.
fn field(number: u32, bytes: &[u8]) -> Vec<u8> {
    let mut message = Vec::new();
    prost::encoding::encode_key(number, prost::encoding::WireType::LengthDelimited, &mut message);
    prost::encoding::encode_varint(bytes.len() as u64, &mut message);
    message.extend_from_slice(bytes);
    message
}

/// Metadata of that many levels: maps in maps.
fn nested(levels: usize) -> Vec<u8> {
    let mut data = Vec::new();
    for _ in 1..levels {
        // Struct.fields: an entry of key `a` and a value that is a Struct.
        let value = field(5, &data);
        data = field(1, &[field(1, b"a"), field(2, &value)].concat());
    }
    data
}

#[tokio::test]
async fn a_message_that_cannot_be_decoded_is_an_invalid_field_and_nothing_of_it_is_internal() {
    let house = House::unswept().await;
    let operator = house.operator().await;
    let garbage = [
        vec![0xff; 10],
        vec![0x0a],
        vec![0x0a, 0x7f],
        vec![0x0b],
        vec![0x08, 0x01],
        field(1, &[0xc3, 0x28]),
        field(1, &[0xff]),
        field(1, "reader\u{0}".as_bytes()).into_iter().chain([0x07]).collect(),
    ];
    for message in garbage {
        let status = send(&operator, CREATE_ROLE, message.clone()).await;
        check_common(&status);
        assert_eq!((status.code(), reason(&status).as_str()), (Code::InvalidArgument, "FIELD_INVALID"), "{message:?}");
        assert_eq!(status.get_details_bad_request().unwrap().field_violations.len(), 1, "{message:?}");
    }
}

#[tokio::test]
async fn text_that_is_not_utf8_is_refused_by_the_name_of_its_field() {
    let house = House::unswept().await;
    let operator = house.operator().await;
    let bad = field(1, b"reader\xff");
    check(
        &send(&operator, CREATE_ROLE, bad).await,
        Code::InvalidArgument,
        "FIELD_INVALID",
        &Detail::Fields(vec!["name"]),
    );
    let bad = [field(1, b"reader"), field(3, b"ok"), field(3, b"\xc3\x28")].concat();
    check(
        &send(&operator, CREATE_ROLE, bad).await,
        Code::InvalidArgument,
        "FIELD_INVALID",
        &Detail::Fields(vec!["permissions"]),
    );
}

#[tokio::test]
async fn what_cannot_be_decoded_within_a_filter_is_told_by_its_whole_path() {
    let house = House::unswept().await;
    let operator = house.operator().await;
    // ListKeysRequest.filter.role
    let bad = field(3, &field(2, b"reader\xff"));
    let status = send(&operator, "/ostiary.v1.KeyService/ListKeys", bad).await;
    check(&status, Code::InvalidArgument, "FIELD_INVALID", &Detail::Fields(vec!["filter.role"]));
}

#[tokio::test]
async fn metadata_nested_beyond_reason_is_refused_and_nothing_falls_over() {
    let house = House::unswept().await;
    let operator = house.operator().await;
    let api = operator.api("documents").await;
    let with = |levels: usize| [field(1, api.api_id.as_bytes()), field(4, &nested(levels))].concat();
    operator.raw(CREATE_KEY, with(32), MetadataMap::new()).await.unwrap();
    for levels in [33, 34, 40, 100, 1_000, 10_000] {
        let status = send(&operator, CREATE_KEY, with(levels)).await;
        check_common(&status);
        assert_eq!((status.code(), reason(&status).as_str()), (Code::InvalidArgument, "FIELD_INVALID"), "{levels}");
        let violation = &status.get_details_bad_request().unwrap().field_violations[0];
        assert_eq!(violation.field, "metadata", "{levels}: {}", status.message());
        assert!(status.message().len() < 200, "{levels}: {}", status.message());
    }
    operator.raw(CREATE_KEY, with(2), MetadataMap::new()).await.unwrap();
}

#[tokio::test]
async fn a_message_over_four_mebibytes_is_too_large_for_every_service_and_one_of_that_size_is_looked_at() {
    let house = House::unswept().await;
    let operator = house.operator().await;
    for path in [CREATE_KEY, CREATE_ROLE, "/ostiary.v1.AuditLogService/ListAuditEvents"] {
        let status = send(&operator, path, vec![0; (4 << 20) + 1]).await;
        check(&status, Code::ResourceExhausted, "MESSAGE_TOO_LARGE", &Detail::Nothing);
        let padding = (4 << 20) - field(99, &[]).len() - 3;
        let message = field(99, &vec![b'a'; padding]);
        assert_eq!(message.len(), 4 << 20);
        let result = operator.raw(path, message, MetadataMap::new()).await;
        assert!(result.is_ok() || result.is_err_and(|status| status.code() == Code::InvalidArgument), "{path}");
    }
}

#[tokio::test]
async fn a_list_far_longer_than_any_may_be_is_refused_before_room_is_made_for_it() {
    let house = House::unswept().await;
    let operator = house.operator().await;
    let many = |number: u32, times: usize| field(number, &[]).repeat(times);
    let (import, questions) = ("/ostiary.v1.KeyService/ImportKeys", "/ostiary.v1.KeyService/StreamVerifyKeys");
    // Rows of an import, permissions of a key, limits of a question of a stream.
    for (path, message) in
        [(import, many(1, 1 << 20)), (CREATE_KEY, many(6, 20_000)), (questions, field(2, &many(9, 20_000)))]
    {
        let status = send(&operator, path, message).await;
        check(&status, Code::InvalidArgument, "FIELD_INVALID", &Detail::Fields(vec!["message"]));
    }
    // What is said of the encoding makes no difference.
    let verify = "/ostiary.v1.KeyService/BatchVerifyKeys";
    for encoding in [&[][..], &[("grpc-encoding", "identity")]] {
        let status = bare(&house, verify, encoding, &many(1, 1_001)).await;
        check(&status, Code::InvalidArgument, "FIELD_INVALID", &Detail::Fields(vec!["requests"]));
        let status = bare(&house, verify, encoding, &field(1, &many(9, 50_000))).await;
        check(&status, Code::InvalidArgument, "FIELD_INVALID", &Detail::Fields(vec!["rate_limits"]));
    }
    // A question that only has too many is no worse than any other that is wrong.
    let answer = operator.raw(questions, field(2, &many(9, 200)), MetadataMap::new()).await.unwrap().into_inner();
    let answer = pb::StreamVerifyKeysResponse::decode(answer.as_slice()).unwrap();
    assert!(matches!(answer.result, Some(pb::stream_verify_keys_response::Result::Error(_))), "{answer:?}");
}

#[tokio::test]
async fn who_may_not_call_learns_that_before_the_size_of_the_message_matters() {
    let house = House::unswept().await;
    let stranger = house.stranger().await;
    let status = send(&stranger, CREATE_KEY, vec![0; (4 << 20) + 1]).await;
    assert_eq!(reason(&status), "ROOT_KEY_MISSING");
}

#[tokio::test]
async fn fields_that_this_version_does_not_know_are_passed_over() {
    let house = House::unswept().await;
    let operator = house.operator().await;
    let message = [pb::WhoAmIRequest::default().encode_to_vec(), field(4_000, b"later")].concat();
    operator.raw("/ostiary.v1.RootKeyService/WhoAmI", message, MetadataMap::new()).await.unwrap();
}

#[tokio::test]
async fn a_deadline_that_has_passed_is_said_and_nothing_is_changed() {
    let house = House::unswept().await;
    let operator = house.operator().await;
    let before = operator.events().await;
    let request = pb::CreateApiRequest { name: "too late".into(), ..Default::default() };
    for spent in ["0n", "0u", "0m", "0S", "0M", "0H"] {
        let message = request.encode_to_vec();
        let status = bare(&house, "/ostiary.v1.ApiService/CreateApi", &[("grpc-timeout", spent)], &message).await;
        check(&status, Code::DeadlineExceeded, "DEADLINE_EXCEEDED", &Detail::Nothing);
    }
    assert_eq!(operator.events().await, before);
}

#[tokio::test]
async fn a_stream_ends_at_its_deadline_whether_or_not_anything_is_said() {
    let house = House::unswept().await;
    let operator = house.operator().await;
    let (_, key) = operator.plain_key(&operator.api("documents").await, "customer").await;
    let question = pb::VerifyKeyRequest { key, ..Default::default() };
    let question = pb::StreamVerifyKeysRequest { request: Some(question), ..Default::default() };
    let said = |times: usize| stream::iter(vec![question.clone(); times]).chain(stream::pending());
    for times in [0, 3] {
        let verdicts = operator.keys().stream_verify_keys(soon(said(times))).await.unwrap().into_inner();
        assert_eq!(until_the_deadline(verdicts).await, times);
    }
    let rows = operator.keys().import_keys(soon(stream::pending())).await.unwrap().into_inner();
    assert_eq!(until_the_deadline(rows).await, 0);
    let watch = operator.audit().watch_audit_events(soon(pb::WatchAuditEventsRequest::default())).await.unwrap();
    until_the_deadline(watch.into_inner()).await;
}

/// A request whose caller waits for the whole answer no longer than this.
fn soon<M>(message: M) -> tonic::Request<M> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(Duration::from_millis(200));
    request
}

/// How many answers come before the one that says that the deadline has passed.
async fn until_the_deadline<M>(mut answers: Streaming<M>) -> usize {
    let mut before = 0;
    let status = loop {
        match answers.message().await {
            Ok(answer) => {
                answer.expect("it does not end by itself");
                before += 1;
            }
            Err(status) => break status,
        }
    };
    assert_eq!((status.code(), reason(&status).as_str()), (Code::DeadlineExceeded, "DEADLINE_EXCEEDED"));
    before
}

#[tokio::test]
async fn a_deadline_that_cannot_be_read_or_lies_far_away_does_not_hinder() {
    let house = House::unswept().await;
    for odd in ["", "1", "S", "1x", "-1S", "123456789S", "99999999H"] {
        let status = bare(&house, "/ostiary.v1.RootKeyService/WhoAmI", &[("grpc-timeout", odd)], &[]).await;
        assert_eq!(status.code(), Code::Ok, "{odd}");
    }
}
