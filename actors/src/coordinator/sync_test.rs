//! Holds sync.lua and ledger.rs together: a real Redis and the simulation's decide the same, request by request.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use deadpool_redis::redis::{AsyncConnectionConfig, Client, PushInfo, PushKind, Script, Value, cmd};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::encoding::{self, Said};
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

/// One bucket's model, and how far its members have counted.
struct Pair {
    ledger: Ledger,
    seqs: [u64; 6],
    clocks: [u64; 6],
}

/// Time, and what becomes of Redis.
struct Fate {
    now: u64,
    life: u32,
    random: SmallRng,
}

impl Fate {
    /// Something that a proxy could say, or could not.
    fn request(&mut self, pair: &mut Pair) -> Sync {
        let random = &mut self.random;
        let who = random.random_range(0..6usize);
        let member = ["a/1", "a/2", "b/1", "b-2/1", "c/1", "c/2"][who];
        if random.random_bool(0.95) {
            pair.seqs[who] += 1;
        }
        let life = self.life - u32::from(random.random_bool(0.02) && self.life > 0);
        let waiting = random.random_bool(0.5);
        Sync {
            member: member.to_owned(),
            seq: pair.seqs[who],
            life: format!("life{life}"),
            stamp: if random.random_bool(0.97) { pair.ledger.clock } else { pair.clocks[who] },
            join: random.random_bool(0.7),
            fresh: random.random_bool(0.5),
            leave: random.random_bool(0.06),
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

const BUCKETS: [&str; 5] = ["b0", "b1", "b2", "b3", "b4"];

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
    let mut fate = Fate { now: 1_700_000_000_000, life: 1, random: SmallRng::seed_from_u64(1) };
    let mut pairs = BUCKETS.map(|_| Pair { ledger: Ledger::default(), seqs: [0; 6], clocks: [0; 6] });
    let mut woken = 0;
    for step in 0..1500 {
        fate.time_passes();
        let said = Said { now: fate.now.to_string(), life: format!("life{}", fate.life) };
        let (mut batch, mut expected, mut wakes) = (Vec::new(), Vec::new(), Vec::new());
        for (bucket, pair) in BUCKETS.iter().zip(&mut pairs) {
            if fate.random.random_bool(0.4) {
                continue;
            }
            let request = fate.request(pair);
            let (answer, wake) = pair.ledger.sync(fate.now, &said.life, &request);
            if let Answer::Hello { clock, .. } = &answer {
                pair.clocks = [*clock; 6];
            }
            batch.push((*bucket, request));
            expected.push(answer);
            wakes.extend(wake.map(|wake| (*bucket, wake)));
        }
        if batch.is_empty() {
            continue;
        }
        let mut invocation = script.prepare_invoke();
        encoding::arguments(&mut invocation, &keys, &said, batch.iter().map(|(name, of)| (*name, of)));
        let value: Value = invocation.invoke_async(&mut connection).await.unwrap();
        let answers: Result<Vec<Answer>, _> =
            encoding::answers(&value, batch.len()).unwrap().into_iter().collect();
        assert_eq!(answers.unwrap(), expected, "step {step}: {batch:?}");
        for (bucket, wake) in wakes {
            let message = tokio::time::timeout(Duration::from_secs(30), next(&mut messages)).await.unwrap();
            assert_eq!(encoding::wake(&message), Some((bucket, wake)), "step {step}");
            woken += 1;
        }
    }
    assert!(woken > 100, "{woken}");
}

#[tokio::test]
async fn a_lost_script_is_loaded_again_and_one_buckets_trouble_is_its_own() {
    let server = Server::start();
    let client = Client::open(format!("redis://127.0.0.1:{}", server.port)).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let (keys, script) = (Keys::new("test"), Script::new(include_str!("sync.lua")));
    let mut fate = Fate { now: 0, life: 1, random: SmallRng::seed_from_u64(9) };
    let mut pair = Pair { ledger: Ledger::default(), seqs: [0; 6], clocks: [0; 6] };
    let requests = [("good", fate.request(&mut pair)), ("bad", fate.request(&mut pair))];
    // Somebody else's key in the place of a bucket's.
    let () = cmd("SET").arg(keys.bucket("bad")).arg("x").query_async(&mut connection).await.unwrap();
    for of in [0..2, 0..2, 1..2] {
        let lost: String = cmd("SCRIPT").arg("FLUSH").query_async(&mut connection).await.unwrap();
        assert_eq!(lost, "OK");
        let mut invocation = script.prepare_invoke();
        let batch = requests[of].iter().map(|(bucket, request)| (*bucket, request));
        encoding::arguments(&mut invocation, &keys, &Said::default(), batch.clone());
        let value: Result<Value, _> = invocation.invoke_async(&mut connection).await;
        if batch.count() == 1 {
            assert!(value.unwrap_err().to_string().contains("WRONGTYPE"));
            continue;
        }
        let answers = encoding::answers(&value.unwrap(), 2).unwrap();
        assert!(matches!(&answers[0], Ok(Answer::Hello { .. })), "{answers:?}");
        assert!(answers[1].as_ref().unwrap_err().to_string().contains("WRONGTYPE"), "{answers:?}");
    }
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
