//! Where the server listens: several addresses at once, on the network and in the file system.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use hyper_util::rt::TokioIo;
use ostiary::pb::v1::WhoAmIRequest;
use ostiary::pb::v1::root_key_service_client::RootKeyServiceClient;
use tokio::net::UnixStream;
use tonic::Request;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use crate::harness::Client;
use crate::process::Place;

async fn over(socket: PathBuf) -> Channel {
    let connect = service_fn(move |_| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(TokioIo::new) }
    });
    Endpoint::from_static("http://localhost").connect_with_connector(connect).await.unwrap()
}

/// Who calls over a socket, by the server's own word.
pub async fn who(socket: PathBuf, secret: &str) -> String {
    let mut request = Request::new(WhoAmIRequest::default());
    request.metadata_mut().insert("authorization", format!("Bearer {secret}").parse().unwrap());
    let mut root_keys = RootKeyServiceClient::new(over(socket).await);
    root_keys.who_am_i(request).await.unwrap().into_inner().root_key.unwrap().root_key_id
}

#[tokio::test]
async fn a_unix_socket_and_a_port_are_served_at_once_and_alike() {
    let place = Place::new();
    let socket = place.data().with_file_name("socket");
    let listen = format!("unix:{}", socket.display());
    let server = place.serve(&["--listen", "127.0.0.1:0", "--listen", &listen]);
    let secret = place.first_root_key();
    assert_eq!(socket.metadata().unwrap().permissions().mode() & 0o777, 0o660);
    let over_tcp = Client::connect(server.address, Some(secret.clone())).await.me().await.unwrap();
    assert_eq!(who(socket.clone(), &secret).await, over_tcp.root_key_id);

    let other = Place::new();
    let taken = other.serve_in_vain(&["--listen", &listen]);
    assert_eq!(taken.code, Some(1));
    assert!(taken.stderr.contains(&format!("--listen {listen}")), "{}", taken.stderr);
    assert_eq!(who(socket.clone(), &secret).await.len(), "rk_".len() + 26, "the first goes on");
    drop(server);
    assert!(socket.exists(), "a server that was killed leaves its socket");

    let again = place.serve(&["--listen", "127.0.0.1:0", "--listen", &listen]);
    assert_eq!(who(socket.clone(), &secret).await.len(), "rk_".len() + 26, "it is replaced");
    again.stop();
    assert!(!socket.exists(), "a server that stops takes its socket away");
}

#[tokio::test]
async fn both_families_of_addresses_are_served() {
    if std::net::TcpListener::bind("[::1]:0").is_err() {
        eprintln!("NOT TESTED: there is no IPv6 here");
        return;
    }
    let place = Place::new();
    let server = place.serve(&["--listen", "[::1]:0", "--listen", "127.0.0.1:0"]);
    let secret = place.first_root_key();
    let addresses = server.process.log();
    let addresses = addresses.lines().filter(|line| line.contains(" serving "));
    let addresses: Vec<std::net::SocketAddr> = addresses
        .map(|line| line.split_once("address=").unwrap().1.split(' ').next().unwrap().parse().unwrap())
        .collect();
    assert!(addresses.len() == 2 && addresses[0].is_ipv6() && addresses[1].is_ipv4(), "{addresses:?}");
    for address in addresses {
        assert!(Client::connect(address, Some(secret.clone())).await.me().await.is_ok());
    }
}

#[tokio::test]
async fn what_is_no_socket_is_never_replaced() {
    let place = Place::new();
    let file = place.data().with_file_name("precious");
    std::fs::write(&file, "data").unwrap();
    let refused = place.serve_in_vain(&["--listen", &format!("unix:{}", file.display())]);
    assert_eq!(refused.code, Some(1));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "data");
}
