//! A connection to a host by its name or its address. Names are looked up on a thread of the runtime's.

use std::io;
use std::net::SocketAddr;

use tokio::net::{TcpStream, lookup_host};

use crate::model::Endpoint;

/// Connects to the first address of that host that is permitted and answers; the error is that of the last one.
pub(crate) async fn connect_to(
    endpoint: &Endpoint,
    permitted: impl Fn(SocketAddr) -> io::Result<()>,
) -> io::Result<(TcpStream, SocketAddr)> {
    let mut failed = io::Error::new(io::ErrorKind::NotFound, format!("{endpoint} has no address"));
    for address in addresses(endpoint).await? {
        let connected = match permitted(address) {
            Ok(()) => TcpStream::connect(address).await,
            Err(error) => Err(error),
        };
        match connected {
            Ok(stream) => return Ok((stream, address)),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

async fn addresses(endpoint: &Endpoint) -> io::Result<Vec<SocketAddr>> {
    if let Some(address) = endpoint.address() {
        return Ok(vec![address]);
    }
    let found = lookup_host(endpoint.to_string()).await.map_err(|error| {
        io::Error::new(error.kind(), format!("the host of {endpoint} is not known ({error}): check its name"))
    })?;
    Ok(found.collect())
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[actix_rt::test]
    async fn what_a_name_stands_for_is_dialled_only_where_that_is_permitted() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let endpoint: Endpoint = format!("localhost:{}", listener.local_addr().unwrap().port()).parse().unwrap();
        let asked = Mutex::new(Vec::new());
        let refused = connect_to(&endpoint, |address| {
            asked.lock().unwrap().push(address);
            Err(io::Error::other("it is not on this machine"))
        });
        assert_eq!(refused.await.unwrap_err().to_string(), "it is not on this machine");
        assert!(asked.lock().unwrap().iter().any(|address| Some(*address) == listener.local_addr().ok()));
        assert_eq!(listener.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock, "nobody came");
        connect_to(&endpoint, |_| Ok(())).await.unwrap();
        listener.accept().unwrap();
    }
}
