//! Archives as the common library writes them, and archives that nobody should write.

use super::super::extension::MAX_RECORDS;
use super::super::{Kind, MAX_PATH};
use super::*;

/// One entry with its content.
type Seen = (Entry, Vec<u8>);

fn blocking(archive: &[u8], rules: Rules) -> Result<Vec<Seen>, TarError> {
    let mut reader = Reader::new(archive, rules);
    let mut seen = Vec::new();
    while let Some(entry) = reader.next_entry()? {
        let mut content = Vec::new();
        reader.read_to_end(&mut content)?;
        seen.push((entry, content));
    }
    Ok(seen)
}

async fn asynchronous(archive: &[u8]) -> Result<Vec<Seen>, TarError> {
    let mut reader = AsyncReader::new(archive, Rules::Lenient);
    let mut seen = Vec::new();
    while let Some(entry) = reader.next_entry().await? {
        let mut content = Vec::new();
        while let Some(frame) = reader.frame(100).await? {
            assert!((1..=100).contains(&frame.len()));
            content.extend_from_slice(&frame);
        }
        seen.push((entry, content));
    }
    Ok(seen)
}

/// What both readers say, which is the same.
fn read(archive: &[u8]) -> Result<Vec<Seen>, TarError> {
    let seen = blocking(archive, Rules::Lenient);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let again = runtime.block_on(asynchronous(archive));
    match (&seen, &again) {
        (Ok(seen), Ok(again)) => assert_eq!(seen, again),
        (Err(_), Err(_)) => {}
        _ => panic!("{seen:?} and {again:?}"),
    }
    seen
}

fn header(size: u64, kind: tar::EntryType) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_size(size);
    header.set_mode(0o104_755);
    header.set_uid(1000);
    header.set_gid(2_000_000_000);
    header.set_entry_type(kind);
    header
}

fn archive(fill: impl FnOnce(&mut tar::Builder<Vec<u8>>)) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    fill(&mut builder);
    builder.into_inner().unwrap()
}

#[test]
fn entries_are_read_as_they_were_written() {
    let long = "folder/".repeat(40) + "name";
    let content = vec![7; 1300];
    let bytes = archive(|builder| {
        let mut file = header(1300, tar::EntryType::Regular);
        builder.append_data(&mut file, &long, &content[..]).unwrap();
        let mut link = header(0, tar::EntryType::Symlink);
        builder.append_link(&mut link, "link", &long).unwrap();
        let mut folder = header(0, tar::EntryType::Directory);
        builder.append_data(&mut folder, "folder/", &[][..]).unwrap();
        let mut device = header(0, tar::EntryType::Char);
        device.set_device_major(1).unwrap();
        device.set_device_minor(3).unwrap();
        builder.append_data(&mut device, "null", &[][..]).unwrap();
    });
    let seen = read(&bytes).unwrap();
    let kinds: Vec<Kind> = seen.iter().map(|(entry, _)| entry.kind).collect();
    assert_eq!(kinds, [Kind::File, Kind::Symlink, Kind::Folder, Kind::Other(b'3')]);
    let (file, read_content) = &seen[0];
    assert_eq!((file.path.as_slice(), read_content), (long.as_bytes(), &content));
    assert_eq!((file.mode, file.uid, file.gid), (0o4755, 1000, 2_000_000_000));
    assert_eq!(seen[1].0.link, long.as_bytes());
    assert_eq!(seen[3].0.device, (1, 3));
}

#[test]
fn pax_records_take_the_place_of_what_the_header_says() {
    let path = "ü/".repeat(90) + "end";
    let bytes = archive(|builder| {
        let records = [("path", path.as_bytes()), ("uid", b"3000000"), ("comment", b"x=y")];
        builder.append_pax_extensions(records).unwrap();
        let mut file = header(3, tar::EntryType::Regular);
        builder.append_data(&mut file, "short", &b"abc"[..]).unwrap();
    });
    let (entry, content) = &read(&bytes).unwrap()[0];
    assert_eq!((entry.path.as_slice(), entry.uid), (path.as_bytes(), 3_000_000));
    assert_eq!(content, b"abc");
}

#[test]
fn a_sparse_file_is_there_and_what_follows_it_is_read() {
    let mut sparse = header(5, tar::EntryType::GNUSparse);
    sparse.set_path("sparse").unwrap();
    sparse.as_mut_bytes()[482] = 1;
    sparse.set_cksum();
    let map = [0; BLOCK];
    let bytes = archive(|builder| {
        builder.get_mut().extend(sparse.as_bytes());
        builder.get_mut().extend(map);
        builder.get_mut().extend([9; 5]);
        builder.get_mut().extend([0; BLOCK - 5]);
        builder.append_data(&mut header(1, tar::EntryType::Regular), "next", &b"n"[..]).unwrap();
    });
    let seen = read(&bytes).unwrap();
    assert_eq!((seen[0].0.kind, seen[1].0.path.as_slice()), (Kind::Sparse, &b"next"[..]));
}

#[test]
fn what_is_no_archive_is_an_error_and_never_a_panic() {
    let good = archive(|builder| {
        builder.append_data(&mut header(600, tar::EntryType::Regular), "a", &[1; 600][..]).unwrap();
    });
    let spoilt = |position: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[position] = byte;
        bytes
    };
    let with = |change: &dyn Fn(&mut tar::Header)| {
        let mut header = header(600, tar::EntryType::Regular);
        change(&mut header);
        header.set_cksum();
        header.as_bytes().to_vec()
    };
    let huge = |kind: u8| {
        with(&|header| {
            header.as_mut_bytes()[156] = kind;
            header.set_size(MAX_RECORDS + 1);
        })
    };
    let cases = [
        ("a changed header", spoilt(0, b'b')),
        ("a size that is no number", with(&|header| header.as_mut_bytes()[124] = b'9')),
        ("a size beyond all", with(&|header| header.as_mut_bytes()[124..136].fill(0xff))),
        ("a cut header", good[..100].to_vec()),
        ("a cut content", good[..700].to_vec()),
        ("long PAX records", huge(b'x')),
        ("a long name", huge(b'L')),
        (
            "a path too long for Linux",
            archive(|builder| {
                let path = "x/".repeat(MAX_PATH);
                builder
                    .append_data(&mut header(0, tar::EntryType::Regular), path, &[][..])
                    .unwrap();
            }),
        ),
    ];
    for (case, bytes) in cases {
        assert!(read(&bytes).is_err(), "{case} was read");
    }
    for records in ["x", "9 a=b\n", "6 a=b", "5 ab\n", "99999999999999999999 a=b\n", "0 a=b\n"] {
        let bytes = archive(|builder| {
            let mut pax = header(records.len() as u64, tar::EntryType::XHeader);
            builder.append_data(&mut pax, "p", records.as_bytes()).unwrap();
        });
        assert!(read(&bytes).is_err(), "{records:?} was read");
    }
}

#[test]
fn what_was_not_read_of_a_content_is_skipped() {
    let bytes = archive(|builder| {
        for (name, size) in [("empty", 0), ("large", 5000), ("whole", 1024), ("last", 1)] {
            let mut file = header(size, tar::EntryType::Regular);
            let content = vec![7; usize::try_from(size).unwrap()];
            builder.append_data(&mut file, name, &content[..]).unwrap();
        }
    });
    let mut reader = Reader::new(&bytes[..], Rules::Strict);
    for (name, part) in [("empty", 0), ("large", 700), ("whole", 1024), ("last", 0)] {
        let entry = reader.next_entry().unwrap().unwrap();
        assert_eq!(entry.path, name.as_bytes());
        reader.read_exact(&mut vec![0; part]).unwrap();
    }
    assert_eq!(reader.next_entry().unwrap(), None);
}

#[test]
fn only_a_lenient_reader_takes_what_readers_disagree_on() {
    let with = |change: fn(&mut tar::Header)| {
        archive(|builder| {
            let mut header = header(0, tar::EntryType::Regular);
            header.set_path("a").unwrap();
            change(&mut header);
            header.set_cksum();
            builder.get_mut().extend(header.as_bytes());
        })
    };
    assert!(blocking(&with(|_| {}), Rules::Strict).is_ok());
    let cases = [
        (
            "a size in base 256",
            with(|header| {
                header.as_mut_bytes()[124..136].copy_from_slice(b"\x80\0\0\0\0\0\0\0\0\0\0\0");
            }),
        ),
        ("a device", with(|header| header.set_entry_type(tar::EntryType::Char))),
        ("an unknown type", with(|header| header.as_mut_bytes()[156] = b'Z')),
        ("no end marker", with(|_| {})[..BLOCK].to_vec()),
        (
            "a path of another",
            archive(|builder| {
                builder.append_pax_extensions([("path", &b"b"[..])]).unwrap();
                let mut file = header(0, tar::EntryType::Regular);
                builder.append_data(&mut file, "a", &[][..]).unwrap();
            }),
        ),
        ("an entry after an empty header", [&[0; BLOCK][..], &with(|_| {})].concat()),
    ];
    for (case, bytes) in cases {
        read(&bytes).expect(case);
        assert!(blocking(&bytes, Rules::Strict).is_err(), "{case} was read");
    }
}
