//! `cargo xtask dist`: everything that a machine without sources needs, as an archive and a package.
//!
//! ```text
//! target/dist/longshore-VERSION-x86_64-linux.tar.zst   for any x86-64 Linux
//!             longshore_VERSION_amd64.deb              for Debian 12, Ubuntu 22.04 and later
//!             SHA256SUMS
//! ```
//! Needs no root, and no tool besides cargo and a linker.

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

use self::layout::Parts;
use crate::build;

/// The version of everything.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// How hard zstd tries. More takes minutes and gains little on programs.
const LEVEL: i32 = 17;

/// The programs, the one for people first.
const PROGRAMS: [&str; 3] = ["longshore", "longshore-host-agent", "longshore-dind-agent"];

/// The shells that programs can be completed in.
const SHELLS: [&str; 3] = ["bash", "zsh", "fish"];

/// How it is made.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The folder that the results are written to.
    #[arg(long, value_name = "FOLDER", default_value = "target/dist")]
    out: PathBuf,
    /// The profile that the programs are built with; `agent` takes minutes less, for a look at the
    /// result.
    #[arg(long, value_name = "PROFILE", default_value = "release")]
    profile: String,
}

/// Builds the programs, packs them, and prints what there is.
///
/// # Errors
/// When a build fails or something cannot be written.
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

/// The archive and the package, each with its file's name.
fn packed(parts: &Parts, version: &str, time: u64) -> Result<[(String, Vec<u8>); 2]> {
    let name = format!("longshore-{version}-x86_64-linux");
    let archive = zstd(&layout::archive(parts)?.tar(&format!("{name}/"), time)?)?;
    let package = deb::package(&layout::debian(parts, version, time)?, version, time)?;
    Ok([(format!("{name}.tar.zst"), archive), (format!("longshore_{version}_amd64.deb"), package)])
}

/// The programs in the folder `built`, what they say of themselves, and the files of the workspace.
fn parts(built: &Path, root: &Path) -> Result<Parts> {
    let pages = tempfile::tempdir().context("making a folder for manual pages")?;
    let mut parts = Parts::default();
    for program in PROGRAMS {
        let path = built.join(program);
        parts.programs.push((program, read(&path)?));
        for shell in SHELLS {
            let script = said(&path, &["completions".as_ref(), shell.as_ref()])?;
            parts.completions.push((program, shell, script));
        }
        said(&path, &["manual".as_ref(), pages.path().as_os_str()])?;
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

/// What a program prints.
fn said(program: &Path, arguments: &[&std::ffi::OsStr]) -> Result<Vec<u8>> {
    let output = Command::new(program).args(arguments).output();
    let output = output.with_context(|| format!("starting {}", program.display()))?;
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        bail!("{} {arguments:?} failed ({}): {errors}", program.display(), output.status);
    }
    Ok(output.stdout)
}

/// When everything was changed: `SOURCE_DATE_EPOCH` where it is set, else now.
fn time() -> u64 {
    let said = std::env::var("SOURCE_DATE_EPOCH").ok().and_then(|time| time.parse().ok());
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
    said.unwrap_or_else(now)
}

fn zstd(bytes: &[u8]) -> Result<Vec<u8>> {
    ::zstd::encode_all(bytes, LEVEL).context("compressing")
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("reading {}", path.display()))
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    fs::write(path, bytes).with_context(|| format!("writing {}", path.display()))
}
