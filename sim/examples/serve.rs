//! A stand-in SQL Server on a port, for work on this crate alone; `tdsbouncer sim` takes the same options and more:
//! `cargo run -p tdsbouncer-sim --example serve -- --listen 127.0.0.1:1433 --user sa:secret --database shop`.

use tdsbouncer_sim::{Certificate, Encryption, SimOptions, SimServer, User};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut options = SimOptions::default();
    let mut users = Vec::new();
    let (mut chain, mut key) = (None, None);
    let mut arguments = std::env::args().skip(1);
    while let Some(option) = arguments.next() {
        let value = arguments.next().ok_or("every option has a value")?;
        match option.as_str() {
            "--listen" => options.listen = value.parse()?,
            "--port" => options.listen.set_port(value.parse()?),
            "--user" => {
                let (name, password) = value.split_once(':').ok_or("a user is NAME:PASSWORD")?;
                users.push(User::new(name, password));
            }
            "--database" => options.databases.push(value),
            "--max-connections" => options.max_connections = value.parse()?,
            "--name" => options.name = value,
            "--certificate" => chain = Some(value),
            "--key" => key = Some(value),
            "--encryption" => {
                options.encryption = match value.as_str() {
                    "unsupported" => Encryption::NotSupported,
                    "off" => Encryption::Off,
                    "on" => Encryption::On,
                    "strict" => Encryption::Strict,
                    _ => return Err("encryption is unsupported, off, on or strict".into()),
                }
            }
            _ => return Err(format!("unknown option {option}").into()),
        }
    }
    if let (Some(chain), Some(key)) = (chain, key) {
        options.certificate = Certificate::Files { chain: chain.into(), key: key.into() };
    }
    if !users.is_empty() {
        options.users = users;
    }
    let server = SimServer::start(options)?;
    println!("listening on {}", server.addr());
    loop {
        std::thread::park();
    }
}
