//! The atomics that the marks are made of, in one place so that a model checker can stand in for them.

pub use std::sync::atomic::{AtomicU64, Ordering};
