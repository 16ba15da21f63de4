//! What is wrong around the server ends a start with one line that says what to do.

use std::os::unix::net::UnixListener;

use crate::process::{Place, set_mode};

/// The one line with which a server gave up that was started with these flags.
fn complaint(place: &Place, flags: &[&str]) -> String {
    let ended = place.run(&[&["serve"], flags].concat());
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""), "{ended:?}");
    let complaints: Vec<&str> = ended.stderr.lines().filter(|line| line.starts_with("ostiary: ")).collect();
    assert_eq!(complaints.len(), 1, "{ended:?}");
    complaints[0].to_owned()
}

#[test]
fn a_place_that_is_taken_or_that_is_not_there() {
    let place = Place::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let said = complaint(&place, &["--data-dir", "data", "--listen", &address]);
    assert!(said.contains(&format!("--listen {address}: ")), "{said}");
    assert!(said.ends_with("something listens there already: stop it, or listen elsewhere"), "{said}");

    let _live = UnixListener::bind(place.path("live")).unwrap();
    let said = complaint(&place, &["--data-dir", "data", "--listen", "unix:live"]);
    assert!(said.contains("--listen unix:live: "), "{said}");
    assert!(said.ends_with("something listens there already: stop it, or listen elsewhere"), "{said}");

    let said = complaint(&place, &["--data-dir", "data", "--listen", "unix:nowhere/socket"]);
    assert!(said.ends_with("the directory of the socket is missing: make it"), "{said}");

    // Kept for documentation: no machine has it.
    let said = complaint(&place, &["--data-dir", "data", "--listen", "192.0.2.1:1", "--allow-plaintext"]);
    assert!(said.ends_with("this machine has no such address: listen on one that it has"), "{said}");
}

#[test]
fn a_data_directory_that_can_not_be_made_or_written_to() {
    let place = Place::new();
    place.write("file", "");
    let listen = ["--listen", "127.0.0.1:0"];
    let said = complaint(&place, &[&listen[..], &["--data-dir", "file"]].concat());
    assert!(said.contains("file: the data directory is not a directory; name another with --data-dir"), "{said}");
    for impossible in ["file/data", "/proc/ostiary-data"] {
        let said = complaint(&place, &[&listen[..], &["--data-dir", impossible]].concat());
        assert!(said.contains(&format!("{impossible}: the data directory can't be made: ")), "{said}");
        assert!(said.ends_with("make it for this user alone, or name another with --data-dir"), "{said}");
    }
    // The superuser may write everywhere.
    if !rustix::process::geteuid().is_root() {
        std::fs::create_dir(place.data()).unwrap();
        set_mode(&place.data(), 0o500);
        let said = complaint(&place, &[&listen[..], &["--data-dir", "data"]].concat());
        assert!(said.contains("data: the data directory can't be written to: Permission denied"), "{said}");
        assert!(said.ends_with("give it to the user that runs ostiary, or name another with --data-dir"), "{said}");
    }
}

#[test]
fn a_data_directory_that_another_ostiary_has() {
    let place = Place::new();
    let server = place.serve(&[]);
    let said = complaint(&place, &["--data-dir", "data", "--listen", "127.0.0.1:0"]);
    assert!(
        said.ends_with("data/ostiary.redb open; stop that one first, or name another directory with --data-dir"),
        "{said}"
    );
    assert_eq!(server.stop().code, Some(0));
}
