//! What keys, roles and permissions mean: values and pure functions.
//!
//! Nothing here waits, fails for outside reasons, or knows the time: the moment is always an argument.
//! Every type can only be built right, so the layers above pass these values on without checking them again.

use std::borrow::Cow;

pub mod api;
pub mod audit;
pub mod backup;
pub mod capability;
pub mod card;
pub mod credits;
pub mod cut;
pub mod etag;
pub mod glob;
pub mod id;
pub mod identity;
pub mod import;
pub mod key;
pub mod kind;
pub mod limit;
pub mod name;
pub mod namespace;
pub mod network;
pub mod permission;
pub mod query;
pub mod role;
pub mod root_key;
pub mod rotation;
pub mod secret;
pub mod time;
pub mod value;
pub mod window;
pub mod workspace;

/// Why a piece of text or a number can't be the value it was offered as.
///
/// A sentence without its subject, lower case, naming the bound: `must be 1 to 255 characters`.
/// The layer that knows the field puts the field's path in front.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flaw(Cow<'static, str>);

impl Flaw {
    /// A flaw in the given words.
    pub fn new(words: impl Into<Cow<'static, str>>) -> Self {
        Self(words.into())
    }
}

impl std::fmt::Display for Flaw {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Flaw {}
