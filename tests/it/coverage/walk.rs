//! The methods as the descriptor has them, and bodies for them: made from the fields, not from a list of methods.

use std::collections::BTreeMap;

use ostiary::domain::capability::Capability;
use ostiary::pb::v1::DESCRIPTORS;
use prost::Message as _;
use prost_reflect::{
    Cardinality, DescriptorPool, DynamicMessage, FieldDescriptor, Kind as Shape, MessageDescriptor, MethodDescriptor,
    ReflectMessage as _, Value,
};

/// `google.api.FieldBehavior.REQUIRED`.
const REQUIRED: i32 = 2;
/// `ostiary.v1.EFFECT_CHANGE` and `ostiary.v1.EFFECT_COUNT`.
const CHANGING: [i32; 2] = [2, 4];

/// Kinds of objects that a request can name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Workspace,
    RootKey,
    Api,
    Key,
    /// A key, by its secret.
    Secret,
    Role,
    Permission,
    Identity,
    Namespace,
}

impl Kind {
    pub const ALL: [Self; 9] = [
        Self::Workspace,
        Self::RootKey,
        Self::Api,
        Self::Key,
        Self::Secret,
        Self::Role,
        Self::Permission,
        Self::Identity,
        Self::Namespace,
    ];

    /// The reason that says there is none.
    pub fn not_found(self) -> &'static str {
        match self {
            Self::Workspace => "WORKSPACE_NOT_FOUND",
            Self::RootKey => "ROOT_KEY_NOT_FOUND",
            Self::Api => "API_NOT_FOUND",
            Self::Key | Self::Secret => "KEY_NOT_FOUND",
            Self::Role => "ROLE_NOT_FOUND",
            Self::Permission => "PERMISSION_NOT_FOUND",
            Self::Identity => "IDENTITY_NOT_FOUND",
            Self::Namespace => "NAMESPACE_NOT_FOUND",
        }
    }

    /// The kind whose id stands in the grants for it: a key's grants name its API.
    pub fn granted_by(self) -> Self {
        match self {
            Self::Key | Self::Secret => Self::Api,
            _ => self,
        }
    }
}

/// What a field of a request is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    /// It names an object, or several.
    Object(Kind),
    /// It is compared with what the caller sees anyway.
    Mention(Kind),
    /// It names none.
    Plain,
}

/// One method.
#[derive(Clone)]
pub struct Method {
    pub path: String,
    pub input: MessageDescriptor,
    pub output: MessageDescriptor,
    /// What it needs; none for those that any root key may call.
    pub capability: Option<Capability>,
    /// Whether it may change something.
    pub changes: bool,
}

pub fn pool() -> DescriptorPool {
    DescriptorPool::decode(DESCRIPTORS).unwrap()
}

/// Every method of every service of ostiary.
pub fn methods() -> Vec<Method> {
    let pool = pool();
    let services = pool.services().filter(|service| service.package_name() == "ostiary.v1");
    let methods: Vec<Method> = services.flat_map(|service| service.methods().collect::<Vec<_>>()).map(method).collect();
    assert!(methods.len() >= 59, "only {} methods", methods.len());
    methods
}

fn method(method: MethodDescriptor) -> Method {
    let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
    // A stream of one message that is answered with one is, on the wire, what a single call is.
    let extension = method.parent_pool().get_extension_by_name("ostiary.v1.policy").unwrap();
    let options = method.options();
    let policy = options.get_extension(&extension);
    let policy = policy.as_message().unwrap();
    let permission = policy.get_field_by_name("permission").unwrap().as_str().unwrap().to_owned();
    let changes =
        policy.get_field_by_name("effect").unwrap().as_enum_number().is_some_and(|effect| CHANGING.contains(&effect));
    let action = permission.rsplit('.').next().unwrap();
    let capability = Capability::ALL.iter().copied().find(|capability| capability.action() == action);
    let any = policy.get_field_by_name("any_root_key").unwrap().as_bool().unwrap();
    assert_eq!(capability.is_none(), any, "{path}: a method needs a permission or says that it needs none");
    Method { path, input: method.input(), output: method.output(), capability, changes }
}

/// Whether a change can be asked for without being made.
pub fn can_be_tried(method: &Method) -> bool {
    method.input.get_field_by_name("validate_only").is_some()
}

/// What a field is for. A field that this table doesn't know fails whichever test meets it.
pub fn meaning(field: &FieldDescriptor) -> Meaning {
    let (message, name) = (field.parent_message().name().to_owned(), field.name());
    match (message.as_str(), name) {
        ("CreateRootKeyRequest" | "UpdateRootKeyRequest" | "VerifyKeyRequest", "permissions") => Meaning::Plain,
        // What the filter names need not exist.
        ("RevokeKeysFilter", "role") => Meaning::Mention(Kind::Role),
        // An id is looked for among those who made keys, not among root keys: each call with one is a change of its own.
        ("RevokeKeysFilter", "identity" | "created_by") => Meaning::Plain,
        (_, "workspace_id") => Meaning::Object(Kind::Workspace),
        (_, "root_key_id" | "root_key_ids") => Meaning::Object(Kind::RootKey),
        (_, "api_id") => Meaning::Object(Kind::Api),
        (_, "key_id") => Meaning::Object(Kind::Key),
        ("LookupKeyRequest", "secret") | ("VerifyKeyRequest", "key") => Meaning::Object(Kind::Secret),
        (_, "role" | "roles") => Meaning::Object(Kind::Role),
        (_, "permission" | "permissions") => Meaning::Object(Kind::Permission),
        (_, "identity") => Meaning::Object(Kind::Identity),
        (_, "namespace") => Meaning::Object(Kind::Namespace),
        (_, "created_by" | "actor_id") => Meaning::Mention(Kind::RootKey),
        (_, "target_id") => Meaning::Mention(Kind::Api),
        (
            _,
            "name"
            | "slug"
            | "description"
            | "metadata"
            | "external_id"
            | "external_id_contains"
            | "rate_limits"
            | "limit"
            | "duration"
            | "auto_apply"
            | "prefix"
            | "enabled"
            | "quotas"
            | "max_keys"
            | "max_root_keys"
            | "calls_per_second"
            | "expire_time"
            | "ttl"
            | "allowed_cidrs"
            | "validate_only"
            | "force"
            | "cascade"
            | "permanent"
            | "etag"
            | "update_mask"
            | "min_revision"
            | "view"
            | "page_size"
            | "page_token"
            | "resume_token"
            | "filter"
            | "show_deleted"
            | "grace_period"
            | "default_prefix"
            | "default_ttl"
            | "delete_protection"
            | "client_ip"
            | "dry_run"
            | "name_contains"
            | "permission_contains"
            | "state"
            | "create_after"
            | "create_before"
            | "expire_before"
            | "last_used_before"
            | "start"
            | "search"
            | "event"
            | "after"
            | "before"
            | "credits"
            | "remaining"
            | "refill"
            | "interval"
            | "amount"
            | "day"
            | "operation"
            | "cost"
            | "tags"
            | "rows"
            | "hash"
            | "algorithm"
            | "requests"
            | "request"
            | "correlation_id"
            | "items"
            | "identifier"
            | "identifier_contains",
        ) => Meaning::Plain,
        (message, name) => panic!("{message}.{name}: say in this table what it means"),
    }
}

/// A value for a required field that names no object.
fn sample(field: &FieldDescriptor) -> Value {
    match field.name() {
        "name" => text("a name"),
        "external_id" => text("somebody made"),
        "slug" => text("samples.made"),
        "permissions" => Value::List(vec![text("apis.*.read_api")]),
        "operation" | "algorithm" => Value::EnumNumber(1),
        "hash" => text(&"5a".repeat(32)),
        "identifier" => text("a name"),
        "limit" | "amount" => Value::I64(1),
        "duration" | "grace_period" => {
            let Shape::Message(span) = field.kind() else { panic!("a span is a message") };
            let mut message = DynamicMessage::new(span);
            message.set_field_by_name("seconds", Value::I64(60));
            Value::Message(message)
        }
        "filter" => Value::Message(filter(field)),
        name => panic!("{}.{name}: say here what value it takes", field.parent_message().name()),
    }
}

/// A filter that fits nothing: what was made before time began.
fn filter(field: &FieldDescriptor) -> DynamicMessage {
    let Shape::Message(message) = field.kind() else { panic!("{} is no message", field.name()) };
    let mut filter = DynamicMessage::new(message.clone());
    let before = message.get_field_by_name("create_before").unwrap();
    // Asking for a message makes it.
    let _epoch = filter.get_field_mut(&before);
    filter
}

pub fn text(text: &str) -> Value {
    Value::String(text.to_owned())
}

/// Whether a request without the field is refused.
pub fn is_required(field: &FieldDescriptor) -> bool {
    behaviours(field).contains(&REQUIRED)
}

/// The `google.api.field_behavior` of a field.
pub fn behaviours(field: &FieldDescriptor) -> Vec<i32> {
    let extension = field.parent_pool().get_extension_by_name("google.api.field_behavior").unwrap();
    let options = field.options();
    let value = options.get_extension(&extension);
    value.as_list().unwrap_or_default().iter().filter_map(Value::as_enum_number).collect()
}

/// Where a field is in a request: its own field, or the field of a filter.
pub type Place = Vec<FieldDescriptor>;

/// All fields of a request, those of its filters included.
pub fn places(message: &MessageDescriptor) -> Vec<Place> {
    let mut all = Vec::new();
    for field in message.fields() {
        all.push(vec![field.clone()]);
        // What is wrong with one of many is said in its own answer, not by the call's status.
        let one_of_many = matches!(field.name(), "rows" | "requests" | "request");
        if let Shape::Message(inner) = field.kind()
            && inner.package_name() == "ostiary.v1"
            && !one_of_many
        {
            all.extend(places(&inner).into_iter().map(|rest| [vec![field.clone()], rest].concat()));
        }
    }
    all
}

/// The path of a field as errors spell it.
pub fn spelled(place: &Place) -> String {
    let (last, before) = place.split_last().unwrap();
    let entry = |field: &FieldDescriptor| match field.is_list() {
        true => format!("{}[0].", field.name()),
        false => format!("{}.", field.name()),
    };
    before.iter().map(entry).collect::<String>() + last.name()
}

/// Sets a field; a value for a list is its only entry.
pub fn set(message: &mut DynamicMessage, place: &[FieldDescriptor], value: Value) {
    let (field, rest) = place.split_first().unwrap();
    if rest.is_empty() {
        let wraps = field.cardinality() == Cardinality::Repeated && value.as_list().is_none();
        message.set_field(field, if wraps { Value::List(vec![value]) } else { value });
    } else {
        let mut entry = match message.get_field(field).into_owned() {
            Value::List(entries) => entries.into_iter().next().unwrap_or_else(|| empty(field)),
            entry => entry,
        };
        let Value::Message(inner) = &mut entry else { panic!("{} is no message", field.name()) };
        set(inner, rest, value);
        message.set_field(field, if field.is_list() { Value::List(vec![entry]) } else { entry });
    }
}

fn empty(field: &FieldDescriptor) -> Value {
    let Shape::Message(message) = field.kind() else { panic!("{} is no message", field.name()) };
    Value::Message(DynamicMessage::new(message))
}

/// A body with every required field set, naming these objects.
pub fn body(message: &MessageDescriptor, objects: &BTreeMap<Kind, Object>) -> DynamicMessage {
    let mut body = DynamicMessage::new(message.clone());
    for field in message.fields().filter(is_required) {
        let value = match meaning(&field) {
            Meaning::Object(kind) | Meaning::Mention(kind) => text(&objects[&kind].id),
            Meaning::Plain => match field.kind() {
                Shape::Message(inner) if inner.package_name() == "ostiary.v1" && inner.name() != "RevokeKeysFilter" => {
                    Value::Message(self::body(&inner, objects))
                }
                _ => sample(&field),
            },
        };
        set(&mut body, &[field], value);
    }
    body
}

/// The same body with another value for the field of that name, if there is one.
pub fn with(body: &DynamicMessage, name: &str, value: Value) -> Option<DynamicMessage> {
    let field = body.descriptor().get_field_by_name(name)?;
    let mut body = body.clone();
    set(&mut body, &[field], value);
    Some(body)
}

pub fn bytes(body: &DynamicMessage) -> Vec<u8> {
    body.encode_to_vec()
}

/// An object as a request can name it.
#[derive(Debug, Clone)]
pub struct Object {
    /// By id, or by secret.
    pub id: String,
    /// By name or slug.
    pub name: Option<String>,
}

impl Object {
    pub fn of_id(id: impl Into<String>) -> Self {
        Self { id: id.into(), name: None }
    }
}
