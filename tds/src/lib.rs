//! TDS, SQL Server's wire protocol, without I/O: bytes in, meaning out ([MS-TDS]).

mod dialect;
mod malformed;
mod version;

pub use dialect::Dialect;
pub use malformed::Malformed;
pub use version::TdsVersion;

// Packets, messages and the way to a login.
pub mod encryption;
pub mod exchange;
pub mod handshake;
pub mod login7;
pub mod login_response;
pub mod message;
pub mod packet;
pub mod prelogin;
pub mod profile;
pub mod tls_wrap;

// Tokens, types and requests.
pub mod col_metadata;
pub mod done;
pub mod edit;
pub mod env_change;
pub mod feature;
pub mod read;
pub mod request;
pub mod return_value;
pub mod row;
pub mod rpc;
pub mod scan;
pub mod server_message;
pub mod session_state;
pub mod token;
pub mod tsql;
pub mod type_info;
pub mod value;
pub mod write;
