//! Rate limits on disk, and what has happened in their windows.

use std::time::Duration;

use crate::domain::id::WorkspaceId;
use crate::domain::limit::{Application, Limit, Limits, Rate};
use crate::domain::name::{LIMIT_NAME, Name};
use crate::domain::window::Window;
use crate::pb::storage;
use crate::store::tables::Subject;

use super::Stored;

pub fn limit_messages(limits: &Limits) -> Vec<storage::RateLimit> {
    limits
        .iter()
        .map(|Limit { name, rate, application }| storage::RateLimit {
            name: name.to_string(),
            limit: rate.limit(),
            span: span_millis(rate.span()),
            always: *application == Application::Always,
        })
        .collect()
}

pub fn to_limits(messages: Vec<storage::RateLimit>) -> Option<Limits> {
    let limits: Option<Vec<Limit>> = messages
        .into_iter()
        .map(|storage::RateLimit { name, limit, span, always }| {
            Some(Limit {
                name: Name::new(&name, LIMIT_NAME).ok()?,
                rate: Rate::new(limit, Duration::from_millis(span)).ok()?,
                application: if always { Application::Always } else { Application::WhenNamed },
            })
        })
        .collect();
    Limits::collect(limits?).ok()
}

/// A span in milliseconds, as far as they can be counted.
pub fn span_millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

impl Stored<(WorkspaceId, Subject, u64, String)> for Window {
    type Message = storage::Window;

    fn to_message(&self) -> storage::Window {
        let (number, current, previous) = self.parts();
        storage::Window { number, current, previous }
    }

    fn from_message(_: &(WorkspaceId, Subject, u64, String), message: storage::Window) -> Option<Self> {
        let storage::Window { number, current, previous } = message;
        Some(Self::new(number, current, previous))
    }
}
