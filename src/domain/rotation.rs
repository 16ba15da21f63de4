//! Rotation: what becomes of a life when a credential is replaced by a new one. The same for root keys and API keys.

use std::time::Duration;

use super::time::{Expiry, Timestamp};

/// The longest time that what has been replaced may live on.
pub const GRACE_MAX: Duration = Duration::from_secs(30 * 24 * 3600);

/// Why something can't be rotated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RotationRefused<I> {
    /// Its life is over.
    Expired,
    /// It has this successor already.
    AlreadyRotated(I),
}

/// It has been rotated to this successor: what is left of its life can only be cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rotated<I>(pub I);

/// How long what is replaced lives on: for the grace period, never longer than it would have lived anyway.
///
/// # Errors
/// The successor is told first: whoever lost a race against a rotation without grace needs it, not a new start.
pub fn rest_of_life<I: Copy>(
    successor: Option<I>,
    expiry: Expiry,
    grace: Duration,
    now: Timestamp,
) -> Result<Expiry, RotationRefused<I>> {
    if let Some(successor) = successor {
        return Err(RotationRefused::AlreadyRotated(successor));
    }
    if expiry.has_passed(now) {
        return Err(RotationRefused::Expired);
    }
    Ok(expiry.earlier(Expiry::At(now.after(grace))))
}

/// Whether the life of what may have been rotated may become another one: what has a successor is only ever cut.
pub fn may_live<I: Copy>(successor: Option<I>, from: Expiry, to: Expiry) -> Result<(), Rotated<I>> {
    match successor {
        Some(successor) if to.outlives(from) => Err(Rotated(successor)),
        Some(_) | None => Ok(()),
    }
}
