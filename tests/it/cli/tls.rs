//! Encrypted connections: who is believed, and who has to show something.

use rcgen::{CertifiedKey, generate_simple_self_signed};
use tempfile::TempDir;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};

use super::shell::{Told, alone, at, told};
use crate::certificates::Authority;
use crate::process::Place;
use crate::tls::CERTIFIED;

/// A certificate for this machine and its key, as PEM.
fn certificate() -> (String, String) {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    (cert.pem(), signing_key.serialize_pem())
}

/// A server that says that it serves, to whoever shows a certificate, if that is asked.
async fn serve(tls: ServerTlsConfig) -> String {
    let (_, health) = tonic_health::server::health_reporter();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    let serving = Server::builder().tls_config(tls).unwrap().add_service(health);
    tokio::spawn(serving.serve_with_incoming(TcpListenerStream::new(listener)));
    address
}

/// Files with these texts, and their paths.
fn files<const N: usize>(directory: &TempDir, texts: [(&str, &str); N]) -> [String; N] {
    texts.map(|(name, text)| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    })
}

fn health(server: &str, more: &[&str]) -> Told {
    alone(&[&["health", "--server", server], more].concat())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_is_believed_by_the_authorities_that_are_named_and_no_others() {
    let (certificate, key) = certificate();
    let directory = TempDir::new().unwrap();
    let [ca, no_ca, other] =
        files(&directory, [("ca.pem", &certificate), ("key.pem", &key), ("other.pem", &self::certificate().0)]);
    let server = serve(ServerTlsConfig::new().identity(Identity::from_pem(&certificate, &key))).await;
    let good = health(&server, &["--ca", &ca]);
    assert_eq!((good.code, good.stdout.as_str()), (0, "SERVING\n"), "{good:?}");
    for more in [&[][..], &["--ca", &other]] {
        let doubted = health(&server, more);
        assert_eq!((doubted.code, doubted.stdout.as_str()), (6, ""), "{doubted:?}");
        assert!(doubted.complaint().contains("certificate"), "{doubted:?}");
    }
    let empty = health(&server, &["--ca", &no_ca]);
    assert_eq!(empty.code, 2, "{empty:?}");
    assert!(empty.complaint().contains("holds no certificate"), "{empty:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_asks_for_a_certificate_is_shown_one() {
    let (certificate, key) = certificate();
    let (shown, shown_key) = self::certificate();
    let directory = TempDir::new().unwrap();
    let [ca, cert, cert_key] =
        files(&directory, [("ca.pem", &certificate), ("cert.pem", &shown), ("key.pem", &shown_key)]);
    let tls = ServerTlsConfig::new().identity(Identity::from_pem(&certificate, &key));
    let server = serve(tls.client_ca_root(Certificate::from_pem(&shown))).await;
    let good = health(&server, &["--ca", &ca, "--client-cert", &cert, "--client-key", &cert_key]);
    assert_eq!((good.code, good.stdout.as_str()), (0, "SERVING\n"), "{good:?}");
    let none = health(&server, &["--ca", &ca]);
    assert_eq!((none.code, none.stdout.as_str()), (6, ""), "{none:?}");
    assert_eq!(health(&server, &["--ca", &ca, "--client-cert", &cert]).code, 2);
}

#[test]
fn ostiary_itself_is_called_encrypted_by_those_whose_certificates_it_takes() {
    let (place, authority, clients) = (Place::new(), Authority::new(), Authority::new());
    authority.sign().write(&place);
    place.write("ca.pem", &authority.pem);
    place.write("clients.pem", &clients.pem);
    let own = clients.sign();
    place.write("own.pem", &own.cert);
    place.write("own-key.pem", &own.key);
    let server = place.serve(&[&CERTIFIED[..], &["--tls-client-ca", "clients.pem"]].concat());
    let address = format!("https://localhost:{}", server.address.port());
    let create = |more: &[&str]| {
        let create = ["api", "create", "--name", "documents", "--output", "json", "--server", &address];
        let mut command = place.command(&[&create, more].concat());
        command.env("OSTIARY_ROOT_KEY", place.first_root_key());
        told(command, "")
    };
    let own = ["--client-cert", "own.pem", "--client-key", "own-key.pem"];
    let good = create(&[&own[..], &["--ca", "ca.pem"]].concat());
    assert_eq!(good.code, 0, "{good:?}");
    assert_eq!(at(&good.json(), "/api/name"), "documents");
    for more in [&["--ca", "ca.pem"][..], &[&own[..], &["--ca", "clients.pem"]].concat()] {
        let refused = create(more);
        assert_eq!((refused.code, refused.stdout.as_str()), (6, ""), "{refused:?}");
    }
    for flag in [&[][..], &["--alive"]] {
        let probe = |more: &[&str]| told(place.command(&[&["health", "--server", &address], flag, more].concat()), "");
        assert_eq!(probe(&[&own[..], &["--ca", "ca.pem"]].concat()).code, 0);
        assert_eq!(probe(&["--ca", "ca.pem"]).code, 6, "without a certificate of its own");
    }
    assert_eq!(server.stop().code, Some(0));
}
