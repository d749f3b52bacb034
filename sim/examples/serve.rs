//! A stand-in SQL Server on a port: `cargo run -p tdsbouncer-sim --example serve -- --port 1433 [--password P]
//! [--user NAME:PASSWORD]... [--database NAME]... [--encryption off|on|strict|none] [--certificate PEM --key PEM]
//! [--max-connections N]`.

use std::net::{Ipv4Addr, SocketAddr};

use tdsbouncer_sim::{Certificate, Encryption, SimOptions, SimServer, User};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut options = SimOptions::default();
    let (mut chain, mut key_file) = (None, None);
    let mut arguments = std::env::args().skip(1);
    while let Some(key) = arguments.next() {
        let value = arguments.next().ok_or("every option has a value")?;
        match key.as_str() {
            "--port" => options.listen = SocketAddr::from((Ipv4Addr::LOCALHOST, value.parse()?)),
            "--password" => options.users = vec![User::new("sa", value)],
            "--user" => {
                let (name, password) = value.split_once(':').ok_or("a user is NAME:PASSWORD")?;
                options.users.push(User::new(name, password));
            }
            "--certificate" => chain = Some(value.into()),
            "--key" => key_file = Some(value.into()),
            "--database" => options.databases.push(value),
            "--max-connections" => options.max_connections = value.parse()?,
            "--name" => options.name = value,
            "--encryption" => {
                options.encryption = match value.as_str() {
                    "none" => Encryption::NotSupported,
                    "off" => Encryption::Off,
                    "on" => Encryption::On,
                    "strict" => Encryption::Strict,
                    _ => return Err("encryption is none, off, on or strict".into()),
                }
            }
            _ => return Err(format!("unknown option {key}").into()),
        }
    }
    if let (Some(chain), Some(key)) = (chain, key_file) {
        options.certificate = Certificate::Files { chain, key };
    }
    let server = SimServer::start(options)?;
    println!("listening on {}", server.addr());
    loop {
        std::thread::park();
    }
}
