//! The committed bindings match the .proto files.
//!
//! Building needs neither protoc nor a build script: the bindings are made here, compared with what
//! is committed, and with `LONGSHORE_BLESS=1` written instead (`cargo xtask codegen`).

use std::path::{Path, PathBuf};

use prost_types::FileDescriptorSet;
use prost_types::field_descriptor_proto::Type;

/// Every file of the package; what they import comes along.
const FILES: [&str; 6] = [
    "longshore/v1/image.proto",
    "longshore/v1/inventory_service.proto",
    "longshore/v1/blob_service.proto",
    "longshore/v1/admin_service.proto",
    "longshore/v1/range_service.proto",
    "longshore/v1/link_service.proto",
];

/// Folder of the generated code, beneath the crate.
const GENERATED: &str = "src/gen";

fn crate_dir() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Compiles the .proto files with protox; comments go into the bindings only.
fn descriptors(with_comments: bool) -> FileDescriptorSet {
    use prost::Message as _;
    let mut compiler = protox::Compiler::new([crate_dir()]).unwrap();
    compiler.include_imports(true).include_source_info(with_comments);
    compiler.open_files(FILES).unwrap();
    FileDescriptorSet::decode(compiler.encode_file_descriptor_set().as_slice()).unwrap()
}

/// The fields that carry a blob's bytes or documents: a log line never prints them.
fn payload_messages(set: &FileDescriptorSet) -> Vec<String> {
    let ours = set.file.iter().filter(|file| file.package() == "longshore.v1");
    ours.flat_map(|file| &file.message_type)
        .filter(|message| message.field.iter().any(|field| field.r#type() == Type::Bytes))
        .map(|message| format!(".longshore.v1.{}", message.name()))
        .collect()
}

fn generate(into: &Path) {
    use prost::Message as _;
    let commented = descriptors(true);
    tonic_prost_build::configure()
        .out_dir(into)
        .bytes(".")
        .skip_debug(payload_messages(&commented))
        .extern_path(".google.rpc.Status", "::tonic_types::Status")
        .emit_rerun_if_changed(false)
        .compile_fds(commented)
        .unwrap();
    std::fs::write(into.join("longshore.v1.bin"), descriptors(false).encode_to_vec()).unwrap();
}

fn names_in(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn the_committed_bindings_are_what_the_schema_says() {
    let committed = crate_dir().join(GENERATED);
    if std::env::var_os("LONGSHORE_BLESS").is_some() {
        generate(&committed);
        return;
    }
    let fresh = tempfile::tempdir().unwrap();
    generate(fresh.path());
    assert_eq!(names_in(fresh.path()), names_in(&committed), "other files are generated now");
    for name in names_in(fresh.path()) {
        let (now, then) = (fresh.path().join(&name), committed.join(&name));
        assert!(
            std::fs::read(now).unwrap() == std::fs::read(then).unwrap(),
            "{name} is not what the .proto files say: run `cargo xtask codegen`"
        );
    }
}
