//! The end: what is under way finishes, what is new is refused, and nothing that was answered is lost.

use std::time::Duration;

use crate::certificates::Authority;
use crate::harness::{Client, reason};
use crate::process::{Place, Server, await_some};
use futures::StreamExt;
use ostiary::pb::v1 as pb;
use rustix::process::Signal;
use tokio::sync::oneshot;
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

type Watch = Streaming<HealthCheckResponse>;

async fn watch(server: &Server, service: &str) -> Watch {
    let client = Client::connect(server.address, None).await;
    let request = HealthCheckRequest { service: service.to_owned() };
    HealthClient::new(client.channel).watch(request).await.unwrap().into_inner()
}

/// What the stream says next.
async fn says(watch: &mut Watch) -> ServingStatus {
    let next = tokio::time::timeout(Duration::from_secs(30), watch.next()).await;
    next.expect("health says something").expect("the stream goes on").unwrap().status()
}

/// Skips what was said before it served.
async fn until(watch: &mut Watch, status: ServingStatus) {
    while says(watch).await != status {}
}

/// A call that the server has taken but can't answer yet, because its message is still to come.
async fn create_api_when(
    client: Client,
    name: &'static str,
    sent: oneshot::Sender<()>,
    go: oneshot::Receiver<()>,
) -> Result<Response<pb::CreateApiResponse>, Status> {
    let mut grpc = tonic::client::Grpc::new(client.channel.clone());
    grpc.ready().await.unwrap();
    let message = futures::stream::once(async move {
        // The message is asked for once the headers are on their way.
        sent.send(()).unwrap();
        go.await.unwrap();
        pb::CreateApiRequest { name: name.into(), ..Default::default() }
    });
    let mut request = Request::new(message);
    let bearer = format!("Bearer {}", client.headers.secret.as_ref().unwrap());
    request.metadata_mut().insert("authorization", bearer.parse().unwrap());
    let codec = tonic_prost::ProstCodec::default();
    grpc.client_streaming(request, "/ostiary.v1.ApiService/CreateApi".parse().unwrap(), codec).await
}

/// How a client says that the server takes no calls: no connection, or one that closed before the call was sent.
/// Whether it is the client's own word for a connection that ended: what a server answers has no source.
fn lost_its_connection(status: &Status) -> bool {
    matches!(status.code(), Code::Unavailable | Code::Cancelled) || std::error::Error::source(status).is_some()
}

async fn api_names(client: &Client) -> Vec<String> {
    let request = pb::ListApisRequest { page_size: 1_000, ..Default::default() };
    let answer = client.apis().list_apis(request).await.unwrap().into_inner();
    answer.apis.into_iter().map(|api| api.name).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_under_way_finishes_after_health_has_said_that_nothing_new_is_taken() {
    for signal in [Signal::TERM, Signal::INT] {
        let place = Place::new();
        let server = place.serve(&["--drain", "60s"]);
        let secret = place.first_root_key();
        let client = server.client(&secret).await;
        let mut watches = Vec::new();
        for service in ["", "ostiary.v1.verify", "ostiary.v1.manage"] {
            let mut watch = watch(&server, service).await;
            until(&mut watch, ServingStatus::Serving).await;
            watches.push(watch);
        }
        let (go, gate) = oneshot::channel();
        let (sent, is_sent) = oneshot::channel();
        let under_way = tokio::spawn(create_api_when(client.clone(), "under way", sent, gate));
        is_sent.await.unwrap();
        // An answer on the same connection: the call before it has arrived.
        client.root_keys().who_am_i(pb::WhoAmIRequest::default()).await.unwrap();

        server.process.signal(signal);
        for watch in &mut watches {
            until(watch, ServingStatus::NotServing).await;
        }
        drop(watches);
        // Who was still in the queue when the listener closed sees a reset, once.
        await_some("refusal", || {
            let refused = std::net::TcpStream::connect(server.address).err()?;
            (refused.kind() == std::io::ErrorKind::ConnectionRefused).then_some(())
        });
        // A connection takes calls until its client has been told; that is a matter of one round trip.
        let new = loop {
            if let Err(refused) = client.root_keys().who_am_i(pb::WhoAmIRequest::default()).await {
                break refused;
            }
        };
        assert!(lost_its_connection(&new), "{new:?}");

        go.send(()).unwrap();
        let finished = under_way.await.unwrap().unwrap().into_inner();
        assert_eq!(finished.api.unwrap().name, "under way");
        drop(client);
        let ended = server.process.ended();
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert!(!ended.stderr.contains("are cut"), "{ended:?}");

        let again = place.serve(&[]);
        assert_eq!(api_names(&again.client(&secret).await).await, ["under way"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_without_end_and_a_call_that_never_comes_hold_the_end_up_no_longer_than_the_drain() {
    let place = Place::new();
    let server = place.serve(&["--drain", "1s"]);
    let client = server.client(&place.first_root_key()).await;
    let mut watch = watch(&server, "").await;
    until(&mut watch, ServingStatus::Serving).await;
    let (never, gate) = oneshot::channel();
    let (sent, is_sent) = oneshot::channel();
    let stuck = tokio::spawn(create_api_when(client.clone(), "stuck", sent, gate));
    is_sent.await.unwrap();
    client.root_keys().who_am_i(pb::WhoAmIRequest::default()).await.unwrap();
    let ended = server.stop();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stderr.contains("are cut"), "{ended:?}");
    assert!(ended.stderr.contains("stopped"), "{ended:?}");
    assert!(stuck.await.unwrap().is_err());
    drop((never, watch));
    assert_eq!(place.serve(&[]).stop().code, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_connections_do_not_hold_the_end_up() {
    let place = Place::new();
    let server = place.serve(&["--drain", "10m"]);
    let client = server.client(&place.first_root_key()).await;
    client.root_keys().who_am_i(pb::WhoAmIRequest::default()).await.unwrap();
    let silent = std::net::TcpStream::connect(server.address).unwrap();
    let ended = server.stop();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(!ended.stderr.contains("are cut"), "{ended:?}");
    drop((client, silent));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_answered_while_stopping_is_there_after_the_next_start_and_nothing_else_is() {
    let place = Place::new();
    let server = place.serve(&[]);
    let secret = place.first_root_key();
    let mut makers = tokio::task::JoinSet::new();
    for maker in 0..8 {
        let client = server.client(&secret).await;
        makers.spawn(async move {
            let mut answered = Vec::new();
            for number in 0.. {
                let name = format!("api {maker} {number}");
                let request = pb::CreateApiRequest { name: name.clone(), ..Default::default() };
                match client.apis().create_api(request).await {
                    Ok(_) => answered.push(name),
                    Err(status) => {
                        assert!(lost_its_connection(&status), "{status:?}");
                        break;
                    }
                }
            }
            answered
        });
    }
    let client = server.client(&secret).await;
    while api_names(&client).await.len() < 40 {}
    drop(client);
    assert_eq!(server.stop().code, Some(0));
    let mut answered = makers.join_all().await.concat();
    answered.sort();
    let server = place.serve(&[]);
    let client = server.client(&secret).await;
    let mut there = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = pb::ListApisRequest { page_size: 1_000, page_token, ..Default::default() };
        let page = client.apis().list_apis(request).await.unwrap().into_inner();
        there.extend(page.apis.into_iter().map(|api| api.name));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    there.sort();
    assert_eq!(there, answered);
}

#[test]
fn a_connection_that_says_nothing_is_cut() {
    let place = Place::new();
    let server = place.serve(&[]);
    let mut silent = std::net::TcpStream::connect(server.address).unwrap();
    silent.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    assert_eq!(std::io::Read::read(&mut silent, &mut [0; 1]).unwrap(), 0, "the server hangs up, and has said nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_without_an_end_are_ended_encrypted_or_not() {
    let authority = Authority::new();
    for encrypted in [false, true] {
        let place = Place::new();
        authority.sign().write(&place);
        let flags = ["--drain", "10m", "--tls-cert", "cert.pem", "--tls-key", "key.pem"];
        let server = place.serve(if encrypted { &flags } else { &flags[..2] });
        let secret = place.first_root_key();
        let client = if encrypted {
            crate::tls::encrypted(server.address, &authority, None, &secret).await.unwrap()
        } else {
            server.client(&secret).await
        };
        let mut health = HealthClient::new(client.channel.clone());
        let mut watch = health.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
        until(&mut watch, ServingStatus::Serving).await;
        let questions = futures::stream::pending::<pb::StreamVerifyKeysRequest>();
        let mut verdicts = client.keys().stream_verify_keys(questions).await.unwrap().into_inner();
        server.process.signal(Signal::TERM);
        until(&mut watch, ServingStatus::NotServing).await;
        assert!(watch.next().await.is_none(), "the last news, then the end");
        let ended = verdicts.next().await.unwrap().unwrap_err();
        assert_eq!(reason(&ended), "SHUTTING_DOWN");
        let ended = server.process.ended();
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert!(!ended.stderr.contains("are cut"), "{ended:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_the_pause_health_says_no_and_calls_are_still_taken() {
    let place = Place::new();
    let server = place.serve(&["--drain-pause", "3s"]);
    let client = server.client(&place.first_root_key()).await;
    let mut watch = watch(&server, "").await;
    until(&mut watch, ServingStatus::Serving).await;
    server.process.signal(Signal::TERM);
    until(&mut watch, ServingStatus::NotServing).await;
    let late = server.client(&place.first_root_key()).await;
    late.root_keys().who_am_i(pb::WhoAmIRequest::default()).await.unwrap();
    client.root_keys().who_am_i(pb::WhoAmIRequest::default()).await.unwrap();
    drop((late, client, watch));
    assert_eq!(server.process.ended().code, Some(0));
}
