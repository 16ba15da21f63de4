//! What each method needs, as its proto declares it.

use crate::domain::capability::Capability;

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
    /// The permission as the proto spells it.
    pub permission: &'static str,
    /// The method's path.
    pub path: &'static str,
}

/// Every method of ostiary by path, in order: made from the option that each carries in the proto.
static POLICIES: &[(&str, Policy)] = include!(concat!(env!("OUT_DIR"), "/policies.rs"));

/// Services that can't carry the option. They tell nothing that needs a root key.
const OPEN_SERVICES: [&str; 3] =
    ["/grpc.health.v1.Health/", "/grpc.reflection.v1.ServerReflection/", "/grpc.reflection.v1alpha.ServerReflection/"];

/// Who gets to a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// Whoever meets the policy.
    Guarded(Policy),
    /// Everybody.
    Open,
    /// Nobody: there is no such method.
    Missing,
}

/// Who gets to this path.
pub fn door(path: &str) -> Door {
    if let Ok(found) = POLICIES.binary_search_by(|(known, _)| (*known).cmp(path)) {
        Door::Guarded(POLICIES[found].1)
    } else if OPEN_SERVICES.iter().any(|service| path.starts_with(service)) {
        Door::Open
    } else {
        Door::Missing
    }
}
