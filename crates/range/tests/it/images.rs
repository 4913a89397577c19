//! Images of the tests' own making: small, in layers of noise, and other at every seed.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::json;
use transfer::Digest;

use crate::docker::{Docker, noise};
use crate::site::stack_image;

/// Path of the program in each image.
const BUSYBOX: &str = "/bin/busybox";

/// An image as bytes, with what it should show once it runs.
#[derive(Clone, Debug)]
pub(crate) struct Made {
    pub(crate) reference: String,
    /// The config, byte for byte; its digest is the image's name across engines.
    pub(crate) config: Vec<u8>,
    /// The layers' tar archives, the base first.
    pub(crate) layers: Vec<Vec<u8>>,
    /// Files by their path, with the digest of their content.
    files: Vec<(String, String)>,
}

/// The program that each image has: the one of the demo stack's smallest.
pub(crate) fn busybox(docker: &Docker) -> Vec<u8> {
    let container = docker.must(&format!("create {}", stack_image("tiny")));
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("busybox");
    docker.must(&format!("cp {container}:{BUSYBOX} {}", place.display()));
    docker.must(&format!("rm {container}"));
    std::fs::read(place).unwrap()
}

impl Made {
    /// An image with a program, and a layer of noise for each of `sizes`; every layer is another at
    /// another seed.
    pub(crate) fn new(program: &[u8], reference: &str, seed: u64, sizes: &[usize]) -> Self {
        let base: [(&str, &[u8]); 2] =
            [("bin/busybox", program), ("version", &seed.to_string().into_bytes())];
        let mut files = vec![described("version", base[1].1)];
        let mut layers = vec![tar(&base)];
        for (number, size) in sizes.iter().enumerate() {
            let name = format!("noise-{number}");
            let content = noise(seed.wrapping_mul(31).wrapping_add(number as u64), *size);
            files.push(described(&name, &content));
            layers.push(tar(&[(&name, &content)]));
        }
        Self::of(reference, layers, files)
    }

    /// The same image with another layer on top.
    pub(crate) fn with_layer(&self, reference: &str, seed: u64, size: usize) -> Self {
        let content = noise(seed, size);
        let (mut layers, mut files) = (self.layers.clone(), self.files.clone());
        layers.push(tar(&[("top", &content)]));
        files.push(described("top", &content));
        Self::of(reference, layers, files)
    }

    fn of(reference: &str, layers: Vec<Vec<u8>>, files: Vec<(String, String)>) -> Self {
        let diff_ids: Vec<String> =
            layers.iter().map(|layer| Digest::of(layer).to_string()).collect();
        let history: Vec<_> = diff_ids.iter().map(|_| json!({"created_by": "a test"})).collect();
        let config = json!({
            "architecture": "amd64",
            "os": "linux",
            "created": "2024-01-01T00:00:00Z",
            "config": {"Cmd": [BUSYBOX, "cat", "/version"], "Labels": {"dev.longshore": "1"}},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
            "history": history,
        });
        let config = serde_json::to_vec(&config).unwrap();
        Self { reference: reference.to_owned(), config, layers, files }
    }

    /// The digest of the config.
    pub(crate) fn config_digest(&self) -> String {
        Digest::of(&self.config).to_string()
    }

    /// The diff IDs, as an engine tells them.
    pub(crate) fn diff_ids(&self) -> Vec<String> {
        self.layers.iter().map(|layer| Digest::of(layer).to_string()).collect()
    }

    /// Bytes of all layers.
    pub(crate) fn size(&self) -> u64 {
        self.layers.iter().map(|layer| layer.len() as u64).sum()
    }

    /// Returns the output of `docker save` for it, in the form that every engine loads.
    pub(crate) fn docker_archive(&self) -> Vec<u8> {
        let config = format!("{}.json", Digest::of(&self.config).hex());
        let names: Vec<String> = self
            .layers
            .iter()
            .map(|layer| format!("{}/layer.tar", Digest::of(layer).hex()))
            .collect();
        let manifest =
            json!([{"Config": config, "RepoTags": [self.reference], "Layers": names}]).to_string();
        let mut files: Vec<(&str, &[u8])> =
            names.iter().map(String::as_str).zip(self.layers.iter().map(Vec::as_slice)).collect();
        files.push((&config, &self.config));
        files.push(("manifest.json", manifest.as_bytes()));
        tar(&files)
    }

    /// Loads it into an engine under its name.
    pub(crate) fn load_into(&self, docker: &Docker) {
        load(docker, &self.docker_archive());
    }

    /// Checks that an engine has it whole: its layers by their diff IDs, and every file as a
    /// program of it reads them.
    pub(crate) fn check(&self, docker: &Docker) -> Result<(), String> {
        let (_, diff_ids) = docker.image(&self.reference).ok_or("there is no such image")?;
        if diff_ids != self.diff_ids() {
            return Err(format!("its layers are {diff_ids:?}, not {:?}", self.diff_ids()));
        }
        let paths = self.files.iter().map(|(path, _)| path.as_str());
        let argv: Vec<&str> = [BUSYBOX, "sha256sum"].into_iter().chain(paths).collect();
        let printed = docker.program(&self.reference, &argv)?;
        let expected: Vec<String> =
            self.files.iter().map(|(path, digest)| format!("{digest}  {path}")).collect();
        match printed.lines().eq(expected.iter().map(String::as_str)) {
            true => Ok(()),
            false => Err(format!("its files are\n{printed}\nand not\n{}", expected.join("\n"))),
        }
    }
}

/// Has an engine load an archive.
pub(crate) fn load(docker: &Docker, archive: &[u8]) {
    let mut child = Command::new("docker")
        .args(["--host", docker.host(), "load", "--quiet"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut pipe = child.stdin.take().unwrap();
    pipe.write_all(archive).unwrap();
    drop(pipe);
    assert!(child.wait().unwrap().success(), "docker load failed at {}", docker.host());
}

fn described(name: &str, content: &[u8]) -> (String, String) {
    (Path::new("/").join(name).display().to_string(), Digest::of(content).hex())
}

/// A tar archive of files that anybody may run.
pub(crate) fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = Vec::new();
    for (name, content) in files {
        archive.extend_from_slice(&header(name, content.len() as u64));
        archive.extend_from_slice(content);
        archive.resize(archive.len().next_multiple_of(512), 0);
    }
    archive.resize(archive.len() + 1024, 0);
    archive
}

/// The ustar header of a file of this size in bytes.
pub(crate) fn header(name: &str, size: u64) -> [u8; 512] {
    let mut header = [0_u8; 512];
    let mut put =
        |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, name);
    put(100, "0000755\0");
    put(108, "0000000\0");
    put(116, "0000000\0");
    put(136, "00000000000\0");
    put(148, "        ");
    put(156, "0");
    put(257, "ustar\x0000");
    if size < 8 << 30 {
        header[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes());
    } else {
        // Base-256, since octal ends there.
        header[124] = 0x80;
        header[128..136].copy_from_slice(&size.to_be_bytes());
    }
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header
}
