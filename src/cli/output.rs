//! What is written where: answers to standard output, as tables for people or JSON for programs, all else to standard
//! error.

use std::io::{self, Write as _};
use std::time::Duration;

use clap::ValueEnum;
use comfy_table::{Table, presets};
use prost::Name;
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MapKey, ReflectMessage as _, Value};

use super::failure::Failure;
use super::json;

/// The longest text in a cell of a table; of longer ones the beginning is shown.
const CELL_LENGTH_MAX: usize = 60;
/// Stands for what is not there.
const NOTHING: &str = "-";

/// How answers are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Tables and lists for people.
    Table,
    /// One JSON object on one line, as protobuf maps the answer to JSON.
    Json,
}

/// A column of a table: its heading, and the path of its field.
pub type Column = (&'static str, &'static str);

/// Where answers go.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    format: Format,
}

impl Output {
    /// One in this format.
    pub fn new(format: Format) -> Self {
        Self { format }
    }

    /// Whether programs read it.
    pub fn is_json(self) -> bool {
        self.format == Format::Json
    }

    /// The list in a field of an answer.
    pub fn list(self, answer: &impl Name, field: &str, columns: &[Column]) -> Result<(), Failure> {
        let answer = json::described(answer)?;
        if self.is_json() {
            return write(&json::line(&answer)?);
        }
        let items = messages(&answer, field);
        if items.is_empty() {
            note("nothing found");
            return Ok(());
        }
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        table.set_header(columns.iter().map(|(heading, _)| *heading));
        for item in items {
            table.add_row(columns.iter().map(|(_, path)| cell(&text_at(&item, path))));
        }
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        let lines: Vec<String> = table.lines().map(|line| line.trim_end().to_owned()).collect();
        write(&lines.join("\n"))
    }

    /// The object in a field of an answer, field by field.
    pub fn object(self, answer: &impl Name, field: &str) -> Result<(), Failure> {
        let answer = json::described(answer)?;
        if self.is_json() {
            return write(&json::line(&answer)?);
        }
        write(&fields_of(&answer, field))
    }

    /// The answer to a change: all of it for programs, its fields but `meta` for people.
    pub fn whole(self, answer: &impl Name) -> Result<(), Failure> {
        let answer = json::described(answer)?;
        if self.is_json() {
            return write(&json::line(&answer)?);
        }
        let lines = lines_of(&answer, &["meta"]);
        if lines.is_empty() { Ok(()) } else { write(&lines) }
    }

    /// A new secret: alone on standard output, with the object that it belongs to beside it on standard error.
    pub fn secret(self, answer: &impl Name, field: &str, secret: &str) -> Result<(), Failure> {
        let described = json::described(answer)?;
        if self.is_json() {
            return delivered(write(&json::line(&described)?));
        }
        note(&fields_of(&described, field));
        if secret.is_empty() {
            return Ok(());
        }
        note("the secret is on standard output; it is shown this once");
        delivered(write(secret))
    }

    /// For people only: what has happened.
    pub fn note(self, text: &str) {
        if !self.is_json() {
            note(text);
        }
    }
}

/// Writes a line to standard error.
pub fn note(text: &str) {
    // Nothing can be done if even that fails.
    let _ = writeln!(io::stderr(), "{text}");
}

/// Writes a line to standard output.
pub fn write(line: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).map_err(Failure::from)
}

/// A secret that nobody has read is lost, even if it was they who closed the pipe.
fn delivered(written: Result<(), Failure>) -> Result<(), Failure> {
    match written {
        Err(Failure::Unwritable(error)) => Err(Failure::Broken(format!(
            "the secret could not be written and is lost: {error}; rotate or delete its key"
        ))),
        written => written,
    }
}

fn messages(answer: &DynamicMessage, field: &str) -> Vec<DynamicMessage> {
    let value = answer.get_field_by_name(field);
    let items = value.as_deref().and_then(Value::as_list).unwrap_or_default();
    items.iter().filter_map(|item| item.as_message().cloned()).collect()
}

fn fields_of(answer: &DynamicMessage, field: &str) -> String {
    let value = answer.get_field_by_name(field);
    value.as_deref().and_then(Value::as_message).map(|object| lines_of(object, &[])).unwrap_or_default()
}

/// A line for each field that says something, in the order of the proto.
fn lines_of(object: &DynamicMessage, without: &[&str]) -> String {
    let fields: Vec<FieldDescriptor> = object
        .descriptor()
        .fields()
        .filter(|field| !without.contains(&field.name()))
        .filter(|field| object.has_field(field) || speaks_unset(field))
        .collect();
    let width = fields.iter().map(|field| field.name().len()).max().unwrap_or_default();
    let line = |field: &FieldDescriptor| format!("{:width$}  {}", field.name(), text(&object.get_field(field), field));
    fields.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// Whether it means something that a field is false or 0.
fn speaks_unset(field: &FieldDescriptor) -> bool {
    let is_text = matches!(field.kind(), Kind::String | Kind::Bytes | Kind::Message(_));
    !field.is_list() && !field.supports_presence() && !is_text
}

/// What is at a path of fields, of lists each item's.
fn text_at(object: &DynamicMessage, path: &str) -> String {
    let (first, rest) = path.split_once('.').map_or((path, None), |(first, rest)| (first, Some(rest)));
    let Some(field) = object.descriptor().get_field_by_name(first) else {
        return String::new();
    };
    if !object.has_field(&field) && field.supports_presence() {
        return String::new();
    }
    let value = object.get_field(&field);
    match (&*value, rest) {
        (value, None) => text(value, &field),
        (Value::Message(inner), Some(rest)) => text_at(inner, rest),
        (Value::List(items), Some(rest)) => {
            let inner = items.iter().filter_map(Value::as_message).map(|item| text_at(item, rest));
            inner.collect::<Vec<_>>().join(", ")
        }
        _ => String::new(),
    }
}

fn text(value: &Value, field: &FieldDescriptor) -> String {
    match value {
        Value::List(items) => items.iter().map(|item| text(item, field)).collect::<Vec<_>>().join(", "),
        Value::Message(message) => text_of_message(message),
        Value::EnumNumber(number) => text_of_enum(*number, field),
        Value::String(text) => shown(text),
        Value::Bool(truth) => truth.to_string(),
        Value::I32(number) => number.to_string(),
        Value::I64(number) => number.to_string(),
        Value::U32(number) => number.to_string(),
        Value::U64(number) => number.to_string(),
        Value::F32(number) => number.to_string(),
        Value::F64(number) => number.to_string(),
        Value::Bytes(bytes) => format!("{} bytes", bytes.len()),
        Value::Map(entries) => entries.keys().map(text_of_map_key).collect::<Vec<_>>().join(", "),
    }
}

fn text_of_map_key(key: &MapKey) -> String {
    match key {
        MapKey::String(text) => shown(text),
        other => format!("{other:?}"),
    }
}

fn text_of_message(message: &DynamicMessage) -> String {
    match message.descriptor().full_name() {
        "google.protobuf.Timestamp" => {
            message.transcode_to::<prost_types::Timestamp>().map(|time| time.to_string()).unwrap_or_default()
        }
        "google.protobuf.Duration" => {
            let span =
                message.transcode_to::<prost_types::Duration>().ok().and_then(|span| Duration::try_from(span).ok());
            span.map(|span| humantime::format_duration(span).to_string()).unwrap_or_default()
        }
        "google.protobuf.Struct" => json::line(message).map(|line| shown(&line)).unwrap_or_default(),
        _ => {
            let fields = message.fields().map(|(field, value)| format!("{} {}", field.name(), text(value, &field)));
            format!("({})", fields.collect::<Vec<_>>().join(", "))
        }
    }
}

/// The name of the value without what all values of the enum begin with.
fn text_of_enum(number: i32, field: &FieldDescriptor) -> String {
    let Kind::Enum(kinds) = field.kind() else {
        return number.to_string();
    };
    let prefix = kinds.default_value().name().trim_end_matches("UNSPECIFIED").to_owned();
    match kinds.get_value(number) {
        Some(value) => value.name().trim_start_matches(&prefix).to_owned(),
        None => number.to_string(),
    }
}

fn cell(text: &str) -> String {
    match text.char_indices().nth(CELL_LENGTH_MAX) {
        _ if text.is_empty() => NOTHING.to_owned(),
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// A text that somebody else wrote, on one line and without what would command a terminal.
pub fn shown(text: &str) -> String {
    let harmless = |c: char| {
        !c.is_control() && !matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().map(|c| if harmless(c) { c.to_string() } else { c.escape_unicode().to_string() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_somebody_wrote_commands_the_terminal() {
        assert_eq!(shown("a\u{1b}[2Jb\n"), "a\\u{1b}[2Jb\\u{a}");
        assert_eq!(shown("Ünïcödé 漢字"), "Ünïcödé 漢字");
        assert_eq!(shown("a\u{202e}b"), "a\\u{202e}b");
    }

    #[test]
    fn cells_are_short_and_never_empty() {
        assert_eq!(cell(""), "-");
        assert_eq!(cell(&"é".repeat(60)), "é".repeat(60));
        assert_eq!(cell(&"é".repeat(61)), format!("{}…", "é".repeat(60)));
    }
}
