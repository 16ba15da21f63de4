//! The first start, and every start after it: who gets the first root key, and what is refused with which remedy.

use std::path::Path;

use crate::harness::{Client, refusal};
use crate::process::{Ended, Place, mode, set_mode};
use ostiary::domain::secret::{Prefix, Secret};
use ostiary::pb::v1 as pb;
use tonic::Code;

/// What a line begins with that says where the first root key lies.
const NAG: &str = "the first root key is in ";

async fn who_am_i(client: &Client) -> pb::WhoAmIResponse {
    client.root_keys().who_am_i(pb::WhoAmIRequest::default()).await.unwrap().into_inner()
}

/// The one line with which a process gave up.
fn complaint(ended: &Ended, code: i32) -> String {
    assert_eq!(ended.code, Some(code), "{ended:?}");
    assert_eq!(ended.stdout, "", "{ended:?}");
    let complaints: Vec<&str> = ended.stderr.lines().filter(|line| line.starts_with("ostiary: ")).collect();
    assert_eq!(complaints.len(), 1, "{ended:?}");
    complaints[0].to_owned()
}

fn names_in(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        directory.read_dir().unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn generated(place: &Place) -> String {
    let ended = place.run(&["generate-root-key"]);
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
    ended.stdout.trim_end().to_owned()
}

#[tokio::test]
async fn the_first_start_leaves_a_working_root_key_that_only_its_owner_can_read_and_never_prints_it() {
    let place = Place::new();
    let server = place.serve(&["--log-level", "trace"]);
    assert_eq!(mode(&place.data()), 0o700);
    assert_eq!(mode(&place.first_root_key_file()), 0o600);
    assert_eq!(mode(&place.data().join("ostiary.redb")), 0o600);
    let secret = place.first_root_key();
    let pb::WhoAmIResponse { root_key, workspace, meta: _ } = who_am_i(&server.client(&secret).await).await;
    assert_eq!(root_key.unwrap().permissions, ["*.*.*", "workspaces.*.*"]);
    assert_eq!(workspace.unwrap().name, "default");
    let ended = server.stop();
    assert_eq!(ended.code, Some(0));
    let (_, tail) = secret.rsplit_once('_').unwrap();
    assert!(!ended.stdout.contains(tail) && !ended.stderr.contains(tail));
    assert_eq!(names_in(&place.data()), ["first-root-key", "ostiary.redb"]);
}

#[tokio::test]
async fn a_second_start_changes_nothing_and_nags_in_one_line_until_the_file_is_gone() {
    let place = Place::new();
    let first = place.serve(&[]);
    let secret = place.first_root_key();
    let id = who_am_i(&first.client(&secret).await).await.root_key.unwrap().root_key_id;
    assert_eq!(first.stop().stderr.matches(NAG).count(), 1);

    let second = place.serve(&[]);
    assert_eq!(place.first_root_key(), secret);
    let client = second.client(&secret).await;
    assert_eq!(who_am_i(&client).await.root_key.unwrap().root_key_id, id);
    assert_eq!(client.events().await, ["workspace.create", "root_key.create"]);
    let address = second.address.to_string();
    let log = second.stop().stderr;
    let nags: Vec<&str> = log.lines().filter(|line| line.contains(NAG)).collect();
    assert_eq!(nags.len(), 1, "{log}");
    assert!(nags[0].contains(place.first_root_key_file().to_str().unwrap()), "{log}");
    assert!(nags[0].contains(&address), "the first call goes where the server is: {log}");

    std::fs::remove_file(place.first_root_key_file()).unwrap();
    let third = place.serve(&[]);
    assert_eq!(who_am_i(&third.client(&secret).await).await.root_key.unwrap().root_key_id, id);
    assert!(!third.stop().stderr.contains(NAG));
    assert!(!place.first_root_key_file().exists(), "it is not made again");
}

#[test]
fn a_data_directory_that_others_can_look_into_is_refused_with_the_remedy() {
    for lax in [0o755, 0o750, 0o701] {
        let place = Place::new();
        std::fs::create_dir(place.data()).unwrap();
        set_mode(&place.data(), lax);
        let complaint = complaint(&place.serve_in_vain(&[]), 1);
        assert!(complaint.contains(&format!("chmod 700 {}", place.data().display())), "{complaint}");
        assert_eq!(names_in(&place.data()), <[&str; 0]>::default());
    }
}

#[test]
fn a_first_root_key_file_that_others_can_read_is_refused_with_the_remedy() {
    let place = Place::new();
    let secret = generated(&place);
    let supplied = place.write("supplied", &secret);
    set_mode(&supplied, 0o644);
    let complaint = complaint(&place.serve_in_vain(&["--first-root-key-file", supplied.to_str().unwrap()]), 1);
    assert!(complaint.contains(&format!("chmod 600 {}", supplied.display())), "{complaint}");
    assert!(!complaint.contains(&secret));
}

#[test]
fn a_file_that_does_not_hold_a_root_key_is_refused_and_not_quoted() {
    let api_key = Secret::issue(&Prefix::default(), [7; 24]).expose().to_owned();
    let good = Secret::issue(&Prefix::root_key(), [7; 24]).expose().to_owned();
    let mistyped = good.replace(&good[20..21], if &good[20..21] == "x" { "y" } else { "x" });
    for bad in ["", "\n", "correct horse battery staple", &api_key, &mistyped, &format!("{good}\n{good}")] {
        let place = Place::new();
        let supplied = place.write("supplied", bad);
        let ended = place.serve_in_vain(&["--first-root-key-file", supplied.to_str().unwrap()]);
        let complaint = complaint(&ended, 1);
        assert!(complaint.contains("ostiary generate-root-key"), "{complaint}");
        assert!(bad.trim().is_empty() || !ended.stderr.contains(bad.trim()), "{bad}");
    }
    let place = Place::new();
    let complaint = complaint(&place.serve_in_vain(&["--first-root-key-file", "nowhere"]), 1);
    assert!(complaint.contains("nowhere"), "{complaint}");
}

#[tokio::test]
async fn a_generated_root_key_is_adopted_by_an_empty_store_and_by_no_other() {
    let place = Place::new();
    let (first, second) = (generated(&place), generated(&place));
    assert_ne!(first, second);
    let supplied = place.write("supplied", &format!("{first}\n"));
    let server = place.serve(&["--first-root-key-file", supplied.to_str().unwrap()]);
    assert_eq!(who_am_i(&server.client(&first).await).await.root_key.unwrap().name, "first root key");
    assert!(!place.first_root_key_file().exists(), "the operator has the key already");
    assert!(!server.stop().stderr.contains(NAG));

    let other = place.write("other", &second);
    let server = place.serve(&["--first-root-key-file", other.to_str().unwrap()]);
    who_am_i(&server.client(&first).await).await;
    let stranger = server.client(&second).await;
    let refused = refusal(stranger.root_keys().who_am_i(pb::WhoAmIRequest::default()).await);
    assert_eq!(refused, (Code::Unauthenticated, "ROOT_KEY_INVALID".to_owned()));
}

#[tokio::test]
async fn a_file_left_by_a_first_start_that_was_cut_short_is_adopted() {
    let place = Place::new();
    let secret = generated(&place);
    std::fs::create_dir(place.data()).unwrap();
    set_mode(&place.data(), 0o700);
    place.write("data/first-root-key", &secret);
    place.write("data/first-root-key.new", "half a k");
    let server = place.serve(&[]);
    who_am_i(&server.client(&secret).await).await;
    assert_eq!(place.first_root_key(), secret);
}

#[test]
fn an_address_that_other_machines_can_reach_needs_to_be_allowed_explicitly() {
    let place = Place::new();
    let complaint = complaint(&place.serve_in_vain(&["--listen", "0.0.0.0:0"]), 2);
    assert!(complaint.contains("--allow-plaintext"), "{complaint}");
    assert!(!place.data().exists(), "nothing was touched");
    let server = place.serve(&["--listen", "0.0.0.0:0", "--allow-plaintext"]);
    assert_eq!(server.stop().code, Some(0));
}

#[test]
fn a_port_that_is_taken_is_named_in_one_line() {
    let (first, second) = (Place::new(), Place::new());
    let server = first.serve(&[]);
    let address = server.address.to_string();
    let complaint = complaint(&second.serve_in_vain(&["--listen", &address]), 1);
    assert!(complaint.contains(&format!("--listen {address}")), "{complaint}");
    // What the first start had prepared is not lost.
    assert_eq!(second.serve(&[]).stop().code, Some(0));
}

#[test]
fn a_second_process_on_the_same_data_is_refused_and_the_first_serves_on() {
    let place = Place::new();
    let server = place.serve(&[]);
    let complaint = complaint(&place.serve_in_vain(&[]), 1);
    assert!(complaint.contains("ostiary.redb"), "{complaint}");
    assert!(complaint.contains("another process"), "{complaint}");
    assert_eq!(server.stop().code, Some(0));
}

#[test]
fn a_command_line_that_makes_no_sense_ends_with_2() {
    let place = Place::new();
    for nonsense in [
        &["serve", "--listen", "here"][..],
        &["serve", "--cache-mib", "1"],
        &["serve", "--retention", "1m"],
        &["serve", "--log-level", "ostiary=loud"],
        &["preserve"],
        &[],
    ] {
        let ended = place.run(nonsense);
        assert_eq!(ended.code, Some(2), "{nonsense:?}: {ended:?}");
        assert!(!place.data().exists() && !place.path("ostiary-data").exists(), "{nonsense:?}");
    }
}
