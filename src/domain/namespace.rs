//! Namespaces of rate limits, and the exceptions in them.

use std::cmp::Reverse;

use super::Flaw;
use super::etag::Etag;
use super::glob::Glob;
use super::id::{NamespaceId, OverrideId, WorkspaceId};
use super::limit::Rate;
use super::name::Name;
use super::time::Timestamp;
use super::value::{Facts, Value};

/// How many patterns a namespace can have: every call in it that no exact exception answers compares them all.
pub const PATTERNS_MAX: usize = 100;

/// A set of things that are limited.
#[derive(Debug, Clone, PartialEq)]
pub struct Namespace {
    /// Its id.
    pub id: NamespaceId,
    /// Where it belongs.
    pub workspace: WorkspaceId,
    /// Its name; unique in the workspace, ignoring ASCII case.
    pub name: Name,
    /// Those of its exceptions that are patterns, in the order of their ids.
    pub patterns: Vec<(OverrideId, Glob)>,
    /// When it was made.
    pub created: Timestamp,
    /// When it last changed visibly.
    pub updated: Timestamp,
    /// Which version this is.
    pub etag: Etag,
    /// When it was deleted, for good.
    pub deleted: Option<Timestamp>,
}

impl Namespace {
    /// The exception whose pattern fits best: the one with the most literal characters, of equals the oldest.
    pub fn best_pattern(&self, identifier: &str) -> Option<OverrideId> {
        let fitting = self.patterns.iter().filter(|(_, glob)| glob.matches(identifier));
        fitting.min_by_key(|(id, glob)| (Reverse(glob.literals()), *id)).map(|(id, _)| *id)
    }

    /// What the audit log says of it.
    pub fn facts(&self) -> Facts {
        Facts::from([("name".into(), self.name.as_str().into())])
    }
}

/// Whom an exception concerns: an identifier, or a pattern of identifiers.
#[derive(Debug, Clone, PartialEq)]
pub struct Pattern {
    text: Name,
    glob: Glob,
}

impl Pattern {
    /// Takes it apart.
    pub fn new(text: Name) -> Result<Self, Flaw> {
        let glob = Glob::parse(text.as_str())?;
        Ok(Self { text, glob })
    }

    /// As it was written.
    pub fn text(&self) -> &Name {
        &self.text
    }

    /// The one spelling that all its spellings have in common. That of an identifier, taken literally, is
    /// `Glob::literal(identifier).to_string()`.
    pub fn spelling(&self) -> String {
        self.glob.to_string()
    }

    /// What has to be compared with identifiers; none if it is just one of them.
    pub fn glob(&self) -> Option<&Glob> {
        Some(&self.glob).filter(|glob| glob.exact().is_none())
    }
}

/// An exception from the limits that callers ask for.
#[derive(Debug, Clone, PartialEq)]
pub struct Override {
    /// Its id.
    pub id: OverrideId,
    /// Where it belongs.
    pub workspace: WorkspaceId,
    /// The namespace that it is part of.
    pub namespace: NamespaceId,
    /// Whom it concerns.
    pub pattern: Pattern,
    /// How much instead; nothing blocks.
    pub rate: Rate,
    /// When it was made.
    pub created: Timestamp,
    /// When it last changed visibly.
    pub updated: Timestamp,
    /// Which version this is.
    pub etag: Etag,
}

impl Override {
    /// What the audit log says of it.
    pub fn facts(&self) -> Facts {
        Facts::from([
            ("identifier".into(), self.pattern.text().as_str().into()),
            // Exact: no limit exceeds 2^53.
            ("limit".into(), Value::Number(self.rate.limit() as f64)),
            ("duration".into(), humantime::format_duration(self.rate.span()).to_string().into()),
        ])
    }
}
