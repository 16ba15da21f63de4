//! APIs, roles, permissions, identities, namespaces, overrides and workspaces: each is made, found, changed and deleted.

use serde_json::json;

use super::shell::{Shell, at, time};

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

#[test]
fn namespaces_and_overrides() {
    let shell = Shell::open();
    let made = &shell.json(&["namespace", "create", "sign-in"])["namespace"];
    let id = at(made, "/namespaceId");
    assert_eq!(shell.run(&["namespace", "create", "SIGN-IN"]).code, 5);
    let set = ["override", "set", "sign-in", "premium:*", "--limit", "100", "--duration", "1m"];
    let replaced = &shell.json(&set)["override"];
    assert_eq!((at(replaced, "/limit"), at(replaced, "/duration")), ("100", "60s"));
    let tried = shell.done(&["override", "set", id, "premium:*", "--limit", "0", "--duration", "1h", "--dry-run"]);
    assert_eq!(tried.field("limit").as_deref(), Some("0"));
    assert!(tried.stderr.contains("dry run: nothing was changed"), "{tried:?}");
    let shown = &shell.json(&["override", "show", "sign-in", "premium:*"])["override"];
    assert_eq!(at(shown, "/limit"), "100");
    let listed = shell.done(&["override", "list", "sign-in", "--identifier-contains", "PREMIUM"]);
    assert!(listed.stdout.lines().nth(1).unwrap().contains("premium:*"), "{listed:?}");
    let forgot = shell.done(&["namespace", "reset", "sign-in", "premium:4711"]);
    assert!(forgot.stderr.contains("forgot what was counted for premium:4711"), "{forgot:?}");
    shell.done(&["namespace", "update", "sign-in", "--name", "log-in"]);
    assert_eq!(at(&shell.json(&["namespace", "show", "log-in"]), "/namespace/namespaceId"), id);
    let found = shell.json(&["namespace", "list", "--name-contains", "LOG"]);
    assert_eq!(at(&found, "/namespaces/0/overrideCount"), "1");
    let stale = shell.run(&["override", "delete", "log-in", "premium:*", "--etag", "stale", "--yes"]);
    assert_eq!(stale.code, 5, "{stale:?}");
    assert_eq!(shell.run(&["override", "delete", "log-in", "premium:*"]).code, 2, "nobody can be asked");
    shell.done(&["override", "delete", "log-in", "premium:*", "--yes"]);
    assert_eq!(shell.run(&["override", "show", "log-in", "premium:*"]).code, 4);
    let tried = shell.done(&["namespace", "delete", "log-in", "--dry-run"]);
    assert_eq!(tried.field("override_count").as_deref(), Some("0"));
    shell.done(&["namespace", "delete", "log-in", "--yes"]);
    assert_eq!(shell.run(&["namespace", "show", "log-in"]).code, 4);
}

#[test]
fn workspaces() {
    let shell = Shell::open();
    let create = ["workspace", "create", "--name", "tenant", "--max-keys", "10", "--calls-per-second", "50"];
    let made = shell.json(&create);
    assert!(at(&made, "/secret").starts_with("ostiary_"));
    let id = at(&made, "/workspace/workspaceId");
    assert_eq!(at(&made, "/workspace/quotas/maxKeys"), "10");
    let listed = shell.done(&["workspace", "list", "--name-contains", "TENANT"]);
    assert!(listed.stdout.lines().nth(1).unwrap().starts_with(id), "{listed:?}");
    let update = ["workspace", "update", id, "--name", "guest", "--enabled", "false", "--max-root-keys", "3"];
    let updated = &shell.json(&update)["workspace"];
    assert_eq!((at(updated, "/name"), updated.get("enabled")), ("guest", Some(&json!(false))));
    assert_eq!(updated["quotas"], json!({"maxRootKeys": "3"}), "what is not given is gone");
    shell.done(&["workspace", "update", id, "--no-quotas"]);
    assert!(shell.json(&["workspace", "show", id])["workspace"].get("quotas").is_none());
    assert_eq!(shell.run(&["workspace", "update", id]).code, 2, "nothing to change");
    let tried = shell.done(&["workspace", "delete", id, "--dry-run"]);
    assert_eq!(tried.field("affected_root_key_count").as_deref(), Some("1"));
    shell.done(&["workspace", "delete", id, "--yes"]);
    assert_eq!(shell.run(&["workspace", "show", id]).code, 4);
}

#[test]
fn a_server_tells_which_it_is_to_whoever_has_a_root_key() {
    let shell = Shell::open();
    let create = ["root-key", "create", "--name", "weak", "--permission", "apis.*.verify_key"];
    let (weak, _) = shell.issued(&create);
    let told = shell.run_as(&weak, &["server", "show", "--output", "json"]).json();
    assert_eq!(at(&told, "/server/version"), env!("CARGO_PKG_VERSION"));
    let (start, now) = (time(at(&told, "/server/startTime")), time(at(&told, "/server/time")));
    assert!(start.seconds <= now.seconds && now.seconds - start.seconds < 3_600, "{told}");
    assert_eq!(at(&shell.json(&["server", "show"]), "/server/startTime"), at(&told, "/server/startTime"));
    assert_eq!(shell.run_as("nobodys", &["server", "show"]).code, 3);
}
