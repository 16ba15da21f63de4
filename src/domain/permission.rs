//! Permissions of API keys: words that the customer makes up, and what holding one means.
//!
//! Not to be confused with capabilities, the closed list of what a root key may do here.

use std::fmt;

use super::Flaw;
use super::etag::Etag;
use super::id::{PermissionId, WorkspaceId};
use super::name::{Description, Name};
use super::time::Timestamp;
use super::value::Facts;

/// The most characters of a slug, and of a permission that a query asks for.
pub const SLUG_LENGTH_MAX: usize = 128;

/// Whether a character may stand in a permission.
pub(super) const fn is_permission_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b':' | b'*' | b'/' | b'-')
}

/// A permission as a key or a role holds it: dot-separated segments, of which `*` may be one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slug(Box<str>);

impl Slug {
    /// A slug of 1 to 128 of `[A-Za-z0-9._:*/-]`.
    pub fn new(text: &str) -> Result<Self, Flaw> {
        if (1..=SLUG_LENGTH_MAX).contains(&text.len()) && text.bytes().all(is_permission_byte) {
            Ok(Self(text.into()))
        } else {
            Err(Flaw::new(format!("must be 1 to {SLUG_LENGTH_MAX} characters of A-Z, a-z, 0-9 and ._:*/-")))
        }
    }

    /// The text as it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The form that is unique in a workspace: ASCII letters in lower case. Matching never uses it.
    pub fn folded(&self) -> String {
        self.0.to_ascii_lowercase()
    }

    /// Whether whoever holds this slug has the permission asked for.
    ///
    /// Segments are compared whole and case-sensitively. A segment `*` of the slug covers exactly one segment, as
    /// long as that is not empty; the last one covers all that remains, as long as anything does:
    ///
    /// | slug | covers | not |
    /// |---|---|---|
    /// | `documents.*` | `documents.read`, `documents.read.own` | `documents`, `documents.` |
    /// | `*.read` | `documents.read` | `a.b.read`, `.read`, `read` |
    /// | `*` | everything | |
    ///
    /// A `*` beside other characters, or in what is asked for, is a character like any other.
    pub fn covers(&self, permission: &str) -> bool {
        let (mut held, mut asked) = (&*self.0, permission);
        loop {
            if held == "*" {
                return !asked.is_empty();
            }
            match (first_segment(held), first_segment(asked)) {
                (Some((held_first, held_rest)), Some((asked_first, asked_rest))) => {
                    if !segment_covers(held_first, asked_first) {
                        return false;
                    }
                    (held, asked) = (held_rest, asked_rest);
                }
                (None, None) => return held == asked,
                (Some(_), None) | (None, Some(_)) => return false,
            }
        }
    }
}

/// What stands before the first dot and what after it. Segments are short: looking at each byte is quicker than a search.
fn first_segment(text: &str) -> Option<(&str, &str)> {
    let dot = text.bytes().position(|byte| byte == b'.')?;
    Some((&text[..dot], &text[dot + 1..]))
}

impl fmt::Display for Slug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn segment_covers(held: &str, asked: &str) -> bool {
    held == asked || (held == "*" && !asked.is_empty())
}

/// A permission of API keys, which roles and keys hold by its id.
#[derive(Debug, Clone, PartialEq)]
pub struct Permission {
    /// Its id.
    pub id: PermissionId,
    /// Where it belongs.
    pub workspace: WorkspaceId,
    /// What it covers; unique in the workspace, ignoring ASCII case, and never changed.
    pub slug: Slug,
    /// What people call it; may be empty.
    pub name: Name,
    /// What it is for.
    pub description: Description,
    /// When it was made.
    pub created: Timestamp,
    /// When it last changed visibly.
    pub updated: Timestamp,
    /// Which version this is.
    pub etag: Etag,
    /// When it was deleted, for good.
    pub deleted: Option<Timestamp>,
}

impl Permission {
    /// What the audit log says of it.
    pub fn facts(&self) -> Facts {
        Facts::from([
            ("slug".into(), self.slug.as_str().into()),
            ("name".into(), self.name.as_str().into()),
            ("description".into(), self.description.as_str().into()),
        ])
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn slug(text: &str) -> Slug {
        Slug::new(text).unwrap()
    }

    /// The same meaning, the plain way: lists of segments, taken apart one by one.
    fn reference(held: &[&str], asked: &[&str]) -> bool {
        match (held, asked) {
            ([], []) => true,
            (["*"], [""] | []) => false,
            (["*"], _) => true,
            (["*", held @ ..], [first, asked @ ..]) => !first.is_empty() && reference(held, asked),
            ([same, held @ ..], [first, asked @ ..]) => same == first && reference(held, asked),
            ([], _) | (_, []) => false,
        }
    }

    #[test]
    fn a_star_at_the_end_covers_all_below_and_not_the_segment_before() {
        let slug = slug("documents.*");
        assert!(slug.covers("documents.read"));
        assert!(slug.covers("documents.read.own"));
        assert!(!slug.covers("documents"));
        assert!(!slug.covers("documentsx.read"));
        assert!(!slug.covers("documents_archive.read"));
    }

    #[test]
    fn a_star_before_the_end_covers_exactly_one_segment() {
        let slug = slug("documents.*.read");
        assert!(slug.covers("documents.invoices.read"));
        assert!(!slug.covers("documents.read"));
        assert!(!slug.covers("documents.invoices.paid.read"));
        assert!(!slug.covers("documents.invoices.read.own"));
        assert!(!slug.covers("documents.invoices.write"));
    }

    #[test]
    fn a_star_alone_covers_everything() {
        for asked in ["a", "a.b.c", "*", "a..b", ".", ".a", &"a.".repeat(64)] {
            assert!(slug("*").covers(asked), "{asked}");
        }
    }

    #[test]
    fn a_star_covers_no_empty_segment() {
        assert!(!slug("*").covers(""));
        assert!(!slug("documents.*").covers("documents."));
        assert!(!slug("a.*.b").covers("a..b"));
        assert!(!slug("*.a").covers(".a"));
    }

    #[test]
    fn empty_segments_are_segments() {
        assert!(slug("a..b").covers("a..b"));
        assert!(!slug("a..b").covers("a.b"));
        assert!(!slug("a.b").covers("a.b."));
        assert!(!slug("a.b.").covers("a.b"));
        assert!(slug(".a").covers(".a"));
    }

    #[test]
    fn a_star_beside_other_characters_is_a_character() {
        assert!(slug("doc*.read").covers("doc*.read"));
        assert!(!slug("doc*.read").covers("documents.read"));
        assert!(!slug("documents.r*").covers("documents.read"));
        assert!(!slug("**").covers("a"));
    }

    #[test]
    fn a_star_that_is_asked_for_is_a_character() {
        assert!(slug("documents.*").covers("documents.*"));
        assert!(!slug("documents.read").covers("documents.*"));
        assert!(!slug("documents").covers("*"));
    }

    #[test]
    fn matching_minds_case_and_the_unique_form_does_not() {
        assert!(!slug("Documents.read").covers("documents.read"));
        assert_eq!(slug("Documents.READ").folded(), "documents.read");
    }

    #[test]
    fn slugs_have_their_own_characters_and_length() {
        for good in ["a", "*", ".", "a.b:c/d-e_f*", "AND", &"x".repeat(128)] {
            assert_eq!(slug(good).to_string(), good);
        }
        for bad in ["", " ", "a b", "a\0", "(a)", "caf\u{e9}", "a+b", &"x".repeat(129)] {
            assert!(Slug::new(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]
        #[test]
        fn covering_means_what_the_plain_way_says(held in "[ab*.]{1,8}", asked in "[ab*.]{0,8}") {
            let plain = reference(&held.split('.').collect::<Vec<_>>(), &asked.split('.').collect::<Vec<_>>());
            prop_assert_eq!(slug(&held).covers(&asked), plain);
        }

        #[test]
        fn every_slug_covers_itself(held in "[A-Za-z0-9._:*/-]{1,128}") {
            prop_assert!(slug(&held).covers(&held));
        }
    }
}
