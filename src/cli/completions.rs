//! `ostiary completions`: what makes a shell complete commands and flags.

use clap::Args;
use clap_complete::Shell;

use super::failure::Failure;
use super::output;

/// Completions.
#[derive(Debug, Args)]
#[command(after_help = "\
Example, for bash:
  ostiary completions bash > ~/.local/share/bash-completion/completions/ostiary")]
pub struct Completions {
    /// The shell.
    shell: Shell,
}

impl Completions {
    /// Prints them.
    pub fn run(self, mut grammar: clap::Command) -> Result<(), Failure> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut grammar, "ostiary", &mut script);
        let script = String::from_utf8(script).map_err(|error| Failure::Broken(error.to_string()))?;
        output::write(script.trim_end())
    }
}
