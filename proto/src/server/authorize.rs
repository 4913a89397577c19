//! Permissions: a row for each RPC. An RPC without a row is refused to every caller.

use std::task::{Context, Poll};

use futures::future::{Either, Ready, ready};
use http::{Request, Response};
use tonic::body::Body;
use tower::{Layer, Service};

use crate::convert::status::not_allowed;
use control::identity::Caller;

/// Callers that may call an RPC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// Every caller that has a listener; what it gets to see is decided per image and blob.
    Anyone,
    /// Every caller on a socket: all but an inspector.
    Holder,
    /// A range, since the call is about the caller itself.
    Range,
    /// Administrators and inspectors: all but a range.
    Looker,
    /// The administrator.
    Admin,
}

/// Every RPC that is served, and who may call it.
pub const RPCS: &[(&str, Who)] = &[
    ("/longshore.v1.InventoryService/ListImages", Who::Anyone),
    // An image's config contains the environment of its containers.
    ("/longshore.v1.InventoryService/GetImage", Who::Holder),
    ("/longshore.v1.InventoryService/ResolveImages", Who::Anyone),
    ("/longshore.v1.BlobService/StatBlobs", Who::Holder),
    ("/longshore.v1.BlobService/ReadBlob", Who::Holder),
    ("/longshore.v1.AdminService/GetStats", Who::Looker),
    ("/longshore.v1.AdminService/ListRanges", Who::Looker),
    ("/longshore.v1.AdminService/WatchRanges", Who::Looker),
    ("/longshore.v1.AdminService/AddRange", Who::Admin),
    ("/longshore.v1.AdminService/RemoveRange", Who::Admin),
    ("/longshore.v1.AdminService/SetWanted", Who::Admin),
    ("/longshore.v1.AdminService/GetWanted", Who::Looker),
    ("/longshore.v1.AdminService/SetGrants", Who::Admin),
    ("/longshore.v1.AdminService/SyncRange", Who::Admin),
    ("/longshore.v1.AdminService/PlanRange", Who::Admin),
    ("/longshore.v1.AdminService/VerifyRange", Who::Admin),
    ("/longshore.v1.AdminService/ListTransfers", Who::Looker),
    ("/longshore.v1.AdminService/Prune", Who::Admin),
    ("/longshore.v1.AdminService/VerifyStore", Who::Admin),
    ("/longshore.v1.LinkService/Attach", Who::Range),
    // Served by a range's own agent to everyone who may open its socket.
    ("/longshore.v1.RangeService/Sync", Who::Holder),
    ("/longshore.v1.RangeService/ListImages", Who::Anyone),
    // They cost: an export on the host, or reading a whole engine.
    ("/longshore.v1.RangeService/Plan", Who::Holder),
    ("/longshore.v1.RangeService/Verify", Who::Holder),
    ("/longshore.v1.RangeService/GetStatus", Who::Anyone),
    ("/grpc.health.v1.Health/Check", Who::Anyone),
    ("/grpc.health.v1.Health/Watch", Who::Anyone),
    // They tell of the protocol, and nothing of this host.
    ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", Who::Anyone),
    ("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", Who::Anyone),
];

/// True if `caller` may call the RPC with this path.
#[must_use]
pub fn may_call(caller: &Caller, path: &str) -> bool {
    let Some((_, who)) = RPCS.iter().find(|(rpc, _)| *rpc == path) else {
        return false;
    };
    match (who, caller) {
        (Who::Range, caller) => matches!(caller, Caller::Range(_)),
        (Who::Anyone, _) | (_, Caller::Admin) => true,
        (Who::Holder, Caller::Range(_)) | (Who::Looker, Caller::Inspector) => true,
        (Who::Holder, Caller::Inspector) | (Who::Looker, Caller::Range(_)) => false,
        (Who::Admin, Caller::Range(_) | Caller::Inspector) => false,
    }
}

/// Lets a caller's requests through to what it may call.
#[derive(Clone, Debug)]
pub(super) struct Authorize {
    pub(super) caller: Caller,
}

impl<S> Layer<S> for Authorize {
    type Service = Authorized<S>;

    fn layer(&self, inner: S) -> Authorized<S> {
        Authorized { caller: self.caller.clone(), inner }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Authorized<S> {
    caller: Caller,
    inner: S,
}

impl<S, B> Service<Request<B>> for Authorized<S>
where
    S: Service<Request<B>, Response = Response<Body>>,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Either<S::Future, Ready<Result<Response<Body>, S::Error>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let path = request.uri().path();
        if may_call(&self.caller, path) {
            return Either::Left(self.inner.call(request));
        }
        // A path is the caller's own text: as much of it as any RPC's name has.
        let path: String = path.chars().take(100).collect();
        tracing::warn!(caller = %self.caller, %path, "refused a call");
        Either::Right(ready(Ok(not_allowed(&self.caller, &path).into_http())))
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::wire::DESCRIPTORS;

    #[test]
    fn every_rpc_of_the_schema_has_a_row_and_every_row_an_rpc() {
        let set = prost_types::FileDescriptorSet::decode(DESCRIPTORS).unwrap();
        let mut rpcs: Vec<String> = set
            .file
            .iter()
            .flat_map(|file| file.service.iter().map(move |service| (file.package(), service)))
            .flat_map(|(package, service)| {
                let path = move |rpc: &str| format!("/{package}.{}/{rpc}", service.name());
                service.method.iter().map(move |method| path(method.name()))
            })
            .collect();
        let mut rows: Vec<String> = RPCS
            .iter()
            .map(|(rpc, _)| (*rpc).to_owned())
            .filter(|rpc| rpc.starts_with("/longshore."))
            .collect();
        rpcs.sort();
        rows.sort();
        assert_eq!(rpcs, rows);
    }

    #[test]
    fn a_range_calls_nothing_of_the_administrator() {
        let range = Caller::Range("a".parse().unwrap());
        for (rpc, who) in RPCS {
            let of_admin = matches!(who, Who::Admin | Who::Looker);
            assert_eq!(of_admin, rpc.contains("AdminService"), "{rpc}");
            assert_eq!(may_call(&range, rpc), !of_admin, "{rpc}");
            assert_eq!(may_call(&Caller::Admin, rpc), *who != Who::Range, "{rpc}");
        }
    }

    #[test]
    fn an_inspector_reads_no_layer_and_changes_nothing() {
        let refused: Vec<&str> = RPCS
            .iter()
            .map(|(rpc, _)| *rpc)
            .filter(|rpc| !may_call(&Caller::Inspector, rpc))
            .map(|rpc| rpc.trim_start_matches("/longshore.v1."))
            .collect();
        let expected = [
            "InventoryService/GetImage",
            "BlobService/StatBlobs",
            "BlobService/ReadBlob",
            "AdminService/AddRange",
            "AdminService/RemoveRange",
            "AdminService/SetWanted",
            "AdminService/SetGrants",
            "AdminService/SyncRange",
            "AdminService/PlanRange",
            "AdminService/VerifyRange",
            "AdminService/Prune",
            "AdminService/VerifyStore",
            "LinkService/Attach",
            "RangeService/Sync",
            "RangeService/Plan",
            "RangeService/Verify",
        ];
        assert_eq!(refused, expected);
    }

    #[test]
    fn what_has_no_row_is_called_by_nobody() {
        for path in
            ["", "/", "/longshore.v1.BlobService/", "/longshore.v1.BlobService/ReadBlob/", "*"]
        {
            assert!(!may_call(&Caller::Admin, path), "{path:?}");
        }
    }
}
