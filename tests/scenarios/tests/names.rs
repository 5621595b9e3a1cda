//! What a workload gets from DNS: remote names from the mesh, all others as if nothing stood in between.
use lab::Lab;
use scenarios::lab;

const UPSTREAM: &str = "@203.0.113.53";

/// What dig prints without its own remarks, with the lines in order and without times to live.
fn dig(lab: &Lab, args: &[&str]) -> Vec<String> {
    let fixed = ["dig", "+noall", "+answer", "+tries=2", "+time=3"];
    let printed = lab
        .output("west/app", &[&fixed[..], args].concat())
        .expect("dig");
    let without_ttl = |line: &str| {
        let words = line
            .split_whitespace()
            .enumerate()
            .filter(|(index, _)| *index != 1);
        words.map(|(_, word)| word).collect::<Vec<_>>().join(" ")
    };
    let mut lines: Vec<String> = printed.lines().map(without_ttl).collect();
    lines.sort();
    lines
}

/// The header's status and the authority section.
fn dig_status(lab: &Lab, args: &[&str]) -> (String, String) {
    let fixed = [
        "dig",
        "+noall",
        "+comments",
        "+authority",
        "+answer",
        "+tries=2",
        "+time=3",
    ];
    let printed = lab
        .output("west/app", &[&fixed[..], args].concat())
        .expect("dig");
    let status = printed
        .split("status: ")
        .nth(1)
        .and_then(|rest| rest.split(',').next());
    (status.unwrap_or_default().to_owned(), printed)
}

#[test]
fn a_name_outside_the_mesh_gets_the_upstreams_answer_unchanged() {
    let lab = lab("names1");
    for question in [
        &["www.example.com", "A"][..],
        &["www.example.com", "AAAA"],
        &["alias.example.com", "A"],
        &["example.com", "MX"],
        &["example.com", "TXT"],
        &["www.example.com", "A", "+tcp"],
        // More than fits a datagram: asked again over TCP.
        &["long.example.com", "TXT"],
    ] {
        let through = dig(&lab, question);
        let direct = dig(&lab, &[&[UPSTREAM], question].concat());
        assert!(
            !direct.is_empty(),
            "{question:?}: the upstream itself has no answer"
        );
        assert_eq!(through, direct, "{question:?}");
    }
    let (through, _) = dig_status(&lab, &["absent.example.com", "A"]);
    let (direct, _) = dig_status(&lab, &[UPSTREAM, "absent.example.com", "A"]);
    assert_eq!(
        (through.as_str(), direct.as_str()),
        ("NXDOMAIN", "NXDOMAIN")
    );
}

#[test]
fn a_remote_service_has_one_virtual_ip_of_each_family_and_keeps_it() {
    let lab = lab("names2");
    let name = "orders.east.mesh.internal";
    let first = (dig(&lab, &[name, "A"]), dig(&lab, &[name, "AAAA"]));
    assert_eq!(first.0.len(), 1, "{first:?}");
    assert!(first.0[0].contains(" A 198.1"), "{first:?}");
    assert_eq!(first.1.len(), 1, "{first:?}");
    assert!(first.1[0].contains(" AAAA fd74:7572:6e70:"), "{first:?}");
    assert_eq!(dig(&lab, &[name, "A", "+tcp"]), first.0, "over TCP as well");
    // Whatever the case of the letters in the question.
    let mixed = dig(&lab, &["Orders.EAST.mesh.internal", "A"]);
    assert_eq!(mixed[0].to_lowercase(), first.0[0].to_lowercase());
    lab.kill9("west/dns-signal").expect("it runs");
    lab.start("west/dns-signal").expect("it starts again");
    lab.wait_for_name(lab::Network::West, name, scenarios::RECOVERY)
        .expect("it knows the name");
    assert_eq!(
        (dig(&lab, &[name, "A"]), dig(&lab, &[name, "AAAA"])),
        first,
        "after a restart"
    );
}

#[test]
fn an_unknown_service_is_nxdomain_with_soa_and_other_types_are_nodata() {
    let lab = lab("names3");
    for name in ["absent.east.mesh.internal", "orders.absent.mesh.internal"] {
        let (status, printed) = dig_status(&lab, &[name, "A"]);
        assert_eq!(status, "NXDOMAIN", "{name}: {printed}");
        assert!(printed.contains("SOA"), "{name}: {printed}");
    }
    for record in ["HTTPS", "SVCB", "NS", "MX"] {
        let (status, printed) = dig_status(&lab, &["orders.east.mesh.internal", record]);
        assert_eq!(status, "NOERROR", "{record}: {printed}");
        assert!(printed.contains("ANSWER: 0"), "{record}: {printed}");
        assert!(printed.contains("SOA"), "{record}: {printed}");
    }
}

#[test]
fn malformed_questions_are_answered_or_dropped_and_the_next_one_works() {
    let lab = lab("names4");
    // Nothing, half a header, a header that promises a question, a name that points at itself, noise.
    let noise = r"
import os, socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
loop = bytes.fromhex('123401000001000000000000') + b'\xc0\x0c' + bytes.fromhex('00010001')
for m in [b'', b'\x12\x34\x01', bytes.fromhex('123401000001000000000000'), loop,
          b'\xff' * 512] + [os.urandom(n) for n in range(1, 600, 7)]:
    s.sendto(m, ('127.0.0.1', 53))
t = socket.create_connection(('127.0.0.1', 53))
t.sendall(b'\xff\xff' + b'x' * 100)
t.close()
";
    lab.output("west/app", &["python3", "-c", noise])
        .expect("the noise is sent");
    let answers = dig(&lab, &["orders.east.mesh.internal", "A"]);
    assert_eq!(answers.len(), 1, "{answers:?}");
    assert!(
        lab.process("west/dns-signal")
            .expect("known")
            .running()
            .is_some()
    );
}
