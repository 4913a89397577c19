//! What a command needs around ranges: an engine, the agents' binaries, a host agent that runs.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use range::Settings;

use super::arguments::RangeImage;
use crate::build::Agents;
use crate::setup::{self, Machine, Needs, Ranges, State};
use crate::{build, host_agent};

/// Where a command works.
#[derive(Debug)]
pub(crate) struct Place {
    state: State,
    /// The engine that has the images and runs the ranges.
    engine: String,
    /// The host agent's administrator's listener.
    host_agent: String,
    /// Its address for grpcurl; absent when it has none, or was not looked at.
    pub(crate) inspect: Option<String>,
    /// The dind agent's binary.
    dind_agent: PathBuf,
    /// The range images that set-up made; empty when they were not asked for.
    range_images: Vec<setup::RangeImage>,
}

/// The settings of the library for all commands: one project, one host agent.
pub(crate) fn settings(place: &Place, concurrency: Option<usize>) -> Settings {
    let settings = Settings::new(&place.engine, &place.host_agent, &place.dind_agent);
    Settings {
        locks: place.state.locks(),
        concurrency: concurrency.unwrap_or(settings.concurrency),
        ..settings
    }
}

impl Place {
    /// For making ranges: everything is made that is missing, and brought up to date.
    ///
    /// # Errors
    /// Those of set-up, of building the agents and of starting the host agent.
    pub(crate) fn for_up(range_image: &RangeImage) -> Result<Self> {
        let ranges = match range_image {
            RangeImage::Made(_) => Ranges::Usual,
            RangeImage::Recipe(_, ranges) => *ranges,
            RangeImage::Named(_) => Ranges::None,
        };
        let build = build::begin()?;
        let machine = setup::ensure(&Needs { ranges, stack: false })?;
        Self::on(&machine, &build.finish()?)
    }

    /// On a machine that is set up, with agents that are built: starts the host agent where needed.
    ///
    /// # Errors
    /// When it does not start.
    pub(crate) fn on(machine: &Machine, agents: &Agents) -> Result<Self> {
        let state = State::open()?;
        let host_agent = host_agent::ensure(&state, &agents.host_agent, &machine.docker_host)?;
        Ok(Self {
            engine: machine.docker_host.clone(),
            host_agent: host_agent.admin,
            inspect: host_agent.inspect,
            dind_agent: agents.dind_agent.clone(),
            range_images: machine.range_images.clone(),
            state,
        })
    }

    /// For ranges that are there: nothing is built or made, but the host agent started if it does
    /// not run. One that runs is left alone, whatever the sources say by now.
    ///
    /// # Errors
    /// When no engine runs, or the host agent does not start.
    pub(crate) fn for_sync() -> Result<Self> {
        let mut place = Self::as_it_is()?;
        if !host_agent::answers(&place.state) {
            let agents = match build::agents_as_they_are()? {
                Some(agents) => agents,
                None => build::agents()?,
            };
            place.inspect =
                host_agent::ensure(&place.state, &agents.host_agent, &place.engine)?.inspect;
        }
        Ok(place)
    }

    /// For removing ranges: as [`Place::for_sync`], but a host agent that was never built has
    /// nothing to forget.
    ///
    /// # Errors
    /// As [`Place::for_sync`].
    pub(crate) fn for_down() -> Result<Self> {
        match build::agents_as_they_are()? {
            Some(_) => Self::for_sync(),
            None => Self::as_it_is(),
        }
    }

    /// For looking at what is there: nothing is made, built or started.
    ///
    /// # Errors
    /// When no engine runs.
    pub(crate) fn as_it_is() -> Result<Self> {
        let state = State::open()?;
        Ok(Self {
            engine: setup::engine_host(&state)?,
            host_agent: host_agent::endpoint(&state),
            inspect: None,
            dind_agent: state.bin().join("longshore-dind-agent"),
            range_images: Vec::new(),
            state,
        })
    }

    /// Where the agent inside a range listens, in the host agent's state.
    pub(crate) fn range_socket(&self, range: &str) -> PathBuf {
        self.state.host_agent().join("ranges").join(range).join("agent/agent.sock")
    }

    /// The name of a range image in the engine.
    ///
    /// # Errors
    /// When set-up made none with the store asked for.
    pub(crate) fn range_image(&self, image: &RangeImage) -> Result<String> {
        match image {
            RangeImage::Named(name) => Ok(name.clone()),
            RangeImage::Recipe(name, _) => Ok(format!("longshore/range:{name}")),
            RangeImage::Made(store) => {
                let made = self.range_images.iter().find(|image| image.store == *store);
                let made = made.with_context(|| {
                    format!("set-up made no range image with the {store} store")
                })?;
                Ok(made.reference.clone())
            }
        }
    }
}
