//! What a root key may do here: a closed list of capabilities, and grants of them.
//!
//! A grant is written `resource.id.action`. Not to be confused with permissions, the open text that says what an
//! API key may do elsewhere.

use std::fmt;

use super::Flaw;

mod grant;
mod grants;
mod nearest;

pub use grant::Grant;
pub use grants::{GRANTS_MAX, Grants};

/// The segment that stands for all there is, now and later.
const WILDCARD: &str = "*";

/// What capabilities are about: the first segment of a grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Resource {
    /// APIs and the keys in them; an id is an API's.
    Apis,
    /// Roles and permissions; an id is a role's for what concerns roles, else a permission's.
    Rbac,
    /// Identities.
    Identities,
    /// Rate-limit namespaces.
    Ratelimits,
    /// Root keys.
    RootKeys,
    /// The audit log, which has no ids.
    Audit,
    /// Reports of leaked secrets, which have no ids.
    Leaks,
    /// Workspaces. Held only in the operator workspace, and never covered by `*`.
    Workspaces,
}

impl Resource {
    /// All of them, in the order of the table of capabilities.
    pub const ALL: &'static [Self] = &[
        Self::Apis,
        Self::Rbac,
        Self::Identities,
        Self::Ratelimits,
        Self::RootKeys,
        Self::Audit,
        Self::Leaks,
        Self::Workspaces,
    ];

    /// How it is spelled in a grant.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Apis => "apis",
            Self::Rbac => "rbac",
            Self::Identities => "identities",
            Self::Ratelimits => "ratelimits",
            Self::RootKeys => "root_keys",
            Self::Audit => "audit",
            Self::Leaks => "leaks",
            Self::Workspaces => "workspaces",
        }
    }

    /// Reads the spelling; `api`, `identity` and `ratelimit` stand for their plurals.
    fn parse(text: &str) -> Option<Self> {
        match text {
            "api" => Some(Self::Apis),
            "identity" => Some(Self::Identities),
            "ratelimit" => Some(Self::Ratelimits),
            _ => Self::ALL.iter().copied().find(|resource| resource.name() == text),
        }
    }

    /// Whether the wildcard stands for it too. Workspaces are the operator's, so they must be named.
    const fn in_wildcard(self) -> bool {
        !matches!(self, Self::Workspaces)
    }

    /// Whether it has ids at all; a resource without them is granted whole.
    fn has_ids(self) -> bool {
        Capability::ALL.iter().any(|capability| capability.resource() == self && !capability.whole_only())
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Declares every capability once: by resource, those on the whole before those on single objects.
macro_rules! capabilities {
    ($($resource:ident {
        whole: $($whole:ident $whole_action:literal),*;
        each: $($each:ident $each_action:literal),*;
    })*) => {
        /// One thing that a root key may do: an action on a resource.
        ///
        /// Each is named after its action, and no two resources share an action.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Capability {$(
            $(#[doc = concat!("`", $whole_action, "`, which exists only with `*` as id.")] $whole,)*
            $(#[doc = concat!("`", $each_action, "`.")] $each,)*
        )*}

        impl Capability {
            /// All of them, in the order of the table.
            pub const ALL: &'static [Self] = &[$($(Self::$whole,)* $(Self::$each,)*)*];

            /// What it is about.
            pub const fn resource(self) -> Resource {
                match self {$($(Self::$whole)|* $(| Self::$each)* => Resource::$resource,)*}
            }

            /// How it is spelled: the last segment of a grant.
            pub const fn action(self) -> &'static str {
                match self {$($(Self::$whole => $whole_action,)* $(Self::$each => $each_action,)*)*}
            }

            /// Whether it is granted and asked for only with `*` as id, having no single object to be about.
            pub const fn whole_only(self) -> bool {
                match self {$($(Self::$whole => true,)* $(Self::$each => false,)*)*}
            }
        }
    };
}

capabilities! {
    Apis {
        whole: CreateApi "create_api";
        each: ReadApi "read_api", UpdateApi "update_api", DeleteApi "delete_api",
            CreateKey "create_key", ReadKey "read_key", UpdateKey "update_key", DeleteKey "delete_key",
            VerifyKey "verify_key", ReadAnalytics "read_analytics";
    }
    Rbac {
        whole: CreateRole "create_role", CreatePermission "create_permission";
        each: ReadRole "read_role", UpdateRole "update_role", DeleteRole "delete_role",
            ReadPermission "read_permission", UpdatePermission "update_permission",
            DeletePermission "delete_permission",
            AddPermissionToRole "add_permission_to_role", RemovePermissionFromRole "remove_permission_from_role",
            AddRoleToKey "add_role_to_key", RemoveRoleFromKey "remove_role_from_key",
            AddPermissionToKey "add_permission_to_key", RemovePermissionFromKey "remove_permission_from_key";
    }
    Identities {
        whole: CreateIdentity "create_identity";
        each: ReadIdentity "read_identity", UpdateIdentity "update_identity", DeleteIdentity "delete_identity";
    }
    Ratelimits {
        whole: CreateNamespace "create_namespace";
        each: Limit "limit",
            ReadNamespace "read_namespace", UpdateNamespace "update_namespace", DeleteNamespace "delete_namespace",
            SetOverride "set_override", ReadOverride "read_override", DeleteOverride "delete_override";
    }
    RootKeys {
        whole: CreateRootKey "create_root_key";
        each: ReadRootKey "read_root_key", UpdateRootKey "update_root_key", DeleteRootKey "delete_root_key",
            RotateRootKey "rotate_root_key";
    }
    Audit {
        whole: ReadAuditLog "read_audit_log";
        each: ;
    }
    Leaks {
        whole: ReportLeak "report_leak", UpdateLeakPolicy "update_leak_policy";
        each: ;
    }
    Workspaces {
        whole: CreateWorkspace "create_workspace", Backup "backup";
        each: ReadWorkspace "read_workspace", UpdateWorkspace "update_workspace", DeleteWorkspace "delete_workspace";
    }
}

impl Capability {
    /// The capability with this action.
    fn from_action(action: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|capability| capability.action() == action)
    }
}

/// The grant of it on everything: `apis.*.create_api`.
impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{WILDCARD}.{}", self.resource(), self.action())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_two_capabilities_share_an_action() {
        let actions: BTreeSet<_> = Capability::ALL.iter().map(|capability| capability.action()).collect();
        assert_eq!(actions.len(), Capability::ALL.len());
        assert_eq!(Capability::ALL.len(), 49);
    }

    #[test]
    fn every_capability_is_named_after_its_action() {
        for capability in Capability::ALL {
            let action: String =
                capability.action().split('_').map(|word| word[..1].to_uppercase() + &word[1..]).collect();
            assert_eq!(format!("{capability:?}"), action);
        }
    }

    #[test]
    fn every_capability_prints_as_the_grant_of_it() {
        assert_eq!(Capability::CreateApi.to_string(), "apis.*.create_api");
        assert_eq!(Capability::Limit.to_string(), "ratelimits.*.limit");
        for capability in Capability::ALL {
            let grant = Grant::parse(&capability.to_string()).unwrap();
            assert!(grant.allows(*capability, None), "{capability}");
        }
    }

    #[test]
    fn what_makes_a_new_object_or_concerns_them_all_is_granted_whole() {
        let whole: Vec<_> =
            Capability::ALL.iter().filter(|capability| capability.whole_only()).map(|c| c.action()).collect();
        assert_eq!(
            whole,
            [
                "create_api",
                "create_role",
                "create_permission",
                "create_identity",
                "create_namespace",
                "create_root_key",
                "read_audit_log",
                "report_leak",
                "update_leak_policy",
                "create_workspace",
                "backup",
            ]
        );
        let without_ids: Vec<_> = Resource::ALL.iter().filter(|resource| !resource.has_ids()).collect();
        assert_eq!(without_ids, [&Resource::Audit, &Resource::Leaks]);
    }
}
