//! Which place wins, and what is said of mistakes.

use std::fs;

use super::*;

/// A machine: a folder with files, variables, flags.
struct Machine {
    root: tempfile::TempDir,
    surroundings: Surroundings,
    flags: SiteFlags,
}

impl Machine {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let surroundings = Surroundings {
            folder: root.path().join("work"),
            program: root.path().join("bin/longshore"),
            settings: root.path().join("etc"),
            ..Surroundings::default()
        };
        let mut machine = Self { root, surroundings, flags: SiteFlags::default() };
        let home = machine.path("home");
        machine.set("HOME", &home);
        machine
    }

    fn path(&self, path: &str) -> String {
        self.root.path().join(path).display().to_string()
    }

    fn set(&mut self, name: &str, value: &str) {
        self.surroundings.variables.insert(name.to_owned(), value.to_owned());
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn context(&self, name: &str, host: &str) {
        let text = format!(r#"{{"Name":"{name}","Endpoints":{{"docker":{{"Host":"{host}"}}}}}}"#);
        self.write(&format!("home/.docker/contexts/meta/{name}/meta.json"), &text);
    }

    fn find(&self) -> Result<Site> {
        Site::find(&self.flags, &self.surroundings, "longshore")
    }

    /// The value of a setting, and where it came from without this machine's folder.
    fn said(&self, setting: Setting) -> (String, String) {
        let Value { text, origin } = self.find().unwrap().value(setting).clone();
        let root = format!("{}/", self.root.path().display());
        (text.replace(&root, ""), origin.to_string().replace(&root, ""))
    }

    fn check(&self, setting: Setting, text: &str, origin: &str) {
        assert_eq!(self.said(setting), (text.to_owned(), origin.to_owned()), "{setting}");
    }

    /// The usage error that there must be, without this machine's folder.
    fn mistake(&self) -> String {
        let error = self.find().unwrap_err();
        assert!(error.is::<Usage>(), "{error:#}");
        error.to_string().replace(&format!("{}/", self.root.path().display()), "")
    }
}

#[test]
fn a_machine_where_nobody_says_anything_has_defaults() {
    let machine = Machine::new();
    machine.check(Engine, "unix:///var/run/docker.sock", "default");
    machine.check(Runner, "unix:///var/run/docker.sock", "as engine");
    machine.check(HostAgent, "unix:///var/lib/longshore/admin.sock", "default");
    machine.check(RangeImage, "docker:28-dind", "default");
    machine.check(Project, "longshore", "default");
    machine.write("bin/longshore-dind-agent", "");
    machine.check(AgentBinary, "bin/longshore-dind-agent", "default");
}

#[test]
fn locks_lie_where_the_person_can_make_them() {
    let mut machine = Machine::new();
    machine.check(Locks, "/run/longshore/locks", "default");
    machine.set("XDG_RUNTIME_DIR", "/run/user/7");
    machine.check(Locks, "/run/user/7/longshore/locks", "default");
    machine.surroundings.is_root = true;
    machine.check(Locks, "/run/longshore/locks", "default");
}

#[test]
fn each_place_is_over_those_after_it() {
    let mut machine = Machine::new();
    // From the last to the first: what is added wins over all that was there before.
    machine.write("etc/longshore/longshore.toml", "engine = 'unix:///machine'\n");
    machine.check(Engine, "unix:///machine", "etc/longshore/longshore.toml:1");
    machine.write("home/.config/longshore/longshore.toml", "\nengine = 'unix:///person'\n");
    machine.check(Engine, "unix:///person", "home/.config/longshore/longshore.toml:2");
    machine.write("work/longshore.toml", "# here\n\nengine = 'unix:///folder'\n");
    machine.check(Engine, "unix:///folder", "work/longshore.toml:3");
    machine.context("far", "unix:///context");
    machine.write("home/.docker/config.json", r#"{"currentContext":"far"}"#);
    machine.check(Engine, "unix:///context", "docker context far");
    machine.context("near", "unix:///other");
    machine.set("DOCKER_CONTEXT", "near");
    machine.check(Engine, "unix:///other", "docker context near");
    machine.set("DOCKER_HOST", "unix:///docker-host");
    machine.check(Engine, "unix:///docker-host", "DOCKER_HOST");
    machine.set("LONGSHORE_ENGINE", "unix:///ours");
    machine.check(Engine, "unix:///ours", "LONGSHORE_ENGINE");
    machine.flags.engine = Some("unix:///flag".to_owned());
    machine.check(Engine, "unix:///flag", "--engine");
    machine.check(Runner, "unix:///flag", "as engine");
    machine.set("LONGSHORE_RUNNER", "unix:///runner");
    machine.check(Runner, "unix:///runner", "LONGSHORE_RUNNER");
}

#[test]
fn places_are_mixed_setting_by_setting() {
    let mut machine = Machine::new();
    machine.write("etc/longshore/longshore.toml", "project = 'team'\nhost-agent = 'unix:///m'\n");
    machine.write("work/longshore.toml", "host-agent = 'unix:///f'\nagent-binary = 'bin/agent'\n");
    machine.check(Project, "team", "etc/longshore/longshore.toml:1");
    machine.check(HostAgent, "unix:///f", "work/longshore.toml:1");
    machine.check(AgentBinary, "work/bin/agent", "work/longshore.toml:2");
    machine.set("XDG_CONFIG_HOME", &machine.path("xdg"));
    machine.write("xdg/longshore/longshore.toml", "range-image = 'mine:1'\n");
    machine.check(RangeImage, "mine:1", "xdg/longshore/longshore.toml:1");
    // A file that was named stands alone.
    machine.write("named.toml", "project = 'other'\n");
    machine.set("LONGSHORE_CONFIG", "../named.toml");
    machine.check(Project, "other", "work/../named.toml:1");
    machine.check(HostAgent, "unix:///var/lib/longshore/admin.sock", "default");
    machine.write("work/first.toml", "project = 'first'\n");
    machine.flags.config = Some("first.toml".into());
    machine.check(Project, "first", "work/first.toml:1");
}

#[test]
fn the_default_context_and_empty_variables_say_nothing() {
    let mut machine = Machine::new();
    machine.write("home/.docker/config.json", r#"{"currentContext":"default","auths":{}}"#);
    machine.set("DOCKER_HOST", "");
    machine.set("LONGSHORE_PROJECT", "");
    machine.check(Engine, "unix:///var/run/docker.sock", "default");
    machine.check(Project, "longshore", "default");
    machine.set("DOCKER_CONTEXT", "default");
    machine.check(Engine, "unix:///var/run/docker.sock", "default");
}

#[test]
fn a_mistake_is_reported_with_its_place() {
    let in_file = |text: &str| {
        let machine = Machine::new();
        machine.write("work/longshore.toml", text);
        machine.mistake()
    };
    assert_eq!(
        in_file("project = 'a'\nhostagent = 'x'\n"),
        "work/longshore.toml:2: unknown key `hostagent`; the keys are engine, runner, host-agent, \
         agent-binary, range-image, locks, project"
    );
    assert_eq!(
        in_file("\nproject = 7\n"),
        "work/longshore.toml:2: `project` needs a text in quotation marks"
    );
    assert_eq!(
        in_file("project = 'No Such'\n"),
        "project = \"No Such\" (work/longshore.toml:1) makes no sense: expected lower-case letters, \
         digits and -"
    );
    let broken = in_file("project = 'a'\nproject = \n");
    assert!(broken.starts_with("work/longshore.toml:2: "), "{broken}");

    let mut machine = Machine::new();
    machine.set("LONGSHORE_HOST_AGENT", "nowhere");
    let mistake = machine.mistake();
    assert!(mistake.starts_with("host-agent = \"nowhere\" (LONGSHORE_HOST_AGENT)"), "{mistake}");

    let mut machine = Machine::new();
    machine.flags.config = Some("absent.toml".into());
    let mistake = machine.mistake();
    assert!(mistake.starts_with("work/absent.toml could not be read: No such file"), "{mistake}");

    let mut machine = Machine::new();
    machine.set("DOCKER_CONTEXT", "gone");
    let mistake = machine.mistake();
    assert!(
        mistake.starts_with("docker context \"gone\" (DOCKER_CONTEXT) does not exist"),
        "{mistake}"
    );
    machine.set("DOCKER_HOST", "unix:///x");
    machine.check(Engine, "unix:///x", "DOCKER_HOST");
}

#[test]
fn a_host_agent_that_does_not_answer_is_told_with_what_to_do() {
    let root = tempfile::tempdir().unwrap();
    let socket = root.path().join("admin.sock");
    let made = |address: &str| {
        let made = Made {
            engine: "unix:///e".to_owned(),
            host_agent: address.to_owned(),
            agent_binary: "/a".into(),
            range_image: String::new(),
            locks: "/l".into(),
        };
        Site::made("longshore", &made)
    };
    let site = made(&format!("unix://{}", socket.display()));
    let why = site.why_silent().unwrap();
    assert!(why.contains("no host agent listens on") && why.contains("(set-up)"), "{why}");
    assert!(why.contains("longshore-host-agent run --engine unix:///e"), "{why}");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    assert_eq!(site.why_silent(), None);
    assert_eq!(made("http://127.0.0.1:1").why_silent(), None, "nobody knows from here");
}

#[test]
fn advice_names_the_flags_and_verbs_of_the_command() {
    let made = Made {
        engine: "unix:///e".to_owned(),
        host_agent: "unix:///h".to_owned(),
        agent_binary: "/a".into(),
        range_image: String::new(),
        locks: "/l".into(),
    };
    let site = Site::made("docker longshore", &made);
    let image = RangeError::NoRangeImage { image: "docker:28-dind".to_owned() };
    assert_eq!(
        site.explain(&image).to_string(),
        "the engine has no range image docker:28-dind; `docker pull docker:28-dind`, or name another \
         one with --range-image"
    );
    let unknown = RangeError::Unknown { range: "zz".parse().unwrap() };
    assert_eq!(
        site.explain(&unknown).to_string(),
        "there is no range zz; `docker longshore range ls` lists the ranges"
    );
}
