//! Rate limits: how much may happen, and which limits apply to a call.

use std::time::Duration;

use smallvec::SmallVec;

use super::Flaw;
use super::name::Name;

/// How many limits a key or an identity can carry, and how many a verification can name.
pub const LIMITS_MAX: usize = 20;
/// The shortest span of a limit.
pub const SPAN_MIN: Duration = Duration::from_secs(1);
/// The longest span of a limit.
pub const SPAN_MAX: Duration = Duration::from_secs(31 * 24 * 3600);
/// The most that a limit allows, that anything costs, and that a balance holds: every client's number type can hold it.
pub const AMOUNT_MAX: u64 = 1 << 53;

/// How much may happen in any span of a length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rate {
    limit: u64,
    span: Duration,
}

impl Rate {
    /// A rate that lets something through.
    pub fn new(limit: u64, span: Duration) -> Result<Self, Flaw> {
        if limit == 0 { Err(Flaw::new(format!("must be 1 to {AMOUNT_MAX}"))) } else { Self::or_block(limit, span) }
    }

    /// A rate that may be nothing at all, which blocks.
    pub fn or_block(limit: u64, span: Duration) -> Result<Self, Flaw> {
        if limit > AMOUNT_MAX {
            return Err(Flaw::new(format!("must be 0 to {AMOUNT_MAX}")));
        }
        if !(SPAN_MIN..=SPAN_MAX).contains(&span) {
            return Err(Flaw::new(format!("must be {} to {} seconds", SPAN_MIN.as_secs(), SPAN_MAX.as_secs())));
        }
        Ok(Self { limit, span })
    }

    /// How much may happen.
    pub const fn limit(self) -> u64 {
        self.limit
    }

    /// In any span of this length.
    pub const fn span(self) -> Duration {
        self.span
    }
}

/// When a limit applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Application {
    /// To every verification.
    Always,
    /// To those that name it.
    WhenNamed,
}

/// A limit that a key or an identity carries.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Limit {
    /// What it is called; unique where it stands.
    pub name: Name,
    /// How much.
    pub rate: Rate,
    /// When.
    pub application: Application,
}

/// The limits of a key or an identity, ordered by name, each name once.
#[derive(Debug, Clone, PartialEq, Eq, Default, Hash)]
pub struct Limits(Vec<Limit>);

impl Limits {
    /// Takes them if there are not too many and no two have the same name.
    pub fn collect(limits: impl IntoIterator<Item = Limit>) -> Result<Self, Flaw> {
        let mut limits: Vec<Limit> = limits.into_iter().collect();
        if limits.len() > LIMITS_MAX {
            return Err(Flaw::new(format!("must have at most {LIMITS_MAX} entries")));
        }
        limits.sort_by(|a, b| a.name.cmp(&b.name));
        if limits.windows(2).any(|pair| pair[0].name == pair[1].name) {
            return Err(Flaw::new("must have different names"));
        }
        Ok(Self(limits))
    }

    /// In the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = &Limit> {
        self.0.iter()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn named(&self, name: &Name) -> Option<&Limit> {
        self.0.binary_search_by(|limit| limit.name.cmp(name)).ok().map(|found| &self.0[found])
    }
}

/// A limit that a call names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// Which.
    pub name: Name,
    /// How much the call counts.
    pub cost: u64,
    /// A rate that the call brings along, which holds besides a stored one of that name.
    pub inline: Option<Rate>,
}

/// With whom a limit counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Counting {
    /// With the key, in all its generations.
    Key,
    /// With the identity, over all its keys.
    Identity,
}

/// A limit as it applies to a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied<'a> {
    /// What it is called.
    pub name: &'a Name,
    /// With whom it counts.
    pub counting: Counting,
    /// How much may happen.
    pub rate: Rate,
    /// How much the call counts.
    pub cost: u64,
    /// Whether nobody but the call knows of this rate.
    pub inline: bool,
}

/// A call names a limit, the one at this place, that neither the key nor its identity has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoSuchLimit(pub usize);

/// The limits that apply to a verification: nearly always one.
pub type AppliedLimits<'a> = SmallVec<[Applied<'a>; 1]>;

/// Which limits apply to a call, ordered by name, each window once.
///
/// A key's own limit shadows its identity's of the same name. A limit that the call names counts what the call says, one
/// that applies always counts 1 otherwise. An inline rate counts where the stored one of its name does, and holds besides
/// it: within one window the smaller of the two decides.
pub fn applied<'a>(
    key: &'a Limits,
    identity: Option<&'a Limits>,
    named: &'a [Named],
) -> Result<AppliedLimits<'a>, NoSuchLimit> {
    let stored = |name: &Name| {
        let own = key.named(name).map(|limit| (Counting::Key, limit));
        let shared = || identity.and_then(|limits| limits.named(name)).map(|limit| (Counting::Identity, limit));
        own.or_else(shared)
    };
    let mut windows = AppliedLimits::new();
    let mut apply = |name: &'a Name, counting, rate: Rate, cost, inline| {
        let same = |known: &&mut Applied<'a>| known.name == name && known.rate.span() == rate.span();
        match windows.iter_mut().find(same) {
            Some(known) => known.rate.limit = known.rate.limit.min(rate.limit),
            None => windows.push(Applied { name, counting, rate, cost, inline }),
        }
    };
    for (index, Named { name, cost, inline }) in named.iter().enumerate() {
        let found = stored(name);
        if let Some((counting, limit)) = found {
            apply(name, counting, limit.rate, *cost, false);
        }
        match (inline, found) {
            (Some(rate), found) => {
                apply(name, found.map_or(Counting::Key, |(counting, _)| counting), *rate, *cost, true);
            }
            (None, Some(_)) => {}
            (None, None) => return Err(NoSuchLimit(index)),
        }
    }
    let always = |limit: &&Limit| limit.application == Application::Always;
    let own = key.iter().filter(always).map(|limit| (Counting::Key, limit));
    let shared = identity.into_iter().flat_map(Limits::iter).filter(always);
    let shared = shared.filter(|limit| key.named(&limit.name).is_none()).map(|limit| (Counting::Identity, limit));
    for (counting, limit) in own.chain(shared) {
        if !named.iter().any(|named| named.name == limit.name) {
            apply(&limit.name, counting, limit.rate, 1, false);
        }
    }
    if windows.len() > 1 {
        windows.sort_by(|a, b| (a.name, a.rate.span()).cmp(&(b.name, b.rate.span())));
    }
    Ok(windows)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::new(text, super::super::name::LIMIT_NAME).unwrap()
    }

    fn rate(limit: u64, seconds: u64) -> Rate {
        Rate::new(limit, Duration::from_secs(seconds)).unwrap()
    }

    fn limits(limits: &[(&str, u64, u64, Application)]) -> Limits {
        Limits::collect(limits.iter().map(|(text, most, seconds, application)| Limit {
            name: name(text),
            rate: rate(*most, *seconds),
            application: *application,
        }))
        .unwrap()
    }

    fn summary(applied: AppliedLimits<'_>) -> Vec<(String, Counting, u64, u64, u64)> {
        let one = |applied: Applied| {
            let Applied { name, counting, rate, cost, inline: _ } = applied;
            (name.to_string(), counting, rate.limit(), rate.span().as_secs(), cost)
        };
        applied.into_iter().map(one).collect()
    }

    #[test]
    fn a_keys_own_limit_shadows_its_identitys() {
        let key = limits(&[("a", 5, 60, Application::WhenNamed)]);
        let identity = limits(&[("a", 100, 60, Application::Always), ("b", 7, 1, Application::Always)]);
        let all = applied(&key, Some(&identity), &[]).unwrap();
        assert_eq!(summary(all), [("b".to_owned(), Counting::Identity, 7, 1, 1)]);
        let named = [Named { name: name("a"), cost: 3, inline: None }];
        let all = applied(&key, Some(&identity), &named).unwrap();
        let own = ("a".to_owned(), Counting::Key, 5, 60, 3);
        assert_eq!(summary(all), [own, ("b".to_owned(), Counting::Identity, 7, 1, 1)]);
    }

    #[test]
    fn an_inline_rate_tightens_and_never_relaxes() {
        let key = limits(&[("a", 5, 60, Application::WhenNamed)]);
        let with = |limit, seconds| {
            let named = [Named { name: name("a"), cost: 1, inline: Some(rate(limit, seconds)) }];
            summary(applied(&key, None, &named).unwrap())
        };
        assert_eq!(with(2, 60), [("a".to_owned(), Counting::Key, 2, 60, 1)]);
        assert_eq!(with(9, 60), [("a".to_owned(), Counting::Key, 5, 60, 1)]);
        assert_eq!(with(9, 10), [("a".to_owned(), Counting::Key, 9, 10, 1), ("a".to_owned(), Counting::Key, 5, 60, 1)]);
    }

    #[test]
    fn an_inline_rate_counts_where_the_stored_one_does() {
        let identity = limits(&[("a", 5, 60, Application::WhenNamed)]);
        let named = [
            Named { name: name("a"), cost: 1, inline: Some(rate(2, 1)) },
            Named { name: name("b"), cost: 0, inline: Some(rate(2, 1)) },
        ];
        let all = summary(applied(&Limits::default(), Some(&identity), &named).unwrap());
        assert_eq!(
            all,
            [
                ("a".to_owned(), Counting::Identity, 2, 1, 1),
                ("a".to_owned(), Counting::Identity, 5, 60, 1),
                ("b".to_owned(), Counting::Key, 2, 1, 0),
            ]
        );
    }

    #[test]
    fn a_limit_that_nobody_has_is_told_by_its_place() {
        let key = limits(&[("a", 5, 60, Application::Always)]);
        let named =
            [Named { name: name("a"), cost: 1, inline: None }, Named { name: name("b"), cost: 1, inline: None }];
        assert_eq!(applied(&key, None, &named), Err(NoSuchLimit(1)));
    }

    #[test]
    fn limits_have_different_names_and_bounds() {
        let twice =
            ["a", "a"].map(|text| Limit { name: name(text), rate: rate(1, 1), application: Application::Always });
        assert!(Limits::collect(twice).is_err());
        assert!(Rate::new(0, SPAN_MIN).is_err());
        assert!(Rate::or_block(0, SPAN_MIN).is_ok());
        assert!(Rate::new(AMOUNT_MAX + 1, SPAN_MIN).is_err());
        for span in [Duration::from_millis(999), SPAN_MAX + Duration::from_millis(1)] {
            assert!(Rate::new(1, span).is_err(), "{span:?}");
        }
    }
}
