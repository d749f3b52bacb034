//! Holds sync.lua and ledger.rs together: a real Redis and the simulation's decide the same, request by request.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use deadpool_redis::redis::{AsyncConnectionConfig, Client, PushInfo, PushKind, Script, Value, cmd};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::encoding;
use super::keys::Keys;
use super::ledger::Ledger;
use super::request::{Answer, Sync, Told};

/// A redis-server of its own, without persistence.
struct Server {
    child: Child,
    port: u16,
    _folder: tempfile::TempDir,
}

impl Server {
    fn start() -> Self {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new("redis-server");
        command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--dir"]);
        command.arg(folder.path()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("redis-server is installed (tests/run installs it)");
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        for line in lines.map_while(Result::ok) {
            if line.contains("Ready to accept connections") {
                break;
            }
        }
        Self { child, port, _folder: folder }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Pair {
    now: u64,
    life: u32,
    ledger: Ledger,
    random: SmallRng,
    seqs: [u64; 6],
    clocks: [u64; 6],
}

impl Pair {
    /// Something that a proxy could say, or could not.
    fn request(&mut self) -> Sync {
        let random = &mut self.random;
        let who = random.random_range(0..6usize);
        let member = ["a/1", "a/2", "b/1", "b-2/1", "c/1", "c/2"][who];
        if random.random_bool(0.95) {
            self.seqs[who] += 1;
        }
        let life = self.life - u32::from(random.random_bool(0.02) && self.life > 0);
        let waiting = random.random_bool(0.5);
        Sync {
            member: member.to_owned(),
            seq: self.seqs[who],
            life: format!("life{life}"),
            stamp: if random.random_bool(0.97) { self.ledger.clock } else { self.clocks[who] },
            join: random.random_bool(0.7),
            fresh: random.random_bool(0.5),
            leave: random.random_bool(0.03),
            held: random.random_range(0..12),
            claim: random.random_bool(0.1),
            want: random.random_range(0..25),
            waiting_ms: if waiting { random.random_range(1..5000) } else { 0 },
            limit: if random.random_bool(0.95) { 20 } else { 12 },
            expected: if random.random_bool(0.9) { 3 } else { 0 },
            lease_ms: 1000,
            fallback_ms: 4000,
            told: Told { used: 1, waiting: 2, round_trip_us: 345 },
        }
    }

    fn time_passes(&mut self) {
        let random = &mut self.random;
        self.now = match random.random_range(0..40) {
            0 => self.now.saturating_sub(5000),
            1 => self.now + random.random_range(300..5000),
            _ => self.now + random.random_range(0..150),
        };
        self.life += u32::from(random.random_bool(0.005));
    }
}

#[tokio::test]
async fn the_script_and_its_model_decide_the_same() {
    let server = Server::start();
    let client = Client::open(format!("redis://127.0.0.1:{}?protocol=resp3", server.port)).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let (to, mut messages) = unbounded_channel();
    let config = AsyncConnectionConfig::new().set_push_sender(to);
    let mut listener = client.get_multiplexed_async_connection_with_config(&config).await.unwrap();
    let keys = Keys::new("test");
    listener.subscribe(keys.wake()).await.unwrap();
    let script = Script::new(include_str!("sync.lua"));
    let mut woken = 0;
    for seed in 0..6 {
        let mut pair = Pair {
            now: 1_700_000_000_000,
            life: 1,
            ledger: Ledger::default(),
            random: SmallRng::seed_from_u64(seed),
            seqs: [0; 6],
            clocks: [0; 6],
        };
        let bucket = format!("b{seed}");
        for step in 0..600 {
            pair.time_passes();
            let request = pair.request();
            let life = format!("life{}", pair.life);
            let (expected, wake) = pair.ledger.sync(pair.now, &life, &request);
            let mut invocation = script.key(keys.bucket(&bucket));
            encoding::arguments(&mut invocation, &keys.wake(), &bucket, &request);
            let answer: Value =
                invocation.arg(pair.now).arg(&life).invoke_async(&mut connection).await.unwrap();
            let answer = encoding::answer(&answer).unwrap();
            assert_eq!(answer, expected, "seed {seed}, step {step}: {request:?}\n{:#?}", pair.ledger);
            if let Some(wake) = wake {
                let message =
                    tokio::time::timeout(Duration::from_secs(30), next(&mut messages)).await.unwrap();
                assert_eq!(encoding::wake(&message), Some((&*bucket, wake)), "seed {seed}, step {step}");
                woken += 1;
            }
            if let Answer::Hello { clock, .. } = answer {
                pair.clocks = [clock; 6];
            }
        }
    }
    assert!(woken > 100, "{woken}");
    let lost: Option<String> = cmd("SCRIPT").arg("FLUSH").query_async(&mut connection).await.unwrap();
    assert_eq!(lost.as_deref(), Some("OK"));
    // A Redis that lost the script is given it again.
    let mut invocation = script.key(keys.bucket("other"));
    let mut pair = Pair {
        now: 0,
        life: 1,
        ledger: Ledger::default(),
        random: SmallRng::seed_from_u64(9),
        seqs: [0; 6],
        clocks: [0; 6],
    };
    encoding::arguments(&mut invocation, &keys.wake(), "other", &pair.request());
    let answer: Value = invocation.invoke_async(&mut connection).await.unwrap();
    assert!(matches!(encoding::answer(&answer), Ok(Answer::Hello { .. })), "{answer:?}");
}

async fn next(messages: &mut UnboundedReceiver<PushInfo>) -> String {
    loop {
        let push = messages.recv().await.unwrap();
        if push.kind == PushKind::Message
            && let Some(Value::BulkString(bytes)) = push.data.last()
        {
            return String::from_utf8(bytes.clone()).unwrap();
        }
    }
}
