//! Keys from elsewhere, line by line.

use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::shell::{Shell, at};

/// A key with this secret, and with more fields.
pub fn row(secret: &str, more: &str) -> String {
    let digits: String = Sha256::digest(secret.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{{\"hash\": \"{digits}\"{more}}}")
}

#[test]
fn good_rows_are_imported_and_each_bad_one_is_told_by_its_line() {
    let shell = Shell::open();
    let api = shell.api("imported");
    let mut lines: Vec<String> = (0..600).map(|number| row(&format!("old-{number}"), "")).collect();
    lines.insert(2, "{\"hash\": ".to_owned());
    lines.insert(4, String::new());
    lines.push(row("with-role", ", \"roles\": [\"nobody\"]"));
    lines.push(row("old-7", ""));
    lines.push(row("named", ", \"name\": \"their own\", \"externalId\": \"user-1\""));
    let file = shell.place.write("rows.jsonl", &lines.join("\n"));
    let file = file.to_str().unwrap();
    let import = ["import", file, "--api", &api, "--algorithm", "sha256-hex"];
    let told = shell.run(&import);
    assert_eq!((told.code, told.stdout.as_str()), (8, "601 imported, 0 skipped, 3 failed\n"), "{told:?}");
    let faults: Vec<&str> = told.stderr.lines().map(|line| line.split(": ").take(2).last().unwrap()).collect();
    let numbers: Vec<&str> = told.stderr.lines().map(|line| line.split(": ").next().unwrap()).collect();
    assert_eq!(numbers, ["line 3", "line 603", "line 604"], "{told:?}");
    assert_eq!(faults, ["ROW_UNREADABLE", "ROLE_NOT_FOUND", "KEY_ALREADY_EXISTS"], "{told:?}");
    for secret in ["old-0", "old-599", "named"] {
        assert_eq!(shell.feed(secret, &["verify", "--api", &api]).code, 0, "{secret}");
    }
    assert_eq!(shell.feed("with-role", &["verify"]).code, 7);

    // The same once more, as after an interruption, from standard input and as part of `key`.
    let again = ["key", "import", "--api", &api, "--algorithm", "sha256-hex", "--skip-existing", "-o", "json"];
    let told = shell.feed(&lines.join("\n"), &again);
    assert_eq!(told.code, 8, "{told:?}");
    let report = told.json();
    assert_eq!(
        (&report["importedCount"], &report["skippedCount"], &report["failedCount"]),
        (&json!(0), &json!(602), &json!(2))
    );
    assert_eq!((&report["failures"][0]["line"], at(&report, "/failures/1/reason")), (&json!(3), "ROLE_NOT_FOUND"));
}

#[test]
fn what_can_not_be_imported_at_all_is_told_once() {
    let shell = Shell::open();
    assert_eq!(shell.run(&["import", "nowhere.jsonl"]).code, 2);
    let (limited, _) = shell.issued(&["root-key", "create", "--name", "l", "--permission", "apis.*.read_api"]);
    let mut command = shell.command(&limited, &["import"]);
    command.env("OSTIARY_SERVER", "unix:socket");
    let refused = shell.told(command, &row("a", ""));
    assert_eq!(refused.code, 3, "{refused:?}");
    assert!(refused.complaint().contains("PERMISSION_MISSING"), "{refused:?}");
    let nothing = shell.feed("\n\n", &["import"]);
    assert_eq!((nothing.code, nothing.stdout.as_str()), (0, "0 imported, 0 skipped, 0 failed\n"), "{nothing:?}");
    let bare = shell.feed(&row("a", ""), &["import", "-o", "json"]);
    assert_eq!(bare.code, 8, "{bare:?}");
    assert_eq!(at(&bare.json(), "/failures/0/reason"), "FIELD_INVALID");
}
