//! Requests that proptest makes up.

use proptest::collection::vec;
use proptest::prelude::*;
use tds::Dialect;
use tds::request::{AllHeaders, EnclavePackage, QueryNotification, TraceActivity, TransactionDescriptor};
use tds::rpc::{Call, CallOptions, ProcId, Procedure, RpcRequest, Separator};

/// Any ALL_HEADERS.
pub(crate) fn all_headers() -> impl Strategy<Value = AllHeaders> {
    let notification = ("\\PC{0,20}", "\\PC{0,20}", any::<Option<u32>>())
        .prop_map(|(id, deployment, timeout)| QueryNotification { id, deployment, timeout });
    let transaction = any::<(u64, u32)>().prop_map(|(descriptor, outstanding_requests)| {
        TransactionDescriptor { descriptor, outstanding_requests }
    });
    let activity = any::<([u8; 16], u32)>().prop_map(|(id, sequence)| TraceActivity { id, sequence });
    (proptest::option::of(notification), proptest::option::of(transaction), proptest::option::of(activity))
        .prop_map(|(query_notification, transaction, trace_activity)| AllHeaders {
            query_notification,
            transaction,
            trace_activity,
        })
}

/// ALL_HEADERS where the version has them.
pub(crate) fn headers(dialect: Dialect) -> BoxedStrategy<Option<AllHeaders>> {
    if dialect.is_7_2_or_later() { all_headers().prop_map(Some).boxed() } else { Just(None).boxed() }
}

/// An enclave package where requests have one.
pub(crate) fn enclave(dialect: Dialect) -> BoxedStrategy<EnclavePackage> {
    if dialect.column_encryption >= 2 {
        vec(any::<u8>(), 0..40).prop_map(EnclavePackage).boxed()
    } else {
        Just(EnclavePackage::default()).boxed()
    }
}

fn call(dialect: Dialect) -> impl Strategy<Value = Call> {
    let procedure = prop_oneof![
        any::<u16>().prop_map(|id| Procedure::Id(ProcId(id))),
        "\\PC{0,60}".prop_map(Procedure::Name),
    ];
    let no_exec = any::<bool>().prop_map(move |no_exec| {
        if no_exec && dialect.is_7_2_or_later() { Separator::NoExec } else { Separator::Batch }
    });
    (procedure, 0u16..8, enclave(dialect), vec(super::parameter(dialect), 0..6), no_exec).prop_map(
        |(procedure, options, enclave, parameters, separator)| Call {
            procedure,
            options: CallOptions(options),
            enclave,
            parameters,
            separator: Some(separator),
        },
    )
}

/// A call of one or several procedures.
pub(crate) fn rpc_request() -> impl Strategy<Value = (Dialect, RpcRequest)> {
    super::dialect().prop_flat_map(|dialect| {
        (headers(dialect), vec(call(dialect), 1..4), any::<bool>()).prop_map(
            move |(headers, mut calls, ends_with_flag)| {
                if let Some(last) = calls.last_mut().filter(|_| !ends_with_flag) {
                    last.separator = None;
                }
                (dialect, RpcRequest { headers, calls })
            },
        )
    })
}
