//! What earlier runs have found, in a file of lines that a diff can show.
//!
//! Each line is of one row, in fields that tabs separate. A run replaces the lines of its rows and keeps the others.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::Failed;
use crate::figures::Summary;
use crate::machine;
use crate::report::{Bar, Bound, Figure, Plot, Report};

/// The results of each row, by its name.
pub struct Records {
    rows: BTreeMap<String, Record>,
}

/// What a row has found, and of what, when and where.
#[derive(Default)]
pub struct Record {
    pub day: String,
    pub commit: String,
    pub machine: String,
    pub report: Report,
}

impl Records {
    /// What is on record.
    pub fn read() -> Result<Self, Failed> {
        let text = match std::fs::read_to_string(path("results.tsv")) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            read => read?,
        };
        let mut rows = BTreeMap::<String, Record>::new();
        for line in text.lines() {
            let mut fields = line.split('\t');
            let record = rows.entry(fields.next().unwrap_or_default().to_owned()).or_default();
            record.take(&fields.collect::<Vec<_>>()).ok_or_else(|| format!("a result that can't be read: {line}"))?;
        }
        Ok(Self { rows })
    }

    /// Puts what a row has found now in the place of what it had found.
    pub fn replace(&mut self, row: &str, report: Report) {
        let (day, commit, machine) = (machine::today(), machine::commit(), machine::description());
        self.rows.insert(row.to_owned(), Record { day, commit, machine, report });
    }

    /// What a row has found.
    pub fn of(&self, row: &str) -> Option<&Record> {
        self.rows.get(row)
    }

    /// Writes all of it down.
    pub fn write(&self) -> Result<(), Failed> {
        let lines =
            self.rows.iter().flat_map(|(row, record)| record.lines().map(move |line| format!("{row}\t{line}\n")));
        std::fs::write(path("results.tsv"), lines.collect::<String>())?;
        Ok(())
    }
}

impl Record {
    fn lines(&self) -> impl Iterator<Item = String> {
        let Self { day, commit, machine, report: Report { bars, figures, plots, notes, failure } } = self;
        let bars = bars.iter().map(|Bar { what, bound, measured }| {
            let (kind, bound) = match bound {
                Bound::AtLeast(bound) => ("at least", bound),
                Bound::AtMost(bound) => ("at most", bound),
            };
            format!("{kind}\t{what}\t{bound}\t{}", three(*measured))
        });
        let figures = figures
            .iter()
            .map(|Figure { what, unit, measured }| format!("figure\t{what}\t{unit}\t{}", three(*measured)));
        let points = plots.iter().flat_map(|Plot { name, along, up, points }| {
            points.iter().map(move |(place, cost)| format!("point\t{name}\t{along}\t{up}\t{place}\t{}", three(*cost)))
        });
        let notes = notes.iter().map(|note| format!("note\t{note}"));
        let failure = failure.iter().map(|why| format!("failure\t{}", why.replace(['\t', '\n'], " ")));
        let run = std::iter::once(format!("run\t{day}\t{commit}\t{machine}"));
        run.chain(bars).chain(figures).chain(points).chain(notes).chain(failure)
    }

    fn take(&mut self, fields: &[&str]) -> Option<()> {
        match *fields {
            ["run", day, commit, machine] => {
                (self.day, self.commit, self.machine) = (day.to_owned(), commit.to_owned(), machine.to_owned());
            }
            ["at least", what, bound, ref measured @ ..] => {
                self.report.bar(what, Bound::AtLeast(bound.parse().ok()?), summary(measured)?);
            }
            ["at most", what, bound, ref measured @ ..] => {
                self.report.bar(what, Bound::AtMost(bound.parse().ok()?), summary(measured)?);
            }
            ["figure", what, unit, ref measured @ ..] => self.report.figure(what, unit, summary(measured)?),
            ["point", name, along, up, place, ref cost @ ..] => {
                let point = (place.parse().ok()?, summary(cost)?);
                match self.report.plots.iter_mut().find(|plot| plot.name == name) {
                    Some(plot) => plot.points.push(point),
                    None => {
                        let (name, along, up) = (name.to_owned(), along.to_owned(), up.to_owned());
                        self.report.plots.push(Plot { name, along, up, points: vec![point] });
                    }
                }
            }
            ["note", note] => self.report.note(note),
            ["failure", why] => self.report.failure = Some(why.to_owned()),
            _ => return None,
        }
        Some(())
    }
}

fn three(Summary { median, least, most }: Summary) -> String {
    format!("{median}\t{least}\t{most}")
}

fn summary(fields: &[&str]) -> Option<Summary> {
    let [median, least, most] = fields else { return None };
    Some(Summary { median: median.parse().ok()?, least: least.parse().ok()?, most: most.parse().ok()? })
}

/// A file among the benches.
pub fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("benches").join(name)
}
