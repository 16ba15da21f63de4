//! Code generated from the protos, and the two ways in which both users of it meet free-form data.
//!
//! The public messages are for `rpc` and `cli` alone, those of [`storage`] for `store` alone.

#![allow(missing_docs, reason = "the protos carry the documentation, and reflection serves it")]

use crate::domain::value::{Facts, Value};

pub mod counted;

/// The public API, `ostiary.v1`.
#[allow(clippy::all, clippy::pedantic, rustdoc::all)]
pub mod v1 {
    tonic::include_proto!("ostiary.v1");

    /// The descriptors that reflection serves, comments included.
    pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/ostiary.v1.binpb"));
}

/// Envoy's question and its answer, `envoy.service.auth.v3`, with what those are made of.
#[allow(clippy::all, clippy::pedantic, rustdoc::all)]
pub mod envoy {
    pub mod config {
        pub mod core {
            pub mod v3 {
                tonic::include_proto!("envoy.config.core.v3");
            }
        }
    }
    pub mod service {
        pub mod auth {
            pub mod v3 {
                tonic::include_proto!("envoy.service.auth.v3");
            }
        }
    }
    pub mod r#type {
        pub mod v3 {
            tonic::include_proto!("envoy.r#type.v3");
        }
    }

    /// The descriptors that reflection serves.
    pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/envoy.binpb"));
}

// What messages that carry a secret print.
include!(concat!(env!("OUT_DIR"), "/redacted.rs"));

/// What lies on disk, `ostiary.storage.v1`.
#[allow(clippy::all, clippy::pedantic, rustdoc::all)]
pub mod storage {
    tonic::include_proto!("ostiary.storage.v1");
}

/// Free-form data as protobuf knows it.
pub fn from_facts(facts: &Facts) -> prost_types::Struct {
    prost_types::Struct { fields: facts.iter().map(|(name, value)| (name.clone(), from_value(value))).collect() }
}

fn from_value(value: &Value) -> prost_types::Value {
    use prost_types::value::Kind;
    let kind = match value {
        Value::Null => Kind::NullValue(0),
        Value::Bool(truth) => Kind::BoolValue(*truth),
        Value::Number(number) => Kind::NumberValue(*number),
        Value::Text(text) => Kind::StringValue(text.clone()),
        Value::List(values) => {
            Kind::ListValue(prost_types::ListValue { values: values.iter().map(from_value).collect() })
        }
        Value::Map(facts) => Kind::StructValue(from_facts(facts)),
    };
    prost_types::Value { kind: Some(kind) }
}

/// Free-form data as the domain knows it. The decoder has bounded how deep it nests.
pub fn to_facts(data: prost_types::Struct) -> Facts {
    data.fields.into_iter().map(|(name, value)| (name, to_value(value))).collect()
}

fn to_value(value: prost_types::Value) -> Value {
    use prost_types::value::Kind;
    match value.kind {
        None | Some(Kind::NullValue(_)) => Value::Null,
        Some(Kind::BoolValue(truth)) => Value::Bool(truth),
        Some(Kind::NumberValue(number)) => Value::Number(number),
        Some(Kind::StringValue(text)) => Value::Text(text),
        Some(Kind::ListValue(list)) => Value::List(list.values.into_iter().map(to_value).collect()),
        Some(Kind::StructValue(data)) => Value::Map(to_facts(data)),
    }
}
