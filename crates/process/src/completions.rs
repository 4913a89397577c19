//! Shell completions: the script with which a shell completes a program's command line.

use clap::{Args, Command, CommandFactory};
use clap_complete::{Shell, generate};

use crate::exit::Exit;
use crate::output;

/// The shell.
#[derive(Clone, Copy, Debug, Args)]
pub struct Completions {
    /// The shell that will read the script.
    #[arg(value_name = "SHELL")]
    pub shell: Shell,
}

impl Completions {
    /// The script for a program with this command line.
    #[must_use]
    pub fn script(self, mut command: Command) -> String {
        let name = command.get_name().to_owned();
        let mut script = Vec::new();
        generate(self.shell, &mut command, name, &mut script);
        String::from_utf8_lossy(&script).into_owned()
    }

    /// Prints the script for the program `P` on stdout.
    ///
    /// # Errors
    /// When stdout cannot be written.
    pub fn print<P: CommandFactory>(self) -> anyhow::Result<Exit> {
        output::print(&self.script(P::command()))?;
        Ok(Exit::Ok)
    }
}

#[cfg(test)]
mod tests {
    use clap::Arg;

    use super::*;

    #[test]
    fn each_shell_gets_a_script_that_knows_the_program() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let command = Command::new("longshore-agent")
                .subcommand(Command::new("serve").arg(Arg::new("engine").long("engine")));
            let script = Completions { shell }.script(command);
            for word in ["longshore-agent", "serve", "engine"] {
                assert!(script.contains(word), "{shell}: {word} is missing in\n{script}");
            }
        }
    }
}
