//! Sliding windows: in memory.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;

use crate::domain::id::WorkspaceId;
use crate::domain::limit::Rate;
use crate::domain::time::Timestamp;
use crate::domain::window::{Admission, Window};
use crate::error::Error;
use crate::store::tables::Subject;

use super::Ostiary;

#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    pub workspace: WorkspaceId,
    pub subject: Subject,
    pub name: &'a str,
    pub rate: Rate,
    pub cost: u64,
}

#[derive(Default)]
pub struct Registry(Mutex<HashMap<(WorkspaceId, Subject, String, Duration), Window>>);

impl Registry {
    pub fn peek(&self, asks: &[Ask<'_>], now: Timestamp) -> Vec<Admission> {
        let windows = self.0.lock();
        asks.iter()
            .map(|ask| {
                let key = (ask.workspace, ask.subject, ask.name.to_owned(), ask.rate.span());
                let window = windows.get(&key).copied().unwrap_or_default();
                window.admission(now, ask.rate.span(), ask.rate.limit(), ask.cost)
            })
            .collect()
    }

    pub fn admit_if(
        &self,
        asks: &[Ask<'_>],
        now: Timestamp,
        then: impl FnOnce() -> bool,
    ) -> Result<Vec<Admission>, Error> {
        let mut windows = self.0.lock();
        let mut admissions = Vec::new();
        for ask in asks {
            let key = (ask.workspace, ask.subject, ask.name.to_owned(), ask.rate.span());
            let window = windows.entry(key).or_default();
            admissions.push(window.admission(now, ask.rate.span(), ask.rate.limit(), ask.cost));
        }
        if admissions.iter().all(|admission| matches!(admission, Admission::Admitted { .. })) && then() {
            for ask in asks {
                let key = (ask.workspace, ask.subject, ask.name.to_owned(), ask.rate.span());
                windows.entry(key).or_default().count(now, ask.rate.span(), ask.cost);
            }
        }
        Ok(admissions)
    }
}

impl Ostiary {
    pub(super) async fn load_windows(&self, _: &[Ask<'_>]) -> Result<(), Error> {
        Ok(())
    }
}
