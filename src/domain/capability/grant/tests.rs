use proptest::prelude::*;

use super::*;

fn grant(text: &str) -> Grant {
    Grant::parse(text).unwrap()
}

fn flaw(text: &str) -> String {
    Grant::parse(text).expect_err(text).to_string()
}

#[test]
fn a_grant_prints_as_it_is_read() {
    for text in [
        "*.*.*",
        "apis.*.*",
        "apis.api_1.*",
        "*.api_1.read_key",
        "*.*.create_api",
        "apis.*.create_api",
        "rbac.*.remove_permission_from_role",
        "workspaces.*.backup",
        "workspaces.ws_1.read_workspace",
        "audit.*.*",
        "*.abc.*",
        &format!("apis.{}.read_api", "x".repeat(64)),
    ] {
        assert_eq!(grant(text).to_string(), text);
    }
}

#[test]
fn three_singulars_are_read_as_plurals() {
    assert_eq!(grant("api.*.read_key").to_string(), "apis.*.read_key");
    assert_eq!(grant("identity.*.*").to_string(), "identities.*.*");
    assert_eq!(grant("ratelimit.*.limit").to_string(), "ratelimits.*.limit");
    for other in ["root_key.*.*", "workspace.*.*", "leak.*.*", "audits.*.*"] {
        assert!(Grant::parse(other).is_err(), "{other}");
    }
}

#[test]
fn what_is_not_a_grant_is_refused_with_the_reason_and_the_nearest_one() {
    for (text, reason, suggestion) in [
        ("apis.create_key", "three segments", "apis.*.create_key"),
        ("apis.*.*.create_key", "three segments", "apis.*.create_key"),
        ("", "three segments", ""),
        ("APIS.*.create_key", "lower case", "apis.*.create_key"),
        ("keys.*.create_key", "must name a resource, which \"keys\" is not", "apis.*.create_key"),
        ("apis.*.create_keys", "must name an action, which \"create_keys\" is not", "apis.*.create_key"),
        ("rbac.*.create_key", "an action of rbac, which create_key is not", "apis.*.create_key"),
        ("apis.api_1.create_api", "must have * as id", "apis.*.create_api"),
        ("*.api_1.create_api", "must have * as id", "*.*.create_api"),
        ("leaks.api_1.*", "must have * as id", "leaks.*.*"),
        ("*.*.create_workspace", "workspaces, which * does not cover", "workspaces.*.create_workspace"),
        ("*.ws_1.read_workspace", "workspaces, which * does not cover", "workspaces.ws_1.read_workspace"),
        ("apis.ab.read_api", "3 to 64 characters", "apis.*.read_api"),
        ("apis.api-1.read_api", "3 to 64 characters", "apis.*.read_api"),
        ("apis..read_api", "3 to 64 characters", "apis.*.read_api"),
        ("api*.*.read_api", "must name a resource", "apis.*.read_api"),
        ("apis.*.read_*", "must name an action", "apis.*.read_api"),
        ("apis.**.read_api", "as id", "apis.*.read_api"),
        ("apis.*.read_api\n", "must name an action, which \"read_api?\" is not", "apis.*.read_api"),
        (".*.read_api", "must name a resource", "apis.*.read_api"),
        ("apis.*.", "must name an action", "apis.*."),
    ] {
        let flaw = flaw(text);
        assert!(flaw.contains(reason), "{text:?}: {flaw}");
        assert!(flaw.contains(&format!("the nearest valid spelling is {suggestion}")), "{text:?}: {flaw}");
    }
}

#[test]
fn an_error_repeats_little_of_what_was_sent() {
    for text in [
        "\u{1f511}".repeat(1_000_000),
        format!("{0}.{0}.{0}", "z".repeat(1_000)),
        format!("apis.{}.{}", "z".repeat(64), "z".repeat(1_000)),
    ] {
        let flaw = flaw(&text);
        let repeated = flaw.chars().filter(|c| matches!(c, 'z' | '\u{1f511}')).count();
        assert!(repeated <= 100, "{repeated}");
        assert!(flaw.len() < 300, "{}", flaw.len());
    }
}

#[test]
fn the_whole_is_allowed_by_a_wildcard_only() {
    assert!(grant("apis.*.read_key").allows(Capability::ReadKey, None));
    assert!(grant("apis.*.read_key").allows(Capability::ReadKey, Some("api_1")));
    assert!(grant("apis.api_1.read_key").allows(Capability::ReadKey, Some("api_1")));
    assert!(!grant("apis.api_1.read_key").allows(Capability::ReadKey, None));
    assert!(!grant("apis.api_1.read_key").allows(Capability::ReadKey, Some("api_2")));
    assert!(!grant("apis.api_1.read_key").allows(Capability::ReadKey, Some("*")));
    assert!(!grant("apis.api_1.*").allows(Capability::CreateApi, Some("api_1")));
}

#[test]
fn a_wildcard_resource_never_reaches_workspaces() {
    for capability in Capability::ALL {
        let expected = capability.resource() != Resource::Workspaces;
        assert_eq!(grant("*.*.*").allows(*capability, None), expected, "{capability}");
    }
    assert!(!grant("*.*.*").covers(&grant("workspaces.*.read_workspace")));
    assert!(grant("workspaces.*.*").allows(Capability::Backup, None));
}

#[test]
fn covering_goes_segment_by_segment() {
    assert!(grant("apis.*.*").covers(&grant("apis.api_1.read_key")));
    assert!(grant("*.api_1.*").covers(&grant("apis.api_1.read_key")));
    assert!(!grant("apis.api_1.read_key").covers(&grant("apis.*.read_key")));
    assert!(!grant("apis.*.read_key").covers(&grant("apis.*.*")));
    assert!(!grant("apis.*.*").covers(&grant("*.*.*")));
    assert!(!grant("apis.*.read_key").covers(&grant("*.*.read_key")), "a wildcard is covered by a wildcard only");
}

const IDS: [&str; 3] = ["one", "two", "api_1"];

fn grants() -> impl Strategy<Value = Grant> {
    let resource = prop::option::of(prop::sample::select(Resource::ALL));
    let id = prop::option::of(prop::sample::select(&IDS[..]));
    let action = prop::option::of(prop::sample::select(Capability::ALL));
    (resource, id, action, any::<bool>()).prop_filter_map("segments that agree", |(resource, id, action, follow)| {
        // Most resources don't go with most actions; following the action yields enough that do.
        let resource = match action {
            Some(action) if follow && resource.is_some() => Some(action.resource()),
            Some(_) | None => resource,
        };
        let grant = Grant { resource, id: id.map(Box::from), action };
        grant.check_agreement().is_ok().then_some(grant)
    })
}

/// The same grant with some segments widened to `*`, where that is a grant.
fn widened((narrow, resource, id, action): (Grant, bool, bool, bool)) -> (Grant, Grant) {
    let wide = Grant {
        resource: narrow.resource.filter(|_| !resource),
        id: narrow.id.clone().filter(|_| !id),
        action: narrow.action.filter(|_| !action),
    };
    let wide = if wide.check_agreement().is_ok() { wide } else { narrow.clone() };
    (narrow, wide)
}

/// Pairs of which the second mostly covers the first.
fn widenings(narrow: impl Strategy<Value = Grant>) -> impl Strategy<Value = (Grant, Grant)> {
    (narrow, any::<bool>(), any::<bool>(), any::<bool>()).prop_map(widened)
}

/// Three grants, each mostly covered by the next.
fn chains() -> impl Strategy<Value = (Grant, Grant, Grant)> {
    widenings(grants()).prop_flat_map(|(c, b)| widenings(Just(b)).prop_map(move |(b, a)| (c.clone(), b, a)))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn every_grant_reads_back_and_covers_itself(grant in grants()) {
        prop_assert_eq!(Grant::parse(&grant.to_string()), Ok(grant.clone()));
        prop_assert!(grant.covers(&grant));
    }

    #[test]
    fn covering_is_transitive((c, b, a) in chains(), other in grants()) {
        prop_assert!(!(a.covers(&b) && b.covers(&other)) || a.covers(&other), "{} {} {}", a, b, other);
        prop_assert!(!(a.covers(&b) && b.covers(&c)) || a.covers(&c), "{} {} {}", a, b, c);
    }

    #[test]
    fn grants_that_cover_each_other_are_the_same((b, a) in widenings(grants())) {
        prop_assert!(!(a.covers(&b) && b.covers(&a)) || a == b);
    }

    #[test]
    fn whatever_a_covered_grant_allows_the_covering_one_allows((b, a) in widenings(grants()), other in grants()) {
        for capability in Capability::ALL {
            for id in [None, Some("one"), Some("two"), Some("three"), Some("*")] {
                let allowed = a.allows(*capability, id);
                for covered in [&b, &other].into_iter().filter(|grant| a.covers(grant)) {
                    prop_assert!(!covered.allows(*capability, id) || allowed, "{} {} {}", a, covered, capability);
                }
            }
        }
    }

    #[test]
    fn any_text_is_read_or_refused(text: String) {
        if let Ok(grant) = Grant::parse(&text) {
            prop_assert!(!text.is_empty() && grant.covers(&grant));
        }
    }
}
