//! Backups: one moment, taken while calls go on; restored or refused as a whole; and what ends with a restoring.

mod damage;
mod ending;
mod recovering;
mod restoring;
mod taking;

use std::collections::BTreeMap;

use ostiary::domain::backup::{Contents, Damage, Header, Piece, Reader};
use ostiary::pb::v1 as pb;
use tonic::Status;

use crate::harness::Client;

/// What a backup holds, put together again.
#[derive(Debug)]
pub struct Taken {
    pub header: Header,
    pub rows: BTreeMap<Vec<u8>, Vec<u8>>,
    pub contents: Contents,
}

/// Reads a backup.
pub fn read(bytes: &[u8]) -> Result<Taken, Damage> {
    let (mut reader, mut header, mut rows) = (Reader::default(), None, BTreeMap::new());
    reader.feed(bytes);
    while let Some(piece) = reader.piece()? {
        match piece {
            Piece::Header(read) => header = Some(read),
            Piece::Row { key, value } => drop(rows.insert(key.to_vec(), value.to_vec())),
            Piece::End(_) => {}
        }
    }
    let contents = reader.finish()?;
    Ok(Taken { header: header.unwrap(), rows, contents })
}

impl Client {
    /// Begins a backup.
    pub async fn begin_backup(&self) -> Result<tonic::Streaming<pb::BackupResponse>, Status> {
        Ok(self.maintenance().backup(pb::BackupRequest::default()).await?.into_inner())
    }

    /// A whole backup, as bytes.
    pub async fn backup(&self) -> Vec<u8> {
        let mut pieces = self.begin_backup().await.unwrap();
        let mut bytes = Vec::new();
        while let Some(piece) = pieces.message().await.unwrap() {
            assert!((1..=256 << 10).contains(&piece.data.len()));
            bytes.extend(piece.data);
        }
        bytes
    }
}

/// The counter of a revision.
pub fn counter(revision: &str) -> u64 {
    revision.split_once('.').unwrap().1.parse().unwrap()
}
