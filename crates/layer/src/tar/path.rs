//! Paths of entries: relative to the archive's root, without parts that mean nothing.

use super::MAX_PATH;
use super::field::shown;

/// A path relative to the root: no slash at either end, no `.` and no `..` in it.
pub type Path = Box<[u8]>;

/// The path as an engine resolves it in a root; `None` for the root itself.
///
/// # Errors
/// The path leads upwards.
pub fn clean(path: &[u8]) -> Result<Option<Path>, String> {
    let mut parts = Vec::new();
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => return Err(format!("path {:?} leads upwards", shown(path))),
            part => parts.push(part),
        }
    }
    Ok((!parts.is_empty()).then(|| parts.join(&b'/').into()))
}

/// The path as a key of an index: relative UTF-8, empty for the root itself.
pub(super) fn inside(path: &[u8]) -> Result<String, String> {
    let wrong = |what: &str| Err(format!("path {:?} {what}", shown(path)));
    if MAX_PATH < path.len() {
        return wrong("is too long");
    }
    let Ok(text) = std::str::from_utf8(path) else { return wrong("is not UTF-8") };
    if text.contains('\0') {
        return wrong("has a NUL");
    }
    if text.starts_with('/') {
        return wrong("is absolute");
    }
    let mut kept = Vec::new();
    for component in text.split('/') {
        match component {
            "" | "." => {}
            ".." => return wrong("leaves the archive"),
            component => kept.push(component),
        }
    }
    Ok(kept.join("/"))
}

/// The target of a symbolic link at `path`, as a key. It may go up, as `docker save` writes it, and
/// not out of the archive.
pub(super) fn link_target(path: &str, link: &[u8]) -> Result<String, String> {
    let wrong = |what: &str| Err(format!("link {:?} of {path:?} {what}", shown(link)));
    if MAX_PATH < link.len() {
        return wrong("is too long");
    }
    let Ok(text) = std::str::from_utf8(link) else { return wrong("is not UTF-8") };
    if text.is_empty() || text.contains('\0') {
        return wrong("leads nowhere");
    }
    if text.starts_with('/') {
        return wrong("is absolute");
    }
    let mut kept: Vec<&str> = path.split('/').collect();
    kept.pop();
    for component in text.split('/') {
        match component {
            "" | "." => {}
            ".." if kept.pop().is_none() => return wrong("leaves the archive"),
            ".." => {}
            component => kept.push(component),
        }
    }
    Ok(kept.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_inside() {
        for (path, expected) in [
            ("a/b", Some("a/b")),
            ("./a//b/", Some("a/b")),
            ("./", Some("")),
            ("a..b", Some("a..b")),
            ("..", None),
            ("a/../b", None),
            ("/a", None),
            ("a/..", None),
            ("a\0b", None),
        ] {
            assert_eq!(inside(path.as_bytes()).ok().as_deref(), expected, "{path:?}");
        }
        assert!(inside(&vec![b'a'; MAX_PATH + 1]).is_err() && inside(b"\xff").is_err());
        for (link, expected) in [
            ("../b/layer.tar", Some("b/layer.tar")),
            ("layer.tar", Some("a/layer.tar")),
            ("../../b", None),
            ("/etc/shadow", None),
            ("../b/../../c", None),
            ("", None),
        ] {
            assert_eq!(link_target("a/x", link.as_bytes()).ok().as_deref(), expected, "{link:?}");
        }
    }

    #[test]
    fn paths_are_made_clean_or_refused() {
        let clean = |path: &str| clean(path.as_bytes()).map(|path| path.map(|path| path.to_vec()));
        for (path, expected) in [
            ("./usr/bin/", Some("usr/bin")),
            ("/usr//bin/./x", Some("usr/bin/x")),
            (".", None),
            ("", None),
            ("/", None),
            ("..x/y..", Some("..x/y..")),
        ] {
            let expected = expected.map(|path| path.as_bytes().to_vec());
            assert_eq!(clean(path).unwrap(), expected, "{path}");
        }
        assert!(clean("a/../b").is_err());
    }
}
