//! `turnpike capture`: packets inside the tunnel, as pcap: what the workload and the service say to each other, before it is sealed and
//! after it was opened.
//!
//! They are taken from the sidecar's TUN interface with a packet socket, so the kernel decides who may look (CAP_NET_RAW), and nothing
//! is in the way of packets while nobody does. The sidecar is only asked for the virtual IPs of a name. On an activator's machine there
//! is no sidecar: `--interface` alone captures what passes there.

use std::{
    fs::OpenOptions,
    io::{ErrorKind, IsTerminal as _, Write},
    net::IpAddr,
    os::{fd::AsRawFd as _, unix::fs::OpenOptionsExt as _},
    path::PathBuf,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;
use explain::facts::Sidecar;
use nix::{
    errno::Errno,
    net::if_::if_nametoindex,
    sys::socket::{LinkAddr, recvfrom},
};
use socket2::{Domain, Protocol, SockFilter, Socket, Type};

use crate::sidecar::{SidecarArgs, check_name};

/// As long as a packet can be that the TUN interface joined out of several.
const MAX_PACKET: usize = 65_535;
/// How often the clock is looked at when nothing comes.
const LOOK: Duration = Duration::from_millis(200);
/// Nanoseconds, and packets that begin with their IP header ([LINKTYPE_RAW](https://www.tcpdump.org/linktypes.html)).
const MAGIC: u32 = 0xa1b2_3c4d;
const LINKTYPE_RAW: u32 = 101;

#[derive(Args)]
pub(crate) struct CaptureArgs {
    /// A service, such as orders.east: only packets to and from its virtual IPs. Without it, all that pass the interface
    name: Option<String>,
    /// Where to, for `tcpdump -r` or Wireshark; `-` is standard output
    #[arg(short = 'w', long = "write", value_name = "FILE", default_value = "-")]
    file: PathBuf,
    /// End after so many packets
    #[arg(short = 'c', long, value_name = "N", default_value = "100000",
        value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    packets: u64,
    /// End before the file is longer than this, in MiB
    #[arg(long, value_name = "MIB", default_value = "256", value_parser = clap::value_parser!(u64).range(1..=65_536))]
    size: u64,
    /// End after this time; without it, with Ctrl-C
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    time: Option<Duration>,
    /// The TUN interface [default: what the configuration says, else turnpike0]
    #[arg(long, value_name = "NAME")]
    interface: Option<String>,
    #[command(flatten)]
    sidecar: SidecarArgs,
}

pub(crate) fn run(args: &CaptureArgs) -> Result<()> {
    let reach = args.sidecar.reach()?;
    let interface = args.interface.clone().unwrap_or_else(|| reach.interface());
    let wanted = match &args.name {
        Some(name) => {
            check_name(name)?;
            addresses(name, &reach.ask(name, false)?)?
        }
        None => Vec::new(),
    };
    let socket = listen(&interface)?;
    let mut out = open(args)?;
    let mut left = args.size * 1024 * 1024;
    let mut put = |record: &[u8]| -> Result<bool> {
        let length = record.len() as u64;
        if length > left {
            return Ok(false);
        }
        left -= length;
        match out.write_all(record).and_then(|()| out.flush()) {
            // Whoever read it has seen enough.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
            written => written.map(|()| true).context("writing the packets"),
        }
    };
    if !put(&header())? {
        return Ok(());
    }
    eprintln!(
        "capturing on {interface}: {}; Ctrl-C ends it",
        match &args.name {
            Some(name) => format!("{name}, {}", list(&wanted)),
            None => "everything".to_owned(),
        }
    );
    let end = args.time.map(|time| Instant::now() + time);
    let (mut count, mut record) = (0, vec![0; 16 + MAX_PACKET]);
    while count < args.packets && end.is_none_or(|end| Instant::now() < end) {
        let Some(length) = socket.receive(&mut record[16..])? else {
            continue;
        };
        if !concerns(&record[16..16 + length], &wanted) {
            continue;
        }
        stamp(&mut record, length as u32);
        if !put(&record[..16 + length])? {
            break;
        }
        count += 1;
    }
    eprintln!("{count} packets");
    Ok(())
}

/// The addresses that stand for a name.
fn addresses(name: &str, sidecar: &Sidecar) -> Result<Vec<IpAddr>> {
    ensure!(
        !sidecar.virtual_ips.is_empty(),
        "`{name}` has no virtual IP here: `turnpike explain {name}` says why"
    );
    Ok(sidecar.virtual_ips.clone())
}

fn list(addresses: &[IpAddr]) -> String {
    let all: Vec<_> = addresses.iter().map(ToString::to_string).collect();
    all.join(" and ")
}

fn open(args: &CaptureArgs) -> Result<Box<dyn Write>> {
    if args.file.as_os_str() != "-" {
        let mut options = OpenOptions::new();
        // What people say to each other is nobody else's business.
        let options = options.write(true).create(true).truncate(true).mode(0o600);
        let file = options.open(&args.file);
        return Ok(Box::new(
            file.with_context(|| args.file.display().to_string())?,
        ));
    }
    let stdout = std::io::stdout();
    ensure!(
        !stdout.is_terminal(),
        "packets are not for a terminal: use `-w FILE`, or pipe them: turnpike capture … | tcpdump -n -r -"
    );
    Ok(Box::new(stdout))
}

/// A packet socket that hears one interface.
struct PacketSocket {
    socket: Socket,
    index: u32,
}

fn listen(interface: &str) -> Result<PacketSocket> {
    let index = if_nametoindex(interface);
    let index = index.ok().with_context(|| {
        format!("there is no interface `{interface}`: is dns-signal running, or is another one meant (`--interface`)?")
    })?;
    let protocol = Protocol::from(i32::from((libc::ETH_P_ALL as u16).to_be()));
    let socket = match Socket::new(Domain::PACKET, Type::DGRAM, Some(protocol)) {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            bail!("only root may look at packets (CAP_NET_RAW): use sudo")
        }
        socket => socket.context("opening a packet socket")?,
    };
    socket.attach_filter(&of_interface(index))?;
    socket.set_read_timeout(Some(LOOK))?;
    Ok(PacketSocket { socket, index })
}

/// For the kernel (classic BPF): load the interface's number; if it is ours, keep all of the packet; else none of it.
fn of_interface(index: u32) -> [SockFilter; 4] {
    let number = (libc::SKF_AD_OFF + libc::SKF_AD_IFINDEX).cast_unsigned();
    let operation = |code: u32, jt, jf, k| SockFilter::new(code as u16, jt, jf, k);
    [
        operation(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, number),
        operation(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, index),
        operation(libc::BPF_RET | libc::BPF_K, 0, 0, u32::MAX),
        operation(libc::BPF_RET | libc::BPF_K, 0, 0, 0),
    ]
}

impl PacketSocket {
    /// The length of the next packet, whose beginning is in `buffer`; none when there was none for a while.
    fn receive(&self, buffer: &mut [u8]) -> Result<Option<usize>> {
        match recvfrom::<LinkAddr>(self.socket.as_raw_fd(), buffer) {
            // In the moment before it had its filter it heard other interfaces, too.
            Ok((_, Some(from))) if from.ifindex() != self.index as usize => Ok(None),
            Ok((length, _)) => Ok(Some(length)),
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(None),
            Err(error) => Err(error).context("receiving"),
        }
    }
}

/// Whether a packet is to or from one of these; any packet, if there is none.
fn concerns(packet: &[u8], wanted: &[IpAddr]) -> bool {
    if wanted.is_empty() {
        return true;
    }
    let at = |range: std::ops::Range<usize>| packet.get(range);
    let ipv4 = |range| {
        let bytes: [u8; 4] = at(range)?.try_into().ok()?;
        Some(IpAddr::from(bytes))
    };
    let ipv6 = |range| {
        let bytes: [u8; 16] = at(range)?.try_into().ok()?;
        Some(IpAddr::from(bytes))
    };
    let ends = match packet.first().map(|first| first >> 4) {
        Some(4) => [ipv4(12..16), ipv4(16..20)],
        Some(6) => [ipv6(8..24), ipv6(24..40)],
        _ => [None, None],
    };
    let mut ends = ends.into_iter().flatten();
    ends.any(|address| wanted.contains(&address))
}

/// The [file's header](https://www.ietf.org/archive/id/draft-ietf-opsawg-pcap-06.html#section-4), in this machine's byte order:
///
/// ```text
/// magic u32 | major u16 = 2 | minor u16 = 4 | 0 u32 | 0 u32 | longest packet u32 | link type u32
/// ```
fn header() -> Vec<u8> {
    let version = [2_u16.to_ne_bytes(), 4_u16.to_ne_bytes()].concat();
    let longest = (MAX_PACKET as u32).to_ne_bytes();
    let parts: [&[u8]; 5] = [
        &MAGIC.to_ne_bytes(),
        &version,
        &[0; 8],
        &longest,
        &LINKTYPE_RAW.to_ne_bytes(),
    ];
    parts.concat()
}

/// Puts a packet's header in front of it: seconds, nanoseconds, bytes that follow, bytes there were; each u32.
fn stamp(record: &mut [u8], length: u32) {
    // A clock before 1970 is no worse than one that is wrong.
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    let fields = [now.as_secs() as u32, now.subsec_nanos(), length, length];
    for (place, field) in record.chunks_exact_mut(4).zip(fields) {
        place.copy_from_slice(&field.to_ne_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_concerns_both_of_its_ends() {
        let service: IpAddr = "198.18.0.7".parse().unwrap();
        let mut packet = vec![0; 20];
        packet[0] = 0x45;
        packet[12..16].copy_from_slice(&[198, 18, 0, 7]);
        assert!(concerns(&packet, &[service]));
        packet.copy_within(12..16, 16);
        packet[12] = 10;
        assert!(concerns(&packet, &[service]));
        packet[16] = 10;
        assert!(!concerns(&packet, &[service]));
        assert!(concerns(&packet, &[]));
        let service: IpAddr = "fd74::7".parse().unwrap();
        let mut packet = vec![0; 40];
        packet[0] = 0x60;
        (packet[24], packet[25], packet[39]) = (0xfd, 0x74, 7);
        assert!(concerns(&packet, &[service]));
        for length in 0..40 {
            assert!(!concerns(&packet[..length], &[service]));
        }
    }
}
