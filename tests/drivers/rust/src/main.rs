//! The smoke test's Rust clients: `tdsbouncer-drivers tiberius|mssql-tds`, settings from the environment.

mod canonical;
mod mssql_tds_client;
mod tiberius_client;

#[tokio::main]
async fn main() {
    match std::env::args().nth(1).as_deref() {
        Some("tiberius") => tiberius_client::run().await,
        Some("mssql-tds") => mssql_tds_client::run().await,
        _ => {
            eprintln!("usage: tdsbouncer-drivers tiberius|mssql-tds");
            std::process::exit(2);
        }
    }
}
