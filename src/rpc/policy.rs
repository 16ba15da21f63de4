//! What each method needs, as its proto declares it.

use crate::domain::capability::Capability;

use super::arriving::Messages;

/// What a caller needs to call a method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// A valid root key, whatever it holds.
    AnyRootKey,
    /// This capability, for some object at least; for which one is checked where the effect is.
    Capability(Capability),
}

/// What a method does to the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// It reads.
    Read,
    /// It may change something.
    Change,
    /// It answers whether a key is good.
    Verify,
    /// It counts something.
    Count,
}

/// The policy of one method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// What its caller needs.
    pub need: Need,
    /// What it does.
    pub effect: Effect,
    /// What a request consists of.
    pub messages: Messages,
    /// The permission as the proto spells it.
    pub permission: &'static str,
    /// The method's path.
    pub path: &'static str,
    /// Its place in the order of all paths.
    pub number: usize,
}

/// Every method of ostiary by path, in order: made from the option that each carries in the proto.
static POLICIES: &[(&str, Policy)] = include!(concat!(env!("OUT_DIR"), "/policies.rs"));

/// What Envoy's question needs, which can't carry the option: the same as `VerifyKey`.
static CHECK: Policy = Policy {
    need: Need::Capability(Capability::VerifyKey),
    effect: Effect::Verify,
    messages: Messages::One,
    permission: "apis.{api_id}.verify_key",
    path: "/envoy.service.auth.v3.Authorization/Check",
    number: POLICIES.len(),
};

/// Services that can't carry the option either. They tell nothing that needs a root key.
const OPEN_SERVICES: [&str; 3] =
    [HEALTH, "/grpc.reflection.v1.ServerReflection/", "/grpc.reflection.v1alpha.ServerReflection/"];

/// The first of them, and its method that is answered at once.
const HEALTH: &str = "/grpc.health.v1.Health/";
const HEALTH_CHECK: &str = "/grpc.health.v1.Health/Check";
/// Their methods.
const OPEN_METHODS: [&str; 4] = [
    HEALTH_CHECK,
    "/grpc.health.v1.Health/Watch",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
];
/// What stands for all paths that are no method's, which callers make up.
const OTHER: &str = "other";

/// Who gets to a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// Whoever meets the policy.
    Guarded(Policy),
    /// Everybody.
    Open {
        /// What a request consists of.
        messages: Messages,
        /// Whether the answer may go on for long.
        lasts: bool,
    },
    /// Nobody: there is no such method.
    Missing,
}

/// Who gets to this path.
pub fn door(path: &str) -> Door {
    if let Ok(found) = POLICIES.binary_search_by(|(known, _)| (*known).cmp(path)) {
        Door::Guarded(POLICIES[found].1)
    } else if path == CHECK.path {
        Door::Guarded(CHECK)
    } else if OPEN_SERVICES.iter().any(|service| path.starts_with(service)) {
        let messages = if path.starts_with(HEALTH) { Messages::One } else { Messages::Many };
        Door::Open { messages, lasts: path != HEALTH_CHECK }
    } else {
        Door::Missing
    }
}

/// What calls are counted under: of few names, whatever callers make up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Name {
    /// Which of [`names`].
    pub number: usize,
    /// As it stands there.
    pub text: &'static str,
}

impl Door {
    /// What a request consists of.
    pub fn messages(self) -> Messages {
        match self {
            Self::Guarded(Policy { messages, .. }) | Self::Open { messages, .. } => messages,
            Self::Missing => Messages::One,
        }
    }

    /// Whether everybody gets there.
    pub fn is_open(self) -> bool {
        matches!(self, Self::Open { .. })
    }

    /// What a call of this path is counted under.
    pub fn name_of(self, path: &str) -> Name {
        let (number, path) = match self {
            Self::Guarded(policy) => (policy.number, policy.path),
            Self::Open { .. } | Self::Missing => {
                let open = OPEN_METHODS.iter().position(|known| *known == path).unwrap_or(OPEN_METHODS.len());
                (POLICIES.len() + 1 + open, OPEN_METHODS.get(open).copied().unwrap_or(OTHER))
            }
        };
        Name { number, text: path.trim_start_matches('/') }
    }
}

/// The names that calls are counted under: all methods as gRPC spells them, and one for everything else.
pub fn names() -> impl Iterator<Item = &'static str> {
    let methods = POLICIES.iter().map(|(path, _)| *path).chain([CHECK.path]).chain(OPEN_METHODS);
    methods.map(|path| path.trim_start_matches('/')).chain([OTHER])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_is_counted_under_its_own_name_and_made_up_ones_under_one() {
        let names: Vec<_> = names().collect();
        let name = |path: &str| {
            let Name { number, text } = door(path).name_of(path);
            assert_eq!(names[number], text);
            text
        };
        for method in names.iter().filter(|name| **name != OTHER) {
            assert_eq!(name(&format!("/{method}")), *method);
        }
        for made_up in ["", "/", "/ostiary.v1.KeyService/Nothing", "/grpc.health.v1.Health/Nothing"] {
            assert_eq!(name(made_up), OTHER, "{made_up}");
        }
    }
}
