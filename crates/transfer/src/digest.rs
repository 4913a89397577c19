//! Digests and the IDs made of them, as types that cannot be mixed up.
//!
//! Spec: <https://github.com/opencontainers/image-spec/blob/v1.1.1/descriptor.md#digests> and
//! <https://github.com/opencontainers/image-spec/blob/v1.1.1/config.md#layer-chainid>.
//! This is the only module that names a hash library.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::digest::{self, Context, SHA256};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The SHA-256 of a blob's bytes, written `sha256:` and 64 lower-case hex digits.
///
/// SHA-256 is the only algorithm that the engines we speak to produce; a `sha512:` digest is
/// refused when parsed, never carried unverified. What has this type is safe as a file name and in
/// a URL.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest([u8; 32]);

/// A text that is not a digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a digest: expected sha256: and 64 lower-case hex digits")]
pub struct InvalidDigest {
    /// What was to be parsed, cut to a length that is safe to print.
    pub text: String,
}

impl Digest {
    const PREFIX: &str = "sha256:";

    /// The digest of `bytes`, all at once.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        from_output(&digest::digest(&SHA256, bytes))
    }

    /// The 64 hex digits without the algorithm: a file's name in an OCI layout.
    #[must_use]
    pub fn hex(&self) -> String {
        hex::encode(self.0)
    }

    /// Parses the 64 hex digits alone, as OCI layouts and engines name files.
    ///
    /// # Errors
    /// [`InvalidDigest`] unless `text` is exactly 64 lower-case hex digits.
    pub fn from_hex(text: &str) -> Result<Self, InvalidDigest> {
        let invalid = || InvalidDigest { text: text.chars().take(80).collect() };
        let lower = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if text.len() != 64 || !text.bytes().all(lower) {
            return Err(invalid());
        }
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| invalid())?;
        Ok(Self(bytes))
    }
}

impl FromStr for Digest {
    type Err = InvalidDigest;

    fn from_str(text: &str) -> Result<Self, InvalidDigest> {
        let invalid = || InvalidDigest { text: text.chars().take(80).collect() };
        let hex = text.strip_prefix(Self::PREFIX).ok_or_else(invalid)?;
        Self::from_hex(hex).map_err(|_| invalid())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", Self::PREFIX, self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

fn from_output(output: &digest::Digest) -> Digest {
    Digest(output.as_ref().try_into().expect("invariant: a SHA-256 has 32 bytes"))
}

/// Hashes bytes as they pass by; [`Hasher::digest`] may be asked at any point.
#[derive(Clone)]
pub struct Hasher(Context);

impl Default for Hasher {
    fn default() -> Self {
        Self(Context::new(&SHA256))
    }
}

impl Hasher {
    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of everything taken so far.
    #[must_use]
    pub fn digest(&self) -> Digest {
        from_output(&self.0.clone().finish())
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hasher(sha256)")
    }
}

macro_rules! id_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Digest);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.0)
            }
        }

        impl FromStr for $name {
            type Err = InvalidDigest;

            fn from_str(text: &str) -> Result<Self, InvalidDigest> {
                text.parse().map(Self)
            }
        }
    };
}

id_type! {
    /// The digest of a layer's *uncompressed* tar.
    DiffId
}
id_type! {
    /// A stack of layers: what a graphdriver knows a layer by.
    ChainId
}
id_type! {
    /// The digest of the image config: the image's name across engines.
    ConfigDigest
}
id_type! {
    /// What one engine calls an image: the config digest on a graphdriver, the target (manifest or
    /// index) digest on the containerd store. Never compared across engines.
    EngineImageId
}

impl ChainId {
    /// The chain ID of every prefix of `diff_ids`, the shortest first.
    ///
    /// `ChainID(L0) = DiffID(L0)`; `ChainID(L0..n) = Digest(ChainID(L0..n-1) + " " + DiffID(Ln))`.
    #[must_use]
    pub fn chain(diff_ids: &[DiffId]) -> Vec<Self> {
        let mut chain: Vec<Self> = Vec::with_capacity(diff_ids.len());
        for diff_id in diff_ids {
            let digest = match chain.last() {
                None => diff_id.0,
                Some(parent) => Digest::of(format!("{parent} {diff_id}").as_bytes()),
            };
            chain.push(Self(digest));
        }
        chain
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lower_case_sha256_parses() {
        let good = format!("sha256:{}", "0a".repeat(32));
        assert_eq!(good.parse::<Digest>().unwrap().to_string(), good);
        let bad = [
            String::new(),
            "sha256:".into(),
            "0a".repeat(32),
            good.to_uppercase(),
            format!("sha256:{}", "0A".repeat(32)),
            format!("sha256:{}", "0a".repeat(31)),
            format!("sha256:{}0", "0a".repeat(32)),
            format!("sha512:{}", "0a".repeat(64)),
            format!("sha256:../{}", "a".repeat(61)),
            format!("sha256:{}\n", "0a".repeat(32)),
            format!(" {good}"),
        ];
        for text in bad {
            assert!(text.parse::<Digest>().is_err(), "{text:?} was accepted");
        }
    }

    #[test]
    fn a_hasher_agrees_with_the_digest_of_the_whole() {
        let mut hasher = Hasher::default();
        hasher.update(b"la");
        assert_eq!(hasher.digest(), Digest::of(b"la"));
        hasher.update(b"yer");
        assert_eq!(hasher.digest(), Digest::of(b"layer"));
    }

    #[test]
    fn a_chain_id_covers_everything_below_it() {
        let ids: Vec<_> = [b"a", b"b", b"c"].map(|b| DiffId(Digest::of(b))).to_vec();
        let chain = ChainId::chain(&ids);
        assert_eq!(chain[0].0, ids[0].0);
        assert_eq!(chain[1].0, Digest::of(format!("{} {}", ids[0], ids[1]).as_bytes()));
        assert_eq!(ChainId::chain(&ids[..2]), chain[..2]);
        assert_ne!(ChainId::chain(&[ids[1], ids[0]])[1], chain[1]);
    }
}
