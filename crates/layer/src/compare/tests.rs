//! Roots that are what they should be, and roots that are not.

use super::*;
use crate::tree::{Budget, read_layer};

/// An entry to write: path, kind, content or target, mode.
type Put<'a> = (&'a str, u8, &'a str, u32);

fn archive(entries: &[Put<'_>]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, kind, text, mode) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_mode(*mode);
        header.set_entry_type(tar::EntryType::new(*kind));
        match kind {
            b'0' => {
                header.set_size(text.len() as u64);
                builder.append_data(&mut header, path, text.as_bytes()).unwrap();
            }
            b'5' => {
                header.set_size(0);
                builder.append_data(&mut header, path, &[][..]).unwrap();
            }
            _ => {
                header.set_size(0);
                builder.append_link(&mut header, path, text).unwrap();
            }
        }
    }
    builder.into_inner().unwrap()
}

const IMAGE: &[Put<'_>] = &[
    ("bin", b'5', "", 0o755),
    ("bin/sh", b'0', "a shell", 0o755),
    ("bin/ash", b'1', "bin/sh", 0o755),
    ("etc/hosts", b'0', "the image's", 0o644),
    ("link", b'2', "bin/sh", 0o777),
];

/// Paths that an engine fills by itself.
const IGNORED: &[&[u8]] = &[b".dockerenv", b"dev/console", b"etc/hosts"];

/// The problems of a root that should be [`IMAGE`].
fn problems(root: &[Put<'_>]) -> Vec<String> {
    let mut tree = Tree::default();
    let image = archive(IMAGE);
    tree.apply(read_layer(&image[..], &mut Budget::default()).unwrap()).unwrap();
    let mut problems = Vec::new();
    compare(&archive(root)[..], &tree, IGNORED, &mut |problem| problems.push(problem));
    problems
}

fn with(position: usize, entry: Put<'static>) -> Vec<Put<'static>> {
    let mut root = IMAGE.to_vec();
    root[position] = entry;
    root
}

#[test]
fn a_root_that_is_as_it_should_be_has_no_problems() {
    assert_eq!(problems(IMAGE), [""; 0]);
    let mut engines: Vec<Put<'_>> = with(3, ("etc/hosts", b'0', "the engine's", 0o755));
    engines.extend([
        (".dockerenv", b'0', "", 0o755),
        ("dev/console", b'0', "", 0o755),
        ("etc", b'5', "", 0o755),
        ("var/lib/data", b'5', "", 0o755),
    ]);
    assert_eq!(problems(&engines), [""; 0]);
    // An engine may list a file under any of its names.
    let mut root = IMAGE.to_vec();
    root[1] = ("bin/ash", b'0', "a shell", 0o755);
    root[2] = ("bin/sh", b'1', "bin/ash", 0o755);
    assert_eq!(problems(&root), [""; 0]);
}

#[test]
fn each_difference_is_told_with_its_path() {
    let mut root = IMAGE.to_vec();
    root.remove(4);
    assert_eq!(problems(&root), ["/link is missing"]);
    let mut root = IMAGE.to_vec();
    root.push(("tmp/in\nvader", b'0', "", 0o644));
    assert_eq!(problems(&root), [r"/tmp/in\nvader is not in the image"]);
    let changed = problems(&with(1, ("bin/sh", b'0', "b shell", 0o755)));
    assert!(changed[0].starts_with("/bin/sh has changed: sha256:"), "{changed:?}");
    assert_eq!(
        problems(&with(1, ("bin/sh", b'0', "a shell", 0o4755)))[0],
        "/bin/sh has mode 4755 instead of 0755"
    );
    assert_eq!(
        problems(&with(4, ("link", b'2', "/etc/shadow", 0o777))),
        ["/link points to /etc/shadow instead of /bin/sh"]
    );
    assert_eq!(
        problems(&with(4, ("link", b'0', "", 0o777)))[0],
        "/link is a file instead of a link"
    );
}

#[test]
fn an_export_that_breaks_off_is_one_problem_and_not_one_for_each_file() {
    let mut problems = Vec::new();
    let export = archive(IMAGE);
    let files =
        compare(&export[..700], &Tree::default(), &[], &mut |problem| problems.push(problem));
    assert_eq!((files, problems.len()), (0, 1), "{problems:?}");
    assert!(problems[0].contains("broke off"), "{problems:?}");
}
