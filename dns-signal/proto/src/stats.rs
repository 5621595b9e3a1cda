//! What the DNS side counts. Written by several tasks, read by the metrics.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that only rises.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// One more.
    pub fn count(&self) {
        self.add(1);
    }

    /// So many more; returns how many there were before.
    pub fn add(&self, more: u64) -> u64 {
        self.0.fetch_add(more, Ordering::Relaxed)
    }

    /// How many so far.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Counters of DNS queries. Every query is counted once by transport, and once by what became of it.
#[derive(Debug, Default)]
pub struct DnsStats {
    /// Messages that came over UDP.
    pub udp: Counter,
    /// Messages that came over TCP.
    pub tcp: Counter,

    /// Answered with virtual IPs.
    pub remote: Counter,
    /// Answered with the name of a virtual IP.
    pub pointer: Counter,
    /// NODATA, and the SOA itself.
    pub no_data: Counter,
    /// NXDOMAIN under our suffix.
    pub no_such_name: Counter,
    /// SERVFAIL: the directory has not been seen yet.
    pub directory_unknown: Counter,
    /// SERVFAIL: no virtual IP is free.
    pub pool_exhausted: Counter,
    /// SERVFAIL: as many names of a wildcard, or of all, have a virtual IP as may.
    pub wildcard_full: Counter,
    /// REFUSED.
    pub refused: Counter,
    /// FORMERR, NOTIMP or BADVERS.
    pub malformed: Counter,
    /// Dropped: too short, or a response.
    pub unanswerable: Counter,
    /// Answered by an upstream, and the answer passed on.
    pub forwarded: Counter,
    /// Answered with what an upstream said before.
    pub cached: Counter,
    /// SERVFAIL: no upstream answered.
    pub upstream_failed: Counter,
    /// SERVFAIL: as many queries as allowed were waiting for upstreams.
    pub forward_limit: Counter,

    /// Upstream attempts without an answer in time.
    pub upstream_timeouts: Counter,
    /// Datagrams from an upstream that answered something else: late, or forged.
    pub upstream_mismatches: Counter,
    /// Encrypted connections to upstreams that were made.
    pub upstream_connections: Counter,
    /// Encrypted connections that could not be made, and queries that an encrypted upstream answered with something
    /// else than DNS.
    pub upstream_unreachable: Counter,
    /// Encrypted connections given up because the upstream's certificate is not believed.
    pub upstream_untrusted: Counter,
    /// Queries whose encrypted connection ended before the answer.
    pub upstream_lost: Counter,
    /// TCP connections refused: as many as allowed were open.
    pub tcp_limit: Counter,
    /// Answers that the kernel did not take.
    pub send_failed: Counter,
    /// Triggers to open a link that were lost because the event loop was busy; the next query or packet repeats them.
    pub wanted_lost: Counter,
}
