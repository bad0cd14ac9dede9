//! HTTP connections: TLS with the system's certificates, and plain HTTP through a forward proxy.

use std::fmt;
use std::io::{Read, Write};
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use ureq::unversioned::transport::{
    Buffers, ConnectProxyConnector, ConnectionDetails, Connector, Either, LazyBuffers, NextTimeout, RustlsConnector,
    TcpConnector, Transport, TransportAdapter,
};

type Result<T> = std::result::Result<T, ureq::Error>;

/// Connects by TCP, or through a tunnel of the configured proxy. TLS uses the configuration `tls`; if it is `None`, the
/// default of the HTTP client. With an `origin` such as `http://example.org:8080`, requests go to a forward proxy.
pub(super) fn connector(tls: Option<Arc<ClientConfig>>, origin: Option<String>) -> impl Connector<()> {
    let connected = ().chain(ConnectProxyConnector::default()).chain(TcpConnector::default());
    connected.chain(TlsConnector(tls)).chain(RustlsConnector::default()).chain(ForwardProxyConnector(origin))
}

/// Adds TLS if the URL requires it.
struct TlsConnector(Option<Arc<ClientConfig>>);

impl<In: Transport> Connector<In> for TlsConnector {
    type Out = Either<In, TlsTransport>;

    fn connect(&self, details: &ConnectionDetails<'_>, chained: Option<In>) -> Result<Option<Self::Out>> {
        let Some(transport) = chained else { return Ok(None) };
        let config = self.0.clone().filter(|_| details.needs_tls() && !transport.is_tls());
        let Some(config) = config else { return Ok(Some(Either::A(transport))) };
        let host = details.uri.host().unwrap_or_default().trim_matches(['[', ']']).to_string();
        let name =
            ServerName::try_from(host).map_err(|_| ureq::Error::Tls("the host name is not valid in a certificate"))?;
        let mut connection = ClientConnection::new(config, name)?;
        let transport: Box<dyn Transport> = Box::new(transport);
        let mut socket = TransportAdapter::new(transport, details.current_time.clone());
        socket.set_timeout(details.timeout);
        connection.complete_io(&mut socket)?;
        let buffers = LazyBuffers::new(details.config.input_buffer_size(), details.config.output_buffer_size());
        Ok(Some(Either::B(TlsTransport { buffers, stream: StreamOwned::new(connection, socket) })))
    }
}

impl fmt::Debug for TlsConnector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsConnector")
    }
}

/// A TLS connection.
struct TlsTransport {
    buffers: LazyBuffers,
    stream: StreamOwned<ClientConnection, TransportAdapter>,
}

impl Transport for TlsTransport {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<()> {
        self.stream.sock.set_timeout(timeout);
        self.stream.write_all(&self.buffers.output()[..amount])?;
        Ok(())
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool> {
        self.stream.sock.set_timeout(timeout);
        let read = self.stream.read(self.buffers.input_append_buf())?;
        self.buffers.input_appended(read);
        Ok(read > 0)
    }

    fn is_open(&mut self) -> bool {
        self.stream.sock.get_mut().is_open()
    }

    fn is_tls(&self) -> bool {
        true
    }
}

impl fmt::Debug for TlsTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsTransport")
    }
}

/// Writes absolute URLs for forward proxies: `POST http://example.org/path HTTP/1.1` instead of `POST /path HTTP/1.1`.
#[derive(Debug)]
struct ForwardProxyConnector(Option<String>);

impl<In: Transport> Connector<In> for ForwardProxyConnector {
    type Out = Either<In, ForwardProxyTransport<In>>;

    fn connect(&self, _: &ConnectionDetails<'_>, chained: Option<In>) -> Result<Option<Self::Out>> {
        Ok(chained.map(|transport| match &self.0 {
            Some(origin) => Either::B(ForwardProxyTransport { transport, origin: origin.clone(), is_head: true }),
            None => Either::A(transport),
        }))
    }
}

#[derive(Debug)]
struct ForwardProxyTransport<In> {
    transport: In,
    origin: String,
    /// Whether the next output begins a request.
    is_head: bool,
}

impl<In: Transport> Transport for ForwardProxyTransport<In> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.transport.buffers()
    }

    fn transmit_output(&mut self, mut amount: usize, timeout: NextTimeout) -> Result<()> {
        if std::mem::take(&mut self.is_head) {
            let (output, added) = (self.transport.buffers().output(), self.origin.len());
            let method = output[..amount].iter().position(|byte| *byte == b' ');
            let Some(target) = method.map(|end| end + 1).filter(|_| amount + added <= output.len()) else {
                return Err(ureq::Error::LargeResponseHeader(amount + added, output.len()));
            };
            output.copy_within(target..amount, target + added);
            output[target..target + added].copy_from_slice(self.origin.as_bytes());
            amount += added;
        }
        self.transport.transmit_output(amount, timeout)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool> {
        self.is_head = true;
        self.transport.await_input(timeout)
    }

    fn is_open(&mut self) -> bool {
        self.transport.is_open()
    }

    fn is_tls(&self) -> bool {
        self.transport.is_tls()
    }
}
