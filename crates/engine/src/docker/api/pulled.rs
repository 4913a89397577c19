//! The names of images that an engine pulled for us, from the pull to their own name.
//!
//! An image that is pulled has a name, and engines delete an image with its last one. So that name
//! stays until the image has one of the user's, and goes then. It is by digest, in a repository that
//! nobody else has, and gives the image to nobody who did not know its digest.

use transfer::{ConfigDigest, Digest, Reference};

use crate::registry::Loopback;

/// The first part of the repository's name.
const OURS: &str = "longshore";

/// The repository that an image is pulled from.
pub(in crate::docker) fn repository(address: &Loopback, config_digest: &ConfigDigest) -> String {
    format!("{address}/{OURS}/{}", config_digest.0.hex())
}

/// Whether an image was pulled by this name for us, by this process or one before it.
pub(in crate::docker) fn is_ours(name: &Reference) -> bool {
    let address: Option<Loopback> = name.domain().parse().ok();
    let config = name.path().strip_prefix(OURS).and_then(|rest| rest.strip_prefix('/'));
    address.is_some() && config.is_some_and(|config| Digest::from_hex(config).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_we_gave_are_ours() {
        let hex = "a".repeat(64);
        let table = [
            (format!("127.0.0.1:5001/longshore/{hex}@sha256:{hex}"), true),
            (format!("127.0.0.1:5001/longshore/{}@sha256:{hex}", "b".repeat(63)), false),
            (format!("127.0.0.1:5001/other/{hex}@sha256:{hex}"), false),
            (format!("10.0.0.1:5001/longshore/{hex}@sha256:{hex}"), false),
            (format!("quay.io/longshore/{hex}@sha256:{hex}"), false),
            (format!("longshore/{hex}@sha256:{hex}"), false),
            (format!("127.0.0.1:5001/longshore/app@sha256:{hex}"), false),
        ];
        for (name, expected) in table {
            assert_eq!(is_ours(&name.parse().unwrap()), expected, "{name}");
        }
        let config_digest = ConfigDigest(Digest::of(b"config"));
        let name = format!("{}@sha256:{hex}", repository(&Loopback::port(5001), &config_digest));
        assert!(is_ours(&name.parse().unwrap()), "{name}");
    }
}
