//! The far ends: the domain's traits as gRPC services, one set of them for each listener.
//!
//! ```text
//!   Listener ── connections ──► authorize ──► routes ──► handler(caller, request)
//!   unix, tcp   capped, alive    a row for each RPC        inventory, blobs, admin, range
//! ```

mod admin;
mod authorize;
mod blobs;
mod capacity;
mod connection;
mod health;
mod inventory;
mod link;
mod listen;
mod origin;
mod piece;
mod range;
mod raw;
mod serve;
mod watched;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use tonic::service::Routes;
use tonic_reflection::server::Builder as Reflection;

pub use self::authorize::{RPCS, Who, may_call};
pub use self::capacity::Connections;
pub use self::health::Health;
pub use self::listen::Listener;
pub use self::serve::{Caps, ServeError, Server};
use crate::wire::{
    AdminServer, DESCRIPTORS, InventoryServer, LinkServer, MAX_LINK_MESSAGE, MAX_REQUEST,
    RangeServer,
};
use control::admin::HostAdmin;
use control::identity::Caller;
use control::lending::Library;
use control::link::LinkHost;
use control::range::RangeControl;

/// The services of the host agent, as health and reflection name them.
pub const HOST_SERVICES: [&str; 4] = [
    "longshore.v1.InventoryService",
    "longshore.v1.BlobService",
    "longshore.v1.AdminService",
    "longshore.v1.LinkService",
];

/// The services of the dind agent, as health and reflection name them.
pub const RANGE_SERVICES: [&str; 1] = ["longshore.v1.RangeService"];

/// Services of one listener, and its callers.
#[derive(Clone, Debug)]
pub struct Services {
    caller: Caller,
    routes: Routes,
}

impl Services {
    /// A host agent's services for one caller.
    #[must_use]
    pub fn of_host(
        caller: Caller,
        library: Arc<Library>,
        admin: Arc<dyn HostAdmin>,
        links: Arc<dyn LinkHost>,
        health: &Health,
    ) -> Self {
        let inventory = inventory::Inventory { caller: caller.clone(), library: library.clone() };
        let blobs = blobs::Blobs::new(caller.clone(), library);
        let admin = admin::Admin { caller: caller.clone(), admin };
        let link = link::Link { caller: caller.clone(), host: links };
        let routes = common(health, &HOST_SERVICES)
            .add_service(InventoryServer::new(inventory).max_decoding_message_size(MAX_REQUEST))
            .add_service(raw::RawBlobs::new(blobs))
            .add_service(AdminServer::new(admin).max_decoding_message_size(MAX_REQUEST))
            .add_service(LinkServer::new(link).max_decoding_message_size(MAX_LINK_MESSAGE));
        Self { caller, routes }
    }

    /// A dind agent's services for one caller.
    #[must_use]
    pub fn of_range(caller: Caller, control: Arc<dyn RangeControl>, health: &Health) -> Self {
        let range = range::Range { caller: caller.clone(), control };
        let routes = common(health, &RANGE_SERVICES)
            .add_service(RangeServer::new(range).max_decoding_message_size(MAX_REQUEST));
        Self { caller, routes }
    }
}

/// Health, and reflection in both versions that clients ask for.
fn common(health: &Health, services: &[&str]) -> Routes {
    let reflection = || {
        let mut builder = Reflection::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .with_service_name("grpc.health.v1.Health");
        for service in services {
            builder = builder.with_service_name(*service);
        }
        builder
    };
    Routes::new(health.service())
        .add_service(reflection().build_v1().expect("the committed descriptors are whole"))
        .add_service(reflection().build_v1alpha().expect("the committed descriptors are whole"))
}
