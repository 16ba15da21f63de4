//! `ostiary root-key`: the life of root keys.

use clap::{Args, Subcommand, ValueEnum};
use prost_types::Timestamp;

use crate::pb::v1 as pb;

use super::acting::{About, Acting, Deed};
use super::failure::Failure;
use super::flags::{self, ChangedLife, ChangedNetworks, Mask, NewLife, Removal, Terms, Trial};
use super::output::Column;
use super::paging::{Page, Wanted};

/// What a list of root keys shows.
const COLUMNS: [Column; 7] = [
    ("ID", "root_key_id"),
    ("NAME", "name"),
    ("STATE", "state"),
    ("START", "start"),
    ("CREATED", "create_time"),
    ("EXPIRES", "expire_time"),
    ("LAST USED", "last_used_time"),
];

/// Root keys.
pub type RootKeys = About<Command>;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create a root key. Its secret goes to standard output, alone, and is never shown again.
    Create(Create),
    /// List root keys, expired and rotated-out ones too.
    List(List),
    /// Show a root key.
    Show(Show),
    /// Tell which root key this command is run with, and its workspace.
    #[command(visible_alias = "whoami")]
    WhoAmI,
    /// Change a root key, from its next call on.
    Update(Update),
    /// Replace a root key by a new one, whose secret goes to standard output, alone, and is never shown again.
    Rotate(Rotate),
    /// Delete root keys, at once and for good.
    Delete(Delete),
}

#[derive(Debug, Args)]
pub struct Create {
    /// What it is called, 1 to 255 characters, such as `billing service, production`.
    #[arg(long)]
    name: String,

    /// What it may do: `RESOURCE.ID.ACTION`, of which each may be `*`, such as 'apis.*.verify_key'. May be given more
    /// than once, 1 to 200.
    #[arg(long = "permission", required = true, value_name = "PERMISSION")]
    permissions: Vec<String>,

    #[command(flatten)]
    life: NewLife,

    /// A network or address from which it may be used, such as 192.0.2.0/24. May be given more than once, at most 100.
    /// Without it, from anywhere.
    #[arg(long = "allowed-cidr", value_name = "NETWORK")]
    allowed_cidrs: Vec<String>,

    #[command(flatten)]
    trial: Trial,
}

#[derive(Debug, Args)]
pub struct List {
    #[command(flatten)]
    wanted: Wanted,

    /// Those whose name contains this, in upper or lower case.
    #[arg(long, value_name = "TEXT")]
    name_contains: Option<String>,

    /// Those of whose permissions one contains this, such as '.delete_'.
    #[arg(long, value_name = "TEXT")]
    permission_contains: Option<String>,

    /// Those in this state.
    #[arg(long)]
    state: Option<State>,

    /// Those created at this time or later.
    #[arg(long, value_name = "TIME", value_parser = flags::moment)]
    create_after: Option<Timestamp>,

    /// Those created before this time.
    #[arg(long, value_name = "TIME", value_parser = flags::moment)]
    create_before: Option<Timestamp>,

    /// Those that expire, or have expired, before this time.
    #[arg(long, value_name = "TIME", value_parser = flags::moment)]
    expire_before: Option<Timestamp>,

    /// Those last used before this time, or never.
    #[arg(long, value_name = "TIME", value_parser = flags::moment)]
    last_used_before: Option<Timestamp>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum State {
    Active,
    RotatedOut,
    Disabled,
    Expired,
}

#[derive(Debug, Args)]
pub struct Show {
    /// The root key's id, `rk_…`.
    root_key_id: String,

    /// Also tell how often each of its permissions was used, and which never.
    #[arg(long)]
    usage: bool,
}

#[derive(Debug, Args)]
pub struct Update {
    /// The root key's id, `rk_…`.
    root_key_id: String,

    /// The new name, 1 to 255 characters.
    #[arg(long)]
    name: Option<String>,

    /// What it may do. May be given more than once; all that it is to have must be given.
    #[arg(long = "permission", value_name = "PERMISSION")]
    permissions: Vec<String>,

    /// Whether it can be used.
    #[arg(long, value_name = "true|false")]
    enabled: Option<bool>,

    #[command(flatten)]
    life: ChangedLife,

    #[command(flatten)]
    networks: ChangedNetworks,

    /// Change it even if the workspace is left without an administrator.
    #[arg(long)]
    force: bool,

    #[command(flatten)]
    terms: Terms,
}

#[derive(Debug, Args)]
pub struct Rotate {
    /// The root key's id, `rk_…`. It may be the one that this command is run with.
    root_key_id: String,

    /// How long the old secret works on, from 0 to 30d. Usual are 0, 1m, 15m, 1h, 6h and 24h; with 0 it stops at once.
    #[arg(long, value_name = "DURATION", value_parser = flags::span)]
    grace: prost_types::Duration,

    /// Rotate it even if the workspace is left without an administrator, or if it is the one that this command is run
    /// with and its grace is less than 1m.
    #[arg(long)]
    force: bool,

    #[command(flatten)]
    terms: Terms,
}

#[derive(Debug, Args)]
pub struct Delete {
    /// The ids of the root keys, `rk_…`, 1 to 20; all are deleted or none.
    #[arg(required = true, value_name = "ROOT_KEY_ID", num_args = 1..=20)]
    root_key_ids: Vec<String>,

    /// Also delete every root key that descends from it by creation or rotation. For a single one.
    #[arg(long)]
    cascade: bool,

    /// Delete them even if the workspace is left without an administrator.
    #[arg(long)]
    force: bool,

    #[command(flatten)]
    removal: Removal,
}

impl Deed for Command {
    fn ask(&self) -> Result<(), Failure> {
        let Self::Delete(delete) = self else { return Ok(()) };
        delete.removal.ask(&format!("Delete {}?", delete.root_key_ids.join(", ")))
    }

    async fn run(self, acting: &Acting<'_>) -> Result<(), Failure> {
        match self {
            Self::Create(create) => create.run(acting).await,
            Self::List(list) => list.run(acting).await,
            Self::Show(show) => show.run(acting).await,
            Self::WhoAmI => who_am_i(acting).await,
            Self::Update(update) => update.run(acting).await,
            Self::Rotate(rotate) => rotate.run(acting).await,
            Self::Delete(delete) => delete.run(acting).await,
        }
    }
}

impl Create {
    async fn run(self, acting: &Acting<'_>) -> Result<(), Failure> {
        use pb::create_root_key_request::Expiration;
        let Self { name, permissions, life: NewLife { expires_in, expires_at }, allowed_cidrs, trial } = self;
        let expiration = expires_in.map(Expiration::Ttl).or(expires_at.map(Expiration::ExpireTime));
        let request =
            pb::CreateRootKeyRequest { name, permissions, expiration, allowed_cidrs, validate_only: trial.dry_run };
        let call = async |request| acting.client.root_keys().create_root_key(request).await;
        let answer = acting.answer(trial, request, call).await?;
        acting.output.secret(&answer, "root_key", &answer.secret)
    }
}

impl List {
    async fn run(self, acting: &Acting<'_>) -> Result<(), Failure> {
        let wanted = self.wanted;
        let filter = self.filter();
        let request = |Page { size, token }| pb::ListRootKeysRequest {
            page_size: size,
            page_token: token,
            filter: Some(filter.clone()),
            min_revision: String::new(),
        };
        let call = async |request| acting.client.root_keys().list_root_keys(request).await;
        acting.list(("root_keys", &COLUMNS), wanted, request, call).await
    }

    fn filter(self) -> pb::ListRootKeysFilter {
        let Self {
            wanted: _,
            name_contains,
            permission_contains,
            state,
            create_after,
            create_before,
            expire_before,
            last_used_before,
        } = self;
        let state = state.map(|state| match state {
            State::Active => pb::RootKeyState::Active.into(),
            State::RotatedOut => pb::RootKeyState::RotatedOut.into(),
            State::Disabled => pb::RootKeyState::Disabled.into(),
            State::Expired => pb::RootKeyState::Expired.into(),
        });
        pb::ListRootKeysFilter {
            name_contains,
            permission_contains,
            state,
            create_after,
            create_before,
            expire_before,
            last_used_before,
        }
    }
}

impl Show {
    async fn run(self, acting: &Acting<'_>) -> Result<(), Failure> {
        let Self { root_key_id, usage } = self;
        let view = if usage { pb::RootKeyView::Full } else { pb::RootKeyView::Basic };
        let request = pb::GetRootKeyRequest { root_key_id, view: view.into(), min_revision: String::new() };
        acting.show("root_key", request, async |request| acting.client.root_keys().get_root_key(request).await).await
    }
}

async fn who_am_i(acting: &Acting<'_>) -> Result<(), Failure> {
    let Acting { client, output } = acting;
    let request = pb::WhoAmIRequest { min_revision: String::new() };
    let answer = client.read(request, async |request| client.root_keys().who_am_i(request).await).await?;
    output.object(&answer, "root_key")?;
    if let Some(workspace) = answer.workspace {
        output.note(&format!("in the workspace {}", super::output::shown(&workspace.name)));
    }
    Ok(())
}

impl Update {
    async fn run(self, acting: &Acting<'_>) -> Result<(), Failure> {
        let Self { root_key_id, name, permissions, enabled, life, networks, force, terms } = self;
        let mut mask = Mask::default();
        mask.add("name", name.is_some());
        mask.add("permissions", !permissions.is_empty());
        mask.add("enabled", enabled.is_some());
        let expire_time = life.change(&mut mask, acting.client.world())?;
        let allowed_cidrs = networks.change(&mut mask);
        let Terms { etag, trial } = terms;
        let request = pb::UpdateRootKeyRequest {
            root_key_id,
            name,
            permissions,
            enabled,
            expire_time,
            allowed_cidrs,
            update_mask: mask.named()?,
            etag,
            force,
            validate_only: trial.dry_run,
        };
        let call = async |request| acting.client.root_keys().update_root_key(request).await;
        acting.change("root_key", trial, request, call).await
    }
}

impl Rotate {
    async fn run(self, acting: &Acting<'_>) -> Result<(), Failure> {
        let Self { root_key_id, grace, force, terms: Terms { etag, trial } } = self;
        let request = pb::RotateRootKeyRequest {
            root_key_id,
            grace_period: Some(grace),
            etag,
            force,
            validate_only: trial.dry_run,
        };
        let call = async |request| acting.client.root_keys().rotate_root_key(request).await;
        let answer = acting.answer(trial, request, call).await?;
        if let Some(pb::RootKey { root_key_id, expire_time: Some(end), .. }) = &answer.previous {
            acting.output.note(&format!("the secret of {root_key_id} works until {end}"));
        }
        acting.output.secret(&answer, "root_key", &answer.secret)
    }
}

impl Delete {
    async fn run(self, acting: &Acting<'_>) -> Result<(), Failure> {
        let Self { root_key_ids, cascade, force, removal: Removal { terms: Terms { etag, trial }, consent: _ } } = self;
        let Acting { client, output } = acting;
        let validate_only = trial.dry_run;
        let deleted = match &root_key_ids[..] {
            [root_key_id] => {
                let root_key_id = root_key_id.clone();
                let request = pb::DeleteRootKeyRequest { root_key_id, etag, cascade, force, validate_only };
                let call = async |request| client.root_keys().delete_root_key(request).await;
                let answer = client.change(request, call).await?;
                output.whole(&answer)?;
                answer.deleted_root_key_ids.len()
            }
            _ if cascade || !etag.is_empty() => {
                return Err(Failure::Misused("--cascade and --etag are for a single root key".to_owned()));
            }
            _ => {
                let request = pb::BatchDeleteRootKeysRequest { root_key_ids, force, validate_only };
                let call = async |request| client.root_keys().batch_delete_root_keys(request).await;
                let answer = client.change(request, call).await?;
                output.whole(&answer)?;
                answer.deleted_root_key_ids.len()
            }
        };
        trial.tell(*output, &format!("deleted {deleted}"));
        Ok(())
    }
}
