//! No gRPC-Web: ostiary was built without the feature `grpc-web`.

use super::front::Front;

/// Which pages may call: there is none of it.
#[derive(Clone)]
pub enum Web {}

impl Web {
    /// A front that takes calls in either form.
    pub const fn before(&self, _front: Front) -> Front {
        match *self {}
    }
}
