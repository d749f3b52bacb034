//! Work that is counted in instructions: `instructions NAME TIMES` does it so often. `bench/instructions/run` counts.
//!
//! The work is what the proxy does for each request without the kernel's part: reading a login and answering it from
//! memory, looking through a batch, following and passing on a response.

use std::hint::black_box;
use std::process::ExitCode;

use bytes::BytesMut;
use tds::col_metadata::{ColMetadata, Column};
use tds::done::{Done, DoneKind, DoneStatus};
use tds::exchange::Exchange;
use tds::login_response::{LoginAck, LoginResponse};
use tds::login7::{Login7, Password};
use tds::message::write_message;
use tds::packet::{PacketType, Status};
use tds::request::SqlBatch;
use tds::scan::{Event, ResponseScanner};
use tds::tsql::{Procedures, Scope, TextScanner};
use tds::type_info::{Collation, TypeInfo};
use tds::value::Value;
use tds::{Dialect, TdsVersion, row};

const DIALECT: Dialect = Dialect { version: TdsVersion::V7_4, column_encryption: 0, data_classification: 0 };

/// A name and what is done once.
type Work = (&'static str, fn() -> Box<dyn FnMut()>);

const ALL: [Work; 6] = [
    ("scan-small-response", || scan(1, 1)),
    ("scan-1000-narrow-rows", || scan(1000, 1)),
    ("scan-1000-wide-rows", || scan(1000, 10)),
    ("look-through-a-batch", batch),
    ("follow-a-small-exchange", exchange),
    ("answer-a-login", login),
];

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [name, times] = &words[..] else {
        for (name, _) in ALL {
            println!("{name}");
        }
        return ExitCode::SUCCESS;
    };
    let work = ALL.iter().find(|(known, _)| known == name).map(|(_, make)| make());
    let (Some(mut work), Ok(times)) = (work, times.parse::<u32>()) else {
        eprintln!("instructions [NAME TIMES]");
        return ExitCode::FAILURE;
    };
    for _ in 0..times {
        work();
    }
    ExitCode::SUCCESS
}

/// A result of so many rows of so many times three columns.
fn response(rows: u64, width: usize) -> Vec<u8> {
    let narrow = vec![
        Column::new("id", TypeInfo::IntN(4)),
        Column::new("name", TypeInfo::nvarchar(20, Collation::LATIN1)),
        Column::new("at", TypeInfo::DateTime2(7)),
    ];
    let values = vec![
        Value::Int(7),
        Value::String("a short name".into()),
        Value::DateTime2 { days: 738_000, ticks: 430_000_000_000 },
    ];
    let metadata = ColMetadata::new(vec![narrow; width].concat());
    let values = vec![values; width].concat();
    let mut out = Vec::new();
    metadata.write(&mut out, DIALECT);
    for _ in 0..rows {
        row::write(&mut out, &metadata.columns, &values).expect("the values fit");
    }
    let done = Done { kind: DoneKind::Done, status: DoneStatus::COUNT, current_command: 0xC1, rows };
    done.write(&mut out, DIALECT.version);
    out
}

fn scan(rows: u64, width: usize) -> Box<dyn FnMut()> {
    let bytes = response(rows, width);
    let mut scanner = ResponseScanner::new(DIALECT);
    Box::new(move || {
        let mut seen = 0;
        for payload in bytes.chunks(4088) {
            scanner.feed(black_box(payload), |scanned| {
                if let Event::Done(done) = scanned.event {
                    seen = done.rows;
                }
            });
        }
        assert_eq!(seen, rows);
        scanner.restart();
    })
}

fn batch() -> Box<dyn FnMut()> {
    let text = "SELECT o.id, o.total, c.name FROM dbo.orders AS o JOIN dbo.customers AS c ON c.id = o.customer \
                WHERE o.state = 'open' AND o.total > 100 -- newest first\nORDER BY o.created DESC";
    let text: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let (mut scanner, procedures) = (TextScanner::new(Scope::Batch), Procedures::new());
    Box::new(move || {
        scanner.restart(Scope::Batch);
        scanner.feed(black_box(&text), &procedures, &mut |_| ());
        let verdict = scanner.finish(&procedures, &mut |_| ());
        assert!(verdict.holds.is_empty());
    })
}

/// A request and its answer, as a relay in session mode follows them.
fn exchange() -> Box<dyn FnMut()> {
    let (mut request, mut answer, mut payload) = (BytesMut::new(), BytesMut::new(), BytesMut::new());
    SqlBatch::new("SELECT 1").write(&mut payload, DIALECT);
    write_message(&mut request, PacketType::SQL_BATCH, Status::NORMAL, 0, 4096, &payload);
    write_message(&mut answer, PacketType::RESPONSE, Status::NORMAL, 51, 4096, &response(1, 1));
    let mut exchange = Exchange::new(32_767, TdsVersion::V7_4);
    Box::new(move || {
        let sent = exchange.sent(black_box(&request)).expect("a request");
        let ended = exchange.received(black_box(&answer)).expect("a response");
        assert!(sent.begun == 1 && ended == 1 && exchange.is_quiet());
    })
}

/// LOGIN7 read, and the remembered response written for it.
fn login() -> Box<dyn FnMut()> {
    let login = Login7 {
        host_name: "workstation".to_owned(),
        user_name: "olga".to_owned(),
        password: Password::new("Demo-passw0rd"),
        app_name: "orders".to_owned(),
        server_name: "sql-1.example.com".to_owned(),
        interface_name: "ODBC".to_owned(),
        database: "orders".to_owned(),
        ..Login7::default()
    };
    let mut payload = BytesMut::new();
    login.encode(&mut payload);
    let ack = LoginAck {
        interface: 1,
        tds_version: TdsVersion::V7_4,
        program_name: "Microsoft SQL Server".to_owned(),
        program_version: [16, 0, 0x10, 0],
    };
    let mut remembered = LoginResponse::new(ack, "orders", "us_english");
    remembered.collation = Some([0x09, 0x04, 0xD0, 0x00, 0x34]);
    let remembered = remembered.build();
    Box::new(move || {
        let read = Login7::decode(black_box(&payload)).expect("a login");
        assert_eq!(read.database, "orders");
        let mut out = BytesMut::new();
        remembered.replay(&mut out, 51, 4096, &[]);
        assert!(!out.is_empty());
    })
}
