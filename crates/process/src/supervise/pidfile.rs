//! Pid files that a program left behind when it was killed.
//!
//! dockerd refuses to start while `docker.pid` names a living process, and in a container the pids
//! begin anew at each start: the number in a file from before may well be somebody else's now.

use std::path::Path;

/// Removes the pid files whose process is gone or is another program now, and returns their paths.
///
/// A file is kept while the process that it names runs the program that the file is called after
/// (`docker.pid` and `dockerd`): removing it under a living engine would let a second one start on
/// the same data.
pub(crate) fn clear_stale<'a>(files: impl IntoIterator<Item = &'a Path>) -> Vec<&'a Path> {
    files.into_iter().filter(|file| is_stale(file) && std::fs::remove_file(file).is_ok()).collect()
}

fn is_stale(file: &Path) -> bool {
    let Ok(text) = std::fs::read_to_string(file) else {
        // Not there, or not ours to read: the engine will say what it thinks of it.
        return false;
    };
    let Ok(pid) = text.trim().parse::<u32>() else {
        return true;
    };
    let program = file.file_stem().unwrap_or_default().to_string_lossy();
    !names_running(pid, &program)
}

fn names_running(pid: u32, program: &str) -> bool {
    // Exactly: a `containerd-shim` is no containerd.
    let runs = |comm: &str| comm == program || comm.strip_suffix('d') == Some(program);
    std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| runs(comm.trim_end()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_file_that_names_a_living_process_of_its_own_program_stays() {
        let folder = tempfile::tempdir().unwrap();
        let own = std::process::id();
        let comm = std::fs::read_to_string("/proc/self/comm").unwrap();
        let cases = [
            (format!("{}.pid", comm.trim_end()), format!("{own}"), false),
            ("docker.pid".into(), format!("{own}\n"), true),
            ("docker.pid".into(), "999999999".into(), true),
            ("docker.pid".into(), "0".into(), true),
            ("docker.pid".into(), "not a pid".into(), true),
            ("docker.pid".into(), String::new(), true),
        ];
        for (name, text, stale) in cases {
            let file = folder.path().join(&name);
            std::fs::write(&file, &text).unwrap();
            let removed = clear_stale([file.as_path()]);
            assert_eq!(!removed.is_empty(), stale, "{name} with {text:?}");
            assert_eq!(!file.exists(), stale, "{name} with {text:?}");
        }
        assert!(clear_stale([folder.path().join("absent.pid").as_path()]).is_empty());
    }
}
