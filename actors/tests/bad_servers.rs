//! What no server should do: hang, vanish, or say what is no answer. Its client gets a clear error or a close within
//! the timeout, nothing is leaked, and the next client is served by a server that is well.

mod client;

use std::time::Duration;

use client::bad_server::{Meddler, Then, saying};
use client::raw;
use client::stage::Stage;
use client::{Client, LoggedIn, Who};
use tds::encryption::ServerTls;
use tdsbouncer_config::{Bucket, Config};
use tdsbouncer_sim::Fault;

fn hurry(config: &mut Config) {
    config.timeouts.attention = Duration::from_millis(300);
}

fn impatient(bucket: &mut Bucket) {
    bucket.login_timeout = Duration::from_secs(1);
    bucket.connect_timeout = Duration::from_secs(1);
    bucket.acquire_timeout = Duration::from_secs(5);
    bucket.reset_timeout = Duration::from_secs(1);
    bucket.reconnect_backoff.max = bucket.reconnect_backoff.min;
}

async fn stage() -> Stage {
    Stage::set(2, impatient, hurry).await
}

/// The numbers of the errors at the end of what a client still hears.
async fn last_words(client: &mut Client) -> Vec<i32> {
    raw::errors(&raw::until_ended(&mut client.socket).await).iter().map(|error| error.number).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_dies_before_it_answers_is_told_to_its_client() {
    let stage = stage().await;
    for fault in [Fault::DropOnRequest, Fault::DropAfterExecution] {
        let mut client = Client::connect(stage.address, &Who::default()).await;
        stage.server.faults().arm_times(fault.clone(), 1);
        client.send_batch("SELECT 1").await.unwrap();
        assert_eq!(last_words(&mut client).await, [50001], "{fault:?}");
        stage.is_well().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_dies_in_the_middle_of_a_row_closes_its_clients_connection() {
    let stage = stage().await;
    let mut sibling = Client::connect(stage.address, &Who::default()).await;
    sibling.batch("CREATE TABLE #mine (n int)").await;
    for after in [0, 1, 50, 5_000, 50_000] {
        for fault in [Fault::DropInResponse { after }, Fault::GarbageInResponse { after }] {
            let mut client = Client::connect(stage.address, &Who::default()).await;
            client.batch("SELECT 1").await;
            stage.server.faults().arm_times(fault.clone(), 1);
            client.send_batch("SELECT * FROM dbo.generate_rows(1000, 100)").await.unwrap();
            raw::until_ended(&mut client.socket).await;
            assert_eq!(sibling.batch("SELECT COUNT(*) FROM #mine").await.number(), 0, "{fault:?}");
        }
    }
    drop(sibling);
    stage.is_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_does_not_acknowledge_an_attention_is_given_up() {
    let stage = stage().await;
    let hangs = [Fault::HangOnRequest, Fault::HangInResponse { after: 5 }, Fault::AttentionIgnored];
    for fault in hangs {
        let mut client = Client::connect(stage.address, &Who::default()).await;
        client.batch("SELECT 1").await;
        stage.server.faults().arm_times(fault.clone(), 1);
        client.send_batch("WAITFOR DELAY '00:01:00'").await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        client.attention().await.unwrap();
        raw::until_ended(&mut client.socket).await;
        stage.server.faults().clear();
        stage.is_well().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_dies_between_requests_ends_the_session_that_holds_it() {
    let stage = stage().await;
    let mut client = Client::connect(stage.address, &Who::default()).await;
    client.batch("SELECT 1").await;
    stage.server.faults().arm_times(Fault::DropWhenIdle, 1);
    // Before it or after it: the server may not have come to rest yet.
    let _ = client.try_batch("SELECT 1").await;
    raw::until_ended(&mut client.socket).await;
    stage.is_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_on_which_the_server_spoke_unasked_is_never_lent_again() {
    let stage = stage().await;
    let mut client = Client::connect(stage.address, &Who::default()).await;
    stage.server.faults().arm_times(Fault::StrayBytes, 1);
    client.send_batch("SELECT 1").await.unwrap();
    raw::messages(&mut client.socket, 2).await;
    drop(client);
    stage.is_well().await;
    assert_eq!(stage.server.stats().logins, 2);
}

/// No packet has a length of 0; a packet of another type than a response comes from no server.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_on_which_the_server_sent_no_packet_is_never_lent_again() {
    for words in [raw::packet(4, 1, 0, &[]), raw::packet(1, 1, 8, &[]), vec![4, 1, 0]] {
        let stage = stage().await;
        let meddler = Meddler::before(stage.server.addr(), words.clone()).await;
        let through = |bucket: &mut Bucket| {
            impatient(bucket);
            bucket.port = meddler.address.port();
        };
        let stage = Stage::on(stage.server, 2, through, hurry).await;
        let mut client = Client::connect(stage.address, &Who::default()).await;
        client.batch("SELECT 1").await;
        meddler.speak();
        if words.len() >= 8 {
            raw::until_ended(&mut client.socket).await;
        } else {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        drop(client);
        stage.is_well().await;
        assert_eq!(stage.server.stats().logins, 2, "{words:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_takes_no_login_is_told_to_the_client_and_tried_again_for_the_next() {
    for fault in [
        Fault::RefuseConnections,
        Fault::HangAtAccept,
        Fault::HangAtLogin,
        Fault::DropAtLogin,
        Fault::ErrorAtLogin { number: 4064, class: 11 },
    ] {
        let stage = stage().await;
        stage.server.faults().arm(fault.clone());
        let told = Client::refused(stage.address, &Who::default()).await;
        let expected =
            if matches!(fault, Fault::ErrorAtLogin { .. }) { [4064].as_slice() } else { &[40613, 10928] };
        assert!(expected.contains(&told[0].number), "{fault:?}: {told:?}");
        stage.server.faults().clear();
        // Clients that come before the next attempt are told at once.
        while let LoggedIn::No(told) = Client::try_connect(stage.address, &Who::default()).await.unwrap() {
            assert_eq!(told[0].number, 40613, "{fault:?}: {told:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        stage.is_well().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_none_is_told_to_the_client() {
    let prelogin_answer = {
        let mut answer = raw::prelogin(ServerTls::Never);
        answer[0] = 4;
        answer
    };
    let garbage = vec![0xA5; 5000];
    let endless = raw::packet(4, 0, 4096, &[0xAA; 4088]);
    let says: [(Vec<Vec<u8>>, Then); 12] = [
        (vec![], Then::Close),
        (vec![], Then::Hang),
        (vec![b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()], Then::Close),
        (vec![garbage.clone()], Then::Hang),
        (vec![vec![0]], Then::Repeat),
        (vec![endless.clone()], Then::Repeat),
        (vec![raw::packet(4, 1, 8, &[])], Then::Hang),
        (vec![prelogin_answer[..12].to_vec()], Then::Hang),
        (vec![prelogin_answer.clone(), garbage], Then::Hang),
        (vec![prelogin_answer.clone(), endless], Then::Repeat),
        (vec![prelogin_answer.clone(), raw::packet(4, 1, 8, &[])], Then::Hang),
        (vec![prelogin_answer, raw::packet(4, 1, 40, &[0xAD; 32])], Then::Close),
    ];
    for (says, then) in says {
        let shown = format!("{:?} {then:?}", says.iter().map(Vec::len).collect::<Vec<_>>());
        let address = saying(says, then).await;
        let elsewhere = |bucket: &mut Bucket| {
            impatient(bucket);
            bucket.port = address.port();
        };
        let stage = Stage::set(2, elsewhere, hurry).await;
        let told = Client::refused(stage.address, &Who::default()).await;
        assert!([40613, 10928].contains(&told[0].number), "{shown}: {told:?}");
        stage.until_everybody_left().await;
    }
}
