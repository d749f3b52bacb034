//! Asks a running proxy: one line of JSON to its Unix socket or its TCP port, one line back.

use crate::failure::Failure;
use serde::Serialize;
use std::io::{BufRead, BufReader, Error, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

/// The proxy answers at once; a reload may take a while. One that does not answer is stuck, and saying so helps more
/// than waiting.
const PATIENCE: Duration = Duration::from_secs(40);
/// Far above a row for each of a hundred thousand sessions.
const LONGEST_ANSWER: u64 = 256 << 20;

/// Where the proxy is asked.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Proxy {
    /// The proxy's admin socket
    #[arg(
        long,
        global = true,
        env = "TDSBOUNCER_ADMIN_SOCKET",
        default_value = "/run/tdsbouncer/admin.sock",
        value_name = "PATH"
    )]
    socket: PathBuf,
    /// The proxy's admin port instead of its socket; needs a token
    #[arg(long, global = true, env = "TDSBOUNCER_ADMIN_ADDRESS", value_name = "HOST:PORT")]
    address: Option<String>,
    /// A file with the token for the port; without it the token is taken from TDSBOUNCER_ADMIN_TOKEN
    #[arg(long, global = true, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

/// A line to the proxy.
#[derive(Debug, Serialize)]
struct Request<'a> {
    r#do: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
}

impl Proxy {
    /// The answer to a command, as it came.
    pub(crate) fn ask(&self, command: &str) -> Result<String, Failure> {
        let token = self.token()?;
        match &self.address {
            Some(address) => {
                let answer = TcpStream::connect(address).and_then(|stream| {
                    stream.set_read_timeout(Some(PATIENCE))?;
                    stream.set_write_timeout(Some(PATIENCE))?;
                    talk(stream, &Request { r#do: command, token })
                });
                answer.map_err(|source| Failure::AdminPort { address: address.clone(), source })
            }
            None => {
                let answer = UnixStream::connect(&self.socket).and_then(|stream| {
                    stream.set_read_timeout(Some(PATIENCE))?;
                    stream.set_write_timeout(Some(PATIENCE))?;
                    talk(stream, &Request { r#do: command, token: None })
                });
                answer.map_err(|source| Failure::AdminSocket { path: self.socket.clone(), source })
            }
        }
    }

    /// Never an argument: everybody can read a command line.
    fn token(&self) -> Result<Option<String>, Failure> {
        match &self.token_file {
            Some(file) => Ok(Some(std::fs::read_to_string(file)?.trim_end().to_owned())),
            None => Ok(std::env::var("TDSBOUNCER_ADMIN_TOKEN").ok()),
        }
    }
}

fn talk(mut stream: impl Read + Write, request: &Request<'_>) -> Result<String, Error> {
    let mut line = serde_json::to_string(request)?;
    line.push('\n');
    stream.write_all(line.as_bytes())?;
    let mut answer = String::new();
    BufReader::new(stream.take(LONGEST_ANSWER)).read_line(&mut answer)?;
    if answer.ends_with('\n') { Ok(answer) } else { Err(Error::from(ErrorKind::UnexpectedEof)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;
    use std::thread;

    fn answering(answer: &'static str) -> (Proxy, tempfile::TempDir, thread::JoinHandle<String>) {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("admin.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let proxy = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = String::new();
            BufReader::new(stream.try_clone().unwrap()).read_line(&mut asked).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
            asked
        });
        (Proxy { socket, address: None, token_file: None }, folder, proxy)
    }

    #[test]
    fn a_question_is_one_line_and_so_is_the_answer() {
        let (asking, _folder, proxy) = answering("{\"columns\":[],\"rows\":[]}\n");
        assert_eq!(asking.ask("SHOW buckets").unwrap(), "{\"columns\":[],\"rows\":[]}\n");
        assert_eq!(proxy.join().unwrap(), "{\"do\":\"SHOW buckets\"}\n");
    }

    #[test]
    fn half_an_answer_is_none() {
        let (asking, _folder, proxy) = answering("{\"columns\":[],");
        let failure = asking.ask("SHOW version").unwrap_err();
        let Failure::AdminSocket { source, .. } = failure else { panic!("{failure}") };
        assert_eq!(source.kind(), ErrorKind::UnexpectedEof);
        proxy.join().unwrap();
    }
}
