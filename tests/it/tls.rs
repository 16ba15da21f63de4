//! Encrypted connections, with whose clients are let in, and what happens to the certificate while serving.

mod refused;
mod renewed;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use ostiary::pb::v1::WhoAmIRequest;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tokio::net::UnixStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};
use tower::service_fn;

use crate::certificates::{Authority, Signed};
use crate::harness::{Client, Headers};
use crate::process::{Place, Server};

/// The flags for a certificate that lies in a place.
pub const CERTIFIED: [&str; 4] = ["--tls-cert", "cert.pem", "--tls-key", "key.pem"];

/// A client that trusts this authority, and shows its own certificate if it has one.
pub async fn encrypted(
    address: SocketAddr,
    trusted: &Authority,
    own: Option<&Signed>,
    secret: &str,
) -> Result<Client, tonic::transport::Error> {
    let mut tls = ClientTlsConfig::new().domain_name("localhost").ca_certificate(Certificate::from_pem(&trusted.pem));
    if let Some(Signed { cert, key }) = own {
        tls = tls.identity(Identity::from_pem(cert, key));
    }
    let channel = Endpoint::from_shared(format!("https://{address}")).unwrap().tls_config(tls)?.connect().await?;
    Ok(Client { channel, headers: Headers { secret: Some(secret.to_owned()), ..Headers::default() } })
}

/// Whether it is answered.
async fn is_served(client: &Client) -> bool {
    client.root_keys().who_am_i(WhoAmIRequest::default()).await.is_ok()
}

/// A server with a certificate of this authority, with other flags besides, and its first root key.
fn certified(place: &Place, authority: &Authority, others: &[&str]) -> (Server, String) {
    authority.sign().write(place);
    let server = place.serve(&[&CERTIFIED, others].concat());
    let secret = place.first_root_key();
    (server, secret)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_network_is_encrypted_and_a_unix_socket_beside_it_stays_plain() {
    let (place, authority) = (Place::new(), Authority::new());
    let socket = place.path("socket");
    let listen = format!("unix:{}", socket.display());
    let (server, secret) = certified(&place, &authority, &["--listen", "127.0.0.1:0", "--listen", &listen]);
    let client = encrypted(server.address, &authority, None, &secret).await.unwrap();
    assert!(is_served(&client).await);
    assert!(encrypted(server.address, &Authority::new(), None, &secret).await.is_err(), "another authority");
    let plain = Endpoint::from_shared(format!("http://{}", server.address)).unwrap().connect().await;
    let plain = plain.map(|channel| Client { channel, headers: client.headers.clone() });
    assert!(match plain {
        Ok(plain) => !is_served(&plain).await,
        Err(_) => true,
    });

    let connect = service_fn(move |_| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(TokioIo::new) }
    });
    let channel = Endpoint::from_static("http://localhost").connect_with_connector(connect).await.unwrap();
    assert!(is_served(&Client { channel, headers: client.headers.clone() }).await);
    assert!(is_served(&client).await);
    let log = server.stop().stderr;
    let reminder = log.lines().find(|line| line.contains("A first call")).unwrap();
    assert!(!reminder.contains("-plaintext"), "{reminder}");
}

/// An encrypted connection of a client of this version that offers these protocols.
pub async fn connected(
    address: SocketAddr,
    authority: &Authority,
    version: &'static SupportedProtocolVersion,
    offered: &[&str],
) -> std::io::Result<TlsStream<tokio::net::TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.pem.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[version]).unwrap();
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = offered.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

/// What is agreed on with such a client.
async fn agreed(
    address: SocketAddr,
    authority: &Authority,
    version: &'static SupportedProtocolVersion,
    offered: &[&str],
) -> std::io::Result<Option<Vec<u8>>> {
    let stream = connected(address, authority, version, offered).await?;
    Ok(stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_versions_of_tls_agree_on_http2_and_on_nothing_else() {
    let (place, authority) = (Place::new(), Authority::new());
    let (server, _) = certified(&place, &authority, &[]);
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let both = agreed(server.address, &authority, version, &["http/1.1", "h2"]).await;
        assert_eq!(both.unwrap(), Some(b"h2".to_vec()), "{version:?}");
        assert!(agreed(server.address, &authority, version, &["http/1.1"]).await.is_err(), "{version:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_without_a_certificate_of_the_right_authority_are_not_let_in() {
    let (place, authority, of_clients) = (Place::new(), Authority::new(), Authority::new());
    place.write("clients.pem", &of_clients.pem);
    let (server, secret) = certified(&place, &authority, &["--tls-client-ca", "clients.pem"]);
    for wrong in [None, Some(Authority::new().sign()), Some(authority.sign()), Some(of_clients.sign_for(-30, -1))] {
        let client = encrypted(server.address, &authority, wrong.as_ref(), &secret).await;
        // In TLS 1.3 a client learns that it is refused after it has begun.
        if let Ok(client) = client {
            assert!(!is_served(&client).await);
        }
    }
    let client = encrypted(server.address, &authority, Some(&of_clients.sign()), &secret).await.unwrap();
    assert!(is_served(&client).await);
    let stranger = encrypted(server.address, &authority, Some(&of_clients.sign()), "").await.unwrap();
    assert!(!is_served(&stranger).await, "a root key is needed besides");
}

/// What comes after the client has said this, until the server hangs up.
fn hung_up_on_after(address: SocketAddr, said: &[u8]) -> Vec<u8> {
    let mut client = TcpStream::connect(address).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    client.write_all(said).unwrap();
    let mut answer = Vec::new();
    // A reset is a way of hanging up too, waiting longer than this is not.
    if let Err(error) = client.read_to_end(&mut answer) {
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    }
    answer
}

#[test]
fn who_does_not_get_done_with_beginning_is_hung_up_on() {
    let (place, authority) = (Place::new(), Authority::new());
    let (server, _) = certified(&place, &authority, &[]);
    let address = server.address;
    let threads =
        [&b""[..], b"\x16\x03\x01\x02\x00\x01"].map(|said| std::thread::spawn(move || hung_up_on_after(address, said)));
    let other = Place::new();
    let plain = other.serve(&[]);
    let address = plain.address;
    let begun = [&b"P"[..], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r", b"GET / HTTP/1.1\r\n\r\n"];
    let more = begun.map(|said| std::thread::spawn(move || hung_up_on_after(address, said)));
    for thread in threads.into_iter().chain(more) {
        thread.join().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_agreed_on_encryption_and_then_says_too_little_is_hung_up_on() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let (place, authority) = (Place::new(), Authority::new());
    let (server, _) = certified(&place, &authority, &[]);
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.pem.as_bytes()).unwrap()).unwrap();
    let config = Arc::new(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth());
    for said in [&b""[..], b"PRI * HTTP/2.0"] {
        let stream = tokio::net::TcpStream::connect(server.address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let mut stream = TlsConnector::from(Arc::clone(&config)).connect(name, stream).await.unwrap();
        stream.write_all(said).await.unwrap();
        let ended = tokio::time::timeout(Duration::from_secs(30), stream.read(&mut [0; 1])).await.unwrap();
        assert!(!matches!(ended, Ok(1)), "nothing is answered");
    }
}
