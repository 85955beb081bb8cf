//! The server in each container's network namespace.
//!
//! One task per container listens on UDP and TCP; it ends when its [`Served`] is dropped. All share
//! one [`Names`], whose table is replaced whole.
use crate::{
    forward::Forwarder,
    table::{Answer, NameTable},
};
use hickory_proto::{
    op::{MessageType, OpCode, ResponseCode},
    rr::{
        Name, RData, Record, RecordType,
        rdata::{A, AAAA, PTR},
    },
};
use hickory_server::{
    Server,
    net::runtime::Time,
    server::{Request, RequestHandler, ResponseHandler, ResponseInfo},
    zone_handler::MessageResponseBuilder,
};
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4},
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

/// Where containers ask, as in Docker.
pub const NAME_SERVER: SocketAddr =
    SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::new(127, 0, 0, 11), 53));
/// An idle TCP connection is closed after this.
const TCP_IDLE: Duration = Duration::from_secs(5);
/// Answers waiting to be written to one TCP connection.
const TCP_BUFFER: usize = 32;
/// Addresses in one answer: what fits into 512 bytes of UDP with room for the name.
const MAX_ADDRESSES: usize = 16;

/// What all servers of a node share.
#[derive(Debug)]
pub struct Names {
    table: RwLock<Arc<NameTable>>,
    forwarder: RwLock<Arc<Forwarder>>,
    questions: AtomicU64,
    forwarded: AtomicU64,
}

impl Names {
    /// An empty table; questions for other names go to `forwarder`.
    pub fn new(forwarder: Forwarder) -> Names {
        Names {
            table: RwLock::default(),
            forwarder: RwLock::new(Arc::new(forwarder)),
            questions: AtomicU64::new(0),
            forwarded: AtomicU64::new(0),
        }
    }

    /// Replaces the table.
    pub fn set(&self, table: NameTable) {
        *self.table.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(table);
    }

    /// Replaces who is asked for other names; questions under way end with the old one.
    pub fn set_forwarder(&self, forwarder: Forwarder) {
        *self.forwarder.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(forwarder);
    }

    /// Questions answered and, of those, passed on to the host's resolvers.
    pub fn counts(&self) -> (u64, u64) {
        (self.questions.load(Relaxed), self.forwarded.load(Relaxed))
    }

    fn forwarder(&self) -> Arc<Forwarder> {
        Arc::clone(&self.forwarder.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn table(&self) -> Arc<NameTable> {
        Arc::clone(&self.table.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Why a container's name server could not be started.
#[derive(Debug, thiserror::Error)]
pub enum NameServerError {
    /// The sockets, opened in the container's namespace, were not usable.
    #[error("cannot serve names on a socket of the container")]
    Socket(#[source] std::io::Error),
}

/// Answers one container.
#[derive(Debug)]
pub struct NameServer {
    names: Arc<Names>,
    networks: Vec<String>,
    turn: AtomicUsize,
}

/// A running server; dropping it ends it and closes its sockets.
#[derive(Debug)]
pub struct Served(tokio::task::JoinHandle<()>);

impl Drop for Served {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl NameServer {
    /// For a container attached to `networks` (ids, in order of preference).
    pub fn new(names: Arc<Names>, networks: Vec<String>) -> NameServer {
        NameServer { names, networks, turn: AtomicUsize::new(0) }
    }

    /// Serves on sockets that were opened in the container's namespace.
    pub fn serve(
        self,
        udp: std::net::UdpSocket,
        tcp: std::net::TcpListener,
    ) -> Result<Served, NameServerError> {
        let start = || -> std::io::Result<_> {
            udp.set_nonblocking(true)?;
            tcp.set_nonblocking(true)?;
            Ok((tokio::net::UdpSocket::from_std(udp)?, tokio::net::TcpListener::from_std(tcp)?))
        };
        let (udp, tcp) = start().map_err(NameServerError::Socket)?;
        let mut server = Server::new(self);
        server.register_socket(udp);
        server.register_listener(tcp, TCP_IDLE, TCP_BUFFER);
        Ok(Served(tokio::spawn(async move {
            if let Err(error) = server.block_until_done().await {
                tracing::warn!(%error, "the name server of a container ended");
            }
        })))
    }

    async fn answer(&self, name: &Name, kind: RecordType) -> Result<Vec<Record>, ResponseCode> {
        let text = name.to_ascii();
        let text = text.strip_suffix('.').unwrap_or(&text);
        let table = self.names.table();
        let found = match (kind, reverse(name)) {
            (RecordType::A | RecordType::AAAA, _) => {
                table.addresses(&self.networks, text, kind == RecordType::AAAA)
            }
            (RecordType::PTR, Some(address)) => table.name(&self.networks, address),
            // A name of ours has addresses only; every other type is NODATA.
            _ => match table.addresses(&self.networks, text, false) {
                Answer::Addresses { ttl, .. } => Answer::Addresses { addresses: vec![], ttl },
                other => other,
            },
        };
        match found {
            Answer::Addresses { addresses, ttl } => Ok(self.records(name, addresses, ttl)),
            Answer::Name(target) => {
                let target = Name::from_ascii(format!("{target}."));
                let target = target.map_err(|_| ResponseCode::ServFail)?;
                let data = RData::PTR(PTR(target));
                Ok(vec![Record::from_rdata(name.clone(), crate::TASK_TTL, data)])
            }
            Answer::NotFound => Err(ResponseCode::NXDomain),
            Answer::Elsewhere => {
                self.names.forwarded.fetch_add(1, Relaxed);
                self.names.forwarder().ask(name.clone(), kind).await
            }
        }
    }

    /// Starts one further each time, so that clients which take the first address spread.
    fn records(&self, name: &Name, mut addresses: Vec<IpAddr>, ttl: u32) -> Vec<Record> {
        if addresses.len() > 1 {
            let turn = self.turn.fetch_add(1, Relaxed) % addresses.len();
            addresses.rotate_left(turn);
        }
        let data = |address| match address {
            IpAddr::V4(a) => RData::A(A(a)),
            IpAddr::V6(a) => RData::AAAA(AAAA(a)),
        };
        let addresses = addresses.into_iter().take(MAX_ADDRESSES);
        addresses.map(|a| Record::from_rdata(name.clone(), ttl, data(a))).collect()
    }
}

/// The address a name under in-addr.arpa or ip6.arpa stands for.
fn reverse(name: &Name) -> Option<IpAddr> {
    name.parse_arpa_name().ok().map(|net| net.addr())
}

#[async_trait::async_trait]
impl RequestHandler for NameServer {
    async fn handle_request<R: ResponseHandler, T: Time>(
        &self,
        request: &Request,
        mut responses: R,
    ) -> ResponseInfo {
        self.names.questions.fetch_add(1, Relaxed);
        let asked = match request.request_info() {
            Ok(info)
                if info.metadata.op_code == OpCode::Query
                    && info.metadata.message_type == MessageType::Query =>
            {
                Ok((Name::from(info.query.name()), info.query.query_type()))
            }
            Ok(_) => Err(ResponseCode::NotImp),
            Err(_) => Err(ResponseCode::FormErr),
        };
        let result = match asked {
            Ok((name, kind)) => self.answer(&name, kind).await,
            Err(code) => Err(code),
        };
        let builder = MessageResponseBuilder::from_message_request(request);
        let (code, records) = match result {
            Ok(records) => (ResponseCode::NoError, records),
            Err(code) => (code, Vec::new()),
        };
        let mut metadata = request.metadata;
        metadata.message_type = MessageType::Response;
        metadata.response_code = code;
        metadata.recursion_available = true;
        metadata.authoritative = false;
        let response = builder.build(metadata, &records, [], [], []);
        match responses.send_response(response).await {
            Ok(info) => info,
            Err(error) => {
                tracing::debug!(%error, "an answer could not be sent");
                hickory_proto::op::Header {
                    metadata,
                    counts: hickory_proto::op::HeaderCounts::default(),
                }
                .into()
            }
        }
    }
}
