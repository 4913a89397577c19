//! The number of an engine's threads that run at once.
//!
//! A graphdriver unpacks each layer on a thread that nothing else may use, and hands it the layer in
//! small pieces: Go gives the core's place to that thread each time, and the place stands empty until
//! it has woken up. With as many places as cores, which is Go's default, four loads at once left a
//! quarter of two cores idle; with twice as many, a tenth, and a range was filled in five sixths of
//! the time (benches/results/history.md).

use std::ffi::OsString;
use std::thread::available_parallelism;

/// Go's own setting: the most threads that run Go code at once.
/// <https://pkg.go.dev/runtime#hdr-Environment_Variables>
pub const PLACES: &str = "GOMAXPROCS";

/// Places that the loads of one range fill; a machine with as many cores has them anyway.
const ENOUGH: usize = 8;

/// The environment for a dockerd that is about to start; empty if the user has `chosen` [`PLACES`], or
/// if the default is enough.
#[must_use]
pub fn environment(chosen: bool) -> Vec<(&'static str, OsString)> {
    let cores = available_parallelism().map_or(1, usize::from);
    let places = if chosen { None } else { places(cores) };
    places.map(|places| (PLACES, places.to_string().into())).into_iter().collect()
}

/// The places for this many cores; none where the default is enough.
fn places(cores: usize) -> Option<usize> {
    (cores < ENOUGH).then(|| (2 * cores).min(ENOUGH))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_cores_get_twice_as_many_places_and_many_are_left_alone() {
        let table = [1, 2, 4, 6, 8, 64].map(|cores| (cores, places(cores)));
        let expected =
            [(1, Some(2)), (2, Some(4)), (4, Some(8)), (6, Some(8)), (8, None), (64, None)];
        assert_eq!(table, expected);
    }
}
