//! What a refused grant was probably meant to be.

use strsim::osa_distance;

use super::grant::{Grant, is_id};
use super::{Capability, Resource, WILDCARD};

/// How much of a text is looked at. The longest grant there is takes fewer characters.
const LOOKED_AT_MAX: usize = 128;
/// How much of a segment is compared. No resource and no action is longer, and the work grows with the length.
const COMPARED_MAX: usize = 32;

/// The valid grant whose spelling is nearest. For a text that resembles none it is merely an example.
pub(super) fn nearest(text: &str) -> Grant {
    let text: String = text.trim().chars().take(LOOKED_AT_MAX).collect::<String>().to_ascii_lowercase();
    let segments: Vec<&str> = text.split('.').collect();
    let (resource, id, action) = match segments[..] {
        [] => ("", WILDCARD, ""),
        [only] if Resource::parse(only).is_some() => (only, WILDCARD, WILDCARD),
        [action] => (WILDCARD, WILDCARD, action),
        [resource, action] => (resource, WILDCARD, action),
        [resource, id, .., action] => (resource, id, action),
    };
    let (resource, action) = (beginning(resource), beginning(action));
    let id = Some(id).filter(|id| is_id(id));
    if action == WILDCARD {
        let resource = (resource != WILDCARD).then(|| nearest_resource(resource));
        let id = id.filter(|_| resource.is_none_or(Resource::has_ids));
        return Grant::suggested(resource, id, None);
    }
    let capability = nearest_capability(resource, action);
    // A wildcard is kept only where it was written in three segments; `create_key` alone means `apis.*.create_key`.
    let keeps_wildcard = resource == WILDCARD && segments.len() > 1 && capability.resource().in_wildcard();
    let resource = (!keeps_wildcard).then(|| capability.resource());
    Grant::suggested(resource, id.filter(|_| !capability.whole_only()), Some(capability))
}

fn beginning(segment: &str) -> &str {
    segment.char_indices().nth(COMPARED_MAX).map_or(segment, |(end, _)| &segment[..end])
}

fn nearest_resource(text: &str) -> Resource {
    let distance = |resource: &&Resource| match Resource::parse(text) {
        Some(meant) => usize::from(meant != **resource),
        None => osa_distance(text, resource.name()),
    };
    *Resource::ALL.iter().min_by_key(distance).expect("there are resources")
}

/// An action says more about what was meant than a resource, so its distance counts for more.
fn nearest_capability(resource: &str, action: &str) -> Capability {
    let distance = |capability: &&Capability| {
        let to_resource = match Resource::parse(resource) {
            Some(meant) if meant == capability.resource() => 0,
            Some(meant) => osa_distance(meant.name(), capability.resource().name()),
            None if resource == WILDCARD => 0,
            None => osa_distance(resource, capability.resource().name()),
        };
        2 * to_resource + 3 * osa_distance(action, capability.action())
    };
    *Capability::ALL.iter().min_by_key(distance).expect("there are capabilities")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_nearest_spelling_is_what_was_meant() {
        for (written, meant) in [
            ("apis.create_key", "apis.*.create_key"),
            ("api.create_key", "apis.*.create_key"),
            ("APIS.*.create_key", "apis.*.create_key"),
            ("apis.*.CREATE_KEY", "apis.*.create_key"),
            ("apis.*.create_keys", "apis.*.create_key"),
            ("apis.*.craete_key", "apis.*.create_key"),
            ("apos.*.create_key", "apis.*.create_key"),
            ("keys.*.create_key", "apis.*.create_key"),
            (" apis.*.create_key\n", "apis.*.create_key"),
            ("apis.Api_1.create_key", "apis.api_1.create_key"),
            ("apis.api_*.create_key", "apis.*.create_key"),
            ("apis.api_1.create_api", "apis.*.create_api"),
            ("apis.api_1.keys.create_key", "apis.api_1.create_key"),
            ("apis.*.create_role", "rbac.*.create_role"),
            ("apis.*.create_rol", "apis.*.create_api"),
            ("root_keys.*.create_key", "root_keys.*.create_root_key"),
            ("root_key.*.*", "root_keys.*.*"),
            ("root-keys.*.rotate_key", "root_keys.*.rotate_root_key"),
            ("role.*.delete_role", "rbac.*.delete_role"),
            ("identitys.*.read_identity", "identities.*.read_identity"),
            ("ratelimit.*.limits", "ratelimits.*.limit"),
            ("*.*.create_workspace", "workspaces.*.create_workspace"),
            ("*.*.creat_workspace", "workspaces.*.create_workspace"),
            ("*.*.create_keys", "*.*.create_key"),
            ("*.create_key", "*.*.create_key"),
            ("audit.evt_1.*", "audit.*.*"),
            ("create_key", "apis.*.create_key"),
            ("apis", "apis.*.*"),
            ("*", "*.*.*"),
            ("*.*", "*.*.*"),
        ] {
            assert_eq!(nearest(written).to_string(), meant, "for {written:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_suggested_is_accepted(
            text in "[a-zA-Z_*. ]{0,40}|(apis?|rbac|\\*|audit|workspaces)\\.[a-z*]{0,4}\\.[a-z_*]{0,20}|.*",
        ) {
            let suggestion = nearest(&text);
            prop_assert_eq!(Grant::parse(&suggestion.to_string()), Ok(suggestion));
        }
    }
}
