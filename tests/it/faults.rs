//! What goes wrong around ostiary: a full disk, a file that may not be used any more, one that is damaged.
//!
//! Each gives one clear message that says what to do. Verification goes on where it safely can, what was acknowledged is
//! still there afterwards, and nothing else is. What goes wrong with ports, sockets and certificates is in
//! `first_start.rs`, `listening.rs` and `tls.rs`, what a clock may do in `src/world.rs`.

mod damage;
mod disk;
mod permission;

use std::collections::BTreeMap;
use std::path::PathBuf;

use ostiary::pb::v1 as pb;
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_types::StatusExt;

use crate::harness::{Client, reason};
use crate::process::{Ended, Place, Process, Server, await_some};

/// Serving, and that alone.
const ALL_WELL: [bool; 3] = [true; 3];
/// Everything but changes.
const READ_ONLY: [bool; 3] = [true, true, false];

/// The one line with which a process gave up.
fn complaint(ended: &Ended) -> String {
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let complaints: Vec<&str> = ended.stderr.lines().filter(|line| line.starts_with("ostiary: ")).collect();
    assert_eq!(complaints.len(), 1, "{ended:?}");
    complaints[0].to_owned()
}

fn store(place: &Place) -> PathBuf {
    place.data().join("ostiary.redb")
}

/// From now on no file of this process may grow beyond so many bytes, and nothing behind them can be written.
fn limit_files(process: &Process, bytes: Option<u64>) {
    let pid = Pid::from_raw(i32::try_from(process.id()).unwrap());
    prlimit(pid, Resource::Fsize, Rlimit { current: bytes, maximum: None }).unwrap();
}

/// Whether health says of everything, of verifying and of managing that it works.
async fn health(client: &Client) -> [bool; 3] {
    let mut works = [false; 3];
    for (works, service) in works.iter_mut().zip(["", "ostiary.v1.verify", "ostiary.v1.manage"]) {
        let request = HealthCheckRequest { service: service.to_owned() };
        let answer = HealthClient::new(client.channel.clone()).check(request).await.unwrap();
        *works = answer.into_inner().status() == ServingStatus::Serving;
    }
    works
}

async fn await_health(client: &Client, expected: [bool; 3]) {
    for _ in 0..1_000 {
        if health(client).await == expected {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("health is {:?} and not {expected:?}", health(client).await);
}

/// A server with an API, and what it has acknowledged.
struct Story {
    server: Server,
    client: Client,
    api: pb::Api,
    /// The secrets of keys that were made, by id.
    made: BTreeMap<String, String>,
    /// Calls for keys of which nobody knows whether they were made.
    unknown: usize,
}

impl Story {
    async fn begin(server: Server, place: &Place) -> Self {
        let client = server.client(&place.first_root_key()).await;
        let api = client.api("documents").await;
        let mut story = Self { server, client, api, made: BTreeMap::new(), unknown: 0 };
        for _ in 0..3 {
            story.create(1).await.unwrap();
        }
        story
    }

    /// Asks for a key with so many kilobytes of metadata.
    async fn create(&mut self, kilobytes: usize) -> Result<(), Status> {
        let text = prost_types::Value::from("x".repeat(kilobytes * 1_000));
        let metadata = prost_types::Struct { fields: BTreeMap::from([("text".to_owned(), text)]) };
        let api_id = self.api.api_id.clone();
        let request = pb::CreateKeyRequest { api_id, metadata: Some(metadata), ..Default::default() };
        match self.client.keys().create_key(request).await {
            Ok(made) => {
                let made = made.into_inner();
                self.made.insert(made.key.unwrap().key_id, made.secret);
                Ok(())
            }
            Err(status) => {
                self.unknown += usize::from(reason(&status) == "OUTCOME_UNKNOWN");
                Err(status)
            }
        }
    }

    /// Asks for large keys until one is refused.
    async fn create_until_refused(&mut self) -> Status {
        for _ in 0..2_000 {
            if let Err(status) = self.create(60).await {
                return status;
            }
        }
        panic!("every key was made");
    }

    /// Every change is refused in the same clear way, and none is made.
    async fn refuses_changes(&mut self) {
        let (key_id, secret) = self.made.iter().next().map(|(id, secret)| (id.clone(), secret.clone())).unwrap();
        let delete = pb::DeleteKeyRequest { key_id, ..Default::default() };
        let filter = Some(pb::RevokeKeysFilter { api_id: Some(self.api.api_id.clone()), ..Default::default() });
        let revoke = pb::RevokeKeysRequest { filter, ..Default::default() };
        let refusals = [
            self.create(1).await.unwrap_err(),
            self.client.keys().delete_key(delete).await.unwrap_err(),
            self.client.keys().revoke_keys(revoke).await.unwrap_err(),
        ];
        for status in refusals {
            assert_eq!((status.code(), reason(&status).as_str()), (Code::Unavailable, "STORE_UNAVAILABLE"));
            let retry = status.get_details_retry_info().and_then(|info| info.retry_delay);
            assert!(retry.is_some_and(|delay| !delay.is_zero()), "{status:?}");
        }
        assert!(self.client.verdict(&secret, None).await.valid);
    }

    /// Every key that was made is good, remembered or not.
    async fn verifies_all(&self) {
        for (id, secret) in &self.made {
            let verdict = self.client.verdict(secret, None).await;
            assert!(verdict.valid, "{id}: {verdict:?}");
        }
    }

    /// There is every key that was made, and no other but those of unknown outcome.
    async fn holds(&self) {
        self.verifies_all().await;
        let mut page_token = String::new();
        let mut listed = 0;
        loop {
            let request = pb::ListKeysRequest { page_size: 1_000, page_token, ..Default::default() };
            let page = self.client.keys().list_keys(request).await.unwrap().into_inner();
            listed += page.keys.len();
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
        assert!((self.made.len()..=self.made.len() + self.unknown).contains(&listed), "{listed}: {}", self.made.len());
    }

    /// Stops the server, and starts it again in the same place.
    async fn restart(self, place: &Place) -> Self {
        let Self { server, api, made, unknown, .. } = self;
        assert_eq!(server.stop().code, Some(0));
        let server = place.serve(&[]);
        let client = server.client(&place.first_root_key()).await;
        Self { server, client, api, made, unknown }
    }

    fn await_log(&self, what: &str) {
        await_some(what, || self.server.process.log().contains(what).then_some(()));
    }
}
