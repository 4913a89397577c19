//! Manual pages, made from a program's own command line: one for it, one for each of its commands.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, CommandFactory};

use crate::exit::Exit;

/// Folder for the pages.
#[derive(Clone, Debug, Args)]
pub struct Manual {
    /// The folder that the pages are written to.
    #[arg(value_name = "FOLDER")]
    pub folder: PathBuf,
}

impl Manual {
    /// Writes the pages of the program `P`: `program.1`, `program-command.1` and so on.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn write<P: CommandFactory>(&self) -> anyhow::Result<Exit> {
        let folder = &self.folder;
        std::fs::create_dir_all(folder)
            .and_then(|()| clap_mangen::generate_to(P::command(), folder))
            .with_context(|| format!("writing manual pages to {}", folder.display()))?;
        Ok(Exit::Ok)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    /// Does nothing.
    #[derive(Debug, Parser)]
    #[command(name = "idle")]
    enum Idle {
        /// Rests for a while.
        Rest,
    }

    #[test]
    fn each_command_has_a_page() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("man1");
        Manual { folder: folder.clone() }.write::<Idle>().unwrap();
        for (page, words) in [("idle.1", "Does nothing"), ("idle-rest.1", "Rests for a while")] {
            let text = std::fs::read_to_string(folder.join(page)).unwrap();
            assert!(text.contains(words), "{page} has no {words:?}:\n{text}");
        }
    }
}
