//! Rows from lines, and requests from rows.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;

use prost::Message as _;
use tokio::sync::mpsc;

use crate::cli::failure::Failure;
use crate::cli::json;
use crate::pb::v1 as pb;

/// Most rows of a request.
const ROWS_MAX: usize = 500;
/// Most bytes of a request, unless a single row has more. A quarter of what servers take.
const REQUEST_BYTES_MAX: usize = 1 << 20;
/// Most bytes of a row, which may not hold more than a request.
const ROW_BYTES_MAX: usize = REQUEST_BYTES_MAX;

/// What rows have that do not say it.
pub struct Defaults {
    pub api: Option<String>,
    pub algorithm: Option<i32>,
}

/// What happens while rows are read, in their order.
pub enum Event {
    /// A request goes out with the rows of these lines, of which the last ends after so many bytes.
    Sent { lines: Vec<u64>, read: u64 },
    /// A line is no row.
    Flawed { line: u64, flaw: String },
    /// The rest can't be read.
    Unreadable(io::Error),
}

/// Where rows come from.
pub struct Source {
    lines: Box<dyn BufRead + Send>,
    size: Option<u64>,
}

impl Source {
    /// A file, or standard input.
    pub fn open(path: Option<&Path>) -> Result<Self, Failure> {
        match path {
            Some(path) if path != Path::new("-") => {
                let refused = |error: io::Error| Failure::Misused(format!("{}: {error}", path.display()));
                let file = File::open(path).map_err(refused)?;
                let size = file.metadata().map_err(refused)?.len();
                Ok(Self { lines: Box::new(BufReader::new(file)), size: Some(size) })
            }
            _ => Ok(Self { lines: Box::new(BufReader::new(io::stdin())), size: None }),
        }
    }

    /// How many bytes there are, if that is known.
    pub fn size(&self) -> Option<u64> {
        self.size
    }

    /// Reads it to its end, or until nobody takes requests any more.
    pub fn read(
        self,
        defaults: &Defaults,
        requests: &mpsc::Sender<pb::ImportKeysRequest>,
        events: &mpsc::UnboundedSender<Event>,
    ) {
        let Self { mut lines, size: _ } = self;
        let mut batch = Batch::default();
        let mut text = String::new();
        for line in 1.. {
            text.clear();
            match lines.read_line(&mut text) {
                Ok(0) => break,
                Ok(bytes) => batch.read += bytes as u64,
                Err(error) => {
                    batch.send(requests, events);
                    // Whoever is gone need not know.
                    let _ = events.send(Event::Unreadable(error));
                    return;
                }
            }
            if text.trim().is_empty() {
                continue;
            }
            match row(&text, defaults) {
                Ok(row) => {
                    if !batch.has_room_for(&row) && !batch.send(requests, events) {
                        return;
                    }
                    batch.add(line, row);
                }
                Err(flaw) => {
                    let _ = events.send(Event::Flawed { line, flaw });
                }
            }
        }
        batch.send(requests, events);
    }
}

fn row(text: &str, defaults: &Defaults) -> Result<pb::ImportKeysRow, String> {
    let mut row: pb::ImportKeysRow = json::read(text)?;
    if row.encoded_len() > ROW_BYTES_MAX {
        return Err(format!("must be at most {ROW_BYTES_MAX} bytes"));
    }
    if let (true, Some(api)) = (row.api_id.is_empty(), &defaults.api) {
        row.api_id.clone_from(api);
    }
    if let (pb::HashAlgorithm::Unspecified, Some(algorithm)) = (row.algorithm(), defaults.algorithm) {
        row.algorithm = algorithm;
    }
    Ok(row)
}

/// The rows of the next request.
#[derive(Default)]
struct Batch {
    rows: Vec<pb::ImportKeysRow>,
    lines: Vec<u64>,
    bytes: usize,
    read: u64,
}

impl Batch {
    fn has_room_for(&self, row: &pb::ImportKeysRow) -> bool {
        self.rows.len() < ROWS_MAX && (self.rows.is_empty() || self.bytes + row.encoded_len() <= REQUEST_BYTES_MAX)
    }

    fn add(&mut self, line: u64, row: pb::ImportKeysRow) {
        self.bytes += row.encoded_len();
        self.rows.push(row);
        self.lines.push(line);
    }

    /// Whether anybody took it.
    fn send(&mut self, requests: &mpsc::Sender<pb::ImportKeysRequest>, events: &mpsc::UnboundedSender<Event>) -> bool {
        if self.rows.is_empty() {
            return true;
        }
        let Self { rows, lines, bytes: _, read } = std::mem::take(self);
        self.read = read;
        // The event first: when the answer comes, it is there.
        events.send(Event::Sent { lines, read }).is_ok()
            && requests.blocking_send(pb::ImportKeysRequest { rows }).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: String, defaults: &Defaults) -> (Vec<pb::ImportKeysRequest>, Vec<Event>) {
        let (requests, mut sent) = mpsc::channel(1_000);
        let (events, mut told) = mpsc::unbounded_channel();
        Source { lines: Box::new(io::Cursor::new(text)), size: None }.read(defaults, &requests, &events);
        let sent = std::iter::from_fn(|| sent.try_recv().ok()).collect();
        (sent, std::iter::from_fn(|| told.try_recv().ok()).collect())
    }

    #[test]
    fn lines_are_numbered_as_in_an_editor_and_flawed_ones_left_out() {
        let defaults = Defaults { api: Some("mine".into()), algorithm: Some(2) };
        let text = "{\"hash\": \"a\"}\n\nnonsense\n{\"hash\": \"b\", \"apiId\": \"theirs\"}";
        let (requests, events) = read(text.to_owned(), &defaults);
        let [pb::ImportKeysRequest { rows }] = &requests[..] else { panic!("{requests:?}") };
        let apis: Vec<&str> = rows.iter().map(|row| row.api_id.as_str()).collect();
        assert_eq!(apis, ["mine", "theirs"]);
        assert!(rows.iter().all(|row| row.algorithm == 2));
        let [Event::Flawed { line: 3, .. }, Event::Sent { lines, read }] = &events[..] else { panic!() };
        assert_eq!((lines.as_slice(), *read), (&[1, 4][..], text.len() as u64));
    }

    #[test]
    fn requests_have_at_most_so_many_rows_and_bytes() {
        let defaults = Defaults { api: None, algorithm: None };
        let (requests, _) = read("{\"hash\": \"a\"}\n".repeat(ROWS_MAX + 1), &defaults);
        assert_eq!(requests.iter().map(|request| request.rows.len()).collect::<Vec<_>>(), [ROWS_MAX, 1]);
        let large = format!("{{\"name\": \"{}\"}}\n", "x".repeat(REQUEST_BYTES_MAX / 2));
        let (requests, _) = read(large.repeat(3), &defaults);
        assert_eq!(requests.iter().map(|request| request.rows.len()).collect::<Vec<_>>(), [1, 1, 1]);
        let (requests, events) = read(format!("{{\"name\": \"{}\"}}", "x".repeat(ROW_BYTES_MAX)), &defaults);
        assert!(requests.is_empty());
        assert!(matches!(&events[..], [Event::Flawed { line: 1, flaw }] if flaw.contains("1048576 bytes")));
    }
}
