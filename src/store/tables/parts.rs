//! What keys of rows are made of, and the bytes of each.

use bytes::BufMut;

use crate::domain::id::{
    ApiId, EventId, IdentityId, KeyId, NamespaceId, OverrideId, PermissionId, RoleId, RootKeyId, WorkspaceId,
};
use crate::domain::time::Timestamp;

use super::{Counted, Subject, Task};

/// A part of a key.
pub trait Part: Sized {
    /// Appends its bytes.
    fn write(&self, bytes: &mut impl BufMut);
    /// Takes its bytes off the front.
    fn read(bytes: &mut &[u8]) -> Option<Self>;
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (head, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(*head)
}

impl<const N: usize> Part for [u8; N] {
    fn write(&self, bytes: &mut impl BufMut) {
        bytes.put_slice(self);
    }
    fn read(bytes: &mut &[u8]) -> Option<Self> {
        take(bytes)
    }
}

macro_rules! id_parts {
    ($($id:ty),*) => {$(
        impl Part for $id {
            fn write(&self, bytes: &mut impl BufMut) {
                bytes.put_slice(&self.bytes());
            }
            fn read(bytes: &mut &[u8]) -> Option<Self> {
                take(bytes).map(Self::from_bytes)
            }
        }
    )*};
}
id_parts!(WorkspaceId, RootKeyId, ApiId, KeyId, RoleId, PermissionId, IdentityId, NamespaceId, OverrideId, EventId);

macro_rules! number_parts {
    ($($number:ty),*) => {$(
        impl Part for $number {
            fn write(&self, bytes: &mut impl BufMut) {
                bytes.put_slice(&self.to_be_bytes());
            }
            fn read(bytes: &mut &[u8]) -> Option<Self> {
                take(bytes).map(Self::from_be_bytes)
            }
        }
    )*};
}
number_parts!(u16, u64);

impl Part for Timestamp {
    fn write(&self, bytes: &mut impl BufMut) {
        self.millis().write(bytes);
    }
    fn read(bytes: &mut &[u8]) -> Option<Self> {
        u64::read(bytes).and_then(|millis| Self::from_millis(millis).ok())
    }
}

impl Part for String {
    fn write(&self, bytes: &mut impl BufMut) {
        bytes.put_slice(self.as_bytes());
    }
    fn read(bytes: &mut &[u8]) -> Option<Self> {
        Self::from_utf8(std::mem::take(bytes).to_vec()).ok()
    }
}

macro_rules! coded_parts {
    ($($name:ident { $($variant:ident = $code:literal),* })*) => {$(
        impl Part for $name {
            fn write(&self, bytes: &mut impl BufMut) {
                bytes.put_u8(match self { $(Self::$variant => $code),* });
            }
            fn read(bytes: &mut &[u8]) -> Option<Self> {
                match take::<1>(bytes)?[0] { $($code => Some(Self::$variant),)* _ => None }
            }
        }
    )*};
}
coded_parts! {
    Counted {
        Administrators = 1, KeysOfApi = 2, KeysOfRole = 3, Keys = 4, RootKeys = 5,
        KeysOfIdentity = 6, OverridesOfNamespace = 7, RerolledKeys = 8,
        ApisToClear = 9, KeysOfCreator = 10
    }
    Task {
        ExpireRootKey = 1, ExpireKey = 2, PurgeRootKey = 3, PurgeKey = 4,
        ClearApi = 5, ClearRole = 6, PurgePermission = 7, ClearWorkspace = 8,
        SettleCuts = 9, ClearIdentity = 10, ClearNamespace = 11
    }
}

impl Part for Subject {
    fn write(&self, bytes: &mut impl BufMut) {
        let (code, id) = match self {
            Self::Key(id) => (1, id.bytes()),
            Self::Identity(id) => (2, id.bytes()),
            Self::Identifier(digest) => (3, *digest),
        };
        bytes.put_u8(code);
        bytes.put_slice(&id);
    }
    fn read(bytes: &mut &[u8]) -> Option<Self> {
        let [code] = take::<1>(bytes)?;
        let id = take(bytes)?;
        match code {
            1 => Some(Self::Key(KeyId::from_bytes(id))),
            2 => Some(Self::Identity(IdentityId::from_bytes(id))),
            3 => Some(Self::Identifier(id)),
            _ => None,
        }
    }
}

macro_rules! tuple_parts {
    ($(($($part:ident $index:tt),*))*) => {$(
        impl<$($part: Part),*> Part for ($($part,)*) {
            #[allow(unused_variables, reason = "the empty tuple writes nothing")]
            fn write(&self, bytes: &mut impl BufMut) {
                $(self.$index.write(bytes);)*
            }
            #[allow(unused_variables, reason = "the empty tuple reads nothing")]
            fn read(bytes: &mut &[u8]) -> Option<Self> {
                Some(($($part::read(bytes)?,)*))
            }
        }
    )*};
}
tuple_parts! { () (A 0) (A 0, B 1) (A 0, B 1, C 2) (A 0, B 1, C 2, D 3) }
