//! Connections that break: what was asked is done once, and the answer arrives.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;

use super::shell::{Shell, at};

/// Takes two connections to this server, and hangs up the first when the server has answered with this, before the
/// caller gets to read it.
fn cut_once(server: SocketAddr, answer: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        let (ours, mut theirs) = join(&listener, server);
        let mut told = Vec::new();
        let mut piece = [0; 4_096];
        while !told.windows(answer.len()).any(|window| window == answer) {
            let read = theirs.read(&mut piece).unwrap();
            assert!(read > 0, "the server has hung up first");
            told.extend_from_slice(&piece[..read]);
        }
        ours.shutdown(Shutdown::Both).unwrap();
        let (mut ours, mut theirs) = join(&listener, server);
        // However that ends.
        let _ = io::copy(&mut theirs, &mut ours);
    });
    address
}

/// A caller and the server, who hears all that the caller says.
fn join(listener: &TcpListener, server: SocketAddr) -> (TcpStream, TcpStream) {
    let (ours, _) = listener.accept().unwrap();
    let theirs = TcpStream::connect(server).unwrap();
    let (mut from, mut to) = (ours.try_clone().unwrap(), theirs.try_clone().unwrap());
    thread::spawn(move || {
        // However that ends.
        let _ = io::copy(&mut from, &mut to);
        let _ = to.flush();
    });
    (ours, theirs)
}

#[test]
fn a_change_whose_answer_is_lost_is_made_once_and_its_secret_arrives() {
    let shell = Shell::open();
    let api = shell.api("lossy");
    let proxy = cut_once(shell.server.address, b"lost_");
    let create = ["key", "create", "--api", &api, "--prefix", "lost", "--server", &proxy];
    let (key, _) = shell.issued(&create);
    assert_eq!(shell.feed(&key, &["verify", "--api", &api]).code, 0);
    let keys = shell.json(&["key", "list", "--api", &api]);
    assert_eq!(keys["keys"].as_array().unwrap().len(), 1, "{keys}");
    let events = shell.json(&["audit", "list", "--event", "key.create"]);
    assert_eq!(events["events"].as_array().unwrap().len(), 1, "{events}");
    assert_eq!(at(&keys, "/keys/0/prefix"), "lost");
}

#[test]
fn a_verification_whose_answer_is_lost_is_not_asked_for_again() {
    let shell = Shell::open();
    let api = shell.api("costly");
    let (key, told) = shell.issued(&["key", "create", "--api", &api, "--credits", "5"]);
    let proxy = cut_once(shell.server.address, b"key_");
    let lost = shell.feed(&key, &["verify", "--server", &proxy]);
    assert_eq!((lost.code, lost.stdout.as_str()), (6, ""), "{lost:?}");
    let shown = shell.json(&["key", "show", &told.field("key_id").unwrap()]);
    assert_eq!(at(&shown, "/key/credits/remaining"), "4");
}
