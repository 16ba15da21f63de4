//! How long calls take, by method and code: as many of either as there are, whatever callers make up.

use std::time::Duration;

use tonic::Code;

use crate::metrics::{Distribution, Durations};

use super::policy;

/// The codes of gRPC by number.
const CODES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// How long calls have taken, until their answers began.
pub struct Timings(Durations);

/// How long calls of one method have taken that were answered with one code.
#[derive(Debug)]
pub struct Timing {
    /// The method, or what stands for all that are none.
    pub method: &'static str,
    /// The code.
    pub code: &'static str,
    /// How long they took.
    pub took: Distribution,
}

impl Default for Timings {
    fn default() -> Self {
        Self(Durations::new(policy::names().count() * CODES.len()))
    }
}

impl Timings {
    /// Counts a call. Its method has this place among [`policy::names`].
    pub fn add(&self, name: usize, code: Code, took: Duration) {
        self.0.add(name * CODES.len() + code as usize, took);
    }

    /// Those that have been counted.
    pub fn read(&self) -> Vec<Timing> {
        let names: Vec<_> = policy::names().collect();
        let timing = |(kind, took)| Timing { method: names[kind / CODES.len()], code: CODES[kind % CODES.len()], took };
        self.0.read().into_iter().map(timing).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_counted_under_its_own_name() {
        let timings = Timings::default();
        for (number, name) in CODES.iter().enumerate() {
            let code = Code::from_i32(i32::try_from(number).unwrap());
            let spelled: String = format!("{code:?}").to_uppercase();
            assert_eq!(name.replace('_', ""), spelled);
            timings.add(number, code, Duration::ZERO);
        }
        let read = timings.read();
        assert_eq!(read.iter().map(|timing| timing.code).collect::<Vec<_>>(), CODES);
        assert!(
            read.iter().zip(policy::names()).all(|(timing, name)| timing.method == name && timing.took.count() == 1)
        );
    }
}
