//! The command line.

use std::path::PathBuf;

use crate::Failed;

/// What to run, and how large.
#[derive(Debug)]
pub struct Options {
    /// Names of rows. None: all.
    pub rows: Vec<String>,
    /// Few keys and few calls: whether the answers are right, not what they cost.
    pub small: bool,
    /// Whether the results go into `benches/RESULTS.md`.
    pub record: bool,
    /// Where large stores are kept for the next run.
    pub fixture: Option<PathBuf>,
    keys: Option<usize>,
    rounds: Option<usize>,
}

impl Options {
    /// Reads the command line. A debug build runs small: its times say nothing.
    pub fn read(mut arguments: impl Iterator<Item = String>) -> Result<Self, Failed> {
        let small = cfg!(debug_assertions);
        let mut options = Self { rows: Vec::new(), small, record: false, fixture: None, keys: None, rounds: None };
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or_else(|| Failed::from(format!("{argument} needs a value")));
            match argument.as_str() {
                "--small" => options.small = true,
                "--record" => options.record = true,
                "--keys" => options.keys = Some(value()?.parse()?),
                "--rounds" => options.rounds = Some(value()?.parse::<usize>()?.max(1)),
                "--fixture" => options.fixture = Some(value()?.into()),
                // Cargo adds flags of its own.
                flag if flag.starts_with('-') => {}
                row => options.rows.push(row.to_owned()),
            }
        }
        if options.record && options.small {
            return Err("a small run says nothing about cost: it is not recorded".into());
        }
        Ok(options)
    }

    /// Keys in a store: so many in full, unless the command line says otherwise.
    pub fn keys(&self, full: usize) -> usize {
        self.keys.unwrap_or_else(|| self.size(full, 300))
    }

    /// How often each side of a comparison is measured.
    pub fn rounds(&self) -> usize {
        self.rounds.unwrap_or_else(|| self.size(5, 2))
    }

    /// The one size or the other.
    pub fn size(&self, full: usize, small: usize) -> usize {
        if self.small { small } else { full }
    }
}
