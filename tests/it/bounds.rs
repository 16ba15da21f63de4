//! How many connections and calls there may be at a time, how long a connection may last, and who goes first.

use std::io::Read as _;
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo};
use ostiary::pb::v1 as pb;
use tokio::sync::oneshot;
use tonic::{Code, Request, Response, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_types::StatusExt;

use crate::attacks::frames::from;
use crate::errors::wire::bare_at;
use crate::harness::{Client, reason};
use crate::metrics::{admin, scrape};
use crate::process::{Place, Process, Server, await_some};

/// Whether the server has hung up without having said anything.
fn is_closed(mut connection: &TcpStream) -> bool {
    connection.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
    match connection.read(&mut [0; 1]) {
        Ok(read) => read == 0,
        Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
    }
}

async fn is_served(client: &Client) -> bool {
    client.root_keys().who_am_i(pb::WhoAmIRequest::default()).await.is_ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_above_the_bounds_are_closed_and_those_below_go_on() {
    let place = Place::new();
    let server = place.serve(&["--max-connections", "5", "--max-connections-per-peer", "3"]);
    let client = server.client(&place.first_root_key()).await;
    assert!(is_served(&client).await);
    let greedy = Ipv4Addr::new(127, 0, 0, 9);
    let held = [0; 3].map(|_| from(greedy, server.address).unwrap());
    let fourth = from(greedy, server.address).unwrap();
    await_some("hanging up on the fourth of one peer", || is_closed(&fourth).then_some(()));
    assert!(held.iter().all(|held| !is_closed(held)));
    let last = from(Ipv4Addr::new(127, 0, 0, 10), server.address).unwrap();
    let beyond = from(Ipv4Addr::new(127, 0, 0, 11), server.address).unwrap();
    await_some("hanging up on the sixth of all", || is_closed(&beyond).then_some(()));
    assert!(!is_closed(&last));
    assert!(is_served(&client).await);
    drop(held);
    let again = await_some("room for one more", || {
        let again = from(greedy, server.address).unwrap();
        std::thread::sleep(Duration::from_millis(20));
        (!is_closed(&again)).then_some(again)
    });
    assert!(is_served(&client).await);
    drop((again, last, client));
    let log = server.stop().stderr;
    assert!(log.contains("there are too many connections"), "{log}");
}

#[tokio::test]
async fn a_connection_that_has_lasted_its_time_is_replaced_and_its_calls_finish() {
    let place = Place::new();
    let server = place.serve(&["--max-connection-age", "10s"]);
    let client = server.client(&place.first_root_key()).await;
    let (questions, asked) = tokio::sync::mpsc::channel(1);
    let verdicts = client.keys().stream_verify_keys(tokio_stream::wrappers::ReceiverStream::new(asked)).await;
    let mut verdicts = verdicts.unwrap().into_inner();
    let stream = tokio::net::TcpStream::connect(server.address).await.unwrap();
    let (idle, connection) = hyper::client::conn::http2::handshake::<_, _, http_body_util::Empty<bytes::Bytes>>(
        TokioExecutor::new(),
        TokioIo::new(stream),
    )
    .await
    .unwrap();
    let over = tokio::time::timeout(Duration::from_secs(40), connection).await;
    over.expect("the server ends it").expect("and in good order");
    drop(idle);
    assert!(is_served(&server.client(&place.first_root_key()).await).await);
    let request = Some(pb::VerifyKeyRequest { key: "nobody's".into(), ..Default::default() });
    questions.send(pb::StreamVerifyKeysRequest { request, ..Default::default() }).await.unwrap();
    drop(questions);
    assert!(verdicts.message().await.unwrap().is_some(), "the stream goes on");
    assert!(verdicts.message().await.unwrap().is_none());
    drop(client);
    assert_eq!(server.stop().code, Some(0));
}

fn named(name: &str) -> Vec<u8> {
    prost::Message::encode_to_vec(&pb::CreateApiRequest { name: name.into(), ..Default::default() })
}

/// A call that the server has taken but can't answer yet, because its message is still to come.
async fn when(
    client: Client,
    path: &'static str,
    message: Vec<u8>,
    sent: oneshot::Sender<()>,
    go: oneshot::Receiver<()>,
) -> Result<Response<Vec<u8>>, Status> {
    let mut grpc = tonic::client::Grpc::new(client.channel.clone());
    grpc.ready().await.unwrap();
    let message = futures::stream::once(async move {
        // The message is asked for once the headers are on their way.
        sent.send(()).unwrap();
        go.await.unwrap();
        message
    });
    let mut request = Request::new(message);
    let bearer = format!("Bearer {}", client.headers.secret.as_ref().unwrap());
    request.metadata_mut().insert("authorization", bearer.parse().unwrap());
    grpc.client_streaming(request, path.parse().unwrap(), crate::harness::Bytes).await
}

/// Calls that have begun and wait.
struct Waiting {
    go: Vec<oneshot::Sender<()>>,
    answers: Vec<tokio::task::JoinHandle<Result<Response<Vec<u8>>, Status>>>,
}

impl Waiting {
    async fn begin(&mut self, client: &Client, path: &'static str, message: Vec<u8>) {
        let (go, gate) = oneshot::channel();
        let (sent, is_sent) = oneshot::channel();
        self.answers.push(tokio::spawn(when(client.clone(), path, message, sent, gate)));
        is_sent.await.unwrap();
        self.go.push(go);
        // An answer on the same connection: the call before it has arrived.
        HealthClient::new(client.channel.clone()).check(HealthCheckRequest::default()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_load_others_are_refused_before_verifications_and_health_never() {
    let place = Place::new();
    let server = place.serve(&["--max-calls", "4", "--admin-listen", "127.0.0.1:0"]);
    let client = server.client(&place.first_root_key()).await;
    let api = client.api("documents").await;
    let secret = client.plain_key(&api, "customer").await.1;
    let question = pb::VerifyKeyRequest { key: secret.clone(), ..Default::default() };
    let encoded = prost::Message::encode_to_vec(&question);
    let mut waiting = Waiting { go: Vec::new(), answers: Vec::new() };
    for name in ["first", "second"] {
        waiting.begin(&client, "/ostiary.v1.ApiService/CreateApi", named(name)).await;
    }
    let refused = client.root_keys().who_am_i(pb::WhoAmIRequest::default()).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::Unavailable, "OVERLOADED"));
    assert!(refused.get_details_retry_info().unwrap().retry_delay.unwrap() > Duration::ZERO);
    assert!(refused.metadata().contains_key("x-request-id"));
    assert!(client.verdict(&secret, None).await.valid, "verifications go on");
    for _ in 0..4 {
        waiting.begin(&client, "/ostiary.v1.KeyService/VerifyKey", encoded.clone()).await;
    }
    let refused = client.keys().verify_key(question.clone()).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::Unavailable, "OVERLOADED"));
    HealthClient::new(client.channel.clone()).check(HealthCheckRequest::default()).await.unwrap();
    let page = scrape(admin(&server));
    assert_eq!(page.figure("ostiary_calls_shed_total", &[]), Some(2.0));
    assert_eq!(page.figure("ostiary_calls_under_way", &[]), Some(6.0));
    for go in waiting.go {
        go.send(()).unwrap();
    }
    for answer in waiting.answers {
        answer.await.unwrap().unwrap();
    }
    assert!(is_served(&client).await, "there is room again");
    drop(client);
    let log = server.stop().stderr;
    assert!(log.contains("too many calls at a time"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_does_not_come_ends_its_call() {
    let place = Place::new();
    let server = place.serve(&["--max-calls", "2"]);
    let client = server.client(&place.first_root_key()).await;
    let mut waiting = Waiting { go: Vec::new(), answers: Vec::new() };
    waiting.begin(&client, "/ostiary.v1.RootKeyService/WhoAmI", Vec::new()).await;
    assert!(!is_served(&client).await, "the room for it is taken");
    let ended = waiting.answers.remove(0).await.unwrap().unwrap_err();
    assert_eq!((ended.code(), reason(&ended).as_str()), (Code::DeadlineExceeded, "DEADLINE_EXCEEDED"));
    assert!(is_served(&client).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_root_key_takes_the_room_of_all_others() {
    let place = Place::new();
    let server = place.serve(&["--max-calls", "20"]);
    let operator = server.client(&place.first_root_key()).await;
    let (leaked, secret) = operator.root_key("leaked", &["apis.*.verify_key"]).await;
    let thief = server.client(&secret).await;
    let mut waiting = Waiting { go: Vec::new(), answers: Vec::new() };
    // Verifications first: however many there are, what ends them has room of its own.
    for (path, most) in [("/ostiary.v1.KeyService/VerifyKey", 18), ("/ostiary.v1.RootKeyService/WhoAmI", 9)] {
        for _ in 0..most {
            waiting.begin(&thief, path, Vec::new()).await;
        }
        operator.root_keys().who_am_i(pb::WhoAmIRequest::default()).await.unwrap();
    }
    let verified = thief.keys().verify_key(pb::VerifyKeyRequest::default()).await.unwrap_err();
    let asked = thief.root_keys().who_am_i(pb::WhoAmIRequest::default()).await.unwrap_err();
    for refused in [verified, asked] {
        assert_eq!((refused.code(), reason(&refused).as_str()), (Code::Unavailable, "OVERLOADED"));
    }
    let request = pb::DeleteRootKeyRequest { root_key_id: leaked.root_key_id, ..Default::default() };
    operator.root_keys().delete_root_key(request).await.unwrap();
    drop(waiting);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn open_streams_are_calls_under_way() {
    let place = Place::new();
    let server = place.serve(&["--max-calls", "6"]);
    let client = server.client(&place.first_root_key()).await;
    let mut streams = Vec::new();
    for _ in 0..2 {
        streams.push(client.audit().watch_audit_events(pb::WatchAuditEventsRequest::default()).await.unwrap());
    }
    assert!(is_served(&client).await);
    streams.push(client.audit().watch_audit_events(pb::WatchAuditEventsRequest::default()).await.unwrap());
    assert!(!is_served(&client).await, "three are half of six");
    drop(streams);
    loop {
        // The server learns of it when it is told.
        if is_served(&client).await {
            break;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_shows_no_root_key_keeps_nobody_out() {
    let place = Place::new();
    let socket = place.path("socket");
    let listen = format!("unix:{}", socket.display());
    let server = place.serve(&["--max-connections", "2", "--listen", "127.0.0.1:0", "--listen", &listen]);
    let secret = place.first_root_key();
    // They speak HTTP/2, answer pings, and ask for nothing that needs a root key.
    let mut silent = Vec::new();
    for _ in 0..2 {
        let channel = tonic::transport::Endpoint::from_shared(format!("http://{}", server.address)).unwrap();
        let channel = channel.connect().await.unwrap();
        HealthClient::new(channel.clone()).check(HealthCheckRequest::default()).await.unwrap();
        silent.push(channel);
    }
    assert!(std::os::unix::net::UnixStream::connect(&socket).is_ok_and(|local| !is_hung_up_on(local)));
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{}", server.address)).unwrap();
    let client = loop {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let Ok(channel) = endpoint.connect().await else { continue };
        let headers = crate::harness::Headers { secret: Some(secret.clone()), ..Default::default() };
        let client = Client { channel, headers };
        if is_served(&client).await {
            break client;
        }
    };
    let third = TcpStream::connect(server.address).unwrap();
    assert!(is_served(&client).await);
    drop((silent, third));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_whose_time_is_over_begins_nothing() {
    let place = Place::new();
    let server = place.serve(&[]);
    let secret = place.first_root_key();
    let create = async |left| {
        let headers = [("grpc-timeout", left)];
        bare_at(server.address, &secret, "/ostiary.v1.ApiService/CreateApi", &headers, &named("documents")).await
    };
    let late = create("0n").await;
    assert_eq!((late.code(), reason(&late).as_str()), (Code::DeadlineExceeded, "DEADLINE_EXCEEDED"));
    let client = server.client(&secret).await;
    let made = async || client.apis().list_apis(pb::ListApisRequest::default()).await.unwrap().into_inner().apis.len();
    assert_eq!(made().await, 0);
    assert_eq!(create("1H").await.code(), Code::Ok);
    assert_eq!(made().await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_descriptors_for_more_those_who_are_there_go_on_and_others_come_in_later() {
    let place = Place::new();
    let data = place.data();
    let serving = Place::serving(data.to_str().unwrap(), &[]);
    let mut command = std::process::Command::new("sh");
    command.args(["-c", "ulimit -n 64; exec \"$@\"", "sh", env!("CARGO_BIN_EXE_ostiary")]).args(serving).env_clear();
    let server = Server::await_serving(Process::spawn(command));
    let client = server.client(&place.first_root_key()).await;
    assert!(is_served(&client).await);
    let crowd: Vec<_> = (0..100).filter_map(|_| TcpStream::connect(server.address).ok()).collect();
    await_some("complaint", || server.process.log().contains("a connection could not be taken").then_some(()));
    assert!(is_served(&client).await, "whoever is there goes on");
    drop(crowd);
    assert!(is_served(&server.client(&place.first_root_key()).await).await, "there is room again");
    let log = server.stop().stderr;
    assert!(log.contains("fewer file descriptors are allowed than --max-connections needs"), "{log}");
    assert!(log.matches("a connection could not be taken").count() <= 3, "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_shows_no_root_key_does_not_fill_the_log() {
    let place = Place::new();
    let server = place.serve(&[]);
    let stranger = server.client("nobodys").await;
    for _ in 0..100 {
        let refused = stranger.root_keys().who_am_i(pb::WhoAmIRequest::default()).await.unwrap_err();
        assert!(["ROOT_KEY_INVALID", "AUTH_ATTEMPTS_LIMITED"].contains(&reason(&refused).as_str()), "{refused:?}");
    }
    // Nor by calls whose time is over before anybody looks at the root key.
    for _ in 0..100 {
        let path = "/ostiary.v1.ApiService/CreateApi";
        let late = bare_at(server.address, "nobodys", path, &[("grpc-timeout", "0n")], &[]).await;
        assert_eq!(late.code(), Code::DeadlineExceeded);
    }
    let log = server.stop().stderr;
    let told: Vec<&str> = log.lines().filter(|line| line.contains("showed no good root key")).collect();
    assert!((1..=3).contains(&told.len()) && told[0].contains("ROOT_KEY_INVALID"), "{log}");
    assert!(!log.contains("Unauthenticated") && !log.contains("CreateApi"), "{log}");
}

/// Whether the server hangs up at once.
fn is_hung_up_on(mut connection: std::os::unix::net::UnixStream) -> bool {
    connection.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    matches!(connection.read(&mut [0; 1]), Ok(0))
}
