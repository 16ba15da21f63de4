//! Results for people.

use std::fmt::Write as _;

use crate::Failed;
use crate::figures::Summary;
use crate::records::{Records, path};
use crate::report::{Plot, Report};
use crate::{plot, rows};

/// The bars of some rows, and what they come from.
pub fn table<'a>(reports: impl IntoIterator<Item = (&'a str, &'a Report)> + Clone) -> String {
    let mut text = String::new();
    if reports.clone().into_iter().any(|(_, report)| report.failure.is_some() || !report.bars.is_empty()) {
        text.push_str("| row | what | bar | measured: median (min to max) | holds |\n|---|---|---|---|---|\n");
    }
    for (row, report) in reports.clone() {
        if let Some(why) = &report.failure {
            let _ = writeln!(text, "| `{row}` | failed: {} | | | **no** |", why.replace('|', "/"));
        }
        for bar in &report.bars {
            let holds = if bar.holds() { "yes" } else { "**no**" };
            // Writing to a string does not fail.
            let _ = writeln!(text, "| `{row}` | {} | {} | {} | {holds} |", bar.what, bar.bound, range(bar.measured));
        }
    }
    text.push_str("\n| row | figure | unit | median (min to max) |\n|---|---|---|---|\n");
    for (row, report) in reports {
        for figure in &report.figures {
            let _ = writeln!(text, "| `{row}` | {} | {} | {} |", figure.what, figure.unit, range(figure.measured));
        }
        for Plot { along, up, points, .. } in &report.plots {
            for (place, cost) in points {
                let _ = writeln!(text, "| `{row}` | {along}: {place} | {up} | {} |", range(*cost));
            }
        }
    }
    text
}

/// Writes the page with all results.
pub fn write(records: &Records) -> Result<(), Failed> {
    let known: Vec<_> = rows::ALL.iter().filter_map(|row| records.of(row.name).map(|record| (row, record))).collect();
    let mut text = String::from(
        "# Results\n\nWritten by `benches/run`. Ratios are of one run in which both sides took turns on one machine, over \
         at least 5\nrounds; absolute figures are of that machine alone.\n\n",
    );
    text.push_str(&table(known.iter().map(|(row, record)| (row.name, &record.report)).collect::<Vec<_>>()));
    let plots: Vec<&Plot> = known.iter().flat_map(|(_, record)| &record.report.plots).collect();
    if !plots.is_empty() {
        std::fs::create_dir_all(path("plots"))?;
        text.push_str("\n## Plots\n\nMedians, with lines from the least to the greatest.\n\n");
    }
    for plot in plots {
        let Plot { name, along, up, .. } = plot;
        let _ = writeln!(text, "![{up} by {along}](plots/{name}.svg)");
        std::fs::write(path(&format!("plots/{name}.svg")), plot::svg(plot))?;
    }
    text.push_str("\n## How\n\n");
    for (row, record) in known {
        let _ = writeln!(
            text,
            "- `{}`: {}. {} Measured on {}, commit {}, {}.",
            row.name,
            row.about,
            record.report.notes.join(" "),
            record.day,
            record.commit,
            record.machine
        );
    }
    std::fs::write(path("RESULTS.md"), text)?;
    Ok(())
}

fn range(Summary { median, least, most }: Summary) -> String {
    if least == most { short(median) } else { format!("{} ({} to {})", short(median), short(least), short(most)) }
}

/// Three digits that count.
fn short(figure: f64) -> String {
    match figure.abs() {
        large if large >= 100.0 || figure == figure.trunc() => format!("{figure:.0}"),
        middle if middle >= 10.0 => format!("{figure:.1}"),
        _ => format!("{figure:.2}"),
    }
}
