//! Open connections, counted and limited.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::sync::OwnedSemaphorePermit;

/// The number of a server's open connections.
#[derive(Clone, Debug, Default)]
pub struct Connections(Arc<AtomicU32>);

impl Connections {
    /// Connections open now.
    #[must_use]
    pub fn open(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }

    /// Counts one more connection, which holds `permit`.
    pub(super) fn opened(&self, permit: OwnedSemaphorePermit) -> Place {
        self.0.fetch_add(1, Ordering::Relaxed);
        Place { connections: self.clone(), _permit: permit }
    }
}

/// A connection's place among the others; dropping it makes room for the next.
#[derive(Debug)]
pub(super) struct Place {
    connections: Connections,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.0.fetch_sub(1, Ordering::Relaxed);
    }
}
