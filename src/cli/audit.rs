//! `ostiary audit`: who did what, from where, in which call.

use std::time::Duration;

use clap::{Args, Subcommand};
use prost_types::Timestamp;

use crate::pb::v1 as pb;

use super::acting::{About, Acting, Deed};
use super::failure::Failure;
use super::output::{self, Column, shown};
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
pub type Audit = About<Command>;

#[derive(Debug, Subcommand)]
pub enum Command {
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
pub struct Filter {
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

impl Deed for Command {
    async fn run(self, acting: &Acting<'_>) -> Result<(), Failure> {
        match self {
            Self::List { wanted, filter, after, before } => list(wanted, filter.within(after, before), acting).await,
            Self::Tail { filter, since } => {
                let filter = filter.within(Some(flags::ago(since, acting.client.world())), None);
                Tail { filter, resume_token: String::new() }.follow(acting).await
            }
        }
    }
}

impl Filter {
    fn within(self, after: Option<Timestamp>, before: Option<Timestamp>) -> pb::ListAuditEventsFilter {
        let Self { actor, event, target } = self;
        pb::ListAuditEventsFilter { actor_id: actor, event, target_id: target, after, before }
    }
}

async fn list(wanted: Wanted, filter: pb::ListAuditEventsFilter, acting: &Acting<'_>) -> Result<(), Failure> {
    let request = |Page { size, token }| pb::ListAuditEventsRequest {
        page_size: size,
        page_token: token,
        filter: Some(filter.clone()),
        min_revision: String::new(),
    };
    let call = async |request| acting.client.audit().list_audit_events(request).await;
    acting.list(("events", &COLUMNS), wanted, request, call).await
}

/// The log, followed from one call to the next.
struct Tail {
    filter: pb::ListAuditEventsFilter,
    /// Where to go on.
    resume_token: String,
}

impl Tail {
    async fn follow(mut self, acting: &Acting<'_>) -> Result<(), Failure> {
        loop {
            match self.watch(acting).await {
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
    async fn watch(&mut self, acting: &Acting<'_>) -> Result<(), Failure> {
        let Self { filter, resume_token } = self;
        let Acting { client, output } = acting;
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
