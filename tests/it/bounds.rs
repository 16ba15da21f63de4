//! How many connections and calls there may be at a time, how long a connection may last, and who goes first.

use std::io::Read as _;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo};
use ostiary::pb::v1 as pb;
use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
use tokio::sync::oneshot;
use tonic::{Code, Request, Response, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_types::StatusExt;

use crate::harness::{Client, reason};
use crate::process::{Place, await_some};

/// A connection from this address of the machine itself.
pub fn from(own: Ipv4Addr, to: SocketAddr) -> TcpStream {
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    bind(&socket, &SocketAddr::from((own, 0))).unwrap();
    connect(&socket, &to).unwrap();
    TcpStream::from(socket)
}

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
    let held = [0; 3].map(|_| from(greedy, server.address));
    let fourth = from(greedy, server.address);
    await_some("hanging up on the fourth of one peer", || is_closed(&fourth).then_some(()));
    assert!(held.iter().all(|held| !is_closed(held)));
    let last = from(Ipv4Addr::new(127, 0, 0, 10), server.address);
    let beyond = from(Ipv4Addr::new(127, 0, 0, 11), server.address);
    await_some("hanging up on the sixth of all", || is_closed(&beyond).then_some(()));
    assert!(!is_closed(&last));
    assert!(is_served(&client).await);
    drop(held);
    let again = await_some("room for one more", || {
        let again = from(greedy, server.address);
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
    let (go, gate) = oneshot::channel();
    let (sent, is_sent) = oneshot::channel();
    let under_way = tokio::spawn(when(client.clone(), "/ostiary.v1.ApiService/CreateApi", named("kept"), sent, gate));
    is_sent.await.unwrap();
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
    go.send(()).unwrap();
    under_way.await.unwrap().unwrap();
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
    let server = place.serve(&["--max-calls", "4"]);
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
    for _ in 0..2 {
        waiting.begin(&client, "/ostiary.v1.KeyService/VerifyKey", encoded.clone()).await;
    }
    let refused = client.keys().verify_key(question.clone()).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::Unavailable, "OVERLOADED"));
    HealthClient::new(client.channel.clone()).check(HealthCheckRequest::default()).await.unwrap();
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
