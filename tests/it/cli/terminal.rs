//! At a terminal: questions are asked, and secrets are typed unseen.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use super::importing::row;
use super::shell::{Running, Shell, at};
use crate::process::await_some;

/// Both ends of a terminal: what a person holds, and what a program has.
fn terminal() -> (File, OwnedFd) {
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&ours).unwrap();
    unlockpt(&ours).unwrap();
    let name = ptsname(&ours, Vec::new()).unwrap();
    let path = std::ffi::OsStr::from_bytes(name.as_bytes());
    let theirs = OpenOptions::new().read(true).write(true).open(path).unwrap();
    tcsetwinsize(&theirs, Winsize { ws_row: 24, ws_col: 120, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
    (File::from(ours), OwnedFd::from(theirs))
}

/// Runs it at a terminal, answers its first question, and returns its exit code, all that the terminal showed, and what
/// it wrote to standard output.
fn answered(command: Command, prompt: &str, answer: &str) -> (i32, String, String) {
    at_terminal(command, |ours, shown| {
        await_some("question", || String::from_utf8_lossy(&shown.lock().unwrap()).contains(prompt).then_some(()));
        writeln!(ours, "{answer}").unwrap();
    })
}

/// Runs it at a terminal while somebody who sits there does something, and returns the same.
fn at_terminal(mut command: Command, act: impl FnOnce(&mut File, &Mutex<Vec<u8>>)) -> (i32, String, String) {
    let (mut ours, theirs) = terminal();
    let stdin = theirs.try_clone().unwrap();
    command.env("TERM", "xterm").stdin(Stdio::from(stdin)).stderr(Stdio::from(theirs)).stdout(Stdio::piped());
    let mut running = Running(command.spawn().unwrap());
    // It holds the other end of the terminal open, as it would for another process.
    drop(command);
    let shown = Arc::new(Mutex::new(Vec::new()));
    let (mut screen, showing) = (ours.try_clone().unwrap(), Arc::clone(&shown));
    let watching = thread::spawn(move || {
        let mut piece = [0; 256];
        // The end of a terminal is an error on Linux.
        while let Ok(read) = screen.read(&mut piece)
            && read > 0
        {
            showing.lock().unwrap().extend_from_slice(&piece[..read]);
        }
    });
    act(&mut ours, &shown);
    let code = running.code().unwrap();
    watching.join().unwrap();
    let mut stdout = String::new();
    running.0.stdout.take().unwrap().read_to_string(&mut stdout).unwrap();
    let shown = String::from_utf8(shown.lock().unwrap().clone()).unwrap();
    (code, shown, stdout)
}

#[test]
fn nothing_is_deleted_unless_the_answer_is_yes() {
    let shell = Shell::open();
    let api = shell.api("asked for");
    let delete = |answer: &str| {
        let command = shell.command(&shell.root_key, &["api", "delete", &api]);
        answered(command, "with all its keys? [y/N] ", answer)
    };
    for no in ["", "n", "no", "what?"] {
        let (code, shown, _) = delete(no);
        assert_eq!(code, 1, "{shown}");
        assert!(shown.contains(&api) && shown.contains("declined"), "{shown}");
    }
    assert_eq!(at(&shell.json(&["api", "show", &api]), "/api/name"), "asked for");
    let (code, shown, _) = delete("y");
    assert_eq!(code, 0, "{shown}");
    assert_eq!(shell.run(&["api", "show", &api]).code, 4);
}

#[test]
fn a_key_is_typed_unseen() {
    let shell = Shell::open();
    let api = shell.api("typed");
    let (key, _) = shell.issued(&["key", "create", "--api", &api]);
    let command = shell.command(&shell.root_key, &["verify", "--api", &api]);
    let (code, shown, stdout) = answered(command, "Key: ", &key);
    assert_eq!(code, 0, "{stdout}");
    assert!(!shown.contains(&key), "the terminal shows it");
    assert!(stdout.contains("VALID"), "{stdout}");
}

#[test]
fn an_import_shows_how_far_it_is_and_leaves_only_its_result() {
    let shell = Shell::open();
    let api = shell.api("imported");
    let rows: Vec<String> = (0..1_500).map(|number| row(&format!("old-{number}"), "")).collect();
    shell.place.write("rows.jsonl", &rows.join("\n"));
    let import = ["import", "rows.jsonl", "--api", &api, "--algorithm", "sha256-hex"];
    let (code, shown, stdout) = at_terminal(shell.command(&shell.root_key, &import), |_, _| {});
    assert_eq!((code, stdout.as_str()), (0, "1500 imported, 0 skipped, 0 failed\n"), "{shown}");
    assert!(shown.contains('%') && shown.contains(" imported, 0 failed ("), "{shown:?}");
    let (_, last) = shown.rsplit_once("\r").unwrap();
    assert_eq!(last, "\u{1b}[2K", "the bar is gone");
}
