//! Reading a page of metrics, strictly: a line that is not as OpenMetrics defines it is a failure.

use std::collections::{BTreeMap, BTreeSet};

/// All metrics at one moment.
pub struct Page {
    pub text: String,
    /// The type of each family, by name.
    pub families: BTreeMap<String, String>,
    pub samples: Vec<Sample>,
}

/// One figure.
#[derive(Debug)]
pub struct Sample {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub value: f64,
}

impl Page {
    /// What the text says, if every line of it is right.
    pub fn read(text: String) -> Self {
        let mut page = Self { text: String::new(), families: BTreeMap::new(), samples: Vec::new() };
        let lines = text.strip_suffix("# EOF\n").expect("the last line says that it is the last");
        let mut family = Family::default();
        for line in lines.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').unwrap();
                assert!(is_name(name) && help.ends_with('.'), "{line}");
                family = Family { name: name.to_owned(), ..Family::default() };
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let kind = rest.strip_prefix(&*family.name).and_then(|rest| rest.strip_prefix(' ')).unwrap();
                assert!(["counter", "gauge", "histogram", "info"].contains(&kind), "{line}");
                family.kind = kind.to_owned();
                let before = page.families.insert(family.name.clone(), kind.to_owned());
                assert_eq!(before, None, "{line}: a family comes once");
            } else if let Some(rest) = line.strip_prefix("# UNIT ") {
                let unit = rest.strip_prefix(&*family.name).and_then(|rest| rest.strip_prefix(' ')).unwrap();
                assert!(family.name.ends_with(&format!("_{unit}")), "{line}");
            } else {
                let sample = Sample::read(line);
                assert!(family.has(&sample), "{line} is not of {}", family.name);
                page.samples.push(sample);
            }
        }
        page.check_histograms();
        let lines: BTreeSet<_> = page.samples.iter().map(|sample| (&sample.name, &sample.labels)).collect();
        assert_eq!(lines.len(), page.samples.len(), "no figure is told twice");
        Self { text, ..page }
    }

    /// The figure of this name and these labels.
    pub fn figure(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let fits = |sample: &&Sample| {
            let wanted = labels.iter().all(|(key, value)| sample.labels.get(*key).is_some_and(|label| label == value));
            sample.name == name && wanted && sample.labels.len() == labels.len()
        };
        self.samples.iter().find(fits).map(|sample| sample.value)
    }

    /// All values of a label.
    pub fn values(&self, label: &str) -> BTreeSet<&str> {
        self.samples.iter().filter_map(|sample| sample.labels.get(label)).map(String::as_str).collect()
    }

    /// The buckets of a histogram never fall, and the last one holds all.
    fn check_histograms(&self) {
        let mut last = (String::new(), f64::NEG_INFINITY, 0.0);
        for sample in &self.samples {
            let Some(bound) = sample.labels.get("le") else { continue };
            let bound = if bound == "+Inf" { f64::INFINITY } else { bound.parse().unwrap() };
            let others = sample.labels.iter().filter(|(key, _)| *key != "le");
            let others: Vec<_> = others.map(|(key, value)| (key.as_str(), value.as_str())).collect();
            let of = format!("{} {others:?}", sample.name);
            let first = last.0 != of;
            assert!(first || (last.1 < bound && last.2 <= sample.value), "{sample:?}");
            if bound.is_infinite() {
                let count = sample.name.replace("_bucket", "_count");
                assert_eq!(self.figure(&count, &others), Some(sample.value), "{sample:?}");
            }
            last = (of, bound, sample.value);
        }
    }
}

/// The lines that belong together.
#[derive(Default)]
struct Family {
    name: String,
    kind: String,
}

impl Family {
    fn has(&self, sample: &Sample) -> bool {
        let Some(suffix) = sample.name.strip_prefix(&self.name) else { return false };
        let fit: &[&str] = match self.kind.as_str() {
            "counter" => &["_total"],
            "gauge" => &[""],
            "histogram" => &["_bucket", "_count", "_sum"],
            "info" => &["_info"],
            _ => &[],
        };
        fit.contains(&suffix) && (suffix == "_bucket") == sample.labels.contains_key("le")
    }
}

impl Sample {
    fn read(line: &str) -> Self {
        let (what, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line}"));
        let (name, labels) = match what.split_once('{') {
            Some((name, rest)) => (name, rest.strip_suffix('}').unwrap_or_else(|| panic!("{line}"))),
            None => (what, ""),
        };
        assert!(is_name(name) && name.starts_with("ostiary_"), "{line}");
        let mut read = BTreeMap::new();
        for label in labels.split(',').filter(|label| !label.is_empty()) {
            let (key, value) = label.split_once('=').unwrap_or_else(|| panic!("{line}"));
            let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap();
            assert!(is_name(key) && !value.contains(['"', '\\']), "{line}");
            assert_eq!(read.insert(key.to_owned(), value.to_owned()), None, "{line}");
        }
        let value: f64 = value.parse().unwrap_or_else(|_| panic!("{line}"));
        assert!(value.is_finite() && value >= 0.0, "{line}");
        Self { name: name.to_owned(), labels: read, value }
    }
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
}
