//! `ostiary check`: whether a store or a backup is what was written.

use std::fmt::Write as _;
use std::path::Path;

use crate::config::offline::Check;
use crate::domain::backup::{Contents, Header};
use crate::server::STORE;
use crate::service::unserved::{self, Checked};
use crate::store::{Engine as _, Revision, tables};

use super::source::Source;
use super::{Refusal, open};

/// Checks it, and says what it holds.
///
/// # Errors
/// What is wrong with it.
pub async fn check(wanted: Check) -> Result<String, Refusal> {
    let Check { lying, backup } = wanted;
    match backup {
        Some(file) => of_backup(&file),
        None => of_store(&lying.data_dir).await,
    }
}

async fn of_store(directory: &Path) -> Result<String, Refusal> {
    let engine = open(directory)?;
    let checked = match engine.view().await {
        Ok(view) => unserved::check(view.as_ref()).await,
        Err(failure) => Err(failure.into()),
    };
    engine.close().await;
    let what = directory.join(STORE).display().to_string();
    let Checked { revision, tables, head } = checked.map_err(|why| Refusal::Unsound { what: what.clone(), why })?;
    let mut said = format!("{what} is sound\nrevision {revision}\n");
    tell(&mut said, tables.into_iter());
    let _ = writeln!(said, "audit log: {} events, ending in {}", head.length, head.hash);
    Ok(said)
}

fn of_backup(file: &Path) -> Result<String, Refusal> {
    let source = Source::open(file)?;
    let name = source.name().to_owned();
    let (header, contents) = source.walk(|_, _| Ok(()))?;
    let Header { store_format: _, epoch, counter, time, written_by } = header;
    let revision = Revision { epoch, counter };
    let mut said = format!("{name} is sound\nrevision {revision} of {time}, taken by ostiary {written_by}\n");
    let digest = contents.digest_text();
    let Contents { tables, length, digest: _ } = contents;
    tell(&mut said, tables.into_iter());
    let _ = writeln!(said, "{length} bytes, SHA-256 {digest}");
    Ok(said)
}

/// Says how many rows each table has.
fn tell(said: &mut String, rows: impl Iterator<Item = (u8, u64)>) {
    for (tag, rows) in rows {
        let name = tables::NAMES.iter().find(|(known, _)| *known == tag).map_or("", |(_, name)| name);
        // Writing to a text never fails.
        let _ = writeln!(said, "{name}: {rows} rows");
    }
}
