//! Lists as a whole: page after page, until there are enough or no more.

use clap::Args;

use super::failure::Failure;

/// The most items that a server puts on a page.
const PAGE_SIZE_MAX: u32 = 1_000;

/// How much of a list is wanted.
#[derive(Debug, Clone, Copy, Args)]
pub struct Wanted {
    /// Show at most this many, the oldest first. Without it, all.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
}

/// Which page to fetch.
pub struct Page {
    /// Most items on it.
    pub size: i32,
    /// What the page before said, or empty.
    pub token: String,
}

/// An answer that holds one page of a list.
pub trait Paged {
    /// What is listed.
    type Item;

    /// The items of the page, and what leads to the next.
    fn page(&mut self) -> (&mut Vec<Self::Item>, &mut String);
}

macro_rules! paged {
    ($($answer:ident, $field:ident, $item:ident;)*) => {
        $(impl Paged for crate::pb::v1::$answer {
            type Item = crate::pb::v1::$item;

            fn page(&mut self) -> (&mut Vec<Self::Item>, &mut String) {
                (&mut self.$field, &mut self.next_page_token)
            }
        })*
    };
}
paged! {
    ListRootKeysResponse, root_keys, RootKey;
    ListApisResponse, apis, Api;
    ListKeysResponse, keys, Key;
    ListRolesResponse, roles, Role;
    ListPermissionsResponse, permissions, Permission;
    ListIdentitiesResponse, identities, Identity;
    ListNamespacesResponse, namespaces, Namespace;
    ListOverridesResponse, overrides, Override;
    ListWorkspacesResponse, workspaces, Workspace;
    ListAuditEventsResponse, events, AuditEvent;
}

impl Wanted {
    /// All pages as one answer, the first page's with all items. It names a next page only if there is more.
    pub async fn gather<A: Paged>(self, fetch: impl AsyncFn(Page) -> Result<A, Failure>) -> Result<A, Failure> {
        let mut whole = fetch(self.page(0, String::new())).await?;
        loop {
            let (items, next) = whole.page();
            let have = u32::try_from(items.len()).unwrap_or(u32::MAX);
            if next.is_empty() || self.limit.is_some_and(|limit| have >= limit) {
                return Ok(whole);
            }
            let mut more = fetch(self.page(have, next.clone())).await?;
            let (more_items, more_next) = more.page();
            items.append(more_items);
            *next = std::mem::take(more_next);
        }
    }

    fn page(self, have: u32, token: String) -> Page {
        let missing = self.limit.map_or(PAGE_SIZE_MAX, |limit| limit - have);
        Page { size: missing.min(PAGE_SIZE_MAX).cast_signed(), token }
    }
}
