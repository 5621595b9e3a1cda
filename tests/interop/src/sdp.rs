//! SDP, as a WebRTC peer speaks it, to and from the session descriptions that are signed.

use anyhow::{Context as _, Result, ensure};
use protocol::document::{Answer, Candidate, SessionDescription, candidate::Kind};
use std::fmt::Write as _;
use std::net::SocketAddr;

/// The SCTP port of data channels.
/// [RFC 8841 section 12](https://www.rfc-editor.org/rfc/rfc8841#section-12)
const SCTP_PORT: u16 = 5_000;

/// What an offer in SDP says. Candidates other than UDP are left out.
pub fn description_of(sdp: &str) -> Result<SessionDescription> {
    let fingerprint = attribute(sdp, "fingerprint:sha-256 ")?;
    let fingerprint: Vec<u8> = fingerprint
        .split(':')
        .map(|byte| u8::from_str_radix(byte, 16))
        .collect::<Result<_, _>>()?;
    let candidates = sdp
        .lines()
        .filter_map(|line| line.strip_prefix("a=candidate:"));
    let candidates = candidates.map(candidate).collect::<Result<Vec<_>>>()?;
    Ok(SessionDescription {
        ice_ufrag: attribute(sdp, "ice-ufrag:")?.to_owned(),
        ice_pwd: attribute(sdp, "ice-pwd:")?.to_owned(),
        dtls_fingerprint: fingerprint,
        candidates: candidates.into_iter().flatten().collect(),
        link_version: 1,
        lane: None,
    })
}

/// The answer in SDP: the offerer is the client of DTLS, and messages are at most a frame long.
pub fn answer(offer: &str, answer: &Answer) -> Result<String> {
    let description = answer.description.as_ref().context("no description")?;
    let fingerprint: Vec<_> = description
        .dtls_fingerprint
        .iter()
        .map(|byte| format!("{byte:02X}"))
        .collect();
    let mid = attribute(offer, "mid:")?;
    let mut lines = vec![
        "v=0".to_owned(),
        format!("o=- {} 1 IN IP4 127.0.0.1", answer.link),
        "s=-".to_owned(),
        "t=0 0".to_owned(),
        format!("a=group:BUNDLE {mid}"),
        "m=application 9 UDP/DTLS/SCTP webrtc-datachannel".to_owned(),
        "c=IN IP4 0.0.0.0".to_owned(),
        format!("a=mid:{mid}"),
        format!("a=ice-ufrag:{}", description.ice_ufrag),
        format!("a=ice-pwd:{}", description.ice_pwd),
        format!("a=fingerprint:sha-256 {}", fingerprint.join(":")),
        "a=setup:passive".to_owned(),
        format!("a=sctp-port:{SCTP_PORT}"),
        format!("a=max-message-size:{}", wire::frame::MAX_FRAME_LEN),
    ];
    for (number, candidate) in description.candidates.iter().enumerate() {
        let address: SocketAddr = candidate.address.parse()?;
        let (kind, preference, related) = match candidate.kind() {
            Kind::Relayed => ("relay", 0, " raddr 0.0.0.0 rport 0"),
            Kind::ServerReflexive => ("srflx", 100, " raddr 0.0.0.0 rport 0"),
            Kind::Host | Kind::Unspecified => ("host", 126, ""),
        };
        // RFC 8445 section 5.1.2.1, with the order in which they are listed as the local preference.
        let priority = (preference << 24) + ((65_535 - number as u32) << 8) + 255;
        lines.push(format!(
            "a=candidate:{number} 1 udp {priority} {} {} typ {kind}{related}",
            address.ip(),
            address.port()
        ));
    }
    lines.push("a=end-of-candidates".to_owned());
    Ok(lines.into_iter().fold(String::new(), |mut sdp, line| {
        let _ = write!(sdp, "{line}\r\n");
        sdp
    }))
}

fn attribute<'a>(sdp: &'a str, name: &str) -> Result<&'a str> {
    let mut attributes = sdp.lines().filter_map(|line| line.strip_prefix("a="));
    let value = attributes.find_map(|line| line.strip_prefix(name));
    Ok(value
        .with_context(|| format!("no a={name} in {sdp}"))?
        .trim())
}

/// [RFC 8839 section 5.1](https://www.rfc-editor.org/rfc/rfc8839#section-5.1)
fn candidate(line: &str) -> Result<Option<Candidate>> {
    let fields: Vec<_> = line.split_whitespace().collect();
    ensure!(fields.len() >= 8 && fields[6] == "typ", "candidate {line}");
    let kind = match fields[7] {
        "host" => Kind::Host,
        "srflx" => Kind::ServerReflexive,
        "relay" => Kind::Relayed,
        _ => return Ok(None),
    };
    if !fields[2].eq_ignore_ascii_case("udp") || fields[1] != "1" {
        return Ok(None);
    }
    let ip = fields[4].parse();
    let ip = ip.with_context(|| format!("{} is not an address", fields[4]))?;
    Ok(Some(Candidate {
        kind: kind.into(),
        address: SocketAddr::new(ip, fields[5].parse()?).to_string(),
        priority: 0,
        related_address: String::new(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OFFER: &str = "v=0\r\nm=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\na=mid:0\r\n\
        a=ice-ufrag:user\r\na=ice-pwd:password\r\na=fingerprint:sha-256 0A:FF\r\n\
        a=candidate:1 1 udp 2122194687 10.0.0.10 40000 typ host generation 0\r\n\
        a=candidate:2 1 tcp 1518214911 10.0.0.10 9 typ host tcptype active\r\n\
        a=candidate:3 1 UDP 2122194686 fd00:10::10 40001 typ host\r\n";

    #[test]
    fn an_offer_is_read() -> Result<()> {
        let description = description_of(OFFER)?;
        assert_eq!(description.ice_ufrag, "user");
        assert_eq!(description.ice_pwd, "password");
        assert_eq!(description.dtls_fingerprint, [0x0a, 0xff]);
        let addresses: Vec<_> = description
            .candidates
            .iter()
            .map(|it| &*it.address)
            .collect();
        assert_eq!(addresses, ["10.0.0.10:40000", "[fd00:10::10]:40001"]);
        Ok(())
    }

    #[test]
    fn an_answer_is_written_with_the_names_of_the_offer() -> Result<()> {
        let description = description_of(OFFER)?;
        let said = Answer {
            link: 7,
            description: Some(description.clone()),
            bindings: Vec::new(),
        };
        let sdp = answer(OFFER, &said)?;
        assert!(sdp.contains("\r\na=mid:0\r\n") && sdp.contains("\r\na=setup:passive\r\n"));
        assert_eq!(description_of(&sdp)?, description);
        Ok(())
    }
}
