//! What the mesh needs before it can start: a certificate authority, secrets, tokens, and a configuration file per
//! process. Made with the same command an operator uses.
use std::fs;
use std::io::Read as _;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::{Context as _, Result};

use crate::command::run;
use crate::plan::{self, INSIDE_IPV4, INSIDE_IPV6, Network, Segment};
use crate::process::{FileKind, Files};

/// The mesh's name: what stands in every node's SPIFFE id.
pub const NAME: &str = "lab";

/// Makes the mesh directory, tokens, and configuration files.
pub fn prepare(files: &Files, binaries: &Path, networks: &[Network], spares: bool) -> Result<()> {
    let turnpike = binaries.join("turnpike");
    let mesh = files.mesh();
    let turnpike = turnpike.display().to_string();
    let directory = mesh.display().to_string();
    let mut init: Vec<String> = [
        "init",
        &directory,
        "--mesh",
        NAME,
        "--discovery",
        &plan::DISCOVERY.to_string(),
        "--server-name",
        &plan::DISCOVERY_IPV6.ip().to_string(),
    ]
    .map(str::to_owned)
    .into();
    for network in networks {
        init.extend(["--network".to_owned(), network.to_string()]);
        init.extend(["--relay".to_owned(), relay_uri(network.relay())]);
    }
    run(&turnpike, &init).context("making the mesh")?;
    for &network in networks {
        write_secret(&relay_secret(files, network), &random_hex()?)?;
        let nodes = [
            ("activator", "activator"),
            ("activator2", "activator"),
            ("dns-signal", "workload"),
        ];
        for (process, role) in nodes {
            if process.ends_with('2') && !spares {
                continue;
            }
            let token = files.of_process(&format!("{network}/{process}"), FileKind::Token);
            write_secret(
                &token,
                &create_token(&turnpike, &directory, network, role, &[])?,
            )?;
        }
    }
    write(
        &files.of_process("discovery", FileKind::Config),
        &discovery_config(files, networks, spares),
    )?;
    for &network in networks {
        for (process, text) in [
            ("relay", relay_config(files, network, network.relay(), 2)),
            (
                "relay2",
                relay_config(files, network, network.second_relay(), 4),
            ),
            ("activator", activator_config(files, network, "activator")),
            ("activator2", activator_config(files, network, "activator2")),
            ("dns-signal", dns_signal_config(files, network)),
        ] {
            write(
                &files.of_process(&format!("{network}/{process}"), FileKind::Config),
                &text,
            )?;
        }
    }
    Ok(())
}

/// Runs `turnpike token create`; `more` are further flags, such as `--ttl 1s`.
pub fn create_token(
    turnpike: &str,
    mesh_directory: &str,
    network: Network,
    role: &str,
    more: &[&str],
) -> Result<String> {
    let fixed = ["token", "create", "--mesh-directory", mesh_directory];
    let args = [
        &fixed[..],
        &["--network", network.name(), "--role", role],
        more,
    ]
    .concat();
    let output = run(turnpike, &args).context("making a join token")?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn relay_uri(relay: SocketAddr) -> String {
    format!("turn:{relay}?transport=udp")
}

fn relay_secret(files: &Files, network: Network) -> std::path::PathBuf {
    files.of_process(&format!("{network}/relay-secret"), FileKind::Token)
}

fn discovery_config(files: &Files, networks: &[Network], spares: bool) -> String {
    let mesh = files.mesh();
    let mesh = mesh.display();
    let data = files.of_process("discovery", FileKind::State);
    let mut text = format!(
        r#"listen = "[::]:{port}"
admin = "127.0.0.1:{admin}"
console = "127.0.0.1:{console}"
data-file = "{data}"
ca-certificate-file = "{mesh}/ca-certificate.pem"
ca-key-file = "{mesh}/ca-key.pem"
certificate-file = "{mesh}/discovery-certificate.pem"
key-file = "{mesh}/discovery-key.pem"
"#,
        port = plan::DISCOVERY.port(),
        admin = plan::DISCOVERY_ADMIN_PORT,
        console = plan::CONSOLE_PORT,
        data = data.join("directory.redb").display(),
    );
    for &network in networks {
        let first = (network.to_string(), network.relay());
        let second = (format!("{network}-second"), network.second_relay());
        for (name, relay) in [Some(first), spares.then_some(second)]
            .into_iter()
            .flatten()
        {
            text += &format!(
                r#"
[[relay]]
name = "{name}"
network = "{network}"
url = "{url}"
more-urls = ["turn:{relay}?transport=tcp", "turns:{host}:{tls}"]
auth-secret-file = "{secret}"
"#,
                url = relay_uri(relay),
                host = relay.ip(),
                tls = plan::RELAY_TLS_PORT,
                secret = relay_secret(files, network).display(),
            );
        }
    }
    text
}

fn relay_config(files: &Files, network: Network, listen: SocketAddr, inside: u8) -> String {
    let (ipv4, ipv6) = Segment::Inside(network).addresses(inside);
    format!(
        r#"listen = ["udp://{listen}", "tcp://{listen}", "tls://{host}:{tls}"]
certificate-file = "{mesh}/{network}/relay-certificate.pem"
key-file = "{mesh}/{network}/relay-key.pem"
realm = "{network}"
auth-secret-files = ["{secret}"]
relay-addresses = ["{ipv4}", "{ipv6}"]
allow-peers = ["{INSIDE_IPV4}", "{INSIDE_IPV6}"]
port-range = "49152-65535"
admin = "127.0.0.1:{admin}"
"#,
        host = listen.ip(),
        tls = plan::RELAY_TLS_PORT,
        mesh = files.mesh().display(),
        secret = relay_secret(files, network).display(),
        admin = plan::RELAY_ADMIN_PORT,
    )
}

fn node_config(files: &Files, network: Network, process: &str, admin: u16) -> String {
    let process = format!("{network}/{process}");
    format!(
        r#"network = "{network}"
discovery = "https://{discovery}"
state-directory = "{state}"
join-token-file = "{token}"
admin = "127.0.0.1:{admin}"
"#,
        discovery = plan::DISCOVERY,
        state = files.of_process(&process, FileKind::State).display(),
        token = files.of_process(&process, FileKind::Token).display(),
    )
}

fn activator_config(files: &Files, network: Network, process: &str) -> String {
    let (ipv4, ipv6) = Segment::Inside(network).addresses(20);
    format!(
        r#"{node}
[tunnel]
interface = "turnpike0"
client-pool-ipv4 = "100.89.0.0/16"
client-pool-ipv6 = "fd89:7475:726e::/64"

[[export]]
name = "{service}"
addresses = ["{ipv4}", "{ipv6}"]
tcp = [{http}, {tcp_echo}, {records}]
udp = [{udp_echo}]
"#,
        node = node_config(files, network, process, plan::ACTIVATOR_ADMIN_PORT),
        service = network.service(),
        http = plan::HTTP_PORT,
        tcp_echo = plan::TCP_ECHO_PORT,
        records = plan::RECORDS_PORT,
        udp_echo = plan::UDP_ECHO_PORT,
    )
}

fn dns_signal_config(files: &Files, network: Network) -> String {
    format!(
        r#"{node}
[dns]
listen = ["127.0.0.1:53"]
upstreams = ["{upstream}"]
suffix = "{suffix}"
ttl = "5s"

[tunnel]
interface = "turnpike0"
pool-ipv4 = "198.18.0.0/15"
pool-ipv6 = "fd74:7572:6e70::/64"

[link]
idle-timeout = "60s"
"#,
        node = node_config(files, network, "dns-signal", plan::DNS_SIGNAL_ADMIN_PORT),
        upstream = plan::UPSTREAM_DNS,
        suffix = plan::SUFFIX,
    )
}

/// The DNS server outside the mesh: a few names of every kind, nothing forwarded, NXDOMAIN for the rest.
#[must_use]
pub fn dnsmasq_arguments() -> Vec<String> {
    let long_text = "x".repeat(200);
    let mut arguments: Vec<String> = [
        // 1232 bytes is what resolvers ask for today; below, answers come truncated and are asked again over TCP.
        "--keep-in-foreground --conf-file=/dev/null --pid-file= --user=root --log-facility=-",
        "--no-resolv --no-hosts --no-poll --local=/#/ --local-ttl=300 --edns-packet-max=1232",
        "--host-record=www.example.com,203.0.113.53,2001:db8:113::53",
        "--host-record=second.example.com,203.0.113.54",
        "--cname=alias.example.com,www.example.com",
        "--mx-host=example.com,mail.example.com,10",
        "--txt-record=example.com,lab",
    ]
    .iter()
    .flat_map(|line| line.split(' ').map(str::to_owned))
    .collect();
    arguments.extend((0..10).map(|n| format!("--txt-record=long.example.com,{n}-{long_text}")));
    arguments
}

fn random_hex() -> Result<String> {
    let mut bytes = [0; 32];
    fs::File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .context("reading random bytes")?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}

fn write_secret(path: &Path, text: &str) -> Result<()> {
    use std::io::Write as _;
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    options
        .open(path)
        .and_then(|mut file| writeln!(file, "{text}"))
        .with_context(|| format!("writing {}", path.display()))
}
