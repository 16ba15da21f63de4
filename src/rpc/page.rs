//! Asking for a page of a list.

use prost::Message;

use crate::domain::Flaw;
use crate::service::listing::{PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX, PageRequest};

use super::fields::Fields;
use super::gate::digest_of;

/// The page that a request asks for. Its token is bound to the method and to `filter`: everything in the request that
/// says which rows the list has.
pub fn page(
    fields: &mut Fields,
    method: &str,
    filter: &impl Message,
    (size, token): (i32, String),
) -> Option<PageRequest> {
    let size = match usize::try_from(size) {
        Ok(0) => PAGE_SIZE_DEFAULT,
        Ok(size) => size.min(PAGE_SIZE_MAX),
        Err(_) => {
            fields.refuse("page_size", Flaw::new(format!("must be 0 to {PAGE_SIZE_MAX}")));
            return None;
        }
    };
    let binding = digest_of(&[method.as_bytes(), &filter.encode_to_vec()]);
    Some(PageRequest { size, token, binding })
}
