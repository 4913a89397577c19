//! The private engine's network: a bridge, an unused address range, and NAT to the outside.
//!
//! `network.json` records everything *before* it is made, so that teardown finds it even after a killed
//! set-up.

use std::fs;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use super::command::{command, run, succeeds};
use super::state::{State, write_whole};
use super::step::say;

/// Candidates for the second byte of the `10.x.0.0/16` range, in order.
const CANDIDATES: std::ops::Range<u8> = 213..245;

/// Prefix of our bridges' names, followed by a number. Up to 16 state folders can have one.
const BRIDGE_PREFIX: &str = "lsbr";

/// Firewall programs in the order of preference. The kernel decides which ones work.
const FIREWALLS: [&str; 3] = ["iptables", "iptables-legacy", "iptables-nft"];

/// Default MTU in bytes, that of Ethernet.
const MTU: u32 = 1500;

const FORWARDING: &str = "/proc/sys/net/ipv4/ip_forward";

/// The network of one private engine.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Network {
    /// The bridge's name; `None` if the kernel has no bridges, so that containers have no network.
    bridge: Option<String>,
    /// The second byte of the `10.x.0.0/16` range.
    second_byte: u8,
    /// MTU of the default interface in bytes. A bridge with a larger one would lose packets there.
    mtu: u32,
    /// The firewall program with the rules; `None` if the bridge is not connected to the outside.
    firewall: Option<String>,
    /// True if forwarding was off before set-up.
    forwarding_was_off: bool,
}

impl Network {
    /// The bridge in the engine's configuration.
    pub(super) fn bridge_or_none(&self) -> &str {
        self.bridge.as_deref().unwrap_or("none")
    }

    /// The address pool for networks that are made in the engine.
    pub(super) fn pool(&self) -> String {
        format!("10.{}.128.0/17", self.second_byte)
    }

    /// The MTU of containers in bytes.
    pub(super) fn mtu(&self) -> u32 {
        self.mtu
    }

    fn gateway(&self) -> String {
        format!("10.{}.0.1/20", self.second_byte)
    }

    /// The rules that connect the bridge to the outside, each with its table.
    fn rules(&self, bridge: &str) -> [(&'static str, Vec<String>); 3] {
        let words = |text: &str| {
            let comment = format!(" -m comment --comment longshore-{bridge}");
            (text.to_owned() + &comment).split(' ').map(str::to_owned).collect()
        };
        let range = format!("10.{}.0.0/16", self.second_byte);
        [
            ("nat", words(&format!("POSTROUTING -s {range} ! -o {bridge} -j MASQUERADE"))),
            ("filter", words(&format!("FORWARD -i {bridge} -j ACCEPT"))),
            ("filter", words(&format!("FORWARD -o {bridge} -j ACCEPT"))),
        ]
    }
}

/// Makes the missing parts of the network; a boot removes bridge and rules.
///
/// A kernel without bridges or a firewall is not an error, since builds use the host's network and
/// ranges are reached through sockets.
///
/// # Errors
/// The record cannot be written, or forwarding cannot be switched on.
pub(super) fn ensure(state: &State) -> Result<Network> {
    let mut network = match recorded(state) {
        Some(network) => network,
        None => plan()?,
    };
    record(state, &network)?;
    if let Some(bridge) = network.bridge.clone() {
        if make_bridge(state, &bridge, &network).is_err() {
            say("note: this machine allows no bridge, so containers have no network of their own");
            network.bridge = None;
        } else {
            network.firewall = FIREWALLS
                .iter()
                .find(|it| add_rules(it, &network, &bridge))
                .map(|it| (*it).to_owned());
            if network.firewall.is_none() {
                say(
                    "note: this machine allows no firewall rules, so containers cannot reach the outside",
                );
            }
        }
    }
    record(state, &network)?;
    if network.firewall.is_some() && network.forwarding_was_off {
        fs::write(FORWARDING, "1").context("switching forwarding on")?;
    }
    Ok(network)
}

/// Removes everything that [`ensure`] made.
///
/// # Errors
/// A bridge cannot be removed.
pub(super) fn remove(state: &State) -> Result<()> {
    let Some(network) = recorded(state) else { return Ok(()) };
    let Some(bridge) = &network.bridge else { return Ok(()) };
    // Use the recorded firewall, or all of them if set-up was killed before it recorded one.
    for firewall in
        FIREWALLS.iter().filter(|it| network.firewall.as_deref().is_none_or(|used| used == **it))
    {
        for (table, rule) in network.rules(bridge) {
            while edit(firewall, table, "-D", &rule) {}
        }
    }
    if is_ours(state, bridge) {
        run(command("ip")?.args(["link", "delete", bridge])).context("removing the bridge")?;
    }
    // An engine installed later may rely on forwarding, although it did not switch it on.
    let is_needed = PathBuf::from("/sys/class/net/docker0").exists();
    if network.forwarding_was_off && network.firewall.is_some() && !is_needed {
        fs::write(FORWARDING, "0").context("switching forwarding off again")?;
    }
    Ok(())
}

fn record_file(state: &State) -> PathBuf {
    state.engine().join("network.json")
}

fn recorded(state: &State) -> Option<Network> {
    serde_json::from_slice(&fs::read(record_file(state)).ok()?).ok()
}

fn record(state: &State, network: &Network) -> Result<()> {
    write_whole(&record_file(state), &serde_json::to_vec_pretty(network)?)
}

/// Chooses an unused bridge name and an unused address range.
fn plan() -> Result<Network> {
    let routes = run(command("ip")?.args(["-4", "route", "show", "table", "all"]))?;
    let bridge = (0..16).map(|n| format!("{BRIDGE_PREFIX}{n}")).find(|name| !has_link(name));
    Ok(Network {
        bridge,
        second_byte: free_range(&routes).unwrap_or(CANDIDATES.start),
        mtu: default_interface(&routes).and_then(mtu_of).unwrap_or(MTU),
        firewall: None,
        forwarding_was_off: fs::read_to_string(FORWARDING).is_ok_and(|text| text.trim() == "0"),
    })
}

/// The first candidate that overlaps no destination in the output of `ip route`.
fn free_range(routes: &str) -> Option<u8> {
    let destinations: Vec<_> =
        routes.lines().flat_map(|line| line.split(' ').take(2)).filter_map(parse_range).collect();
    CANDIDATES.into_iter().find(|second| {
        let start = u32::from(Ipv4Addr::new(10, *second, 0, 0));
        let end = start | 0xffff;
        destinations.iter().all(|(from, to)| *to < start || end < *from)
    })
}

/// The interface of the default route in the output of `ip route`.
fn default_interface(routes: &str) -> Option<&str> {
    let route =
        routes.lines().find(|line| line.starts_with("default ") && line.contains(" dev "))?;
    route.split(' ').skip_while(|word| *word != "dev").nth(1)
}

fn mtu_of(interface: &str) -> Option<u32> {
    let path = PathBuf::from("/sys/class/net").join(interface).join("mtu");
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// First and last address of `a.b.c.d/len` or of a single address; `None` for any other word.
fn parse_range(word: &str) -> Option<(u32, u32)> {
    let (address, len) = word.split_once('/').unwrap_or((word, "32"));
    let address = u32::from(address.parse::<Ipv4Addr>().ok()?);
    let len: u32 = len.parse().ok().filter(|len| (1..=32).contains(len))?;
    let host_bits = u32::MAX.checked_shr(len).unwrap_or(0);
    Some((address & !host_bits, address | host_bits))
}

fn has_link(name: &str) -> bool {
    PathBuf::from("/sys/class/net").join(name).exists()
}

/// The alias that marks our bridge.
fn alias(state: &State) -> String {
    format!("longshore {}", state.root().display())
}

fn is_ours(state: &State, bridge: &str) -> bool {
    let path = PathBuf::from("/sys/class/net").join(bridge).join("ifalias");
    fs::read_to_string(path).is_ok_and(|text| text.trim_end() == alias(state))
}

fn make_bridge(state: &State, bridge: &str, network: &Network) -> Result<()> {
    let ip = |args: &[&str]| run(command("ip")?.args(args));
    if !has_link(bridge) {
        ip(&["link", "add", "name", bridge, "type", "bridge"])?;
        ip(&["link", "set", "dev", bridge, "alias", &alias(state)])?;
    }
    ip(&["link", "set", "dev", bridge, "mtu", &network.mtu.to_string()])?;
    ip(&["address", "replace", &network.gateway(), "dev", bridge])?;
    ip(&["link", "set", "dev", bridge, "up"]).map(drop)
}

/// Adds the missing rules; `false` if this firewall does not support them.
fn add_rules(firewall: &str, network: &Network, bridge: &str) -> bool {
    let is_added = network.rules(bridge).iter().all(|(table, rule)| {
        edit(firewall, table, "-C", rule) || edit(firewall, table, "-I", rule)
    });
    if !is_added {
        for (table, rule) in network.rules(bridge) {
            edit(firewall, table, "-D", &rule);
        }
    }
    is_added
}

fn edit(firewall: &str, table: &str, action: &str, rule: &[String]) -> bool {
    let Ok(mut command) = command(firewall) else { return false };
    succeeds(command.args(["-w", "5", "-t", table, action]).args(rule))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_range_in_use_is_skipped() {
        for (routes, expected) in [
            ("", Some(213)),
            ("default via 192.0.2.1 dev eth0\n192.0.2.0/24 dev eth0 scope link", Some(213)),
            ("10.213.4.0/24 dev vpn0 scope link", Some(214)),
            ("local 10.213.9.9 dev lo table local\n10.214.0.0/15 dev x", Some(216)),
            ("10.0.0.0/8 via 192.0.2.1 dev eth0", None),
        ] {
            assert_eq!(free_range(routes), expected, "{routes:?}");
        }
    }

    #[test]
    fn the_default_interface_is_that_of_the_default_route() {
        let routes =
            "10.0.0.0/8 dev vpn0\ndefault via 192.0.2.1 dev eth0 proto dhcp\n192.0.2.0/24 dev eth1";
        assert_eq!(default_interface(routes), Some("eth0"));
        assert_eq!(default_interface("192.0.2.0/24 dev eth1"), None);
        assert_eq!(default_interface(""), None);
    }

    #[test]
    fn a_rule_names_its_bridge() {
        let network = Network { second_byte: 213, ..Network::default() };
        for (_, rule) in network.rules("lsbr0") {
            assert_eq!(rule.last().map(String::as_str), Some("longshore-lsbr0"), "{rule:?}");
        }
        assert_eq!(
            (network.gateway(), network.pool()),
            ("10.213.0.1/20".into(), "10.213.128.0/17".into())
        );
    }
}
