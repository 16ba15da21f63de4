//! Rate limits on disk, and what has happened in their windows.

use std::time::Duration;

use compact_str::CompactString;

use crate::domain::id::WorkspaceId;
use crate::domain::limit::{Application, Limit, Limits, Rate};
use crate::domain::name::{LIMIT_NAME, Name};
use crate::domain::window::Window;
use crate::pb::storage;
use crate::store::tables::{Part, Subject};

use super::{Stored, id};

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

/// Windows that are kept in one row.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SavedWindows(pub Vec<SavedWindow>);

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SavedWindow {
    /// Where.
    pub workspace: WorkspaceId,
    /// With whom it counts.
    pub subject: Subject,
    /// How long it is.
    pub span: Duration,
    /// By which limit.
    pub name: CompactString,
    /// What has happened in it.
    pub window: Window,
}

impl Stored<(u64, u16)> for SavedWindows {
    type Message = storage::Windows;

    fn to_message(&self) -> storage::Windows {
        let mut workspaces: Vec<WorkspaceId> = Vec::new();
        let windows = self.0.iter().map(|SavedWindow { workspace, subject, span, name, window }| {
            let known = workspaces.iter().position(|known| known == workspace);
            let place = known.unwrap_or_else(|| {
                workspaces.push(*workspace);
                workspaces.len() - 1
            });
            let mut bytes = Vec::with_capacity(17);
            subject.write(&mut bytes);
            let (number, current, previous) = window.parts();
            storage::Window {
                workspace: u32::try_from(place).unwrap_or(u32::MAX),
                subject: bytes,
                span: span_millis(*span),
                name: name.to_string(),
                number,
                current,
                previous,
            }
        });
        let windows = windows.collect();
        storage::Windows { workspaces: workspaces.iter().map(|id| id.bytes().to_vec()).collect(), windows }
    }

    fn from_message(_: &(u64, u16), message: storage::Windows) -> Option<Self> {
        let storage::Windows { workspaces, windows } = message;
        let workspaces: Option<Vec<WorkspaceId>> =
            workspaces.iter().map(|bytes| id(bytes, WorkspaceId::from_bytes)).collect();
        let workspaces = workspaces?;
        let windows = windows.into_iter().map(|window| {
            let storage::Window { workspace, subject, span, name, number, current, previous } = window;
            let mut rest = subject.as_slice();
            Some(SavedWindow {
                workspace: *workspaces.get(usize::try_from(workspace).ok()?)?,
                subject: Subject::read(&mut rest).filter(|_| rest.is_empty())?,
                span: Duration::from_millis(span),
                name: name.into(),
                window: Window::new(number, current, previous),
            })
        });
        Some(Self(windows.collect::<Option<_>>()?))
    }
}
