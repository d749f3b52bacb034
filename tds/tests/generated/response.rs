//! Responses that proptest makes up, and what the scanner must report about them.

use bytes::{BufMut, Bytes};
use proptest::collection::vec;
use proptest::prelude::*;
use tds::col_metadata::{ColMetadata, Column};
use tds::done::{Done, DoneKind, DoneStatus};
use tds::env_change::EnvChange;
use tds::feature::{Feature, FeatureId, write_feature_ext_ack};
use tds::scan::Event;
use tds::server_message::ServerMessage;
use tds::session_state::{SessionState, State};
use tds::token::TokenKind;
use tds::type_info::TypeInfo;
use tds::{Dialect, row};

use super::{dialect, result_set, return_value, type_info, value};

/// Some tokens as bytes, and what the scanner must say about them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tokens {
    pub(crate) bytes: Vec<u8>,
    /// The report as text, without its range.
    pub(crate) report: Option<String>,
}

impl Tokens {
    fn silent(bytes: Vec<u8>) -> Self {
        Self { bytes, report: None }
    }

    fn reported(bytes: Vec<u8>, event: &Event<'_>) -> Self {
        Self { bytes, report: Some(format!("{event:?}")) }
    }
}

fn done() -> impl Strategy<Value = Done> {
    let kinds = vec![DoneKind::Done, DoneKind::DoneProc, DoneKind::DoneInProc];
    (prop::sample::select(kinds), any::<(u16, u16, u32)>()).prop_map(|(kind, (status, command, rows))| Done {
        kind,
        status: DoneStatus(status),
        current_command: command,
        rows: u64::from(rows),
    })
}

fn env_change() -> impl Strategy<Value = EnvChange> {
    let text = || "\\PC{0,20}";
    prop_oneof![
        (text(), text()).prop_map(|(new, old)| EnvChange::Database { new, old }),
        any::<u64>().prop_map(EnvChange::BeginTransaction),
        any::<u64>().prop_map(EnvChange::CommitTransaction),
        any::<u64>().prop_map(EnvChange::TransactionEnded),
        vec(any::<u8>(), 0..400).prop_map(|token| EnvChange::PromoteTransaction(Bytes::from(token))),
        Just(EnvChange::ResetDone),
    ]
}

/// COLMETADATA, TABNAME, COLINFO, DATACLASSIFICATION, ORDER and rows of both kinds.
fn rows(dialect: Dialect) -> BoxedStrategy<Tokens> {
    let labels = vec(("\\PC{0,9}", "\\PC{0,9}"), 0..3);
    (result_set(dialect), any::<[bool; 5]>(), labels)
        .prop_map(move |((metadata, rows), choices, labels)| {
            let mut out = Vec::new();
            metadata.write(&mut out, dialect);
            for (token, wanted) in [TokenKind::TAB_NAME, TokenKind::COL_INFO].into_iter().zip(choices) {
                if wanted {
                    out.put_u8(token.0);
                    out.put_u16_le(7);
                    out.put_bytes(0xD1, 7);
                }
            }
            if choices[2] && dialect.data_classification > 0 {
                data_classification(&mut out, &labels, metadata.columns.len(), dialect);
            }
            if choices[3] {
                out.put_slice(&[TokenKind::ORDER.0, 2, 0, 0xFD, 0xFD]);
            }
            // No columns, no rows.
            let rows = if metadata.columns.is_empty() { &[] } else { &rows[..] };
            for (at, row) in rows.iter().enumerate() {
                if (at % 2 == 0) ^ choices[4] {
                    row::write(&mut out, &metadata.columns, row).unwrap();
                } else {
                    row::write_nbc(&mut out, &metadata.columns, row).unwrap();
                }
            }
            Tokens::silent(out)
        })
        .boxed()
}

fn data_classification(out: &mut Vec<u8>, labels: &[(String, String)], columns: usize, dialect: Dialect) {
    let ranked = dialect.data_classification >= 2;
    out.put_u8(TokenKind::DATA_CLASSIFICATION.0);
    for _ in 0..2 {
        out.put_u16_le(labels.len() as u16);
        for (name, id) in labels {
            tds::write::b_varchar(out, name);
            tds::write::b_varchar(out, id);
        }
    }
    if ranked {
        out.put_i32_le(-1);
    }
    out.put_u16_le(columns as u16);
    for column in 0..columns {
        out.put_u16_le(column as u16 % 3);
        for _ in 0..column % 3 {
            out.put_u32_le(0xFFFF_FFFF);
            if ranked {
                out.put_u32_le(20);
            }
        }
    }
}

/// ALTMETADATA and ALTROWs behind a result set.
fn compute(dialect: Dialect) -> BoxedStrategy<Tokens> {
    let column = type_info(dialect, false).prop_flat_map(|type_info| {
        let value = value(&type_info);
        (Just(type_info), value)
    });
    (vec(vec(column, 1..4), 1..4), any::<bool>())
        .prop_map(move |(formats, twice)| {
            let mut out = Vec::new();
            ColMetadata::new(vec![Column::new("a", TypeInfo::Int)]).write(&mut out, dialect);
            for (id, format) in formats.iter().enumerate() {
                out.put_u8(TokenKind::ALT_METADATA.0);
                out.put_u16_le(format.len() as u16);
                out.put_u16_le(id as u16);
                out.put_slice(&[2, 1, 0, 2, 0]);
                for (type_info, _) in format {
                    out.put_slice(&[0x4D, 1, 0]);
                    out.put_bytes(0, if dialect.is_7_2_or_later() { 6 } else { 4 });
                    type_info.write(&mut out, dialect);
                    if type_info.is_text_or_image() {
                        if dialect.is_7_2_or_later() {
                            out.put_u8(1);
                        }
                        tds::write::us_varchar(&mut out, "t");
                    }
                    tds::write::b_varchar(&mut out, "sum");
                }
            }
            for _ in 0..=usize::from(twice) {
                for (id, format) in formats.iter().enumerate().rev() {
                    out.put_u8(TokenKind::ROW.0);
                    out.put_u32_le(0xD1D1_D1D1);
                    out.put_u8(TokenKind::ALT_ROW.0);
                    out.put_u16_le(id as u16);
                    for (type_info, value) in format {
                        value.write_cell(&mut out, type_info).unwrap();
                    }
                }
            }
            Tokens::silent(out)
        })
        .boxed()
}

fn output(dialect: Dialect) -> BoxedStrategy<Tokens> {
    return_value(dialect)
        .prop_map(move |token| {
            let mut out = Vec::new();
            token.write(&mut out, dialect).unwrap();
            Tokens { report: Some(format!("ReturnValue {token:?}")), bytes: out }
        })
        .boxed()
}

fn session_state() -> impl Strategy<Value = Tokens> {
    (any::<(u32, bool)>(), vec((any::<u8>(), vec(any::<u8>(), 0..300)), 0..4)).prop_map(
        |((sequence, recoverable), states)| {
            let mut data = Vec::new();
            for (id, value) in &states {
                State { id: *id, value }.write(&mut data);
            }
            let token = SessionState { sequence, recoverable, data: &data };
            let mut out = Vec::new();
            token.write(&mut out);
            Tokens::reported(out, &Event::SessionState(token))
        },
    )
}

/// Tokens whose contents are passed over.
fn counted() -> impl Strategy<Value = Tokens> {
    let short = vec![TokenKind::ORDER, TokenKind::TAB_NAME, TokenKind::COL_INFO, TokenKind::SSPI];
    prop_oneof![
        (prop::sample::select(short), vec(any::<u8>(), 0..200)).prop_map(|(token, contents)| {
            let mut out = vec![token.0];
            out.put_u16_le(contents.len() as u16);
            out.put_slice(&contents);
            Tokens::silent(out)
        }),
        vec(any::<u8>(), 0..200).prop_map(|contents| {
            let mut out = vec![TokenKind::FED_AUTH_INFO.0];
            out.put_u32_le(contents.len() as u32);
            out.put_slice(&contents);
            Tokens::silent(out)
        }),
        any::<u32>().prop_map(|offset| {
            let mut out = vec![TokenKind::OFFSET.0];
            out.put_u32_le(offset);
            Tokens::silent(out)
        }),
        vec(any::<u8>(), 0..200).prop_map(|contents| {
            let mut out = vec![TokenKind::LOGIN_ACK.0];
            out.put_u16_le(contents.len() as u16);
            out.put_slice(&contents);
            Tokens::reported(out, &Event::LoginAck)
        }),
        vec((0u8..0xFF, vec(any::<u8>(), 0..30)), 0..4).prop_map(|features| {
            let features: Vec<Feature> = features
                .into_iter()
                .map(|(id, data)| Feature { id: FeatureId(id), data: data.into() })
                .collect();
            let mut out = Vec::new();
            write_feature_ext_ack(&mut out, &features);
            Tokens::reported(out, &Event::FeatureExtAck)
        }),
    ]
}

fn tokens(dialect: Dialect) -> BoxedStrategy<Tokens> {
    let version = dialect.version;
    prop_oneof![
        4 => rows(dialect),
        1 => compute(dialect),
        2 => output(dialect),
        2 => counted(),
        1 => session_state(),
        3 => done().prop_map(move |done| {
            let mut out = Vec::new();
            done.write(&mut out, version);
            Tokens::reported(out, &Event::Done(done))
        }),
        2 => env_change().prop_map(|change| {
            let mut out = Vec::new();
            change.write(&mut out);
            Tokens::reported(out, &Event::EnvChange(change))
        }),
        1 => any::<i32>().prop_map(|status| {
            let mut out = vec![TokenKind::RETURN_STATUS.0];
            out.put_i32_le(status);
            Tokens::reported(out, &Event::ReturnStatus(status))
        }),
        2 => (any::<bool>(), any::<(i32, u8, u8)>(), "\\PC{0,60}").prop_map(move |(is_error, (number, state, class), text)| {
            let message =
                ServerMessage { is_error, state, class, ..ServerMessage::error(number, class, text, "s") };
            let mut out = Vec::new();
            message.write(&mut out, version);
            Tokens::reported(out, &Event::Message { is_error, number, state, class })
        }),
    ]
    .boxed()
}

pub(crate) fn response() -> impl Strategy<Value = (Dialect, Vec<Tokens>)> {
    dialect().prop_flat_map(|dialect| (Just(dialect), vec(tokens(dialect), 0..8)))
}
