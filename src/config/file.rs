//! The file of the configuration: TOML, whose keys are the flags of `serve` without their dashes.

use std::path::{Path, PathBuf};

use clap::{Arg, ArgAction, Command};
use toml::{Table, Value};

/// Flags that may be given more than once, or whose one value is a list.
const LISTS: [&str; 3] = ["listen", "trusted-proxies", "grpc-web-origins"];
/// The flag that says where the file is.
const NOT_IN_IT: &str = "config";
/// How alike a key must be to one that there is for that to be suggested.
const ALIKE: f64 = 0.7;

/// What a file says.
#[derive(Debug, Default)]
pub struct Said {
    /// Which.
    pub path: PathBuf,
    /// Each key with its values as they would stand in a command line.
    pub values: Vec<(String, Vec<String>)>,
}

/// Reads a file, whose keys must be flags of this command and whose values must be fit for them.
///
/// # Errors
/// A sentence that names the file, the key and what is wrong with it.
pub fn read(path: &Path, command: &Command) -> Result<Said, String> {
    let shown = path.display();
    let text = std::fs::read_to_string(path).map_err(|error| format!("{shown}: can't be read: {error}"))?;
    let table: Table = text.parse().map_err(|error| format!("{shown}: {}", syntax(&text, &error)))?;
    let mut said = Said { path: path.to_owned(), values: Vec::new() };
    for (key, value) in table {
        let flag = flags(command).find(|flag| flag.get_long() == Some(&key)).ok_or_else(|| {
            let meant = nearest(command, &key).map(|near| format!("; did you mean {near}?")).unwrap_or_default();
            format!("{shown}: there is no key {key}{meant}")
        })?;
        let values = texts(flag, value).map_err(|why| format!("{shown}: {key}: {why}"))?;
        for value in &values {
            check(flag, value).map_err(|why| format!("{shown}: {key}: {why}"))?;
        }
        said.values.push((key, values));
    }
    Ok(said)
}

/// The flags that a file or a variable may give a value.
pub fn flags(command: &Command) -> impl Iterator<Item = &Arg> {
    command.get_arguments().filter(|flag| flag.get_long().is_some_and(|long| long != NOT_IN_IT && long != "help"))
}

/// Whether it is given without a value.
pub fn is_switch(flag: &Arg) -> bool {
    matches!(flag.get_action(), ArgAction::SetTrue)
}

/// Whether it may have more than one.
pub fn is_list(flag: &Arg) -> bool {
    flag.get_long().is_some_and(|long| LISTS.contains(&long))
}

/// What is wrong with a value, if anything is.
///
/// # Errors
/// What it must be.
pub fn check(flag: &Arg, value: &str) -> Result<(), String> {
    if is_switch(flag) {
        return match value {
            "true" | "false" => Ok(()),
            _ => Err(format!("{value:?} must be true or false")),
        };
    }
    let long = flag.get_long().unwrap_or_default();
    let alone = Command::new("ostiary").no_binary_name(true).arg(flag.clone().env(None).default_values([""; 0]));
    match alone.try_get_matches_from([format!("--{long}={value}")]) {
        Ok(_) => Ok(()),
        Err(error) => Err(format!("{value:?}: {}", reason(flag, &error))),
    }
}

fn reason(flag: &Arg, error: &clap::Error) -> String {
    let choices: Vec<_> = flag.get_possible_values().iter().map(|choice| choice.get_name().to_owned()).collect();
    match std::error::Error::source(error) {
        _ if !choices.is_empty() => format!("must be one of {}", choices.join(", ")),
        Some(why) => why.to_string(),
        None => "is not fit for it".to_owned(),
    }
}

/// The values as they would stand in a command line.
fn texts(flag: &Arg, value: Value) -> Result<Vec<String>, String> {
    match value {
        Value::Array(values) if is_list(flag) => {
            let texts = values.into_iter().map(text).collect::<Result<Vec<_>, _>>()?;
            if texts.is_empty() {
                return Err("must have one value at least; leave the key out for the default".to_owned());
            }
            // One flag splits them itself, the other is one value.
            Ok(vec![texts.join(",")])
        }
        Value::Boolean(on) if is_switch(flag) => Ok(vec![on.to_string()]),
        _ if is_switch(flag) => Err("must be true or false".to_owned()),
        value => Ok(vec![text(value)?]),
    }
}

fn text(value: Value) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text),
        Value::Integer(number) => Ok(number.to_string()),
        Value::Boolean(_) | Value::Float(_) | Value::Datetime(_) | Value::Array(_) | Value::Table(_) => {
            Err(format!("must be a text or a whole number, not of the type {}", value.type_str()))
        }
    }
}

/// What is wrong with a text that is no TOML, and in which line.
fn syntax(text: &str, error: &toml::de::Error) -> String {
    let line = error.span().map(|span| text.bytes().take(span.start).filter(|byte| *byte == b'\n').count() + 1);
    line.map_or_else(|| error.message().to_owned(), |line| format!("line {line}: {}", error.message()))
}

/// The key that was probably meant.
fn nearest<'a>(command: &'a Command, key: &str) -> Option<&'a str> {
    let alike = flags(command).filter_map(Arg::get_long).map(|known| (strsim::jaro_winkler(known, key), known));
    let (likeness, known) = alike.max_by(|one, other| one.0.total_cmp(&other.0))?;
    (likeness >= ALIKE).then_some(known)
}
