//! What a stand-in server can be told before it starts.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::fault::Fault;

/// Everything about one stand-in server. `SimOptions::default()` is a SQL Server 2022 on a free loopback port with
/// the login `sa`, the databases `master` and `tempdb`, and TLS for the login.
#[derive(Clone, Debug)]
pub struct SimOptions {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// `@@SERVERNAME`, and the server name in ERROR and INFO tokens.
    pub name: String,
    /// Which product's behaviour is imitated.
    pub kind: ServerKind,
    /// What PRELOGIN answers about encryption.
    pub encryption: Encryption,
    /// The server's certificate.
    pub certificate: Certificate,
    /// SQL logins.
    pub users: Vec<User>,
    /// Databases that exist at the start, besides `master` and `tempdb`.
    pub databases: Vec<String>,
    /// What an integrated (SSPI) login gets.
    pub integrated: Integrated,
    /// What a federated (FEDAUTH) login gets.
    pub federated: Federated,
    /// `user connections`: more open connections than this get error 17809. Counted from accept to close.
    pub max_connections: usize,
    /// Bytes that one logged-in connection costs the server.
    pub memory_per_connection: u64,
    /// Bytes that all connections together may cost; a login beyond that gets error 701. `None`: unlimited.
    pub memory_total: Option<u64>,
    /// How long the server thinks about each login.
    pub login_delay: Duration,
    /// A connection that has not logged in after this long is closed.
    pub login_timeout: Duration,
    /// Every successful login is routed there (ENVCHANGE 20).
    pub routing: Option<Route>,
    /// The largest packet size that a login can negotiate, in bytes: 512 to 32767.
    pub max_packet_size: usize,
    /// The packet size for logins that leave it to the server, in bytes.
    pub default_packet_size: usize,
    /// The longest request that the server holds in memory, in bytes. Bulk load is not bound by it.
    pub max_request: usize,
    /// Which LOGIN7 features are acknowledged.
    pub features: Features,
    /// What goes wrong from the start, for everybody and until it is cleared: together, another kind of server.
    pub faults: Vec<Fault>,
    /// Threads of the server's own runtime.
    pub worker_threads: usize,
}

impl Default for SimOptions {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            name: "sim".to_owned(),
            kind: ServerKind::SqlServer2022,
            encryption: Encryption::Off,
            certificate: Certificate::SelfSigned,
            users: vec![User::new("sa", "Sim-passw0rd")],
            databases: Vec::new(),
            integrated: Integrated::Refuse,
            federated: Federated::Refuse,
            max_connections: 32_767,
            memory_per_connection: 5 << 20,
            memory_total: None,
            login_delay: Duration::ZERO,
            login_timeout: Duration::from_secs(15),
            routing: None,
            max_packet_size: 32_767,
            default_packet_size: 4096,
            max_request: 256 << 20,
            features: Features::default(),
            faults: Vec::new(),
            worker_threads: 4,
        }
    }
}

/// A product whose wire behaviour is imitated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ServerKind {
    /// SQL Server 2022: TDS 7.0 to 8.0, all features.
    SqlServer2022,
    /// SQL Server 2012: TDS up to 7.4, of the features only session recovery.
    SqlServer2012,
    /// SQL Server 2008 R2: TDS up to 7.3B.
    SqlServer2008R2,
    /// SQL Server 2000: TDS up to 7.1.
    SqlServer2000,
    /// Babelfish for Aurora PostgreSQL 4.4, with the differences that README.md lists.
    Babelfish,
}

/// What the server says about encryption ([MS-TDS] 2.2.6.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encryption {
    /// ENCRYPT_NOT_SUP: no certificate, everything in the clear.
    NotSupported,
    /// ENCRYPT_OFF: TLS for the login, or for everything when the client asks. SQL Server's default.
    Off,
    /// ENCRYPT_ON ("force encryption"): everything encrypted; a client that cannot is refused.
    On,
    /// TDS 8.0 only ("force strict encryption").
    Strict,
}

/// Where the certificate comes from.
#[derive(Clone, Debug)]
pub enum Certificate {
    /// A new one for `localhost`, `127.0.0.1` and the server's name, made at the start.
    SelfSigned,
    /// PEM files.
    Files {
        /// The certificate chain.
        chain: PathBuf,
        /// The private key.
        key: PathBuf,
    },
}

/// A SQL login.
#[derive(Clone)]
pub struct User {
    /// The login name; compared without regard to case.
    pub name: String,
    /// The password; compared exactly.
    pub password: String,
    /// The database of a login that names none.
    pub database: String,
}

impl User {
    /// A login whose default database is `master`.
    pub fn new(name: impl Into<String>, password: impl Into<String>) -> Self {
        Self { name: name.into(), password: password.into(), database: "master".to_owned() }
    }
}

impl std::fmt::Debug for User {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("User")
            .field("name", &self.name)
            .field("database", &self.database)
            .finish_non_exhaustive()
    }
}

/// What an integrated (SSPI) login gets ([MS-TDS] 3.3.5.6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Integrated {
    /// Error 18452.
    Refuse,
    /// A make-believe negotiation: the server answers any first token with `challenge` and accepts exactly the token
    /// `response`; the login is then `user`.
    Challenge {
        /// The SSPI token the server sends.
        challenge: Vec<u8>,
        /// The SSPI message that it wants back.
        response: Vec<u8>,
        /// Who that is.
        user: String,
    },
}

/// What a federated login gets ([MS-TDS] 3.3.5.5, 3.3.5.7).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Federated {
    /// Error 18456.
    Refuse,
    /// ADAL logins get FEDAUTHINFO, and `token` in the answer is accepted; so is `token` in the LOGIN7 of a security
    /// token login.
    Accept {
        /// FEDAUTHINFO's token endpoint.
        sts_url: String,
        /// FEDAUTHINFO's service principal name.
        spn: String,
        /// The token that is good.
        token: Vec<u8>,
        /// Who that is.
        user: String,
    },
}

/// Where a login is sent on to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Host name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

/// LOGIN7 features that are acknowledged when a client asks ([MS-TDS] 2.2.7.11).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    /// SESSIONRECOVERY; SESSIONSTATE tokens follow.
    pub session_recovery: bool,
    /// UTF8_SUPPORT.
    pub utf8: bool,
    /// DATACLASSIFICATION.
    pub data_classification: bool,
}

impl Default for Features {
    fn default() -> Self {
        Self { session_recovery: true, utf8: true, data_classification: true }
    }
}
