//! The rivals, each with both its ends over the same cable.
use std::fs;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};
use lab::{Cable, Lab, wait};

use super::contender::{Contender, in_namespace, output};
use super::load::Ended;
use crate::shell;
use crate::workspace::{cargo, target_directory};

const BORINGTUN: &str = "0.7.1";
const NEBULA_PORT: u16 = 4242;
/// Where programs that speak WireGuard's configuration protocol have their sockets.
const WIREGUARD_SOCKETS: &str = "/var/run/wireguard";
/// What the interfaces of programs that speak it are called, before their numbers.
const INTERFACES: &str = "tpwg";
const STARTS_WITHIN: Duration = Duration::from_secs(10);

/// A rival that runs: what is measured, and what ends with it.
pub(super) struct Rival {
    pub(super) contender: Contender,
    _processes: Vec<Ended>,
}

/// Which rivals there are.
pub(super) const NAMES: [&str; 3] = ["nebula", "wireguard-go", "boringtun"];

/// Starts one, at both ends of a cable.
pub(super) fn start(name: &'static str, lab: &Lab, cable: &Cable) -> Result<Rival> {
    let place = Place {
        lab,
        cable,
        directory: lab.files().root().join(name),
    };
    fs::create_dir_all(&place.directory).context("making the rival's directory")?;
    match name {
        "nebula" => nebula(name, &place),
        "wireguard-go" => wireguard(name, 2, &place, &|interface| {
            let mut command = Command::new("wireguard-go");
            command.args(["-f", interface]).env("LOG_LEVEL", "error");
            command
        }),
        _ => {
            let program = boringtun()?;
            wireguard(name, 3, &place, &|interface| {
                let mut command = Command::new(&program);
                command.args(["-f", "--disable-drop-privileges", interface]);
                command
            })
        }
    }
}

struct Place<'a> {
    lab: &'a Lab,
    cable: &'a Cable,
    directory: PathBuf,
}

impl Place<'_> {
    fn namespace(&self, side: usize) -> String {
        self.lab.namespace(&self.cable.hosts[side])
    }

    /// Starts a program at one end; its words go to a file beside its configuration.
    fn start(&self, side: usize, program: &Command) -> Result<Ended> {
        let name = program.get_program().to_string_lossy();
        let log = fs::File::create(self.directory.join(format!("{side}.log")))?;
        let mut command = in_namespace(&self.namespace(side), &name);
        for (key, value) in program.get_envs() {
            command.env(key, value.unwrap_or_default());
        }
        command
            .args(program.get_args())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let child = command
            .spawn()
            .with_context(|| format!("starting {name}"))?;
        Ok(Ended(child))
    }

    fn rival(&self, name: &'static str, target: Ipv4Addr, processes: Vec<Ended>) -> Rival {
        Rival {
            contender: Contender {
                name,
                client: self.namespace(0),
                server: self.namespace(1),
                target: target.to_string(),
                bound_to: None,
                ends: processes.iter().map(|process| process.0.id()).collect(),
                relay: None,
            },
            _processes: processes,
        }
    }
}

/// The address of an end inside a rival's own network.
const fn inside(network: u8, side: usize) -> Ipv4Addr {
    Ipv4Addr::new(172, 30, network, if side == 0 { 1 } else { 2 })
}

fn nebula(name: &'static str, place: &Place<'_>) -> Result<Rival> {
    let directory = &place.directory;
    let certify = |args: &[&str]| {
        let mut command = Command::new("nebula-cert");
        output(command.current_dir(directory).args(args)).map(drop)
    };
    certify(&["ca", "-name", "bench"])?;
    let mut processes = Vec::new();
    for side in 0..2 {
        let own = format!("{}/24", inside(1, side));
        certify(&["sign", "-name", &format!("end{side}"), "-ip", &own])?;
        let config = directory.join(format!("end{side}.yml"));
        fs::write(&config, nebula_config(directory, side, place.cable))?;
        let mut program = Command::new("nebula");
        program.arg("-config").arg(config);
        processes.push(place.start(side, &program)?);
    }
    Ok(place.rival(name, inside(1, 1), processes))
}

fn nebula_config(directory: &Path, side: usize, cable: &Cable) -> String {
    let directory = directory.display();
    let other = 1 - side;
    let (inside, outside) = (inside(1, other), cable.addresses[other]);
    format!(
        r#"pki: {{ca: {directory}/ca.crt, cert: {directory}/end{side}.crt, key: {directory}/end{side}.key}}
static_host_map: {{"{inside}": ["{outside}:{NEBULA_PORT}"]}}
lighthouse: {{am_lighthouse: false, hosts: []}}
listen: {{host: 0.0.0.0, port: {NEBULA_PORT}}}
cipher: aes
tun: {{dev: nebula{side}}}
logging: {{level: error, format: text}}
firewall:
  outbound: [{{port: any, proto: any, host: any}}]
  inbound: [{{port: any, proto: any, host: any}}]
"#
    )
}

/// Two ends of something that `wg` configures.
fn wireguard(
    name: &'static str,
    network: u8,
    place: &Place<'_>,
    program: &dyn Fn(&str) -> Command,
) -> Result<Rival> {
    let keys = [key_pair()?, key_pair()?];
    let port = (51_820 + u16::from(network)).to_string();
    let mut processes = Vec::new();
    for (side, (private, _)) in keys.iter().enumerate() {
        let interface = format!("{INTERFACES}{network}{side}");
        let socket = Path::new(WIREGUARD_SOCKETS).join(format!("{interface}.sock"));
        processes.push(place.start(side, &program(&interface))?);
        wait::until_true(&format!("{name} to start"), STARTS_WITHIN, || {
            Ok(socket.exists())
        })?;
        let key_file = place.directory.join(format!("{side}.key"));
        write_secret(&key_file, private)?;
        let other = 1 - side;
        let endpoint = format!("{}:{port}", place.cable.addresses[other]);
        let namespace = place.namespace(side);
        output(
            in_namespace(&namespace, "wg")
                .args(["set", &interface, "listen-port", &port, "private-key"])
                .arg(&key_file)
                .args(["peer", &keys[other].1, "endpoint", &endpoint])
                .args(["allowed-ips", &format!("{}/32", inside(network, other))]),
        )?;
        let own = format!("{}/24", inside(network, side));
        let ip = |args: &[&str]| output(in_namespace(&namespace, "ip").args(args));
        ip(&["address", "add", &own, "dev", &interface])?;
        ip(&["link", "set", &interface, "mtu", "1420", "up"])?;
    }
    Ok(place.rival(name, inside(network, 1), processes))
}

/// A private key and its public one, as `wg` writes them.
fn key_pair() -> Result<(String, String)> {
    let private = output(Command::new("wg").arg("genkey"))?.trim().to_owned();
    let mut child = Command::new("wg")
        .arg("pubkey")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("running wg")?;
    if let Some(mut stdin) = child.stdin.take() {
        writeln!(stdin, "{private}")?;
    }
    let said = child.wait_with_output()?.stdout;
    let public = String::from_utf8_lossy(&said).trim().to_owned();
    Ok((private, public))
}

fn write_secret(path: &Path, text: &str) -> Result<()> {
    let mut options = fs::OpenOptions::new();
    let options = options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = options
        .open(path)
        .with_context(|| format!("writing {}", path.display()))?;
    writeln!(file, "{text}").context("writing a key")
}

/// Builds boringtun once, of one version, and keeps it below the target directory.
fn boringtun() -> Result<PathBuf> {
    let rivals = target_directory()?.join("rivals");
    let root = rivals.join(format!("boringtun-{BORINGTUN}"));
    let program = root.join("bin/boringtun-cli");
    if !program.is_file() {
        shell::heading("Building boringtun");
        let mut command = cargo();
        command
            .args(["install", "boringtun-cli", "--version", BORINGTUN])
            .args(["--locked", "--quiet", "--root"])
            .arg(&root)
            .arg("--target-dir")
            .arg(rivals.join("build"));
        shell::run(&mut command)?;
    }
    Ok(program)
}

/// Builds and installs what is not there yet, before anything is measured.
pub(super) fn prepare(is_wanted: impl Fn(&str) -> bool) -> Result<()> {
    if is_wanted("boringtun") {
        boringtun()?;
    }
    Ok(())
}

/// Removes what rivals leave behind in the file system when they are killed.
pub(super) fn clean_up() -> Result<()> {
    let Ok(entries) = fs::read_dir(WIREGUARD_SOCKETS) else {
        return Ok(());
    };
    for entry in entries {
        let entry = entry.context("listing sockets")?;
        if entry.file_name().to_string_lossy().starts_with(INTERFACES) {
            fs::remove_file(entry.path()).context("removing a rival's socket")?;
        }
    }
    Ok(())
}
