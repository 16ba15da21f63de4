//! `ostiary audit`: who did what, from where, in which call.

use std::collections::BTreeMap;
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
/// Between two looks for new events.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How far back each look reaches. An event can become visible after one of a later time, but not by so much.
const OVERLAP_SECONDS: i64 = 30;

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
#[derive(Debug, Clone, Args)]
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
                let from = flags::ago(since, surroundings.world);
                Tail { filter, from, seen: BTreeMap::new() }.follow(&client, output).await
            }
        }
    }
}

impl Filter {
    async fn find(
        &self,
        wanted: Wanted,
        after: Option<Timestamp>,
        before: Option<Timestamp>,
        client: &Client<'_>,
    ) -> Result<pb::ListAuditEventsResponse, Failure> {
        let Self { actor, event, target } = self.clone();
        let filter = pb::ListAuditEventsFilter { actor_id: actor, event, target_id: target, after, before };
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

/// A look at the log that is repeated.
struct Tail {
    filter: Filter,
    /// From when on to look.
    from: Timestamp,
    /// What has been shown of the time since, by its id.
    seen: BTreeMap<String, i64>,
}

impl Tail {
    async fn follow(mut self, client: &Client<'_>, output: Output) -> Result<(), Failure> {
        loop {
            match self.filter.find(Wanted::ALL, Some(self.from), None, client).await {
                Ok(found) => self.show(found.events, output)?,
                // It goes on when the server is there again.
                Err(failure) if failure.exit_code() == 6 => {
                    output::note(&format!("ostiary: {}; trying again", failure.complaint().unwrap_or_default()));
                }
                Err(failure) => return Err(failure),
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    fn show(&mut self, events: Vec<pb::AuditEvent>, output: Output) -> Result<(), Failure> {
        for event in events {
            let seconds = event.time.map_or(0, |time| time.seconds);
            if self.seen.insert(event.event_id.clone(), seconds).is_some() {
                continue;
            }
            output::write(&if output.is_json() { json::line(&json::described(&event)?)? } else { line(&event) })?;
            self.from.seconds = self.from.seconds.max(seconds - OVERLAP_SECONDS);
        }
        self.seen.retain(|_, seconds| *seconds >= self.from.seconds);
        Ok(())
    }
}

fn line(event: &pb::AuditEvent) -> String {
    let time = event.time.map(|time| time.to_string()).unwrap_or_default();
    let actor = event.actor.as_ref().map(|actor| format!("{} {}", actor.id, actor.name)).unwrap_or_default();
    let targets: Vec<String> = event.targets.iter().map(|target| format!("{} {}", target.id, target.name)).collect();
    let from = if event.remote_address.is_empty() { "-" } else { &event.remote_address };
    shown(&format!("{time}  {}  by {}  on {}  from {from}", event.event, actor.trim(), targets.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(id: &str, seconds: i64) -> pb::AuditEvent {
        let time = Some(Timestamp { seconds, nanos: 0 });
        pb::AuditEvent { event_id: id.to_owned(), time, ..Default::default() }
    }

    #[test]
    fn a_tail_looks_back_far_enough_for_late_events_and_forgets_what_it_can_not_see_again() {
        let filter = Filter { actor: None, event: None, target: None };
        let mut tail = Tail { filter, from: Timestamp::default(), seen: BTreeMap::new() };
        let output = Output::new(super::super::output::Format::Table);
        tail.show(vec![event("a", 100), event("b", 200)], output).unwrap();
        assert_eq!(tail.from.seconds, 200 - OVERLAP_SECONDS);
        assert_eq!(tail.seen.keys().collect::<Vec<_>>(), ["b"]);
        tail.show(vec![event("late", 190), event("b", 200)], output).unwrap();
        assert_eq!(tail.seen.keys().collect::<Vec<_>>(), ["b", "late"]);
        assert_eq!(tail.from.seconds, 200 - OVERLAP_SECONDS);
    }
}
