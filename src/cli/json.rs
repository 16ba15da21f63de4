//! Messages by their descriptors: as JSON, and from JSON, as protobuf maps them.
//!
//! Names are in lowerCamelCase, times as in RFC 3339, spans in seconds (`"3600s"`), whole numbers of 64 bits as strings,
//! enums by their full names. Fields without presence are written even if they have their default.

use std::sync::LazyLock;

use prost::{Message, Name};
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, SerializeOptions};

use crate::pb::v1::DESCRIPTORS;

use super::failure::Failure;

/// Everything that the API has.
static POOL: LazyLock<Option<DescriptorPool>> = LazyLock::new(|| DescriptorPool::decode(DESCRIPTORS).ok());

fn descriptor(name: &str) -> Result<MessageDescriptor, Failure> {
    let found = POOL.as_ref().and_then(|pool| pool.get_message_by_name(name));
    found.ok_or_else(|| Failure::Broken(format!("{name} is not described")))
}

/// A message with what is known about its fields.
pub fn described<M: Name>(message: &M) -> Result<DynamicMessage, Failure> {
    let mut described = DynamicMessage::new(descriptor(&M::full_name())?);
    described.transcode_from(message).map_err(|error| Failure::Broken(format!("{}: {error}", M::NAME)))?;
    Ok(described)
}

/// A message as one line of JSON.
pub fn line(message: &DynamicMessage) -> Result<String, Failure> {
    let options = SerializeOptions::new().skip_default_fields(false);
    let mut json = serde_json::Serializer::new(Vec::new());
    message.serialize_with_options(&mut json, &options).map_err(|error| Failure::Broken(error.to_string()))?;
    String::from_utf8(json.into_inner()).map_err(|error| Failure::Broken(error.to_string()))
}

/// The message that a JSON text describes.
///
/// # Errors
/// What is wrong with the text and where.
pub fn read<M: Name + Default>(text: &str) -> Result<M, String> {
    read_as(&M::full_name(), text)
}

/// Free-form data from a JSON object.
///
/// # Errors
/// What is wrong with the text and where.
pub fn read_object(text: &str) -> Result<prost_types::Struct, String> {
    read_as("google.protobuf.Struct", text)
}

fn read_as<M: Message + Default>(name: &str, text: &str) -> Result<M, String> {
    let described = descriptor(name).map_err(|_| format!("{name} is not described"))?;
    let mut json = serde_json::Deserializer::from_str(text);
    let message = DynamicMessage::deserialize(described, &mut json).map_err(|error| error.to_string())?;
    json.end().map_err(|error| error.to_string())?;
    message.transcode_to().map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pb::v1 as pb;

    #[test]
    fn what_is_false_or_empty_is_written_and_what_is_absent_is_not() {
        let key = pb::RootKey {
            name: "a\u{1b}b".to_owned(),
            create_time: Some("2026-01-02T03:04:05.678Z".parse().unwrap()),
            state: pb::RootKeyState::Active.into(),
            ..Default::default()
        };
        let line = line(&described(&key).unwrap()).unwrap();
        assert!(line.contains(r#""name":"a\u001bb""#), "{line}");
        assert!(line.contains(r#""enabled":false"#), "{line}");
        assert!(line.contains(r#""allowedCidrs":[]"#), "{line}");
        assert!(line.contains(r#""createTime":"2026-01-02T03:04:05.678Z""#), "{line}");
        assert!(line.contains(r#""state":"ROOT_KEY_STATE_ACTIVE""#), "{line}");
        assert!(!line.contains("expireTime") && !line.contains("rotatedTo"), "{line}");
    }

    #[test]
    fn rows_are_read_in_either_spelling_and_flaws_told() {
        let row: pb::ImportKeysRow = read(r#"{"apiId": "a", "allowed_cidrs": ["10.0.0.0/8"], "ttl": "60s"}"#).unwrap();
        assert_eq!((row.api_id.as_str(), row.allowed_cidrs.len()), ("a", 1));
        assert!(read::<pb::ImportKeysRow>(r#"{"secret": "x"}"#).unwrap_err().contains("secret"));
        assert!(read::<pb::ImportKeysRow>("{} {}").is_err());
        assert!(read::<pb::ImportKeysRow>("[]").is_err());
    }
}
