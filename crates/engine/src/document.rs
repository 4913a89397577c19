//! What a manifest or index says of itself.

use serde::Deserialize;
use transfer::{Descriptor, MediaType};

/// A document by what it says that it is; `usual` where it does not say, as the specification
/// allows.
pub(crate) fn described(document: &[u8], usual: &str) -> Descriptor {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Typed {
        media_type: Option<MediaType>,
    }
    let typed: Option<Typed> = serde_json::from_slice(document).ok();
    let told = typed.and_then(|typed| typed.media_type);
    let usual = Descriptor::of(usual, document);
    Descriptor { media_type: told.unwrap_or(usual.media_type), ..usual }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_has_the_last_word_on_what_it_is() {
        let check = |text: &str, expected: &str| {
            let described = described(text.as_bytes(), "usual");
            assert_eq!(described.media_type.as_str(), expected, "{text}");
            assert_eq!(described.size, text.len() as u64);
        };
        check(r#"{"mediaType":"own"}"#, "own");
        check(r#"{"mediaType":null}"#, "usual");
        check("{}", "usual");
        check("no JSON", "usual");
    }
}
