//! The image, out of programs that cargo has built, on a base that debootstrap makes: no registry is asked.
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use super::engine::Engine;
use crate::shell;
use crate::workspace::root;

/// What `compose.yaml` calls it.
const IMAGE: &str = "turnpike:local";
/// What the Dockerfile's base is called in our engine.
const BASE: &str = "turnpike-base:local";
const DOCKERFILE: &str = "deploy/docker/Dockerfile";
/// What the Dockerfile installs, which our engine could not: it has no network.
const PACKAGES: &str = "ca-certificates,curl,iproute2,nftables";
const DEFAULT_MIRROR: &str = "http://deb.debian.org/debian";
/// What runs in containers.
const PROGRAMS: [&str; 6] = [
    "turn-relay",
    "activator",
    "dns-signal",
    "discovery",
    "turnpike",
    "lab-service",
];
/// What a container does not need.
const LEFT_OUT: [&str; 5] = [
    "./var/cache/apt",
    "./var/lib/apt/lists",
    "./usr/share/doc",
    "./usr/share/locale",
    "./usr/share/man",
];

/// A minimal system of this machine's own release, so that what was built here runs there, as a tar file. It is kept.
pub(super) fn base(directory: &Path) -> Result<PathBuf> {
    let release = release()?;
    let kept = directory.join(format!("base-{release}.tar"));
    if kept.is_file() {
        return Ok(kept);
    }
    let system = directory.join("system");
    if system.exists() {
        fs::remove_dir_all(&system).context("removing an unfinished system")?;
    }
    let mut make = Command::new("debootstrap");
    make.args(["--variant=minbase", &format!("--include={PACKAGES}")])
        .arg(&release)
        .arg(&system)
        .arg(mirror(&release))
        .stdout(Stdio::null());
    shell::run(&mut make)?;
    let unfinished = kept.with_extension("unfinished");
    let mut pack = Command::new("tar");
    pack.arg("--create").arg("--file").arg(&unfinished);
    pack.args(LEFT_OUT.map(|path| format!("--exclude={path}")));
    shell::run(pack.arg("--directory").arg(&system).arg("."))?;
    fs::rename(&unfinished, &kept).context("keeping the base image")?;
    fs::remove_dir_all(&system).context("removing the system that was packed")?;
    Ok(kept)
}

/// Builds the image with the project's own Dockerfile.
pub(super) fn build(engine: &Engine, base: &Path, binaries: &Path, directory: &Path) -> Result<()> {
    let context = directory.join("context");
    let prebuilt = context.join("prebuilt");
    fs::create_dir_all(&prebuilt).with_context(|| format!("making {}", prebuilt.display()))?;
    for program in PROGRAMS {
        let source = binaries.join(program);
        fs::copy(&source, prebuilt.join(program))
            .with_context(|| format!("copying {}", source.display()))?;
    }
    shell::run(engine.docker().arg("import").arg(base).arg(BASE))?;
    let mut build = engine.docker();
    build
        .env("DOCKER_BUILDKIT", "0")
        .args(["build", "--quiet", "--network", "none", "--tag", IMAGE])
        .args(["--build-arg", &format!("BASE={BASE}")])
        .args(["--build-arg", &format!("RUST={BASE}")])
        .arg("--file")
        .arg(root().join(DOCKERFILE))
        .arg(&context);
    shell::run(&mut build)?;
    fs::remove_dir_all(&context).context("removing what the image was built from")
}

/// Debian's code name of this machine: `bookworm`.
fn release() -> Result<String> {
    let text = fs::read_to_string("/etc/os-release").context("reading /etc/os-release")?;
    let name = text
        .lines()
        .find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    let name = name.unwrap_or_default().trim_matches('"');
    ensure!(
        !name.is_empty(),
        "/etc/os-release names no VERSION_CODENAME"
    );
    Ok(name.to_owned())
}

/// Where this machine itself gets that release from.
fn mirror(release: &str) -> String {
    let output = Command::new("apt-get")
        .args(["indextargets", "--format", "$(CODENAME) $(REPO_URI)"])
        .arg("Created-By: Packages")
        .output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    let text = text.unwrap_or_default();
    let own = text.lines().find_map(|line| match line.split_once(' ') {
        Some((name, uri)) if name == release => Some(uri),
        _ => None,
    });
    own.unwrap_or(DEFAULT_MIRROR).to_owned()
}
