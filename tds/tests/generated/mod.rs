//! Types, values, metadata and calls that proptest makes up.
#![allow(dead_code, reason = "every test file uses a part")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

pub(crate) mod request;
pub(crate) mod response;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use tds::col_metadata::{ColMetadata, Column, ColumnFlags, CryptoMetadata, EncryptedKey, KeyEntry};
use tds::return_value::ReturnValue;
use tds::rpc::{CipherInfo, ColumnOrder, ParamFlags, Parameter, TableColumn, TableType};
use tds::type_info::{
    CharInfo, Collation, DecimalInfo, MAX, TextInfo, TypeId, TypeInfo, UdtAssembly, UdtInfo, XmlSchema,
};
use tds::value::{Decimal, Value, Variant};
use tds::{Dialect, TdsVersion};

/// Every version, with and without the features that change formats.
pub(crate) fn dialect() -> impl Strategy<Value = Dialect> {
    let plain = [
        TdsVersion::V7_0,
        TdsVersion::V7_1_SP1,
        TdsVersion::V7_2,
        TdsVersion::V7_3B,
        TdsVersion::V7_4,
        TdsVersion::V8_0,
    ];
    let mut dialects = plain.map(Dialect::of).to_vec();
    for column_encryption in 0..=2 {
        for data_classification in 0..=2 {
            dialects.push(Dialect { version: TdsVersion::V7_4, column_encryption, data_classification });
        }
    }
    select(dialects)
}

fn name() -> impl Strategy<Value = String> {
    "\\PC{0,12}"
}

fn collation(dialect: Dialect) -> BoxedStrategy<Collation> {
    if dialect.version.generation() == 0 {
        return Just(Collation::RAW).boxed();
    }
    any::<[u8; 5]>().prop_map(Collation).boxed()
}

fn char_info(dialect: Dialect, varying: bool) -> BoxedStrategy<CharInfo> {
    let plp = varying && dialect.is_7_2_or_later();
    (0u16..8001, collation(dialect), any::<bool>())
        .prop_map(move |(max_len, collation, max)| CharInfo {
            max_len: if max && plp { MAX } else { max_len },
            collation,
        })
        .boxed()
}

fn text_info(dialect: Dialect) -> impl Strategy<Value = TextInfo> {
    (any::<u32>(), collation(dialect)).prop_map(|(max_len, collation)| TextInfo { max_len, collation })
}

fn decimal_info() -> impl Strategy<Value = DecimalInfo> {
    let id = select(vec![TypeId::DECIMAL_N, TypeId::NUMERIC_N, TypeId::DECIMAL, TypeId::NUMERIC]);
    (id, select(vec![5u8, 9, 13, 17]), 1u8..39)
        .prop_flat_map(|(id, max_len, precision)| (Just(id), Just(max_len), Just(precision), 0..=precision))
        .prop_map(|(id, max_len, precision, scale)| DecimalInfo { id, max_len, precision, scale })
}

/// Any type that a column (or, without its assembly, a parameter) of this dialect can have.
pub(crate) fn type_info(dialect: Dialect, parameter: bool) -> BoxedStrategy<TypeInfo> {
    let fixed = vec![
        TypeInfo::Null,
        TypeInfo::TinyInt,
        TypeInfo::Bit,
        TypeInfo::SmallInt,
        TypeInfo::Int,
        TypeInfo::BigInt,
        TypeInfo::Real,
        TypeInfo::Float,
        TypeInfo::SmallMoney,
        TypeInfo::Money,
        TypeInfo::SmallDateTime,
        TypeInfo::DateTime,
    ];
    let nullable = vec![
        TypeInfo::IntN(1),
        TypeInfo::IntN(2),
        TypeInfo::IntN(4),
        TypeInfo::IntN(8),
        TypeInfo::BitN(1),
        TypeInfo::FloatN(4),
        TypeInfo::FloatN(8),
        TypeInfo::MoneyN(4),
        TypeInfo::MoneyN(8),
        TypeInfo::DateTimeN(4),
        TypeInfo::DateTimeN(8),
        TypeInfo::Guid(16),
        TypeInfo::Guid(0),
    ];
    let plp = dialect.is_7_2_or_later();
    let mut kinds: Vec<BoxedStrategy<TypeInfo>> = vec![
        select(fixed).boxed(),
        select(nullable).boxed(),
        decimal_info().prop_map(TypeInfo::Decimal).boxed(),
        (any::<bool>(), 1u8..)
            .prop_map(|(varying, max_len)| TypeInfo::LegacyChar { varying, max_len })
            .boxed(),
        (any::<bool>(), 1u8..)
            .prop_map(|(varying, max_len)| TypeInfo::LegacyBinary { varying, max_len })
            .boxed(),
        char_info(dialect, false).prop_map(TypeInfo::Char).boxed(),
        char_info(dialect, true).prop_map(TypeInfo::VarChar).boxed(),
        char_info(dialect, false).prop_map(TypeInfo::NChar).boxed(),
        char_info(dialect, true).prop_map(TypeInfo::NVarChar).boxed(),
        (0u16..8001).prop_map(TypeInfo::Binary).boxed(),
        (0u16..8001, any::<bool>())
            .prop_map(move |(len, max)| TypeInfo::VarBinary(if max && plp { MAX } else { len }))
            .boxed(),
        text_info(dialect).prop_map(TypeInfo::Text).boxed(),
        text_info(dialect).prop_map(TypeInfo::NText).boxed(),
        any::<u32>().prop_map(TypeInfo::Image).boxed(),
        any::<u32>().prop_map(TypeInfo::Variant).boxed(),
    ];
    if plp {
        let schema = (name(), name(), name()).prop_map(|(database, owner, collection)| XmlSchema {
            database,
            owner,
            collection,
        });
        kinds.push(proptest::option::of(schema).prop_map(TypeInfo::Xml).boxed());
        let udt = (name(), name(), name(), any::<u16>(), name());
        let udt = udt.prop_map(move |(database, schema, name, max_len, assembly)| UdtInfo {
            database,
            schema,
            name,
            assembly: (!parameter).then_some(UdtAssembly { max_len, name: assembly }),
        });
        kinds.push(udt.prop_map(TypeInfo::Udt).boxed());
    }
    if dialect.version.generation() >= 3 {
        kinds.push(Just(TypeInfo::Date).boxed());
        kinds.push((0u8..8).prop_map(TypeInfo::Time).boxed());
        kinds.push((0u8..8).prop_map(TypeInfo::DateTime2).boxed());
        kinds.push((0u8..8).prop_map(TypeInfo::DateTimeOffset).boxed());
    }
    if dialect.version.generation() >= 4 {
        kinds.push(Just(TypeInfo::Json).boxed());
        let vector = any::<u16>().prop_map(|max_len| TypeInfo::Vector { max_len, dimension_type: 0 });
        kinds.push(vector.boxed());
    }
    proptest::strategy::Union::new(kinds).boxed()
}

/// A value that survives being written and read as this type; NULL where the type has one.
pub(crate) fn value(type_info: &TypeInfo) -> BoxedStrategy<Value> {
    if type_info.id().fixed_len().is_some() {
        return filled(type_info);
    }
    prop_oneof![1 => Just(Value::Null), 4 => filled(type_info)].boxed()
}

fn ticks(scale: u8) -> impl Strategy<Value = u64> {
    let unit = 10u64.pow(u32::from(7 - scale));
    (0..864_000_000_000 / unit).prop_map(move |n| n * unit)
}

fn varchar(collation: Collation) -> BoxedStrategy<String> {
    if collation.is_utf8() { "\\PC{0,40}".boxed() } else { "[ -~é€Ÿß]{0,40}".boxed() }
}

fn filled(type_info: &TypeInfo) -> BoxedStrategy<Value> {
    let bytes = || vec(any::<u8>(), 0..300).prop_map(Value::Bytes).boxed();
    let days = 0u32..3_652_059;
    match type_info {
        TypeInfo::Null => Just(Value::Null).boxed(),
        TypeInfo::Bit | TypeInfo::BitN(_) => any::<bool>().prop_map(Value::Bit).boxed(),
        TypeInfo::TinyInt | TypeInfo::IntN(1) => any::<u8>().prop_map(Value::TinyInt).boxed(),
        TypeInfo::SmallInt | TypeInfo::IntN(2) => any::<i16>().prop_map(Value::SmallInt).boxed(),
        TypeInfo::Int | TypeInfo::IntN(4) => any::<i32>().prop_map(Value::Int).boxed(),
        TypeInfo::BigInt | TypeInfo::IntN(_) => any::<i64>().prop_map(Value::BigInt).boxed(),
        TypeInfo::Real | TypeInfo::FloatN(4) => proptest::num::f32::NORMAL.prop_map(Value::Real).boxed(),
        TypeInfo::Float | TypeInfo::FloatN(_) => proptest::num::f64::NORMAL.prop_map(Value::Float).boxed(),
        TypeInfo::SmallMoney | TypeInfo::MoneyN(4) => any::<i32>().prop_map(Value::SmallMoney).boxed(),
        TypeInfo::Money | TypeInfo::MoneyN(_) => any::<i64>().prop_map(Value::Money).boxed(),
        TypeInfo::SmallDateTime | TypeInfo::DateTimeN(4) => {
            any::<(u16, u16)>().prop_map(|(days, minutes)| Value::SmallDateTime { days, minutes }).boxed()
        }
        TypeInfo::DateTime | TypeInfo::DateTimeN(_) => {
            any::<(i32, u32)>().prop_map(|(days, ticks)| Value::DateTime { days, ticks }).boxed()
        }
        TypeInfo::Guid(_) => any::<[u8; 16]>().prop_map(Value::Guid).boxed(),
        TypeInfo::Decimal(info) => {
            let (scale, bits) = (info.scale, 8 * (u32::from(info.max_len) - 1));
            any::<(bool, u128)>()
                .prop_map(move |(negative, magnitude)| {
                    let magnitude = magnitude >> (128 - bits);
                    Value::Decimal(Decimal { negative, magnitude, scale })
                })
                .boxed()
        }
        TypeInfo::Date => days.prop_map(Value::Date).boxed(),
        TypeInfo::Time(scale) => ticks(*scale).prop_map(Value::Time).boxed(),
        TypeInfo::DateTime2(scale) => {
            (days, ticks(*scale)).prop_map(|(days, ticks)| Value::DateTime2 { days, ticks }).boxed()
        }
        TypeInfo::DateTimeOffset(scale) => (days, ticks(*scale), -840i16..841)
            .prop_map(|(days, ticks, offset)| Value::DateTimeOffset { days, ticks, offset })
            .boxed(),
        TypeInfo::LegacyChar { .. } => "[ -~é€]{1,40}".prop_map(Value::String).boxed(),
        TypeInfo::Char(info) | TypeInfo::VarChar(info) => {
            varchar(info.collation).prop_map(Value::String).boxed()
        }
        TypeInfo::Text(info) => varchar(info.collation).prop_map(Value::String).boxed(),
        TypeInfo::NChar(_) | TypeInfo::NVarChar(_) | TypeInfo::NText(_) | TypeInfo::Json => {
            "\\PC{0,40}".prop_map(Value::String).boxed()
        }
        TypeInfo::Xml(_) => "<\\PC{0,40}".prop_map(Value::Xml).boxed(),
        TypeInfo::LegacyBinary { .. } => vec(any::<u8>(), 1..256).prop_map(Value::Bytes).boxed(),
        TypeInfo::Binary(_) | TypeInfo::VarBinary(_) | TypeInfo::Image(_) | TypeInfo::Udt(_) => bytes(),
        TypeInfo::Vector { .. } => vec(proptest::num::f32::NORMAL, 0..20).prop_map(Value::Vector).boxed(),
        TypeInfo::Variant(_) => variant(),
        TypeInfo::Table(table) => {
            let columns: Vec<_> =
                table.sent_columns().iter().map(|column| value(&column.type_info)).collect();
            vec(columns, 0..4).prop_map(Value::Table).boxed()
        }
    }
}

fn variant() -> BoxedStrategy<Value> {
    let dialect = Dialect::of(TdsVersion::V7_4);
    let fits = |type_info: &TypeInfo| match type_info {
        TypeInfo::Date | TypeInfo::Time(_) | TypeInfo::DateTime2(_) | TypeInfo::DateTimeOffset(_) => true,
        TypeInfo::Guid(len) => *len == 16,
        TypeInfo::Char(_) | TypeInfo::VarChar(_) | TypeInfo::NChar(_) | TypeInfo::NVarChar(_) => true,
        TypeInfo::Binary(_) | TypeInfo::VarBinary(_) => true,
        other => other.id().fixed_len().is_some_and(|len| len > 0),
    };
    let decimal = (1u8..39).prop_map(|precision| TypeInfo::decimal(precision, precision / 2));
    prop_oneof![type_info(dialect, false).prop_filter("a base type", fits), decimal]
        .prop_flat_map(|type_info| (Just(type_info.clone()), filled(&type_info)))
        .prop_map(|(type_info, value)| Value::Variant(Box::new(Variant { type_info, value })))
        .boxed()
}

fn crypto(dialect: Dialect) -> BoxedStrategy<CryptoMetadata> {
    (any::<u16>(), any::<u32>(), type_info(dialect, false), 0u8..3, name(), any::<(u8, u8)>())
        .prop_map(move |(ordinal, user_type, base_type, algorithm, name, (kind, normalization))| {
            CryptoMetadata {
                ordinal,
                user_type,
                base_type,
                algorithm,
                algorithm_name: (algorithm == 0).then_some(name),
                encryption_type: kind,
                normalization,
            }
        })
        .boxed()
}

fn keys(dialect: Dialect) -> BoxedStrategy<Vec<KeyEntry>> {
    if dialect.column_encryption == 0 {
        return Just(Vec::new()).boxed();
    }
    let value = (vec(any::<u8>(), 0..50), name(), name(), name())
        .prop_map(|(key, store, path, algorithm)| EncryptedKey { key, store, path, algorithm });
    let entry = (any::<(u32, u32, u32, u64)>(), vec(value, 0..3)).prop_map(
        |((database_id, key_id, key_version, metadata_version), values)| KeyEntry {
            database_id,
            key_id,
            key_version,
            metadata_version,
            values,
        },
    );
    vec(entry, 0..3).boxed()
}

pub(crate) fn column(dialect: Dialect) -> BoxedStrategy<Column> {
    let encrypted = if dialect.column_encryption > 0 {
        proptest::option::of(crypto(dialect)).boxed()
    } else {
        Just(None).boxed()
    };
    let user_type = if dialect.is_7_2_or_later() { u32::MAX } else { 0xFFFF };
    (any::<u32>(), any::<u16>(), type_info(dialect, false), vec(name(), 1..4), encrypted, name())
        .prop_map(move |(user, flags, type_info, parts, crypto, name)| {
            let table = type_info
                .is_text_or_image()
                .then(|| if dialect.is_7_2_or_later() { parts } else { vec![parts.join("_")] });
            let encrypted = if crypto.is_some() { ColumnFlags::ENCRYPTED.0 } else { 0 };
            let flags = ColumnFlags(flags & !ColumnFlags::ENCRYPTED.0 | encrypted);
            let crypto = crypto.map(Box::new);
            Column { user_type: user & user_type, flags, type_info, table, crypto, name }
        })
        .boxed()
}

pub(crate) fn metadata(dialect: Dialect) -> BoxedStrategy<ColMetadata> {
    (vec(column(dialect), 0..12), keys(dialect))
        .prop_map(|(columns, keys)| ColMetadata { columns, keys })
        .boxed()
}

/// Metadata and some rows.
pub(crate) fn result_set(dialect: Dialect) -> BoxedStrategy<(ColMetadata, Vec<Vec<Value>>)> {
    metadata(dialect)
        .prop_flat_map(|metadata| {
            let row: Vec<_> = metadata.columns.iter().map(|column| value(&column.type_info)).collect();
            (Just(metadata), vec(row, 0..5))
        })
        .boxed()
}

fn table_type(dialect: Dialect) -> BoxedStrategy<TableType> {
    let types = type_info(dialect, true).prop_filter("not in tables", |found| *found != TypeInfo::Null);
    let column =
        (any::<u32>(), any::<u16>(), types, name()).prop_map(|(user_type, flags, type_info, name)| {
            let flags = ColumnFlags(flags);
            TableColumn { user_type, flags, type_info, name }
        });
    let order = any::<(u16, u8)>().prop_map(|(column, flags)| ColumnOrder { column, flags });
    (name(), name(), name(), proptest::option::of(vec(column, 1..5)), vec(order, 0..3), any::<bool>())
        .prop_map(|(database, schema, name, columns, order, reversed)| {
            let count = columns.as_ref().map_or(0, |columns| columns.len() as u16);
            let sent_order = if reversed { (1..=count).rev().collect() } else { Vec::new() };
            TableType { database, schema, name, columns, order, sent_order }
        })
        .boxed()
}

/// A parameter of an RPC, possibly a table.
pub(crate) fn parameter(dialect: Dialect) -> BoxedStrategy<Parameter> {
    let types = if dialect.version.generation() >= 3 {
        let table = table_type(dialect).prop_map(|table| TypeInfo::Table(Box::new(table)));
        prop_oneof![8 => type_info(dialect, true), 1 => table].boxed()
    } else {
        type_info(dialect, true)
    };
    let cipher = (type_info(dialect, true), 0u8..3, name(), any::<(u8, u32, u32, u32, u64, u8)>()).prop_map(
        |(base_type, algorithm, name, rest)| CipherInfo {
            base_type,
            algorithm,
            algorithm_name: (algorithm == 0).then_some(name),
            encryption_type: rest.0,
            database_id: rest.1,
            key_id: rest.2,
            key_version: rest.3,
            metadata_version: rest.4,
            normalization: rest.5,
        },
    );
    let cipher = if dialect.column_encryption > 0 {
        proptest::option::of(cipher.prop_map(Box::new)).boxed()
    } else {
        Just(None).boxed()
    };
    types
        .prop_flat_map(|type_info| {
            let value = match &type_info {
                TypeInfo::Table(_) => filled(&type_info),
                _ => value(&type_info),
            };
            (Just(type_info), value)
        })
        .prop_flat_map(move |(type_info, value)| {
            ("@\\PC{0,10}|", 0u8..4, Just(type_info), Just(value), cipher.clone())
        })
        .prop_map(|(name, flags, type_info, value, cipher)| {
            let encrypted = if cipher.is_some() { ParamFlags::ENCRYPTED.0 } else { 0 };
            Parameter { name, flags: ParamFlags(flags | encrypted), type_info, value, cipher }
        })
        .boxed()
}

/// An output parameter, possibly an encrypted one.
pub(crate) fn return_value(dialect: Dialect) -> BoxedStrategy<ReturnValue> {
    let typed = type_info(dialect, false).prop_flat_map(|type_info| {
        let value = value(&type_info);
        (Just(type_info), value)
    });
    let crypto = if dialect.column_encryption > 0 {
        proptest::option::of(crypto(dialect)).boxed()
    } else {
        Just(None).boxed()
    };
    (typed, any::<(u16, u8, u16)>(), name(), crypto)
        .prop_map(|((type_info, value), (ordinal, status, user_type), name, crypto)| {
            let mut token = ReturnValue::new(ordinal, name, type_info, value);
            token.status = status;
            token.user_type = u32::from(user_type);
            if let Some(crypto) = crypto {
                token.flags = ColumnFlags::ENCRYPTED;
                // A return value has no table of keys to point into.
                token.crypto = Some(Box::new(CryptoMetadata { ordinal: 0, ..crypto }));
            }
            token
        })
        .boxed()
}
