//! A short run of every route.

use benches::wire::route::Route;
use benches::wire::{Options, run};

#[test]
fn every_route_moves_the_blob_and_is_measured() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options {
        peer: env!("CARGO_BIN_EXE_wire-peer").into(),
        folder: folder.path().to_owned(),
        // Not a multiple of the frame size, so that the last frame is short.
        size: (8 << 20) + 12_345,
        rounds: 1,
        only: String::new(),
    };
    let mut seen = Vec::new();
    let report = run(&options, |progress| seen.push(progress.route)).unwrap();
    assert_eq!(seen.len(), Route::all().len());
    for row in &report.rows {
        assert!(0.0 < row.gigabytes_per_second && Some(0.0) < row.of_raw_tcp, "{row}");
        assert!(0.0 < row.server_cpu_seconds_per_gigabyte, "{row}");
        assert!(0 < row.client_peak_rss_bytes, "{row}");
    }
    for measure in &report.measures {
        assert!(0.0 < measure.ratio && measure.rounds == 1, "{measure}");
    }
    let lines = report.rows.len() + report.measures.len();
    assert_eq!(report.json_lines().unwrap().lines().count(), lines);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "files were left behind");
}
