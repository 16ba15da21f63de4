//! Questions to people, and secrets from them.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, IsTerminal as _, Read, Write as _};
use std::path::Path;

use clap::Args;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

use crate::domain::secret::Secret;

use super::failure::Failure;
use super::output::shown;

/// More bytes than any key has.
const SECRET_BYTES_MAX: u64 = 4_096;

/// Whether to ask before something is gone for good.
#[derive(Debug, Clone, Copy, Args)]
pub struct Consent {
    /// Do it without asking. Needed where there is no terminal to ask on.
    #[arg(long, short)]
    yes: bool,
}

impl Consent {
    /// Asks, unless that was answered in advance.
    pub fn ask(self, question: &str) -> Result<(), Failure> {
        if self.yes {
            return Ok(());
        }
        if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
            return Err(Failure::Misused(
                "this can't be undone, and there is no terminal to ask on; say --yes if it is to be done".to_owned(),
            ));
        }
        let mut out = io::stderr().lock();
        write!(out, "{} [y/N] ", shown(question)).and_then(|()| out.flush()).map_err(unaskable)?;
        let mut answer = String::new();
        io::stdin().read_line(&mut answer).map_err(unaskable)?;
        match answer.trim().to_ascii_lowercase().as_str() {
            "y" | "yes" => Ok(()),
            _ => Err(Failure::Declined),
        }
    }
}

fn unaskable(error: io::Error) -> Failure {
    Failure::Broken(format!("nobody could be asked: {error}"))
}

/// The secret on the first line of a file, or of standard input; on a terminal it is asked for and not shown.
pub fn secret(file: Option<&Path>) -> Result<Secret, Failure> {
    let unreadable = |from: &str, error: io::Error| Failure::Misused(format!("{from}: {error}"));
    let text = match file {
        Some(path) => {
            let from = format!("--key-file {}", path.display());
            let file = File::open(path).map_err(|error| unreadable(&from, error))?;
            first_line(file).map_err(|error| unreadable(&from, error))?
        }
        None if io::stdin().is_terminal() => hidden("Key: ").map_err(unaskable)?,
        None => first_line(io::stdin()).map_err(|error| unreadable("standard input", error))?,
    };
    let text = text.trim_end_matches(['\r', '\n']);
    if text.is_empty() {
        return Err(Failure::Misused("the key is missing: it is read from standard input or --key-file".to_owned()));
    }
    Ok(Secret::presented(text.to_owned()))
}

fn first_line(from: impl Read) -> io::Result<Zeroizing<String>> {
    let mut line = Zeroizing::new(String::new());
    BufReader::new(from.take(SECRET_BYTES_MAX)).read_line(&mut line)?;
    Ok(line)
}

/// A line from the terminal, which shows none of it.
fn hidden(prompt: &str) -> io::Result<Zeroizing<String>> {
    // Before it asks: whoever answers fast is not to be seen either.
    let quiet = Quiet::begin()?;
    let mut out = io::stderr().lock();
    write!(out, "{prompt}")?;
    out.flush()?;
    let line = first_line(io::stdin());
    drop(quiet);
    writeln!(out)?;
    line
}

/// While it lives, the terminal does not show what is typed.
struct Quiet(Termios);

impl Quiet {
    fn begin() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut quiet = before.clone();
        quiet.local_modes.remove(LocalModes::ECHO);
        tcsetattr(io::stdin(), OptionalActions::Flush, &quiet)?;
        Ok(Self(before))
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        // Nothing can be done if even that fails.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.0);
    }
}
