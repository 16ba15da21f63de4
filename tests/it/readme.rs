//! README.md says what the program says: every flag, every method, every reason, every limit.

use clap::CommandFactory as _;
use ostiary::config::CommandLine;
use ostiary::config::bounds::Bounds;
use ostiary::domain::{capability, key, namespace, network, permission, query, role, rotation, value};
use ostiary::pb::counted;
use ostiary::rpc::{self, arriving, policy, probing, rate_limits, shedding, standing, throttle};
use ostiary::service::{listing, windows};

use crate::certificates::Authority;
use crate::process::Place;

const README: &str = include_str!("../../README.md");
/// The pages for those who use ostiary.
const PAGES: [&str; 9] = [
    "README.md",
    "deploy/README.md",
    "docs/backup.md",
    "docs/deploying.md",
    "docs/envoy.md",
    "docs/sizing.md",
    "docs/troubleshooting.md",
    "docs/upgrading.md",
    "examples/README.md",
];

/// The rows of the first table after a heading, cell by cell.
fn table(heading: &str) -> Vec<Vec<String>> {
    let (_, chapter) = README.split_once(&format!("{heading}\n")).unwrap_or_else(|| panic!("no chapter {heading}"));
    let rows = chapter.lines().skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
    rows.skip(2).map(|row| row.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()).collect()
}

fn bare(cell: &str) -> &str {
    cell.trim_matches('`')
}

#[test]
fn the_configuration_chapter_has_every_flag_with_its_variable_and_default_and_no_other() {
    let line = CommandLine::command();
    let serve = line.find_subcommand("serve").unwrap();
    let known: Vec<_> = serve
        .get_arguments()
        .filter_map(|argument| {
            let flag = format!("--{}", argument.get_long()?);
            let variable = argument.get_env()?.to_str().unwrap().to_owned();
            let default = argument.get_default_values().first().map(|value| value.to_str().unwrap().to_owned());
            let takes_value = argument.get_action().takes_values();
            let absent = if takes_value { "none" } else { "off" };
            Some((flag, variable, default.filter(|_| takes_value).unwrap_or_else(|| absent.to_owned())))
        })
        .collect();
    assert_eq!(known.len(), 25);
    let told: Vec<_> = table("## Configuration")
        .into_iter()
        .map(|row| (bare(&row[0]).to_owned(), bare(&row[1]).to_owned(), bare(&row[2]).to_owned()))
        .collect();
    assert_eq!(told, known);
}

#[test]
fn the_file_on_the_page_is_one_that_can_be_served() {
    let (_, rest) = README.split_once("```toml\n").unwrap();
    let (file, _) = rest.split_once("```").unwrap();
    let (place, authority) = (Place::new(), Authority::new());
    authority.sign().write(&place);
    let file = file.replace("/etc/ostiary/", &format!("{}/", place.path("").display()));
    place.write("ostiary.toml", &file.replace("/var/lib/ostiary", "data"));
    let checked = place.run(&["config", "check", "--config", "ostiary.toml"]);
    assert_eq!((checked.code, checked.stdout.as_str()), (Some(0), "the configuration is good\n"), "{checked:?}");
}

#[test]
fn help_names_every_flag_and_every_variable() {
    let mut line = CommandLine::command();
    let help = line.find_subcommand_mut("serve").unwrap().render_long_help().to_string();
    for row in table("## Configuration") {
        assert!(help.contains(bare(&row[0])) && help.contains(&format!("[env: {}=", bare(&row[1]))), "{row:?}");
    }
}

#[test]
fn the_methods_chapter_has_every_method_with_what_it_needs() {
    let mut told: Vec<_> =
        table("## Methods").into_iter().map(|row| (bare(&row[0]).to_owned(), row[1].clone())).collect();
    for (method, needs) in &told {
        let policy::Door::Guarded(policy) = policy::door(&format!("/ostiary.v1.{method}")) else {
            panic!("there is no {method}");
        };
        let declared = match policy.need {
            policy::Need::AnyRootKey => "any valid root key".to_owned(),
            policy::Need::Capability(_) => format!("`{}`", policy.permission),
        };
        assert_eq!(needs, &declared, "{method}");
    }
    let pool = prost_reflect::DescriptorPool::decode(ostiary::pb::v1::DESCRIPTORS).unwrap();
    let mut known: Vec<String> = Vec::new();
    for service in pool.services().filter(|service| service.package_name() == "ostiary.v1") {
        known.extend(service.methods().map(|method| format!("{}/{}", service.name(), method.name())));
    }
    known.sort();
    told.sort();
    assert_eq!(told.into_iter().map(|(method, _)| method).collect::<Vec<_>>(), known);
}

#[test]
fn the_errors_chapter_has_every_reason_and_no_other() {
    let words = |text: &str| -> Vec<String> {
        let words = text.split(|c: char| !(c.is_ascii_uppercase() || c == '_'));
        words.filter(|word| word.len() > 3).map(str::to_owned).collect()
    };
    let mut told: Vec<String> = table("## Errors")
        .into_iter()
        .flat_map(|row| if row[1] == "the same word" { words(&row[0]) } else { words(&row[1]) })
        .collect();
    let pool = prost_reflect::DescriptorPool::decode(ostiary::pb::v1::DESCRIPTORS).unwrap();
    let reasons = pool.get_enum_by_name("ostiary.v1.ErrorReason").unwrap();
    let mut known: Vec<String> =
        reasons.values().skip(1).map(|value| value.name().trim_start_matches("ERROR_REASON_").to_owned()).collect();
    for list in [&mut told, &mut known] {
        list.sort();
        list.dedup();
    }
    assert_eq!(told, known);
}

#[test]
fn the_verdicts_are_told_in_the_order_of_the_checks() {
    let pool = prost_reflect::DescriptorPool::decode(ostiary::pb::v1::DESCRIPTORS).unwrap();
    let codes = pool.get_enum_by_name("ostiary.v1.VerificationCode").unwrap();
    let known: Vec<String> =
        codes.values().skip(1).map(|value| value.name().trim_start_matches("VERIFICATION_CODE_").to_owned()).collect();
    let told: Vec<String> = table("### Verdicts").into_iter().map(|row| bare(&row[0]).to_owned()).collect();
    assert_eq!(told, known);
}

#[test]
fn the_limits_chapter_has_the_limits_that_hold() {
    let told: Vec<_> = table("## Limits").into_iter().map(|row| row[1].clone()).collect();
    let days = rotation::GRACE_MAX.as_secs() / 86_400;
    let bounds = Bounds::default();
    let known = [
        capability::GRANTS_MAX.to_string(),
        format!("{}; {}; {}", role::PERMISSIONS_MAX, key::ROLES_MAX, role::NEW_PERMISSIONS_MAX),
        "1–255; 3–255; 0–255 characters".to_owned(),
        format!(
            "{} characters; {} characters, {} permissions, {} levels",
            permission::SLUG_LENGTH_MAX,
            query::QUERY_LENGTH_MAX,
            query::QUERY_PERMISSIONS_MAX,
            query::QUERY_DEPTH_MAX
        ),
        format!("{} KiB encoded, {} levels", value::METADATA_BYTES_MAX >> 10, value::METADATA_LEVELS_MAX),
        format!("{} networks", network::NETWORKS_MAX),
        format!(
            "1–255 characters; {}; {}; {}; {}",
            windows::SPANS_MAX,
            rate_limits::ITEMS_MAX,
            namespace::PATTERNS_MAX,
            windows::INLINE_MAX
        ),
        format!(
            "{},000,000 (`--max-rate-limit-windows`); a workspace has at most eight times as many as are still free",
            windows::WINDOWS_MAX / 1_000_000
        ),
        format!("{days} days"),
        format!("50 by default, {} at most", listing::PAGE_SIZE_MAX),
        format!(
            "{} MiB, within {} seconds, without a root key {} KiB; {},{}; 16 KiB",
            rpc::MESSAGE_BYTES_MAX >> 20,
            arriving::ARRIVES_WITHIN.as_secs(),
            arriving::SMALL >> 10,
            counted::FIELDS_MAX / 1_000,
            counted::FIELDS_MAX % 1_000
        ),
        format!("{} MiB; {} MiB", arriving::ROOM >> 20, (arriving::ROOM / arriving::SHARE) >> 20),
        "256; a minute".to_owned(),
        format!(
            "{} verifications and countings (`--max-calls`), and half as many others; a root key has at most {} times as many of either as are still free",
            bounds.max_calls,
            ["no", "one", "two", "three", "four", "five", "six", "seven", "eight"][shedding::SHARE as usize]
        ),
        standing::OPEN_MAX.to_string(),
        format!(
            "{},000 over the network (`--max-connections`), and as many over Unix sockets; where there is no room, also \
             for one peer, one over which no good root key came in its first {} seconds gives way, or else one over \
             which none came for {} minutes",
            bounds.max_connections / 1_000,
            standing::SHOWN_WITHIN.as_secs(),
            (standing::IDLE_LOOKS_MAX * standing::LOOK_EVERY).as_secs() / 60
        ),
        format!(
            "{} at once, then {} a second; further ones are answered a second late",
            probing::UNKNOWN_AT_ONCE,
            probing::UNKNOWN_PER_SECOND
        ),
        format!(
            "{} at once, then {} a second; good root keys are never refused for it",
            throttle::FAILURES_AT_ONCE,
            throttle::FAILURES_PER_SECOND
        ),
    ];
    assert_eq!(told, known);
}

#[test]
fn every_file_that_a_page_points_at_is_there() {
    for page in PAGES {
        let page = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(page);
        let text = std::fs::read_to_string(&page).unwrap();
        let targets = text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next());
        let mut local = 0;
        for target in targets.filter(|target| !target.contains("://")) {
            assert!(page.parent().unwrap().join(target).exists(), "{}: {target}", page.display());
            local += 1;
        }
        assert!(local > 0, "{} points at nothing", page.display());
    }
}

#[test]
fn the_page_on_upgrading_knows_the_formats_and_how_a_newer_one_is_refused() {
    let page = include_str!("../../docs/upgrading.md");
    let newest = ostiary::store::redb::FORMAT_VERSION;
    let formats: Vec<_> = page.lines().filter(|line| line.starts_with("| ")).skip(1).collect();
    let numbers: Vec<_> = formats.iter().map(|row| row.split('|').nth(1).unwrap().trim().to_owned()).collect();
    assert_eq!(numbers, (1..=newest).map(|number| number.to_string()).collect::<Vec<_>>());
    let next = newest + 1;
    let refusal = format!("has format {next}, and this version reads up to format {newest}: use a newer version");
    assert!(page.contains(&refusal), "{refusal}");
}

#[test]
fn every_dependency_has_a_line_that_argues_for_it() {
    let manifest = include_str!("../../Cargo.toml");
    let argued = include_str!("../../docs/dependencies.md");
    let mut section = "";
    for line in manifest.lines() {
        if line.starts_with('[') {
            section = line;
        } else if section.ends_with("dependencies]") && line.contains(" = ") {
            let name = line.split(' ').next().unwrap();
            assert!(argued.contains(&format!("| `{name}` |")), "{name}");
        }
    }
    for row in argued.lines().filter(|line| line.starts_with("| `")) {
        let name = row.split('`').nth(1).unwrap();
        assert!(manifest.contains(&format!("\n{name} = ")), "{name} is argued for and not there");
    }
}
