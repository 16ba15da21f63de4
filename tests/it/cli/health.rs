//! Probes: what they answer while a server serves, and after.

use rustix::process::Signal;

use super::shell::{Shell, alone};
use crate::process::{Place, await_some};

#[test]
fn a_server_that_serves_says_so_on_every_listener_to_anybody() {
    let shell = Shell::open();
    let address = shell.address();
    for server in [address.as_str(), "unix:socket"] {
        for more in [&[][..], &["--service", "ostiary.v1.verify"], &["--service", "ostiary.v1.manage"]] {
            let told = shell.told(shell.bare(&[], &[&["health", "--server", server], more].concat()), "");
            assert_eq!((told.code, told.stdout.as_str(), told.stderr.as_str()), (0, "SERVING\n", ""), "{server}");
        }
    }
    let json = shell.told(shell.bare(&[("OSTIARY_SERVER", "unix:socket")], &["health", "-o", "json"]), "");
    assert_eq!(json.json(), serde_json::json!({"status": "SERVING"}));
    let unknown = shell.told(shell.bare(&[], &["health", "--server", &address, "--service", "nobody"]), "");
    assert_eq!((unknown.code, unknown.stdout.as_str()), (4, ""), "{unknown:?}");
    shell.close();
    let gone = alone(&["health", "--server", &address, "--timeout", "5s"]);
    assert_eq!((gone.code, gone.stdout.as_str()), (6, ""), "{gone:?}");
    assert!(gone.complaint().contains(&address), "{gone:?}");
}

#[test]
fn what_answers_is_alive_whatever_it_says() {
    let place = Place::new();
    let server = place.serve(&["--drain-pause", "30s"]);
    let address = format!("http://{}", server.address);
    let probe = |more: &[&str]| alone(&[&["health", "--server", &address], more].concat());
    server.process.signal(Signal::TERM);
    let told = await_some("word that it does not serve", || Some(probe(&[])).filter(|told| told.code == 6));
    assert!(told.stdout.contains("NOT_SERVING"), "{told:?}");
    let told = probe(&["--alive"]);
    assert_eq!((told.code, told.stdout.as_str()), (0, "NOT_SERVING\n"), "{told:?}");
    assert_eq!(probe(&["--alive", "--service", "ostiary.v1.verify"]).code, 2);
}

#[test]
fn what_is_no_server_is_waited_for_as_long_as_told() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", silent.local_addr().unwrap());
    let told = alone(&["health", "--server", &address, "--timeout", "50ms"]);
    assert_eq!(told.code, 6, "{told:?}");
    assert!(told.complaint().contains("50ms"), "{told:?}");
    let nowhere = alone(&["health", "--server", "unix:/nowhere/socket"]);
    assert_eq!(nowhere.code, 6, "{nowhere:?}");
    for server in ["127.0.0.1:50051", "unix:", "ftp://a"] {
        assert_eq!(alone(&["health", "--server", server]).code, 2, "{server}");
    }
}
