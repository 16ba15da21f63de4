//! The whole life of a root key, from the shell alone.

use super::shell::{Shell, Told, at, time};

fn ids(told: &Told) -> Vec<&str> {
    told.stdout.lines().skip(1).filter_map(|line| line.split_whitespace().next()).collect()
}

#[test]
fn a_root_key_is_made_found_changed_rotated_and_deleted() {
    let shell = Shell::open();
    let permissions = ["--permission", "root_keys.*.read_root_key", "--permission", "apis.*.verify_key"];
    let create = [&["root-key", "create", "--name", "documents"][..], &permissions].concat();
    let (secret, told) = shell.issued(&create);
    let id = told.field("root_key_id").unwrap();
    assert_eq!(told.field("state").as_deref(), Some("ACTIVE"));
    assert_eq!(told.field("permissions").as_deref(), Some("apis.*.verify_key, root_keys.*.read_root_key"));

    // It may do what it was made for and nothing else.
    let listed = shell.run_as(&secret, &["root-key", "list", "--name-contains", "DOC"]);
    assert_eq!((listed.code, ids(&listed)), (0, vec![id.as_str()]), "{listed:?}");
    assert!(listed.stdout.starts_with("ID ") && listed.stdout.contains("documents"), "{listed:?}");
    let refused = shell.run_as(&secret, &["api", "list"]);
    assert_eq!((refused.code, refused.stdout.as_str()), (3, ""), "{refused:?}");
    assert!(refused.complaint().starts_with("ostiary: PERMISSION_MISSING: "), "{refused:?}");
    assert!(refused.complaint().contains("(call req_"), "{refused:?}");

    let shown = shell.json(&["root-key", "show", &id, "--usage"]);
    assert_eq!(shown["rootKey"]["unusedPermissions"], serde_json::json!(["apis.*.verify_key"]));
    assert_eq!(shown["rootKey"]["enabled"], serde_json::json!(true));

    let update = ["root-key", "update", &id, "--name", "papers", "--expires-in", "1h", "--allowed-cidr", "127.0.0.0/8"];
    let before = shell.done(&[&update[..], &["--dry-run"]].concat());
    assert_eq!(before.field("name").as_deref(), Some("papers"));
    assert!(before.stderr.contains("dry run"), "{before:?}");
    assert_eq!(shell.done(&["root-key", "show", &id]).field("name").as_deref(), Some("documents"));
    let updated = shell.json(&update);
    assert_eq!(at(&updated, "/rootKey/name"), "papers");
    let life = time(at(&updated, "/rootKey/expireTime")).seconds - time(at(&updated, "/rootKey/updateTime")).seconds;
    assert!((3_590..=3_610).contains(&life), "{life}");
    let stale = shell.run(&["root-key", "update", &id, "--name", "again", "--etag", "v1"]);
    assert_eq!(stale.code, 5, "{stale:?}");
    assert!(stale.complaint().contains("ETAG_MISMATCH"), "{stale:?}");
    let opened = shell.json(&["root-key", "update", &id, "--never-expires", "--any-address", "--enabled", "true"]);
    assert!(opened["rootKey"].get("expireTime").is_none(), "{opened}");

    let (successor, told) = shell.issued(&["root-key", "rotate", &id, "--grace", "15m"]);
    let successor_id = told.field("root_key_id").unwrap();
    assert_ne!(successor_id, id);
    assert!(told.stderr.contains(&format!("the secret of {id} works until ")), "{told:?}");
    for secret in [&secret, &successor] {
        assert_eq!(shell.run_as(secret, &["root-key", "list"]).code, 0);
    }
    let again = shell.run(&["root-key", "rotate", &id, "--grace", "0"]);
    assert_eq!(again.code, 5, "{again:?}");
    assert!(again.complaint().contains("ALREADY_ROTATED") && again.complaint().contains(&successor_id), "{again:?}");

    let unasked = shell.run(&["root-key", "delete", &id]);
    assert_eq!((unasked.code, unasked.stdout.as_str()), (2, ""), "{unasked:?}");
    assert!(unasked.complaint().contains("--yes"), "{unasked:?}");
    let tried = shell.done(&["root-key", "delete", &id, "--dry-run"]);
    assert_eq!(tried.field("deleted_root_key_ids"), Some(id.clone()));
    assert_eq!(shell.run_as(&secret, &["root-key", "list"]).code, 0);
    let deleted = shell.json(&["root-key", "delete", &id, "--yes"]);
    assert_eq!(deleted["deletedRootKeyIds"], serde_json::json!([id]));
    let gone = shell.run_as(&secret, &["root-key", "list"]);
    assert_eq!(gone.code, 3, "{gone:?}");
    assert!(gone.complaint().contains("ROOT_KEY_INVALID"), "{gone:?}");
    let missing = shell.run(&["root-key", "show", &id]);
    assert_eq!(missing.code, 4, "{missing:?}");
    assert_eq!(shell.run_as(&successor, &["root-key", "list"]).code, 0);
}

#[test]
fn a_grace_of_nothing_ends_the_old_secret_at_once_and_any_other_is_taken_too() {
    let shell = Shell::open();
    for (grace, code) in [("0", 3), ("1m", 0), ("15m", 0), ("1h", 0), ("6h", 0), ("24h", 0), ("90s", 0), ("30d", 0)] {
        let create = ["root-key", "create", "--name", grace, "--permission", "apis.*.read_api"];
        let (secret, told) = shell.issued(&create);
        shell.issued(&["root-key", "rotate", &told.field("root_key_id").unwrap(), "--grace", grace]);
        assert_eq!(shell.run_as(&secret, &["api", "list"]).code, code, "{grace}");
    }
    let create = ["root-key", "create", "--name", "last", "--permission", "apis.*.read_api"];
    let id = shell.issued(&create).1.field("root_key_id").unwrap();
    for (grace, what) in [("31d", "grace_period"), ("soon", "90d, 12h, 15m or 30s")] {
        let refused = shell.run(&["root-key", "rotate", &id, "--grace", grace]);
        assert_eq!(refused.code, 2, "{refused:?}");
        assert!(refused.stderr.contains(what), "{refused:?}");
    }
}

#[test]
fn several_are_deleted_together_or_not_at_all() {
    let shell = Shell::open();
    let made: Vec<String> = ["a", "b"]
        .iter()
        .map(|name| {
            let create = ["root-key", "create", "--name", name, "--permission", "apis.*.read_api"];
            shell.issued(&create).1.field("root_key_id").unwrap()
        })
        .collect();
    let unknown = made[0].replace(|c: char| c.is_ascii_digit(), "0");
    let refused = shell.run(&["root-key", "delete", &made[0], &unknown, "--yes"]);
    assert_eq!(refused.code, 4, "{refused:?}");
    assert!(refused.complaint().contains(&unknown), "{refused:?}");
    assert_eq!(shell.run(&["root-key", "delete", &made[0], &made[1], "--yes", "--cascade"]).code, 2);
    assert_eq!(shell.json(&["root-key", "list"])["rootKeys"].as_array().unwrap().len(), 3);
    shell.done(&["root-key", "delete", &made[0], &made[1], "--yes"]);
    assert_eq!(shell.json(&["root-key", "list"])["rootKeys"].as_array().unwrap().len(), 1);
}

#[test]
fn the_last_administrator_stays_and_whoever_asks_is_told_who_they_are() {
    let shell = Shell::open();
    let told = shell.json(&["root-key", "who-am-i"]);
    assert_eq!((at(&told, "/rootKey/name"), at(&told, "/workspace/name")), ("first root key", "default"));
    let refused = shell.run(&["root-key", "delete", at(&told, "/rootKey/rootKeyId"), "--yes"]);
    assert_eq!(refused.code, 5, "{refused:?}");
    assert!(refused.complaint().contains("LAST_ADMINISTRATOR"), "{refused:?}");
}

#[test]
fn what_takes_force_is_done_with_it_and_descendants_go_with_cascade() {
    let shell = Shell::open();
    let own = |secret: &str| {
        at(&shell.run_as(secret, &["root-key", "who-am-i", "-o", "json"]).json(), "/rootKey/rootKeyId").to_owned()
    };
    // Somebody whom the administrator makes makes another.
    let permissions = ["--permission", "root_keys.*.create_root_key", "--permission", "apis.*.read_api"];
    let (parent, told) = shell.issued(&[&["root-key", "create", "--name", "parent"][..], &permissions].concat());
    let parent_id = told.field("root_key_id").unwrap();
    let create = ["root-key", "create", "--name", "child", "--permission", "apis.*.read_api"];
    let child = shell.run_as(&parent, &create);
    assert_eq!(child.code, 0, "{child:?}");
    let (child, child_id) = (child.stdout.trim(), child.field("root_key_id").unwrap());
    let deleted = shell.json(&["root-key", "delete", &parent_id, "--cascade", "--yes"]);
    let ids: Vec<&str> =
        deleted["deletedRootKeyIds"].as_array().unwrap().iter().map(|id| id.as_str().unwrap()).collect();
    assert!(ids.len() == 2 && ids.contains(&&*parent_id) && ids.contains(&&*child_id), "{ids:?}");
    assert_eq!(shell.run_as(child, &["api", "list"]).code, 3);

    // Without a grace the one that the command is run with is not rotated by accident.
    let first = shell.root_key.clone();
    let id = own(&first);
    let rotate = ["root-key", "rotate", &id, "--grace", "0"];
    let refused = shell.run(&rotate);
    assert!(refused.code == 2 && refused.complaint().contains("grace_period"), "{refused:?}");
    let (second, _) = shell.issued(&[&rotate[..], &["--force"]].concat());
    assert_eq!(shell.run(&["root-key", "who-am-i"]).code, 3);

    // The last administrator stays one, and stays, unless that is meant.
    let id = own(&second);
    let narrow = ["root-key", "update", &id, "--permission", "root_keys.*.delete_root_key"];
    let refused = shell.run_as(&second, &narrow);
    assert!(refused.code == 5 && refused.complaint().contains("LAST_ADMINISTRATOR"), "{refused:?}");
    let narrowed = shell.run_as(&second, &[&narrow[..], &["--force"]].concat());
    assert_eq!(narrowed.field("permissions").as_deref(), Some("root_keys.*.delete_root_key"), "{narrowed:?}");
    let delete = ["root-key", "delete", &id, "--yes", "--force"];
    assert_eq!(shell.run_as(&second, &delete).code, 0);
    assert_eq!(shell.run_as(&second, &["root-key", "who-am-i"]).code, 3);
}

#[test]
fn lists_are_filtered_and_read_to_their_end() {
    let shell = Shell::open();
    for number in 0..3 {
        shell.issued(&["root-key", "create", "--name", &format!("n{number}"), "--permission", "apis.*.read_api"]);
    }
    let names = |more: &[&str]| -> Vec<String> {
        let list = shell.json(&[&["root-key", "list"], more].concat());
        list["rootKeys"].as_array().unwrap().iter().map(|key| at(key, "/name").to_owned()).collect()
    };
    assert_eq!(names(&[]), ["first root key", "n0", "n1", "n2"]);
    assert_eq!(names(&["--limit", "2"]), ["first root key", "n0"]);
    assert_eq!(names(&["--permission-contains", ".read_api", "--name-contains", "N1"]), ["n1"]);
    assert_eq!(names(&["--state", "expired"]), [""; 0]);
    assert_eq!(names(&["--create-before", "2020-01-01T00:00:00Z"]), [""; 0]);
    let empty = shell.done(&["root-key", "list", "--state", "rotated-out"]);
    assert_eq!((empty.stdout.as_str(), empty.stderr.as_str()), ("", "nothing found\n"));
    let refused = shell.run(&["root-key", "list", "--create-after", "yesterday"]);
    assert_eq!(refused.code, 2, "{refused:?}");
    assert!(
        refused.stderr.contains("--create-after") && refused.stderr.contains("2027-01-31T12:00:00Z"),
        "{refused:?}"
    );
}
