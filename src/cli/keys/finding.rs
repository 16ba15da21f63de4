//! Keys by their id, by their secret, and by what they have in common.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use prost_types::Timestamp;

use crate::cli::acting::Acting;
use crate::cli::failure::Failure;
use crate::cli::paging::{Page, Wanted};
use crate::cli::{flags, prompt};
use crate::pb::v1 as pb;

use super::COLUMNS;

#[derive(Debug, Args)]
pub struct List {
    #[command(flatten)]
    wanted: Wanted,

    /// Those of this API, `api_…`.
    #[arg(long, value_name = "API_ID")]
    api: Option<String>,

    /// Those of this identity, an id or an external id.
    #[arg(long)]
    identity: Option<String>,

    /// Those that hold this role, an id or a name.
    #[arg(long)]
    role: Option<String>,

    /// Those that have this permission directly, an id or a slug.
    #[arg(long)]
    permission: Option<String>,

    /// Those in this state. For deleted and revoked ones, --show-deleted is needed too.
    #[arg(long)]
    state: Option<State>,

    /// Those whose name contains this, in upper or lower case.
    #[arg(long, value_name = "TEXT")]
    name_contains: Option<String>,

    /// Those whose secret begins with exactly this: prefix, _ and 4 characters.
    #[arg(long)]
    start: Option<String>,

    /// Those that this root key created, `rk_…`.
    #[arg(long, value_name = "ROOT_KEY_ID")]
    created_by: Option<String>,

    /// Those that expire, or have expired, before this time.
    #[arg(long, value_name = "TIME", value_parser = flags::moment)]
    expire_before: Option<Timestamp>,

    /// Those last used before this time, or never.
    #[arg(long, value_name = "TIME", value_parser = flags::moment)]
    last_used_before: Option<Timestamp>,

    /// Also deleted keys that can be restored, and revoked ones.
    #[arg(long)]
    show_deleted: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum State {
    Active,
    Disabled,
    Expired,
    RotatedOut,
    Deleted,
    Revoked,
}

#[derive(Debug, Args)]
pub struct Lookup {
    /// A file whose first line is the key. Without it, standard input, which on a terminal shows nothing of it.
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
}

impl List {
    pub async fn run(self, acting: &Acting<'_>) -> Result<(), Failure> {
        let (wanted, show_deleted) = (self.wanted, self.show_deleted);
        let filter = self.filter();
        let request = |Page { size, token }| pb::ListKeysRequest {
            page_size: size,
            page_token: token,
            filter: Some(filter.clone()),
            show_deleted,
            min_revision: String::new(),
        };
        let call = async |request| acting.client.keys().list_keys(request).await;
        acting.list(("keys", &COLUMNS), wanted, request, call).await
    }

    fn filter(self) -> pb::ListKeysFilter {
        let Self {
            wanted: _,
            api,
            identity,
            role,
            permission,
            state,
            name_contains,
            start,
            created_by,
            expire_before,
            last_used_before,
            show_deleted: _,
        } = self;
        let state = state.map(|state| match state {
            State::Active => pb::KeyState::Active.into(),
            State::Disabled => pb::KeyState::Disabled.into(),
            State::Expired => pb::KeyState::Expired.into(),
            State::RotatedOut => pb::KeyState::RotatedOut.into(),
            State::Deleted => pb::KeyState::Deleted.into(),
            State::Revoked => pb::KeyState::Revoked.into(),
        });
        pb::ListKeysFilter {
            api_id: api,
            role,
            permission,
            state,
            name_contains,
            start,
            created_by,
            expire_before,
            last_used_before,
            identity,
        }
    }
}

impl Lookup {
    pub async fn run(self, acting: &Acting<'_>) -> Result<(), Failure> {
        let secret = prompt::secret(self.key_file.as_deref())?;
        let request = pb::LookupKeyRequest { secret: secret.expose().to_owned(), min_revision: String::new() };
        acting.show("key", request, async |request| acting.client.keys().lookup_key(request).await).await
    }
}

pub async fn show(key_id: String, acting: &Acting<'_>) -> Result<(), Failure> {
    let request = pb::GetKeyRequest { key_id, min_revision: String::new() };
    acting.show("key", request, async |request| acting.client.keys().get_key(request).await).await
}
