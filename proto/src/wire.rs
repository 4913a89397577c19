//! Types generated from the schema, and the numbers that both ends agree on.

use std::fmt;
use std::time::Duration;

use tonic::transport::Channel;
use transfer::MAX_FRAME;

/// The bindings, made by `cargo xtask codegen`.
#[rustfmt::skip]
#[path = "gen/longshore.v1.rs"]
#[expect(
    unreachable_pub, clippy::doc_markdown, clippy::allow_attributes_without_reason,
    clippy::large_enum_variant,
    reason = "generated"
)]
pub(crate) mod generated;

/// A log line names a payload by its length only.
macro_rules! debug_without_payload {
    ($message:ty, $payload:ident $(, $field:ident)*) => {
        impl fmt::Debug for $message {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($message))
                    $(.field(stringify!($field), &self.$field))*
                    .field(stringify!($payload), &format_args!("{} bytes", self.$payload.len()))
                    .finish_non_exhaustive()
            }
        }
    };
}

debug_without_payload!(generated::Image, manifest, config_digest, manifest_digest);
debug_without_payload!(generated::ReadBlobResponse, data, blob_size, encoding);

/// The schema as a descriptor set with everything that it imports: what reflection serves.
pub(crate) const DESCRIPTORS: &[u8] = include_bytes!("gen/longshore.v1.bin");

/// Largest HTTP/2 frame that a client takes, in bytes: one message with a whole blob frame in it.
///
/// A sender flushes once for each frame, so frames as large as messages are worth half of the
/// throughput. The extra KiB is for the headers around the payload: without it every message would
/// trail a second frame of a few bytes.
#[expect(clippy::cast_possible_truncation, reason = "1 MiB and 1 KiB are far below 4 GiB")]
pub(crate) const MAX_HTTP2_FRAME: u32 = MAX_MESSAGE as u32;

/// Bytes that may be under way to a client in one stream; its bound of memory for it. Larger only
/// pays where round trip × bandwidth exceeds it, and an agent in a range that brings in several
/// images at once has this much for each of them.
pub(crate) const STREAM_WINDOW: u32 = 2 * MAX_HTTP2_FRAME;

/// Bytes that may be under way to a client in one connection.
pub(crate) const CONNECTION_WINDOW: u32 = 6 * MAX_HTTP2_FRAME;

/// Bytes of a Unix socket's send buffer, which the kernel doubles for its own book-keeping: its memory,
/// for each connection in which more is sent than is read.
pub(crate) const SEND_BUFFER: usize = MAX_MESSAGE;

/// Connections of one listener that have such a buffer: as many as a caller reads by. Further ones
/// have what the system gives, so that nobody takes more of the kernel's memory by connecting often.
pub(crate) const WIDE_CONNECTIONS: usize = 8;

/// Time without traffic after which either end pings the other, so that a half-open connection is
/// found within [`KEEPALIVE_INTERVAL`] + [`KEEPALIVE_TIMEOUT`].
pub(crate) const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);

/// Maximum time to answer a keepalive ping.
pub(crate) const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// A stream of a blob that moves no byte for this long is given up, by either end. Streams have no
/// other deadline.
pub(crate) const PROGRESS_TIMEOUT: Duration = Duration::from_secs(60);

/// Largest request in bytes: a thousand references of the greatest length fit.
pub(crate) const MAX_REQUEST: usize = 1 << 20;

/// Largest response in bytes: an image's three documents at their own limits, with room for the
/// rest.
pub(crate) const MAX_RESPONSE: usize = 20 << 20;

/// Most references in one request.
pub(crate) const MAX_REFERENCES: usize = 1000;

/// Most digests in one request.
pub(crate) const MAX_DIGESTS: usize = 200;

/// Items in a page when the caller does not say.
pub(crate) const DEFAULT_PAGE: usize = 50;

/// Most items in a page.
pub(crate) const MAX_PAGE: usize = 200;

/// Largest message of a blob's stream, in bytes: a frame and its envelope.
pub(crate) const MAX_MESSAGE: usize = MAX_FRAME + 1024;

/// Deadline of a quick call.
pub(crate) const UNARY_DEADLINE: Duration = Duration::from_secs(30);

/// Deadline of a plan: the host may have to export every image of it first.
pub(crate) const PLAN_DEADLINE: Duration = Duration::from_secs(30 * 60);

/// Largest message of a link, in bytes: the plans of a thousand images fit, each with an error.
pub(crate) const MAX_LINK_MESSAGE: usize = 4 << 20;

pub(crate) type InventoryClient =
    generated::inventory_service_client::InventoryServiceClient<Channel>;
pub(crate) type BlobClient = generated::blob_service_client::BlobServiceClient<Channel>;
pub(crate) type AdminServiceClient = generated::admin_service_client::AdminServiceClient<Channel>;
pub(crate) type LinkClient = generated::link_service_client::LinkServiceClient<Channel>;
pub(crate) type RangeServiceClient = generated::range_service_client::RangeServiceClient<Channel>;

/// Encodings of a blob's bytes.
pub(crate) use generated::Encoding;

pub(crate) use generated::admin_service_server::AdminServiceServer as AdminServer;
pub(crate) use generated::blob_service_server::BlobServiceServer as BlobServer;
pub(crate) use generated::inventory_service_server::InventoryServiceServer as InventoryServer;
pub(crate) use generated::link_service_server::LinkServiceServer as LinkServer;
pub(crate) use generated::range_service_server::RangeServiceServer as RangeServer;
