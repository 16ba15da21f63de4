//! Turns the protos into code, without needing `protoc`, and the policies that they declare into a table.
//!
//! A method without a policy does not build; nor does one whose permission names an unknown capability.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use prost_reflect::{DescriptorPool, DynamicMessage, MethodDescriptor, Value};

type Failed = Box<dyn std::error::Error>;

/// The option that every method carries.
const POLICY: &str = "ostiary.v1.policy";

fn main() -> Result<(), Failed> {
    println!("cargo:rerun-if-changed=proto");
    #[expect(clippy::disallowed_methods, reason = "this is how cargo talks to a build script")]
    let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    let served = compile(&files_in("proto/ostiary/v1")?, &out, Serve::As("ostiary.v1"))?;
    let of_envoy = compile(&files_in("proto/envoy/service/auth/v3")?, &out, Serve::As("envoy"))?;
    compile(&files_in("proto/ostiary/storage/v1")?, &out, Serve::No)?;
    std::fs::write(out.join("policies.rs"), policies(&served)?)?;
    std::fs::write(out.join("redacted.rs"), redacted_debug(&served)? + &redacted_debug(&of_envoy)?)?;
    Ok(())
}

enum Serve {
    /// With descriptors of that name.
    As(&'static str),
    No,
}

fn files_in(directory: &str) -> Result<Vec<PathBuf>, Failed> {
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(directory)?.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
    files.retain(|path| path.extension().is_some_and(|extension| extension == "proto"));
    files.sort();
    Ok(files)
}

/// Compiles one package; what is served also leaves its descriptors, comments included, for reflection.
fn compile(files: &[PathBuf], out: &Path, serve: Serve) -> Result<DescriptorPool, Failed> {
    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_imports(true).include_source_info(true).open_files(files)?;
    let pool = compiler.descriptor_pool();
    let redacted = redacted(&pool);
    let served = matches!(serve, Serve::As(_));
    let mut config = prost_build::Config::new();
    // What is printed of a message is found by its name.
    config.enable_type_names();
    tonic_prost_build::configure()
        // Answers about keys come by the hundred; what few of them carry does not make all of them large.
        .boxed(".ostiary.v1.Verdict.identity")
        .boxed(".ostiary.v1.BatchVerifyKeysResult.result.verdict")
        .boxed(".ostiary.v1.StreamVerifyKeysResponse.result.verdict")
        .codec_path("crate::pb::counted::Counted")
        .build_client(served)
        .build_transport(false)
        .build_server(served)
        .disable_comments(["."])
        .extern_path(".google.rpc", "::tonic_types::pb")
        .skip_debug(redacted.keys())
        .compile_fds_with_config(compiler.file_descriptor_set(), config)?;
    if let Serve::As(name) = serve {
        std::fs::write(out.join(format!("{name}.binpb")), compiler.encode_file_descriptor_set())?;
    }
    Ok(pool)
}

/// A field of a message that has a secret in it.
struct Field {
    name: String,
    shown: Shown,
}

/// How much of a field is printed.
enum Shown {
    Value,
    /// For a oneof, whose type is printed nowhere else: whether it is set.
    Presence,
    Nothing,
}

/// The messages that carry a secret, with all their fields.
fn redacted(pool: &DescriptorPool) -> BTreeMap<String, Vec<Field>> {
    let is_secret = |field: &prost_reflect::FieldDescriptor| {
        let redact = field.options().get_field_by_name("debug_redact").and_then(|value| value.as_bool());
        redact.unwrap_or(false)
    };
    pool.all_messages()
        .filter(|message| message.fields().any(|field| is_secret(&field)))
        .map(|message| {
            // The fields of a oneof are one field in code, under the oneof's name; what is optional is no real one.
            let alone = |field: &prost_reflect::FieldDescriptor| {
                field.containing_oneof().is_none_or(|oneof| oneof.is_synthetic())
            };
            let fields = message.fields().filter(alone).map(|field| Field {
                name: field.name().to_owned(),
                shown: if is_secret(&field) { Shown::Nothing } else { Shown::Value },
            });
            let oneofs = message
                .oneofs()
                .filter(|oneof| !oneof.is_synthetic())
                .map(|oneof| Field { name: oneof.name().to_owned(), shown: Shown::Presence });
            (message.full_name().to_owned(), fields.chain(oneofs).collect())
        })
        .collect()
}

/// A `Debug` for each of them that hides the secret.
fn redacted_debug(pool: &DescriptorPool) -> Result<String, Failed> {
    let mut code = String::new();
    for (message, fields) in redacted(pool) {
        let (within, name) = message.rsplit_once('.').ok_or("a message has a package")?;
        writeln!(code, "impl ::std::fmt::Debug for {}::{name} {{", module(within))?;
        writeln!(code, "    fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {{")?;
        write!(code, "        f.debug_struct(\"{name}\")")?;
        for Field { name, shown } in fields {
            match shown {
                Shown::Value => write!(code, ".field(\"{name}\", &self.{name})")?,
                Shown::Presence => write!(code, ".field(\"{name}\", &self.{name}.is_some())")?,
                Shown::Nothing => write!(code, ".field(\"{name}\", &\"(hidden)\")")?,
            }
        }
        writeln!(code, ".finish()\n    }}\n}}")?;
    }
    Ok(code)
}

/// The module below `pb` that has what is in a package or in a message.
fn module(full_name: &str) -> String {
    let names = full_name.strip_prefix("ostiary.").unwrap_or(full_name).split('.');
    names.map(snake).collect::<Vec<_>>().join("::")
}

/// `AttributeContext` to `attribute_context`.
fn snake(camel: &str) -> String {
    let mut snake = String::new();
    for (place, letter) in camel.char_indices() {
        if letter.is_ascii_uppercase() && place > 0 {
            snake.push('_');
        }
        snake.push(letter.to_ascii_lowercase());
    }
    snake
}

/// The table of policies, ordered by path.
fn policies(pool: &DescriptorPool) -> Result<String, Failed> {
    let mut rows = BTreeMap::new();
    for service in pool.services().filter(|service| service.package_name() == "ostiary.v1") {
        for method in service.methods() {
            let path = format!("/{}/{}", service.full_name(), method.name());
            let row = policy(pool, &method).map_err(|why| format!("{path}: {why}"))?;
            rows.insert(path, row);
        }
    }
    let mut code = String::from("&[\n");
    for (number, (path, row)) in rows.into_iter().enumerate() {
        writeln!(code, "    ({path:?}, Policy {{ {row}, number: {number} }}),")?;
    }
    code.push(']');
    Ok(code)
}

fn policy(pool: &DescriptorPool, method: &MethodDescriptor) -> Result<String, Failed> {
    let extension = pool.get_extension_by_name(POLICY).ok_or("the policy option is not defined")?;
    let options = method.options();
    if !options.has_extension(&extension) {
        return Err("it declares no policy: option (ostiary.v1.policy)".into());
    }
    let value = options.get_extension(&extension);
    let policy = value.as_message().ok_or("its policy is not a message")?;
    let permission = text(policy, "permission")?;
    let any = policy.get_field_by_name("any_root_key").and_then(|value| value.as_bool()).unwrap_or(false);
    let need = match (permission.as_str(), any) {
        ("", true) => "Need::AnyRootKey".to_owned(),
        ("", false) => return Err("its policy asks for nothing: name a permission or say any_root_key".into()),
        (_, true) => return Err("its policy names a permission and says any_root_key".into()),
        (permission, false) => {
            let action = permission.rsplit('.').next().ok_or("a permission has an action")?;
            format!("Need::Capability(Capability::{})", camel(action))
        }
    };
    let effect = match policy.get_field_by_name("effect").as_deref() {
        Some(Value::EnumNumber(1)) => "Effect::Read",
        Some(Value::EnumNumber(2)) => "Effect::Change",
        Some(Value::EnumNumber(3)) => "Effect::Verify",
        Some(Value::EnumNumber(4)) => "Effect::Count",
        _ => return Err("its policy declares no effect".into()),
    };
    let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
    let messages = if method.is_client_streaming() { "Messages::Many" } else { "Messages::One" };
    let what = format!("need: {need}, effect: {effect}, messages: {messages}");
    Ok(format!("{what}, permission: {permission:?}, path: {path:?}"))
}

fn text(message: &DynamicMessage, field: &str) -> Result<String, Failed> {
    let value = message.get_field_by_name(field).ok_or_else(|| format!("the policy has no field {field}"))?;
    Ok(value.as_str().unwrap_or_default().to_owned())
}

/// `create_root_key` to `CreateRootKey`.
fn camel(snake: &str) -> String {
    snake
        .split('_')
        .map(|word| {
            let (first, rest) = word.split_at(word.len().min(1));
            first.to_uppercase() + rest
        })
        .collect()
}
