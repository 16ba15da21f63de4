//! Why a command did not do what it was asked, sorted by exit code.

use std::error::Error;
use std::io;

use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::output::shown;

/// Why not. None of them holds a secret.
#[derive(Debug)]
pub enum Failure {
    /// The command line, or a file that it names, is not as it must be.
    Misused(String),
    /// The server refused, or ended the call.
    Refused(Box<Status>),
    /// The server can't be reached, does not serve, or does not answer.
    Away(String),
    /// Whoever was asked said no.
    Declined,
    /// The key is not good; that has been said.
    NotGood,
    /// Some rows were not imported; that has been said.
    Incomplete,
    /// Standard output can't be written.
    Unwritable(io::Error),
    /// Something else.
    Broken(String),
}

impl Failure {
    /// What [`super::EXIT_CODES`] says.
    pub fn exit_code(&self) -> u8 {
        match self {
            // Whoever closed the pipe has read enough.
            Self::Unwritable(error) if error.kind() == io::ErrorKind::BrokenPipe => 0,
            Self::Unwritable(_) | Self::Broken(_) | Self::Declined => 1,
            Self::Misused(_) => 2,
            Self::Refused(status) => of_code(status.code()),
            Self::Away(_) => 6,
            Self::NotGood => 7,
            Self::Incomplete => 8,
        }
    }

    /// One line for standard error, if there is something to say.
    pub fn complaint(&self) -> Option<String> {
        match self {
            Self::Unwritable(error) if error.kind() == io::ErrorKind::BrokenPipe => None,
            Self::Unwritable(error) => Some(format!("standard output can't be written: {error}")),
            Self::Misused(why) | Self::Away(why) | Self::Broken(why) => Some(shown(why)),
            Self::Refused(status) => Some(shown(&sentence(status))),
            Self::Declined => Some("declined; nothing was done".to_owned()),
            Self::NotGood | Self::Incomplete => None,
        }
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        if is_broken(&status) {
            Self::Away(format!("the connection broke: {}", innermost(&status)))
        } else {
            Self::Refused(Box::new(status))
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Unwritable(error)
    }
}

fn of_code(code: Code) -> u8 {
    match code {
        Code::InvalidArgument | Code::OutOfRange => 2,
        Code::Unauthenticated | Code::PermissionDenied => 3,
        Code::NotFound => 4,
        Code::AlreadyExists | Code::FailedPrecondition | Code::Aborted => 5,
        Code::Unavailable | Code::ResourceExhausted | Code::DeadlineExceeded => 6,
        Code::Ok | Code::Cancelled | Code::Unknown | Code::Unimplemented | Code::Internal | Code::DataLoss => 1,
    }
}

/// Whether it is no answer of a server, but what became of the connection meanwhile.
pub fn is_broken(status: &Status) -> bool {
    matches!(status.code(), Code::Unknown | Code::Internal | Code::Cancelled)
        && status.source().is_some()
        && reason(status).is_none()
}

/// The reason, the message with every flaw that the server tells, what helps, and the id of the call.
fn sentence(status: &Status) -> String {
    let mut sentence = match reason(status) {
        Some(reason) => format!("{reason}: {}", status.message()),
        None => format!("{:?}: {}", status.code(), innermost(status)),
    };
    let violations = status.get_details_bad_request().map(|details| details.field_violations).unwrap_or_default();
    for violation in violations {
        if !sentence.contains(&violation.description) {
            sentence.push_str(&format!("; {}: {}", violation.field, violation.description));
        }
    }
    if let Some(wait) = status.get_details_retry_info().and_then(|info| info.retry_delay) {
        sentence.push_str(&format!("; try again in {}", humantime::format_duration(wait)));
    }
    if let Some(request) = status.get_details_request_info() {
        sentence.push_str(&format!(" (call {})", request.request_id));
    }
    sentence
}

/// The word for programs, if ostiary itself answered.
pub fn reason(status: &Status) -> Option<String> {
    status.get_details_error_info().map(|info| info.reason).filter(|reason| !reason.is_empty())
}

fn innermost(status: &Status) -> String {
    match status.source() {
        Some(source) => cause(source),
        None => status.message().to_owned(),
    }
}

/// The first cause of an error, which says the most.
pub fn cause(error: &dyn Error) -> String {
    let mut first = error;
    while let Some(source) = first.source() {
        first = source;
    }
    first.to_string()
}
