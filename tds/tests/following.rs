//! The follower of RPC messages: what it reports does not depend on how the bytes come, and it finds what the reader
//! of whole messages finds.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod generated;

use bytes::BufMut;
use generated::request::rpc_request;
use proptest::collection::vec;
use proptest::prelude::*;
use tds::request::AllHeaders;
use tds::rpc::{
    Callee, Followed, Parameter, ProcId, Procedure, RpcFollower, RpcReader, RpcRequest, Separator,
};
use tds::type_info::{Collation, MAX, TypeInfo};
use tds::value::Value;
use tds::{Dialect, Malformed, TdsVersion};

const DIALECT: Dialect = Dialect { version: TdsVersion::V7_4, column_encryption: 0, data_classification: 0 };

/// A report in a form that outlives it.
#[derive(Debug, PartialEq)]
enum Found {
    Call(u64, Procedure, u64),
    Parameter(u64),
    Separator(u64, Separator),
}

impl From<Followed<'_>> for Found {
    fn from(followed: Followed<'_>) -> Self {
        match followed {
            Followed::Call { offset, callee: Callee::Id(id), parameters } => {
                Self::Call(offset, Procedure::Id(id), parameters)
            }
            Followed::Call { offset, callee: Callee::Name(name), parameters } => {
                let name = tds::read::decode_utf16(name, "a name").unwrap();
                Self::Call(offset, Procedure::Name(name), parameters)
            }
            Followed::Parameter { offset } => Self::Parameter(offset),
            Followed::Separator { offset, separator } => Self::Separator(offset, separator),
        }
    }
}

/// What the reader of whole messages says.
fn read(bytes: &[u8], dialect: Dialect) -> Vec<Found> {
    let mut reader = RpcReader::new(bytes, dialect).unwrap();
    let mut found = Vec::new();
    while let Some(head) = reader.next_call().unwrap() {
        found.push(Found::Call(head.offset as u64, head.procedure, head.parameters_offset as u64));
        let mut at = reader.position() as u64;
        while reader.next_parameter().unwrap().is_some() {
            found.push(Found::Parameter(at));
            at = reader.position() as u64;
        }
        found.extend(reader.separator().map(|separator| Found::Separator(at, separator)));
    }
    found
}

fn follow(follower: &mut RpcFollower, bytes: &[u8], lens: &[usize]) -> Vec<Found> {
    let mut found = Vec::new();
    let mut rest = bytes;
    for len in lens.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (now, later) = rest.split_at((*len).min(rest.len()));
        rest = later;
        follower.feed(now, |followed| found.push(followed.into()));
        assert_eq!(follower.offset(), (bytes.len() - rest.len()) as u64);
    }
    found
}

fn written(dialect: Dialect, request: &RpcRequest) -> Vec<u8> {
    let mut bytes = Vec::new();
    request.write(&mut bytes, dialect).unwrap();
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn every_message_is_followed_in_any_chunking(
        (dialect, request) in rpc_request(),
        lens in vec(1usize..40, 1..20),
    ) {
        let bytes = written(dialect, &request);
        let expected = read(&bytes, dialect);
        let mut follower = RpcFollower::new(dialect);
        for lens in [&[bytes.len()][..], &[1], &lens] {
            follower.restart();
            prop_assert_eq!(&follow(&mut follower, &bytes, lens), &expected);
            prop_assert!(follower.may_end());
            prop_assert_eq!(follower.lost(), None);
        }
    }

    #[test]
    fn a_message_that_is_cut_off_may_end_only_where_the_reader_finds_its_end(
        (dialect, request) in rpc_request(),
        cut in any::<prop::sample::Index>(),
    ) {
        let bytes = written(dialect, &request);
        let bytes = &bytes[..cut.index(bytes.len())];
        let mut follower = RpcFollower::new(dialect);
        follow(&mut follower, bytes, &[7]);
        prop_assert_eq!(follower.lost(), None);
        let whole = (|| {
            let mut reader = RpcReader::new(bytes, dialect)?;
            while reader.next_call()?.is_some() {}
            Ok::<_, Malformed>(())
        })();
        prop_assert_eq!(follower.may_end(), whole.is_ok(), "{:?}", whole);
    }

    #[test]
    fn any_bytes_are_survived_and_judged_alike_in_any_chunking(
        bytes in vec(any::<u8>(), 0..200),
        (dialect, request) in rpc_request(),
        at in any::<prop::sample::Index>(),
    ) {
        let mut broken = written(dialect, &request);
        let at = at.index(broken.len());
        broken.splice(at..(at + bytes.len()).min(broken.len()), bytes);
        let (mut whole, mut pieces) = (RpcFollower::new(dialect), RpcFollower::new(dialect));
        let found = follow(&mut whole, &broken, &[broken.len()]);
        prop_assert_eq!(&follow(&mut pieces, &broken, &[3]), &found);
        prop_assert_eq!(whole.lost(), pieces.lost());
        prop_assert_eq!(whole.may_end(), pieces.may_end());
    }
}

#[test]
fn an_unknown_type_loses_the_message() {
    let mut bytes = Vec::new();
    AllHeaders::autocommit().write(&mut bytes);
    bytes.put_slice(&[0xFF, 0xFF, 10, 0, 0, 0, 0, 0, 0x99, 1, 2, 3]);
    let mut follower = RpcFollower::new(DIALECT);
    let found = follow(&mut follower, &bytes, &[5]);
    assert_eq!(found, [Found::Call(22, Procedure::Id(ProcId::EXECUTE_SQL), 28)]);
    assert!(matches!(follower.lost(), Some(Malformed::Value { .. })));
    assert!(!follower.may_end());
    follower.restart();
    assert_eq!(follower.lost(), None);
}

#[test]
fn following_allocates_nothing_once_it_has_seen_such_a_message() {
    let max = TypeInfo::nvarchar(MAX, Collation::LATIN1);
    let parameters = vec![
        Parameter::new("@handle", TypeInfo::IntN(4), Value::Int(1)),
        Parameter::new("@text", max, Value::String("x".repeat(100_000))),
        Parameter::new("", TypeInfo::VarBinary(100), Value::Bytes(vec![1; 90])),
    ];
    let call = |name: &str| RpcRequest::one(Procedure::Name(name.to_owned()), parameters.clone()).calls;
    let request = RpcRequest { headers: None, calls: [call("dbo.first"), call("second")].concat() };
    let bytes = written(DIALECT, &request);
    let mut follower = RpcFollower::new(DIALECT);
    let mut events = 0;
    let mut once = || {
        for chunk in [4088, 13, bytes.len()] {
            follower.restart();
            for piece in bytes.chunks(chunk) {
                follower.feed(piece, |_| events += 1);
            }
            assert!(follower.may_end());
        }
    };
    once();
    let allocated = allocation_counter::measure(once);
    assert_eq!(allocated.count_total, 0);
    assert_eq!(events, 6 * (2 + 6 + 1));
}
