//! A lab as a value: up, use, down.
use std::env;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};

use crate::nat::{Firewall, NatKind};
use crate::plan::{self, Network};
use crate::probe::RecordType;
use crate::process::{self, Files, Handle, Process};
use crate::status::{HostStatus, ProcessStatus, Status};
use crate::{mesh, netns, probe, topology, wait};

const END_DEADLINE: Duration = Duration::from_secs(5);
const NAME_MAX: usize = 12;

/// What a lab is to be like.
#[derive(Debug, Clone)]
pub struct LabOptions {
    /// 1 to 12 of `[a-z0-9]`; labs of different names stand side by side.
    pub name: String,
    /// What both routers do.
    pub nat: NatKind,
    /// Where the binaries are; see [`LabOptions::new`].
    pub binaries: PathBuf,
    /// What the routers let through at first: west's, east's.
    pub firewalls: [Firewall; 2],
    /// Whether to start discovery, relays, activators and dns-signal.
    pub mesh: bool,
    /// How many private networks there are: 2 to 5, the first of [`Network::FIVE`].
    pub networks: usize,
    /// Whether each network has a second relay and a second activator.
    pub spares: bool,
    /// How long one process may take until it is ready.
    pub ready_within: Duration,
    /// Called with a line when a stage is done.
    pub progress: fn(&str),
}

impl LabOptions {
    /// The default picture, silent. Binaries come from `TURNPIKE_BIN_DIR`, else from beside the running program.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let beside = || Some(env::current_exe().ok()?.parent()?.to_owned());
        let binaries = env::var_os("TURNPIKE_BIN_DIR")
            .map(PathBuf::from)
            .or_else(beside);
        Self {
            name: name.to_owned(),
            nat: NatKind::default(),
            firewalls: [Firewall::Open; 2],
            binaries: binaries.unwrap_or_default(),
            mesh: true,
            networks: Network::PAIR.len(),
            spares: false,
            ready_within: Duration::from_secs(15),
            progress: |_| {},
        }
    }
}

/// What is remembered of a lab between two commands.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    nat: NatKind,
    binaries: PathBuf,
    mesh: bool,
    networks: usize,
    #[serde(default)]
    spares: bool,
}

/// A lab that is up. Dropping it leaves it up; see [`Lab::down`] and [`crate::ScopedLab`].
#[derive(Debug)]
pub struct Lab {
    name: String,
    files: Files,
    nat: NatKind,
    binaries: PathBuf,
    networks: &'static [Network],
    processes: Vec<Process>,
    ready_within: Duration,
}

impl Lab {
    /// Builds it and waits until it works. When that fails, what was made so far is removed, except for the files,
    /// which tell why.
    pub fn up(options: &LabOptions) -> Result<Self> {
        topology::check_prerequisites()?;
        let lab = Self::create(options)?;
        lab.bring_up(options).inspect_err(|_| {
            let _ = lab.end_processes();
            let _ = topology::remove(&lab.name);
        })?;
        Ok(lab)
    }

    /// One that is up already.
    pub fn open(name: &str) -> Result<Self> {
        check_name(name)?;
        let files = Files::of(name);
        let path = files.root().join("lab.json");
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                bail!("lab `{name}` is not up: `turnpike lab up --name {name}` brings it up")
            }
            Err(error) => return Err(error).with_context(|| format!("reading {}", path.display())),
        };
        let record = serde_json::from_str(&text)
            .with_context(|| format!("{} is not what a lab writes", path.display()))?;
        Ok(Self::from_record(
            name,
            record,
            LabOptions::new(name).ready_within,
        ))
    }

    /// Removes a lab and everything it left, also when it never came up fully or its maker crashed. Removing one that
    /// is not there is fine.
    pub fn remove(name: &str) -> Result<()> {
        check_name(name)?;
        let record = Record {
            nat: NatKind::default(),
            binaries: PathBuf::new(),
            mesh: true,
            networks: Network::FIVE.len(),
            spares: true,
        };
        Self::from_record(name, record, Duration::ZERO).down()
    }

    fn create(options: &LabOptions) -> Result<Self> {
        check_name(&options.name)?;
        let count = options.networks;
        ensure!((2..=5).contains(&count), "{count} networks: 2 to 5");
        let binaries = fs::canonicalize(&options.binaries)
            .with_context(|| format!("the binaries' directory {}", options.binaries.display()))?;
        let record = Record {
            nat: options.nat,
            binaries,
            mesh: options.mesh,
            networks: options.networks,
            spares: options.spares,
        };
        let text = serde_json::to_string(&record).context("the lab's record")?;
        let lab = Self::from_record(&options.name, record, options.ready_within);
        for process in &lab.processes {
            process.check_program()?;
        }
        let root = lab.files.root();
        fs::create_dir_all(Files::PARENT).context("making the labs' directory")?;
        fs::create_dir(root).with_context(|| {
            let name = &lab.name;
            format!(
                "{} cannot be made: is lab `{name}` up, or left behind? `turnpike lab down --name {name}` removes it",
                root.display()
            )
        })?;
        lab.files.create()?;
        fs::write(root.join("lab.json"), text).context("writing the lab's record")?;
        Ok(lab)
    }

    fn from_record(name: &str, record: Record, ready_within: Duration) -> Self {
        let files = Files::of(name);
        let networks = Network::first(record.networks);
        let processes = process::all(
            &files,
            &record.binaries,
            networks,
            record.mesh,
            record.spares,
        );
        let Record { nat, binaries, .. } = record;
        Self {
            name: name.to_owned(),
            files,
            nat,
            binaries,
            networks,
            processes,
            ready_within,
        }
    }

    fn bring_up(&self, options: &LabOptions) -> Result<()> {
        let begin = Instant::now();
        let report = |what: &str| {
            (options.progress)(&format!("{:6.2} s  {what}", begin.elapsed().as_secs_f64()));
        };
        topology::build(&self.name, self.networks, self.nat)?;
        for (network, firewall) in Network::PAIR.into_iter().zip(options.firewalls) {
            topology::set_firewall(&self.name, network, firewall)?;
        }
        for host in plan::hosts(self.networks) {
            let own = options.mesh && host.name.ends_with("/app");
            let server = if own {
                Ipv4Addr::LOCALHOST.into()
            } else {
                plan::UPSTREAM_DNS.ip()
            };
            topology::set_resolver(&self.name, &host.name, server)?;
        }
        report("the networks, their routers, and a public segment");
        if options.mesh {
            mesh::prepare(&self.files, &self.binaries, self.networks, options.spares)?;
            report("certificate authority, join tokens, configuration");
        }
        // Discovery first: the others would otherwise spend their first second on a failed attempt.
        let is_early = |process: &&Process| !process.name.contains('/');
        for process in self.processes.iter().filter(is_early) {
            self.handle(process).start()?;
        }
        for process in self.processes.iter().filter(is_early) {
            self.handle(process).wait_ready(self.ready_within)?;
        }
        for process in self.processes.iter().filter(|process| !is_early(process)) {
            self.handle(process).start()?;
        }
        for process in &self.processes {
            self.handle(process).wait_ready(self.ready_within)?;
        }
        report("every process says that it is ready");
        if options.mesh {
            for &network in self.networks {
                for other in self.networks.iter().filter(|&&other| other != network) {
                    self.wait_for_name(network, &other.service_name(), self.ready_within)?;
                }
            }
            report("each network knows the others' services");
        }
        Ok(())
    }

    /// Waits until a network's dns-signal knows a name. It asks for text, which a service does not have: that it says
    /// so shows that it knows the name, and, unlike asking for an address, opens no link.
    pub fn wait_for_name(&self, network: Network, name: &str, within: Duration) -> Result<()> {
        let namespace = self.namespace(&format!("{network}/app"));
        let server = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 53);
        wait::until_true(
            &format!("{network}'s dns-signal to know {name}"),
            within,
            || {
                let reply = probe::dns_query(&namespace, server, name, RecordType::Txt)?;
                ensure!(reply.code == 0, "it answers with code {}", reply.code);
                Ok(true)
            },
        )
    }

    /// The lab's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its private networks.
    #[must_use]
    pub const fn networks(&self) -> &'static [Network] {
        self.networks
    }

    /// Where it keeps its files.
    #[must_use]
    pub const fn files(&self) -> &Files {
        &self.files
    }

    /// Where the binaries are that it runs.
    #[must_use]
    pub fn binaries(&self) -> &Path {
        &self.binaries
    }

    /// The namespace of a host.
    #[must_use]
    pub fn namespace(&self, host: &str) -> String {
        netns::name(&self.name, host)
    }

    /// A command that will run in a host, not started yet: give it arguments, files and environment as usual.
    pub fn command(&self, host: &str, program: &str) -> Result<Command> {
        let namespace = self.namespace(host);
        if netns::identity(&namespace).is_none() {
            let known: Vec<_> = plan::hosts(self.networks)
                .into_iter()
                .map(|host| host.name)
                .collect();
            bail!(
                "lab `{}` has no host `{host}`: there are {}",
                self.name,
                known.join(", ")
            );
        }
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &namespace, program]);
        Ok(command)
    }

    /// Runs a command in a host to its end and gives back status and output, whatever the status.
    pub fn exec(&self, host: &str, command: &[&str]) -> Result<Output> {
        let (program, args) = command.split_first().context("no command given")?;
        self.command(host, program)?
            .args(args)
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("running {program} in {host}"))
    }

    /// Runs a command in a host and gives back what it printed; an error when it fails, with what it said.
    pub fn output(&self, host: &str, command: &[&str]) -> Result<String> {
        let output = self.exec(host, command)?;
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!(
                "in {host}, {command:?} failed ({}): {}{printed}",
                output.status,
                said
            );
        }
        Ok(printed)
    }

    /// What a network's router lets through from now on.
    pub fn set_firewall(&self, network: Network, firewall: Firewall) -> Result<()> {
        topology::set_firewall(&self.name, network, firewall)
    }

    /// What an inside host sends and gets from now on, its loopback and its tunnel excepted.
    pub fn set_host_firewall(&self, host: &str, firewall: Firewall) -> Result<()> {
        topology::load_firewall(&self.name, host, &firewall.host_ruleset())
    }

    /// Starts a command in a host and does not wait for it. Its output is piped.
    pub fn spawn(&self, host: &str, command: &[&str]) -> Result<Child> {
        let (program, args) = command.split_first().context("no command given")?;
        self.command(host, program)?
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting {program} in {host}"))
    }

    fn handle<'a>(&'a self, process: &'a Process) -> Handle<'a> {
        Handle {
            lab: &self.name,
            files: &self.files,
            process,
        }
    }

    /// A process by its name: `discovery`, `west/relay`, `east/activator`, `west/dns-signal`, `east/orders`.
    pub fn process(&self, name: &str) -> Result<Handle<'_>> {
        let found = self.processes.iter().find(|process| process.name == name);
        Ok(self.handle(found.with_context(|| {
            let known: Vec<_> = self
                .processes
                .iter()
                .map(|process| &*process.name)
                .collect();
            format!("no process `{name}`: there are {}", known.join(", "))
        })?))
    }

    /// Starts a process that ended, and waits until it is ready.
    pub fn start(&self, process: &str) -> Result<()> {
        let handle = self.process(process)?;
        handle.start()?;
        handle.wait_ready(self.ready_within)
    }

    /// Ends a process with SIGTERM.
    pub fn stop(&self, process: &str) -> Result<()> {
        self.process(process)?.stop()
    }

    /// Ends a process with SIGKILL.
    pub fn kill9(&self, process: &str) -> Result<()> {
        self.process(process)?.kill9()
    }

    /// Changes the configuration file of a process; it reads it when it starts next.
    pub fn edit_config(&self, process: &str, edit: impl FnOnce(&str) -> String) -> Result<()> {
        let name = &self.process(process)?.process.name;
        let path = self.files.of_process(name, process::FileKind::Config);
        let text =
            fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        let edited = edit(&text);
        ensure!(
            edited != text,
            "the edit of {} changes nothing",
            path.display()
        );
        fs::write(&path, edited).with_context(|| format!("writing {}", path.display()))
    }

    /// The mesh's own processes: those with an admin port.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = &Process> {
        self.processes
            .iter()
            .filter(|process| process.admin().is_some())
    }

    /// The last log lines of the mesh's processes, on standard error.
    pub(crate) fn print_last_words(&self) {
        for process in self.nodes() {
            eprintln!("{}: {}", process.name, self.handle(process).last_words());
        }
    }

    /// What there is and what runs.
    #[must_use]
    pub fn status(&self) -> Status {
        let hosts = plan::hosts(self.networks).into_iter().map(|host| {
            let namespace = self.namespace(&host.name);
            let here = self
                .processes
                .iter()
                .filter(|process| process.host == host.name);
            let processes = here.map(|process| self.process_status(process)).collect();
            HostStatus {
                up: netns::identity(&namespace).is_some(),
                addresses: host.addresses(),
                name: host.name,
                namespace,
                processes,
            }
        });
        Status {
            name: self.name.clone(),
            nat: self.nat,
            hosts: hosts.collect(),
        }
    }

    fn process_status(&self, process: &Process) -> ProcessStatus {
        let pid = self.handle(process).running();
        let log = self.files.of_process(&process.name, process::FileKind::Log);
        ProcessStatus {
            name: process.name.clone(),
            pid,
            alive: pid.is_some(),
            log: log.display().to_string(),
        }
    }

    /// Ends every process, removes every namespace and every file.
    pub fn down(self) -> Result<()> {
        self.end_processes()?;
        topology::remove(&self.name)?;
        match fs::remove_dir_all(self.files.root()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("removing {}", self.files.root().display()))
            }
            _ => Ok(()),
        }
    }

    /// Ends what runs in the lab's namespaces: its own processes politely, and then whatever else is in there.
    fn end_processes(&self) -> Result<()> {
        for process in &self.processes {
            if let Some(pid) = self.handle(process).running() {
                process::send(pid, Signal::SIGTERM)?;
            }
        }
        let alive = || {
            self.processes
                .iter()
                .any(|process| self.handle(process).running().is_some())
        };
        let deadline = Instant::now() + END_DEADLINE;
        while alive() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(10));
        }
        let namespaces = netns::list(&netns::prefix(&self.name))?;
        wait::until_true("the lab's processes to end", END_DEADLINE, || {
            let mut empty = true;
            for namespace in &namespaces {
                for pid in netns::processes(namespace)? {
                    process::send(pid, Signal::SIGKILL)?;
                    empty = false;
                }
            }
            Ok(empty)
        })
    }
}

fn check_name(name: &str) -> Result<()> {
    let fits = (1..=NAME_MAX).contains(&name.len());
    let plain = name
        .bytes()
        .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    ensure!(
        fits && plain,
        "lab name `{name}`: must be 1 to {NAME_MAX} of a-z and 0-9"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_mix_up_two_labs_are_refused() {
        for name in ["", "a-b", "West", "a/b", "averyveryverylongname"] {
            assert!(check_name(name).is_err(), "{name}");
        }
        assert!(check_name("lab1").is_ok());
    }
}
