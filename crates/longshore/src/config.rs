//! `longshore config`: each setting, and where it came from.

use anyhow::Result;
use clap::Args;
use process::exit::Exit;
use process::output::{Format, Table, print, print_json_lines};
use serde::Serialize;

use crate::site::{Setting, Site};

/// Arguments of `config`.
#[derive(Clone, Copy, Debug, Args)]
#[command(after_help = "\
A setting is taken from the first place that has it: the flag, the variable, a longshore.toml in the \
working folder, in $XDG_CONFIG_HOME/longshore/ (~/.config/longshore/) or in /etc/longshore/, the default. \
The engine is also taken from DOCKER_HOST or the current docker context, after LONGSHORE_ENGINE. \
A longshore.toml has one line for each setting, such as `range-image = \"docker:28-dind\"`.")]
pub(crate) struct Config {
    /// Form of the results on stdout.
    #[arg(long, value_name = "FORM", default_value = "table")]
    format: Format,
}

/// One line of JSON: a setting.
#[derive(Debug, Serialize)]
struct Line<'a> {
    setting: &'static str,
    value: &'a str,
    origin: String,
    variable: &'static str,
}

/// Prints them.
///
/// # Errors
/// When stdout cannot be written.
pub(crate) fn run(config: Config, site: &Site) -> Result<Exit> {
    match config.format {
        Format::Table => print(&table(site))?,
        Format::Json => print_json_lines(lines(site))?,
    }
    Ok(Exit::Ok)
}

fn lines(site: &Site) -> impl Iterator<Item = Line<'_>> {
    Setting::ALL.into_iter().map(|setting| {
        let value = site.value(setting);
        Line {
            setting: setting.key(),
            value: &value.text,
            origin: value.origin.to_string(),
            variable: setting.variable(),
        }
    })
}

fn table(site: &Site) -> String {
    let mut table = Table::new(["SETTING", "VALUE", "FROM", "VARIABLE"]);
    for Line { setting, value, origin, variable } in lines(site) {
        table.row([setting.to_owned(), value.to_owned(), origin, variable.to_owned()]);
    }
    table.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::site::Made;

    fn site() -> Site {
        let made = Made {
            engine: "unix:///e".to_owned(),
            host_agent: "unix:///h".to_owned(),
            agent_binary: "/a".into(),
            range_image: "dind:1".to_owned(),
            locks: "/l".into(),
        };
        Site::made("longshore", &made)
    }

    #[test]
    fn people_see_each_value_and_where_it_came_from() {
        assert_eq!(
            table(&site()),
            "SETTING       VALUE      FROM    VARIABLE\n\
             engine        unix:///e  set-up  LONGSHORE_ENGINE\n\
             runner        unix:///e  set-up  LONGSHORE_RUNNER\n\
             host-agent    unix:///h  set-up  LONGSHORE_HOST_AGENT\n\
             agent-binary  /a         set-up  LONGSHORE_AGENT_BINARY\n\
             range-image   dind:1     set-up  LONGSHORE_RANGE_IMAGE\n\
             locks         /l         set-up  LONGSHORE_LOCKS\n\
             project       longshore  set-up  LONGSHORE_PROJECT\n"
        );
    }

    #[test]
    fn programs_see_the_same() {
        let site = site();
        let first = lines(&site).next().unwrap();
        assert_eq!(
            serde_json::to_string(&first).unwrap(),
            r#"{"setting":"engine","value":"unix:///e","origin":"set-up","variable":"LONGSHORE_ENGINE"}"#
        );
    }
}
