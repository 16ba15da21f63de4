//! What can be done, and how raw numbers become it, read against the model as it is.

use super::naive::{DAY, Model};

/// The numbers of one step.
pub type Raw = [u16; 8];

pub const LIMIT_NAMES: [&str; 2] = ["calls", "exports"];
pub const OWNERS: [&str; 2] = ["ada", "bob"];
pub const NAMESPACES: [&str; 3] = ["sign-in", "uploads", "entry"];
const IDENTIFIERS: [&str; 3] = ["ua", "ub", "x1"];
const PATTERNS: [&str; 6] = ["*", "u*", "ua", "u?", "x1", "?1"];
const IMPORTED: [&str; 3] = ["from elsewhere 1", "from elsewhere 2", "sk_from_elsewhere"];
const SPANS: [u64; 4] = [1_000, 60_000, 3_600_000, DAY];
const PAUSES: [u64; 9] = [1, 500, 999, 30_000, 60_000, 3_600_000, DAY, 10 * DAY, 31 * DAY];

/// A limit of a key or an identity.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Lim {
    pub name: &'static str,
    pub limit: u64,
    pub span: u64,
    pub auto: bool,
}

/// To how much, and on which day of the month; none is every day.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Refill {
    pub amount: u64,
    pub day: Option<u64>,
}

#[derive(Debug, Clone)]
pub struct Wanted {
    pub credits: Option<(u64, Option<Refill>)>,
    pub limits: Vec<Lim>,
    pub owner: Option<&'static str>,
    pub end: Option<u64>,
    /// Whether it is to hold the role.
    pub holds: bool,
}

#[derive(Debug, Clone, Copy)]
pub enum Deposit {
    Set(Option<u64>),
    Add(u64),
    Take(u64),
}

/// A limit that a verification names: which, the cost, and a rate that it brings along.
pub type Named = (&'static str, u64, Option<(u64, u64)>);

#[derive(Debug, Clone)]
pub struct Asked {
    pub secret: String,
    pub cost: u64,
    pub named: Vec<Named>,
    pub dry: bool,
}

#[derive(Debug, Clone)]
pub enum Step {
    Pass(u64),
    Sweep,
    Restart,
    CreateApi {
        ttl: Option<u64>,
    },
    DeleteApi {
        api: String,
    },
    Create {
        api: String,
        wanted: Wanted,
        imported: Option<&'static str>,
    },
    Update {
        key: String,
        enabled: Option<bool>,
        end: Option<Option<u64>>,
        owner: Option<Option<&'static str>>,
        limits: Option<Vec<Lim>>,
    },
    SetCredits {
        key: String,
        credits: Option<(u64, Option<Refill>)>,
    },
    Adjust {
        key: String,
        deposit: Deposit,
    },
    Verify(Asked),
    Batch(Vec<Asked>),
    Stream(Asked),
    Reroll {
        key: String,
        grace: u64,
    },
    Revoke {
        api: Option<String>,
        owner: Option<&'static str>,
        holder: bool,
        since: Option<u64>,
        before: Option<u64>,
        rehearse: bool,
    },
    Delete {
        key: String,
    },
    Undelete {
        key: String,
    },
    CreateIdentity {
        name: &'static str,
        limits: Vec<Lim>,
    },
    UpdateIdentity {
        name: &'static str,
        limits: Vec<Lim>,
    },
    DeleteIdentity {
        name: &'static str,
    },
    /// Identifier, limit, span and cost of each.
    Limit {
        namespace: &'static str,
        items: Vec<(&'static str, u64, u64, u64)>,
    },
    SetOverride {
        namespace: &'static str,
        pattern: &'static str,
        limit: u64,
        span: u64,
    },
    DeleteOverride {
        namespace: &'static str,
        pattern: &'static str,
    },
    Reset {
        namespace: &'static str,
        identifier: &'static str,
    },
    CreateNamespace {
        namespace: &'static str,
    },
    RenameNamespace {
        namespace: &'static str,
        to: &'static str,
    },
    DeleteNamespace {
        namespace: &'static str,
    },
}

/// The numbers of a step, taken one after another.
struct Dice(Raw, usize);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        let round = u32::try_from(self.1 / self.0.len()).unwrap();
        let number = self.0[self.1 % self.0.len()].rotate_left(5 * round);
        self.1 += 1;
        usize::from(number) % sides.max(1)
    }
    fn number(&mut self, sides: usize) -> u64 {
        self.roll(sides) as u64
    }
    fn one_in(&mut self, sides: usize) -> bool {
        self.roll(sides) == sides - 1
    }
    fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.roll(from.len())].clone()
    }
    fn maybe<T>(&mut self, sides: usize, make: impl FnOnce(&mut Self) -> T) -> Option<T> {
        if self.one_in(sides) { Some(make(self)) } else { None }
    }
    fn credits(&mut self) -> (u64, Option<Refill>) {
        let left = [0, 1, 3, 10, 250][self.roll(5)];
        let refill = self.maybe(2, |dice| Refill {
            amount: 1 + dice.number(12),
            day: dice.maybe(2, |dice| [1, 15, 29, 31][dice.roll(4)]),
        });
        (left, refill)
    }
    /// Some limits, each name once, in the order of the names.
    fn limits(&mut self) -> Vec<Lim> {
        let mut limits = Vec::new();
        for name in LIMIT_NAMES {
            if self.one_in(2) {
                limits.push(Lim { name, limit: 1 + self.number(6), span: self.pick(&SPANS), auto: !self.one_in(3) });
            }
        }
        limits
    }
    fn asked(&mut self, model: &Model) -> Asked {
        // Most often one of the newest, so that sequences have a subject.
        let secrets: Vec<String> = model.keys.iter().rev().map(|key| key.secret.clone()).collect();
        let among = if self.one_in(3) { secrets.len() } else { secrets.len().min(2) };
        let secret = secrets.get(self.roll(among)).cloned().unwrap_or_else(|| "nobody's".to_owned());
        let mut named = Vec::new();
        for name in LIMIT_NAMES {
            if self.one_in(4) {
                let inline = self.maybe(2, |dice| (1 + dice.number(4), dice.pick(&SPANS)));
                named.push((name, self.number(4), inline));
            }
        }
        Asked { secret, cost: [1, 1, 1, 0, 2, 5][self.roll(6)], named, dry: self.one_in(8) }
    }
}

/// The step that the numbers stand for, as things are.
pub fn read(raw: Raw, model: &Model, now: u64) -> Step {
    let mut dice = Dice(raw, 0);
    let kind = dice.roll(100);
    let keys: Vec<String> = model.keys.iter().map(|key| key.id.clone()).collect();
    let a_key = |dice: &mut Dice| match keys.len() {
        0 => "key_00000000000000000000000000".to_owned(),
        _ => dice.pick(&keys),
    };
    let apis: Vec<String> = model.apis.iter().map(|(id, _)| id.clone()).collect();
    let an_api = |dice: &mut Dice| match apis.len() {
        0 => "api_00000000000000000000000000".to_owned(),
        _ => dice.pick(&apis),
    };
    match kind {
        0..6 => Step::Pass(dice.pick(&PAUSES)),
        6..9 => {
            // To a midnight, or to the millisecond before.
            let before = u64::from(dice.one_in(2));
            Step::Pass(DAY - now % DAY - before)
        }
        9..12 => Step::Sweep,
        12..14 => Step::Restart,
        14 => Step::CreateApi { ttl: dice.maybe(2, |dice| 2 * dice.pick(&SPANS)) },
        15 if apis.len() > 1 => Step::DeleteApi { api: an_api(&mut dice) },
        15..24 => {
            let wanted = Wanted {
                credits: dice.maybe(2, Dice::credits),
                limits: dice.limits(),
                owner: dice.maybe(2, |dice| dice.pick(&OWNERS)),
                end: dice.maybe(4, |dice| now + 1_000 + dice.pick(&PAUSES)),
                holds: dice.one_in(3),
            };
            Step::Create { api: an_api(&mut dice), wanted, imported: dice.maybe(3, |dice| dice.pick(&IMPORTED)) }
        }
        24..29 => Step::Update {
            key: a_key(&mut dice),
            enabled: dice.maybe(3, |dice| !dice.one_in(3)),
            end: dice.maybe(4, |dice| dice.maybe(2, |dice| now + 1_000 + dice.pick(&PAUSES))),
            owner: dice.maybe(3, |dice| dice.maybe(2, |dice| dice.pick(&OWNERS))),
            limits: dice.maybe(3, Dice::limits),
        },
        29..32 => Step::SetCredits { key: a_key(&mut dice), credits: dice.maybe(2, Dice::credits) },
        32..36 => {
            let deposit = match dice.roll(4) {
                0 => Deposit::Set(None),
                1 => Deposit::Set(Some(dice.number(6))),
                2 => Deposit::Add(1 + dice.number(5)),
                _ => Deposit::Take(1 + dice.number(5)),
            };
            Step::Adjust { key: a_key(&mut dice), deposit }
        }
        36..58 => Step::Verify(dice.asked(model)),
        58..60 => Step::Batch(vec![dice.asked(model)]),
        60..62 => Step::Stream(dice.asked(model)),
        62..67 => Step::Reroll { key: a_key(&mut dice), grace: [0, 60_000, DAY][dice.roll(3)] },
        67..70 => {
            let api = dice.maybe(2, |dice| an_api(dice));
            let owner = dice.maybe(2, |dice| dice.pick(&OWNERS));
            let before = dice.maybe(3, |dice| now - dice.number(2));
            let since = dice.maybe(4, |dice| now - dice.number(2));
            let empty = api.is_none() && owner.is_none() && before.is_none() && since.is_none();
            Step::Revoke { api, owner, holder: dice.one_in(3) || empty, since, before, rehearse: dice.one_in(3) }
        }
        70..73 => Step::Delete { key: a_key(&mut dice) },
        73..76 => Step::Undelete { key: a_key(&mut dice) },
        76..79 => Step::CreateIdentity { name: dice.pick(&OWNERS), limits: dice.limits() },
        79..82 => Step::UpdateIdentity { name: dice.pick(&OWNERS), limits: dice.limits() },
        82 => Step::DeleteIdentity { name: dice.pick(&OWNERS) },
        83..92 => {
            let namespace = dice.pick(&NAMESPACES);
            let item = |dice: &mut Dice| {
                (dice.pick(&IDENTIFIERS), 1 + dice.number(5), dice.pick(&SPANS), [1, 1, 0, 2][dice.roll(4)])
            };
            Step::Limit { namespace, items: (0..=dice.roll(3)).map(|_| item(&mut dice)).collect() }
        }
        92..95 => Step::SetOverride {
            namespace: dice.pick(&NAMESPACES),
            pattern: dice.pick(&PATTERNS),
            limit: dice.number(5),
            span: dice.pick(&SPANS),
        },
        95..97 => Step::DeleteOverride { namespace: dice.pick(&NAMESPACES), pattern: dice.pick(&PATTERNS) },
        97..99 => Step::Reset { namespace: dice.pick(&NAMESPACES), identifier: dice.pick(&IDENTIFIERS) },
        _ => {
            let (namespace, to) = (dice.pick(&NAMESPACES), dice.pick(&NAMESPACES));
            match dice.roll(3) {
                0 => Step::CreateNamespace { namespace },
                1 => Step::RenameNamespace { namespace, to },
                _ => Step::DeleteNamespace { namespace },
            }
        }
    }
}
