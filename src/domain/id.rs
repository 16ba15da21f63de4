//! Names of things: a prefix that says what it is, and a ULID that says when it was made.
//!
//! Each kind has its own type, so an API's id can't be passed where a role's is wanted.
//! As text an id is `<prefix>_<26 lower-case Crockford base32 characters>`; on disk its 16 bytes,
//! whose order is the order of creation.

use std::fmt;

use super::Flaw;
use super::secret::Handle;

/// Characters of a ULID in Crockford base32.
const ULID_LENGTH: usize = 26;

/// One kind of id: what its prefix is and what the thing is called.
macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident, $prefix:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 16]);

        impl $name {
            /// What stands before the underscore.
            pub const PREFIX: &'static str = $prefix;
            /// The id before all others.
            pub const FIRST: Self = Self([0; 16]);
            /// The id after all others.
            pub const LAST: Self = Self([0xff; 16]);

            /// The id with these bytes: 48 bits of milliseconds, 16 that count on within one, 64 random bits,
            /// big-endian.
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(bytes)
            }

            /// The 16 bytes of the id, in the order of creation.
            pub const fn bytes(self) -> [u8; 16] {
                self.0
            }

            /// The text form.
            pub fn text(self) -> String {
                str::from_utf8(&self.spelled()).unwrap_or_default().to_owned()
            }

            /// The characters of the text form, all of them ASCII.
            pub fn spelled(self) -> [u8; $prefix.len() + 1 + ULID_LENGTH] {
                let mut spelled = [b'_'; $prefix.len() + 1 + ULID_LENGTH];
                spelled[..$prefix.len()].copy_from_slice($prefix.as_bytes());
                spelled[$prefix.len() + 1..].copy_from_slice(&digits(self.0));
                spelled
            }

            /// Reads the text form; upper case is refused, so each id has one spelling.
            pub fn parse(text: &str) -> Result<Self, Flaw> {
                parse(Self::PREFIX, text).map(Self)
            }

            /// Whether the text has the shape of such an id, and so may not be a name.
            pub fn is_shape_of(text: &str) -> bool {
                Self::parse(text).is_ok()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(Self::PREFIX)?;
                f.write_str("_")?;
                f.write_str(str::from_utf8(&digits(self.0)).map_err(|_| fmt::Error)?)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    )*};
}

ids! {
    /// A tenant.
    WorkspaceId, "ws";
    /// A credential of a developer's server.
    RootKeyId, "rk";
    /// A named set of API keys.
    ApiId, "api";
    /// A credential handed to a customer.
    KeyId, "key";
    /// A named set of permissions.
    RoleId, "role";
    /// A permission of API keys.
    PermissionId, "perm";
    /// Whose keys they are.
    IdentityId, "id";
    /// A set of things that are limited.
    NamespaceId, "rlns";
    /// An exception from a limit.
    OverrideId, "rlor";
    /// An entry of the audit log.
    EventId, "evt";
    /// One call.
    RequestId, "req";
}

impl KeyId {
    /// By what the secret of the key leads to its record.
    pub fn handle(self) -> Handle {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        Handle([a, b, c, d, e, f, g, h])
    }
}

/// The digits of base32, in the order of their values, as Crockford chose them, in lower case.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

fn digits(bytes: [u8; 16]) -> [u8; ULID_LENGTH] {
    let number = u128::from_be_bytes(bytes);
    std::array::from_fn(|place| ALPHABET[(number >> (5 * (ULID_LENGTH - 1 - place)) & 0x1f) as usize])
}

/// Whether the text has the shape of an id of any kind, and so may not be the name of anything.
pub fn is_shape_of_any(text: &str) -> bool {
    let shaped = [
        WorkspaceId::is_shape_of,
        RootKeyId::is_shape_of,
        ApiId::is_shape_of,
        KeyId::is_shape_of,
        RoleId::is_shape_of,
        PermissionId::is_shape_of,
        IdentityId::is_shape_of,
        NamespaceId::is_shape_of,
        OverrideId::is_shape_of,
        EventId::is_shape_of,
        RequestId::is_shape_of,
    ];
    shaped.iter().any(|is_shape_of| is_shape_of(text))
}

/// A thing as a caller refers to it: by its id, or by the name or slug that is unique for its kind.
///
/// Only a text of a full id's shape is taken as an id, and such a text is refused as a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reference<I> {
    /// By id.
    Id(I),
    /// By name or slug, in exactly this spelling.
    Name(String),
}

impl<I: fmt::Display> fmt::Display for Reference<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => id.fmt(f),
            Self::Name(name) => name.fmt(f),
        }
    }
}

fn parse(prefix: &str, text: &str) -> Result<[u8; 16], Flaw> {
    let flaw = || Flaw::new(format!("must be {prefix}_ followed by {ULID_LENGTH} lower-case base32 characters"));
    let ulid = text.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('_')).ok_or_else(flaw)?;
    // The first character carries 3 bits only; past 7 the number would not fit 128 bits.
    let fits = ulid.len() == ULID_LENGTH && ulid.as_bytes()[0] <= b'7';
    let spelled = ulid.bytes().all(|b| b"0123456789abcdefghjkmnpqrstvwxyz".contains(&b));
    if !fits || !spelled {
        return Err(flaw());
    }
    ulid::Ulid::from_string(&ulid.to_ascii_uppercase()).map(|ulid| ulid.to_bytes()).map_err(|_| flaw())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_back_as_it_was_written() {
        let id = KeyId::from_bytes([7; 16]);
        assert_eq!(KeyId::parse(&id.to_string()), Ok(id));
        assert_eq!(KeyId::parse(&KeyId::LAST.to_string()), Ok(KeyId::LAST));
    }

    #[test]
    fn an_id_has_one_spelling_and_one_kind() {
        let id = KeyId::from_bytes([7; 16]).to_string();
        for other in [
            id.to_uppercase(),
            id.replace("key", "api"),
            format!("{id}0"),
            id[..id.len() - 1].to_owned(),
            String::new(),
        ] {
            assert!(KeyId::parse(&other).is_err(), "{other}");
        }
        assert!(KeyId::parse("key_81234567890123456789012345").is_err(), "more than 128 bits");
    }
}
