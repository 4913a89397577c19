//! Tar files written header by header, the wrong ones too.

pub(super) const BLOCK: usize = 512;

/// A tar file as its bytes, entry by entry.
#[derive(Default)]
pub(super) struct Tar(pub(super) Vec<u8>);

impl Tar {
    /// Adds an entry whose header is spelled by `change` after the plain fields are.
    pub(super) fn raw(
        mut self,
        path: &str,
        kind: u8,
        content: &[u8],
        change: impl Fn(&mut [u8; BLOCK]),
    ) -> Self {
        let mut header = [0_u8; BLOCK];
        let mut put = |at: usize, text: &[u8]| header[at..at + text.len()].copy_from_slice(text);
        put(0, path.as_bytes());
        put(100, b"0000644\x000000000\x000000000\0");
        put(124, format!("{:011o}\0", content.len()).as_bytes());
        put(136, b"00000000000\0");
        put(156, &[kind]);
        put(257, b"ustar\x0000");
        change(&mut header);
        header[148..156].copy_from_slice(b"        ");
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.0.extend_from_slice(&header);
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(BLOCK), 0);
        self
    }

    pub(super) fn file(self, path: &str, content: &[u8]) -> Self {
        self.raw(path, b'0', content, |_| {})
    }

    pub(super) fn folder(self, path: &str) -> Self {
        self.raw(path, b'5', b"", |_| {})
    }

    pub(super) fn link(self, kind: u8, path: &str, target: &str) -> Self {
        self.raw(path, kind, b"", |header| {
            header[157..157 + target.len()].copy_from_slice(target.as_bytes());
        })
    }

    pub(super) fn pax(self, records: &[(&str, &str)]) -> Self {
        self.raw("PaxHeaders/0", b'x', pax_records(records).as_bytes(), |_| {})
    }

    pub(super) fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 2 * BLOCK, 0);
        self.0
    }
}

pub(super) fn pax_records(records: &[(&str, &str)]) -> String {
    let record = |(key, value): &(&str, &str)| {
        let rest = format!(" {key}={value}\n");
        let mut length = rest.len() + 1;
        while length != rest.len() + length.to_string().len() {
            length += 1;
        }
        format!("{length}{rest}")
    };
    records.iter().map(record).collect()
}
