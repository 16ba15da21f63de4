//! `AuditLogService`.

use std::sync::Arc;

use futures::stream::{self, BoxStream, StreamExt};
use tonic::{Request, Response, Status};

use crate::domain::Flaw;
use crate::domain::audit::{Actor, Event, EventName, Happening, Target};
use crate::domain::capability::Capability;
use crate::pb::{from_facts, v1 as pb};
use crate::service::audit::EventFilter;
use crate::service::audit::following::{Follower, News};
use crate::service::listing::Page;
use crate::service::{Done, Revision};

use super::convert::moment;
use super::fields::Fields;
use super::page::page;
use super::root_keys::flat;
use super::streams::{admissions, answers};
use super::{Desk, admitted, answer, meta};

#[tonic::async_trait]
impl pb::audit_log_service_server::AuditLogService for Desk {
    async fn list_audit_events(
        &self,
        request: Request<pb::ListAuditEventsRequest>,
    ) -> Result<Response<pb::ListAuditEventsResponse>, Status> {
        let (caller, request) = admitted(request)?;
        let pb::ListAuditEventsRequest { page_size, page_token, filter, min_revision } = request;
        let filter = filter.unwrap_or_default();
        let mut fields = Fields::default();
        let page = page(&mut fields, "ListAuditEvents", &filter, (page_size, page_token));
        let filter = to_filter(&mut fields, filter);
        let min_revision = fields.min_revision(&min_revision);
        let (filter, page, min_revision) = fields.finish(filter.zip(page).zip(min_revision).map(flat))?;
        let Done { answer: Page { items, next }, revision } =
            self.ostiary.list_audit_events(&caller, filter, page, min_revision).await?;
        let events = items.into_iter().map(|event| shown(event, revision)).collect();
        answer(&caller, Done { answer: events, revision }, |meta, events| pb::ListAuditEventsResponse {
            meta,
            events,
            next_page_token: next,
        })
    }

    type WatchAuditEventsStream = BoxStream<'static, Result<pb::WatchAuditEventsResponse, Status>>;

    async fn watch_audit_events(
        &self,
        request: Request<pb::WatchAuditEventsRequest>,
    ) -> Result<Response<Self::WatchAuditEventsStream>, Status> {
        let (caller, request) = admitted(request)?;
        let pb::WatchAuditEventsRequest { resume_token, filter } = request;
        let mut fields = Fields::default();
        let filter = to_filter(&mut fields, filter.unwrap_or_default());
        let filter = fields.finish(filter)?;
        let follower = Follower::begin(Arc::clone(&self.ostiary), &caller, filter, &resume_token).await?;
        // Read as fast as it is told, and no faster: what has happened meanwhile is in the log.
        let news = stream::unfold(follower, |mut follower| async move {
            let news = follower.next().await;
            Some((Ok(news), follower))
        });
        let told = admissions(self, caller.clone(), Capability::ReadAuditLog, news.boxed()).map(|admitted| {
            let (caller, news) = admitted?;
            let News { events, resume_token, revision } = news?;
            let events = events.into_iter().map(|event| shown(event, revision)).collect();
            Ok(pb::WatchAuditEventsResponse { meta: meta(&caller, revision), events, resume_token })
        });
        Ok(answers(&caller, told))
    }
}

fn to_filter(fields: &mut Fields, filter: pb::ListAuditEventsFilter) -> Option<EventFilter> {
    let pb::ListAuditEventsFilter { actor_id, event, target_id, after, before } = filter;
    let actor = fields.search("filter.actor_id", actor_id);
    let target = fields.search("filter.target_id", target_id);
    let event = match event {
        Some(event) if EventName::parse(&event).is_none() => {
            let known: Vec<&str> = EventName::ALL.iter().map(|event| event.as_str()).collect();
            fields.refuse("filter.event", Flaw::new(format!("must be one of {}", known.join(", "))));
            None
        }
        event => Some(event),
    };
    let after = fields.moment("filter.after", after);
    let before = fields.moment("filter.before", before);
    Some(EventFilter { actor: actor?, event: event?, target: target?, after: after?, before: before? })
}

fn shown(event: Event, head: Revision) -> pb::AuditEvent {
    let Event { id, workspace: _, revision, position: _, time, actor, happening, remote, user_agent, request_id, hash } =
        event;
    let Happening { event, targets, before, after } = happening;
    let actor = match actor {
        Actor::RootKey { id, name } => {
            pb::AuditActor { r#type: pb::AuditActorType::RootKey.into(), id: id.to_string(), name }
        }
        Actor::System => nameless(pb::AuditActorType::System),
        Actor::Operator => nameless(pb::AuditActorType::Operator),
    };
    pb::AuditEvent {
        event_id: id.to_string(),
        revision: Revision { counter: revision, ..head }.to_string(),
        time: Some(moment(time)),
        event: event.as_str().to_owned(),
        actor: Some(actor),
        targets: targets
            .into_iter()
            .map(|Target { kind, id, name }| pb::AuditTarget { kind: kind.snake().to_owned(), id, name })
            .collect(),
        before: before.as_ref().map(from_facts),
        after: after.as_ref().map(from_facts),
        remote_address: remote.map(|address| address.to_string()).unwrap_or_default(),
        user_agent,
        request_id,
        hash: hash.to_string(),
    }
}

fn nameless(kind: pb::AuditActorType) -> pb::AuditActor {
    pb::AuditActor { r#type: kind.into(), ..Default::default() }
}
