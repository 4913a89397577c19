//! An image of everything that a layer can contain, written by hand, and the check that it is
//! really there in the bytes that were read.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use transfer::{Descriptor, DiffId, Image, fixture};

const BLOCK: usize = 512;

/// All that has to be seen.
pub(super) const KINDS: &[&str] = &[
    "absolute name",
    "block device",
    "char device",
    "empty file",
    "file of whole blocks",
    "folder",
    "GNU long link",
    "GNU long name",
    "hard link",
    "large owner in base 256",
    "leading ./",
    "mtime before 1970",
    "mtime with nanoseconds",
    "name from ustar's prefix",
    "name of more than 255 bytes",
    "name that is no UTF-8",
    "name with a newline",
    "opaque folder",
    "padding after the end",
    "PAX global header",
    "pipe",
    "security.capability",
    "setuid",
    "sparse content",
    "sticky folder",
    "symlink",
    "symlink to /",
    "user xattr",
    "V7 file",
    "whiteout",
];

/// A tar under construction.
#[derive(Default)]
struct Tar(Vec<u8>);

/// One entry's header.
#[derive(Clone, Copy)]
struct Entry<'a> {
    kind: u8,
    mode: u32,
    link: &'a [u8],
    content: &'a [u8],
    device: (u32, u32),
    prefix: &'a [u8],
    magic: &'a [u8; 8],
    large_owner: bool,
}

const POSIX: &[u8; 8] = b"ustar\x0000";
const GNU: &[u8; 8] = b"ustar  \0";

impl Default for Entry<'_> {
    fn default() -> Self {
        let (kind, mode, magic) = (b'0', 0o644, POSIX);
        Self {
            kind,
            mode,
            link: b"",
            content: b"",
            device: (0, 0),
            prefix: b"",
            magic,
            large_owner: false,
        }
    }
}

impl Tar {
    fn put(&mut self, name: &[u8], entry: Entry<'_>) {
        let mut header = [0; BLOCK];
        let mut field =
            |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
        field(0, &name[..name.len().min(100)]);
        field(100, format!("{:07o}\0", entry.mode).as_bytes());
        field(108, b"0000000\0");
        field(116, b"0000000\0");
        if entry.large_owner {
            field(108, &[0x80, 0, 0, 0, 0, 0x2d, 0xc6, 0xc0]);
        }
        field(124, format!("{:011o}\0", entry.content.len()).as_bytes());
        field(136, b"14000000000\0");
        field(148, b"        ");
        field(156, &[entry.kind]);
        field(157, &entry.link[..entry.link.len().min(100)]);
        field(257, entry.magic);
        field(329, format!("{:07o}\0", entry.device.0).as_bytes());
        field(337, format!("{:07o}\0", entry.device.1).as_bytes());
        field(345, entry.prefix);
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.0.extend_from_slice(&header);
        self.0.extend_from_slice(entry.content);
        self.0.resize(self.0.len().next_multiple_of(BLOCK), 0);
    }

    fn file(&mut self, name: &[u8], content: &[u8]) {
        self.put(name, Entry { content, ..Entry::default() });
    }

    fn folder(&mut self, name: &[u8]) {
        self.put(name, Entry { kind: b'5', mode: 0o755, ..Entry::default() });
    }

    fn pax(&mut self, kind: u8, records: &[(&str, &[u8])]) {
        let mut content = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            // The length counts its own digits.
            let len = (rest + 1..).find(|len| len - rest == len.to_string().len()).unwrap();
            content.extend_from_slice(format!("{len} {key}=").as_bytes());
            content.extend_from_slice(value);
            content.push(b'\n');
        }
        self.put(b"PaxHeaders.0/x", Entry { kind, content: &content, ..Entry::default() });
    }

    fn gnu_long(&mut self, kind: u8, text: &[u8]) {
        let content = [text, b"\0"].concat();
        let entry = Entry { kind, content: &content, magic: GNU, ..Entry::default() };
        self.put(b"././@LongLink", entry);
    }

    fn end(mut self, padding: usize) -> Bytes {
        self.0.resize(self.0.len() + 2 * BLOCK + padding, 0);
        self.0.into()
    }
}

fn base() -> Bytes {
    let of = |kind: u8| Entry { kind, ..Entry::default() };
    let mut tar = Tar::default();
    tar.pax(b'g', &[("comment", b"made for a test")]);
    tar.folder(b"./");
    tar.folder(b"./dotted/");
    tar.file(b"./dotted/file", b"a leading dot");
    tar.file(b"/absolute", b"from the root");
    tar.folder(b"etc/");
    tar.file(b"etc/passwd", b"root:x:0:0::/:/bin/sh\n");
    tar.file(b"etc/empty", b"");
    tar.file(b"etc/blocks", &fixture::bytes(1, 4 * BLOCK));
    tar.put(b"etc/v7", Entry { kind: 0, content: b"old", magic: &[0; 8], ..Entry::default() });
    tar.put(b"etc/hard", Entry { link: b"etc/passwd", ..of(b'1') });
    tar.put(b"etc/soft", Entry { link: b"passwd", ..of(b'2') });
    tar.put(b"etc/everything", Entry { link: b"/", ..of(b'2') });
    tar.put(b"dev/null", Entry { device: (1, 3), ..of(b'3') });
    tar.put(b"dev/loop0", Entry { device: (7, 0), ..of(b'4') });
    tar.put(b"run/pipe", of(b'6'));
    tar.put(b"tmp/", Entry { mode: 0o1777, ..of(b'5') });
    tar.put(b"bin/su", Entry { mode: 0o4755, content: b"#!/bin/sh\n", ..Entry::default() });
    tar.put(
        b"bin/owned",
        Entry { large_owner: true, magic: GNU, content: b"3000000", ..Entry::default() },
    );
    tar.file(b"odd/new\nline", b"two lines");
    tar.file(b"odd/\xff\xfe\x80", b"no text");
    tar.file("odd/grüße".as_bytes(), b"text");
    tar.put(
        b"prefixed",
        Entry { prefix: b"from/the/prefix", content: b"ustar", ..Entry::default() },
    );

    let long = [b"long/".as_slice(), &[b'n'; 150]].concat();
    tar.gnu_long(b'L', &long);
    tar.put(&long, Entry { content: b"GNU", magic: GNU, ..Entry::default() });
    tar.gnu_long(b'K', &long);
    tar.put(b"long/link", Entry { link: &long, magic: GNU, ..of(b'2') });
    let longer = [b"long/".as_slice(), &[b'p'; 200], b"/", &[b'q'; 200]].concat();
    tar.pax(b'x', &[("path", &longer)]);
    tar.file(b"long/cut", b"PAX");
    tar.pax(b'x', &[("mtime", b"-86400")]);
    tar.file(b"time/before", b"1969");
    tar.pax(b'x', &[("mtime", b"1234567890.123456789")]);
    tar.file(b"time/exact", b"2009");
    tar.pax(b'x', &[("SCHILY.xattr.user.note", b"kept")]);
    tar.file(b"xattr/user", b"with a note");
    // cap_net_raw+ep, revision 2: binary, with zeros.
    let capability = b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    tar.pax(b'x', &[("SCHILY.xattr.security.capability", capability)]);
    tar.put(b"xattr/ping", Entry { mode: 0o755, content: b"ping", ..Entry::default() });
    tar.file(b"sparse", &vec![0; 24 << 20]);
    tar.folder(b"doomed/");
    tar.file(b"doomed/file", b"gone above");
    tar.folder(b"opaque/");
    tar.file(b"opaque/hidden", b"hidden above");
    tar.end(10_240)
}

fn above() -> Bytes {
    let mut tar = Tar::default();
    tar.folder(b"doomed/");
    tar.file(b"doomed/.wh.file", b"");
    tar.file(b"etc/.wh.empty", b"");
    tar.folder(b"opaque/");
    tar.file(b"opaque/.wh..wh..opq", b"");
    tar.file(b"opaque/new", b"seen");
    tar.folder(b"sparse/");
    tar.file(b"sparse/now-a-folder", b"where a file was");
    tar.end(0)
}

/// The image and its layers.
pub(super) fn image() -> (Image, Vec<(Descriptor, Bytes)>) {
    image_of(&[base(), above()])
}

/// An image of one layer that has a hard link with the size of its file, as archives from before
/// POSIX have it. Engines take it in and cannot give it out again.
pub(super) fn old_hard_link() -> (Image, Vec<(Descriptor, Bytes)>) {
    let mut tar = Tar::default();
    tar.file(b"file", &fixture::bytes(3, 1000));
    let at = tar.0.len();
    tar.put(b"hard", Entry { kind: b'1', link: b"file", ..Entry::default() });
    let header = &mut tar.0[at..at + BLOCK];
    header[124..136].copy_from_slice(b"00000001750\0");
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    tar.file(b"last", b"after it");
    image_of(&[tar.end(0)])
}

fn image_of(layers: &[Bytes]) -> (Image, Vec<(Descriptor, Bytes)>) {
    let blobs: Vec<_> =
        layers.iter().map(|tar| (fixture::descriptor_of(tar), tar.clone())).collect();
    let diff_ids: Vec<_> = blobs.iter().map(|(blob, _)| DiffId(blob.digest)).collect();
    let sizes: Vec<_> = blobs.iter().map(|(blob, _)| blob.size).collect();
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux", "config": { "Cmd": ["true"] },
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    });
    (Image::from_layers(config.to_string().into(), &sizes).unwrap(), blobs)
}

/// What kinds of content a tar has, read from its bytes alone.
pub(super) fn kinds(tar: &[u8]) -> BTreeSet<&'static str> {
    let mut seen = BTreeSet::new();
    let mut records = BTreeMap::new();
    let (mut long_name, mut at) = (None, 0);
    while let Some(header) = tar.get(at..at + BLOCK).filter(|header| header.iter().any(|b| *b != 0))
    {
        let size = octal(&header[124..136]);
        let content = &tar[at + BLOCK..][..size];
        at += BLOCK + size.next_multiple_of(BLOCK);
        match header[156] {
            b'g' => drop(seen.insert("PAX global header")),
            b'x' => records = pax_records(content),
            b'K' => drop(seen.insert("GNU long link")),
            b'L' => {
                seen.insert("GNU long name");
                long_name = Some(text(content).to_vec());
            }
            _ => {
                let records = std::mem::take(&mut records);
                let name = long_name.take().or_else(|| records.get("path").cloned());
                let name = name.unwrap_or_else(|| text(&header[..100]).to_vec());
                of_entry(header, &name, content, &records, &mut seen);
            }
        }
    }
    if at + 2 * BLOCK < tar.len() {
        seen.insert("padding after the end");
    }
    seen
}

fn of_entry(
    header: &[u8],
    name: &[u8],
    content: &[u8],
    records: &BTreeMap<String, Vec<u8>>,
    seen: &mut BTreeSet<&'static str>,
) {
    let mode = octal(&header[100..108]);
    let file = matches!(header[156], b'0' | 0);
    let last = name.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    let link = text(&header[157..257]);
    let mtime = records.get("mtime").map(|mtime| String::from_utf8_lossy(mtime).into_owned());
    let checks = [
        ("V7 file", header[156] == 0 && header[257] == 0),
        ("hard link", header[156] == b'1'),
        ("symlink", header[156] == b'2'),
        ("symlink to /", header[156] == b'2' && link == b"/"),
        ("char device", header[156] == b'3'),
        ("block device", header[156] == b'4'),
        ("folder", header[156] == b'5'),
        ("pipe", header[156] == b'6'),
        ("setuid", mode & 0o4000 != 0),
        ("sticky folder", header[156] == b'5' && mode & 0o1000 != 0),
        ("empty file", file && content.is_empty() && !last.starts_with(b".wh.")),
        (
            "file of whole blocks",
            file && !content.is_empty() && content.len().is_multiple_of(BLOCK),
        ),
        ("sparse content", content.len() > 16 << 20 && content.iter().all(|byte| *byte == 0)),
        ("whiteout", last.starts_with(b".wh.") && last != b".wh..wh..opq"),
        ("opaque folder", last == b".wh..wh..opq"),
        ("leading ./", name.starts_with(b"./") && 2 < name.len()),
        ("absolute name", name.starts_with(b"/")),
        ("name with a newline", name.contains(&b'\n')),
        ("name that is no UTF-8", std::str::from_utf8(name).is_err()),
        ("name of more than 255 bytes", 255 < name.len()),
        ("name from ustar's prefix", header[345] != 0),
        ("large owner in base 256", header[108] == 0x80),
        ("mtime before 1970", mtime.as_ref().is_some_and(|mtime| mtime.starts_with('-'))),
        ("mtime with nanoseconds", mtime.is_some_and(|mtime| mtime.contains('.'))),
        ("user xattr", records.contains_key("SCHILY.xattr.user.note")),
        ("security.capability", records.contains_key("SCHILY.xattr.security.capability")),
    ];
    seen.extend(checks.iter().filter(|(_, is)| *is).map(|(kind, _)| *kind));
}

fn octal(field: &[u8]) -> usize {
    let digits = std::str::from_utf8(text(field)).unwrap();
    usize::from_str_radix(digits.trim(), 8).unwrap()
}

fn text(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

fn pax_records(mut content: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let mut records = BTreeMap::new();
    while !content.is_empty() {
        let space = content.iter().position(|byte| *byte == b' ').unwrap();
        let len: usize = std::str::from_utf8(&content[..space]).unwrap().parse().unwrap();
        let record = &content[space + 1..len - 1];
        let equals = record.iter().position(|byte| *byte == b'=').unwrap();
        let key = String::from_utf8(record[..equals].to_vec()).unwrap();
        records.insert(key, record[equals + 1..].to_vec());
        content = &content[len..];
    }
    records
}
