//! `longshore host`: an administrator's verbs over a host agent.

mod print;

use std::future::Future;
use std::net::SocketAddr;

use anyhow::{Context as _, Result};
use clap::{Args, Subcommand};
use control::Pattern;
use control::admin::{NewRange, Pruning};
use process::exit::{Exit, Usage};
use process::host::{HostState, range_json, ranges_text, transfer_json, transfers_text};
use process::output::{Format, print as print_text, print_json_lines};
use process::units::{ByteSize, byte_size};
use proto::client::RemoteError;
use proto::{AdminClient, Endpoint};
use range::{RangeName, Reference};

use crate::interrupt::interruptible;
use crate::site::{Setting, Site};

/// Shown under `host --help`.
pub(crate) const EXAMPLES: &str = "\
Examples:
  Engine, store, ranges, and what is under way:
    longshore host status
  A range on another machine, which may read every tag of one repository besides its images:
    longshore host add-range far --tcp 127.0.0.1:7171 --image python:3.12 --grant 'team/*'
  What removing layers until 10 GiB are left would remove:
    longshore host prune --target 10GiB --dry-run
The administrator's socket (`longshore config`: host-agent) has mode 0600: the commands need its owner's \
rights.";

/// Commands for a host agent.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Print the agent's engine, store, ranges and transfers: exit 0 when it serves, 3 when not.
    Status(Form),
    /// List the ranges that it serves.
    Ranges(Form),
    /// Serve a range: make a socket for it. One that is served already is left as it is.
    AddRange(AddRange),
    /// Stop serving ranges: their sockets, wanted sets and grants go; containers stay.
    RemoveRange(RemoveRange),
    /// List the blobs that move at the moment.
    Transfers(Form),
    /// Remove layers from the store that nobody reads, those read longest ago first.
    Prune(Prune),
    /// Read every layer of the store again, and put aside those that are damaged. Takes as long as
    /// reading the store does.
    Verify(Form),
}

/// Form of the results.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Form {
    /// Form of the results on stdout.
    #[arg(long, value_name = "FORM", default_value = "table")]
    format: Format,
}

/// A range to serve.
#[derive(Clone, Debug, Args)]
pub(crate) struct AddRange {
    /// The range.
    #[arg(value_name = "NAME")]
    name: RangeName,
    /// Serve it on this TCP address too; port 0 takes a free one. Whoever reaches the address is taken
    /// for the range.
    #[arg(long, value_name = "ADDRESS:PORT")]
    tcp: Option<SocketAddr>,
    /// An image that the range should have; may be given several times.
    #[arg(long = "image", value_name = "REFERENCE")]
    images: Vec<Reference>,
    /// Images that the range may read besides, such as 'team/*'; '*' for all; may be given several
    /// times.
    #[arg(long = "grant", value_name = "PATTERN")]
    grants: Vec<Pattern>,
    #[command(flatten)]
    form: Form,
}

/// Ranges that are not to be served any more.
#[derive(Clone, Debug, Args)]
pub(crate) struct RemoveRange {
    /// A range.
    #[arg(value_name = "NAME", required = true)]
    names: Vec<RangeName>,
}

/// Limits of a removal.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Prune {
    /// Remove until the store takes at most this, such as 10GiB; without it, all that nobody reads.
    #[arg(long, value_name = "SIZE", value_parser = byte_size)]
    target: Option<ByteSize>,
    /// Only print what would be removed.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    form: Form,
}

/// Carries a verb out.
///
/// # Errors
/// When the host agent does not answer or refuses, with what to do.
pub(crate) fn run(command: &Command, site: &Site) -> Result<Exit> {
    let address = site.text(Setting::HostAgent);
    let endpoint: Endpoint = address.parse().map_err(|_| Usage(address.to_owned()))?;
    // The client connects within a runtime.
    let admin = || AdminClient::new(endpoint.clone());
    match command {
        Command::Status(form) => status(*form, &endpoint, site),
        Command::Ranges(form) => {
            let ranges = asked(site, async { admin().ranges().await })?;
            answer(
                ranges,
                form.format,
                |ranges| ranges_text(ranges),
                |ranges| ranges.iter().map(range_json).collect(),
            )
        }
        Command::Transfers(form) => {
            let transfers = asked(site, async { admin().transfers().await })?;
            answer(
                transfers,
                form.format,
                |moving| transfers_text(moving),
                |moving| moving.iter().map(transfer_json).collect(),
            )
        }
        Command::AddRange(add) => {
            let range = NewRange {
                name: add.name.clone(),
                tcp: add.tcp,
                wanted: add.images.clone(),
                grants: add.grants.clone(),
            };
            let added = asked(site, async { admin().add_range(&range).await })?;
            answer(added, add.form.format, print::added, |range| vec![range_json(range)])
        }
        Command::RemoveRange(remove) => remove_ranges(&remove.names, admin, site),
        Command::Prune(prune) => {
            let pruning =
                Pruning { target: prune.target.map(|size| size.0), dry_run: prune.dry_run };
            let pruned = asked(site, async { admin().prune(pruning).await })?;
            let dry_run = prune.dry_run;
            answer(
                pruned,
                prune.form.format,
                |pruned| print::pruned(pruned, dry_run),
                |pruned| vec![print::pruned_json(pruned)],
            )
        }
        Command::Verify(form) => {
            let check = asked(site, async { admin().verify_store().await })?;
            let is_whole = check.as_ref().is_some_and(|check| check.quarantined.is_empty());
            let exit = answer(check, form.format, print::checked, |check| {
                vec![print::checked_json(check)]
            })?;
            Ok(if exit == Exit::Ok { Exit::whole(is_whole) } else { exit })
        }
    }
}

fn status(form: Form, endpoint: &Endpoint, site: &Site) -> Result<Exit> {
    let state = asked(site, HostState::ask(endpoint))?;
    let serving = state.as_ref().is_some_and(|state| state.serving);
    let exit = answer(state, form.format, HostState::text, |state| vec![state.json()])?;
    Ok(if exit == Exit::Ok { Exit::whole(serving) } else { exit })
}

/// Removes each of them; one that is not there is reported and is no failure.
fn remove_ranges(
    names: &[RangeName],
    admin: impl Fn() -> AdminClient,
    site: &Site,
) -> Result<Exit> {
    for name in names {
        let removed = asked(site, async {
            match admin().remove_range(name).await {
                Err(error) if error.reason() == "RANGE_NOT_FOUND" => Ok(false),
                removed => removed.map(|()| true),
            }
        })?;
        match removed {
            Some(true) => eprintln!("{name}: removed"),
            Some(false) => eprintln!("{name}: there is no such range"),
            None => return Ok(Exit::Interrupted),
        }
    }
    Ok(Exit::Ok)
}

/// The agent's answer; `None` after an interrupt.
fn asked<T>(
    site: &Site,
    question: impl Future<Output = Result<T, RemoteError>>,
) -> Result<Option<T>> {
    interruptible(async {
        let answer = question.await;
        answer.map_err(|error| {
            let text = transfer::explain(&error);
            match site.why_silent() {
                Some(why) => anyhow::anyhow!("{text}; {why}"),
                None => anyhow::anyhow!(text),
            }
        })
    })
    .with_context(|| format!("asking the host agent at {}", site.text(Setting::HostAgent)))
}

/// Prints an answer in the form that is asked for.
fn answer<T>(
    answer: Option<T>,
    format: Format,
    text: impl FnOnce(&T) -> String,
    lines: impl FnOnce(&T) -> Vec<serde_json::Value>,
) -> Result<Exit> {
    let Some(answer) = answer else { return Ok(Exit::Interrupted) };
    match format {
        Format::Table => print_text(&text(&answer))?,
        Format::Json => print_json_lines(lines(&answer))?,
    }
    Ok(Exit::Ok)
}
