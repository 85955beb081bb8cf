//! Questions that are not ours go to the host's resolvers.
use hickory_proto::{
    op::ResponseCode,
    rr::{Name, Record, RecordType},
};
use hickory_resolver::{
    Resolver, TokioResolver,
    config::{NameServerConfig, ResolverConfig},
    net::{DnsError, NetError, runtime::TokioRuntimeProvider},
};
use std::{net::SocketAddr, time::Duration};
use tokio::sync::Semaphore;

/// Questions under way at once for the whole node; one more is answered SERVFAIL (Docker's bound).
pub const MAX_CONCURRENT: usize = 1024;
/// Resolvers asked at most, and how long each is waited for (Docker's).
const MAX_RESOLVERS: usize = 3;
const TIMEOUT: Duration = Duration::from_secs(4);

/// Asks the host's resolvers.
#[derive(Debug)]
pub struct Forwarder {
    resolver: Option<TokioResolver>,
    slots: Semaphore,
}

impl Forwarder {
    /// With the first three of `resolvers`; with none every question is answered SERVFAIL.
    pub fn new(resolvers: &[SocketAddr]) -> Result<Forwarder, NetError> {
        let servers = resolvers.iter().take(MAX_RESOLVERS).map(|at| {
            let mut server = NameServerConfig::udp_and_tcp(at.ip());
            for connection in &mut server.connections {
                connection.port = at.port();
            }
            server
        });
        let config = ResolverConfig::from_parts(None, Vec::new(), servers.collect());
        let resolver = if config.name_servers().is_empty() {
            None
        } else {
            let mut builder =
                Resolver::builder_with_config(config, TokioRuntimeProvider::default());
            let options = builder.options_mut();
            options.timeout = TIMEOUT;
            options.attempts = 1;
            options.ndots = 0;
            options.use_hosts_file = hickory_resolver::config::ResolveHosts::Never;
            Some(builder.build()?)
        };
        Ok(Forwarder { resolver, slots: Semaphore::new(MAX_CONCURRENT) })
    }

    /// The records for a question, or the code to answer with.
    pub async fn ask(&self, name: Name, kind: RecordType) -> Result<Vec<Record>, ResponseCode> {
        let Some(resolver) = &self.resolver else { return Err(ResponseCode::ServFail) };
        let Ok(_slot) = self.slots.try_acquire() else { return Err(ResponseCode::ServFail) };
        match resolver.lookup(name, kind).await {
            Ok(found) => Ok(found.answers().to_vec()),
            Err(NetError::Dns(DnsError::NoRecordsFound(none))) => match none.response_code {
                ResponseCode::NoError => Ok(Vec::new()),
                code => Err(code),
            },
            Err(error) => {
                tracing::debug!(%error, "a resolver of the host did not answer");
                Err(ResponseCode::ServFail)
            }
        }
    }
}
