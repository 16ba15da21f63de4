//! Following the log: events as they are committed, in their order, without a gap.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use sha2::{Digest, Sha256};

use crate::domain::audit::Event;
use crate::domain::capability::Capability;
use crate::domain::id::WorkspaceId;
use crate::domain::time::Timestamp;
use crate::error::Error;
use crate::service::caller::Caller;
use crate::service::listing::{PAGE_BYTES_MAX, Seal};
use crate::service::{Ostiary, Revision};
use crate::store::records::event_payload;
use crate::store::tables;

use super::EventFilter;

/// After so long a follower is told that nothing has happened.
pub const HEARTBEAT: Duration = Duration::from_secs(10);
/// Events that are told at once at most.
const EVENTS_AT_ONCE_MAX: usize = 100;
/// What a token is good for.
const BINDING: &[u8] = b"WatchAuditEvents";

/// Where an event lies in the log.
type Place = (WorkspaceId, u64, u16);

/// Somebody who follows the log of a workspace. Nothing is read before they ask for more.
pub struct Follower {
    ostiary: Arc<Ostiary>,
    workspace: WorkspaceId,
    filter: EventFilter,
    seal: Seal,
    /// What lies here or before has been told or does not fit.
    after: Place,
    /// When to tell something, even if nothing has happened. The first answer comes at once.
    tell_by: Timestamp,
}

/// What has happened since the last answer, perhaps nothing.
#[derive(Debug)]
pub struct News {
    /// The events, the oldest first.
    pub events: Vec<Event>,
    /// From where another follower can go on.
    pub resume_token: String,
    /// The state that was looked at.
    pub revision: Revision,
}

impl Follower {
    /// Begins where the token says; without one with what happens from now on, or from the time on that the filter names.
    ///
    /// # Errors
    /// If the caller may not, or the token is none of this store and workspace.
    pub async fn begin(
        ostiary: Arc<Ostiary>,
        caller: &Caller,
        filter: EventFilter,
        resume_token: &str,
    ) -> Result<Self, Error> {
        caller.permit(Capability::ReadAuditLog)?;
        let grant = caller.allowing_whole(Capability::ReadAuditLog);
        let grant = grant.ok_or(Error::PermissionMissing(Capability::ReadAuditLog))?;
        let reading = ostiary.read(None).await?;
        let head = reading.view.revision();
        let workspace = caller.workspace_id();
        ostiary.allowed_by((workspace, caller.root_key().id), grant, reading.now);
        let seal = ostiary.seal(binding(head.epoch), &(workspace,));
        let after = match (resume_token, filter.after) {
            ("", None) => (workspace, head.counter, u16::MAX),
            ("", Some(_)) => (workspace, 0, 0),
            (token, _) => seal
                .open(token)
                .ok()
                .filter(|(_, revision, _): &Place| *revision <= head.counter)
                .ok_or_else(|| Error::field("resume_token", "is not one that this method has given out here"))?,
        };
        let tell_by = reading.now;
        drop(reading);
        Ok(Self { ostiary, workspace, filter, seal, after, tell_by })
    }

    /// Waits for something that fits, but for no longer than [`HEARTBEAT`].
    ///
    /// # Errors
    /// If the log can't be read. The follower can be asked again.
    pub async fn next(&mut self) -> Result<News, Error> {
        loop {
            let (news, ended) = self.look().await?;
            let now = self.ostiary.world.now();
            if !news.events.is_empty() || now >= self.tell_by {
                self.tell_by = now.after(HEARTBEAT);
                return Ok(news);
            }
            if ended {
                tokio::select! {
                    () = self.something(news.revision) => {}
                    () = self.ostiary.world.wait_until(self.tell_by) => {}
                }
            }
        }
    }

    /// Looks at the next part of the log, and says whether it was the last.
    async fn look(&mut self) -> Result<(News, bool), Error> {
        let reading = self.ostiary.read(None).await?;
        let revision = reading.view.revision();
        let rows =
            tables::AUDIT.list(reading.view(), &(self.workspace,), Some(&self.after), EVENTS_AT_ONCE_MAX).await?;
        let mut ended = rows.len() < EVENTS_AT_ONCE_MAX;
        let (mut events, mut bytes) = (Vec::new(), 0);
        for (place, event) in rows {
            self.after = place;
            if self.filter.admits(&event) {
                bytes += event_payload(&event).len();
                events.push(event);
            }
            if bytes >= PAGE_BYTES_MAX {
                ended = false;
                break;
            }
        }
        if ended {
            self.after = self.after.max((self.workspace, revision.counter, u16::MAX));
        }
        Ok((News { events, resume_token: self.seal.close(&self.after), revision }, ended))
    }

    /// Returns once there may be another event in the log.
    async fn something(&self, since: Revision) {
        let mut commits = self.ostiary.engine.changes(since);
        while let Some(Ok(commit)) = commits.next().await {
            let mut rows = commit.rows.iter();
            if rows.any(|(key, _)| tables::AUDIT.key_of(key).is_some_and(|(workspace, ..)| workspace == self.workspace))
            {
                return;
            }
        }
    }
}

/// Tokens of one epoch are no good in another, whose revisions are others.
fn binding(epoch: u64) -> [u8; 32] {
    Sha256::new().chain_update(BINDING).chain_update(epoch.to_be_bytes()).finalize().into()
}
