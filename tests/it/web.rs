//! gRPC-Web: the same calls as browsers make them, over HTTP/1.1, beside HTTP/2 on the same address.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Buf as _, Bytes};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use ostiary::pb::v1 as pb;
use prost::Message;
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::Code;

use crate::certificates::Authority;
use crate::coverage::walk::methods;
use crate::harness::{Client, root_key};
use crate::process::{Place, Server};
use crate::tls::{CERTIFIED, connected};

const PAGE: &str = "https://app.example.com";

/// An answer of HTTP/1.1.
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

/// One request over a connection of its own.
async fn send(address: SocketAddr, request: Request<Full<Bytes>>) -> Answer {
    send_over(tokio::net::TcpStream::connect(address).await.unwrap(), request).await
}

/// One request over a connection on which nothing has been said.
async fn send_over(stream: impl Stream, request: Request<Full<Bytes>>) -> Answer {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    answered(sender.send_request(request).await).await
}

/// The same in HTTP/2.
async fn send_in_http_2(stream: impl Stream, request: Request<Full<Bytes>>) -> Answer {
    let stream = TokioIo::new(stream);
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
    tokio::spawn(connection);
    answered(sender.send_request(request).await).await
}

async fn answered(answer: hyper::Result<Response<Incoming>>) -> Answer {
    let (head, body) = answer.unwrap().into_parts();
    Answer { status: head.status, headers: head.headers, body: body.collect().await.unwrap().to_bytes() }
}

/// A connection.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Stream for S {}

/// A call from a page.
fn request(path: &str, secret: Option<&str>, kind: &str, body: Bytes) -> Request<Full<Bytes>> {
    let mut request = Request::post(path).header("host", "ostiary").header("content-type", kind).header("origin", PAGE);
    if let Some(secret) = secret {
        request = request.header("authorization", format!("Bearer {secret}"));
    }
    request.body(Full::new(body)).unwrap()
}

fn framed(message: &impl Message) -> Bytes {
    let message = message.encode_to_vec();
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    [&[0], length.as_slice(), message.as_slice()].concat().into()
}

impl Answer {
    /// The code, from the headers or from the frame at the end, and the message if there is one.
    fn read(&self) -> (Code, Bytes) {
        assert_eq!(self.status, StatusCode::OK);
        let (mut rest, mut message, mut code) = (self.body.clone(), Bytes::new(), None);
        if let Some(status) = self.headers.get("grpc-status") {
            code = Some(Code::from_bytes(status.as_bytes()));
        }
        while rest.has_remaining() {
            let (kind, length) = (rest.get_u8(), rest.get_u32() as usize);
            let frame = rest.split_to(length);
            if kind & 0x80 == 0 {
                message = frame;
            } else {
                let trailers = String::from_utf8(frame.to_vec()).unwrap();
                let status = trailers.lines().find_map(|line| line.strip_prefix("grpc-status:")).unwrap().trim();
                code = Some(Code::from_bytes(status.as_bytes()));
            }
        }
        (code.unwrap(), message)
    }
}

fn served(place: &Place, others: &[&str]) -> (Server, String) {
    let server = place.serve(&[&["--grpc-web"], others].concat());
    let secret = place.first_root_key();
    (server, secret)
}

async fn call<M: Message + Default>(server: &Server, secret: &str, path: &str, message: &impl Message) -> M {
    let asked = request(path, Some(secret), "application/grpc-web+proto", framed(message));
    let (code, message) = send(server.address, asked).await.read();
    assert_eq!(code, Code::Ok, "{path}");
    M::decode(message).unwrap()
}

#[tokio::test]
async fn a_root_key_is_made_and_a_key_is_verified_over_http_1() {
    let place = Place::new();
    let (server, secret) = served(&place, &[]);
    let path = "/ostiary.v1.RootKeyService/CreateRootKey";
    let made: pb::CreateRootKeyResponse = call(&server, &secret, path, &root_key("page", &["apis.*.verify_key"])).await;
    let client = server.client(&secret).await;
    let api_id = client.api("documents").await.api_id;
    let (key, api_key) = client.key(pb::CreateKeyRequest { api_id, ..Default::default() }).await;
    let question = pb::VerifyKeyRequest { key: api_key.clone(), ..Default::default() };
    let path = "/ostiary.v1.KeyService/VerifyKey";
    let verified: pb::VerifyKeyResponse = call(&server, &made.secret, path, &question).await;
    let verdict = verified.verdict.unwrap();
    assert!(verdict.valid && verdict.key_id == Some(key.key_id));

    let text = Bytes::from(STANDARD.encode(framed(&question)));
    let asked = request(path, Some(&made.secret), "application/grpc-web-text", text);
    let asked = {
        let (mut head, body) = asked.into_parts();
        head.headers.insert("accept", "application/grpc-web-text".parse().unwrap());
        Request::from_parts(head, body)
    };
    let answer = send(server.address, asked).await;
    assert_eq!(
        (answer.status, answer.headers["content-type"].as_bytes()),
        (StatusCode::OK, b"application/grpc-web-text+proto".as_slice())
    );
    let log = server.stop().stderr;
    assert!(!log.contains(&secret) && !log.contains(&api_key));
}

#[tokio::test]
async fn encrypted_or_not_pages_are_answered_in_either_version_of_http() {
    let (place, authority) = (Place::new(), Authority::new());
    authority.sign().write(&place);
    let (server, secret) = served(&place, &CERTIFIED);
    let path = "/ostiary.v1.RootKeyService/WhoAmI";
    let asked =
        |uri: &str| request(uri, Some(&secret), "application/grpc-web+proto", framed(&pb::WhoAmIRequest::default()));
    let named = |answer: Answer| {
        let (code, message) = answer.read();
        assert_eq!(code, Code::Ok);
        assert_eq!(answer.headers["content-type"], "application/grpc-web+proto");
        pb::WhoAmIResponse::decode(message).unwrap().root_key.unwrap().name
    };
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let stream = connected(server.address, &authority, version, &["http/1.1"]).await.unwrap();
        assert_eq!(named(send_over(stream, asked(path)).await), "first root key");
        let stream = connected(server.address, &authority, version, &["h2", "http/1.1"]).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(b"h2".as_slice()));
        let uri = format!("https://localhost{path}");
        assert_eq!(named(send_in_http_2(stream, asked(&uri)).await), "first root key");
    }
    server.stop();

    let server = place.serve(&["--grpc-web"]);
    let stream = tokio::net::TcpStream::connect(server.address).await.unwrap();
    let uri = format!("http://localhost{path}");
    assert_eq!(named(send_in_http_2(stream, asked(&uri)).await), "first root key");
}

#[tokio::test]
async fn every_method_answers_as_it_does_over_http_2() {
    let place = Place::new();
    let (server, secret) = served(&place, &[]);
    let client = server.client(&secret).await;
    let stranger = Client { headers: Default::default(), ..client.clone() };
    // What is asked in a stream, or answered without an end, is not for pages.
    let streams = ["/StreamVerifyKeys", "/ImportKeys", "/WatchAuditEvents"];
    for method in methods().iter().filter(|method| !streams.iter().any(|stream| method.path.ends_with(stream))) {
        for (client, secret) in [(&client, Some(secret.as_str())), (&stranger, None)] {
            let code = match client.raw(&method.path, Vec::new(), Default::default()).await {
                Ok(_) => Code::Ok,
                Err(status) => status.code(),
            };
            let asked = request(&method.path, secret, "application/grpc-web", Bytes::from_static(&[0; 5]));
            let answer = send(server.address, asked).await;
            assert_eq!(answer.read().0, code, "{}", method.path);
            assert!(answer.headers.contains_key("x-request-id"));
        }
    }
}

#[tokio::test]
async fn only_pages_that_were_named_may_call_and_see_answers() {
    let place = Place::new();
    let (server, secret) = served(&place, &["--grpc-web-origins", PAGE]);
    let preflight = |origin: &str| {
        let request = Request::builder().method(Method::OPTIONS).uri("/ostiary.v1.RootKeyService/WhoAmI");
        let request = request.header("host", "ostiary").header("origin", origin);
        let request = request.header("access-control-request-method", "POST");
        let request = request.header("access-control-request-headers", "authorization,content-type,x-grpc-web");
        request.body(Full::default()).unwrap()
    };
    let answer = send(server.address, preflight(PAGE)).await;
    assert_eq!(answer.headers["access-control-allow-origin"], PAGE);
    let allowed = answer.headers["access-control-allow-headers"].to_str().unwrap().to_owned();
    assert!(allowed.contains("authorization") && allowed.contains("x-grpc-web"));
    let answer = send(server.address, preflight("https://elsewhere.example.com")).await;
    assert!(!answer.headers.contains_key("access-control-allow-origin"));
    let asked = request(
        "/ostiary.v1.RootKeyService/WhoAmI",
        Some(&secret),
        "application/grpc-web",
        framed(&pb::WhoAmIRequest::default()),
    );
    let answer = send(server.address, asked).await;
    assert_eq!(answer.headers["access-control-allow-origin"], PAGE);
    let exposed = answer.headers["access-control-expose-headers"].to_str().unwrap();
    assert!(exposed.contains("grpc-status") && exposed.contains("x-request-id"));

    let (place, origin) = (Place::new(), "access-control-allow-origin");
    let (server, _) = served(&place, &[]);
    assert!(!send(server.address, preflight(PAGE)).await.headers.contains_key(origin), "none by default");
}

#[tokio::test]
async fn what_is_no_grpc_web_is_refused_and_so_are_heads_without_an_end() {
    let place = Place::new();
    let (server, secret) = served(&place, &[]);
    let path = "/ostiary.v1.RootKeyService/WhoAmI";
    let plain = request(path, Some(&secret), "application/grpc", framed(&pb::WhoAmIRequest::default()));
    assert_eq!(send(server.address, plain).await.status, StatusCode::BAD_REQUEST);
    let mut get = request(path, Some(&secret), "application/grpc-web", Bytes::new());
    *get.method_mut() = Method::GET;
    assert_eq!(send(server.address, get).await.status, StatusCode::METHOD_NOT_ALLOWED);
    let mut long = request(path, Some(&secret), "application/grpc-web", Bytes::new());
    long.headers_mut().insert("x-long", "a".repeat(20 << 10).parse().unwrap());
    assert_eq!(send(server.address, long).await.status, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
}

#[test]
fn without_the_flag_nothing_but_http_2_is_spoken() {
    let place = Place::new();
    let server = place.serve(&[]);
    let mut stream = TcpStream::connect(server.address).unwrap();
    stream.write_all(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-type: application/grpc-web\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    // It may be a reset: what was sent was not read.
    let _ = stream.read_to_end(&mut answer);
    assert!(answer.is_empty());
}
