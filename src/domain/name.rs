//! Names and descriptions: text that people wrote and people read.

use std::fmt;
use std::ops::RangeInclusive;

use compact_str::CompactString;

use super::Flaw;
use super::secret::Secret;

/// How long the name of a root key is.
pub const ROOT_KEY_NAME: RangeInclusive<usize> = 1..=255;
/// How long the name of an API is.
pub const API_NAME: RangeInclusive<usize> = 3..=255;
/// How long the name of a role is.
pub const ROLE_NAME: RangeInclusive<usize> = 3..=255;
/// How long the name of an API key is; it may have none.
pub const KEY_NAME: RangeInclusive<usize> = 0..=255;
/// How long the name of a permission is; it may have none.
pub const PERMISSION_NAME: RangeInclusive<usize> = 0..=255;
/// How long the name of a workspace is.
pub const WORKSPACE_NAME: RangeInclusive<usize> = 1..=255;
/// How long an external id is.
pub const EXTERNAL_ID: RangeInclusive<usize> = 1..=255;
/// How long the name of a rate limit is.
pub const LIMIT_NAME: RangeInclusive<usize> = 1..=128;
/// How long the name of a namespace is.
pub const NAMESPACE_NAME: RangeInclusive<usize> = 1..=255;
/// How long the identifier of what is limited is.
pub const IDENTIFIER: RangeInclusive<usize> = 1..=255;
/// How long a description is; there may be none.
pub const DESCRIPTION: RangeInclusive<usize> = 0..=512;

/// One line of text without anything that hides or reorders what is read.
///
/// The default is the empty name, for things that need none.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(CompactString);

impl Name {
    /// A name within the bounds, which count characters (Unicode scalar values), not bytes.
    ///
    /// Refused: control and bidirectional characters, line separators, white space at either end, and a secret that
    /// ended up in the wrong field, since names are stored and logged.
    pub fn new(text: &str, bounds: RangeInclusive<usize>) -> Result<Self, Flaw> {
        check_length(text, bounds)?;
        if text.chars().any(is_unreadable) {
            return Err(Flaw::new("must not contain control characters"));
        }
        if Secret::presented(text.to_owned()).well_formed() {
            return Err(Flaw::new("must not be a secret"));
        }
        if text.starts_with(char::is_whitespace) || text.ends_with(char::is_whitespace) {
            return Err(Flaw::new("must not begin or end with white space"));
        }
        Ok(Self(text.into()))
    }

    /// The text as it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The text itself.
    pub fn into_string(self) -> String {
        self.0.into()
    }

    /// The form that is unique where names are: ASCII letters in lower case, all else as it is.
    pub fn folded(&self) -> String {
        self.0.as_str().to_ascii_lowercase()
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Text that may have several lines, but nothing that hides or reorders what is read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Description(Box<str>);

impl Description {
    /// A description within the bounds, in characters.
    ///
    /// Unlike a name it may hold tabs and line ends (LF or CR LF), at its ends as well.
    pub fn new(text: &str, bounds: RangeInclusive<usize>) -> Result<Self, Flaw> {
        check_length(text, bounds)?;
        let mut rest = text.chars().peekable();
        while let Some(c) = rest.next() {
            // A lone CR makes a terminal overwrite the line that it has just shown.
            let is_layout = matches!(c, '\n' | '\t') || (c == '\r' && rest.peek() == Some(&'\n'));
            if is_unreadable(c) && !is_layout {
                return Err(Flaw::new("must not contain control characters other than tabs and line ends"));
            }
        }
        Ok(Self(text.into()))
    }

    /// The text as it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Description {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn check_length(text: &str, bounds: RangeInclusive<usize>) -> Result<(), Flaw> {
    // One past the bound is enough to know, however long the text.
    let length = text.chars().take(bounds.end().saturating_add(1)).count();
    if bounds.contains(&length) {
        return Ok(());
    }
    let (least, most) = bounds.into_inner();
    Err(Flaw::new(match least {
        0 => format!("must be at most {most} characters"),
        _ => format!("must be {least} to {most} characters"),
    }))
}

/// Whether a character is none that one reads: control characters, line and paragraph separators, and those
/// that change the direction of what follows (Unicode's property `Bidi_Control`).
fn is_unreadable(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}')
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn length_counts_characters_and_not_bytes() {
        let longest = "\u{1f511}".repeat(255);
        assert_eq!(Name::new(&longest, ROOT_KEY_NAME).unwrap().as_str(), longest);
        assert!(Name::new(&format!("{longest}x"), ROOT_KEY_NAME).is_err());
        assert!(Name::new("\u{e9}\u{e9}", API_NAME).is_err());
        assert!(Name::new("\u{e9}\u{e9}\u{e9}", API_NAME).is_ok());
    }

    #[test]
    fn an_empty_name_is_one_only_where_there_may_be_none() {
        assert!(Name::new("", KEY_NAME).is_ok());
        assert_eq!(Name::new("", ROOT_KEY_NAME), Err(Flaw::new("must be 1 to 255 characters")));
        assert_eq!(Name::new(&"x".repeat(256), KEY_NAME), Err(Flaw::new("must be at most 255 characters")));
    }

    #[test]
    fn a_name_reads_as_what_it_is() {
        for bad in [
            "a\0b",
            "a\nb",
            "a\tb",
            "a\u{7f}b",
            "a\u{85}b",
            "a\u{2028}b",
            "a\u{202e}b",
            "a\u{2066}b",
            "a\u{200f}b",
            " ab",
            "ab ",
            "\u{a0}ab",
            "   ",
        ] {
            assert!(Name::new(bad, KEY_NAME).is_err(), "{bad:?}");
        }
        for good in ["Billing 2", "caf\u{e9}", "\u{5e9}\u{5dc}\u{5d5}\u{5dd}", "\u{1f468}\u{200d}\u{1f469}"] {
            assert!(Name::new(good, KEY_NAME).is_ok(), "{good:?}");
        }
    }

    #[test]
    fn folding_ignores_the_case_of_ascii_letters_only() {
        assert_eq!(Name::new("Caf\u{c9} Owner", ROLE_NAME).unwrap().folded(), "caf\u{c9} owner");
    }

    #[test]
    fn a_description_may_have_lines() {
        for good in ["", "two\nlines", "two\r\nlines\r\n", "\ta tab", &"x".repeat(512)] {
            assert_eq!(Description::new(good, DESCRIPTION).unwrap().as_str(), good);
        }
        for bad in ["a\0b", "a\rb", "a\r", "a\u{1b}[2Jb", "a\u{202e}b", &"x".repeat(513)] {
            assert!(Description::new(bad, DESCRIPTION).is_err(), "{bad:?}");
        }
    }
}
