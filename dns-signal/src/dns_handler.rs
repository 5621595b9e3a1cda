//! One query, from its bytes to the bytes of its answer.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dns_signal_proto::agent::Destination;
use dns_signal_proto::answer::{self, udp_limit};
use dns_signal_proto::cache::Cache;
use dns_signal_proto::query::{self, Query};
use dns_signal_proto::repeated::Found;
use net::Clock;

use crate::dns_resolver::{Resolution, Resolver};
use crate::upstream::{Transport, Upstreams};

/// The largest message over TCP: its length is 16 bits.
const MAX_TCP_MESSAGE: usize = 65_535;

/// What becomes of a query at once, without waiting.
#[derive(Debug)]
pub(crate) enum Handled {
    Reply {
        answer: Vec<u8>,
        /// The same query has the same answer as long as the view stands, and asks for the link to this.
        standing: Option<Destination>,
    },
    Forward(Query),
    Dropped,
}

/// What all listeners share.
#[derive(Clone, Debug)]
pub(crate) struct Handler {
    pub(crate) resolver: Arc<Resolver>,
    pub(crate) upstreams: Arc<Upstreams>,
    pub(crate) ttl: Duration,
    pub(crate) clock: Clock,
    pub(crate) cache: Arc<Mutex<Cache>>,
}

impl Handler {
    fn cache(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn handle(&self, message: &[u8], transport: Transport) -> Handled {
        let stats = self.resolver.stats();
        match transport {
            Transport::Udp => stats.udp.count(),
            Transport::Tcp => stats.tcp.count(),
        }
        let query = match query::decode(message) {
            Ok(query) => query,
            Err(malformed) => return self.malformed(message, malformed),
        };
        let now = self.clock.now();
        let reply = match self.resolver.resolve(&query.question, now) {
            Resolution::Forward => {
                let Some(answer) = self.cache().find(message, now) else {
                    return Handled::Forward(query);
                };
                stats.cached.count();
                return Handled::Reply {
                    answer: fit(transport, message, answer),
                    standing: None,
                };
            }
            Resolution::Reply(reply) => reply,
        };
        let edns = match query::decode_edns(message) {
            Ok(edns) => edns,
            Err(malformed) => return self.malformed(message, malformed),
        };
        let limit = match transport {
            Transport::Udp => udp_limit(edns),
            Transport::Tcp => MAX_TCP_MESSAGE,
        };
        let standing = self.resolver.standing(&query.question, &reply);
        let answer = answer::encode(&query, edns, &reply, self.ttl, limit);
        Handled::Reply { answer, standing }
    }

    /// Counts an answer that is given again, and asks for its link if that is due.
    pub(crate) fn on_repeated(&self, found: &Found<'_>) {
        let stats = self.resolver.stats();
        stats.udp.count();
        stats.remote.count();
        if let Some(destination) = found.wanted {
            self.resolver.trigger(destination.clone(), self.clock.now());
        }
    }

    fn malformed(&self, message: &[u8], malformed: query::Malformed) -> Handled {
        let stats = self.resolver.stats();
        match answer::encode_malformed(message, malformed) {
            Some(answer) => {
                stats.malformed.count();
                Handled::Reply {
                    answer,
                    standing: None,
                }
            }
            None => {
                stats.unanswerable.count();
                Handled::Dropped
            }
        }
    }

    /// The answer of an upstream, or SERVFAIL.
    pub(crate) async fn forward(
        &self,
        message: &[u8],
        query: &Query,
        transport: Transport,
    ) -> Vec<u8> {
        let stats = self.resolver.stats();
        let Some(_permit) = self.upstreams.admit() else {
            stats.forward_limit.count();
            return answer::encode_failure(message, query);
        };
        match self.upstreams.forward(message, query, transport).await {
            Ok(answer) => {
                stats.forwarded.count();
                self.cache().keep(message, &answer, self.clock.now());
                fit(transport, message, answer)
            }
            Err(error) => {
                stats.upstream_failed.count();
                tracing::debug!(%error, "query failed");
                answer::encode_failure(message, query)
            }
        }
    }
}

/// What came over a stream, now or when it was kept, may be more than the client takes.
fn fit(transport: Transport, message: &[u8], answer: Vec<u8>) -> Vec<u8> {
    match transport {
        Transport::Udp => answer::fit(message, answer),
        Transport::Tcp => answer,
    }
}
