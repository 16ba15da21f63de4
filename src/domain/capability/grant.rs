//! A single grant: which capabilities, and on what.

use std::cmp::Ordering;
use std::fmt;

use crate::domain::secret::fit_to_show;

use super::nearest::nearest;
use super::{Capability, Flaw, Resource, WILDCARD};

/// The fewest and most characters of an id in a grant.
const ID_LENGTH: std::ops::RangeInclusive<usize> = 3..=64;

/// How much of a refused segment an error repeats. With an id in the suggestion it stays below 100 characters.
const ECHO_LENGTH_MAX: usize = 32;

/// A grant of a root key: `resource.id.action`, where each segment is one thing or `*` for all.
///
/// Grants are ordered as their texts are, segment by segment.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Grant {
    // An action implies its resource, so a grant whose two disagree can't be made here: see `parse`.
    resource: Option<Resource>,
    id: Option<Box<str>>,
    action: Option<Capability>,
}

impl Grant {
    /// Reads a grant. The singular resources `api`, `identity` and `ratelimit` are read as their plurals.
    ///
    /// Refused: what isn't three segments in lower case, an unknown resource or action, an action of another
    /// resource, an id where there is none to name, and `*` as resource for an action on workspaces. The error says
    /// which, and names the nearest spelling that is accepted.
    pub fn parse(text: &str) -> Result<Self, Flaw> {
        Self::check(text).map_err(|why| Flaw::new(format!("{why}; the nearest valid spelling is {}", nearest(text))))
    }

    fn check(text: &str) -> Result<Self, String> {
        let mut segments = text.split('.');
        let (Some(resource), Some(id), Some(action), None) =
            (segments.next(), segments.next(), segments.next(), segments.next())
        else {
            return Err("must have three segments, resource.id.action".to_owned());
        };
        if text.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err("must be lower case".to_owned());
        }
        let grant = Self { resource: read_resource(resource)?, id: read_id(id)?, action: read_action(action)? };
        grant.check_agreement()?;
        Ok(grant)
    }

    /// Whether the segments, each good by itself, go together.
    fn check_agreement(&self) -> Result<(), String> {
        let Self { resource, id, action } = self;
        if let Some(action) = action {
            let name = action.action();
            match resource {
                Some(resource) if *resource != action.resource() => {
                    return Err(format!("must name an action of {resource}, which {name} is not"));
                }
                None if !action.resource().in_wildcard() => {
                    return Err(format!("must name the resource {}, which * does not cover", action.resource()));
                }
                Some(_) | None => {}
            }
            if action.whole_only() && id.is_some() {
                return Err(format!("must have * as id, since {name} is not about a single object"));
            }
        }
        match resource {
            Some(resource) if !resource.has_ids() && id.is_some() => {
                Err(format!("must have * as id, since {resource} has no single objects"))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// The grant of these segments, for suggestions.
    pub(super) fn suggested(resource: Option<Resource>, id: Option<&str>, action: Option<Capability>) -> Self {
        let grant = Self { resource, id: id.map(Box::from), action };
        debug_assert!(grant.check_agreement().is_ok(), "{grant}");
        grant
    }

    /// Whether it lets its holder do this to the object with this id; without an id, to the whole.
    ///
    /// The whole is allowed by `*` alone, never by a list of ids. A capability that exists only on the whole is
    /// judged so whatever id is given.
    pub fn allows(&self, capability: Capability, id: Option<&str>) -> bool {
        let asked = if capability.whole_only() { None } else { id };
        let id_agrees = self.id.is_none() || (asked.is_some() && self.id.as_deref() == asked);
        self.concerns(capability) && id_agrees
    }

    /// Whether it is about this capability on one object.
    pub(super) fn names_an_object_for(&self, capability: Capability) -> bool {
        self.id.is_some() && self.concerns(capability)
    }

    /// Whether it grants this capability on at least one object.
    pub(super) fn allows_some(&self, capability: Capability) -> bool {
        self.concerns(capability) && (self.id.is_none() || !capability.whole_only())
    }

    /// Whether it allows everything that the other does, now and in later versions, so that its holder may hand
    /// out the other.
    ///
    /// This compares two single grants, segment by segment: each must be `*` or the same, and `*` as resource does
    /// not cover workspaces. A list of grants never adds up to a wildcard, even if it names all that exists today:
    /// the wildcard grows with the objects made and the actions added later, the list doesn't, and handing out a
    /// wildcard for a list would give away more than was held.
    pub fn covers(&self, other: &Self) -> bool {
        let resource = match (self.resource, other.resource) {
            (None, Some(resource)) => resource.in_wildcard(),
            (None, None) => true,
            (Some(mine), theirs) => theirs == Some(mine),
        };
        resource && (self.id.is_none() || self.id == other.id) && (self.action.is_none() || self.action == other.action)
    }

    /// How many segments name one thing.
    pub(super) fn specificity(&self) -> usize {
        let Self { resource, id, action } = self;
        usize::from(resource.is_some()) + usize::from(id.is_some()) + usize::from(action.is_some())
    }

    /// Whether resource and action are those of the capability, whatever the id.
    fn concerns(&self, capability: Capability) -> bool {
        let resource = capability.resource();
        self.resource.map_or(resource.in_wildcard(), |mine| mine == resource)
            && self.action.is_none_or(|mine| mine == capability)
    }

    fn segments(&self) -> [&str; 3] {
        let Self { resource, id, action } = self;
        [
            resource.map_or(WILDCARD, Resource::name),
            id.as_deref().unwrap_or(WILDCARD),
            action.map_or(WILDCARD, Capability::action),
        ]
    }
}

impl Ord for Grant {
    fn cmp(&self, other: &Self) -> Ordering {
        self.segments().cmp(&other.segments())
    }
}

impl PartialOrd for Grant {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [resource, id, action] = self.segments();
        write!(f, "{resource}.{id}.{action}")
    }
}

/// Whether the text can be an id in a grant.
pub(super) fn is_id(text: &str) -> bool {
    ID_LENGTH.contains(&text.len()) && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

fn read_resource(text: &str) -> Result<Option<Resource>, String> {
    if text == WILDCARD {
        return Ok(None);
    }
    let resource = Resource::parse(text);
    resource.map(Some).ok_or_else(|| format!("must name a resource, which {} is not", echo(text)))
}

fn read_id(text: &str) -> Result<Option<Box<str>>, String> {
    if text == WILDCARD {
        return Ok(None);
    }
    let (least, most) = (ID_LENGTH.start(), ID_LENGTH.end());
    let words = || format!("must have * or {least} to {most} characters of a-z, 0-9 and _ as id, not {}", echo(text));
    if is_id(text) { Ok(Some(text.into())) } else { Err(words()) }
}

fn read_action(text: &str) -> Result<Option<Capability>, String> {
    if text == WILDCARD {
        return Ok(None);
    }
    let action = Capability::from_action(text);
    action.map(Some).ok_or_else(|| format!("must name an action, which {} is not", echo(text)))
}

/// The beginning of what was sent, in quotes and fit for a log.
fn echo(text: &str) -> String {
    let text = &*fit_to_show(text);
    let visible = |c: char| if c.is_ascii_graphic() || c == ' ' { c } else { '?' };
    let start: String = text.chars().take(ECHO_LENGTH_MAX).map(visible).collect();
    let rest = if text.chars().nth(ECHO_LENGTH_MAX).is_some() { "..." } else { "" };
    format!("\"{start}{rest}\"")
}

#[cfg(test)]
mod tests;
