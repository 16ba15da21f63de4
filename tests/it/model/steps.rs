//! What can be done: one step of a sequence, and how raw numbers become one.
//!
//! Numbers are read against the model as it is, so that most steps concern things that exist; whatever numbers a
//! failure is reduced to, they are still a sequence.

use super::naive::Model;

/// The numbers of one step.
pub type Raw = [u16; 7];

/// Permissions that sequences are about.
pub const SLUGS: [&str; 6] = ["documents.read", "documents.*", "Documents.read", "a.b", "*", "a.*.c"];
/// What verifications ask for; none is the empty question.
pub const QUERIES: [&str; 4] = ["", "documents.read", "documents.write OR a.b", "documents.read AND a.x.c"];
/// Names of roles, two of them the same but for case.
pub const ROLE_NAMES: [&str; 4] = ["reader", "Reader", "writer", "owner"];
/// From where calls come, and what allow-lists there are; see `naive::admits`.
pub const ADDRESSES: [&str; 3] = ["10.1.0.9", "10.2.0.9", "192.168.0.9"];
pub const NETS: [&[&str]; 4] = [&[], &["10.0.0.0/8"], &["10.1.0.0/16"], &["192.168.0.0/16"]];

const SECOND: u64 = 1_000;
const DAY: u64 = 86_400 * SECOND;
/// How long lives and pauses are.
const SPANS: [u64; 8] = [SECOND, 60 * SECOND, 3_600 * SECOND, DAY, 10 * DAY, 31 * DAY, 91 * DAY, 200 * DAY];
const PAUSES: [u64; 8] = [1, 999, SECOND, 3_600 * SECOND, DAY, 11 * DAY, 31 * DAY, 91 * DAY];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    Nothing,
    Right,
    Wrong,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    Add,
    Remove,
    Set,
}

#[derive(Debug, Clone)]
pub enum Verb {
    CreateRootKey { name: String, grants: Vec<String>, expire: Option<u64>, net: usize },
    UpdateRootKey { id: String, patch: RootKeyChange, force: bool },
    RotateRootKey { id: String, grace: u64, force: bool },
    DeleteRootKey { id: String, cascade: bool, force: bool },
    BatchDelete { ids: Vec<String>, force: bool },
    GetRootKey { id: String },
    CreateApi { name: String, ttl: Option<u64>, protect: bool, net: usize },
    UpdateApi { id: String, name: Option<String>, protect: Option<bool>, ttl: Option<Option<u64>>, net: Option<usize> },
    DeleteApi { id: String },
    GetApi { id: String },
    CreateKey { api: String, roles: Vec<String>, permissions: Vec<String>, enabled: bool, life: Life, net: usize },
    UpdateKey { id: String, patch: KeyChange },
    DeleteKey { id: String, permanent: bool },
    UndeleteKey { id: String },
    GetKey { id: String },
    LookupKey { secret: String },
    AssignRoles { id: String, how: How, roles: Vec<String> },
    AssignPermissions { id: String, how: How, permissions: Vec<String> },
    Verify { secret: String, audience: Option<String>, query: &'static str, client: Option<usize> },
    CreateRole { name: String, permissions: Vec<String> },
    UpdateRole { role: String, name: Option<String>, description: Option<String> },
    SetRolePermissions { role: String, permissions: Vec<String> },
    DeleteRole { role: String },
    GetRole { role: String },
    CreatePermission { slug: String },
    UpdatePermission { permission: String, name: String },
    DeletePermission { permission: String },
    GetPermission { permission: String },
    CreateWorkspace { name: String },
    UpdateWorkspace { id: String, name: Option<String>, enabled: Option<bool> },
    DeleteWorkspace { id: String },
    GetWorkspace { id: String },
}

#[derive(Debug, Clone, Default)]
pub struct RootKeyChange {
    pub name: Option<String>,
    pub grants: Option<Vec<String>>,
    pub enabled: Option<bool>,
    pub expire: Option<Option<u64>>,
    pub net: Option<usize>,
}

#[derive(Debug, Clone, Default)]
pub struct KeyChange {
    pub name: Option<String>,
    pub enabled: Option<bool>,
    pub expire: Option<Option<u64>>,
    pub net: Option<usize>,
    pub roles: Option<Vec<String>>,
    pub permissions: Option<Vec<String>>,
}

/// The life of a new key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    AsTheApiSays,
    Never,
    Until(u64),
}

#[derive(Debug, Clone)]
pub struct Call {
    /// The root key's secret.
    pub secret: String,
    /// Which of the addresses it is made from.
    pub from: usize,
    pub etag: Sent,
    pub rehearse: bool,
    /// Under an idempotency key; if it succeeds it is made once more.
    pub twice: bool,
    pub verb: Verb,
}

#[derive(Debug, Clone)]
pub enum Step {
    Call(Call),
    Pass(u64),
    Sweep,
    Save,
    Restart,
}

/// The numbers of a step, taken one after another.
struct Dice(Raw, usize);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        let place = self.1 % self.0.len();
        self.1 += 1;
        // Numbers that are used again are used differently.
        let number = usize::from(self.0[place].rotate_left(5 * (self.1 / self.0.len()) as u32));
        number % sides.max(1)
    }
    fn one_in(&mut self, sides: usize) -> bool {
        self.roll(sides) == sides - 1
    }
    fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.roll(from.len())].clone()
    }
    fn some<T: Clone>(&mut self, from: &[T], most: usize) -> Vec<T> {
        (0..self.roll(most + 1)).map(|_| self.pick(from)).collect()
    }
    fn maybe<T>(&mut self, sides: usize, make: impl FnOnce(&mut Self) -> T) -> Option<T> {
        if self.one_in(sides) { Some(make(self)) } else { None }
    }
}

/// The step that the numbers stand for, as things are.
pub fn read(raw: Raw, model: &Model, now: u64) -> Step {
    let mut dice = Dice(raw, 0);
    let kind = dice.roll(100);
    match kind {
        0..5 => return Step::Pass(dice.pick(&PAUSES)),
        5..8 => {
            // To where a life ends, or to the millisecond before.
            let ends = model.ends(now);
            let before = u64::from(dice.one_in(2));
            return Step::Pass(if ends.is_empty() { 1 } else { dice.pick(&ends) - now - before });
        }
        8..12 => return Step::Sweep,
        12..13 => return Step::Save,
        13..15 => return Step::Restart,
        _ => {}
    }
    let flags = dice.roll(256);
    let secret =
        if flags.is_multiple_of(4) { dice.pick(&model.root_key_secrets()) } else { model.an_administrator(flags / 4) };
    let from = if flags % 16 == 1 { dice.roll(3) } else { 0 };
    let etag = match flags % 13 {
        0 => Sent::Wrong,
        1..4 => Sent::Right,
        _ => Sent::Nothing,
    };
    let verb = verb(kind, &mut dice, model, now);
    Step::Call(Call { secret, from, etag, rehearse: flags.is_multiple_of(11), twice: flags.is_multiple_of(7), verb })
}

fn verb(kind: usize, dice: &mut Dice, model: &Model, now: u64) -> Verb {
    let expire = |dice: &mut Dice| if dice.one_in(3) { None } else { Some(now + dice.pick(&SPANS)) };
    let names = |dice: &mut Dice| format!("name {}", dice.roll(3));
    match kind {
        15..21 => {
            let grants = 1 + dice.roll(3);
            let grants = (0..grants).map(|_| dice.pick(&model.grant_texts())).collect();
            Verb::CreateRootKey {
                name: names(dice),
                grants,
                expire: expire(dice),
                net: dice.roll(12).saturating_sub(8),
            }
        }
        21..26 => {
            let patch = RootKeyChange {
                enabled: dice.maybe(3, |dice| dice.one_in(2)),
                grants: dice.maybe(3, |dice| (0..=dice.roll(2)).map(|_| dice.pick(&model.grant_texts())).collect()),
                expire: dice.maybe(3, expire),
                name: dice.maybe(4, names),
                net: dice.maybe(6, |dice| dice.roll(4)),
            };
            Verb::UpdateRootKey { id: dice.pick(&model.root_key_ids()), patch, force: dice.one_in(8) }
        }
        26..30 => {
            let grace = [0, 60 * SECOND, DAY][dice.roll(3)];
            Verb::RotateRootKey { id: dice.pick(&model.root_key_ids()), grace, force: dice.one_in(4) }
        }
        30..32 => {
            Verb::DeleteRootKey { id: dice.pick(&model.root_key_ids()), cascade: dice.one_in(2), force: dice.one_in(8) }
        }
        32 => {
            let mut ids = dice.some(&model.root_key_ids(), 3);
            ids.sort();
            ids.dedup();
            Verb::BatchDelete { ids, force: dice.one_in(8) }
        }
        33 => Verb::GetRootKey { id: dice.pick(&model.root_key_ids()) },
        34..37 => {
            let ttl = dice.maybe(2, |dice| dice.pick(&SPANS));
            Verb::CreateApi { name: names(dice), ttl, protect: dice.one_in(5), net: dice.roll(9).saturating_sub(5) }
        }
        37..39 => Verb::UpdateApi {
            id: dice.pick(&model.api_ids()),
            name: dice.maybe(2, names),
            protect: dice.maybe(2, |dice| dice.one_in(3)),
            ttl: dice.maybe(3, |dice| dice.maybe(2, |dice| dice.pick(&SPANS))),
            net: dice.maybe(4, |dice| dice.roll(4)),
        },
        39 => Verb::DeleteApi { id: dice.pick(&model.api_ids()) },
        40 => Verb::GetApi { id: dice.pick(&model.api_ids()) },
        41..50 => Verb::CreateKey {
            api: dice.pick(&model.api_ids()),
            roles: dice.some(&model.role_references(), 2),
            permissions: dice.some(&model.permission_references(), 2),
            enabled: !dice.one_in(6),
            life: match dice.roll(3) {
                0 => Life::AsTheApiSays,
                1 => Life::Never,
                _ => Life::Until(now + dice.pick(&SPANS)),
            },
            net: dice.roll(9).saturating_sub(5),
        },
        50..57 => {
            let patch = KeyChange {
                expire: dice.maybe(2, expire),
                enabled: dice.maybe(3, |dice| dice.one_in(2)),
                roles: dice.maybe(3, |dice| dice.some(&model.role_references(), 2)),
                permissions: dice.maybe(3, |dice| dice.some(&model.permission_references(), 2)),
                name: dice.maybe(4, names),
                net: dice.maybe(6, |dice| dice.roll(4)),
            };
            Verb::UpdateKey { id: dice.pick(&model.key_ids()), patch }
        }
        57..61 => Verb::DeleteKey { id: dice.pick(&model.key_ids()), permanent: dice.one_in(4) },
        61..65 => Verb::UndeleteKey { id: dice.pick(&model.key_ids()) },
        65 => Verb::GetKey { id: dice.pick(&model.key_ids()) },
        66 => Verb::LookupKey { secret: dice.pick(&model.key_secrets()) },
        67..72 => {
            let how = [How::Add, How::Remove, How::Set][dice.roll(3)];
            Verb::AssignRoles { id: dice.pick(&model.key_ids()), how, roles: dice.some(&model.role_references(), 3) }
        }
        72..77 => {
            let how = [How::Add, How::Remove, How::Set][dice.roll(3)];
            let permissions = dice.some(&model.permission_references(), 3);
            Verb::AssignPermissions { id: dice.pick(&model.key_ids()), how, permissions }
        }
        77..80 => Verb::Verify {
            secret: dice.pick(&model.key_secrets()),
            query: dice.pick(&QUERIES),
            audience: dice.maybe(4, |dice| dice.pick(&model.api_ids())),
            client: dice.maybe(2, |dice| dice.roll(3)),
        },
        80..83 => {
            let name = dice.pick(&ROLE_NAMES).to_owned();
            Verb::CreateRole { name, permissions: dice.some(&model.permission_references(), 3) }
        }
        83 => Verb::UpdateRole {
            role: dice.pick(&model.role_references()),
            name: dice.maybe(2, |dice| dice.pick(&ROLE_NAMES).to_owned()),
            description: dice.maybe(2, names),
        },
        84..87 => Verb::SetRolePermissions {
            role: dice.pick(&model.role_references()),
            permissions: dice.some(&model.permission_references(), 3),
        },
        87 => Verb::DeleteRole { role: dice.pick(&model.role_references()) },
        88 if dice.one_in(2) => Verb::DeleteRole { role: dice.pick(&model.role_references()) },
        88 => Verb::GetRole { role: dice.pick(&model.role_references()) },
        89..91 => Verb::CreatePermission { slug: dice.pick(&SLUGS).to_owned() },
        91 => Verb::UpdatePermission { permission: dice.pick(&model.permission_references()), name: names(dice) },
        92..94 => Verb::DeletePermission { permission: dice.pick(&model.permission_references()) },
        94 => Verb::GetPermission { permission: dice.pick(&model.permission_references()) },
        95 => Verb::CreateWorkspace { name: names(dice) },
        96..98 => Verb::UpdateWorkspace {
            id: dice.pick(&model.workspace_ids()),
            enabled: dice.maybe(2, |dice| !dice.one_in(2)),
            name: dice.maybe(2, names),
        },
        98 => Verb::DeleteWorkspace { id: dice.pick(&model.workspace_ids()) },
        _ => Verb::GetWorkspace { id: dice.pick(&model.workspace_ids()) },
    }
}
