//! A systemd-resolved on a host of the lab, with a system bus of its own, without systemd.
use std::fs::{self, File, Permissions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use lab::process::FileKind;
use lab::{Lab, Network, wait};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use scenarios::{Beside, RECOVERY};
use tempfile::TempDir;

const HOST: &str = "west/app";
const PATIENCE: Duration = Duration::from_secs(10);

/// Everybody may do everything: who may is resolved's and polkit's matter, and root may.
const BUS: &str = r#"<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:path=BUS</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/>
    <allow own="*"/>
    <allow send_destination="*"/>
    <allow receive_sender="*"/>
  </policy>
</busconfig>
"#;

/// Its only upstream is the lab's DNS server. `/run` is its own.
const RUN: &str = "mount -t tmpfs tmpfs /run && mkdir -p /run/systemd/resolved.conf.d \
    && printf '[Resolve]\\nDNS=203.0.113.53\\nFallbackDNS=\\nLLMNR=no\\nMulticastDNS=no\\n' > /run/systemd/resolved.conf.d/lab.conf \
    && SYSTEMD_LOG_TARGET=console exec \"$0\"";

/// Bus and resolver; they end with this.
pub(crate) struct Resolved {
    programs: PathBuf,
    bus: String,
    resolved: Beside,
    _bus: Beside,
    _directory: TempDir,
}

/// A dns-signal that knows the bus.
pub(crate) struct Sidecar(Child);

impl Resolved {
    /// Starts both, and waits until resolved answers. resolv.conf is left as it is.
    pub(crate) fn start(lab: &Lab) -> Self {
        let programs = programs();
        let directory = tempfile::tempdir().expect("a directory");
        // resolved runs as a user of its own.
        fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).expect("its mode");
        let socket = directory.path().join("bus").display().to_string();
        let config = directory.path().join("bus.conf");
        fs::write(&config, BUS.replace("=BUS<", &format!("={socket}<")))
            .expect("its configuration");
        add_user(lab);
        let config = format!("--config-file={}", config.display());
        let bus_daemon = ["dbus-daemon", "--nofork", "--nopidfile", &config];
        let bus_process = Beside::start(lab, HOST, &bus_daemon).expect("the bus starts");
        wait::until_true("the bus", PATIENCE, || Ok(fs::exists(&socket)?)).expect("it is there");
        let bus = format!("DBUS_SYSTEM_BUS_ADDRESS=unix:path={socket}");
        let program = programs.join("lib/systemd/systemd-resolved");
        let program = program.display().to_string();
        let inside = ["env", &bus, "unshare", "-m", "sh", "-c", RUN, &program];
        let resolved = Beside::start(lab, HOST, &inside).expect("resolved starts");
        let ask = [
            "dig",
            "+short",
            "+tries=1",
            "+time=1",
            "@127.0.0.53",
            "www.example.com",
        ];
        wait::until_true("resolved to answer", PATIENCE, || {
            Ok(lab.exec(HOST, &ask)?.stdout == b"203.0.113.53\n")
        })
        .expect("it does");
        Self {
            programs,
            bus,
            resolved,
            _bus: bus_process,
            _directory: directory,
        }
    }

    /// Ends resolved; the bus stays.
    pub(crate) fn end_resolved(&mut self) {
        self.resolved.end();
    }

    /// What `resolvectl` says.
    pub(crate) fn control(&self, lab: &Lab, arguments: &[&str]) -> String {
        let program = self.programs.join("usr/bin/resolvectl");
        let program = program.display().to_string();
        let command = ["env", &self.bus, &program, "--no-pager"];
        lab.output(HOST, &[&command[..], arguments].concat())
            .expect("resolvectl")
    }

    /// Starts west's sidecar, and waits until it knows the name.
    pub(crate) fn start_sidecar(&self, lab: &Lab) -> Sidecar {
        let files = lab.files();
        let config = files.of_process("west/dns-signal", FileKind::Config);
        let log = files.of_process("west/dns-signal", FileKind::Log);
        let log = File::options().append(true).create(true).open(log);
        let log = log.expect("its log");
        let mut command = lab.command(HOST, "env").expect("the host");
        command
            .arg(&self.bus)
            .arg(lab.binaries().join("dns-signal"));
        command.arg("--config").arg(config);
        command
            .stdout(log.try_clone().expect("its log"))
            .stderr(log);
        let sidecar = Sidecar(command.spawn().expect("it starts"));
        lab.wait_for_name(Network::West, "orders.east.mesh.internal", RECOVERY)
            .expect("it knows the name");
        sidecar
    }
}

impl Sidecar {
    /// Ends it, and waits for that.
    pub(crate) fn end(mut self, signal: Signal) {
        let pid = i32::try_from(self.0.id()).expect("a process id");
        kill(Pid::from_raw(pid), signal).expect("it runs");
        self.0.wait().expect("it ended");
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The user that resolved becomes, on this host of the lab only.
fn add_user(lab: &Lab) {
    let directory = PathBuf::from("/etc/netns").join(lab.namespace(HOST));
    for (file, line) in [
        (
            "passwd",
            "systemd-resolve:x:64053:64053::/:/usr/sbin/nologin",
        ),
        ("group", "systemd-resolve:x:64053:"),
    ] {
        let text = fs::read_to_string(Path::new("/etc").join(file)).expect("it is there");
        fs::write(
            directory.join(file),
            format!("{}\n{line}\n", text.trim_end()),
        )
        .expect("it can be written");
    }
}

/// Where `lib/systemd/systemd-resolved` and `usr/bin/resolvectl` are. Debian's package, installed, would change this machine's own
/// resolv.conf: it is only unpacked.
fn programs() -> PathBuf {
    let installed = Path::new("/");
    if installed.join("lib/systemd/systemd-resolved").exists() {
        return installed.to_owned();
    }
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("systemd-resolved");
    if directory.join("usr/bin/resolvectl").exists() {
        return directory;
    }
    fs::create_dir_all(&directory).expect("a directory");
    let run = |program: &str, arguments: &[&str]| {
        let mut command = Command::new(program);
        let output = command.args(arguments).current_dir(&directory).output();
        let output = output.expect("it runs");
        let _ = std::io::stderr().write_all(&output.stderr);
        assert!(output.status.success(), "{program} {arguments:?} failed");
    };
    run("apt-get", &["-q", "download", "systemd-resolved"]);
    run("sh", &["-c", "dpkg-deb -x systemd-resolved_*.deb ."]);
    directory
}
