//! Asks a server for content, over https: the name once, every address of it looked at, and no redirect followed.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::place::Address;
use super::too_large;

/// How long a server may take to be there: resolved, connected, and known by its certificate.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(10);
/// How long it may say nothing.
const IDLE_TIME_MAX: Duration = Duration::from_secs(10);
/// How often a server is asked that has trouble of its own.
const TRIES_MAX: u32 = 3;
/// How long it is left alone after the first time; twice as long after the next.
const PAUSE: Duration = Duration::from_millis(500);

/// Servers.
#[derive(Clone)]
pub(super) struct Server {
    /// Whether this machine itself may be asked, where it is named by its address.
    this_machine: bool,
    /// What proves who a server is, read at the first use.
    authorities: Arc<OnceCell<Arc<ClientConfig>>>,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("this_machine", &self.this_machine)
            .finish_non_exhaustive()
    }
}

/// Why there is no answer.
enum Failure {
    /// It may be otherwise in a moment.
    Passing(String),
    /// It will not.
    Lasting(String),
}

impl Server {
    /// Whatever is public.
    pub(super) fn of_the_public() -> Self {
        Self {
            this_machine: false,
            authorities: Arc::default(),
        }
    }

    /// That, and what names this machine by its loopback address.
    pub(super) fn of_the_public_and_this_machine() -> Self {
        Self {
            this_machine: true,
            ..Self::of_the_public()
        }
    }

    /// The bytes behind an address, or why not, as the rest of a sentence.
    pub(super) async fn get(&self, address: &Address, max_bytes: u64) -> Result<Vec<u8>, String> {
        let mut tries = 1;
        loop {
            match self.try_get(address, max_bytes).await {
                Ok(bytes) => return Ok(bytes),
                Err(Failure::Lasting(why)) => return Err(why),
                Err(Failure::Passing(why)) if tries == TRIES_MAX => {
                    return Err(format!("{why}, {TRIES_MAX} times"));
                }
                Err(Failure::Passing(why)) => {
                    tracing::debug!(host = %address.host, why, "content could not be fetched; it is tried again");
                    tokio::time::sleep(PAUSE * tries).await;
                    tries += 1;
                }
            }
        }
    }

    async fn try_get(&self, address: &Address, max_bytes: u64) -> Result<Vec<u8>, Failure> {
        let mut tasks = JoinSet::new();
        let connecting = self.connect(address, &mut tasks);
        let mut sender = tokio::time::timeout(CONNECT_TIME_MAX, connecting)
            .await
            .unwrap_or_else(|_| {
                Err(Failure::Passing(
                    "is on a server that does not answer".to_owned(),
                ))
            })?;
        let request = request(address)?;
        let answer = tokio::time::timeout(IDLE_TIME_MAX, sender.send_request(request))
            .await
            .map_err(|_| too_slow())?
            .map_err(|error| broken(&error))?;
        refuse_other_than_ok(&answer)?;
        read(answer, max_bytes).await
    }

    /// Connects to an address of the host that may be asked.
    async fn connect(
        &self,
        address: &Address,
        tasks: &mut JoinSet<()>,
    ) -> Result<http1::SendRequest<Empty<Bytes>>, Failure> {
        let stream = connect_to_any(&self.addresses(address).await?).await?;
        let name = match address.ip() {
            Some(ip) => ServerName::from(ip),
            None => ServerName::try_from(address.host.clone())
                .map_err(|_| Failure::Lasting("is on a server without a proper name".to_owned()))?,
        };
        let connector = TlsConnector::from(self.authorities().await?);
        let stream = connector.connect(name, stream).await.map_err(|error| {
            Failure::Lasting(format!(
                "is on a server that cannot prove who it is ({error})"
            ))
        })?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| broken(&error))?;
        tasks.spawn(async move {
            // Whoever waits for the answer is told.
            connection.await.ok();
        });
        Ok(sender)
    }

    /// The addresses of a host, each of which may be asked.
    async fn addresses(&self, address: &Address) -> Result<Vec<SocketAddr>, Failure> {
        if let Some(ip) = address.ip() {
            // The policy has named it: it is the developer's own word where it is the developer's own machine.
            let own = self.this_machine && ip.is_loopback();
            return if own || is_public(ip) {
                Ok(vec![SocketAddr::new(ip, address.port)])
            } else {
                Err(not_public(address))
            };
        }
        let found = tokio::net::lookup_host((address.host.as_str(), address.port)).await;
        let found: Vec<SocketAddr> = found
            .map_err(|_| Failure::Passing("is on a server whose name is not known".to_owned()))?
            .collect();
        // One that is not public among others is no mistake that somebody makes.
        if found.iter().all(|address| is_public(address.ip())) {
            Ok(found)
        } else {
            Err(not_public(address))
        }
    }

    async fn authorities(&self) -> Result<Arc<ClientConfig>, Failure> {
        let read = || async {
            let read = tokio::task::spawn_blocking(rustls_native_certs::load_native_certs);
            let read = read
                .await
                .map_err(|error| Failure::Lasting(error.to_string()))?;
            for error in &read.errors {
                tracing::warn!(%error, "an authority of this machine could not be read");
            }
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(read.certs);
            client(roots)
        };
        self.authorities.get_or_try_init(read).await.cloned()
    }
}

/// A client that trusts these.
fn client(roots: RootCertStore) -> Result<Arc<ClientConfig>, Failure> {
    if roots.is_empty() {
        return Err(Failure::Lasting(
            "cannot be fetched, because this environment knows no certificate authority".to_owned(),
        ));
    }
    let configured = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| Failure::Lasting(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(configured))
}

async fn connect_to_any(addresses: &[SocketAddr]) -> Result<TcpStream, Failure> {
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => {
                tracing::debug!(%address, %error, "a server of content could not be reached");
            }
        }
    }
    Err(Failure::Passing(
        "is on a server that cannot be reached".to_owned(),
    ))
}

/// Nothing of ours is in it: whoever has the address may have the bytes.
fn request(address: &Address) -> Result<Request<Empty<Bytes>>, Failure> {
    let query = address
        .query
        .as_ref()
        .map_or(String::new(), |query| format!("?{query}"));
    Request::get(format!("{}{query}", address.path))
        .header("host", address.authority())
        .header("accept", "*/*")
        // The hash is that of the file.
        .header("accept-encoding", "identity")
        .header("user-agent", "edit-agent")
        .body(Empty::new())
        .map_err(|error| {
            Failure::Lasting(format!("has an address that cannot be asked for ({error})"))
        })
}

fn refuse_other_than_ok(answer: &Response<Incoming>) -> Result<(), Failure> {
    let status = answer.status();
    let said = format!("is answered by {}", status.as_u16());
    if status == StatusCode::OK {
        Ok(())
    } else if status.is_redirection() {
        Err(Failure::Lasting(format!(
            "{said}, a redirect, and none is followed"
        )))
    } else if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
        Err(Failure::Passing(said))
    } else {
        Err(Failure::Lasting(said))
    }
}

async fn read(answer: Response<Incoming>, max_bytes: u64) -> Result<Vec<u8>, Failure> {
    let announced = answer
        .headers()
        .get("content-length")
        .and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|announced| announced > max_bytes) {
        return Err(Failure::Lasting(too_large(max_bytes)));
    }
    let mut body = answer.into_body();
    let mut bytes = Vec::new();
    loop {
        let frame = tokio::time::timeout(IDLE_TIME_MAX, body.frame()).await;
        let Some(frame) = frame.map_err(|_| too_slow())? else {
            return Ok(bytes);
        };
        if let Ok(data) = frame.map_err(|error| broken(&error))?.into_data() {
            if (bytes.len() + data.len()) as u64 > max_bytes {
                return Err(Failure::Lasting(too_large(max_bytes)));
            }
            bytes.extend_from_slice(&data);
        }
    }
}

/// It is not asked again: it has had its time.
fn too_slow() -> Failure {
    Failure::Lasting(format!(
        "is on a server that said nothing for {} s",
        IDLE_TIME_MAX.as_secs()
    ))
}

fn broken(error: &hyper::Error) -> Failure {
    Failure::Passing(format!("is on a server that broke off ({error})"))
}

fn not_public(address: &Address) -> Failure {
    Failure::Lasting(format!(
        "is on {}, which is no address that everybody can reach",
        address.host
    ))
}

/// Whether an address is one that everybody can reach. What is for special use by the registries of the IANA is not, whether
/// or not somebody routes it here.
fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => is_public_v4(ip),
        IpAddr::V6(ip) => is_public_v6(ip),
    }
}

fn is_public_v4(ip: Ipv4Addr) -> bool {
    let [a, b, c, _] = ip.octets();
    !(ip.is_private()
        || ip.is_loopback()
        || ip.is_link_local()
        || ip.is_documentation()
        || matches!(
            (a, b, c),
            // This network, many at once and reserved; shared by carriers; of protocols; 6to4; benchmarks.
            (0 | 224.., _, _)
                | (100, 64..=127, _)
                | (192, 0, 0)
                | (192, 88, 99)
                | (198, 18 | 19, _)
        ))
}

fn is_public_v6(ip: Ipv6Addr) -> bool {
    let segments = ip.segments();
    let embedded = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        is_public_v4(Ipv4Addr::new(a, b, c, d))
    };
    match segments {
        // ::ffff:0:0/96 and 64:ff9b::/96 lead to what they hold.
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
            embedded(high, low)
        }
        // Of protocols (Teredo, ORCHID, benchmarks), documentation, and 6to4.
        [0x2001, 0..=0x1ff | 0xdb8, ..] | [0x2002, ..] | [0x3fff, 0..=0xfff, ..] => false,
        [first, ..] => (0x2000..=0x3fff).contains(&first),
    }
}

#[cfg(test)]
mod tests {
    use super::super::place::Place;
    use super::*;

    #[test]
    fn what_is_not_public_is_not_asked_however_it_is_written() {
        for ip in [
            "169.254.170.2",
            "169.254.169.254",
            "127.0.0.1",
            "127.9.9.9",
            "0.0.0.0",
            "10.0.0.1",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "100.64.0.1",
            "192.0.0.170",
            "192.0.2.1",
            "198.18.0.1",
            "203.0.113.1",
            "224.0.0.1",
            "255.255.255.255",
            "240.0.0.1",
            "::",
            "::1",
            "fe80::1",
            "fec0::1",
            "fd00:ec2::254",
            "fc00::1",
            "ff02::1",
            "::ffff:169.254.170.2",
            "::ffff:127.0.0.1",
            "::169.254.170.2",
            "64:ff9b::a9fe:aa02",
            "64:ff9b:1::1",
            "2002:a9fe:aa02::1",
            "2001::1",
            "2001:db8::1",
            "3fff::1",
            "100::1",
        ] {
            assert!(!is_public(ip.parse().expect("an address")), "{ip}");
        }
        for ip in [
            "1.1.1.1",
            "172.32.0.1",
            "100.128.0.1",
            "198.20.0.1",
            "223.255.255.255",
            "2606:4700::1111",
            "::ffff:1.1.1.1",
            "64:ff9b::101:101",
        ] {
            assert!(is_public(ip.parse().expect("an address")), "{ip}");
        }
    }

    #[tokio::test]
    async fn neither_a_name_nor_a_number_leads_to_this_machine() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let ask = async |server: &Server, host: &str| {
            let Ok(Place::Server(address)) = Place::read(&format!("https://{host}:{port}/a.jpg"))
            else {
                panic!("{host}");
            };
            server.get(&address, 10).await.expect_err("not public")
        };
        let public = Server::of_the_public();
        // getaddrinfo takes the numbers for addresses.
        for host in [
            "127.0.0.1",
            "localhost",
            "127.1",
            "2130706433",
            "0x7f000001",
            "[::1]",
            "[::ffff:127.0.0.1]",
            "0.0.0.0",
        ] {
            let why = ask(&public, host).await;
            assert!(
                why.contains("no address that everybody can reach") || why.contains("not known"),
                "{host}: {why}"
            );
        }
        let laptop = Server::of_the_public_and_this_machine();
        for host in ["localhost", "169.254.170.2", "10.0.0.1", "0.0.0.0"] {
            let why = ask(&laptop, host).await;
            assert!(
                why.contains("no address that everybody can reach") || why.contains("not known"),
                "{host}: {why}"
            );
        }
        let nobody = tokio::time::timeout(Duration::ZERO, listener.accept()).await;
        assert!(nobody.is_err(), "somebody connected");
    }
}
