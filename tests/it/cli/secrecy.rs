//! Where secrets come from, and where they never appear.

use std::process::Stdio;

use super::shell::{Shell, alone, at};
use crate::process::set_mode;

#[test]
fn the_root_key_comes_from_one_place_that_others_can_not_read() {
    let shell = Shell::open();
    let server = ("OSTIARY_SERVER", shell.address());
    let server = (server.0, server.1.as_str());
    let run = |variables: &[(&str, &str)]| {
        shell.told(shell.bare(&[variables, &[server]].concat(), &["root-key", "who-am-i"]), "")
    };
    let file = shell.place.write("root-key", &format!("{}\n", shell.root_key));
    let path = file.to_str().unwrap();
    assert_eq!(run(&[("OSTIARY_ROOT_KEY_FILE", path)]).code, 0);
    assert_eq!(run(&[("OSTIARY_ROOT_KEY_FILE", path), ("OSTIARY_ROOT_KEY", "")]).code, 0);
    assert_eq!(run(&[("OSTIARY_ROOT_KEY_FILE", ""), ("OSTIARY_ROOT_KEY", &shell.root_key)]).code, 0);
    let both = run(&[("OSTIARY_ROOT_KEY_FILE", path), ("OSTIARY_ROOT_KEY", &shell.root_key)]);
    assert_eq!(both.code, 2, "{both:?}");
    assert!(both.complaint().contains("both set"), "{both:?}");
    for mode in [0o640, 0o604, 0o660] {
        set_mode(&file, mode);
        let open = run(&[("OSTIARY_ROOT_KEY_FILE", path)]);
        assert_eq!(open.code, 2, "{open:?}");
        assert!(
            open.complaint().contains(&format!("{mode:04o}")) && open.complaint().contains("chmod 600"),
            "{open:?}"
        );
    }
    let none = run(&[]);
    assert_eq!(none.code, 2, "{none:?}");
    assert!(none.complaint().contains("OSTIARY_ROOT_KEY"), "{none:?}");
    let nowhere = run(&[("OSTIARY_ROOT_KEY_FILE", "nowhere")]);
    assert_eq!(nowhere.code, 2, "{nowhere:?}");
    for wrong in ["nonsense", "ostiary_00000000000000000000000000000000000000000000000"] {
        let refused = run(&[("OSTIARY_ROOT_KEY", wrong)]);
        assert_eq!(refused.code, 3, "{refused:?}");
        assert!(!refused.stderr.contains(wrong), "{refused:?}");
    }
    let spaced = run(&[("OSTIARY_ROOT_KEY", "two words")]);
    assert_eq!(spaced.code, 2, "{spaced:?}");
    assert!(!spaced.stderr.contains("words"), "{spaced:?}");
}

#[test]
fn a_secret_among_the_arguments_is_refused_and_not_repeated() {
    let shell = Shell::open();
    let api = shell.api("arguments");
    let (key, _) = shell.issued(&["key", "create", "--api", &api]);
    for arguments in [
        vec!["verify", &key],
        vec!["verify", "--api", &key],
        vec!["root-key", "show", &shell.root_key],
        vec!["key", "list", &format!("--start={key}")],
    ] {
        let refused = shell.run(&arguments);
        assert_eq!((refused.code, refused.stdout.as_str()), (2, ""), "{refused:?}");
        assert!(refused.complaint().contains("is a secret"), "{refused:?}");
    }
    // One that comes a wrong way, but in time, is not repeated either.
    let lost = shell.feed(&key, &["import"]);
    assert_eq!(lost.code, 8, "{lost:?}");
}

#[test]
fn as_json_a_secret_is_in_its_one_field_of_the_one_answer_that_makes_it() {
    let shell = Shell::open();
    let created = shell.json(&["root-key", "create", "--name", "j", "--permission", "apis.*.read_api"]);
    let secret = at(&created, "/secret");
    assert_eq!(created.to_string().matches(secret.rsplit_once('_').unwrap().1).count(), 1);
    let id = at(&created, "/rootKey/rootKeyId");
    for command in [&["root-key", "show", id, "--usage"][..], &["root-key", "list"], &["audit", "list"]] {
        let answer = shell.json(command);
        assert!(answer.get("secret").is_none() && !answer.to_string().contains(secret), "{command:?}");
    }
    let tried = shell.json(&["root-key", "rotate", id, "--grace", "1h", "--dry-run"]);
    assert_eq!(at(&tried, "/secret"), "");
    let tried = shell.done(&["root-key", "rotate", id, "--grace", "1h", "--dry-run"]);
    assert_eq!(tried.stdout, "");
    assert!(tried.stderr.contains("dry run"), "{tried:?}");
}

#[test]
fn a_secret_that_nobody_can_take_is_a_failure_and_a_list_that_nobody_reads_is_none() {
    let shell = Shell::open();
    let full = || Stdio::from(std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap());
    let create = ["root-key", "create", "--name", "lost", "--permission", "apis.*.read_api"];
    let output = shell.command(&shell.root_key, &create).stdout(full()).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("could not be written and is lost"), "{stderr}");
    let closed = || {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        Stdio::from(writer)
    };
    for (arguments, code) in [(&["root-key", "list"][..], 0), (&create, 1), (&["completions", "bash"], 0)] {
        let output = shell.command(&shell.root_key, arguments).stdout(closed()).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {stderr}");
        assert!(!stderr.contains("panicked"), "{stderr}");
    }
    // Nor does it matter that nobody reads what is said beside it.
    let output = shell.command(&shell.root_key, &create).stderr(closed()).output().unwrap();
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn the_root_key_leaves_the_machine_encrypted_or_with_permission() {
    let run = |more: &[&str]| {
        let arguments = [&["api", "list", "--server", "http://192.0.2.1:1", "--timeout", "10ms"], more].concat();
        let mut command = std::process::Command::new(super::shell::OSTIARY);
        command.args(arguments).env_clear().env("OSTIARY_ROOT_KEY", "anything");
        super::shell::told(command, "")
    };
    let refused = run(&[]);
    assert_eq!(refused.code, 2, "{refused:?}");
    assert!(refused.complaint().contains("--allow-plaintext"), "{refused:?}");
    assert_eq!(run(&["--allow-plaintext"]).code, 6);
    let misplaced = run(&["--allow-plaintext", "--ca", "x"]);
    assert_eq!(misplaced.code, 2, "{misplaced:?}");
    let missing = alone(&["health", "--server", "https://127.0.0.1:1", "--ca", "nowhere.pem"]);
    assert_eq!(missing.code, 2, "{missing:?}");
    assert!(missing.complaint().contains("--ca nowhere.pem"), "{missing:?}");
    let half = alone(&["health", "--server", "https://127.0.0.1:1", "--client-cert", "nowhere.pem"]);
    assert_eq!(half.code, 2, "{half:?}");
}
