//! Reading the fields of a message: every flaw is collected, so that a caller learns of all of them at once.

use std::collections::HashSet;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use prost::Message;

use crate::domain::Flaw;
use crate::domain::api::{TTL_MAX, TTL_MIN};
use crate::domain::capability::{GRANTS_MAX, Grant, Grants};
use crate::domain::id::{PermissionId, Reference, RoleId, is_shape_of_any};
use crate::domain::key::ROLES_MAX;
use crate::domain::name::{DESCRIPTION, Description, Name, ROLE_NAME};
use crate::domain::network::AllowList;
use crate::domain::permission::Slug;
use crate::domain::secret::Prefix;
use crate::domain::time::{Expiry, Timestamp};
use crate::domain::value::{METADATA_BYTES_MAX, Metadata};
use crate::error::{Error, Violation};
use crate::pb;
use crate::service::Revision;

/// Entries of a list that are looked at one by one; a longer list is refused as a whole.
const ENTRIES_MAX: usize = 1_000;
/// Characters of a text to search for.
const SEARCH_LENGTH_MAX: usize = 255;

/// What has been found wrong so far.
#[derive(Default)]
pub struct Fields {
    violations: Vec<Violation>,
}

impl Fields {
    /// Notes a flaw.
    pub fn refuse(&mut self, field: impl Into<String>, flaw: Flaw) {
        self.violations.push(Violation::new(field, flaw));
    }

    /// The value, or a note of what is wrong with it.
    pub fn take<T>(&mut self, field: impl Into<String>, value: Result<T, Flaw>) -> Option<T> {
        value.map_err(|flaw| self.refuse(field, flaw)).ok()
    }

    /// The draft, if nothing was wrong.
    pub fn finish<T>(self, draft: Option<T>) -> Result<T, Error> {
        match draft {
            Some(draft) if self.violations.is_empty() => Ok(draft),
            Some(_) | None if !self.violations.is_empty() => Err(Error::Invalid(self.violations)),
            Some(_) | None => Err(Error::Internal("a field was refused without a word".to_owned())),
        }
    }

    /// A name within bounds.
    pub fn name(&mut self, field: &str, text: &str, bounds: RangeInclusive<usize>) -> Option<Name> {
        self.take(field, Name::new(text, bounds))
    }

    /// A name that must not look like an id of its kind.
    pub fn role_name(&mut self, field: &str, text: &str) -> Option<Name> {
        if is_shape_of_any(text) {
            self.refuse(field, Flaw::new("must not have the form of an id"));
            return None;
        }
        self.name(field, text, ROLE_NAME)
    }

    /// A slug of a permission to be made, which must not look like an id of its kind.
    pub fn new_slug(&mut self, field: &str, text: &str) -> Option<Slug> {
        if is_shape_of_any(text) {
            self.refuse(field, Flaw::new("must not have the form of an id"));
            return None;
        }
        self.take(field, Slug::new(text))
    }

    /// A description.
    pub fn description(&mut self, field: &str, text: &str) -> Option<Description> {
        self.take(field, Description::new(text, DESCRIPTION))
    }

    /// A text to search for.
    pub fn search(&mut self, field: &str, text: Option<String>) -> Option<Option<String>> {
        match text {
            Some(text) if !(1..=SEARCH_LENGTH_MAX).contains(&text.chars().count()) => {
                self.refuse(field, Flaw::new(format!("must be 1 to {SEARCH_LENGTH_MAX} characters")));
                None
            }
            text => Some(text),
        }
    }

    /// The prefix of secrets, if there is one.
    pub fn prefix(&mut self, field: &str, text: Option<&str>) -> Option<Option<Prefix>> {
        text.map_or(Some(None), |text| self.take(field, Prefix::new(text)).map(Some))
    }

    /// What a root key may do: at least one grant.
    pub fn grants(&mut self, field: &str, texts: &[String]) -> Option<Grants> {
        if texts.is_empty() {
            self.refuse(field, Flaw::new("must name at least one permission"));
            return None;
        }
        self.short_enough(field, texts.len(), ENTRIES_MAX.min(GRANTS_MAX * 2))?;
        let grants = self.each(field, texts, |text| Grant::parse(text))?;
        self.take(field, Grants::collect(grants))
    }

    /// Networks.
    pub fn networks(&mut self, field: &str, texts: &[String]) -> Option<AllowList> {
        self.short_enough(field, texts.len(), ENTRIES_MAX)?;
        self.each(field, texts, |text| AllowList::parse([text.as_str()]).map_err(|(_, flaw)| flaw))?;
        match AllowList::parse(texts.iter().map(String::as_str)) {
            Ok(allowed) => Some(allowed),
            Err((index, flaw)) => {
                self.refuse(format!("{field}[{index}]"), flaw);
                None
            }
        }
    }

    /// An address, if there is one.
    pub fn address(&mut self, field: &str, text: Option<&str>) -> Option<Option<IpAddr>> {
        let parse = |text: &str| text.parse::<IpAddr>().map_err(|_| Flaw::new("must be an IPv4 or IPv6 address"));
        text.map_or(Some(None), |text| self.take(field, parse(text)).map(Some))
    }

    /// An id.
    pub fn id<I>(&mut self, field: &str, text: &str, parse: fn(&str) -> Result<I, Flaw>) -> Option<I> {
        self.take(field, parse(text))
    }

    /// An id, if there is one.
    pub fn optional_id<I>(
        &mut self,
        field: &str,
        text: Option<&str>,
        parse: fn(&str) -> Result<I, Flaw>,
    ) -> Option<Option<I>> {
        text.map_or(Some(None), |text| self.take(field, parse(text)).map(Some))
    }

    /// A role by id or name.
    pub fn role(&mut self, field: &str, text: &str) -> Option<Reference<RoleId>> {
        self.take(field, role(text))
    }

    /// Roles by id or name: no more different ones than a key can hold, so that looking them up is bounded too.
    pub fn roles(&mut self, field: &str, texts: &[String]) -> Option<Vec<Reference<RoleId>>> {
        self.short_enough(field, texts.len(), ENTRIES_MAX)?;
        if texts.iter().collect::<HashSet<_>>().len() > ROLES_MAX {
            self.refuse(field, Flaw::new(format!("must name at most {ROLES_MAX}")));
            return None;
        }
        self.each(field, texts, |text| role(text))
    }

    /// A permission by id or slug.
    pub fn permission(&mut self, field: &str, text: &str) -> Option<Reference<PermissionId>> {
        self.take(field, permission(text))
    }

    /// Permissions by id or slug.
    pub fn permissions(&mut self, field: &str, texts: &[String]) -> Option<Vec<Reference<PermissionId>>> {
        self.short_enough(field, texts.len(), ENTRIES_MAX)?;
        self.each(field, texts, |text| permission(text))
    }

    fn short_enough(&mut self, field: &str, length: usize, most: usize) -> Option<()> {
        if length > most {
            self.refuse(field, Flaw::new(format!("must have at most {most} entries")));
            return None;
        }
        Some(())
    }

    fn each<T>(&mut self, field: &str, texts: &[String], read: impl Fn(&String) -> Result<T, Flaw>) -> Option<Vec<T>> {
        let read: Vec<Option<T>> =
            texts.iter().enumerate().map(|(index, text)| self.take(format!("{field}[{index}]"), read(text))).collect();
        read.into_iter().collect()
    }

    /// Metadata.
    pub fn metadata(&mut self, field: &str, data: Option<prost_types::Struct>) -> Option<Metadata> {
        let data = data.unwrap_or_default();
        if data.encoded_len() > METADATA_BYTES_MAX {
            self.refuse(field, Flaw::new(format!("must be at most {METADATA_BYTES_MAX} bytes encoded")));
            return None;
        }
        self.take(field, Metadata::new(pb::to_facts(data)))
    }

    /// A moment, if there is one.
    pub fn moment(&mut self, field: &str, moment: Option<prost_types::Timestamp>) -> Option<Option<Timestamp>> {
        moment.map_or(Some(None), |moment| self.take(field, to_moment(moment)).map(Some))
    }

    /// The end of a life, if one is given: it must lie ahead.
    pub fn expire_time(
        &mut self,
        field: &str,
        moment: Option<prost_types::Timestamp>,
        ahead_of: Timestamp,
    ) -> Option<Option<Expiry>> {
        let Some(moment) = self.moment(field, moment)? else { return Some(None) };
        if Expiry::At(moment).has_passed(ahead_of) {
            self.refuse(field, Flaw::new("must lie in the future"));
            return None;
        }
        Some(Some(Expiry::At(moment)))
    }

    /// The length of a life, if one is given.
    pub fn ttl(&mut self, field: &str, span: Option<prost_types::Duration>) -> Option<Option<Duration>> {
        self.span(field, span, TTL_MIN..=TTL_MAX)
    }

    /// A span within bounds, if there is one.
    pub fn span(
        &mut self,
        field: &str,
        span: Option<prost_types::Duration>,
        bounds: RangeInclusive<Duration>,
    ) -> Option<Option<Duration>> {
        span.map_or(Some(None), |span| self.take(field, to_span(span, &bounds)).map(Some))
    }

    /// A revision that the answer must reflect, if one is given.
    pub fn min_revision(&mut self, text: &str) -> Option<Option<Revision>> {
        let parse = |text: &str| {
            text.parse::<Revision>().map_err(|_| Flaw::new("must be a revision as answers carry it in meta.revision"))
        };
        if text.is_empty() { Some(None) } else { self.take("min_revision", parse(text)).map(Some) }
    }

    /// Which fields an update means: those that the mask names, or, without one, those that are set.
    pub fn mask(&mut self, mask: Option<prost_types::FieldMask>, known: &[&str], immutable: &[&str]) -> Mask {
        let paths = mask.map(|mask| mask.paths).unwrap_or_default();
        if paths.len() > ENTRIES_MAX {
            self.refuse("update_mask", Flaw::new(format!("must have at most {ENTRIES_MAX} entries")));
            return Mask(None);
        }
        for (index, path) in paths.iter().enumerate() {
            let field = format!("update_mask.paths[{index}]");
            if immutable.contains(&path.as_str()) {
                self.refuse(field, Flaw::new(format!("{path} can't be changed")));
            } else if !known.contains(&path.as_str()) {
                self.refuse(field, Flaw::new(format!("must be one of {}", known.join(", "))));
            }
        }
        Mask((!paths.is_empty()).then(|| paths.into_iter().collect()))
    }

    /// A field that an update can set but not clear.
    pub fn patched<T, U>(
        &mut self,
        mask: &Mask,
        field: &str,
        sent: Option<T>,
        read: impl FnOnce(&mut Self, T) -> Option<U>,
    ) -> Option<Option<U>> {
        match mask.wish(field, sent) {
            Wish::Keep => Some(None),
            Wish::Set(sent) => read(self, sent).map(Some),
            Wish::Clear => {
                self.refuse(field, Flaw::new("can't be cleared"));
                None
            }
        }
    }

    /// A field that an update can set and clear.
    pub fn patched_or<T, U>(
        &mut self,
        mask: &Mask,
        field: &str,
        sent: Option<T>,
        cleared: U,
        read: impl FnOnce(&mut Self, T) -> Option<U>,
    ) -> Option<Option<U>> {
        match mask.wish(field, sent) {
            Wish::Keep => Some(None),
            Wish::Set(sent) => read(self, sent).map(Some),
            Wish::Clear => Some(Some(cleared)),
        }
    }
}

/// A list as a field that is set or not: it is, if it has entries.
pub fn list(entries: Vec<String>) -> Option<Vec<String>> {
    (!entries.is_empty()).then_some(entries)
}

fn role(text: &str) -> Result<Reference<RoleId>, Flaw> {
    match RoleId::parse(text) {
        Ok(id) => Ok(Reference::Id(id)),
        Err(_) if is_shape_of_any(text) => Err(Flaw::new("must be a role's id or name, not the id of something else")),
        Err(_) => Name::new(text, ROLE_NAME).map(|name| Reference::Name(name.to_string())),
    }
}

fn permission(text: &str) -> Result<Reference<PermissionId>, Flaw> {
    match PermissionId::parse(text) {
        Ok(id) => Ok(Reference::Id(id)),
        Err(_) if is_shape_of_any(text) => {
            Err(Flaw::new("must be a permission's id or slug, not the id of something else"))
        }
        Err(_) => Slug::new(text).map(|slug| Reference::Name(slug.to_string())),
    }
}

fn to_moment(moment: prost_types::Timestamp) -> Result<Timestamp, Flaw> {
    let prost_types::Timestamp { seconds, nanos } = moment;
    let nanos = u64::try_from(nanos).ok().filter(|nanos| *nanos < 1_000_000_000);
    let millis = u64::try_from(seconds).ok().and_then(|seconds| seconds.checked_mul(1_000)).zip(nanos);
    let (millis, nanos) = millis.ok_or_else(|| Flaw::new("must lie between the years 1970 and 9999"))?;
    Timestamp::from_millis(millis + nanos / 1_000_000)
}

fn to_span(span: prost_types::Duration, bounds: &RangeInclusive<Duration>) -> Result<Duration, Flaw> {
    let prost_types::Duration { seconds, nanos } = span;
    let flaw = || Flaw::new(format!("must be {} to {} seconds", bounds.start().as_secs(), bounds.end().as_secs()));
    let nanos = u32::try_from(nanos).ok().filter(|nanos| *nanos < 1_000_000_000).ok_or_else(flaw)?;
    let span = Duration::new(u64::try_from(seconds).map_err(|_| flaw())?, nanos / 1_000_000 * 1_000_000);
    if bounds.contains(&span) { Ok(span) } else { Err(flaw()) }
}

/// Which fields an update means; none where no mask was sent.
pub struct Mask(Option<HashSet<String>>);

/// What an update wants of a field.
pub enum Wish<T> {
    /// That it stays as it is.
    Keep,
    /// That it becomes this.
    Set(T),
    /// That it becomes empty.
    Clear,
}

impl Mask {
    /// What is wanted of a part of a field: nothing unless the mask names it.
    pub fn part<T>(&self, path: &str, sent: Option<T>) -> Wish<T> {
        match &self.0 {
            None => Wish::Keep,
            Some(_) => self.wish(path, sent),
        }
    }

    /// What is wanted of a field.
    pub fn wish<T>(&self, field: &str, sent: Option<T>) -> Wish<T> {
        match (&self.0, sent) {
            (None, None) => Wish::Keep,
            (None, Some(sent)) => Wish::Set(sent),
            (Some(paths), _) if !paths.contains(field) => Wish::Keep,
            (Some(_), Some(sent)) => Wish::Set(sent),
            (Some(_), None) => Wish::Clear,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_and_spans_that_cannot_be_are_refused() {
        for (seconds, nanos) in [(-1, 0), (0, -1), (0, 1_000_000_000), (253_402_300_800, 0), (i64::MAX, 0)] {
            assert!(to_moment(prost_types::Timestamp { seconds, nanos }).is_err(), "{seconds} {nanos}");
        }
        let bounds = Duration::from_secs(1)..=Duration::from_secs(10);
        for (seconds, nanos) in [(-1, 0), (0, 999_999_999), (10, 1_000_000), (i64::MAX, 0), (1, -1)] {
            assert!(to_span(prost_types::Duration { seconds, nanos }, &bounds).is_err(), "{seconds} {nanos}");
        }
        assert_eq!(to_span(prost_types::Duration { seconds: 10, nanos: 0 }, &bounds), Ok(Duration::from_secs(10)));
    }
}
