//! Accepted and refused command lines.

use super::*;

fn parse(line: &str) -> Result<Config, clap::Error> {
    Config::try_parse_from(std::iter::once("longshore-dind-agent").chain(line.split_whitespace()))
}

#[test]
fn the_flags_agree_with_each_other() {
    Config::command().debug_assert();
}

#[test]
fn a_range_needs_nothing_but_its_entry_point() {
    let Command::Run(run) = parse("run -- dockerd-entrypoint.sh dockerd --debug").unwrap().command
    else {
        panic!("not run");
    };
    assert_eq!(run.entry_point, ["dockerd-entrypoint.sh", "dockerd", "--debug"]);
    assert_eq!(run.serve.path.engine, "unix:///var/run/docker.sock");
    assert_eq!(run.serve.path.host.to_string(), "unix:///run/longshore/host/host.sock");
    assert_eq!(run.serve.path.concurrency, 3);
    assert_eq!(run.serve.listen, PathBuf::from("/run/longshore/agent/agent.sock"));
    assert_eq!(run.serve.drain_timeout, Duration::from_secs(5));
    assert_eq!(run.engine_stop_timeout, Duration::from_secs(20));
    assert_eq!(run.serve.inspect_address(), Ok(None));
    assert!(!run.supervised);
    assert!(run.registry_mirror);
    assert!(run.serve.registry.registry.is_none());
}

#[test]
fn flags_are_read_into_types() {
    let line = "serve --engine tcp://127.0.0.1:2375 --host http://10.0.0.1:7071 --listen /tmp/a.sock \
                --inspect 127.0.0.1:7072 --image postgres:16 --image python --concurrency 5 \
                --drain-timeout 250ms --name lab-7 --log debug --log-format json";
    let config = parse(line).unwrap();
    let Command::Serve(serve) = config.command else { panic!("not serve") };
    assert_eq!(serve.path.host.to_string(), "http://10.0.0.1:7071");
    assert_eq!(serve.inspect_address(), Ok(Some("127.0.0.1:7072".parse().unwrap())));
    assert_eq!(serve.images, ["postgres:16".parse().unwrap(), "python:latest".parse().unwrap()]);
    assert_eq!(serve.path.concurrency, 5);
    assert_eq!(serve.drain_timeout, Duration::from_millis(250));
    assert_eq!(serve.path.name, "lab-7");
    assert_eq!(config.telemetry.filter, "debug");
}

#[test]
fn what_cannot_be_meant_is_a_usage_error() {
    let cases = [
        ("", ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand),
        ("run", ErrorKind::MissingRequiredArgument),
        ("run dockerd", ErrorKind::UnknownArgument),
        ("sync", ErrorKind::MissingRequiredArgument),
        ("sync Upper/Case", ErrorKind::ValueValidation),
        ("sync x --concurrency 0", ErrorKind::ValueValidation),
        ("sync x --format yaml", ErrorKind::InvalidValue),
        ("serve --host ftp://x", ErrorKind::ValueValidation),
        ("serve --inspect nowhere", ErrorKind::ValueValidation),
        ("serve --registry 0.0.0.0:5000", ErrorKind::ValueValidation),
        ("run --registry localhost -- dockerd", ErrorKind::ValueValidation),
        ("run --registry-mirror maybe -- dockerd", ErrorKind::InvalidValue),
        ("serve --drain-timeout 10", ErrorKind::ValueValidation),
        ("serve --log engine=loud", ErrorKind::ValueValidation),
    ];
    for (line, kind) in cases {
        let error = parse(line).map(|_| ()).expect_err(line);
        assert_eq!(error.kind(), kind, "{line:?}: {error}");
    }
}
