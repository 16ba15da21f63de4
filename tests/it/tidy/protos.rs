//! The protos are the manual: everything in them is explained, and shaped alike.

use ostiary::pb::v1::DESCRIPTORS;
use prost::Message;
use prost_types::{DescriptorProto, EnumDescriptorProto, FileDescriptorProto, FileDescriptorSet};

use crate::coverage::walk;

// Field numbers of the descriptors, of which the paths of elements are made.
const MESSAGES: i32 = 4;
const ENUMS: i32 = 5;
const SERVICES: i32 = 6;
const EXTENSIONS: i32 = 7;
const SYNTAX: i32 = 12;
const OF_MESSAGE_FIELDS: i32 = 2;
const OF_MESSAGE_MESSAGES: i32 = 3;
const OF_MESSAGE_ENUMS: i32 = 4;
const OF_MESSAGE_ONEOFS: i32 = 8;
const OF_ENUM_VALUES: i32 = 2;
const OF_SERVICE_METHODS: i32 = 2;

fn files() -> Vec<FileDescriptorProto> {
    let set = FileDescriptorSet::decode(DESCRIPTORS).unwrap();
    let files: Vec<_> = set.file.into_iter().filter(|file| file.package() == "ostiary.v1").collect();
    assert!(files.len() >= 11);
    files
}

/// Elements of a file by name, each with its path.
fn elements(file: &FileDescriptorProto) -> Vec<(String, Vec<i32>)> {
    let mut all = Vec::new();
    for (index, message) in (0..).zip(&file.message_type) {
        of_message(&mut all, message, vec![MESSAGES, index]);
    }
    for (index, of_file) in (0..).zip(&file.enum_type) {
        of_enum(&mut all, of_file, vec![ENUMS, index]);
    }
    for (index, service) in (0..).zip(&file.service) {
        all.push((service.name().to_owned(), vec![SERVICES, index]));
        for (number, method) in (0..).zip(&service.method) {
            let name = format!("{}.{}", service.name(), method.name());
            all.push((name, vec![SERVICES, index, OF_SERVICE_METHODS, number]));
        }
    }
    for (index, extension) in (0..).zip(&file.extension) {
        all.push((extension.name().to_owned(), vec![EXTENSIONS, index]));
    }
    all
}

fn of_message(all: &mut Vec<(String, Vec<i32>)>, message: &DescriptorProto, path: Vec<i32>) {
    if message.options.as_ref().is_some_and(prost_types::MessageOptions::map_entry) {
        return;
    }
    let below = |number: i32, index: i32| [path.clone(), vec![number, index]].concat();
    for (index, field) in (0..).zip(&message.field) {
        all.push((format!("{}.{}", message.name(), field.name()), below(OF_MESSAGE_FIELDS, index)));
    }
    for (index, oneof) in (0..).zip(&message.oneof_decl) {
        let of_it = |field: &&prost_types::FieldDescriptorProto| field.oneof_index == Some(index);
        // `optional` makes a oneof of its own, which nobody writes.
        if !message.field.iter().filter(of_it).any(prost_types::FieldDescriptorProto::proto3_optional) {
            all.push((format!("{}.{}", message.name(), oneof.name()), below(OF_MESSAGE_ONEOFS, index)));
        }
    }
    for (index, inner) in (0..).zip(&message.nested_type) {
        of_message(all, inner, below(OF_MESSAGE_MESSAGES, index));
    }
    for (index, inner) in (0..).zip(&message.enum_type) {
        of_enum(all, inner, below(OF_MESSAGE_ENUMS, index));
    }
    all.push((message.name().to_owned(), path));
}

fn of_enum(all: &mut Vec<(String, Vec<i32>)>, of_file: &EnumDescriptorProto, path: Vec<i32>) {
    for (index, value) in (0..).zip(&of_file.value) {
        all.push((value.name().to_owned(), [path.clone(), vec![OF_ENUM_VALUES, index]].concat()));
    }
    all.push((of_file.name().to_owned(), path));
}

#[test]
fn every_element_of_the_protos_is_explained_in_sentences() {
    let mut explained = 0;
    for file in files() {
        let locations = &file.source_code_info.as_ref().unwrap().location;
        for (name, path) in elements(&file) {
            let location = locations.iter().find(|location| location.path == path);
            let comment = location.map(|location| location.leading_comments().trim().to_owned()).unwrap_or_default();
            assert!(comment.len() >= 4, "{}: {name} has no comment", file.name());
            assert!(comment.ends_with(['.', ':', '`', '|']), "{}: {name}: {comment}", file.name());
            explained += 1;
        }
        let head = locations.iter().find(|location| location.path == [SYNTAX]).unwrap();
        let says = !head.leading_comments().is_empty() || !head.leading_detached_comments.is_empty();
        assert!(says, "{} does not say what it is for", file.name());
    }
    assert!(explained > 400, "{explained}");
}

#[test]
fn every_field_of_a_request_says_whether_it_is_required() {
    for method in walk::methods() {
        for place in walk::places(&method.input) {
            let field = place.last().unwrap();
            let behaviours = walk::behaviours(field);
            assert!(!behaviours.is_empty(), "{}", field.full_name());
            let (optional, required) = (1, 2);
            assert!(behaviours.contains(&optional) != behaviours.contains(&required), "{}", field.full_name());
        }
    }
}

#[test]
fn every_method_has_its_own_messages_and_every_answer_begins_with_its_meta() {
    for method in walk::methods() {
        let name = method.path.rsplit('/').next().unwrap();
        assert_eq!(method.input.name(), format!("{name}Request"));
        assert_eq!(method.output.name(), format!("{name}Response"));
        let first = method.output.get_field(1).unwrap();
        assert_eq!((first.name(), first.kind().as_message().unwrap().name()), ("meta", "ResponseMeta"), "{name}");
    }
}

#[test]
fn enums_begin_with_unspecified_and_their_values_carry_their_name() {
    for one in walk::pool().all_enums().filter(|one| one.package_name() == "ostiary.v1") {
        let prefix: String = one.name().char_indices().fold(String::new(), |mut text, (at, c)| {
            if at > 0 && c.is_ascii_uppercase() {
                text.push('_');
            }
            text.push(c.to_ascii_uppercase());
            text
        });
        assert_eq!(one.get_value(0).unwrap().name(), format!("{prefix}_UNSPECIFIED"));
        for value in one.values() {
            assert!(value.name().starts_with(&format!("{prefix}_")), "{}", value.full_name());
        }
    }
}

#[test]
fn every_file_has_the_options_that_generated_clients_need() {
    for file in files() {
        let options = file.options.as_ref().unwrap();
        assert!(file.name().starts_with("ostiary/v1/"), "{}", file.name());
        assert!(!options.go_package().is_empty() && !options.csharp_namespace().is_empty(), "{}", file.name());
        assert!(!options.java_package().is_empty() && options.java_multiple_files(), "{}", file.name());
    }
}

#[test]
fn changes_can_be_tried_and_reads_can_ask_for_a_revision() {
    for method in walk::methods() {
        let has = |name: &str| method.input.get_field_by_name(name).is_some();
        // What only counts is tried with a cost of 0; rows are imported each for itself.
        let untried = ["/Limit", "/BatchLimit", "/ImportKeys"].iter().any(|name| method.path.ends_with(name));
        assert_eq!(has("validate_only"), method.changes && !untried, "{}", method.path);
        // Of many questions each asks for its own; what is told for ever comes to every revision; what a server is does
        // not depend on any.
        let without = ["/BatchVerifyKeys", "/StreamVerifyKeys", "/WatchAuditEvents", "/GetServerInfo"];
        let without = without.iter().any(|without| method.path.ends_with(without));
        assert_eq!(has("min_revision"), !method.changes && !without, "{}", method.path);
        assert_eq!(has("page_size"), has("page_token"), "{}", method.path);
        assert_eq!(has("update_mask"), method.path.contains("/Update"), "{}", method.path);
    }
}
