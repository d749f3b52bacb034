//! What no client should send, at every stage: each ends with a clear error or a close within its timeout, with
//! nothing leaked, unnoticed by others, and the next client is served.

mod client;

use std::sync::Arc;
use std::time::Duration;

use client::raw::{self, Random};
use client::stage::Stage;
use client::{Client, Who};
use tds::encryption::ServerTls;
use tdsbouncer_config::{ClientTls, ClientTlsMode, Config};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// Timeouts that a test can wait for.
fn hurry(config: &mut Config) {
    let timeouts = &mut config.timeouts;
    (timeouts.login, timeouts.tls_handshake) = (Duration::from_secs(1), Duration::from_secs(1));
    timeouts.request = Duration::from_secs(1);
    timeouts.client_write = Some(Duration::from_secs(1));
    timeouts.attention = Duration::from_millis(300);
}

async fn impatient() -> Stage {
    Stage::set(4, |_| {}, hurry).await
}

async fn impatient_with_tls() -> Stage {
    let tls = |config: &mut Config| {
        hurry(config);
        let listener = config.listeners.first_mut().and_then(Arc::get_mut).expect("nobody else has it");
        listener.tls = ClientTls::self_signed(ClientTlsMode::On);
        listener.tls.strict = true;
    };
    Stage::set(4, |_| {}, tls).await
}

/// Has each conversation held by a client of its own, some at a time, until the proxy ends it.
async fn hold_all<F, Fut>(stage: &Stage, conversations: usize, hold: F)
where
    F: Fn(TcpStream, usize) -> Fut,
    Fut: Future<Output = ()> + Send + 'static,
{
    let mut held = JoinSet::new();
    for n in 0..conversations {
        if held.len() >= 50 {
            held.join_next().await.expect("there are some").expect("it was ended");
        }
        held.spawn(hold(raw::connect(stage.address).await, n));
    }
    while let Some(ended) = held.join_next().await {
        ended.expect("it was ended");
    }
    stage.is_well().await;
}

/// Sends each input on a connection of its own, says nothing more, and waits until the proxy ends it.
async fn all_are_ended(stage: &Stage, inputs: Vec<Vec<u8>>) {
    let inputs = Arc::new(inputs);
    hold_all(stage, inputs.len(), |mut socket, n| {
        let inputs = Arc::clone(&inputs);
        async move {
            raw::send(&mut socket, &inputs[n]).await;
            raw::until_ended(&mut socket).await;
        }
    })
    .await;
}

/// What no client begins with.
fn strange_beginnings() -> Vec<Vec<u8>> {
    let mut inputs = vec![
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
        b"SSH-2.0-OpenSSH_9.6\r\n".to_vec(),
        vec![0; 64],
        vec![0xFF; 64],
        vec![0x12],
        b"\x16\x03\x01\x02\x00\x01\x00".to_vec(),
        // A login from before TDS 7, a request, a cancel and a response before any login.
        raw::packet(0x02, 1, 16, &[0; 8]),
        raw::packet(0x01, 1, 16, &[0; 8]),
        raw::packet(0x06, 1, 8, &[]),
        raw::packet(0x04, 1, 8, &[]),
        // PRELOGINs without an option, without a terminator, with options that point nowhere, and very long ones.
        raw::packet(0x12, 1, 8, &[]),
        raw::packet(0x12, 1, 13, &[0, 0, 6, 0, 6]),
        raw::packet(0x12, 1, 14, &[1, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF]),
        raw::packet(0x12, 0, 4096, &[0; 4088]).repeat(50),
        // LOGIN7 at once: empty, nonsense, and longer than any.
        raw::packet(0x10, 1, 8, &[]),
        raw::packet(0x10, 1, 4096, &[0xFF; 4088]),
        raw::packet(0x10, 0, 4096, &[0; 4088]).repeat(50),
    ];
    inputs.extend((0..8).chain([4097, 32_768, 65_535]).map(|length| raw::packet(0x12, 1, length, &[0; 64])));
    inputs
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_prelogin_ends_the_connection() {
    all_are_ended(&impatient().await, strange_beginnings()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_cut_off_anywhere_ends_with_its_client() {
    let stage = impatient().await;
    let (prelogin, login) = (raw::prelogin(ServerTls::Never), raw::login(&Who::default()));
    let whole = Arc::new([prelogin, login].concat());
    hold_all(&stage, whole.len(), |mut socket, cut| {
        let whole = Arc::clone(&whole);
        async move {
            raw::send(&mut socket, &whole[..cut]).await;
            raw::hang_up(&mut socket).await;
            raw::until_ended(&mut socket).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_with_any_byte_wrong_is_answered_or_ended() {
    let stage = impatient().await;
    // Nobody else's: some of the wrong bytes ask for a new password.
    let user = tdsbouncer_sim::User::new("eva", "Eva-passw0rd");
    let eva = Who { user: user.name.clone(), password: user.password.clone(), ..Who::default() };
    stage.server.add_user(user);
    let (prelogin, login) = (raw::prelogin(ServerTls::Never), raw::login(&eva));
    let whole = Arc::new([prelogin.clone(), login].concat());
    hold_all(&stage, 2 * whole.len(), |mut socket, n| {
        let (whole, first) = (Arc::clone(&whole), prelogin.len());
        async move {
            let (at, wrong) = (n / 2, if n % 2 == 0 { 0xFF } else { 0x01 });
            let mut bytes = whole.to_vec();
            bytes[at] ^= wrong;
            raw::send(&mut socket, &bytes[..first]).await;
            raw::messages(&mut socket, 1).await;
            raw::send(&mut socket, &bytes[first..]).await;
            raw::messages(&mut socket, 1).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_tls_where_tls_should_be_ends_the_connection() {
    let stage = impatient_with_tls().await;
    let prelogin = raw::prelogin(ServerTls::On);
    let hello = [&b"\x16\x03\x01\x00\x40\x01\x00\x00\x3c\x03\x03"[..], &[7; 32]].concat();
    let instead = vec![
        vec![],
        vec![0xFF; 300],
        raw::packet(0x12, 1, 300, &[0xFF; 292]),
        raw::packet(0x12, 1, 8, &[]),
        raw::packet(0x12, 1, 5, &[]),
        raw::packet(0x12, 1, 100, b"\x16\x03\x03"),
        raw::packet(0x12, 0, 4096, &[0x16; 4088]).repeat(100),
        raw::packet(0x12, 1, 8 + u16::try_from(hello.len()).unwrap(), &hello),
        hello.clone(),
        raw::login(&Who::default()),
    ];
    let mut inputs: Vec<Vec<u8>> = instead.iter().map(|bytes| [&prelogin[..], bytes].concat()).collect();
    // The same where TDS 8.0 begins: with TLS.
    inputs.extend([hello.clone(), [&hello[..], &[0; 40]].concat(), b"\x16\x03\x01\xFF\xFF".to_vec()]);
    all_are_ended(&stage, inputs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_says_nothing_is_let_go() {
    all_are_ended(&impatient().await, vec![vec![]; 20]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_trickles_is_let_go() {
    let stage = impatient().await;
    let whole = Arc::new([raw::prelogin(ServerTls::Never), raw::login(&Who::default())].concat());
    hold_all(&stage, 10, |socket, _| {
        let whole = Arc::clone(&whole);
        async move {
            let (mut reads, mut writes) = socket.into_split();
            let trickle = tokio::spawn(async move {
                for byte in whole.iter() {
                    if writes.write_all(&[*byte]).await.is_err() {
                        return;
                    }
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            });
            raw::until_ended(&mut reads).await;
            trickle.abort();
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_place_is_free_again_after_each_bad_client() {
    let stage = Stage::set(
        2,
        |_| {},
        |config| {
            hurry(config);
            config.limits.max_handshakes = 2;
        },
    )
    .await;
    all_are_ended(&stage, vec![vec![]; 6]).await;
    all_are_ended(&stage, strange_beginnings()).await;
}

/// What no logged-in client may send.
fn strange_packets() -> Vec<Vec<u8>> {
    let kinds = [0u8, 2, 4, 8, 0x0B, 0x10, 0x11, 0x12, 0x16, 0x7F, 0xFF];
    let mut inputs: Vec<Vec<u8>> = kinds.map(|kind| raw::packet(kind, 1, 8, &[])).into();
    inputs.extend((0..8).chain([32_768, 65_535]).map(|length| raw::packet(1, 1, length, &[])));
    inputs.push(raw::login(&Who::default()));
    inputs.push(raw::prelogin(ServerTls::Never));
    inputs.push(raw::packet(0x10, 0, 4096, &[1; 4088]).repeat(40));
    inputs
}

/// Sends each of the strange packets behind what `prepare` did, and returns what the client was told at last.
async fn told_about<F, Fut>(stage: &Stage, prepare: F) -> Vec<(Vec<u8>, Vec<i32>)>
where
    F: Fn(Client) -> Fut,
    Fut: Future<Output = Client>,
{
    let mut sibling = Client::connect(stage.address, &Who::application("sibling")).await;
    sibling.batch("CREATE TABLE #mine (n int)").await;
    let mut told = Vec::new();
    for packet in strange_packets() {
        let mut client = prepare(Client::connect(stage.address, &Who::default()).await).await;
        raw::send(&mut client.socket, &packet).await;
        let heard = raw::until_ended(&mut client.socket).await;
        told.push((packet, raw::errors(&heard).iter().map(|error| error.number).collect()));
        assert_eq!(sibling.batch("SELECT COUNT(*) FROM #mine").await.number(), 0);
    }
    drop(sibling);
    stage.is_well().await;
    told
}

#[track_caller]
fn all_are_told(told: Vec<(Vec<u8>, Vec<i32>)>) {
    for (packet, errors) in told {
        assert_eq!(errors, [50001], "{:?}", &packet[..8]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_sends_no_request_first_is_told() {
    all_are_told(told_about(&impatient().await, |client| async { client }).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_client_is_told_last_is_not_destroyed_by_a_reset() {
    let stage = impatient().await;
    let mut client = Client::connect(stage.address, &Who::default()).await;
    raw::send(&mut client.socket, &raw::packet(0x10, 0, 4096, &[1; 4088]).repeat(40)).await;
    assert!(client.read_to_end().await.unwrap() > 0, "an ordinary end, behind the error");
    drop(client);
    stage.is_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_sends_no_request_after_one_is_told() {
    let after_one = |mut client: Client| async {
        client.batch("SELECT 1").await;
        client
    };
    all_are_told(told_about(&impatient().await, after_one).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_breaks_off_in_a_request_is_told() {
    let in_a_request = |mut client: Client| async {
        client.send_raw(&raw::packet(1, 0, 512, &[0; 504])).await.unwrap();
        client
    };
    all_are_told(told_about(&impatient().await, in_a_request).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_breaks_the_protocol_while_its_request_runs_is_told() {
    let while_running = |mut client: Client| async {
        client.batch("SELECT 1").await;
        client.send_batch("WAITFOR DELAY '00:01:00'").await.unwrap();
        client
    };
    all_are_told(told_about(&impatient().await, while_running).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_breaks_the_protocol_while_it_waits_for_its_turn_is_told() {
    let stage = Stage::set(2, |_| {}, hurry).await;
    let mut holding = Client::connect(stage.address, &Who::default()).await;
    holding.batch("SELECT 1").await;
    // `told_about` keeps the other connection busy with its sibling.
    let waiting = |mut client: Client| async {
        client.send_batch("SELECT 1").await.unwrap();
        stage.until("it waits", |stage| stage.proxy.health().buckets[0].waiting == 1).await;
        client
    };
    let mut sibling = Client::connect(stage.address, &Who::application("sibling")).await;
    sibling.batch("SELECT 1").await;
    for packet in strange_packets() {
        let mut client = waiting(Client::connect(stage.address, &Who::default()).await).await;
        raw::send(&mut client.socket, &packet).await;
        let heard = raw::until_ended(&mut client.socket).await;
        all_are_told(vec![(packet, raw::errors(&heard).iter().map(|error| error.number).collect())]);
    }
    drop((holding, sibling));
    stage.is_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_packet_longer_than_agreed_is_for_the_server_to_judge() {
    let stage = impatient().await;
    for length in [4097u16, 8192, 32_767] {
        let mut client = Client::connect(stage.address, &Who::default()).await;
        let payload = b" \0".repeat(16_384);
        let packet = raw::packet(1, 1, length, &payload[..usize::from(length) - 8]);
        raw::send(&mut client.socket, &packet).await;
        raw::hang_up(&mut client.socket).await;
        raw::until_ended(&mut client.socket).await;
        stage.is_well().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_stops_in_the_middle_of_a_request_is_let_go() {
    let stage = impatient().await;
    let pieces = [vec![1], raw::packet(1, 0, 512, &[0; 100]), raw::packet(1, 0, 512, &[0; 504])];
    for piece in pieces {
        for requests_before in 0..2 {
            let mut client = Client::connect(stage.address, &Who::default()).await;
            for _ in 0..requests_before {
                client.batch("SELECT 1").await;
            }
            raw::send(&mut client.socket, &piece).await;
            raw::until_ended(&mut client.socket).await;
            stage.is_well().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_never_reads_holds_up_its_own_server_connection_and_nobody_else() {
    let stage = Stage::set(
        4,
        |_| {},
        |config| {
            hurry(config);
            config.timeouts.client_write = Some(Duration::from_secs(4));
        },
    )
    .await;
    let mut deaf = Client::connect(stage.address, &Who::application("deaf")).await;
    deaf.send_batch("SELECT * FROM dbo.generate_rows(1000000, 4000)").await.unwrap();
    let mut sibling = Client::connect(stage.address, &Who::default()).await;
    let mut before = None;
    // Once no more is relayed, all buffers on the way are full: about 16 GB are still on the server's side.
    while before != Some(relayed(&stage)) {
        before = Some(relayed(&stage));
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    assert!(relayed(&stage) < 64 << 20, "{} bytes", relayed(&stage));
    for n in 0..50 {
        assert_eq!(sibling.batch(&format!("SELECT {n}")).await.number(), n);
    }
    assert_eq!(stage.proxy.health().buckets[0].leased, 2, "the deaf one was not let go so far");
    drop(sibling);
    // Its session ends although it never looks.
    stage.is_well().await;
    raw::until_ended(&mut deaf.socket).await;
}

/// Bytes that went to clients so far.
fn relayed(stage: &Stage) -> u64 {
    let text = stage.proxy.metrics_text();
    let line = text.lines().find(|line| {
        line.starts_with("tdsbouncer_relayed_bytes_total") && line.contains("direction=\"to_client\"")
    });
    line.and_then(|line| line.rsplit(' ').next()).and_then(|n| n.parse().ok()).expect("the counter is there")
}

#[tokio::test(flavor = "multi_thread")]
async fn random_bytes_at_any_stage_end_and_leave_nothing_behind() {
    let stage = impatient().await;
    let prelogin = Arc::new(raw::prelogin(ServerTls::Never));
    let login = Arc::new(raw::login(&Who::default()));
    hold_all(&stage, 400, |mut socket, seed| {
        let (prelogin, login) = (Arc::clone(&prelogin), Arc::clone(&login));
        async move {
            let mut random = Random::new(seed as u64);
            let stages = random.below(4);
            if stages >= 1 {
                raw::send(&mut socket, &prelogin).await;
            }
            if stages >= 2 {
                raw::send(&mut socket, &login).await;
                raw::messages(&mut socket, 2).await;
            }
            for _ in 0..1 + random.below(6) {
                raw::send(&mut socket, &nonsense(&mut random)).await;
                if random.below(3) == 0 {
                    tokio::task::yield_now().await;
                }
            }
            raw::hang_up(&mut socket).await;
            raw::until_ended(&mut socket).await;
        }
    })
    .await;
}

/// Random bytes, often in a packet whose header looks good.
fn nonsense(random: &mut Random) -> Vec<u8> {
    let length = random.below(6000);
    let payload = random.bytes(length);
    let true_length = u16::try_from(length + 8).expect("short");
    let requests = [0x01, 0x03, 0x06, 0x07, 0x0E, 0x12, 0x10, 0x11];
    match random.below(4) {
        0 => payload,
        1 => raw::packet(random.byte(), random.byte(), true_length, &payload),
        2 => raw::packet(requests[random.below(5)], 1, true_length, &payload),
        _ => raw::packet(requests[random.below(requests.len())], random.byte() & 0x1B, true_length, &payload),
    }
}
