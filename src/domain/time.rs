//! Moments, lives and spans, in milliseconds.

use std::time::Duration;

use super::Flaw;

/// The last moment that can be named: 9999-12-31T23:59:59.999Z, the end of `google.protobuf.Timestamp`.
const MILLIS_MAX: u64 = 253_402_300_799_999;

/// A moment: milliseconds since 1970-01-01T00:00:00Z, at most the end of the year 9999.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The first moment.
    pub const EPOCH: Self = Self(0);
    /// The last moment.
    pub const LAST: Self = Self(MILLIS_MAX);

    /// The moment that many milliseconds after 1970; past the year 9999 it is refused.
    pub fn from_millis(millis: u64) -> Result<Self, Flaw> {
        if millis > MILLIS_MAX { Err(Flaw::new("must lie between the years 1970 and 9999")) } else { Ok(Self(millis)) }
    }

    /// The moment that many milliseconds after 1970, or the last one.
    pub fn from_millis_saturating(millis: u64) -> Self {
        Self(millis.min(MILLIS_MAX))
    }

    /// Reads what `Display` writes; none if it is spelled otherwise.
    pub fn parse(text: &str) -> Option<Self> {
        let since = humantime::parse_rfc3339(text).ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
        let moment = Self::from_millis(u64::try_from(since.as_millis()).ok()?).ok()?;
        (moment.to_string() == text).then_some(moment)
    }

    /// Milliseconds since 1970.
    pub const fn millis(self) -> u64 {
        self.0
    }

    /// This moment and a span later, or the last moment.
    pub fn after(self, span: Duration) -> Self {
        Self::from_millis_saturating(self.0.saturating_add(u64::try_from(span.as_millis()).unwrap_or(u64::MAX)))
    }

    /// How long from `earlier` to this moment; nothing if it lies before.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl std::fmt::Display for Timestamp {
    /// RFC 3339 in UTC, with milliseconds: `2026-01-31T12:00:00.000Z`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        humantime::format_rfc3339_millis(std::time::UNIX_EPOCH + Duration::from_millis(self.0)).fmt(f)
    }
}

/// When something stops being good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expiry {
    /// Not through the passing of time.
    Never,
    /// From this moment on.
    At(Timestamp),
}

impl Expiry {
    /// Whether it is over: from the very millisecond it names. The one place where this boundary stands.
    pub fn has_passed(self, now: Timestamp) -> bool {
        match self {
            Self::Never => false,
            Self::At(moment) => now >= moment,
        }
    }

    /// Whichever comes first.
    pub fn earlier(self, other: Self) -> Self {
        match (self, other) {
            (Self::Never, one) | (one, Self::Never) => one,
            (Self::At(a), Self::At(b)) => Self::At(a.min(b)),
        }
    }

    /// Whether this life reaches further than the other.
    pub fn outlives(self, other: Self) -> bool {
        match (self, other) {
            (_, Self::Never) => false,
            (Self::Never, Self::At(_)) => true,
            (Self::At(a), Self::At(b)) => a > b,
        }
    }

    /// The moment, if there is one.
    pub fn moment(self) -> Option<Timestamp> {
        match self {
            Self::Never => None,
            Self::At(moment) => Some(moment),
        }
    }
}

impl From<Option<Timestamp>> for Expiry {
    fn from(moment: Option<Timestamp>) -> Self {
        moment.map_or(Self::Never, Self::At)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis_saturating(millis)
    }

    #[test]
    fn a_life_is_over_from_the_millisecond_it_names() {
        let expiry = Expiry::At(at(1_000));
        assert!(!expiry.has_passed(at(999)));
        assert!(expiry.has_passed(at(1_000)));
        assert!(expiry.has_passed(at(1_001)));
        assert!(!Expiry::Never.has_passed(Timestamp::LAST));
    }

    #[test]
    fn never_outlives_every_moment_and_nothing_outlives_never() {
        assert!(Expiry::Never.outlives(Expiry::At(Timestamp::LAST)));
        assert!(!Expiry::At(Timestamp::LAST).outlives(Expiry::Never));
        assert!(!Expiry::Never.outlives(Expiry::Never));
        assert!(Expiry::At(at(2)).outlives(Expiry::At(at(1))));
        assert!(!Expiry::At(at(1)).outlives(Expiry::At(at(1))));
    }

    #[test]
    fn moments_end_with_the_year_9999() {
        assert!(Timestamp::from_millis(MILLIS_MAX + 1).is_err());
        assert_eq!(Timestamp::LAST.after(Duration::MAX), Timestamp::LAST);
    }
}
