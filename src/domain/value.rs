//! Free-form data: what a caller attaches to a key, and what the audit log says of a change.

use std::collections::BTreeMap;

use super::Flaw;

/// Levels of maps and lists that metadata may nest.
pub const METADATA_LEVELS_MAX: usize = 32;
/// Bytes that metadata may take, encoded.
pub const METADATA_BYTES_MAX: usize = 64 * 1024;

/// A value as JSON knows it.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Nothing.
    Null,
    /// Yes or no.
    Bool(bool),
    /// A number.
    Number(f64),
    /// Text.
    Text(String),
    /// Values in order.
    List(Vec<Value>),
    /// Values by name.
    Map(Facts),
}

/// Values by name.
pub type Facts = BTreeMap<String, Value>;

impl Value {
    /// How many levels of maps and lists there are, the value's own included.
    fn levels(&self) -> usize {
        match self {
            Self::Null | Self::Bool(_) | Self::Number(_) | Self::Text(_) => 0,
            Self::List(values) => 1 + values.iter().map(Self::levels).max().unwrap_or(0),
            Self::Map(facts) => levels(facts),
        }
    }

    fn is_finite(&self) -> bool {
        match self {
            Self::Null | Self::Bool(_) | Self::Text(_) => true,
            Self::Number(number) => number.is_finite(),
            Self::List(values) => values.iter().all(Self::is_finite),
            Self::Map(facts) => facts.values().all(Self::is_finite),
        }
    }
}

fn levels(facts: &Facts) -> usize {
    1 + facts.values().map(Value::levels).max().unwrap_or(0)
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<bool> for Value {
    fn from(truth: bool) -> Self {
        Self::Bool(truth)
    }
}

impl<V: Into<Value>> FromIterator<V> for Value {
    fn from_iter<I: IntoIterator<Item = V>>(values: I) -> Self {
        Self::List(values.into_iter().map(Into::into).collect())
    }
}

/// What a developer keeps beside a key: at most [`METADATA_LEVELS_MAX`] levels deep, with finite numbers.
///
/// The bound on its encoded size is checked where it is decoded.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Metadata(Facts);

impl Metadata {
    /// Takes the values if they are not nested too deeply and every number is finite.
    pub fn new(facts: Facts) -> Result<Self, Flaw> {
        if levels(&facts) > METADATA_LEVELS_MAX {
            return Err(Flaw::new(format!("must nest at most {METADATA_LEVELS_MAX} levels")));
        }
        if !facts.values().all(Value::is_finite) {
            return Err(Flaw::new("must hold finite numbers only"));
        }
        Ok(Self(facts))
    }

    /// The names of values that are not the same in the other, in order.
    pub fn differing<'a>(&'a self, other: &'a Self) -> Vec<&'a str> {
        let names: std::collections::BTreeSet<&str> = self.0.keys().chain(other.0.keys()).map(String::as_str).collect();
        names.into_iter().filter(|name| self.0.get(*name) != other.0.get(*name)).collect()
    }

    /// The values.
    pub fn facts(&self) -> &Facts {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nested(levels: usize) -> Facts {
        (1..levels).fold(Facts::new(), |inner, _| Facts::from([("a".to_owned(), Value::Map(inner))]))
    }

    #[test]
    fn metadata_nests_at_most_32_levels() {
        assert!(Metadata::new(nested(METADATA_LEVELS_MAX)).is_ok());
        assert!(Metadata::new(nested(METADATA_LEVELS_MAX + 1)).is_err());
    }

    #[test]
    fn metadata_holds_finite_numbers() {
        for number in [f64::NAN, f64::INFINITY] {
            assert!(Metadata::new(Facts::from([("a".to_owned(), Value::List(vec![Value::Number(number)]))])).is_err());
        }
    }
}
