//! What a command needs around ranges: an engine, the agents' binaries, a host agent that runs.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use longshore::site::{Made, Site};

use crate::build::Agents;
use crate::setup::{self, Machine, Needs, Ranges, State, Store, ranges_needed_for};
use crate::{build, host_agent};

/// Name of this program in messages of the verbs.
const PROGRAM: &str = "cargo xtask";

/// Where an engine usually is, for a forecast on a machine without one.
const USUAL_ENGINE: &str = "unix:///var/run/docker.sock";

/// The image that ranges are made from.
#[derive(Clone, Debug, PartialEq, Eq)]
enum RangeImage {
    /// The usual one of those that set-up makes, with this image store.
    Made(Store),
    /// The one that set-up makes under this name, and what that needs.
    Recipe(String, Ranges),
    /// One that the engine has.
    Named(String),
}

impl RangeImage {
    fn of(text: &str) -> Self {
        match text {
            "overlay2" => Self::Made(Store::Overlay2),
            "containerd" => Self::Made(Store::Containerd),
            name => match ranges_needed_for(name) {
                Some(ranges) => Self::Recipe(name.to_owned(), ranges),
                None => Self::Named(name.to_owned()),
            },
        }
    }
}

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
    /// The image that ranges are made from; absent where none are to be made.
    range_image: Option<String>,
}

impl Place {
    /// For making ranges: everything is made that is missing, and brought up to date.
    ///
    /// # Errors
    /// Those of set-up, of building the agents and of starting the host agent.
    pub(crate) fn for_up(range_image: Option<&str>) -> Result<Self> {
        let range_image = range_image.map_or(RangeImage::Made(Store::Overlay2), RangeImage::of);
        let ranges = match &range_image {
            RangeImage::Made(_) => Ranges::Usual,
            RangeImage::Recipe(_, ranges) => *ranges,
            RangeImage::Named(_) => Ranges::None,
        };
        let build = build::begin()?;
        let machine = setup::ensure(&Needs { ranges, stack: false })?;
        let place = Self::on(&machine, &build.finish()?)?;
        let range_image = name_of(&range_image, &machine)?;
        Ok(Self { range_image: Some(range_image), ..place })
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
            range_image: None,
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
        let engine = setup::engine_host(&state)?;
        Ok(Self::of(state, engine))
    }

    /// The site for the verbs.
    pub(crate) fn site(&self) -> Site {
        let made = Made {
            engine: self.engine.clone(),
            host_agent: self.host_agent.clone(),
            agent_binary: self.dind_agent.clone(),
            range_image: self.range_image.clone().unwrap_or_default(),
            locks: self.state.locks(),
        };
        Site::made(PROGRAM, &made)
    }

    /// For a forecast, which needs no engine: where there is none, its verb says so.
    ///
    /// # Errors
    /// When the state folder cannot be opened.
    pub(crate) fn for_looking() -> Result<Self> {
        let state = State::open()?;
        let engine = setup::engine_host(&state).unwrap_or_else(|_| USUAL_ENGINE.to_owned());
        Ok(Self::of(state, engine))
    }

    fn of(state: State, engine: String) -> Self {
        Self {
            engine,
            host_agent: host_agent::endpoint(&state),
            inspect: None,
            dind_agent: Agents::at(&state.bin()).dind_agent,
            range_image: None,
            state,
        }
    }
}

/// The name of a range image in the engine.
fn name_of(image: &RangeImage, machine: &Machine) -> Result<String> {
    match image {
        RangeImage::Named(name) => Ok(name.clone()),
        RangeImage::Recipe(name, _) => Ok(format!("longshore/range:{name}")),
        RangeImage::Made(store) => {
            let made = machine.range_images.iter().find(|image| image.store == *store);
            let made =
                made.with_context(|| format!("set-up made no range image with the {store} store"))?;
            Ok(made.reference.clone())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_image_is_a_store_or_a_name() {
        assert_eq!(RangeImage::of("overlay2"), RangeImage::Made(Store::Overlay2));
        assert_eq!(RangeImage::of("containerd"), RangeImage::Made(Store::Containerd));
        let old = RangeImage::Recipe("20.10-overlay2".to_owned(), Ranges::All);
        assert_eq!(RangeImage::of("20.10-overlay2"), old);
        let named = RangeImage::Named("docker:28-dind".to_owned());
        assert_eq!(RangeImage::of("docker:28-dind"), named);
    }
}
