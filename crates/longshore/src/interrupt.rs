//! Work that a person may end with an interrupt.

use std::future::Future;

use anyhow::{Context as _, Result};

/// Runs `work` to its end; `None` after an interrupt. Says then that the same command goes on from
/// there.
///
/// # Errors
/// Those of `work`, and when no runtime can be started.
pub fn until_interrupted<T>(work: impl Future<Output = Result<T>>) -> Result<Option<T>> {
    let done = interruptible(work)?;
    if done.is_none() {
        eprintln!("interrupted; the same command goes on from here");
    }
    Ok(done)
}

/// Runs `work` to its end; `None` after an interrupt, which the caller reports.
///
/// # Errors
/// Those of `work`, and when no runtime can be started.
pub fn interruptible<T>(work: impl Future<Output = Result<T>>) -> Result<Option<T>> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("starting the runtime")?;
    runtime.block_on(async {
        tokio::select! {
            done = work => done.map(Some),
            signal = tokio::signal::ctrl_c() => {
                signal.context("listening for an interrupt")?;
                Ok(None)
            }
        }
    })
}
