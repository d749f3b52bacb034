//! The light client against the stand-in: every encryption, every kind of request, and errors as errors.

#![allow(clippy::unwrap_used, reason = "a failed expectation is a failed test")]

use tds::encryption::ServerTls;
use tds::request::{BeginTransaction, TransactionRequest};
use tds::rpc::{Parameter, ProcId, Procedure};
use tds::type_info::{Collation, TypeInfo};
use tds::value::Value;
use tdsbouncer_loadgen::client::{Client, ClientError, Target};
use tdsbouncer_sim::{Encryption, SimHandle, SimOptions, SimServer};

fn server(encryption: Encryption) -> SimHandle {
    let options = SimOptions { databases: vec!["shop".to_owned()], encryption, ..SimOptions::default() };
    SimServer::start(options).unwrap()
}

fn target(server: &SimHandle, tls: ServerTls) -> Target {
    Target { tls, ..Target::new(server.addr(), "sa", "Sim-passw0rd", "shop") }
}

#[tokio::test]
async fn a_client_logs_in_under_every_encryption() {
    let cases = [
        (Encryption::Off, ServerTls::Never),
        (Encryption::Off, ServerTls::Off),
        (Encryption::Off, ServerTls::On),
        (Encryption::On, ServerTls::On),
        (Encryption::Strict, ServerTls::Strict),
    ];
    for (encryption, tls) in cases {
        let server = server(encryption);
        let mut client = Client::connect(&target(&server, tls)).await.unwrap();
        let answer = client.batch("SELECT 42 AS n, DB_NAME() AS d").await.unwrap();
        let shop = Value::String("shop".to_owned());
        assert!(answer.is_row(&[Value::Int(42), shop]), "{encryption:?} {tls:?}: {answer:?}");
        // Larger than any buffer, so that records and packets are cut everywhere.
        let skimmed = client.skim("SELECT * FROM dbo.generate_rows(5000, 100)").await.unwrap();
        assert!(skimmed > 1_000_000, "{skimmed} bytes");
        assert!(client.batch("SELECT 43").await.unwrap().is_row(&[Value::Int(43)]));
    }
}

#[tokio::test]
async fn transactions_and_calls_are_followed() {
    let server = server(Encryption::Off);
    let mut client = Client::connect(&target(&server, ServerTls::Never)).await.unwrap();
    client.transaction(&TransactionRequest::Begin(BeginTransaction::default())).await.unwrap();
    assert!(client.in_transaction());
    assert!(client.batch("SELECT @@TRANCOUNT").await.unwrap().is_row(&[Value::Int(1)]));
    let commit = TransactionRequest::Commit { name: String::new(), begin: None };
    client.transaction(&commit).await.unwrap();
    assert!(!client.in_transaction());
    let nvarchar = || TypeInfo::nvarchar(100, Collation::LATIN1);
    let parameters = vec![
        Parameter::new("", nvarchar(), Value::String("SELECT @n + 1".to_owned())),
        Parameter::new("", nvarchar(), Value::String("@n int".to_owned())),
        Parameter::new("@n", TypeInfo::IntN(4), Value::Int(6)),
    ];
    let answer = client.call(Procedure::Id(ProcId::EXECUTE_SQL), parameters).await.unwrap();
    assert!(answer.is_row(&[Value::Int(7)]) && answer.status == Some(0), "{answer:?}");
}

#[tokio::test]
async fn errors_have_their_numbers() {
    let server = server(Encryption::Off);
    let mut client = Client::connect(&target(&server, ServerTls::Never)).await.unwrap();
    let answer = client.batch("SELECT * FROM nothing_of_this_name").await.unwrap();
    assert_eq!((answer.error(), answer.failed), (Some(208), true));
    let wrong = Target { password: "wrong".to_owned(), ..target(&server, ServerTls::Never) };
    let refused = Client::connect(&wrong).await.err().unwrap();
    assert_eq!((refused.number(), refused.label().as_str()), (Some(18456), "18456"));
    drop(server);
    assert!(matches!(client.batch("SELECT 1").await, Err(ClientError::Lost(_))));
}
