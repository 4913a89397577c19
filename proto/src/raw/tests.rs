//! The reader reads prost's output, prost reads the writer's, and malformed input is refused.

use prost::Message as _;
use transfer::MAX_FRAME;
use transfer::fixture::bytes;
use transfer::frame::Pool;

use super::*;
use crate::convert::Malformed;
use crate::wire::MAX_MESSAGE;
use crate::wire::generated::ReadBlobResponse;

/// A message as generated code puts it on the wire.
fn generated(message: &ReadBlobResponse) -> Vec<u8> {
    framed(&message.encode_to_vec())
}

fn framed(message: &[u8]) -> Vec<u8> {
    let len = u32::try_from(message.len()).unwrap();
    [&[0], &len.to_be_bytes()[..], message].concat()
}

fn data(data: Bytes) -> ReadBlobResponse {
    ReadBlobResponse { data, ..Default::default() }
}

/// Parts of a stream cut into pieces of `cut` bytes; data is joined.
fn read(stream: &[u8], cut: usize) -> Result<Vec<Part>, Malformed> {
    let mut slices = Slices::default();
    let mut parts: Vec<Part> = Vec::new();
    for piece in stream.chunks(cut) {
        let mut piece = Bytes::copy_from_slice(piece);
        while let Some(part) = slices.next(&mut piece)? {
            match (parts.last_mut(), part) {
                (Some(Part::Data(seen)), Part::Data(more)) => {
                    *seen = [&seen[..], &more[..]].concat().into();
                }
                (_, part) => parts.push(part),
            }
        }
        assert!(piece.is_empty(), "{} bytes were left", piece.len());
    }
    if slices.is_between_messages() { Ok(parts) } else { Err(Malformed::new("end", "too early")) }
}

#[test]
fn what_generated_code_writes_is_read_however_it_is_cut() {
    let first = ReadBlobResponse {
        data: bytes(1, 300),
        blob_size: Some(u64::MAX),
        encoding: Encoding::Zstd as i32,
    };
    let head = ReadBlobResponse { blob_size: Some(0), ..Default::default() };
    let stream = [&first, &head, &data(bytes(2, 1)), &data(bytes(3, 200))].map(generated).concat();
    let expected = [
        Part::Data(bytes(1, 300)),
        Part::BlobSize(u64::MAX),
        Part::Encoding(Encoding::Zstd),
        Part::End,
        Part::BlobSize(0),
        Part::End,
        Part::Data(bytes(2, 1)),
        Part::End,
        Part::Data(bytes(3, 200)),
        Part::End,
    ];
    for cut in 1..=stream.len() {
        assert_eq!(read(&stream, cut).unwrap(), expected, "cut every {cut} bytes");
    }
}

#[test]
fn data_is_a_slice_of_what_came() {
    let mut stream = Bytes::from(generated(&data(bytes(1, MAX_FRAME))));
    let end = stream.as_ptr_range().end;
    let part = Slices::default().next(&mut stream).unwrap();
    let Some(Part::Data(data)) = part else { panic!("{part:?}") };
    assert_eq!((data.len(), data.as_ptr_range().end), (MAX_FRAME, end));
}

#[test]
fn what_is_written_generated_code_reads() {
    let pool = Pool::default();
    for size in [1, 100, 127, 128, SMALL - 1, SMALL, MAX_FRAME - 1, MAX_FRAME] {
        let payload = bytes(size as u64, size);
        let filled = pool.frame(size, |buffer| {
            buffer.copy_from_slice(&payload);
            Ok::<_, Malformed>(size)
        });
        let (pooled, other) = (message(filled.unwrap()), message(payload.clone()));
        assert_eq!(pooled.1, None, "{size} bytes of a pool's buffer were sent in two pieces");
        assert_eq!(other.1.is_some(), SMALL <= size);
        for (message, rest) in [pooled, other] {
            let whole = [&message[..], &rest.unwrap_or_default()[..]].concat();
            assert_eq!(whole, generated(&data(payload.clone())), "{size} bytes");
            assert!(whole.len() - PREFIX <= MAX_MESSAGE);
        }
    }
    for (size, encoding) in [(0, Encoding::Unspecified), (u64::MAX, Encoding::Zstd)] {
        let expected = ReadBlobResponse {
            blob_size: Some(size),
            encoding: encoding as i32,
            ..Default::default()
        };
        assert_eq!(head(size, encoding), generated(&expected));
    }
}

#[test]
fn fields_of_a_later_version_are_passed_over() {
    let later = [
        &[0x78, 0x96, 0x01][..],                     // 15: a varint
        &[0x80, 0x01, 0xff, 0xff, 0xff, 0xff, 0x0f], // 16: a varint
        &[0x71, 1, 2, 3, 4, 5, 6, 7, 8],             // 14: eight bytes
        &[0x6d, 1, 2, 3, 4],                         // 13: four bytes
        &[0x62, 3, 0x0a, 0x10, 0x18],                // 12: a text that looks like fields
        &[0x5a, 0],                                  // 11: an empty text
        &[0x0a, 2, b'h', b'i'],                      // 1: data
    ];
    let stream = framed(&later.concat());
    for cut in [1, 2, 3, stream.len()] {
        let parts = read(&stream, cut).unwrap();
        assert_eq!(parts, [Part::Data(Bytes::from_static(b"hi")), Part::End], "cut at {cut}");
    }
}

#[test]
fn what_does_not_add_up_is_refused() {
    let too_long = u32::try_from(MAX_MESSAGE + 1).unwrap().to_be_bytes();
    let hostile: &[(&str, Vec<u8>)] = &[
        ("a compressed message", vec![1, 0, 0, 0, 0]),
        ("text", b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()),
        ("a message longer than any", [&[0][..], &too_long].concat()),
        ("a message of 4 GiB", vec![0, 0xff, 0xff, 0xff, 0xff]),
        ("data longer than its message", framed(&[0x0a, 3, 1, 2])),
        ("data of 2^64 bytes", framed(&[&[0x0a][..], &[0xff; 9], &[1]].concat())),
        ("an unknown field longer than its message", framed(&[0x62, 3, 1, 2])),
        ("eight bytes in a message of four", framed(&[0x71, 1, 2, 3])),
        ("a key without a value", framed(&[0x10])),
        ("half a number", framed(&[0x10, 0x80])),
        ("a number of 65 bits", framed(&[&[0x10][..], &[0xff; 9], &[2]].concat())),
        ("a number of eleven bytes", framed(&[&[0x10][..], &[0x80; 10], &[0]].concat())),
        ("data twice", framed(&[0x0a, 1, 1, 0x0a, 1, 2])),
        ("data that is a number", framed(&[0x08, 1])),
        ("data of four bytes' type", framed(&[0x0d, 1, 2, 3, 4])),
        ("a size that is a text", framed(&[0x12, 1, 1])),
        ("an encoding that is a text", framed(&[0x1a, 1, 1])),
        ("an encoding that nobody knows", framed(&[0x18, 99])),
        ("an encoding below zero", framed(&[&[0x18][..], &[0xff; 9], &[1]].concat())),
        ("a group", framed(&[0x0b])),
        ("the end of a group", framed(&[0x0c])),
        ("a type that there is not", framed(&[0x0f])),
        ("field 0", framed(&[0x02, 1, 1])),
        ("half a prefix", vec![0, 0, 0]),
        ("half a message", vec![0, 0, 0, 0, 2, 0x10]),
    ];
    for (what, stream) in hostile {
        for cut in [1, 3, stream.len()] {
            let read = read(stream, cut);
            assert!(read.is_err(), "{what} was accepted as {read:?}");
        }
    }
}

#[test]
fn whatever_comes_is_read_or_refused() {
    let real =
        generated(&ReadBlobResponse { data: bytes(1, 40), blob_size: Some(1 << 40), encoding: 1 });
    for seed in 0..20_000 {
        let noise = bytes(seed, 24);
        // A message that is right but for a few bytes gets further than noise does.
        let mut almost = real.clone();
        for at in noise[..2].iter().map(|at| usize::from(*at) % real.len()) {
            almost[at] = noise[2 + at % 22];
        }
        for stream in [&almost[..], &noise, &framed(&noise)] {
            let whole = read(stream, stream.len());
            assert_eq!(whole, read(stream, 1), "how {stream:?} is cut makes a difference");
        }
    }
}
