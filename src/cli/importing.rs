//! `ostiary import`: keys that were issued elsewhere, as JSON lines, over one stream.

use std::io::{self, IsTerminal as _};
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use prost::Message as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};

use crate::pb::v1 as pb;

use super::Surroundings;
use super::calling::Calling;
use super::client::Client;
use super::failure::{self, Failure};
use super::output::{self, Output, shown};

mod reading;

use reading::{Defaults, Event, Source};

/// Requests that wait to be sent.
const REQUESTS_AHEAD: usize = 2;
/// How the progress is shown if it is known how much there is.
const BAR: &str = "{bar:30} {percent}% {msg} ({eta} left)";
/// How the progress is shown if not.
const SPINNER: &str = "{spinner} {msg}";

/// An import as a command of its own.
#[derive(Debug, Args)]
pub struct Import {
    #[command(flatten)]
    calling: Calling,

    #[command(flatten)]
    rows: Rows,
}

/// What to import.
#[derive(Debug, Args)]
#[command(after_help = "\
Each line is a JSON object with the fields of ImportKeysRow, for example:
  {\"apiId\": \"api_…\", \"algorithm\": \"HASH_ALGORITHM_SHA256_HEX\", \"hash\": \"9f86d0…\", \"name\": \"customer 42\"}
Further fields: prefix, metadata, roles, permissions, enabled, expireTime or ttl (\"3600s\"), allowedCidrs, externalId,
credits, rateLimits. Empty lines are skipped.

Each row is imported as a whole or not at all; one that fails is reported with the number of its line, and the others are
imported. What is interrupted can be repeated with --skip-existing.

Exit codes: 0 all rows are imported; 8 some are not; others as `ostiary --help` says.")]
pub struct Rows {
    /// The file with the rows. Without it, or with -, standard input.
    file: Option<PathBuf>,

    /// The API of rows that name none, `api_…`.
    #[arg(long, value_name = "API_ID")]
    api: Option<String>,

    /// How the hashes of rows were made that do not say it.
    #[arg(long)]
    algorithm: Option<Algorithm>,

    /// Rows whose hash the workspace already has are no failures.
    #[arg(long)]
    skip_existing: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Algorithm {
    /// SHA-256 as 64 hexadecimal digits.
    Sha256Hex,
    /// SHA-256 in Base64.
    Sha256Base64,
    /// SHA-512 as 128 hexadecimal digits.
    Sha512Hex,
    /// SHA-256, as 64 hexadecimal digits, of what follows the last _ of the secret.
    PrefixedApiKey,
}

impl Algorithm {
    fn on_the_wire(self) -> pb::HashAlgorithm {
        match self {
            Self::Sha256Hex => pb::HashAlgorithm::Sha256Hex,
            Self::Sha256Base64 => pb::HashAlgorithm::Sha256Base64,
            Self::Sha512Hex => pb::HashAlgorithm::Sha512Hex,
            Self::PrefixedApiKey => pb::HashAlgorithm::PrefixedApiKey,
        }
    }
}

impl Import {
    /// Does it.
    pub async fn run(self, surroundings: &Surroundings<'_>) -> Result<(), Failure> {
        let Self { calling, rows } = self;
        let client = calling.client(surroundings).await?;
        rows.run(&client, calling.output()).await
    }
}

impl Rows {
    /// Does it.
    pub async fn run(self, client: &Client<'_>, output: Output) -> Result<(), Failure> {
        let Self { file, api, algorithm, skip_existing } = self;
        let source = Source::open(file.as_deref())?;
        let bar = bar(source.size());
        let (requests, sent) = mpsc::channel(REQUESTS_AHEAD);
        let (events, told) = mpsc::unbounded_channel();
        let algorithm = algorithm.map(|algorithm| algorithm.on_the_wire().into());
        // A thread that nobody waits for: it may be stuck in a read when the server has hung up.
        std::thread::spawn(move || source.read(&Defaults { api, algorithm }, &requests, &events));
        let mut course = Course { told, tally: Tally::new(skip_existing, output), bar };
        let ended = course.follow(client, ReceiverStream::new(sent)).await;
        course.bar.finish_and_clear();
        course.tally.report()?;
        ended?;
        if course.tally.failures.is_empty() { Ok(()) } else { Err(Failure::Incomplete) }
    }
}

fn bar(size: Option<u64>) -> ProgressBar {
    let target = if io::stderr().is_terminal() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let template = if size.is_some() { BAR } else { SPINNER };
    let bar = ProgressBar::with_draw_target(size, target);
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// An import under way.
struct Course {
    told: mpsc::UnboundedReceiver<Event>,
    tally: Tally,
    bar: ProgressBar,
}

impl Course {
    /// Sends the rows and takes the answers, of which there is one for each request, in the same order.
    async fn follow(
        &mut self,
        client: &Client<'_>,
        requests: ReceiverStream<pb::ImportKeysRequest>,
    ) -> Result<(), Failure> {
        let mut answers = client.keys().import_keys(requests).await?.into_inner();
        loop {
            match answers.message().await {
                Ok(Some(answer)) => {
                    let lines = self.next_sent().await?;
                    self.take(answer, &lines);
                }
                Ok(None) => return self.rest().await,
                Err(status) => {
                    if let Some(first) = self.next_sent().await?.first() {
                        output::note(&format!("nothing is known of the rows from line {first} on"));
                    }
                    return Err(status.into());
                }
            }
        }
    }

    /// The lines of the next request, with what was found on the way.
    async fn next_sent(&mut self) -> Result<Vec<u64>, Failure> {
        while let Some(event) = self.told.recv().await {
            match event {
                Event::Sent { lines, read } => {
                    self.bar.set_position(read);
                    return Ok(lines);
                }
                Event::Flawed { line, flaw } => self.fail(Fault { line, reason: "ROW_UNREADABLE".to_owned(), flaw }),
                Event::Unreadable(error) => return Err(unreadable(&error)),
            }
        }
        Ok(Vec::new())
    }

    /// What was found after the last request.
    async fn rest(&mut self) -> Result<(), Failure> {
        while !self.next_sent().await?.is_empty() {}
        Ok(())
    }

    fn take(&mut self, answer: pb::ImportKeysResponse, lines: &[u64]) {
        self.tally.imported += u64::from(answer.imported_count.cast_unsigned());
        for pb::ImportKeysFailure { index, error } in answer.failures {
            let line = usize::try_from(index).ok().and_then(|index| lines.get(index)).copied().unwrap_or_default();
            let error = error.unwrap_or_default();
            let status = Status::with_details(Code::from(error.code), &error.message, error.encode_to_vec().into());
            let reason = failure::reason(&status).unwrap_or_else(|| format!("{:?}", status.code()));
            self.fail(Fault { line, reason, flaw: error.message });
        }
        self.bar.set_message(format!("{} imported, {} failed", self.tally.imported, self.tally.failures.len()));
    }

    fn fail(&mut self, fault: Fault) {
        if self.tally.skips(&fault) {
            self.tally.skipped += 1;
            return;
        }
        let Fault { line, reason, flaw } = &fault;
        let complaint = format!("line {line}: {reason}: {}", shown(flaw));
        self.bar.suspend(|| self.tally.output.note(&complaint));
        self.tally.failures.push(fault);
    }
}

fn unreadable(error: &io::Error) -> Failure {
    Failure::Misused(format!("the rows can't be read to their end: {error}"))
}

/// A row that was not imported.
struct Fault {
    line: u64,
    reason: String,
    flaw: String,
}

/// What has become of the rows.
struct Tally {
    imported: u64,
    skipped: u64,
    failures: Vec<Fault>,
    skip_existing: bool,
    output: Output,
}

impl Tally {
    fn new(skip_existing: bool, output: Output) -> Self {
        Self { imported: 0, skipped: 0, failures: Vec::new(), skip_existing, output }
    }

    fn skips(&self, fault: &Fault) -> bool {
        self.skip_existing && fault.reason == "KEY_ALREADY_EXISTS"
    }

    fn report(&self) -> Result<(), Failure> {
        let Self { imported, skipped, failures, skip_existing: _, output } = self;
        if !output.is_json() {
            return output::write(&format!("{imported} imported, {skipped} skipped, {} failed", failures.len()));
        }
        let failures: Vec<_> = failures
            .iter()
            .map(|Fault { line, reason, flaw }| serde_json::json!({"line": line, "reason": reason, "message": flaw}))
            .collect();
        let report = serde_json::json!({
            "importedCount": imported,
            "skippedCount": skipped,
            "failedCount": failures.len(),
            "failures": failures,
        });
        output::write(&report.to_string())
    }
}
