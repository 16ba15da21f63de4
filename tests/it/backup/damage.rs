//! Damaged backups and stores are refused, each with what is wrong with it, and what was there stays.

use std::path::{Path, PathBuf};

use ostiary::config::offline::{Check, Lying, Restore};
use ostiary::domain::backup::{Header, Writer};
use ostiary::offline::{check, restore};
use ostiary::server::Sweeping;
use ostiary::service::unserved::Ended;
use ostiary::store::redb::{RedbEngine, RedbOptions};
use ostiary::store::{Engine as _, Revision};
use tempfile::TempDir;

use super::read;
use super::restoring::files;
use crate::harness::{House, Kept};

/// What becomes of a row: another value, or nothing.
type Change<'a> = &'a dyn Fn(&[u8], &[u8]) -> Option<Vec<u8>>;

/// A backup of a store with something in it, and the data directory of another store.
struct Bench {
    bytes: Vec<u8>,
    directory: TempDir,
}

impl Bench {
    async fn new() -> Self {
        let house = House::unswept().await;
        let operator = house.operator().await;
        operator.role("editor", &["documents.read"]).await;
        operator.plain_key(&operator.api("documents").await, "customer").await;
        let (bytes, directory) = (operator.backup().await, TempDir::new().unwrap());
        let bench = Self { bytes, directory };
        bench.write(&bench.bytes);
        restore(bench.order()).await.unwrap();
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, bytes: &[u8]) {
        std::fs::write(self.path("a.backup"), bytes).unwrap();
    }

    fn lying(&self) -> Lying {
        Lying { data_dir: self.path("data") }
    }

    fn order(&self) -> Restore {
        Restore { file: self.path("a.backup"), lying: self.lying(), replace: true, revoke: Vec::new() }
    }

    fn store(&self) -> PathBuf {
        self.path("data/ostiary.redb")
    }

    /// The revision of the store.
    async fn revision(&self) -> Revision {
        let engine = RedbEngine::open(RedbOptions::new(self.store(), 0)).unwrap();
        let revision = engine.view().await.unwrap().revision();
        engine.close().await;
        revision
    }

    /// What is said when this is to be restored in this way. Nothing may have been put in place by it.
    async fn refused(&self, bytes: &[u8], order: Restore) -> String {
        self.write(bytes);
        let (names, revision) = (files(&self.path("data")), self.revision().await);
        let refused = restore(order).await.expect_err("it was to be refused").to_string();
        assert_eq!((files(&self.path("data")), self.revision().await), (names, revision));
        refused
    }

    /// What is said when this is to be restored or checked. Nothing may have changed by it.
    async fn damaged(&self, bytes: &[u8]) -> String {
        self.write(bytes);
        let before = std::fs::read(self.store()).unwrap();
        let restored = restore(self.order()).await.expect_err("it was to be refused").to_string();
        assert!(std::fs::read(self.store()).unwrap() == before, "{restored}");
        assert_eq!(files(&self.path("data")), ["ostiary.redb"]);
        let checked = check(Check { lying: self.lying(), backup: Some(self.path("a.backup")) }).await;
        assert_eq!(checked.expect_err("it is not sound").to_string(), restored);
        assert!(restored.contains("a.backup: "), "{restored}");
        restored
    }
}

#[tokio::test]
async fn whatever_is_wrong_with_a_backup_it_is_refused_and_the_store_stays_as_it_is() {
    let bench = Bench::new().await;
    let whole = bench.bytes.clone();
    // Every bit and every length is tried where the format is; here it is every so many.
    for step in 0..24 {
        let position = step * (whole.len() - 1) / 23;
        let mut damaged = whole.clone();
        damaged[position] ^= 1 << (step % 8);
        bench.damaged(&damaged).await;
        bench.damaged(&whole[..position]).await;
    }
    assert!(bench.damaged(&[&whole[..], b"\n"].concat()).await.contains("something follows the end"));
    assert!(bench.damaged(b"").await.contains("it is empty"));
    assert!(bench.damaged(b"not a backup").await.contains("not a backup of ostiary"));
    let text = String::from_utf8_lossy(&whole[..16]).into_owned();
    assert_eq!(text, "ostiary backup 1");
    let newer = [b"ostiary backup 2", &whole[16..]].concat();
    assert!(bench.damaged(&newer).await.contains("has format 2, and this version reads up to format 1"));
    bench.write(&whole);
    assert!(restore(bench.order()).await.is_ok());
}

#[tokio::test]
async fn a_backup_that_is_whole_but_holds_what_no_store_does_is_refused() {
    let bench = Bench::new().await;
    let taken = read(&bench.bytes).unwrap();
    let forged = |header: &Header, change: Change<'_>| {
        let mut writer = Writer::new(header);
        for (key, value) in &taken.rows {
            if let Some(value) = change(key, value) {
                writer.row(key, &value).unwrap();
            }
        }
        writer.end();
        writer.take(usize::MAX)
    };
    let garbled =
        forged(&taken.header, &|key, value| Some(if key[0] == 0x40 { vec![7; value.len()] } else { value.to_vec() }));
    assert!(bench.damaged(&garbled).await.contains("a row in it is not one that a store has"));
    let of_other_format = Header { store_format: 2, ..taken.header.clone() };
    let of_other_format = forged(&of_other_format, &|_, value| Some(value.to_vec()));
    assert!(bench.damaged(&of_other_format).await.contains("from a store of format 2"));
    let mut reserved = Writer::new(&taken.header);
    reserved.row(b"\0head", &[0; 8]).unwrap();
    reserved.end();
    assert!(bench.damaged(&reserved.take(usize::MAX)).await.contains("a row in it is not one that a store has"));

    // Sound in itself, but of no installation.
    let empty = forged(&taken.header, &|key, value| (key[0] != 3).then(|| value.to_vec()));
    bench.write(&empty);
    let refused = restore(bench.order()).await.unwrap_err().to_string();
    assert!(refused.contains("no operator workspace"), "{refused}");
    assert_eq!(files(&bench.path("data")), ["ostiary.redb"]);
    let untouched = forged(&taken.header, &|_, value| Some(value.to_vec()));
    assert_eq!(untouched, bench.bytes, "what forges can also leave everything as it is");
}

#[tokio::test]
async fn a_damaged_store_is_found_out_and_can_be_replaced_though_nothing_can_be_compared_with_it() {
    let bench = Bench::new().await;
    let checking = || check(Check { lying: bench.lying(), backup: None });
    let said = checking().await.unwrap();
    assert!(said.contains("ostiary.redb is sound") && said.contains("keys: 1 rows"), "{said}");
    flip(&bench.store());
    assert!(checking().await.is_err());
    bench.write(&bench.bytes);
    let compared = Restore { revoke: vec![ostiary::config::offline::Revoke::Changed], ..bench.order() };
    assert!(restore(compared).await.is_err());
    restore(bench.order()).await.unwrap();
    assert!(checking().await.is_ok());
}

#[tokio::test]
async fn nothing_is_compared_with_a_store_of_another_installation_or_one_that_is_older() {
    let bench = Bench::new().await;
    let changed = || Restore { revoke: vec![ostiary::config::offline::Revoke::Changed], ..bench.order() };
    bench.write(&bench.bytes);
    assert!(restore(changed()).await.unwrap().ended.iter().all(|(_, ended)| *ended == Ended::default()));
    let house = House::build(Kept::OnDisk, Sweeping::ByHand, 2).await;
    let foreign = house.operator().await.backup().await;
    let refused = bench.refused(&foreign, changed()).await;
    assert!(refused.contains("another installation"), "{refused}");

    // The same installation, but a backup of a later state in the same epoch.
    let taken = read(&bench.bytes).unwrap();
    let now = bench.revision().await;
    let header = Header { epoch: now.epoch, counter: now.counter + 1, ..taken.header };
    let mut later = Writer::new(&header);
    for (key, value) in &taken.rows {
        later.row(key, value).unwrap();
    }
    later.end();
    let refused = bench.refused(&later.take(usize::MAX), changed()).await;
    assert!(refused.contains("does not know all that the backup knows"), "{refused}");
}

/// Damages a file in all of its pages but the first.
fn flip(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    for position in (4_096..bytes.len()).step_by(512) {
        bytes[position] ^= 0x55;
    }
    std::fs::write(path, bytes).unwrap();
}

#[tokio::test]
async fn where_there_is_no_store_nothing_is_made_of_it() {
    let directory = TempDir::new().unwrap();
    let lying = Lying { data_dir: directory.path().join("data") };
    let refused = check(Check { lying, backup: None }).await.unwrap_err().to_string();
    assert!(refused.contains("there is no store"), "{refused}");
    assert!(files(directory.path()).is_empty());
}
