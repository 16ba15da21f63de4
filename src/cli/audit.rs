//! `ostiary audit`: who did what, from where, in which call.

use std::time::Duration;

use clap::{Args, Subcommand};
use prost_types::Timestamp;

use crate::pb::v1 as pb;

use super::Surroundings;
use super::calling::Calling;
use super::client::Client;
use super::failure::Failure;
use super::output::{self, Column, Output, shown};
use super::paging::{Page, Wanted};
use super::{flags, json};

/// What a list of events shows.
const COLUMNS: [Column; 7] = [
    ("TIME", "time"),
    ("EVENT", "event"),
    ("ACTOR", "actor.name"),
    ("TARGETS", "targets.name"),
    ("TARGET IDS", "targets.id"),
    ("FROM", "remote_address"),
    ("CALL", "request_id"),
];
/// Between the end of one call and the next.
const BEFORE_NEXT: Duration = Duration::from_secs(1);
/// A server that says nothing for so long is gone: it says something every 10 seconds.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// The audit log.
#[derive(Debug, Args)]
pub struct Audit {
    #[command(flatten)]
    calling: Calling,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List events, the oldest first.
    List {
        #[command(flatten)]
        wanted: Wanted,

        #[command(flatten)]
        filter: Filter,

        /// Those that happened at this time or later.
        #[arg(long, value_name = "TIME", value_parser = flags::moment)]
        after: Option<Timestamp>,

        /// Those that happened before this time.
        #[arg(long, value_name = "TIME", value_parser = flags::moment)]
        before: Option<Timestamp>,
    },
    /// Show events as they happen, one on a line, until it is interrupted.
    Tail {
        #[command(flatten)]
        filter: Filter,

        /// Begin with those that happened in this time until now, by the clock of this machine.
        #[arg(long, default_value = "10m", value_name = "DURATION", value_parser = flags::std_span)]
        since: Duration,
    },
}

/// Which events.
#[derive(Debug, Args)]
struct Filter {
    /// What was done by this root key, `rk_…`.
    #[arg(long, value_name = "ROOT_KEY_ID")]
    actor: Option<String>,

    /// Exactly this, such as root_key.rotate.
    #[arg(long)]
    event: Option<String>,

    /// What was done to the object with this id.
    #[arg(long, value_name = "ID")]
    target: Option<String>,
}

impl Audit {
    /// Does it.
    pub async fn run(self, surroundings: &Surroundings<'_>) -> Result<(), Failure> {
        let Self { calling, command } = self;
        let output = calling.output();
        let client = calling.client(surroundings).await?;
        match command {
            Command::List { wanted, filter, after, before } => {
                output.list(&filter.find(wanted, after, before, &client).await?, "events", &COLUMNS)
            }
            Command::Tail { filter, since } => {
                let filter = filter.within(Some(flags::ago(since, surroundings.world)), None);
                Tail { filter, resume_token: String::new() }.follow(&client, output).await
            }
        }
    }
}

impl Filter {
    fn within(self, after: Option<Timestamp>, before: Option<Timestamp>) -> pb::ListAuditEventsFilter {
        let Self { actor, event, target } = self;
        pb::ListAuditEventsFilter { actor_id: actor, event, target_id: target, after, before }
    }

    async fn find(
        self,
        wanted: Wanted,
        after: Option<Timestamp>,
        before: Option<Timestamp>,
        client: &Client<'_>,
    ) -> Result<pb::ListAuditEventsResponse, Failure> {
        let filter = self.within(after, before);
        let answer = wanted.gather(async |Page { size, token }| {
            let request = pb::ListAuditEventsRequest {
                page_size: size,
                page_token: token,
                filter: Some(filter.clone()),
                min_revision: String::new(),
            };
            client.read(request, async |request| client.audit().list_audit_events(request).await).await
        });
        answer.await
    }
}

/// The log, followed from one call to the next.
struct Tail {
    filter: pb::ListAuditEventsFilter,
    /// Where to go on.
    resume_token: String,
}

impl Tail {
    async fn follow(mut self, client: &Client<'_>, output: Output) -> Result<(), Failure> {
        loop {
            match self.watch(client, output).await {
                Ok(()) => {}
                // It goes on when the server is there again.
                Err(failure) if failure.exit_code() == 6 => {
                    output::note(&format!("ostiary: {}; trying again", failure.complaint().unwrap_or_default()));
                }
                Err(failure) => return Err(failure),
            }
            tokio::time::sleep(BEFORE_NEXT).await;
        }
    }

    /// Shows what is told until the call ends.
    async fn watch(&mut self, client: &Client<'_>, output: Output) -> Result<(), Failure> {
        let Self { filter, resume_token } = self;
        let request = pb::WatchAuditEventsRequest { resume_token: resume_token.clone(), filter: Some(filter.clone()) };
        let call = async |request| client.audit().watch_audit_events(request).await;
        let mut told = client.once(request, call).await?;
        loop {
            let Ok(next) = tokio::time::timeout(SILENCE_MAX, told.message()).await else {
                return Err(Failure::Away("the server has fallen silent".to_owned()));
            };
            let Some(pb::WatchAuditEventsResponse { meta: _, events, resume_token }) = next? else { return Ok(()) };
            for event in events {
                output::write(&if output.is_json() { json::line(&json::described(&event)?)? } else { line(&event) })?;
            }
            self.resume_token = resume_token;
        }
    }
}

fn line(event: &pb::AuditEvent) -> String {
    let time = event.time.map(|time| time.to_string()).unwrap_or_default();
    let actor = event.actor.as_ref().map(|actor| format!("{} {}", actor.id, actor.name)).unwrap_or_default();
    let targets: Vec<String> = event.targets.iter().map(|target| format!("{} {}", target.id, target.name)).collect();
    let from = if event.remote_address.is_empty() { "-" } else { &event.remote_address };
    shown(&format!("{time}  {}  by {}  on {}  from {from}", event.event, actor.trim(), targets.join(", ")))
}
