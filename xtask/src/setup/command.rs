//! Finds and runs the machine's programs; errors quote a failed command and its output.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, Result, anyhow, bail};

/// Folders of administration tools, which `PATH` may lack, for instance after `su` without `-`.
const MORE_PATH: [&str; 5] = ["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin"];

/// Number of last output lines that an error quotes.
const TAIL_LINES: usize = 15;

/// All executable files called `program`, in the order of `PATH`.
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

/// The first executable file called `program`, or `None`.
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
/// The machine has no such program.
pub(crate) fn command(program: &str) -> Result<Command> {
    let path = find(program).ok_or_else(|| anyhow!("the program `{program}` is not installed"))?;
    Ok(command_at(&path))
}

/// A command like [`command`], for a program with a known path.
pub(super) fn command_at(path: &Path) -> Command {
    let mut command = Command::new(path);
    let joined =
        std::env::join_paths(folders()).unwrap_or_else(|_| OsString::from("/usr/sbin:/usr/bin"));
    command.env("PATH", joined).env("LC_ALL", "C").stdin(Stdio::null());
    command
}

/// A command for `program` that is killed when this process dies, so that a killed set-up leaves no
/// process that interferes with the next one.
///
/// # Errors
/// The machine has no `setpriv`.
pub(super) fn bound(program: &Path) -> Result<Command> {
    let mut command = command("setpriv")?;
    command.args(["--pdeathsig", "KILL"]).arg(program);
    Ok(command)
}

/// Runs `command`, and returns its stdout without the last line end.
///
/// # Errors
/// It cannot be started, or it fails; the message quotes the command and the end of its output.
pub(super) fn run(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("starting `{}`", quoted(command)))?;
    checked(command, &output)
}

/// The stdout of `command`, or an error if it failed.
///
/// # Errors
/// The command failed.
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

/// Reports whether `command` succeeds; drops its output.
pub(super) fn succeeds(command: &mut Command) -> bool {
    command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Runs `command` with its output in the file `log`, which an error names and quotes.
///
/// # Errors
/// The log cannot be written, or the command cannot be started or fails.
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

/// The name and the end of the file `log`, for an error message.
pub(super) fn log_tail(log: &Path) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    format!("the end of {}:\n{}", log.display(), tail(&String::from_utf8_lossy(&text)))
}

/// The last [`TAIL_LINES`] lines of `text` that are not empty.
fn tail(text: &str) -> String {
    let lines: Vec<&str> =
        text.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}

/// The command line, cut if it is long.
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
    fn an_error_quotes_the_end_of_a_failed_programs_output() {
        let script = "for i in $(seq 30); do echo line $i >&2; done; exit 3";
        let error = run(command("sh").unwrap().args(["-c", script])).unwrap_err().to_string();
        assert!(error.contains("line 30") && !error.contains("line 15\n"), "{error}");
        assert!(error.contains("exit status: 3"), "{error}");
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = command("no-such-program-here").unwrap_err().to_string();
        assert!(error.contains("no-such-program-here"), "{error}");
        assert_eq!(find("no-such-program-here"), None);
    }

    #[test]
    fn output_has_no_last_line_end() {
        assert_eq!(run(command("echo").unwrap().arg("a b")).unwrap(), "a b");
        assert!(succeeds(&mut command("true").unwrap()));
        assert!(!succeeds(&mut command("false").unwrap()));
    }
}
