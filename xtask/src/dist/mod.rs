//! `cargo xtask dist`: an archive and a Debian package for machines without the sources.
//!
//! ```text
//! target/dist/longshore-VERSION-x86_64-linux.tar.zst   for any x86-64 Linux
//!             longshore_VERSION_amd64.deb              for Debian 12, Ubuntu 22.04 and later
//!             SHA256SUMS
//! ```
//! It needs cargo and a linker, but no root.

mod compress;
mod deb;
mod layout;
mod tree;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use process::output::{print, size};
use transfer::Digest;

use self::compress::zstd;
use self::layout::Parts;
use crate::build;

/// The version of the workspace.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The packed programs.
const PROGRAMS: [&str; 3] = ["longshore", "longshore-host-agent", "longshore-dind-agent"];

/// The shells with completion scripts.
const SHELLS: [&str; 3] = ["bash", "zsh", "fish"];

/// Options of `cargo xtask dist`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Folder for the results.
    #[arg(long, value_name = "FOLDER", default_value = "target/dist")]
    out: PathBuf,
    /// Cargo profile of the programs; `agent` builds minutes faster, for a trial.
    #[arg(long, value_name = "PROFILE", default_value = "dist")]
    profile: String,
}

/// Builds the programs, packs them, and prints the resulting files.
///
/// # Errors
/// A build fails, or a file cannot be written.
pub(crate) fn run(options: &Options) -> Result<()> {
    let built = build::programs(&options.profile, &["longshore", "host-agent", "dind-agent"])?;
    let parts = parts(&built, crate::workspace::root())?;
    let out = crate::workspace::root().join(&options.out);
    fs::create_dir_all(&out).with_context(|| format!("creating {}", out.display()))?;
    let mut sums = String::new();
    for (name, bytes) in packed(&parts, VERSION, time())? {
        sums.push_str(&format!("{}  {name}\n", Digest::of(&bytes).hex()));
        write(&out.join(&name), &bytes)?;
        print(&format!("{}  {}\n", out.join(&name).display(), size(bytes.len() as u64)))?;
    }
    write(&out.join("SHA256SUMS"), sums.as_bytes())
}

/// The archive and the package, each with its file name.
fn packed(parts: &Parts, version: &str, time: u64) -> Result<[(String, Vec<u8>); 2]> {
    let name = format!("longshore-{version}-x86_64-linux");
    let archive = zstd(&layout::archive(parts)?.tar(&format!("{name}/"), time)?)?;
    let package = deb::package(&layout::debian(parts, version, time)?, version, time)?;
    Ok([(format!("{name}.tar.zst"), archive), (format!("longshore_{version}_amd64.deb"), package)])
}

/// Collects the programs in the folder `built`, their completions and manual pages, and the workspace's
/// files.
fn parts(built: &Path, root: &Path) -> Result<Parts> {
    let pages = tempfile::tempdir().context("making a folder for manual pages")?;
    let mut parts = Parts::default();
    for program in PROGRAMS {
        let path = built.join(program);
        parts.programs.push((program, read(&path)?));
        for shell in SHELLS {
            let script = output_of(&path, &["completions".as_ref(), shell.as_ref()])?;
            parts.completions.push((program, shell, script));
        }
        output_of(&path, &["manual".as_ref(), pages.path().as_os_str()])?;
    }
    for page in fs::read_dir(pages.path()).context("reading the manual pages")? {
        let page = page.context("reading the manual pages")?;
        parts.pages.push((page.file_name().to_string_lossy().into_owned(), read(&page.path())?));
    }
    for file in layout::DOCUMENTS {
        parts.documents.push((file, read(&root.join(file))?));
    }
    Ok(parts)
}

/// Runs a program and returns its stdout.
fn output_of(program: &Path, arguments: &[&std::ffi::OsStr]) -> Result<Vec<u8>> {
    let output = Command::new(program).args(arguments).output();
    let output = output.with_context(|| format!("starting {}", program.display()))?;
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        bail!("{} {arguments:?} failed ({}): {errors}", program.display(), output.status);
    }
    Ok(output.stdout)
}

/// The modification time of all files: `SOURCE_DATE_EPOCH` if it is set, else now.
fn time() -> u64 {
    let given = std::env::var("SOURCE_DATE_EPOCH").ok().and_then(|time| time.parse().ok());
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
    given.unwrap_or_else(now)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("reading {}", path.display()))
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    fs::write(path, bytes).with_context(|| format!("writing {}", path.display()))
}
