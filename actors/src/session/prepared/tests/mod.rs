//! Prepared handles against a server of a few lines: whatever sessions and connections do, each client sees what it would
//! see on a connection of its own.

mod model;
mod table;

use model::{Ask, Client, Deed, Pool};
use proptest::collection::vec;
use proptest::prelude::*;

fn ask() -> impl Strategy<Value = Ask> {
    // Few texts and numbers, so that they meet.
    let text = prop_oneof![8 => 0u8..5, 1 => Just(model::BROKEN), 1 => Just(model::WITHOUT_HANDLE), 1 => Just(model::HALF_BROKEN)];
    let number = prop_oneof![8 => 0i32..9, 1 => any::<i32>(), 1 => -2i32..40];
    let deed = prop_oneof![
        2 => Just(Deed::Prepare),
        4 => Just(Deed::PrepExec),
        1 => Just(Deed::PrepExecRpc),
        8 => Just(Deed::Execute),
        2 => Just(Deed::Unprepare),
        1 => Just(Deed::Other),
    ];
    (deed, text, proptest::option::weighted(0.9, number), vec(any::<bool>(), 0..4), 0u8..4)
        .prop_map(|(deed, text, number, outputs, style)| Ask { deed, text, number, outputs, style })
}

#[derive(Clone, Debug)]
enum Step {
    /// A client's request on a connection, in pieces perhaps.
    Request(usize, usize, Vec<Ask>, Option<(usize, usize)>),
    /// A connection is reset.
    Reset(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let asks = prop_oneof![4 => vec(ask(), 1..2), 1 => vec(ask(), 2..5)];
    prop_oneof![
        20 => (0usize..3, 0usize..3, asks, proptest::option::of((0usize..200, 1usize..100)))
            .prop_map(|(client, on, asks, pieces)| Step::Request(client, on, asks, pieces)),
        1 => (0usize..3).prop_map(Step::Reset),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn each_client_sees_what_it_would_see_on_a_connection_of_its_own(
        steps in vec(step(), 1..60),
        limit in 1usize..8,
    ) {
        let mut pool = Pool::new(3, limit);
        let mut clients: Vec<Client> = (0..3).map(|_| Client::default()).collect();
        for step in steps {
            match step {
                Step::Reset(on) => pool.reset(on),
                Step::Request(client, on, asks, pieces) => {
                    let (seen, direct) = clients[client].request_in_pieces(&asks, pieces, &mut pool, on);
                    prop_assert_eq!(seen, direct, "client {} on {}: {:?}", client, on, asks);
                }
            }
        }
        for client in &clients {
            prop_assert!(!client.statements.tie());
        }
    }
}
