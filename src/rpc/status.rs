//! What each error is in gRPC: its code, its reason, its details. One table, so that every method says it alike.
//!
//! A handler's error travels as the source of a bare [`Status`]; the front renders it once the request id is known.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, PreconditionViolation, StatusExt};

use crate::domain::kind::Kind;
use crate::error::{Error, Obstacle, Unrecognised};

use super::shedding;

/// The `domain` of every `ErrorInfo`.
const DOMAIN: &str = "ostiary";
/// How long to wait for a store that takes no changes: about as often it is tried whether it does again.
const STORE_RETRY_AFTER: Duration = Duration::from_secs(1);
/// The messages that free-form data is made of.
const FREE_FORM: [&str; 3] = ["Struct", "Value", "ListValue"];

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        let mut status = Self::new(code(&error), "");
        status.set_source(Arc::new(error));
        status
    }
}

impl std::error::Error for Error {}

impl fmt::Display for Error {
    /// What the caller reads. Internal text is not part of it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unauthenticated(why) => f.write_str(match why {
                Unrecognised::Missing => "present a root key: authorization: Bearer <root key>",
                Unrecognised::Malformed => "the authorization header must be one \"Bearer <root key>\"",
                Unrecognised::Invalid => "this is not a root key that can be used here",
                Unrecognised::WorkspaceDisabled => "the workspace of this root key is disabled",
                Unrecognised::Disabled => "this root key is disabled",
                Unrecognised::Expired => "this root key has expired",
                Unrecognised::Address => "this root key may not be used from this address",
            }),
            Self::PermissionMissing(capability) if capability.whole_only() => {
                write!(f, "this root key lacks the permission {capability}")
            }
            Self::PermissionMissing(capability) => {
                write!(f, "this root key lacks the permission {capability}, or the same for the one object it concerns")
            }
            Self::GrantExceedsOwn(what) => write!(f, "nobody hands on more than they hold: {what}"),
            Self::NotFound { kind, name } => write!(f, "{} {name} not found", kind.noun()),
            Self::AlreadyExists { kind: Kind::Key, name } => write!(f, "key {name} is not deleted"),
            Self::DigestTaken => f.write_str("the workspace has a key with this digest already"),
            Self::AlreadyExists { kind, name } => write!(f, "{} {name} exists already", kind.noun()),
            Self::SecretAlreadyDelivered { kind, id } => {
                write!(f, "the call was made before; {} {id} exists, and its secret can't be shown again", kind.noun())
            }
            Self::Invalid(violations) => {
                for (index, violation) in violations.iter().enumerate() {
                    let between = if index == 0 { "" } else { "; " };
                    write!(f, "{between}{}: {}", violation.field, violation.flaw)?;
                }
                Ok(())
            }
            Self::Query { field, flaw } => write!(f, "{field}: {flaw}"),
            Self::PageToken => f.write_str("page_token: is not one that this list has given out; begin again"),
            Self::IdempotencyKeyReused => {
                f.write_str("idempotency-key: has been used for another request; use a new one")
            }
            Self::Precondition { description, .. } => f.write_str(description),
            Self::EtagMismatch => f.write_str("etag: it has been changed since; read it again"),
            Self::Conflict => f.write_str("others kept changing it meanwhile; try again"),
            Self::AttemptsLimited { .. } => f.write_str("too many calls without a valid root key from this address"),
            Self::QuotaExceeded { quota, limit, .. } => {
                write!(f, "the workspace's quota {} allows {limit}", quota.field())
            }
            Self::MessageTooLarge => {
                write!(f, "the message must be at most {} bytes", super::MESSAGE_BYTES_MAX)
            }
            Self::Overloaded { .. } => f.write_str("too much to do at the moment; nothing was done, try again"),
            Self::StoreUnavailable => f.write_str("the store can't be reached at the moment; nothing was done"),
            Self::OutcomeUnknown => f.write_str("the store failed; the change may or may not have been made"),
            Self::ShuttingDown => f.write_str("this instance is shutting down"),
            Self::DeadlineExceeded => f.write_str("the deadline has passed"),
            Self::Unimplemented => f.write_str("there is no such method"),
            Self::Internal(_) => f.write_str("something went wrong in ostiary; the request id leads to the log"),
        }
    }
}

fn code(error: &Error) -> Code {
    match error {
        Error::Unauthenticated(_) => Code::Unauthenticated,
        Error::PermissionMissing(_) | Error::GrantExceedsOwn(_) => Code::PermissionDenied,
        Error::NotFound { .. } => Code::NotFound,
        Error::AlreadyExists { .. } | Error::DigestTaken | Error::SecretAlreadyDelivered { .. } => Code::AlreadyExists,
        Error::Invalid(_) | Error::Query { .. } | Error::PageToken | Error::IdempotencyKeyReused => {
            Code::InvalidArgument
        }
        Error::Precondition { .. } => Code::FailedPrecondition,
        Error::EtagMismatch | Error::Conflict => Code::Aborted,
        Error::AttemptsLimited { .. } | Error::QuotaExceeded { .. } | Error::MessageTooLarge => Code::ResourceExhausted,
        Error::Overloaded { .. } | Error::StoreUnavailable | Error::OutcomeUnknown | Error::ShuttingDown => {
            Code::Unavailable
        }
        Error::DeadlineExceeded => Code::DeadlineExceeded,
        Error::Unimplemented => Code::Unimplemented,
        Error::Internal(_) => Code::Internal,
    }
}

/// The word for programs: `ErrorInfo.reason`, a value of `ErrorReason` without its prefix.
pub fn reason(error: &Error) -> String {
    match error {
        Error::Unauthenticated(why) => match why {
            Unrecognised::Missing => "ROOT_KEY_MISSING",
            Unrecognised::Malformed => "ROOT_KEY_MALFORMED",
            Unrecognised::Invalid => "ROOT_KEY_INVALID",
            Unrecognised::WorkspaceDisabled => "WORKSPACE_DISABLED",
            Unrecognised::Disabled => "ROOT_KEY_DISABLED",
            Unrecognised::Expired => "ROOT_KEY_EXPIRED",
            Unrecognised::Address => "ROOT_KEY_ADDRESS",
        },
        Error::PermissionMissing(_) => "PERMISSION_MISSING",
        Error::GrantExceedsOwn(_) => "GRANT_EXCEEDS_OWN",
        Error::NotFound { kind, .. } => return format!("{}_NOT_FOUND", kind.snake().to_ascii_uppercase()),
        Error::AlreadyExists { kind, .. } => return format!("{}_ALREADY_EXISTS", kind.snake().to_ascii_uppercase()),
        Error::DigestTaken => "KEY_ALREADY_EXISTS",
        Error::SecretAlreadyDelivered { .. } => "SECRET_ALREADY_DELIVERED",
        Error::Invalid(_) => "FIELD_INVALID",
        Error::Query { .. } => "PERMISSION_QUERY_SYNTAX",
        Error::PageToken => "PAGE_TOKEN_INVALID",
        Error::IdempotencyKeyReused => "IDEMPOTENCY_KEY_REUSED",
        Error::Precondition { obstacle, .. } => obstacle_reason(*obstacle),
        Error::EtagMismatch => "ETAG_MISMATCH",
        Error::Conflict => "CONFLICT",
        Error::AttemptsLimited { .. } => "AUTH_ATTEMPTS_LIMITED",
        Error::QuotaExceeded { .. } => "QUOTA_EXCEEDED",
        Error::MessageTooLarge => "MESSAGE_TOO_LARGE",
        Error::Overloaded { .. } => "OVERLOADED",
        Error::StoreUnavailable => "STORE_UNAVAILABLE",
        Error::OutcomeUnknown => "OUTCOME_UNKNOWN",
        Error::ShuttingDown => "SHUTTING_DOWN",
        Error::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Error::Unimplemented => "UNIMPLEMENTED",
        Error::Internal(_) => "INTERNAL",
    }
    .to_owned()
}

const fn obstacle_reason(obstacle: Obstacle) -> &'static str {
    match obstacle {
        Obstacle::RootKeyExpired => "ROOT_KEY_EXPIRED",
        Obstacle::AlreadyRotated { .. } | Obstacle::AlreadyRerolled { .. } => "ALREADY_ROTATED",
        Obstacle::KeyExpired => "KEY_EXPIRED",
        Obstacle::KeyRevoked => "KEY_REVOKED",
        Obstacle::CreditsUnlimited => "CREDITS_UNLIMITED",
        Obstacle::LastAdministrator => "LAST_ADMINISTRATOR",
        Obstacle::OperatorWorkspace => "OPERATOR_WORKSPACE",
        Obstacle::DeleteProtected => "DELETE_PROTECTED",
        Obstacle::RevisionUnknown => "REVISION_UNKNOWN",
    }
}

/// The error as the caller of this request gets it.
pub fn render(error: &Error, request_id: &str) -> Status {
    let reason = reason(error);
    let mut details = ErrorDetails::new();
    let mut facts = HashMap::new();
    match error {
        Error::PermissionMissing(capability) => {
            facts.insert("permission".to_owned(), capability.to_string());
        }
        Error::NotFound { kind, name } | Error::AlreadyExists { kind, name } => {
            details.set_resource_info(resource_type(*kind), name.as_str(), "", error.to_string());
        }
        Error::SecretAlreadyDelivered { kind, id } => {
            facts.insert(format!("{}_id", kind.snake()), id.clone());
            details.set_resource_info(resource_type(*kind), id.as_str(), "", error.to_string());
        }
        Error::Invalid(violations) => {
            let violations = violations
                .iter()
                .map(|violation| FieldViolation::new(violation.field.as_str(), violation.flaw.to_string()));
            details.set_bad_request(violations.collect::<Vec<_>>());
        }
        Error::Query { field, flaw } => {
            facts.insert("position".to_owned(), flaw.position.to_string());
            details.add_bad_request_violation(*field, flaw.to_string());
        }
        Error::PageToken => {
            details.add_bad_request_violation("page_token", "is not one that this list has given out");
        }
        Error::Precondition { obstacle, subject, description } => {
            let successor = match obstacle {
                Obstacle::AlreadyRotated { successor } => Some((Kind::RootKey, successor.to_string())),
                Obstacle::AlreadyRerolled { successor } => Some((Kind::Key, successor.to_string())),
                Obstacle::RootKeyExpired
                | Obstacle::LastAdministrator
                | Obstacle::OperatorWorkspace
                | Obstacle::DeleteProtected
                | Obstacle::RevisionUnknown
                | Obstacle::KeyExpired
                | Obstacle::KeyRevoked
                | Obstacle::CreditsUnlimited => None,
            };
            if let Some((kind, successor)) = successor {
                details.set_resource_info(resource_type(kind), successor.as_str(), "", description.as_str());
                facts.insert("successor".to_owned(), successor);
            }
            let violation = PreconditionViolation::new(reason.as_str(), subject.as_str(), description.as_str());
            details.set_precondition_failure(vec![violation]);
        }
        Error::QuotaExceeded { quota, limit: _, retry_after } => {
            details.add_quota_failure_violation(quota.field(), error.to_string());
            if retry_after.is_some() {
                details.set_retry_info(*retry_after);
            }
        }
        Error::AttemptsLimited { retry_after } | Error::Overloaded { retry_after } => {
            details.set_retry_info(Some(*retry_after));
        }
        Error::StoreUnavailable => {
            details.set_retry_info(Some(STORE_RETRY_AFTER));
        }
        Error::Unauthenticated(_)
        | Error::DigestTaken
        | Error::GrantExceedsOwn(_)
        | Error::IdempotencyKeyReused
        | Error::EtagMismatch
        | Error::Conflict
        | Error::MessageTooLarge
        | Error::OutcomeUnknown
        | Error::ShuttingDown
        | Error::DeadlineExceeded
        | Error::Unimplemented
        | Error::Internal(_) => {}
    }
    details.set_error_info(reason, DOMAIN, facts);
    details.set_request_info(request_id, "");
    Status::with_error_details(code(error), error.to_string(), details)
}

/// The error of one of many, which is data beside the answers of the others.
pub fn as_data(error: &Error, request_id: &str) -> tonic_types::pb::Status {
    let status = render(error, request_id);
    let whole = <tonic_types::pb::Status as prost::Message>::decode(status.details());
    // The details are the encoded form of just that.
    whole.unwrap_or_else(|_| tonic_types::pb::Status {
        code: status.code() as i32,
        message: status.message().to_owned(),
        details: Vec::new(),
    })
}

fn resource_type(kind: Kind) -> String {
    format!(
        "ostiary.v1.{}",
        match kind {
            Kind::Workspace => "Workspace",
            Kind::RootKey => "RootKey",
            Kind::Api => "Api",
            Kind::Key => "Key",
            Kind::Role => "Role",
            Kind::Permission => "Permission",
            Kind::Identity => "Identity",
            Kind::Namespace => "Namespace",
            Kind::Override => "Override",
        }
    )
}

/// The error that a status stands for which tonic made itself, before or after a handler.
pub fn of_foreign(status: &Status) -> Error {
    match status.code() {
        Code::Unimplemented => Error::Unimplemented,
        Code::OutOfRange | Code::ResourceExhausted => Error::MessageTooLarge,
        Code::DeadlineExceeded | Code::Cancelled => Error::DeadlineExceeded,
        Code::Unavailable => Error::Overloaded { retry_after: shedding::RETRY_AFTER },
        Code::Internal => undecodable(status.message()),
        _ => Error::Internal(format!("{}: {}", status.code(), status.message())),
    }
}

/// What the decoder could not make sense of, by the path that it names.
fn undecodable(message: &str) -> Error {
    let words = ["failed to decode Protobuf message", "Missing request message", "protocol error", "Unexpected EOF"];
    if !words.iter().any(|words| message.contains(words)) {
        return Error::Internal(message.to_owned());
    }
    let text = message.strip_prefix("failed to decode Protobuf message: ").unwrap_or(message);
    // `Inner.field: Outer.field: why`, the innermost first.
    let mut path = Vec::new();
    let mut flaw = text;
    while let Some((place, rest)) = flaw.split_once(": ")
        && let Some((of, field)) = place.split_once('.')
        && of.bytes().chain(field.bytes()).all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    {
        // Within free-form data it is the field that holds it.
        if !FREE_FORM.contains(&of) {
            path.insert(0, field);
        }
        flaw = rest;
    }
    let field = if path.is_empty() { "message".to_owned() } else { path.join(".") };
    Error::field(field, format!("can't be decoded: {flaw}"))
}
