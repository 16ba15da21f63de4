//! What rows share: the options, the echoes, and the store that none of them changes.

use std::path::PathBuf;
use std::process::Command;

use bytes::Bytes;
use tokio::sync::OnceCell;

use crate::Failed;
use crate::options::Options;
use crate::ostiary::{Furnished, Ostiary};
use crate::population::Population;
use crate::process::Process;

/// Which server ostiary stands beside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Echo {
    /// tonic as it comes.
    Stock,
    /// ostiary without its work.
    Tuned,
}

/// What rows share.
pub struct Bench {
    /// What to run, and how large.
    pub options: Options,
    echoes: OnceCell<Echoes>,
    furnished: OnceCell<Furnished>,
}

struct Echoes {
    stock: PathBuf,
    tuned: PathBuf,
}

impl Bench {
    /// Nothing is started yet.
    pub fn new(options: Options) -> Self {
        Self { options, echoes: OnceCell::new(), furnished: OnceCell::new() }
    }

    /// A server with a million keys, the same for all rows that only read.
    pub async fn furnished(&self) -> Result<&Furnished, Failed> {
        let furnish = async || {
            let population = Population::drawn(self.options.keys(1_000_000), 1);
            let ostiary = Ostiary::start()?;
            ostiary.furnish(&population).await?;
            let furnished = Furnished { ostiary, population };
            furnished.warm().await?;
            Ok(furnished)
        };
        self.furnished.get_or_try_init(furnish).await
    }

    /// An echo that answers with these bytes.
    pub async fn echo(&self, which: Echo, answer: &Bytes) -> Result<Process, Failed> {
        self.echo_at(which, answer, "127.0.0.1:0").await
    }

    /// The same, listening there.
    pub async fn echo_at(&self, which: Echo, answer: &Bytes, listen: &str) -> Result<Process, Failed> {
        let echoes = self.echoes.get_or_try_init(async || build_echoes()).await?;
        let executable = match which {
            Echo::Stock => &echoes.stock,
            Echo::Tuned => &echoes.tuned,
        };
        let hex: String = answer.iter().map(|byte| format!("{byte:02x}")).collect();
        Process::start(Command::new(executable).args(["--answer", &hex, "--listen", listen]).env_clear())
    }
}

/// Has cargo build the echoes with the profile that this was built with, and tell where they are.
fn build_echoes() -> Result<Echoes, Failed> {
    let own = std::env::current_exe()?;
    // This is `target/PROFILE/deps/rows-…`.
    let directory = own.ancestors().nth(2).and_then(|path| path.file_name()).unwrap_or_default();
    let profile = match directory.to_str() {
        Some("debug") => "dev",
        Some("release") | None => "bench",
        Some(other) => other,
    };
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| env!("CARGO").into());
    let mut command = Command::new(cargo);
    command.args(["bench", "--no-run", "--locked", "--profile", profile, "--message-format=json-render-diagnostics"]);
    command.args(["--bench", "stock_echo", "--bench", "tuned_echo"]).current_dir(env!("CARGO_MANIFEST_DIR"));
    // What cargo told this process of its own package would look like a change to build scripts that ask for it, and have
    // everything built anew.
    let told_of_this =
        |name: &str| name == "OUT_DIR" || name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(told_of_this)) {
        command.env_remove(name);
    }
    let output = command.stderr(std::process::Stdio::inherit()).output()?;
    if !output.status.success() {
        return Err("the echoes can't be built".into());
    }
    let told = String::from_utf8(output.stdout)?;
    let executable = |name: &str| {
        let named = format!("\"name\":\"{name}\"");
        let line = told.lines().find(|line| line.contains("compiler-artifact") && line.contains(&named))?;
        let (_, rest) = line.split_once("\"executable\":\"")?;
        rest.split_once('"').map(|(path, _)| PathBuf::from(path))
    };
    let missing = || Failed::from("cargo does not say where the echoes are");
    Ok(Echoes {
        stock: executable("stock_echo").ok_or_else(missing)?,
        tuned: executable("tuned_echo").ok_or_else(missing)?,
    })
}
