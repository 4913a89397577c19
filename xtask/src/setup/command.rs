//! Programs of the machine: found, run, and quoted when they fail.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, Result, anyhow, bail};

/// Where administration tools lie even when a shell's `PATH` leaves them out, as `su` without `-` does.
const MORE_PATH: [&str; 5] = ["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin"];

/// How many of the last lines of a failed program's output an error quotes.
const TAIL_LINES: usize = 15;

/// Every file called `program` that can be run, in the order of `PATH`.
pub(super) fn find_all(program: &str) -> Vec<PathBuf> {
    use std::os::unix::fs::PermissionsExt as _;
    let is_program = |path: &PathBuf| {
        path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    };
    let mut found: Vec<PathBuf> = Vec::new();
    for path in folders().into_iter().map(|folder| folder.join(program)).filter(is_program) {
        if !found.contains(&path) {
            found.push(path);
        }
    }
    found
}

/// The first file called `program`, or `None` when the machine has no such program.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    find_all(program).into_iter().next()
}

fn folders() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .filter(|folder| folder.is_absolute())
        .chain(MORE_PATH.iter().map(PathBuf::from))
        .collect()
}

/// A command for `program` with the administration tools in its `PATH` and English messages.
///
/// # Errors
/// When the machine has no such program.
pub(crate) fn command(program: &str) -> Result<Command> {
    let path =
        find(program).ok_or_else(|| anyhow!("the program `{program}` is not on this machine"))?;
    Ok(command_at(&path))
}

/// As [`command`], for a program whose place is known.
pub(super) fn command_at(path: &Path) -> Command {
    let mut command = Command::new(path);
    let joined =
        std::env::join_paths(folders()).unwrap_or_else(|_| OsString::from("/usr/sbin:/usr/bin"));
    command.env("PATH", joined).env("LC_ALL", "C").stdin(Stdio::null());
    command
}

/// A command for `program` that dies with us, so that a killed set-up leaves nobody writing behind
/// the back of the next one.
///
/// # Errors
/// When the machine lacks the program or `setpriv`.
pub(super) fn bound(program: &Path) -> Result<Command> {
    let mut command = command("setpriv")?;
    command.args(["--pdeathsig", "KILL"]).arg(program);
    Ok(command)
}

/// Runs `command` to its end and answers what it printed on stdout, without the last line end.
///
/// # Errors
/// When it cannot be started or fails; the message quotes the command and the end of its output.
pub(super) fn run(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("starting `{}`", quoted(command)))?;
    checked(command, &output)
}

/// What `output` of `command` says, or its failure.
///
/// # Errors
/// When the command failed.
pub(super) fn checked(command: &Command, output: &Output) -> Result<String> {
    let stdout = String::from_utf8_lossy(&output.stdout);
    if output.status.success() {
        return Ok(stdout.trim_end().to_owned());
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    bail!(
        "`{}` failed ({}):\n{}",
        quoted(command),
        output.status,
        tail(&format!("{stdout}\n{stderr}"))
    )
}

/// Whether `command` runs and succeeds; what it prints is dropped.
pub(super) fn succeeds(command: &mut Command) -> bool {
    command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Runs `command` with its output appended to the file `log`, which an error names and quotes.
///
/// # Errors
/// When the log cannot be written, or the command cannot be started or fails.
pub(super) fn run_logged(command: &mut Command, log: &Path) -> Result<()> {
    let file = std::fs::File::create(log).with_context(|| format!("creating {}", log.display()))?;
    let errors = file.try_clone().with_context(|| format!("opening {}", log.display()))?;
    let status = command
        .stdout(file)
        .stderr(errors)
        .status()
        .with_context(|| format!("starting `{}`", quoted(command)))?;
    if status.success() {
        return Ok(());
    }
    bail!("`{}` failed ({status}); {}", quoted(command), log_tail(log))
}

/// The end of the file `log` and its name, for an error message.
pub(super) fn log_tail(log: &Path) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    format!("the end of {}:\n{}", log.display(), tail(&String::from_utf8_lossy(&text)))
}

/// The last [`TAIL_LINES`] lines of `text` that say something.
fn tail(text: &str) -> String {
    let lines: Vec<&str> =
        text.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}

/// The command as someone would type it, cut where it is long.
fn quoted(command: &Command) -> String {
    const MAX_CHARS: usize = 200;
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<_> = words.map(|word| word.to_string_lossy()).collect();
    let line = words.join(" ");
    match line.char_indices().nth(MAX_CHARS) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_program_is_quoted_with_the_end_of_what_it_said() {
        let script = "for i in $(seq 30); do echo line $i >&2; done; exit 3";
        let error = run(command("sh").unwrap().args(["-c", script])).unwrap_err().to_string();
        assert!(error.contains("line 30") && !error.contains("line 15\n"), "{error}");
        assert!(error.contains("exit status: 3"), "{error}");
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let error = command("no-such-program-here").unwrap_err().to_string();
        assert!(error.contains("no-such-program-here"), "{error}");
        assert_eq!(find("no-such-program-here"), None);
    }

    #[test]
    fn output_comes_without_its_last_line_end() {
        assert_eq!(run(command("echo").unwrap().arg("a b")).unwrap(), "a b");
        assert!(succeeds(&mut command("true").unwrap()));
        assert!(!succeeds(&mut command("false").unwrap()));
    }
}
