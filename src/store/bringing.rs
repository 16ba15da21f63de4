//! Asking the processor for memory before it is needed.
//!
//! With a million keys nearly everything about one of them has to come from main memory, which takes as long as all that is
//! then done with it. Whoever answers about many keys at once asks for what lies ahead, and does not wait for each in turn.

use std::slice;

use prefetch_index::prefetch_index;

/// Asks for what a value begins with: 64 bytes, or what of them is left of its line. Nothing is read, and nothing is
/// waited for.
pub fn bring<T>(value: &T) {
    prefetch_index(slice::from_ref(value), 0);
}
