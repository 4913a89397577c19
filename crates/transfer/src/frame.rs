//! Buffers for frames, used again and again, with room in front for what the wire puts there.
//!
//! ```text
//!   buffer:  │ HEADROOM │ payload …                    │
//!   frame():            └──────────── Bytes ───────────┘   what a BlobStream carries
//!   with_header():  └──┴──────────── Bytes ────────────┘   one piece for one write, nothing copied
//! ```
//!
//! A frame of 1 MiB that is allocated and freed each time costs page faults, and a header of a few
//! bytes in a piece of its own costs whoever sends it another round through its queues. So a frame
//! is a plain [`Bytes`] that remembers its buffer: [`with_header`] takes the buffer back from the
//! only one who holds the frame, and writes the header where there is room for it.
//!
//! A frame that several hold cannot be written to. But whole frames have the same header, each like
//! the one before; so from the first that was refused on, buffers have it before they are filled.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, Weak};

use bytes::Bytes;

use crate::blob::MAX_FRAME;

/// Bytes in front of each payload: two varints and a length prefix, and some to spare.
pub const HEADROOM: usize = 16;

/// Bytes of a buffer that is kept for the next frame. Smaller frames have buffers of their own.
const WHOLE: usize = HEADROOM + MAX_FRAME;

/// From this length on a frame gets a whole buffer; below, a fresh one of its size is cheaper.
const LARGE: usize = MAX_FRAME / 4;

/// Buffers that are out, by the address of their payload: how a frame finds back to its buffer.
/// As many as there are frames in flight.
static LENT: LazyLock<Mutex<HashMap<usize, Weak<Buffer>>>> = LazyLock::new(Mutex::default);

fn lent() -> MutexGuard<'static, HashMap<usize, Weak<Buffer>>> {
    LENT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes frames, and takes their buffers back when the frames are dropped. Clones share the buffers.
#[derive(Clone)]
pub struct Pool {
    shelf: Arc<Shelf>,
}

/// The buffers that are not out.
struct Shelf {
    free: Mutex<Vec<Vec<u8>>>,
    /// How many are kept besides as many as are out: so a pool at rest holds this many, and a busy
    /// one does not make anew what it just gave away.
    keep: usize,
    /// Bytes of the buffers that are out.
    out: AtomicUsize,
    /// The header that a whole frame in several hands was to have last, at the end of the headroom.
    usual: Mutex<[u8; HEADROOM]>,
}

/// A buffer that is out. Dropping it puts it back on its shelf.
struct Buffer {
    bytes: Vec<u8>,
    shelf: Arc<Shelf>,
}

/// What a frame holds on to.
struct Held(Arc<Buffer>);

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.0.bytes
    }
}

impl Default for Pool {
    /// Keeps 16 buffers: enough that a few streams never allocate, little enough to be left lying.
    fn default() -> Self {
        Self::new(16)
    }
}

impl Pool {
    /// Keeps at most `keep` buffers of [`MAX_FRAME`] at rest, and as many more as are out. How many
    /// are out is up to whoever holds frames.
    #[must_use]
    pub fn new(keep: usize) -> Self {
        let (free, out, usual) = (Mutex::default(), AtomicUsize::new(0), Mutex::default());
        Self { shelf: Arc::new(Shelf { free, keep, out, usual }) }
    }

    /// A frame of up to `len` bytes, at most [`MAX_FRAME`], that `fill` writes; it says how many
    /// it wrote, and what it found in the buffer is of no meaning. No bytes give an empty frame.
    ///
    /// # Errors
    /// What `fill` says.
    pub fn frame<E>(
        &self,
        len: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<usize, E>,
    ) -> Result<Bytes, E> {
        let len = len.min(MAX_FRAME);
        let mut buffer = self.buffer(len);
        let filled = fill(&mut buffer.bytes[HEADROOM..HEADROOM + len])?.min(len);
        Ok(if filled == 0 { Bytes::new() } else { lend(Arc::new(buffer), filled) })
    }

    /// Bytes of the buffers whose frames were not dropped yet.
    #[must_use]
    pub fn out(&self) -> usize {
        self.shelf.out.load(Ordering::Relaxed)
    }

    fn buffer(&self, len: usize) -> Buffer {
        let shelf = self.shelf.clone();
        let mut bytes = if len < LARGE {
            vec![0; HEADROOM + len]
        } else {
            shelf.free().pop().unwrap_or_else(|| vec![0; WHOLE])
        };
        if len == MAX_FRAME {
            bytes[..HEADROOM].copy_from_slice(&*shelf.usual());
        }
        shelf.out.fetch_add(bytes.len(), Ordering::Relaxed);
        Buffer { bytes, shelf }
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("free", &self.shelf.free().len())
            .field("out", &self.out())
            .finish_non_exhaustive()
    }
}

impl Shelf {
    fn free(&self) -> MutexGuard<'_, Vec<Vec<u8>>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn usual(&self) -> MutexGuard<'_, [u8; HEADROOM]> {
        self.usual.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Buffer {
    fn payload_address(&self) -> usize {
        self.bytes[HEADROOM..].as_ptr().addr()
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // Before the memory can be anybody else's.
        lent().remove(&self.payload_address());
        let out = self.shelf.out.fetch_sub(self.bytes.len(), Ordering::Relaxed) - self.bytes.len();
        let mut free = self.shelf.free();
        if self.bytes.len() == WHOLE {
            free.push(std::mem::take(&mut self.bytes));
        }
        free.truncate(self.shelf.keep + out / WHOLE);
    }
}

fn lend(buffer: Arc<Buffer>, len: usize) -> Bytes {
    lent().insert(buffer.payload_address(), Arc::downgrade(&buffer));
    Bytes::from_owner(Held(buffer)).slice(HEADROOM..HEADROOM + len)
}

/// `header` and `payload` as one piece of memory, nothing copied.
///
/// # Errors
/// The payload as it was: when no [`Pool`] made it or its beginning was cut off, when somebody else
/// holds it too and it has another header or none, and when the header is longer than [`HEADROOM`].
pub fn with_header(payload: Bytes, header: &[u8]) -> Result<Bytes, Bytes> {
    let (len, address) = (payload.len(), payload.as_ptr().addr());
    if len == 0 || HEADROOM < header.len() {
        return Err(payload);
    }
    // A statement of its own: a buffer that goes back to its shelf takes the same lock.
    let buffer = lent().get(&address).and_then(Weak::upgrade);
    let Some(buffer) = buffer else {
        return Err(payload);
    };
    drop(payload);
    let start = HEADROOM - header.len();
    let whole = |buffer| Bytes::from_owner(Held(buffer)).slice(start..HEADROOM + len);
    if buffer.bytes[start..HEADROOM] == *header {
        return Ok(whole(buffer));
    }
    match Arc::try_unwrap(buffer) {
        Ok(mut buffer) => {
            buffer.bytes[start..HEADROOM].copy_from_slice(header);
            Ok(whole(Arc::new(buffer)))
        }
        Err(shared) => {
            if len == MAX_FRAME {
                shared.shelf.usual()[start..].copy_from_slice(header);
            }
            Err(lend(shared, len))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    fn frame(pool: &Pool, bytes: &[u8]) -> Bytes {
        let filled = pool.frame(bytes.len(), |buffer| {
            buffer.copy_from_slice(bytes);
            Ok::<_, Infallible>(bytes.len())
        });
        filled.unwrap_or_else(|never| match never {})
    }

    #[test]
    fn a_frame_is_what_was_written_and_takes_a_header_in_place() {
        let pool = Pool::default();
        for len in [1, LARGE - 1, LARGE, MAX_FRAME] {
            for header in [&b""[..], b"h", b"0123456789abcdef"] {
                let bytes: Vec<u8> = (0..=255).cycle().take(len).collect();
                let payload = frame(&pool, &bytes);
                assert_eq!(payload, bytes);
                let address = payload.as_ptr();
                let whole = with_header(payload, header).unwrap();
                assert_eq!(whole, [header, &bytes].concat(), "{len}");
                assert_eq!(whole[header.len()..].as_ptr(), address, "{len} bytes were copied");
            }
        }
        assert_eq!(pool.out(), 0);
    }

    #[test]
    fn what_others_hold_too_is_given_back_untouched() {
        let pool = Pool::default();
        let payload = frame(&pool, b"payload");
        let other = payload.clone();
        let payload = with_header(payload, b"head").unwrap_err();
        assert_eq!((&payload[..], &other[..]), (&b"payload"[..], &b"payload"[..]));
        drop(other);
        assert_eq!(with_header(payload, b"head").unwrap(), b"headpayload"[..]);
    }

    #[test]
    fn whole_frames_in_several_hands_have_the_usual_header() {
        let pool = Pool::default();
        let bytes = vec![7; MAX_FRAME];
        let first = frame(&pool, &bytes);
        with_header(first.clone(), b"head").unwrap_err();
        // Neither another length nor another header for one frame changes what is usual.
        let short = frame(&pool, b"short");
        with_header(short.clone(), b"other").unwrap_err();
        with_header(frame(&pool, &bytes), b"other").unwrap();
        let payload = frame(&pool, &bytes);
        for _ in 0..2 {
            let whole = with_header(payload.clone(), b"head").unwrap();
            assert_eq!(whole, [b"head", &bytes[..]].concat());
            assert_eq!(whole[4..].as_ptr(), payload.as_ptr());
        }
        assert_eq!(with_header(payload.clone(), b"HEAD").unwrap_err(), payload);
        drop((first, short, payload));
        assert_eq!(pool.out(), 0);
    }

    #[test]
    fn what_no_pool_made_is_given_back() {
        let pool = Pool::default();
        let mut cut = frame(&pool, b"payload");
        let _front = cut.split_to(1);
        for payload in [cut, Bytes::from_static(b"ayload"), Bytes::from(b"ayload".to_vec())] {
            assert_eq!(with_header(payload, b"h").unwrap_err(), b"ayload"[..]);
        }
        assert_eq!(with_header(Bytes::new(), b"h").unwrap_err(), b""[..]);
        let headed = with_header(frame(&pool, b"payload"), b"h").unwrap();
        assert_eq!(with_header(headed, b"h").unwrap_err(), b"hpayload"[..], "a second header");
        let long = [0; HEADROOM + 1];
        assert_eq!(with_header(frame(&pool, b"payload"), &long).unwrap_err(), b"payload"[..]);
    }

    #[test]
    fn a_payload_that_lost_its_end_takes_a_header() {
        let pool = Pool::default();
        let mut payload = frame(&pool, b"payload");
        payload.truncate(3);
        assert_eq!(with_header(payload, b"h").unwrap(), b"hpay"[..]);
    }

    #[test]
    fn buffers_are_used_again_and_no_more_are_kept_than_allowed() {
        let pool = Pool::new(1);
        let bytes = vec![7; MAX_FRAME];
        let (first, second) = (frame(&pool, &bytes), frame(&pool, &bytes));
        assert_eq!(pool.out(), 2 * WHOLE);
        let address = first.as_ptr();
        let third = frame(&pool, &bytes);
        drop(first);
        drop(third);
        assert_eq!(pool.shelf.free().len(), 2, "one at rest, and one more as one is out");
        drop(second);
        assert_eq!((pool.out(), pool.shelf.free().len()), (0, 1));
        let again = frame(&pool, &bytes);
        assert_eq!(again.as_ptr(), address);
        // Through the header, too.
        drop(with_header(again, b"h").unwrap());
        assert_eq!((pool.out(), pool.shelf.free().len()), (0, 1));
    }

    #[test]
    fn a_read_that_fails_or_brings_nothing_keeps_nothing_out() {
        let pool = Pool::default();
        assert_eq!(pool.frame(MAX_FRAME, |_| Err("no")), Err("no"));
        assert_eq!(pool.frame(10, |_| Ok::<_, &str>(0)), Ok(Bytes::new()));
        assert_eq!(pool.out(), 0);
    }
}
