//! An API, its permissions and roles, and a customer's key, from the shell alone.

use super::shell::{Shell, at};

#[test]
fn a_key_is_good_until_the_role_that_made_it_so_is_deleted() {
    let shell = Shell::open();
    let api = shell.api("documents");
    shell.done(&["permission", "create", "documents.read", "--description", "see them"]);
    shell.done(&["permission", "create", "documents.write"]);
    let permissions = ["--permission", "documents.read", "--permission", "documents.write"];
    shell.done(&[&["role", "create", "--name", "editor"][..], &permissions].concat());
    let create = ["key", "create", "--api", &api, "--name", "customer 42", "--prefix", "docs", "--role", "editor"];
    let (key, told) = shell.issued(&create);
    assert!(key.starts_with("docs_"), "{told:?}");
    let id = told.field("key_id").unwrap();

    let query = ["verify", "--api", &api, "--permissions", "documents.read AND documents.write"];
    let good = shell.feed(&key, &query);
    assert_eq!((good.code, good.field("code").as_deref()), (0, Some("VALID")), "{good:?}");
    let full = shell.feed(&format!("{key}\n"), &[&query[..], &["--full", "--output", "json"]].concat()).json();
    assert_eq!(at(&full, "/verdict/code"), "VERIFICATION_CODE_VALID");
    assert_eq!(at(&full, "/verdict/roles/0/name"), "editor");

    // Read over the socket, by file.
    let file = shell.place.write("customer.key", &key);
    let over_socket = ["--server", "unix:socket", "--key-file", file.to_str().unwrap()];
    assert_eq!(shell.run(&[&query[..], &over_socket].concat()).code, 0);

    let tried = shell.done(&["role", "delete", "editor", "--dry-run"]);
    assert_eq!(tried.field("affected_key_count").as_deref(), Some("1"));
    assert_eq!(tried.field("lost_permissions").as_deref(), Some("documents.read, documents.write"));
    assert_eq!(shell.feed(&key, &query).code, 0);
    shell.done(&["role", "delete", "editor", "--yes"]);
    let lacking = shell.feed(&key, &query);
    assert_eq!((lacking.code, lacking.field("code").as_deref()), (7, Some("INSUFFICIENT_PERMISSIONS")), "{lacking:?}");
    assert_eq!(lacking.stderr, "", "what was asked is answered");
    assert!(lacking.field("reason").unwrap().contains("documents.read"), "{lacking:?}");

    shell.done(&["key", "update", &id, "--enabled", "false"]);
    let disabled = shell.feed(&key, &["verify"]);
    assert_eq!((disabled.code, disabled.field("code").as_deref()), (7, Some("DISABLED")));
    let unknown = shell.feed("docs_nobody", &["verify"]);
    assert_eq!((unknown.code, unknown.field("code").as_deref()), (7, Some("NOT_FOUND")));
    let nothing = shell.feed("", &["verify"]);
    assert_eq!(nothing.code, 2, "{nothing:?}");
    let syntax = shell.feed(&key, &["verify", "--permissions", "a AND"]);
    assert_eq!(syntax.code, 2, "{syntax:?}");
    assert!(syntax.complaint().contains("PERMISSION_QUERY_SYNTAX"), "{syntax:?}");
}

#[test]
fn what_a_key_carries_is_given_seen_and_changed() {
    let shell = Shell::open();
    let api = shell.api("carrying");
    let create = [
        &["key", "create", "--api", &api, "--external-id", "user-1", "--expires-at", "2090-01-01T00:00:00Z"][..],
        &["--credits", "10", "--refill", "monthly:10:31", "--metadata", r#"{"plan": "pro"}"#, "--permission", "a.b"],
        &["--rate-limit", "name=r,limit=3,duration=1m", "--allowed-cidr", "192.0.2.0/24"],
    ];
    let (key, told) = shell.issued(&create.concat());
    let id = told.field("key_id").unwrap();
    let shown = &shell.json(&["key", "show", &id])["key"];
    assert_eq!(
        shown["credits"]["refill"],
        serde_json::json!({"interval": "REFILL_INTERVAL_MONTHLY", "amount": "10", "day": 31})
    );
    assert_eq!(
        shown["rateLimits"][0],
        serde_json::json!({"name": "r", "limit": "3", "duration": "60s", "autoApply": false})
    );
    assert_eq!((at(shown, "/externalId"), at(shown, "/metadata/plan")), ("user-1", "pro"));
    assert_eq!((at(shown, "/expireTime"), at(shown, "/permissions/0")), ("2090-01-01T00:00:00Z", "a.b"));

    let verify = ["verify", "--client-ip", "192.0.2.7", "--cost", "4", "--rate-limit", "name=r,cost=3"];
    let good = shell.feed(&key, &verify);
    assert_eq!((good.code, good.field("remaining_credits").as_deref()), (0, Some("6")), "{good:?}");
    let limited = shell.feed(&key, &verify);
    assert_eq!((limited.code, limited.field("code").as_deref()), (7, Some("RATE_LIMITED")), "{limited:?}");
    assert_eq!(shell.feed(&key, &["verify"]).field("code").as_deref(), Some("FORBIDDEN"));

    for (change, remaining) in [(["--add", "5"], "11"), (["--take", "1"], "10"), (["--set", "3"], "3")] {
        let adjusted = shell.done(&[&["key", "credits", &id][..], &change].concat());
        assert_eq!(adjusted.field("remaining").as_deref(), Some(remaining));
    }
    assert!(shell.done(&["key", "credits", &id, "--unlimited"]).stderr.contains("unlimited"));
    assert_eq!(shell.run(&["key", "credits", &id]).code, 2);
    let update = [
        &["key", "update", &id, "--credits", "9", "--refill", "daily:9", "--no-rate-limits", "--any-address"][..],
        &["--never-expires", "--no-identity", "--name", "new", "--metadata", "{}"],
    ];
    let updated = &shell.json(&update.concat())["key"];
    assert_eq!((at(updated, "/name"), at(updated, "/credits/refill/interval")), ("new", "REFILL_INTERVAL_DAILY"));
    assert!(updated.get("expireTime").is_none() && updated.get("externalId").is_none(), "{updated}");
    assert_eq!((&updated["rateLimits"], &updated["allowedCidrs"]), (&serde_json::json!([]), &serde_json::json!([])));
    let nothing = shell.run(&["key", "update", &id]);
    assert_eq!(nothing.code, 2, "{nothing:?}");
    assert!(nothing.complaint().contains("nothing to change"), "{nothing:?}");
}

#[test]
fn roles_and_permissions_are_given_and_taken() {
    let shell = Shell::open();
    let api = shell.api("assigning");
    let id = shell.issued(&["key", "create", "--api", &api]).1.field("key_id").unwrap();
    for name in ["one", "two"] {
        shell.done(&["role", "create", "--name", name]);
    }
    shell.done(&["key", "add-roles", &id, "one", "two"]);
    let left = shell.json(&["key", "remove-roles", &id, "one"]);
    assert_eq!((left["roles"].as_array().unwrap().len(), at(&left, "/roles/0/name")), (1, "two"));
    assert_eq!(shell.json(&["key", "set-roles", &id])["roles"], serde_json::json!([]));
    let added = shell.json(&["key", "add-permissions", &id, "a", "b"]);
    assert_eq!(added["permissions"], serde_json::json!(["a", "b"]));
    let removed = shell.json(&["key", "remove-permissions", &id, "a"]);
    assert_eq!(removed["permissions"], serde_json::json!(["b"]));
    let set = shell.json(&["key", "set-permissions", &id, "c", "--dry-run"]);
    assert_eq!(set["permissions"], serde_json::json!(["c"]));
    assert_eq!(shell.json(&["key", "show", &id])["key"]["permissions"], serde_json::json!(["b"]));
    let unknown = shell.run(&["key", "add-roles", &id, "three"]);
    assert_eq!(unknown.code, 4, "{unknown:?}");
    assert!(unknown.complaint().contains("ROLE_NOT_FOUND"), "{unknown:?}");
}

#[test]
fn keys_are_rerolled_deleted_restored_and_revoked() {
    let shell = Shell::open();
    let api = shell.api("ending");
    let (old, told) = shell.issued(&["key", "create", "--api", &api]);
    let old_id = told.field("key_id").unwrap();
    let (new, told) = shell.issued(&["key", "reroll", &old_id, "--grace", "1h"]);
    let id = told.field("key_id").unwrap();
    assert!(told.stderr.contains(&format!("the secret of {old_id} works until ")), "{told:?}");
    for key in [&old, &new] {
        assert_eq!(shell.feed(key, &["verify", "--dry-run"]).code, 0);
    }
    let found = shell.feed(&new, &["key", "lookup"]);
    assert_eq!((found.code, found.field("key_id")), (0, Some(id.clone())), "{found:?}");

    assert_eq!(shell.run(&["key", "delete", &id]).code, 2);
    shell.done(&["key", "delete", &id, "--yes"]);
    assert_eq!(shell.feed(&new, &["verify"]).code, 7);
    let deleted = shell.json(&["key", "list", "--api", &api, "--state", "deleted", "--show-deleted"]);
    assert_eq!(at(&deleted, "/keys/0/keyId"), id);
    shell.done(&["key", "undelete", &id]);
    assert_eq!(shell.feed(&new, &["verify"]).code, 0);

    assert_eq!(shell.run(&["key", "revoke", "--yes"]).code, 2, "an empty filter would be everything");
    assert_eq!(shell.run(&["key", "revoke", "--api", &api]).code, 2, "nobody was asked");
    let tried = shell.done(&["key", "revoke", "--api", &api, "--dry-run"]);
    assert_eq!(tried.field("revoked_count").as_deref(), Some("2"));
    let revoked = shell.done(&["key", "revoke", "--api", &api, "--yes"]);
    assert_eq!(revoked.field("revoked_count").as_deref(), Some("2"));
    for key in [&old, &new] {
        assert_eq!(shell.feed(key, &["verify"]).code, 7);
    }
    shell.done(&[
        "key",
        "delete",
        &shell.issued(&["key", "create", "--api", &api]).1.field("key_id").unwrap(),
        "--permanent",
        "--yes",
    ]);
    shell.done(&["api", "delete", &api, "--yes"]);
    assert_eq!(shell.run(&["api", "show", &api]).code, 4);
}
