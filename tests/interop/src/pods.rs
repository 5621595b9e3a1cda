//! Pods of podman, which reads the manifests of Kubernetes: in namespaces of their own, with an image made here, without
//! registry and without daemon. podman is not a kubelet: it calls no readiness probes, and knows neither Services nor nodes.

use crate::binaries;
use anyhow::{Context as _, Result, ensure};
use lab::wait;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;
use tempfile::TempDir;

const START: Duration = Duration::from_secs(20);
const IMAGE: &str = "turnpike:local";
/// What is in the image beside the program, with the libraries that they need: what probes run.
const TOOLS: [&str; 4] = ["sh", "curl", "touch", "cat"];
/// The node: a leg outside and one inside, with a peer on it.
const FIRST: &str = "
set -e
mount -t tmpfs tmpfs /run
ip link set lo up
ip link add edge type bridge
ip link set edge up
for address in 203.0.113.12 10.0.0.2 10.0.0.20; do ip address add $address/24 dev edge; done
exec sleep infinity
";

/// A node. With its value all of it ends.
#[derive(Debug)]
pub struct Node {
    process: Child,
    inside: String,
    storage: TempDir,
}

impl Node {
    /// With an image of a program of ours.
    pub fn start(program: &str) -> Result<Self> {
        let storage = tempfile::tempdir()?;
        let process = Command::new("setpriv")
            .args([
                "--pdeathsig",
                "KILL",
                "unshare",
                "--net",
                "--mount",
                "--pid",
            ])
            .args(["--fork", "--mount-proc", "--kill-child", "sh", "-c", FIRST])
            .stdin(Stdio::null())
            .spawn()
            .context("namespaces: root is needed")?;
        let children = format!("/proc/{0}/task/{0}/children", process.id());
        let mut node = Self {
            process,
            inside: String::new(),
            storage,
        };
        node.inside = wait::until("the first process", START, || {
            let children = fs::read_to_string(&children)?;
            Ok(children.split_whitespace().next().map(str::to_owned))
        })?;
        wait::until_true("the addresses", START, || {
            let shown = node.run("ip", &["-4", "address"]).output()?;
            Ok(String::from_utf8_lossy(&shown.stdout).contains("10.0.0.20"))
        })?;
        node.import(program)?;
        Ok(node)
    }

    /// A program on the node.
    pub fn run(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command
            .args(["--target", &self.inside, "--net", "--mount", "--pid", "--"])
            .arg(program)
            .args(args)
            .stdin(Stdio::null());
        command
    }

    /// podman with a storage that nobody else uses. runc, because crun knows no mixed hierarchies of control groups.
    pub fn podman(&self, args: &[&str]) -> Command {
        let root = self.storage.path().join("storage");
        let mut command = self.run("podman", &["--runtime", "runc", "--root"]);
        command
            .arg(root)
            .args(["--runroot", "/run/podman", "--tmpdir", "/run/podman-tmp"])
            .args(["--cgroup-manager", "cgroupfs", "--events-backend", "file"])
            .args(args);
        command
    }

    fn import(&self, program: &str) -> Result<()> {
        let root = self.storage.path().join("image");
        for directory in ["bin", "etc", "tmp", "proc", "sys", "dev"] {
            fs::create_dir_all(root.join(directory))?;
        }
        let program = binaries().join(program);
        let tools = TOOLS.map(|tool| PathBuf::from("/usr/bin").join(tool));
        let mut files = BTreeSet::new();
        for tool in tools.iter().chain([&program]) {
            fs::copy(
                tool,
                root.join("bin").join(tool.file_name().context("a name")?),
            )?;
            let listed = Command::new("ldd").arg(tool).output().context("ldd")?;
            let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
            let paths = listed
                .split_whitespace()
                .filter(|word| word.starts_with('/'));
            files.extend(paths.map(str::to_owned));
        }
        for file in files {
            let to = root.join(file.trim_start_matches('/'));
            fs::create_dir_all(to.parent().context("a directory")?)?;
            fs::copy(&file, to).context(file)?;
        }
        let tar = self.storage.path().join("image.tar");
        let mut pack = Command::new("tar");
        pack.arg("-cf").arg(&tar).arg("-C").arg(&root).arg(".");
        succeeded(&mut pack)?;
        let path = "ENV=PATH=/bin";
        let mut import = self.podman(&["import", "--quiet", "--change", path]);
        succeeded(import.arg(&tar).arg(IMAGE)).map(drop)
    }

    /// Plays a manifest, and what is beside it.
    pub fn play(&self, manifest: &Path) -> Result<()> {
        succeeded(self.podman(&["kube", "play"]).arg(manifest)).map(drop)
    }

    /// What a program in a container says.
    pub fn exec(&self, container: &str, args: &[&str]) -> Result<String> {
        let output = succeeded(self.podman(&["exec", container]).args(args))?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// Runs it to its end.
///
/// # Errors
/// What it said, if it failed.
pub fn succeeded(command: &mut Command) -> Result<Output> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {said}");
    Ok(output)
}

impl Drop for Node {
    fn drop(&mut self) {
        // With the first process all others of its namespace end.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
