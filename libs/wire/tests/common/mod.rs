//! Packets built the slow way: every checksum is computed whole, by code that shares nothing with the crate.
#![allow(dead_code, unreachable_pub)]

use std::net::IpAddr;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Tcp,
    Udp,
    UdpWithoutChecksum,
    Echo,
    Error,
}

#[derive(Debug, Clone)]
pub struct Spec {
    pub src: IpAddr,
    pub dst: IpAddr,
    pub kind: Kind,
    pub partial: bool,
    pub fragment: (u16, bool),
    pub extension: bool,
    pub payload: Vec<u8>,
    /// The packet that an error quotes, and how many bytes of it.
    pub quoted: Option<(Box<Self>, usize)>,
}

pub fn spec(src: &str, dst: &str, kind: Kind, payload: &[u8]) -> Spec {
    Spec {
        src: src.parse().unwrap(),
        dst: dst.parse().unwrap(),
        kind,
        partial: false,
        fragment: (0, false),
        extension: false,
        payload: payload.to_vec(),
        quoted: None,
    }
}

fn ones_complement(mut sum: u128) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

fn words(bytes: &[u8]) -> u128 {
    bytes
        .chunks(2)
        .map(|c| u128::from(c[0]) * 256 + u128::from(*c.get(1).unwrap_or(&0)))
        .sum()
}

pub fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

impl Spec {
    fn is_v4(&self) -> bool {
        self.src.is_ipv4()
    }

    fn number(&self) -> u8 {
        match (self.kind, self.is_v4()) {
            (Kind::Tcp, _) => 6,
            (Kind::Udp | Kind::UdpWithoutChecksum, _) => 17,
            (_, true) => 1,
            (_, false) => 58,
        }
    }

    fn segment(&self) -> Vec<u8> {
        let mut s = match self.kind {
            Kind::Tcp => {
                let mut s = vec![0x1f, 0x90, 0xc3, 0x50, 1, 2, 3, 4, 5, 6, 7, 8, 0x60, 0x18];
                s.extend([0xff, 0xff, 0, 0, 0, 0, 2, 4, 5, 0xb4]);
                s
            }
            Kind::Udp | Kind::UdpWithoutChecksum => {
                let len = (8 + self.payload.len()) as u16;
                let mut s = vec![0x23, 0x28, 0x00, 0x35];
                s.extend(len.to_be_bytes());
                s.extend([0, 0]);
                s
            }
            Kind::Echo => vec![
                if self.is_v4() { 8 } else { 128 },
                0,
                0,
                0,
                0xab,
                0xcd,
                0,
                7,
            ],
            Kind::Error => vec![if self.is_v4() { 3 } else { 1 }, 1, 0, 0, 0, 0, 0, 0],
        };
        match &self.quoted {
            Some((quoted, len)) => {
                let quoted = quoted.build();
                s.extend(&quoted[..quoted.len().min(*len)]);
            }
            None => s.extend(&self.payload),
        }
        let field = match self.kind {
            Kind::Tcp => 16,
            Kind::Udp => 6,
            Kind::UdpWithoutChecksum => return s,
            Kind::Echo | Kind::Error => 2,
        };
        let pseudo = words(&octets(self.src))
            + words(&octets(self.dst))
            + u128::from(self.number())
            + s.len() as u128;
        let pseudo = if self.number() == 1 { 0 } else { pseudo };
        let mut value = if self.partial {
            ones_complement(pseudo)
        } else {
            !ones_complement(pseudo + words(&s))
        };
        if self.kind == Kind::Udp && !self.partial && value == 0 {
            value = 0xffff;
        }
        s[field..field + 2].copy_from_slice(&value.to_be_bytes());
        s
    }

    pub fn build(&self) -> Vec<u8> {
        let mut segment = self.segment();
        let (offset, more) = self.fragment;
        if offset > 0 {
            segment = self.payload.clone();
        }
        if self.is_v4() {
            let options: &[u8] = if self.extension { &[1, 1, 1, 0] } else { &[] };
            let mut p = vec![0x45 + (options.len() / 4) as u8, 0];
            p.extend(((20 + options.len() + segment.len()) as u16).to_be_bytes());
            p.extend([0x12, 0x34]);
            p.extend((offset | if more { 0x2000 } else { 0 }).to_be_bytes());
            p.extend([61, self.number(), 0, 0]);
            p.extend(octets(self.src));
            p.extend(octets(self.dst));
            p.extend(options);
            let checksum = !ones_complement(words(&p));
            p[10..12].copy_from_slice(&checksum.to_be_bytes());
            p.extend(segment);
            return p;
        }
        let mut extensions = Vec::new();
        let mut next = self.number();
        if offset > 0 || more {
            extensions.extend([next, 0]);
            extensions.extend((offset << 3 | u16::from(more)).to_be_bytes());
            extensions.extend([9, 9, 9, 9]);
            next = 44;
        }
        if self.extension {
            let mut before = vec![next, 0, 1, 4, 0, 0, 0, 0];
            before.extend(extensions);
            extensions = before;
            next = 0;
        }
        let mut p = vec![0x60, 1, 2, 3];
        p.extend(((extensions.len() + segment.len()) as u16).to_be_bytes());
        p.extend([next, 61]);
        p.extend(octets(self.src));
        p.extend(octets(self.dst));
        p.extend(extensions);
        p.extend(segment);
        p
    }
}
