//! What ostiary costs, row by row, and whether each row holds its bar.
//!
//! ```sh
//! benches/run [ROW...]                                            # everything in full, recorded in benches/RESULTS.md
//! cargo bench --bench rows -- [ROW...] [--keys N] [--rounds N]    # some rows, printed
//! benches/run --fixture DIRECTORY                                 # keeps large stores there for the next run
//! cargo test --bench rows -- --small                              # whether the answers are right, in a minute
//! ```
//!
//! Every server is a process of its own, and all get the same load from this one, taking turns. What is compared is the
//! CPU time that a server spends, or what its callers wait, in one run on one machine: such a ratio holds elsewhere, an
//! absolute figure does not. An answer that is not the expected one ends its row as failed.

#![allow(clippy::disallowed_methods, reason = "it stands outside ostiary, with a clock and an environment of its own")]

mod answers;
mod bench;
mod clock;
mod figures;
mod fixture;
#[path = "../../tests/it/attacks/frames.rs"]
mod frames;
mod load;
mod machine;
mod options;
mod ostiary;
mod plot;
mod population;
mod process;
mod raw;
mod records;
mod render;
mod report;
mod rows;
mod wire;

use std::error::Error;
use std::process::ExitCode;

use bench::Bench;
use options::Options;
use records::Records;
use report::Report;

type Failed = Box<dyn Error + Send + Sync>;

/// ostiary's, so that what the raw side of a row costs is not the allocator's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() == Some(raw::COMMAND) {
        return match raw::serve(arguments) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{}: {error}", raw::COMMAND);
                ExitCode::FAILURE
            }
        };
    }
    let outcome = Options::read(std::env::args().skip(1)).and_then(run);
    match outcome {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("rows: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the rows that are asked for and says how many failed.
fn run(options: Options) -> Result<usize, Failed> {
    let asked = rows::named(&options.rows)?;
    // One thread makes the load, so that it never takes more than one core from the servers.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let bench = Bench::new(options);
    let mut records = Records::read()?;
    let mut failed = 0;
    for row in &asked {
        eprintln!("{}: {}", row.name, row.about);
        match runtime.block_on((row.run)(&bench)) {
            Ok(report) => {
                // The times of a small run say nothing.
                if !bench.options.small {
                    println!("{}", render::table([(row.name, &report)]));
                }
                records.replace(row.name, report);
            }
            Err(error) => {
                failed += 1;
                println!("{} failed: {error}", row.name);
                records.replace(row.name, Report { failure: Some(error.to_string()), ..Report::default() });
            }
        }
    }
    if bench.options.record {
        records.write()?;
        render::write(&records)?;
    }
    println!("{} passed, {failed} failed", asked.len() - failed);
    Ok(failed)
}
