//! APIs, roles, permissions and identities: each is made, found, changed and deleted.

use serde_json::json;

use super::shell::{Shell, at};

#[test]
fn apis() {
    let shell = Shell::open();
    let create = ["api", "create", "--name", "documents", "--default-prefix", "docs", "--default-ttl", "90d"];
    let made = &shell.json(&[&create[..], &["--delete-protection", "--allowed-cidr", "10.0.0.0/8"]].concat())["api"];
    let id = at(made, "/apiId");
    assert_eq!((at(made, "/defaultPrefix"), at(made, "/defaultTtl")), ("docs", "7776000s"));
    let protected = shell.run(&["api", "delete", id, "--yes"]);
    assert_eq!(protected.code, 5, "{protected:?}");
    assert!(protected.complaint().contains("DELETE_PROTECTED"), "{protected:?}");
    let update = ["api", "update", id, "--name", "papers", "--no-default-ttl", "--delete-protection", "false"];
    let updated = &shell.json(&[&update[..], &["--any-address"]].concat())["api"];
    assert_eq!((at(updated, "/name"), &updated["allowedCidrs"]), ("papers", &json!([])));
    assert!(updated.get("defaultTtl").is_none(), "{updated}");
    let listed = shell.done(&["api", "list", "--name-contains", "PAP"]);
    assert!(listed.stdout.lines().nth(1).unwrap().starts_with(id), "{listed:?}");
    let short = shell.run(&["api", "create", "--name", "x"]);
    assert_eq!(short.code, 2, "{short:?}");
    assert!(short.complaint().contains("FIELD_INVALID: name: must be 3 to 255 characters"), "{short:?}");
    let tried = shell.done(&["api", "delete", id, "--dry-run"]);
    assert_eq!(tried.field("affected_key_count").as_deref(), Some("0"));
    shell.done(&["api", "delete", id, "--yes"]);
    assert_eq!(shell.run(&["api", "delete", id, "--yes"]).code, 4);
}

#[test]
fn roles_and_permissions() {
    let shell = Shell::open();
    shell.done(&["permission", "create", "documents.read", "--name", "Read"]);
    let again = shell.run(&["permission", "create", "DOCUMENTS.READ"]);
    assert_eq!(again.code, 5, "{again:?}");
    assert!(again.complaint().contains("PERMISSION_ALREADY_EXISTS"), "{again:?}");
    let updated = shell.done(&["permission", "update", "documents.read", "--description", "see them"]);
    assert_eq!(updated.field("description").as_deref(), Some("see them"));
    shell.done(&["role", "create", "--name", "reader", "--permission", "documents.read", "--description", "may look"]);
    let set = shell.json(&["role", "set-permissions", "reader", "documents.read", "documents.list"]);
    assert_eq!(set["role"]["permissions"], json!(["documents.list", "documents.read"]));
    shell.done(&["role", "update", "reader", "--name", "visitor"]);
    assert_eq!(shell.run(&["role", "show", "reader"]).code, 4);
    let found = shell.json(&["role", "list", "--search", "LOOK"]);
    assert_eq!(at(&found, "/roles/0/name"), "visitor");
    let tried = shell.done(&["permission", "delete", "documents.read", "--dry-run"]);
    assert_eq!(tried.field("affected_role_count").as_deref(), Some("1"));
    shell.done(&["permission", "delete", "documents.read", "--yes"]);
    assert_eq!(shell.json(&["role", "show", "visitor"])["role"]["permissions"], json!(["documents.list"]));
    let left = shell.json(&["permission", "list", "--search", "documents"]);
    assert_eq!(
        (left["permissions"].as_array().unwrap().len(), at(&left, "/permissions/0/slug")),
        (1, "documents.list")
    );
}

#[test]
fn identities() {
    let shell = Shell::open();
    let file = shell.place.write("facts.json", r#"{"plan": "free"}"#);
    let metadata = format!("@{}", file.display());
    let limit = "name=requests,limit=5,duration=1h,auto-apply";
    shell.done(&["identity", "create", "user-1", "--metadata", &metadata, "--rate-limit", limit]);
    let shown = &shell.json(&["identity", "show", "user-1"])["identity"];
    assert_eq!((at(shown, "/metadata/plan"), at(shown, "/rateLimits/0/name")), ("free", "requests"));
    let listed = shell.done(&["identity", "list", "--external-id-contains", "USER"]);
    assert!(listed.stdout.contains("user-1") && listed.stdout.contains("requests"), "{listed:?}");
    let updated = &shell.json(&["identity", "update", "user-1", "--no-rate-limits"])["identity"];
    assert_eq!((&updated["rateLimits"], at(updated, "/metadata/plan")), (&json!([]), "free"));
    for (flag, value, what) in [
        ("--metadata", "[]", "JSON object"),
        ("--metadata", "@nowhere", "nowhere"),
        ("--rate-limit", "name=r", "limit= and duration="),
    ] {
        let refused = shell.run(&["identity", "update", "user-1", flag, value]);
        assert_eq!(refused.code, 2, "{refused:?}");
        assert!(refused.stderr.contains(flag) && refused.stderr.contains(what), "{refused:?}");
    }
    shell.done(&["identity", "delete", "user-1", "--yes"]);
    assert_eq!(shell.run(&["identity", "show", "user-1"]).code, 4);
}

#[test]
fn what_somebody_wrote_does_not_command_the_terminal() {
    let shell = Shell::open();
    shell.done(&["identity", "create", "user-1", "--metadata", r#"{"a": "\u202eb\u001b[31m"}"#]);
    let shown = shell.done(&["identity", "show", "user-1"]);
    assert!(shown.stdout.contains("\\u{202e}b\\u001b[31m"), "{shown:?}");
    assert!(!shown.stdout.contains(['\u{202e}', '\u{1b}']), "{shown:?}");
    assert_eq!(at(&shell.json(&["identity", "show", "user-1"]), "/identity/metadata/a"), "\u{202e}b\u{1b}[31m");
}
