//! What the supervision tree relies on in ractor, said as tests: an update that changes one of these must fail here.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a failed test is a panic, and panics are what is tested"
)]

use ractor::rpc::CallResult;
use ractor::{
    Actor, ActorProcessingErr, ActorRef, ActorRuntime, ActorStatus, MessagingErr, RpcReplyPort, SpawnErr,
    SupervisionEvent,
};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::yield_now;

/// What happened, in order.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    fn note(&self, what: impl Into<String>) {
        self.0.lock().unwrap().push(what.into());
    }

    /// What happened since the last look, after everybody had time for it: one thread runs all of them.
    async fn take(&self) -> Vec<String> {
        for _ in 0..100 {
            yield_now().await;
        }
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

/// An actor that does as it is told and notes what happens to it.
struct Told;

enum Do {
    Note(&'static str),
    Panic,
    Fail,
    /// Waits in the handler.
    Wait(Arc<Notify>),
    Answer(RpcReplyPort<u32>),
    Forget(RpcReplyPort<u32>),
    Keep(RpcReplyPort<u32>),
    AskWhetherAnyoneListens,
}

struct Args {
    name: &'static str,
    log: Log,
    start: Start,
}

#[derive(PartialEq)]
enum Start {
    Well,
    Failing,
    Panicking,
}

/// The state: says when it goes.
struct Life {
    name: &'static str,
    log: Log,
    kept: Vec<RpcReplyPort<u32>>,
}

impl Drop for Life {
    fn drop(&mut self) {
        self.log.note(format!("{}: state dropped", self.name));
    }
}

impl Actor for Told {
    type Msg = Do;
    type State = Life;
    type Arguments = Args;

    async fn pre_start(&self, _: ActorRef<Do>, args: Args) -> Result<Life, ActorProcessingErr> {
        match args.start {
            Start::Well => Ok(Life { name: args.name, log: args.log, kept: Vec::new() }),
            Start::Failing => Err("told to fail".into()),
            Start::Panicking => panic!("told to panic"),
        }
    }

    async fn post_stop(&self, _: ActorRef<Do>, state: &mut Life) -> Result<(), ActorProcessingErr> {
        state.log.note(format!("{}: post_stop", state.name));
        Ok(())
    }

    async fn handle(&self, _: ActorRef<Do>, message: Do, state: &mut Life) -> Result<(), ActorProcessingErr> {
        match message {
            Do::Note(what) => state.log.note(format!("{}: {what}", state.name)),
            Do::Panic => panic!("told to panic"),
            Do::Fail => return Err("told to fail".into()),
            Do::Wait(until) => {
                state.log.note(format!("{}: waits", state.name));
                until.notified().await;
                state.log.note(format!("{}: waited", state.name));
            }
            Do::Answer(reply) => drop(reply.send(42)),
            Do::Forget(reply) => drop(reply),
            Do::Keep(reply) => state.kept.push(reply),
            Do::AskWhetherAnyoneListens => {
                let closed = state.kept.iter().filter(|reply| reply.is_closed()).count();
                state.log.note(format!("{}: {closed} of {} closed", state.name, state.kept.len()));
            }
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _: ActorRef<Do>,
        event: SupervisionEvent,
        state: &mut Life,
    ) -> Result<(), ActorProcessingErr> {
        let heard = match event {
            SupervisionEvent::ActorStarted(_) => "a child started".to_owned(),
            SupervisionEvent::ActorFailed(_, why) => format!("a child failed: {why}"),
            SupervisionEvent::ActorTerminated(_, state, why) => {
                format!(
                    "a child ended, {} its state: {}",
                    if state.is_some() { "with" } else { "without" },
                    why.unwrap_or_default()
                )
            }
            SupervisionEvent::ProcessGroupChanged(_) => "a group changed".to_owned(),
        };
        state.log.note(format!("{}: {heard}", state.name));
        Ok(())
    }
}

async fn alone(log: &Log) -> ActorRef<Do> {
    let args = Args { name: "parent", log: log.clone(), start: Start::Well };
    Actor::spawn(None, Told, args).await.unwrap().0
}

async fn try_child(of: &ActorRef<Do>, log: &Log, start: Start) -> Result<ActorRef<Do>, SpawnErr> {
    let args = Args { name: "child", log: log.clone(), start };
    Ok(Actor::spawn_linked(None, Told, args, of.get_cell()).await?.0)
}

/// A parent with a child that runs.
async fn family(log: &Log) -> (ActorRef<Do>, ActorRef<Do>) {
    let parent = alone(log).await;
    let child = try_child(&parent, log, Start::Well).await.unwrap();
    assert_eq!(log.take().await, ["parent: a child started"]);
    (parent, child)
}

#[tokio::test]
async fn a_panic_or_an_error_in_a_handler_reaches_the_supervisor_without_the_state() {
    let log = Log::default();
    for (message, why) in [(Do::Panic, "told to panic"), (Do::Fail, "told to fail")] {
        let (_parent, child) = family(&log).await;
        child.cast(message).unwrap();
        // No post_stop either: what must happen at an end happens in Drop.
        assert_eq!(
            log.take().await,
            ["child: state dropped".to_owned(), format!("parent: a child failed: {why}")]
        );
        assert_eq!(child.get_status(), ActorStatus::Stopped);
    }
}

#[tokio::test]
async fn a_supervisor_is_told_of_a_crash_before_the_crashed_state_is_dropped() {
    struct Crashes;
    /// Notes how far its actor's end is when it goes.
    struct Lasts(ActorRef<Do>, Log);
    impl Drop for Lasts {
        fn drop(&mut self) {
            self.1.note(format!("child: state dropped, {:?}", self.0.get_status()));
        }
    }
    impl Actor for Crashes {
        type Msg = Do;
        type State = Lasts;
        type Arguments = Log;
        async fn pre_start(&self, myself: ActorRef<Do>, log: Log) -> Result<Lasts, ActorProcessingErr> {
            Ok(Lasts(myself, log))
        }
        async fn handle(&self, _: ActorRef<Do>, _: Do, _: &mut Lasts) -> Result<(), ActorProcessingErr> {
            panic!("told to panic")
        }
    }
    let log = Log::default();
    let parent = alone(&log).await;
    let child = Actor::spawn_linked(None, Crashes, log.clone(), parent.get_cell()).await.unwrap().0;
    child.cast(Do::Panic).unwrap();
    // An actor is "Stopped" after its supervisor got the event, which may run on another thread at once: a successor
    // must not need what only the old state's Drop gives back.
    assert!(log.take().await.contains(&"child: state dropped, Stopped".to_owned()));
}

#[tokio::test]
async fn a_pre_start_that_fails_raises_no_event_and_says_so_to_the_spawner_only() {
    let log = Log::default();
    let parent = alone(&log).await;
    for start in [Start::Failing, Start::Panicking] {
        let refused = try_child(&parent, &log, start).await.map(|_| ()).unwrap_err();
        assert!(matches!(refused, SpawnErr::StartupFailed(_)), "{refused}");
    }
    assert_eq!(log.take().await, Vec::<String>::new());
}

#[tokio::test]
async fn pre_start_runs_in_the_task_of_the_spawner_and_post_start_in_its_own() {
    struct Where;
    impl Actor for Where {
        type Msg = ();
        type State = (tokio::task::Id, Arc<Mutex<Vec<tokio::task::Id>>>);
        type Arguments = Arc<Mutex<Vec<tokio::task::Id>>>;
        async fn pre_start(
            &self,
            _: ActorRef<()>,
            log: Self::Arguments,
        ) -> Result<Self::State, ActorProcessingErr> {
            Ok((tokio::task::id(), log))
        }
        async fn post_start(
            &self,
            _: ActorRef<()>,
            state: &mut Self::State,
        ) -> Result<(), ActorProcessingErr> {
            *state.1.lock().unwrap() = vec![state.0, tokio::task::id()];
            Ok(())
        }
    }
    let seen = Arc::default();
    let log = Arc::clone(&seen);
    let spawner = tokio::spawn(async move {
        let (actor, ended) = Actor::spawn(None, Where, log).await.unwrap();
        actor.stop_and_wait(None, None).await.unwrap();
        ended.await.unwrap();
        tokio::task::id()
    });
    let spawner = spawner.await.unwrap();
    let seen = seen.lock().unwrap().clone();
    assert!(seen[0] == spawner && seen[1] != spawner);
}

#[tokio::test]
async fn when_a_parent_ends_its_children_are_killed_without_post_stop() {
    let log = Log::default();
    let (parent, child) = family(&log).await;
    parent.stop(None);
    assert_eq!(log.take().await, ["parent: post_stop", "parent: state dropped", "child: state dropped"]);
    assert_eq!(child.get_status(), ActorStatus::Stopped);

    let (parent, child) = family(&log).await;
    let never = Arc::new(Notify::new());
    child.cast(Do::Wait(never)).unwrap();
    assert_eq!(log.take().await, ["child: waits"]);
    parent.cast(Do::Panic).unwrap();
    let happened = log.take().await;
    assert!(
        happened.contains(&"child: state dropped".to_owned()),
        "even in the middle of a handler: {happened:?}"
    );
    assert!(
        !happened.iter().any(|line| line.contains("post_stop") || line.contains("waited")),
        "{happened:?}"
    );
}

#[tokio::test]
async fn a_child_that_drains_outlives_its_parent() {
    let log = Log::default();
    let (parent, child) = family(&log).await;
    let until = Arc::new(Notify::new());
    child.cast(Do::Wait(Arc::clone(&until))).unwrap();
    child.cast(Do::Note("queued")).unwrap();
    assert_eq!(log.take().await, ["child: waits"]);
    child.drain().unwrap();
    parent.stop(None);
    // Whoever stops a tree from the bottom must wait for what drains, or kill it.
    assert_eq!(log.take().await, ["parent: post_stop", "parent: state dropped"]);
    until.notify_one();
    let ended = ["child: waited", "child: queued", "child: post_stop", "child: state dropped"];
    assert_eq!(log.take().await, ended);
}

#[tokio::test]
async fn nobody_can_be_started_under_a_parent_that_has_ended() {
    let log = Log::default();
    let parent = alone(&log).await;
    parent.stop_and_wait(None, None).await.unwrap();
    assert!(matches!(try_child(&parent, &log, Start::Well).await, Err(SpawnErr::StartupFailed(_))));
}

#[tokio::test]
async fn a_child_that_stops_or_is_killed_is_told_of_as_ended() {
    let log = Log::default();
    let (_parent, child) = family(&log).await;
    child.stop(Some("enough".into()));
    let told = "parent: a child ended, with its state: enough";
    assert_eq!(log.take().await, ["child: post_stop", "child: state dropped", told]);
    let (_parent, child) = family(&log).await;
    child.kill();
    let happened = log.take().await;
    // After a kill too: only a crash loses the state.
    assert!(happened.contains(&"parent: a child ended, with its state: killed".to_owned()), "{happened:?}");
    assert!(!happened.iter().any(|line| line.contains("post_stop")), "{happened:?}");
}

#[tokio::test]
async fn a_stop_goes_before_supervision_and_supervision_before_messages() {
    let log = Log::default();
    for stop in [true, false] {
        let (parent, child) = family(&log).await;
        let until = Arc::new(Notify::new());
        parent.cast(Do::Wait(Arc::clone(&until))).unwrap();
        assert_eq!(log.take().await, ["parent: waits"]);
        // All of them come while the parent is busy, in the order opposite to their priority.
        parent.cast(Do::Note("message")).unwrap();
        child.cast(Do::Fail).unwrap();
        assert_eq!(log.take().await, ["child: state dropped"], "a handler that waits hears of no crash");
        if stop {
            parent.stop(None);
        }
        assert_eq!(log.take().await, Vec::<String>::new(), "nor does it obey a stop");
        until.notify_one();
        let happened = log.take().await;
        if stop {
            assert_eq!(happened, ["parent: waited", "parent: post_stop", "parent: state dropped"]);
        } else {
            let (failed, message) = ("parent: a child failed: told to fail", "parent: message");
            assert_eq!(happened, ["parent: waited", failed, message]);
        }
    }
}

#[tokio::test]
async fn a_drain_handles_what_is_queued_and_lets_nothing_more_in() {
    let log = Log::default();
    let actor = alone(&log).await;
    let until = Arc::new(Notify::new());
    actor.cast(Do::Wait(Arc::clone(&until))).unwrap();
    actor.cast(Do::Note("queued")).unwrap();
    assert_eq!(log.take().await, ["parent: waits"]);
    actor.drain().unwrap();
    assert!(matches!(actor.cast(Do::Note("late")), Err(MessagingErr::SendErr(Do::Note("late")))));
    until.notify_one();
    let ended = ["parent: waited", "parent: queued", "parent: post_stop", "parent: state dropped"];
    assert_eq!(log.take().await, ended);
}

#[tokio::test]
async fn only_a_kill_interrupts_a_handler() {
    let log = Log::default();
    let actor = alone(&log).await;
    actor.cast(Do::Wait(Arc::new(Notify::new()))).unwrap();
    assert_eq!(log.take().await, ["parent: waits"]);
    actor.stop(None);
    actor.drain().unwrap();
    assert_eq!(log.take().await, Vec::<String>::new());
    actor.kill();
    assert_eq!(log.take().await, ["parent: state dropped"]);
}

#[tokio::test]
async fn a_message_cast_to_a_dead_actor_comes_back_in_the_error() {
    let log = Log::default();
    let actor = alone(&log).await;
    actor.stop_and_wait(None, None).await.unwrap();
    assert!(matches!(actor.cast(Do::Note("late")), Err(MessagingErr::SendErr(Do::Note("late")))));
    let (reply, answer) = tokio::sync::oneshot::channel();
    let back = actor.cast(Do::Answer(reply.into())).unwrap_err();
    assert!(matches!(back, MessagingErr::SendErr(Do::Answer(_))));
    drop(back);
    assert!(answer.await.is_err());
    assert!(matches!(actor.call(Do::Answer, None).await, Err(MessagingErr::SendErr(_))));
}

#[tokio::test]
async fn a_message_queued_behind_a_crash_is_dropped_and_not_given_to_a_successor() {
    let log = Log::default();
    let (parent, child) = family(&log).await;
    let until = Arc::new(Notify::new());
    child.cast(Do::Wait(Arc::clone(&until))).unwrap();
    child.cast(Do::Panic).unwrap();
    let asker = child.clone();
    let asked = tokio::spawn(async move { asker.call(Do::Answer, None).await.unwrap() });
    assert_eq!(log.take().await, ["child: waits"]);
    until.notify_one();
    assert!(matches!(asked.await.unwrap(), CallResult::SenderError), "the asker is not left waiting");
    let successor = try_child(&parent, &log, Start::Well).await.unwrap();
    successor.cast(Do::Note("first message")).unwrap();
    let happened = log.take().await;
    assert!(happened.contains(&"child: first message".to_owned()), "{happened:?}");
    assert_ne!(successor.get_id(), child.get_id());
    // A handle to the crashed one does not find the successor.
    assert!(matches!(child.cast(Do::Note("late")), Err(MessagingErr::SendErr(_))));
}

#[tokio::test]
async fn a_call_whose_reply_port_is_dropped_ends_with_an_error() {
    let log = Log::default();
    let actor = alone(&log).await;
    assert!(matches!(actor.call(Do::Answer, None).await, Ok(CallResult::Success(42))));
    assert!(matches!(actor.call(Do::Forget, None).await, Ok(CallResult::SenderError)));
}

#[tokio::test(start_paused = true)]
async fn a_call_without_a_timeout_waits_for_as_long_as_its_reply_port_is_kept() {
    let log = Log::default();
    let actor = alone(&log).await;
    let year = Duration::from_secs(365 * 86_400);
    assert!(tokio::time::timeout(year, actor.call(Do::Keep, None)).await.is_err());
    let second = Duration::from_secs(1);
    assert!(matches!(actor.call(Do::Keep, Some(second)).await, Ok(CallResult::Timeout)));
}

#[tokio::test(start_paused = true)]
async fn a_reply_port_says_whether_anyone_still_listens() {
    let log = Log::default();
    let actor = alone(&log).await;
    let asker = actor.clone();
    let asked = tokio::spawn(async move { asker.call(Do::Keep, None).await.map(|_| ()) });
    log.take().await;
    actor.cast(Do::AskWhetherAnyoneListens).unwrap();
    assert_eq!(log.take().await, ["parent: 0 of 1 closed"]);
    asked.abort();
    assert!(asked.await.is_err());
    actor.cast(Do::AskWhetherAnyoneListens).unwrap();
    assert_eq!(log.take().await, ["parent: 1 of 1 closed"]);
    assert!(matches!(actor.call(Do::Keep, Some(Duration::from_secs(1))).await, Ok(CallResult::Timeout)));
    actor.cast(Do::AskWhetherAnyoneListens).unwrap();
    assert_eq!(log.take().await, ["parent: 2 of 2 closed"], "a timeout closes it too");
}

#[tokio::test]
async fn a_mailbox_has_no_bound() {
    let log = Log::default();
    let actor = alone(&log).await;
    let until = Arc::new(Notify::new());
    actor.cast(Do::Wait(Arc::clone(&until))).unwrap();
    for _ in 0..100_000 {
        actor.cast(Do::AskWhetherAnyoneListens).unwrap();
    }
    until.notify_one();
    actor.drain_and_wait(None).await.unwrap();
    assert_eq!(log.take().await.len(), 1 + 1 + 100_000 + 2);
}

#[tokio::test(start_paused = true)]
async fn a_timed_message_to_an_actor_that_ended_meanwhile_is_lost_quietly() {
    let log = Log::default();
    let actor = alone(&log).await;
    let timer = actor.send_after(Duration::from_secs(1), || Do::Note("late"));
    actor.stop_and_wait(None, None).await.unwrap();
    assert!(matches!(timer.await.unwrap(), Err(MessagingErr::SendErr(_))));
}

#[tokio::test]
async fn an_actor_started_in_an_instant_takes_messages_before_it_runs_and_fails_to_start_unheard() {
    let log = Log::default();
    let parent = alone(&log).await;
    let args = |start| Args { name: "child", log: log.clone(), start };
    let spawn =
        |start| ActorRuntime::spawn_linked_instant(None, Told, args(start), parent.get_cell()).unwrap();
    let (child, _) = spawn(Start::Well);
    assert_eq!(child.get_status(), ActorStatus::Unstarted);
    child.cast(Do::Note("early")).unwrap();
    let happened = log.take().await;
    assert!(happened.contains(&"child: early".to_owned()), "{happened:?}");
    child.cast(Do::Fail).unwrap();
    let happened = log.take().await;
    assert!(happened.contains(&"parent: a child failed: told to fail".to_owned()), "{happened:?}");

    let (child, started) = spawn(Start::Panicking);
    child.cast(Do::Note("early")).unwrap();
    // The parent hears of nothing: whoever started it must look at the handle, or pre_start must not be able to fail.
    assert_eq!(log.take().await, Vec::<String>::new());
    assert!(matches!(started.await.unwrap(), Err(SpawnErr::StartupFailed(_))));
    assert_eq!(child.get_status(), ActorStatus::Stopped);
}
