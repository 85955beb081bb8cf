//! Both ends of "connections per second", as they run in containers.

use anyhow::{Context as _, bail};
use std::{
    io::{ErrorKind, Read as _},
    net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    time::{Duration, Instant},
};

/// Accepts, closes, for ever. Closing first leaves TIME_WAIT here and the client's ports free.
pub(crate) fn accept(port: u16) -> anyhow::Result<()> {
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port))
        .or_else(|_| TcpListener::bind(("0.0.0.0", port)))
        .with_context(|| format!("cannot listen on port {port}"))?;
    for stream in listener.incoming() {
        drop(stream?);
    }
    Ok(())
}

/// Connects, waits for the other end to close, again and again; prints how many a second.
pub(crate) fn connect(to: SocketAddr, seconds: u64) -> anyhow::Result<()> {
    let (start, length) = (Instant::now(), Duration::from_secs(seconds));
    let mut count: u32 = 0;
    while start.elapsed() < length {
        let mut stream = TcpStream::connect(to).with_context(|| format!("after {count}: {to}"))?;
        match stream.read(&mut [0; 1]) {
            Ok(0) => {}
            Ok(_) => bail!("{to} sends something: it is not what accepts and closes"),
            // It was quicker to close than we to read.
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
            Err(error) => return Err(error).with_context(|| format!("after {count}: {to}")),
        }
        count += 1;
    }
    println!("{}", f64::from(count) / start.elapsed().as_secs_f64());
    Ok(())
}
