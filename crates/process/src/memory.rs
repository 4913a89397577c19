//! The most memory that this process ever held.

/// Peak resident set size in bytes: `VmHWM` of `/proc/self/status`. `None` where the system does
/// not tell.
#[must_use]
pub fn peak_rss() -> Option<u64> {
    parse_peak(&std::fs::read_to_string("/proc/self/status").ok()?)
}

fn parse_peak(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim_end().parse().ok()?;
    kibibytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_is_read_in_bytes_or_not_at_all() {
        let cases = [
            ("Name:\tx\nVmHWM:\t   12345 kB\nVmRSS:\t 1 kB\n", Some(12_345 * 1024)),
            ("VmHWM:\t0 kB", Some(0)),
            ("VmRSS:\t 1 kB\n", None),
            ("VmHWM:\t12345\n", None),
            ("VmHWM:\t-1 kB\n", None),
            ("", None),
        ];
        for (status, expected) in cases {
            assert_eq!(parse_peak(status), expected, "{status:?}");
        }
        assert!(peak_rss().is_some_and(|bytes| 0 < bytes));
    }
}
