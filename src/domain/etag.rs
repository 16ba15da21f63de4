//! Which version of a thing somebody has seen.

use std::fmt;

/// Counts the visible changes of one object. Background counts and dates don't move it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Etag(u64);

impl Etag {
    /// Of an object just made.
    pub const FIRST: Self = Self(1);

    /// Of the object after one more change.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// The count, as stored.
    pub const fn count(self) -> u64 {
        self.0
    }

    /// The stored count.
    pub const fn from_count(count: u64) -> Self {
        Self(count)
    }

    /// Whether the caller's etag, if one was sent, is this one.
    pub fn matches(self, sent: &str) -> bool {
        sent.is_empty() || sent == self.to_string()
    }
}

impl fmt::Display for Etag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v{}", self.0)
    }
}
