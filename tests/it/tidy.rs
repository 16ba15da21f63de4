//! What the source promises of itself: layers look down only, and nothing is left undone or unsaid.

mod protos;

use std::fs;
use std::path::{Path, PathBuf};

/// What each part of the crate may use of it.
const LAYERS: [(&str, &[&str]); 11] = [
    ("metrics", &["metrics"]),
    ("domain", &["domain"]),
    ("pb", &["domain"]),
    ("world", &["domain"]),
    ("store", &["domain", "metrics", "pb", "store"]),
    ("error", &["domain", "error", "store"]),
    ("service", &["domain", "error", "metrics", "pb", "service", "store", "world"]),
    ("rpc", &["domain", "error", "metrics", "pb", "rpc", "service"]),
    ("sweep", &["domain", "error", "service", "world"]),
    ("cli", &["cli", "domain", "pb", "world"]),
    ("config", &["cli", "domain"]),
];
/// The parts that put the others together.
const ABOVE_ALL: [&str; 4] = ["offline", "server", "main", "lib"];
/// Crates that the domain builds on.
const OF_THE_DOMAIN: [&str; 16] = [
    "std",
    "core",
    "alloc",
    "crate",
    "self",
    "super",
    "base64",
    "compact_str",
    "crc32fast",
    "ipnet",
    "ring",
    "sha2",
    "smallvec",
    "strsim",
    "ulid",
    "zeroize",
];

/// A file of the source, without its tests and comments.
struct Source {
    path: PathBuf,
    code: String,
}

impl Source {
    /// The path below `src`.
    fn name(&self) -> String {
        self.path.strip_prefix(root().join("src")).unwrap().display().to_string()
    }

    /// The part of the crate that it belongs to.
    fn part(&self) -> String {
        self.name().split('/').next().unwrap().trim_end_matches(".rs").to_owned()
    }

    fn is_below(&self, beginnings: &[&str]) -> bool {
        beginnings.iter().any(|beginning| self.name().starts_with(beginning))
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn files_below(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(files_below(&path));
        } else {
            files.push(path);
        }
    }
    files
}

fn sources() -> Vec<Source> {
    let files = files_below(&root().join("src")).into_iter().filter(|path| !path.ends_with("tests.rs"));
    let sources: Vec<Source> =
        files.map(|path| Source { code: bare(&fs::read_to_string(&path).unwrap()), path }).collect();
    assert!(sources.len() > 50);
    sources
}

/// The code before the tests, which come last in a file, and without comments.
fn bare(text: &str) -> String {
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
    code.lines().filter(|line| !line.trim_start().starts_with("//")).map(|line| format!("{line}\n")).collect()
}

/// The words that follow `before`, those of a group in braces one by one.
fn words_after(code: &str, before: &str) -> Vec<String> {
    let is_of_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut words = Vec::new();
    for (at, _) in code.match_indices(before) {
        if code[..at].ends_with(is_of_word) {
            continue;
        }
        let rest = &code[at + before.len()..];
        if let Some(group) = rest.strip_prefix('{') {
            let mut depth = 0;
            let mut word = String::new();
            for c in group.chars() {
                match c {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' if depth == 0 => words.push(std::mem::take(&mut word)),
                    c if depth == 0 => word.push(c),
                    _ => {}
                }
            }
            words.push(word);
        } else {
            words.push(rest.to_owned());
        }
    }
    let first = |word: String| word.trim_start().split(|c: char| !is_of_word(c)).next().unwrap().to_owned();
    words.into_iter().map(first).filter(|word| !word.is_empty()).collect()
}

#[test]
fn layers_look_down_only() {
    for source in sources() {
        let part = source.part();
        if ABOVE_ALL.contains(&part.as_str()) {
            continue;
        }
        let (_, allowed) = LAYERS.iter().find(|(layer, _)| *layer == part).unwrap_or_else(|| {
            panic!("{}: say in this table what it may use", source.name());
        });
        for used in words_after(&source.code, "crate::") {
            assert!(allowed.contains(&used.as_str()), "{} uses {used}", source.name());
        }
        let depth = source.name().split('/').count();
        let climbs = "super::".repeat(depth);
        assert!(!source.code.contains(&climbs), "{} climbs out of its layer", source.name());
    }
}

#[test]
fn the_service_knows_only_what_is_stored_of_the_generated_messages_and_rpc_only_what_is_served() {
    for source in sources() {
        let uses = |name: &str| {
            words_after(&source.code, "pb::").iter().any(|used| used == name)
                || words_after(&source.code, "crate::pb::").iter().any(|used| used == name)
        };
        match source.part().as_str() {
            "service" | "store" => assert!(!uses("v1"), "{}", source.name()),
            "rpc" | "cli" => assert!(!uses("storage"), "{}", source.name()),
            _ => {}
        }
    }
}

#[test]
fn the_domain_builds_on_few_crates_and_none_that_waits_or_asks_for_the_time() {
    for source in sources().iter().filter(|source| source.part() == "domain") {
        for used in words_after(&source.code, "\nuse ") {
            let sibling = root().join(format!("src/domain/{used}.rs")).exists();
            let inner = source.path.with_extension("").join(format!("{used}.rs")).exists();
            assert!(OF_THE_DOMAIN.contains(&used.as_str()) || sibling || inner, "{} uses {used}", source.name());
        }
        for word in ["async ", ".await", "Instant", "SystemTime", "tokio::", "rand::"] {
            assert!(!source.code.contains(word), "{} says {word}", source.name());
        }
    }
}

#[test]
fn only_rpc_the_client_and_what_puts_it_together_say_grpc() {
    for source in sources() {
        if !source.is_below(&["rpc", "server", "cli", "pb"]) {
            assert!(!source.code.contains("tonic"), "{} says tonic", source.name());
        }
    }
}

#[test]
fn only_the_engine_on_redb_knows_redb() {
    for source in sources().iter().filter(|source| !source.is_below(&["store/redb"])) {
        for (at, _) in source.code.match_indices("redb::") {
            assert!(source.code[..at].ends_with("::"), "{} uses the crate redb", source.name());
        }
        assert!(!source.code.contains("use redb"), "{} uses the crate redb", source.name());
    }
}

#[test]
fn transactions_begin_in_three_places() {
    let places = ["service/change.rs", "service/housekeeping.rs", "service/founding.rs", "store"];
    for source in sources().iter().filter(|source| !source.is_below(&places)) {
        assert!(!source.code.contains(".transact("), "{} begins a transaction", source.name());
    }
}

#[test]
fn the_time_the_dice_and_the_environment_come_in_through_one_door_each() {
    for source in sources() {
        for word in ["SystemTime::now", "Instant::now", "rand::"] {
            assert!(source.name() == "world.rs" || !source.code.contains(word), "{} says {word}", source.name());
        }
        for word in ["env::var(", "env::var_os("] {
            assert!(source.name() == "config.rs" || !source.code.contains(word), "{} says {word}", source.name());
        }
    }
}

#[test]
fn no_file_is_named_for_nothing_in_particular() {
    let files = [files_below(&root().join("src")), files_below(&root().join("tests"))].concat();
    for path in files {
        let name = path.file_name().unwrap().to_str().unwrap();
        let vague = ["mod", "util", "utils", "common", "helper", "helpers", "misc", "manager"];
        assert!(!vague.contains(&name.trim_end_matches(".rs")), "{}", path.display());
    }
}

#[test]
fn nothing_is_left_undone_and_nothing_gives_up_without_a_reason() {
    for source in sources() {
        for word in [
            "todo!",
            "unimplemented!",
            ".unwrap()",
            "dbg!",
            concat!("TO", "DO"),
            concat!("FIX", "ME"),
            "unsafe ",
            ".expect(\"\")",
        ] {
            assert!(!source.code.contains(word), "{} says {word}", source.name());
        }
    }
}

#[test]
fn every_file_begins_by_saying_what_it_is_for() {
    for Source { path, .. } in sources() {
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("//! "), "{}", path.display());
    }
}

#[test]
fn no_test_is_skipped() {
    for path in files_below(&root().join("tests")) {
        let text = fs::read_to_string(&path).unwrap();
        if path.extension().is_none_or(|extension| extension != "rs") {
            continue;
        }
        // Put together here, so that this file does not name them.
        assert!(!text.contains(&["#[", "ignore"].concat()), "{} skips a test", path.display());
    }
}
