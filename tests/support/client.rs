//! A small client of RESP2: blocking, exact, with raw access to the connection.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

/// How long a reply may take.
const REPLY_TIME_MAX: Duration = Duration::from_secs(40);

/// A reply of RESP2.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Reply {
    Simple(String),
    Error(String),
    Integer(i64),
    Bulk(Vec<u8>),
    Null,
    Array(Vec<Reply>),
}

impl Reply {
    pub(crate) fn bulk(text: &str) -> Reply {
        Reply::Bulk(text.into())
    }

    pub(crate) fn ok() -> Reply {
        Reply::Simple("OK".into())
    }

    /// A string or status as text.
    pub(crate) fn text(self) -> String {
        match self {
            Reply::Simple(text) => text,
            Reply::Bulk(bytes) => String::from_utf8(bytes).unwrap(),
            other => panic!("not a text: {other:?}"),
        }
    }

    pub(crate) fn integer(self) -> i64 {
        match self {
            Reply::Integer(number) => number,
            other => panic!("not an integer: {other:?}"),
        }
    }

    pub(crate) fn array(self) -> Vec<Reply> {
        match self {
            Reply::Array(items) => items,
            other => panic!("not an array: {other:?}"),
        }
    }

    /// The value of a field of a map, which RESP2 writes as an array of names and values.
    pub(crate) fn field(&self, name: &str) -> Option<&Reply> {
        let Reply::Array(items) = self else { return None };
        items.chunks_exact(2).find(|pair| pair[0] == Reply::bulk(name)).map(|pair| &pair[1])
    }

    /// The error text, empty if it is none.
    pub(crate) fn error(&self) -> &str {
        match self {
            Reply::Error(text) => text,
            _ => "",
        }
    }
}

/// One connection.
pub(crate) struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    /// A connection to the node on `port` of this machine, which must accept.
    pub(crate) fn connect(port: u16) -> Client {
        Client::try_connect(("127.0.0.1", port)).unwrap()
    }

    pub(crate) fn try_connect(address: impl ToSocketAddrs) -> io::Result<Client> {
        Client::over(TcpStream::connect(address)?, REPLY_TIME_MAX)
    }

    /// A connection for which connecting and each reply may take `time_max`.
    pub(crate) fn connect_within(address: SocketAddr, time_max: Duration) -> io::Result<Client> {
        Client::over(TcpStream::connect_timeout(&address, time_max)?, time_max)
    }

    fn over(stream: TcpStream, reply_time_max: Duration) -> io::Result<Client> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(reply_time_max))?;
        stream.set_write_timeout(Some(reply_time_max))?;
        Ok(Client { stream: BufReader::new(stream) })
    }

    /// Sends a line of words as a command and answers its reply.
    pub(crate) fn run(&mut self, line: &str) -> Reply {
        self.try_run(line).unwrap_or_else(|error| panic!("{line}: {error}"))
    }

    pub(crate) fn try_run(&mut self, line: &str) -> io::Result<Reply> {
        self.try_call(&line.split_whitespace().map(str::as_bytes).collect::<Vec<_>>())
    }

    /// Sends a command whose arguments are any bytes.
    pub(crate) fn call(&mut self, arguments: &[&[u8]]) -> Reply {
        self.try_call(arguments).unwrap()
    }

    fn try_call(&mut self, arguments: &[&[u8]]) -> io::Result<Reply> {
        self.send_raw(&encode(arguments))?;
        self.receive()
    }

    /// Sends every line at once, then reads all replies.
    pub(crate) fn pipeline(&mut self, lines: &[String]) -> Vec<Reply> {
        let words = |line: &String| encode(&line.split_whitespace().map(str::as_bytes).collect::<Vec<_>>());
        self.send_raw(&lines.iter().flat_map(words).collect::<Vec<u8>>()).unwrap();
        lines.iter().map(|_| self.receive().unwrap()).collect()
    }

    pub(crate) fn send_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.get_mut().write_all(bytes)
    }

    /// Everything the server sends until it closes.
    pub(crate) fn rest(mut self) -> io::Result<Vec<u8>> {
        let mut rest = Vec::new();
        // Whoever sends on after an error may be answered by a reset: what came before it is what counts.
        match self.stream.read_to_end(&mut rest) {
            Ok(_) => Ok(rest),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset && !rest.is_empty() => Ok(rest),
            Err(error) => Err(error),
        }
    }

    /// Tells the server that nothing more comes.
    pub(crate) fn finish_sending(&self) {
        // Fails only if the server has hung up already.
        let _ = self.stream.get_ref().shutdown(Shutdown::Write);
    }

    /// Reads one reply.
    pub(crate) fn receive(&mut self) -> io::Result<Reply> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let malformed = || io::Error::other(format!("malformed reply {line:?}"));
        let body = line.strip_suffix("\r\n").ok_or_else(malformed)?;
        let (kind, body) = body.split_at_checked(1).ok_or_else(malformed)?;
        let number = || body.parse::<i64>().map_err(|_| malformed());
        Ok(match kind {
            "+" => Reply::Simple(body.into()),
            "-" => Reply::Error(body.into()),
            ":" => Reply::Integer(number()?),
            "$" | "*" if number()? < 0 => Reply::Null,
            "$" => Reply::Bulk(self.receive_bytes(usize::try_from(number()?).unwrap())?),
            "*" => Reply::Array((0..number()?).map(|_| self.receive()).collect::<io::Result<_>>()?),
            _ => return Err(malformed()),
        })
    }

    fn receive_bytes(&mut self, length: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; length + 2];
        self.stream.read_exact(&mut bytes)?;
        let end = bytes.split_off(length);
        if end == b"\r\n" { Ok(bytes) } else { Err(io::Error::other("a bulk string does not end")) }
    }
}

/// A command on the wire.
pub(crate) fn encode(arguments: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", arguments.len()).into_bytes();
    for argument in arguments {
        bytes.extend(format!("${}\r\n", argument.len()).bytes());
        bytes.extend_from_slice(argument);
        bytes.extend(b"\r\n");
    }
    bytes
}
