//! The audit log: listed as it is, and followed as it grows.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::Stdio;
use std::sync::mpsc;
use std::thread;

use super::shell::{Running, Shell, at};
use crate::process::await_some;

fn events(list: &serde_json::Value) -> Vec<&str> {
    list["events"].as_array().unwrap().iter().map(|event| at(event, "/event")).collect()
}

#[test]
fn it_is_listed_and_filtered() {
    let shell = Shell::open();
    let api = shell.api("audited");
    shell.done(&["api", "update", &api, "--name", "changed"]);
    let all = shell.json(&["audit", "list"]);
    assert_eq!(events(&all), ["workspace.create", "root_key.create", "api.create", "api.update"]);
    assert!(at(&all, "/events/2/userAgent").starts_with("ostiary-cli/"), "{all}");
    assert_eq!(at(&all, "/events/3/before/name"), "audited");
    assert_eq!(events(&shell.json(&["audit", "list", "--limit", "1"])), ["workspace.create"]);
    assert_eq!(events(&shell.json(&["audit", "list", "--target", &api])), ["api.create", "api.update"]);
    assert_eq!(events(&shell.json(&["audit", "list", "--event", "api.update"])), ["api.update"]);
    let actor = at(&all, "/events/2/actor/id");
    assert_eq!(events(&shell.json(&["audit", "list", "--actor", actor])), ["api.create", "api.update"]);
    assert_eq!(events(&shell.json(&["audit", "list", "--before", "2020-01-01T00:00:00Z"])), [""; 0]);
    let table = shell.done(&["audit", "list", "--after", "2020-01-01T00:00:00Z"]);
    assert_eq!(table.stdout.lines().count(), 5, "{table:?}");
    assert!(table.stdout.lines().nth(3).unwrap().contains(&api), "{table:?}");
}

#[test]
fn it_is_followed_each_event_once_and_nobody_who_stops_reading_makes_it_panic() {
    let shell = Shell::open();
    let mut command = shell.command(&shell.root_key, &["audit", "tail", "--event", "api.create", "-o", "json"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut tail = Running(command.spawn().unwrap());
    let stdout = BufReader::new(tail.0.stdout.take().unwrap());
    let (heard, lines) = mpsc::channel();
    // It hangs up after the last line that anybody wants.
    let reading =
        thread::spawn(move || stdout.lines().map_while(Result::ok).take(3).try_for_each(|line| heard.send(line)));
    let mut seen = Vec::new();
    for name in ["first", "second", "third"] {
        let api = shell.api(name);
        let line = await_some("event", || lines.try_recv().ok());
        let event: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!((at(&event, "/targets/0/id"), at(&event, "/targets/0/name")), (api.as_str(), name));
        seen.push(at(&event, "/eventId").to_owned());
    }
    seen.dedup();
    assert_eq!(seen.len(), 3);
    reading.join().unwrap().unwrap();
    shell.api("fourth");
    assert_eq!(tail.code(), Some(0));
    let mut stderr = String::new();
    tail.0.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert_eq!(stderr, "");
}

#[test]
fn it_is_followed_on_when_the_server_is_there_again() {
    let shell = Shell::open();
    let variables = [("OSTIARY_SERVER", "unix:socket"), ("OSTIARY_ROOT_KEY", &shell.root_key)];
    let mut command = shell.bare(&variables, &["audit", "tail", "--event", "api.create", "-o", "json"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut tail = Running(command.spawn().unwrap());
    let stdout = BufReader::new(tail.0.stdout.take().unwrap());
    let (heard, lines) = mpsc::channel();
    let reading = thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| heard.send(line)));
    let next = || {
        let line = await_some("event", || lines.try_recv().ok());
        at(&serde_json::from_str(&line).unwrap(), "/targets/0/name").to_owned()
    };
    shell.api("before");
    assert_eq!(next(), "before");
    let shell = shell.restarted();
    shell.api("after");
    assert_eq!(next(), "after", "each once");
    drop(tail);
    reading.join().unwrap().unwrap();
}
