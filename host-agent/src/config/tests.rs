//! Accepted and refused command lines.

use transfer::store::{Mark, Policy};

use super::*;

fn parse(line: &str) -> Result<Config, clap::Error> {
    Config::try_parse_from(std::iter::once("longshore-host-agent").chain(line.split_whitespace()))
}

fn serve(line: &str) -> Serve {
    match parse(line).unwrap().command {
        Command::Serve(serve) => serve,
        command => panic!("{line:?} is not serve: {command:?}"),
    }
}

#[test]
fn the_flags_agree_with_each_other() {
    Config::command().debug_assert();
}

#[test]
fn serving_needs_no_flag() {
    let serve = serve("serve");
    assert_eq!(serve.state_dir, PathBuf::from("/var/lib/longshore"));
    assert_eq!(serve.inspect_address(), Ok(Some("127.0.0.1:7070".parse().unwrap())));
    assert_eq!((serve.reads, serve.reads_per_range), (24, 8));
    assert_eq!(serve.lease, Duration::from_secs(600));
    assert_eq!(serve.drain_timeout, Duration::from_secs(30));
}

#[test]
fn flags_are_read_into_types() {
    let line = "serve --engine unix:///tmp/e.sock --state-dir /tmp/s --inspect off --reads 4 \
                --reads-per-range 2 --lease 250ms --drain-timeout 1m";
    let serve = serve(line);
    assert_eq!(serve.source.engine.to_string(), "unix:///tmp/e.sock");
    assert_eq!(serve.source.export_way, ExportWay(None));
    assert_eq!(serve.inspect_address(), Ok(None));
    assert_eq!((serve.reads, serve.reads_per_range), (4, 2));
    assert_eq!(serve.lease, Duration::from_millis(250));
    assert_eq!(serve.drain_timeout, Duration::from_secs(60));
}

#[test]
fn a_grant_is_a_range_and_a_pattern() {
    let serve = serve("serve --range ci --grant ci=team/* --grant ci=python:3.*");
    let grants = serve.grants.iter().map(|it| format!("{} {}", it.range, it.pattern));
    assert_eq!(grants.collect::<Vec<_>>(), ["ci team/*", "ci python:3.*"]);
    for bad in ["ci", "=team/*", "CI=team/*", "ci=", "ci=a?"] {
        assert!(parse(&format!("serve --range ci --grant {bad}")).is_err(), "{bad} was accepted");
    }
}

#[test]
fn inspection_stays_on_this_machine_unless_somebody_insists() {
    assert!(parse("serve --inspect 0.0.0.0:7070").unwrap().check().is_err());
    assert!(parse("serve --inspect 0.0.0.0:7070 --inspect-any").unwrap().check().is_ok());
}

#[test]
fn a_store_has_marks_unless_it_is_told_otherwise() {
    let policy = serve("serve").store.policy();
    assert_eq!(policy.water, Some((Mark::Percent(80), Mark::Percent(70))));
    assert_eq!(policy.reserve, Mark::Bytes(1 << 30));
    assert_eq!(serve("serve").store.keep_layers, KeepLayers::Auto);
    assert_eq!(serve("serve --keep-layers never").store.keep_layers, KeepLayers::Never);
    let line = "serve --store-high-water off --store-reserve off";
    assert_eq!(serve(line).store.policy(), Policy { water: None, reserve: Mark::Bytes(0) });
    let line = "serve --store-high-water 10GiB --store-low-water 20GiB";
    let error = parse(line).unwrap().check().unwrap_err();
    assert!(error.contains("--store-low-water 20GiB"), "{error}");
}

#[test]
fn what_cannot_be_meant_is_a_usage_error() {
    let cases = [
        ("", ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand),
        ("server", ErrorKind::InvalidSubcommand),
        ("serve now", ErrorKind::UnknownArgument),
        ("serve --inspect 7070", ErrorKind::ValueValidation),
        ("serve --reads 0", ErrorKind::ValueValidation),
        ("serve --lease 10", ErrorKind::ValueValidation),
        ("serve --log-format xml", ErrorKind::InvalidValue),
        ("serve --engine ssh://somewhere", ErrorKind::ValueValidation),
        ("serve --store-high-water 120%", ErrorKind::ValueValidation),
        ("serve --store-reserve 1GB", ErrorKind::ValueValidation),
        ("serve --keep-layers sometimes", ErrorKind::InvalidValue),
        ("status --format xml", ErrorKind::InvalidValue),
        ("healthcheck --timeout soon", ErrorKind::ValueValidation),
    ];
    for (line, kind) in cases {
        let error = parse(line).map(|_| ()).expect_err(line);
        assert_eq!(error.kind(), kind, "{line:?}: {error}");
    }
}
