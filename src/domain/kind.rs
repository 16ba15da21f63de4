//! The kinds of things there are.

/// A kind of thing that has an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A tenant.
    Workspace,
    /// A developer's server's credential.
    RootKey,
    /// A set of API keys.
    Api,
    /// A customer's credential.
    Key,
    /// A set of permissions.
    Role,
    /// A permission of API keys.
    Permission,
    /// Whose keys they are.
    Identity,
    /// A set of things that are limited.
    Namespace,
    /// An exception from a limit.
    Override,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 9] = [
        Self::Workspace,
        Self::RootKey,
        Self::Api,
        Self::Key,
        Self::Role,
        Self::Permission,
        Self::Identity,
        Self::Namespace,
        Self::Override,
    ];

    /// What it is called in a sentence.
    pub const fn noun(self) -> &'static str {
        match self {
            Self::Workspace => "workspace",
            Self::RootKey => "root key",
            Self::Api => "API",
            Self::Key => "key",
            Self::Role => "role",
            Self::Permission => "permission",
            Self::Identity => "identity",
            Self::Namespace => "namespace",
            Self::Override => "override",
        }
    }

    /// Its name in fields and in the audit log: `root_key`.
    pub const fn snake(self) -> &'static str {
        match self {
            Self::Workspace => "workspace",
            Self::RootKey => "root_key",
            Self::Api => "api",
            Self::Key => "key",
            Self::Role => "role",
            Self::Permission => "permission",
            Self::Identity => "identity",
            Self::Namespace => "namespace",
            Self::Override => "override",
        }
    }

    /// Finds the kind of that name.
    pub fn parse(snake: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.snake() == snake)
    }
}
