//! Answers of a host agent, for people and for programs.

use control::admin::{Pruned, ServedRange, StoreCheck};
use process::output::{count, size};
use serde_json::{Value, json};

/// A range that is served, and where.
pub(super) fn added(range: &ServedRange) -> String {
    let tcp = range.tcp_endpoint.map_or_else(String::new, |address| format!(" and {address}"));
    format!("{}: served at {}{tcp}\n", range.name, range.socket_path.display())
}

/// Layers that were removed, or would be.
pub(super) fn pruned(pruned: &Pruned, dry_run: bool) -> String {
    let verb = if dry_run { "would be removed" } else { "removed" };
    format!(
        "{verb}: {} of {}; kept since somebody reads them or may soon: {}\n",
        blobs(pruned.blobs),
        size(pruned.bytes),
        pruned.kept_leased
    )
}

/// The same for programs.
pub(super) fn pruned_json(pruned: &Pruned) -> Value {
    json!({ "blobs": pruned.blobs, "bytes": pruned.bytes, "kept": pruned.kept_leased })
}

/// Layers that were read again, each damaged one on a line.
pub(super) fn checked(check: &StoreCheck) -> String {
    let mut text = format!(
        "read {} of {}; {} damaged\n",
        blobs(check.blobs),
        size(check.bytes),
        check.quarantined.len()
    );
    for digest in &check.quarantined {
        text += &format!("{digest}: damaged, put aside; it is read from its source again\n");
    }
    text
}

/// The same for programs.
pub(super) fn checked_json(check: &StoreCheck) -> Value {
    let damaged: Vec<String> = check.quarantined.iter().map(ToString::to_string).collect();
    json!({ "blobs": check.blobs, "bytes": check.bytes, "damaged": damaged })
}

fn blobs(number: u64) -> String {
    count(usize::try_from(number).unwrap_or(usize::MAX), "layer")
}

#[cfg(test)]
mod tests {
    use transfer::Digest;

    use super::*;

    #[test]
    fn pruning_says_what_went_or_would_go() {
        let done = Pruned { blobs: 2, bytes: 3 << 20, kept_leased: 1 };
        assert_eq!(
            pruned(&done, false),
            "removed: 2 layers of 3.0 MiB; kept since somebody reads them or may soon: 1\n"
        );
        assert!(pruned(&done, true).starts_with("would be removed: 2 layers"));
        assert_eq!(pruned_json(&done).to_string(), r#"{"blobs":2,"bytes":3145728,"kept":1}"#);
    }

    #[test]
    fn a_damaged_layer_is_named() {
        let digest = Digest::of(b"layer");
        let check = StoreCheck { blobs: 1, bytes: 5, quarantined: vec![digest] };
        assert_eq!(
            checked(&check),
            format!(
                "read 1 layer of 5 B; 1 damaged\n{digest}: damaged, put aside; it is read from its \
                 source again\n"
            )
        );
        assert_eq!(checked_json(&check)["damaged"][0], digest.to_string());
    }
}
