//! What a row has found.

use std::fmt;

use crate::figures::Summary;

/// What a row has found, and where.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Report {
    /// What must hold.
    pub bars: Vec<Bar>,
    /// What it comes from.
    pub figures: Vec<Figure>,
    /// How something depends on something.
    pub plots: Vec<Plot>,
    /// How it was measured.
    pub notes: Vec<String>,
    /// Why there is nothing to tell.
    pub failure: Option<String>,
}

/// A bound on a figure.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtLeast(bound) => write!(f, "≥ {bound}"),
            Self::AtMost(bound) => write!(f, "≤ {bound}"),
        }
    }
}

/// What must hold.
#[derive(Debug, Clone, PartialEq)]
pub struct Bar {
    pub what: String,
    pub bound: Bound,
    pub measured: Summary,
}

impl Bar {
    /// Whether the median is within the bound.
    pub fn holds(&self) -> bool {
        match self.bound {
            Bound::AtLeast(bound) => self.measured.median >= bound,
            Bound::AtMost(bound) => self.measured.median <= bound,
        }
    }
}

/// Something measured, in a unit.
#[derive(Debug, Clone, PartialEq)]
pub struct Figure {
    pub what: String,
    pub unit: String,
    pub measured: Summary,
}

/// How something depends on something else.
#[derive(Debug, Clone, PartialEq)]
pub struct Plot {
    /// What its file is called.
    pub name: String,
    /// What varies.
    pub along: String,
    /// What depends on it, and its unit.
    pub up: String,
    pub points: Vec<(f64, Summary)>,
}

impl Report {
    pub fn bar(&mut self, what: &str, bound: Bound, measured: Summary) {
        self.bars.push(Bar { what: what.to_owned(), bound, measured });
    }

    pub fn figure(&mut self, what: &str, unit: &str, measured: Summary) {
        self.figures.push(Figure { what: what.to_owned(), unit: unit.to_owned(), measured });
    }

    pub fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }
}
