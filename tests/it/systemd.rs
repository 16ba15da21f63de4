//! Sockets that systemd passes, and what it is told.

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use crate::process::{Ended, Place, Process, Server};

/// Passes a socket as systemd does, as descriptor 3, with these flags of `serve`.
fn passed(place: &Place, socket: impl Into<OwnedFd>, flags: &[&str]) -> Process {
    let serve = place.command(&["serve", "--data-dir", "data"]);
    let mut command = Command::new("sh");
    command.args(["-c", "exec 3<&0 </dev/null; export LISTEN_FDS=1 LISTEN_PID=$$; exec \"$@\"", "sh"]);
    command.arg(serve.get_program()).args(serve.get_args()).args(flags);
    command.current_dir(serve.get_current_dir().unwrap()).env_clear().stdin(socket.into());
    Process::spawn(command)
}

fn complaint(ended: &Ended) -> &str {
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert_eq!(ended.stderr.lines().count(), 1, "{ended:?}");
    &ended.stderr
}

#[tokio::test]
async fn a_port_that_is_passed_is_served() {
    let place = Place::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = Server::await_serving(passed(&place, listener, &["--listen", "systemd"]));
    assert_eq!(server.address, address);
    let client = server.client(&place.first_root_key()).await;
    client.me().await.unwrap();
    drop(client);
    assert_eq!(server.stop().code, Some(0));
}

#[tokio::test]
async fn a_socket_that_is_passed_is_served_beside_a_port_and_left_where_it_is() {
    let place = Place::new();
    let path = place.path("socket");
    let listener = UnixListener::bind(&path).unwrap();
    let flags = ["--listen", "127.0.0.1:0", "--listen", "systemd"];
    let server = Server::await_serving(passed(&place, listener, &flags));
    let id = crate::listening::who(path.clone(), &place.first_root_key()).await;
    assert!(id.starts_with("rk_"));
    assert_eq!(server.stop().code, Some(0));
    assert!(path.exists(), "it belongs to systemd");
}

#[test]
fn what_is_passed_must_be_asked_for_and_what_is_asked_for_must_be_passed() {
    let place = Place::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let unasked = passed(&place, listener, &[]).ended();
    assert!(complaint(&unasked).contains("take them with --listen systemd"), "{unasked:?}");
    let missing = place.serve_in_vain(&["--listen", "systemd"]);
    assert!(complaint(&missing).contains("no sockets were passed"), "{missing:?}");
    let file = std::fs::File::open(place.write("file", "")).unwrap();
    let strange = passed(&place, file, &["--listen", "systemd"]).ended();
    assert!(complaint(&strange).contains("--listen systemd: socket 0: "), "{strange:?}");
    let exposed = TcpListener::bind("0.0.0.0:0").unwrap();
    let exposed = passed(&place, exposed, &["--listen", "systemd"]).ended();
    assert!(complaint(&exposed).contains("--allow-plaintext"), "{exposed:?}");
    assert!(!place.data().exists(), "nothing was touched");
}

#[test]
fn systemd_is_told_how_it_goes() {
    let place = Place::new();
    let path = place.path("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let told = || {
        let mut bytes = [0; 256];
        let length = socket.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    };
    // What it must hear again and again it may hear in between.
    let told_next = || loop {
        let news = told();
        if news != "WATCHDOG=1\n" {
            return news;
        }
    };
    let mut command = place.command(&["serve", "--data-dir", "data", "--listen", "127.0.0.1:0"]);
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "200000");
    let server = Server::await_serving(Process::spawn(command));
    assert_eq!(told_next(), "READY=1\n");
    while told() != "WATCHDOG=1\n" {}
    server.process.signal(Signal::HUP);
    let reloading = told_next();
    assert!(reloading.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{reloading}");
    assert_eq!(told_next(), "READY=1\n");
    assert_eq!(server.stop().code, Some(0));
    assert_eq!(told_next(), "STOPPING=1\n");
}
