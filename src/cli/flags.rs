//! Flags that several commands have, and how their values are written.

use std::time::Duration;

use clap::Args;
use prost_types::{Struct, Timestamp};

use crate::world::World;

use super::failure::Failure;
use super::json;
use super::output::Output;
use super::prompt::Consent;

/// The shortest that anything is waited for.
const PATIENCE_MIN: Duration = Duration::from_millis(1);
/// The longest that anything is waited for.
const PATIENCE_MAX: Duration = Duration::from_secs(3_600);

/// The longest span that protobuf knows.
const SPAN_MAX: Duration = Duration::from_secs(315_576_000_000);

/// When something new stops working.
#[derive(Debug, Clone, Args)]
#[group(multiple = false)]
pub struct NewLife {
    /// It works for this long from now on, such as 90d or 12h.
    #[arg(long, value_name = "DURATION", value_parser = span)]
    pub expires_in: Option<prost_types::Duration>,

    /// It works until this time, such as 2027-01-31T12:00:00Z.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub expires_at: Option<Timestamp>,
}

/// When something stops working from now on.
#[derive(Debug, Clone, Args)]
#[group(multiple = false)]
pub struct ChangedLife {
    /// It works for this long from now on, such as 90d or 12h, by the clock of this machine.
    #[arg(long, value_name = "DURATION", value_parser = span)]
    expires_in: Option<prost_types::Duration>,

    /// It works until this time, such as 2027-01-31T12:00:00Z.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    expires_at: Option<Timestamp>,

    /// It never expires.
    #[arg(long)]
    never_expires: bool,
}

impl ChangedLife {
    /// What to set, and whether to change it at all.
    pub fn change(&self, mask: &mut Mask, world: &World) -> Result<Option<Timestamp>, Failure> {
        let Self { expires_in, expires_at, never_expires } = self;
        let at = match expires_in {
            Some(span) => Some(from_now(*span, world)?),
            None => *expires_at,
        };
        mask.add("expire_time", at.is_some() || *never_expires);
        Ok(at)
    }
}

fn from_now(span: prost_types::Duration, world: &World) -> Result<Timestamp, Failure> {
    let span = Duration::try_from(span).map_err(|error| Failure::Broken(error.to_string()))?;
    Ok(on_the_wire(world.now().after(span).millis()))
}

/// That many milliseconds after 1970.
fn on_the_wire(millis: u64) -> Timestamp {
    let nanos = (millis % 1_000) as i32 * 1_000_000;
    Timestamp { seconds: (millis / 1_000).cast_signed(), nanos }
}

/// The time that lies so far back.
pub fn ago(span: Duration, world: &World) -> Timestamp {
    on_the_wire(world.now().millis().saturating_sub(u64::try_from(span.as_millis()).unwrap_or(u64::MAX)))
}

/// From where something may be used.
#[derive(Debug, Clone, Args)]
pub struct ChangedNetworks {
    /// A network or address from which it may be used, such as 192.0.2.0/24. May be given more than once; all that it is
    /// to have must be given.
    #[arg(long = "allowed-cidr", value_name = "NETWORK")]
    allowed_cidrs: Vec<String>,

    /// It may be used from anywhere.
    #[arg(long, conflicts_with = "allowed_cidrs")]
    any_address: bool,
}

impl ChangedNetworks {
    /// What to set, and whether to change it at all.
    pub fn change(&self, mask: &mut Mask) -> Vec<String> {
        mask.add("allowed_cidrs", self.any_address || !self.allowed_cidrs.is_empty());
        self.allowed_cidrs.clone()
    }
}

/// Which fields an update changes.
#[derive(Debug, Default)]
pub struct Mask(Vec<String>);

impl Mask {
    /// Names a field, if it is to be changed.
    pub fn add(&mut self, path: &str, changes: bool) {
        if changes {
            self.0.push(path.to_owned());
        }
    }

    /// All of them. There must be one.
    pub fn named(self) -> Result<Option<prost_types::FieldMask>, Failure> {
        if self.0.is_empty() {
            return Err(Failure::Misused("nothing to change: give at least one flag for what is to be new".to_owned()));
        }
        Ok(Some(prost_types::FieldMask { paths: self.0 }))
    }
}

/// Whether to do it at all.
#[derive(Debug, Clone, Copy, Args)]
pub struct Trial {
    /// Run every check, change nothing, and tell what would happen.
    #[arg(long)]
    pub dry_run: bool,
}

impl Trial {
    /// Says that nothing was done, if so, else what was.
    pub fn tell(self, output: Output, done: &str) {
        output.note(if self.dry_run { "dry run: nothing was changed" } else { done });
    }

    /// Says that nothing was done, if so.
    pub fn remind(self, output: Output) {
        if self.dry_run {
            output.note("dry run: nothing was changed");
        }
    }
}

/// Under which conditions to change something.
#[derive(Debug, Clone, Args)]
pub struct Terms {
    /// Only if its etag is still this, which `show` tells. Else it is a conflict.
    #[arg(long, default_value = "", hide_default_value = true)]
    pub etag: String,

    #[command(flatten)]
    pub trial: Trial,
}

/// Under which conditions to delete something.
#[derive(Debug, Clone, Args)]
pub struct Removal {
    #[command(flatten)]
    pub terms: Terms,

    #[command(flatten)]
    pub consent: Consent,
}

impl Removal {
    /// Asks, unless that was answered in advance or nothing is going to be deleted.
    pub fn ask(&self, question: &str) -> Result<(), Failure> {
        if self.terms.trial.dry_run { Ok(()) } else { self.consent.ask(question) }
    }
}

/// A span such as `90d`, `1h 30m` or `0`.
pub fn span(text: &str) -> Result<prost_types::Duration, String> {
    let span = std_span(text)?;
    let fit = span <= SPAN_MAX;
    span.try_into().ok().filter(|_| fit).ok_or_else(|| "must be at most 10000 years".to_owned())
}

/// A span as it is measured here.
pub fn std_span(text: &str) -> Result<Duration, String> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    humantime::parse_duration(text).map_err(|error| format!("{error}; write it like 90d, 12h, 15m or 30s"))
}

/// How long to wait: 1ms to 1h.
pub fn patience(text: &str) -> Result<Duration, String> {
    let span = std_span(text)?;
    if (PATIENCE_MIN..=PATIENCE_MAX).contains(&span) { Ok(span) } else { Err("must be 1ms to 1h".to_owned()) }
}

/// A time as in RFC 3339.
pub fn moment(text: &str) -> Result<Timestamp, String> {
    text.parse().map_err(|_| "must be a time such as 2027-01-31T12:00:00Z".to_owned())
}

/// A JSON object, or `@` and the path of a file that holds one.
pub fn metadata(text: &str) -> Result<Struct, String> {
    let from_file = match text.strip_prefix('@') {
        Some(path) => Some(std::fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?),
        None => None,
    };
    json::read_object(from_file.as_deref().unwrap_or(text)).map_err(|flaw| format!("must be a JSON object: {flaw}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_written_as_people_do() {
        for (text, seconds) in [("0", 0), ("1m", 60), ("15m", 900), ("24h", 86_400), ("30d", 2_592_000)] {
            assert_eq!(span(text), Ok(prost_types::Duration { seconds, nanos: 0 }), "{text}");
        }
        for text in ["", "soon", "-1h", "1"] {
            assert!(span(text).is_err(), "{text}");
        }
        assert!(span("99999999y").unwrap_err().contains("10000 years"));
    }

    #[test]
    fn times_name_their_zone() {
        assert_eq!(moment("1970-01-01T01:00:00+01:00"), Ok(Timestamp::default()));
        assert!(moment("tomorrow").is_err());
    }

    #[test]
    fn metadata_is_an_object() {
        assert_eq!(metadata(r#"{"plan": "pro"}"#).unwrap().fields.len(), 1);
        assert!(metadata("[]").unwrap_err().contains("JSON object"));
        assert!(metadata("@/nowhere/at/all").unwrap_err().contains("/nowhere/at/all"));
    }
}
