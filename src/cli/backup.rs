//! `ostiary backup`: everything that a server has stored, into a file.

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal as _, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::signal::unix::{SignalKind, signal};

use crate::domain::backup::{Contents, Header, Piece, Reader};
use crate::pb::v1 as pb;
use crate::world::World;

use super::Surroundings;
use super::calling::Calling;
use super::failure::Failure;
use super::output::{self, Output};

/// What stands for standard output.
const STANDARD_OUTPUT: &str = "-";
/// How the progress is shown.
const SPINNER: &str = "{spinner} {bytes} ({bytes_per_sec})";

/// A backup.
#[derive(Debug, Args)]
#[command(after_help = "\
The backup is everything that is stored, of all workspaces, as it is at one moment; calls go on meanwhile. No secret is
in it, but names, metadata and the audit log are: keep it as you keep the store. It needs workspaces.*.backup, which only
root keys of the operator workspace can hold.

The file is written under another name, compared with the digest at its end and synced, and only then gets its name; it
is for its owner alone. One that is cut off or damaged is refused. How to use it: ostiary restore --help

Examples:
  ostiary backup ostiary.backup
  ostiary backup - | age -r RECIPIENT > ostiary.backup.age")]
pub struct Backup {
    #[command(flatten)]
    calling: Calling,

    /// The file to write; - is standard output.
    file: PathBuf,

    /// Put it in the place of a file that is there.
    #[arg(long)]
    force: bool,
}

impl Backup {
    /// Does it.
    pub async fn run(self, surroundings: &Surroundings<'_>) -> Result<(), Failure> {
        tokio::select! {
            done = self.take(surroundings) => done,
            signal = interrupted() => {
                signal.map_err(|error| Failure::Broken(format!("signals can't be received: {error}")))?;
                Err(Failure::Broken("interrupted; there is no backup".to_owned()))
            }
        }
    }

    async fn take(self, surroundings: &Surroundings<'_>) -> Result<(), Failure> {
        let Self { calling, file, force } = self;
        let mut target = Target::open(&file, force, surroundings.world)?;
        let client = calling.client(surroundings).await?;
        let timeout = calling.timeout();
        let request = pb::BackupRequest::default();
        let mut pieces = client.once(request, async |request| client.maintenance().backup(request).await).await?;
        let mut taken = Taken::new();
        loop {
            let Ok(piece) = tokio::time::timeout(timeout, pieces.message()).await else {
                let span = humantime::format_duration(timeout);
                return Err(Failure::Away(format!("no more of the backup came within {span}")));
            };
            let Some(pb::BackupResponse { meta: _, data }) = piece? else { break };
            taken.add(&data)?;
            target.write(&data)?;
        }
        let (header, contents) = taken.whole()?;
        target.keep()?;
        tell(&header, &contents, &file, calling.output())
    }
}

/// Returns when somebody wants it to end: what is half done is removed first.
async fn interrupted() -> io::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}

/// Says what the backup is; on standard output unless that is the backup.
fn tell(header: &Header, contents: &Contents, file: &Path, output: Output) -> Result<(), Failure> {
    let Header { store_format: _, epoch, counter, time, written_by: _ } = header;
    let revision = format!("{epoch:016x}.{counter}");
    let (rows, length, digest) = (contents.rows(), contents.length, contents.digest_text());
    if output.is_json() && file != Path::new(STANDARD_OUTPUT) {
        let told = serde_json::json!({
            "revision": revision, "time": time.to_string(), "rows": rows, "bytes": length, "sha256": digest,
        });
        return output::write(&told.to_string());
    }
    output.note(&format!("revision {revision} of {time}: {rows} rows, {length} bytes, SHA-256 {digest}"));
    Ok(())
}

/// What has come of a backup.
struct Taken {
    reader: Reader,
    header: Option<Header>,
    bar: ProgressBar,
}

impl Taken {
    fn new() -> Self {
        let target =
            if io::stderr().is_terminal() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(None, target);
        let bar = match ProgressStyle::with_template(SPINNER) {
            Ok(style) => bar.with_style(style),
            Err(_) => bar,
        };
        Self { reader: Reader::default(), header: None, bar }
    }

    fn add(&mut self, data: &[u8]) -> Result<(), Failure> {
        self.reader.feed(data);
        while let Some(piece) = self.reader.piece().map_err(damaged)? {
            match piece {
                Piece::Header(header) => self.header = Some(header),
                Piece::Row { .. } | Piece::End(_) => {}
            }
        }
        self.bar.inc(data.len() as u64);
        Ok(())
    }

    /// All of it, if its end has come.
    fn whole(self) -> Result<(Header, Contents), Failure> {
        self.bar.finish_and_clear();
        let contents = self.reader.finish().map_err(damaged)?;
        let header = self.header.ok_or_else(|| Failure::Broken("the backup has no beginning".to_owned()))?;
        Ok((header, contents))
    }
}

fn damaged(damage: impl std::fmt::Display) -> Failure {
    Failure::Broken(format!("the backup did not arrive as it was sent: {damage}"))
}

/// Where a backup is written.
enum Target {
    Out,
    File(Draft),
}

/// A file that has not got its name yet. Unless it is kept, it is removed.
struct Draft {
    file: File,
    hidden: PathBuf,
    named: PathBuf,
    force: bool,
}

impl Target {
    fn open(path: &Path, force: bool, world: &World) -> Result<Self, Failure> {
        if path == Path::new(STANDARD_OUTPUT) {
            if io::stdout().is_terminal() {
                return Err(Failure::Misused("a backup is not for a terminal; send it to a file or a pipe".to_owned()));
            }
            return Ok(Self::Out);
        }
        if !force && path.try_exists().map_err(|error| unwritable(path, &error))? {
            return Err(there_already(path));
        }
        let random: [u8; 8] = world.random();
        let Some(name) = path.file_name() else {
            return Err(Failure::Misused(format!("{}: is not the name of a file", path.display())));
        };
        let mut hidden = std::ffi::OsString::from(".");
        hidden.push(name);
        hidden.push(format!(".{:016x}.part", u64::from_be_bytes(random)));
        let hidden = path.with_file_name(hidden);
        let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&hidden);
        let file = opened.map_err(|error| Failure::Misused(format!("{}: {error}", hidden.display())))?;
        Ok(Self::File(Draft { file, hidden, named: path.to_owned(), force }))
    }

    fn write(&mut self, data: &[u8]) -> Result<(), Failure> {
        match self {
            Self::Out => Ok(io::stdout().write_all(data).map_err(lost)?),
            Self::File(draft) => draft.file.write_all(data).map_err(|error| unwritable(&draft.hidden, &error)),
        }
    }

    /// Makes it durable and gives it its name.
    fn keep(self) -> Result<(), Failure> {
        match self {
            Self::Out => Ok(io::stdout().flush().map_err(lost)?),
            Self::File(draft) => draft.keep(),
        }
    }
}

impl Draft {
    fn keep(self) -> Result<(), Failure> {
        let Self { file, hidden, named, force } = &self;
        file.sync_all().map_err(|error| unwritable(hidden, &error))?;
        if *force {
            std::fs::rename(hidden, named).map_err(|error| unwritable(named, &error))?;
        } else {
            // Linking never replaces a file that was made in the meantime.
            std::fs::hard_link(hidden, named).map_err(|error| match error.kind() {
                io::ErrorKind::AlreadyExists => there_already(named),
                _ => unwritable(named, &error),
            })?;
        }
        let directory = named.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let synced = File::open(directory).and_then(|directory| directory.sync_all());
        synced.map_err(|error| unwritable(directory, &error))
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // Once it has been renamed there is nothing left under the old name.
        let _ = std::fs::remove_file(&self.hidden);
    }
}

fn unwritable(path: &Path, error: &io::Error) -> Failure {
    Failure::Broken(format!("{}: {error}", path.display()))
}

/// A backup that nobody has read to its end is none.
fn lost(error: io::Error) -> Failure {
    Failure::Broken(format!("the backup could not be written to standard output: {error}"))
}

fn there_already(path: &Path) -> Failure {
    Failure::Misused(format!("{}: is there already; say --force to replace it", path.display()))
}
