//! Requests as the script's arguments, and its answers, notes and messages back into types.

use deadpool_redis::redis::{ScriptInvocation, Value};

use super::keys::{Keys, MEMBER};
use super::request::{Answer, Grant, Sync, Wake};

/// What Redis answered is not what the script answers.
#[derive(Debug, thiserror::Error)]
#[error("an answer that the script does not give: {0}")]
pub(crate) struct Strange(&'static str);

/// The script could not do its work for one bucket.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Failed(String);

/// What of the script's arguments is Redis' own to say, but for tests: the time of day and its life.
#[derive(Clone, Debug, Default)]
pub(crate) struct Said {
    pub(crate) now: String,
    pub(crate) life: String,
}

/// Adds the keys and arguments of a batch, in the order that sync.lua names.
pub(crate) fn arguments<'a>(
    invocation: &mut ScriptInvocation<'_>,
    keys: &Keys,
    said: &Said,
    batch: impl IntoIterator<Item = (&'a str, &'a Sync)>,
) {
    let flag = |flag: bool| u8::from(flag);
    invocation.arg(keys.wake()).arg(&said.now).arg(&said.life);
    for (bucket, of) in batch {
        invocation.key(keys.bucket(bucket));
        invocation.arg(bucket).arg(&of.member).arg(of.seq).arg(&of.life).arg(of.stamp);
        invocation.arg(flag(of.join)).arg(flag(of.fresh)).arg(flag(of.leave));
        invocation.arg(of.held).arg(flag(of.claim)).arg(of.want).arg(of.waiting_ms);
        invocation.arg(of.limit).arg(of.expected).arg(of.lease_ms).arg(of.fallback_ms);
        invocation.arg(of.told.used).arg(of.told.waiting).arg(of.told.round_trip_us);
    }
}

fn text(value: Option<&Value>) -> Result<&str, Strange> {
    match value {
        Some(Value::BulkString(bytes)) => std::str::from_utf8(bytes).map_err(|_| Strange("no text")),
        Some(Value::SimpleString(text)) => Ok(text),
        _ => Err(Strange("no text")),
    }
}

fn number(value: Option<&Value>) -> Result<u64, Strange> {
    match value {
        Some(Value::Int(number)) => u64::try_from(*number).map_err(|_| Strange("a negative number")),
        _ => Err(Strange("no number")),
    }
}

/// The script's answers to a batch of so many requests.
pub(crate) fn answers(value: &Value, asked: usize) -> Result<Vec<Result<Answer, Failed>>, Strange> {
    match value {
        Value::Array(values) if values.len() == asked => values.iter().map(answer).collect(),
        _ => Err(Strange("another number of answers")),
    }
}

fn answer(value: &Value) -> Result<Result<Answer, Failed>, Strange> {
    let Value::Array(values) = value else { return Err(Strange("no array")) };
    let number = |at: usize| number(values.get(at));
    let count = |at: usize| number(at).map(|number| u32::try_from(number).unwrap_or(u32::MAX));
    let answer = match text(values.first())? {
        "taken" => Answer::Taken(Grant {
            clock: number(1)?,
            quota: count(2)?,
            target: count(3)?,
            must: count(4)?,
            share: count(5)?,
            hungry: number(6)? == 1,
            settled: number(7)? == 1,
            epoch: number(8)?,
            limit: count(9)?,
            twin: number(10)? == 1,
        }),
        "hello" => Answer::Hello { life: text(values.get(1))?.to_owned(), clock: number(2)? },
        "unknown" => Answer::Unknown,
        "stale" => Answer::Stale,
        "failed" => return Ok(Err(Failed(text(values.get(1))?.to_owned()))),
        _ => return Err(Strange("another word")),
    };
    Ok(Ok(answer))
}

/// A message of the wake channel: the bucket, and what is said about it.
pub(crate) fn wake(payload: &str) -> Option<(&str, Wake)> {
    let mut lines = payload.lines();
    let (bucket, hungry) = (lines.next()?, lines.next()? == "1");
    let member = |line: &str| {
        let mut words = line.split(' ');
        Some((words.next()?.to_owned(), words.next()?.parse().ok()?, words.next()?.parse().ok()?))
    };
    let members = lines.map(member).collect::<Option<Vec<_>>>()?;
    Some((bucket, Wake { hungry, members }))
}

/// What is written about one member, for operators.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Written {
    pub(crate) member: String,
    pub(crate) held: u32,
    pub(crate) want: u32,
    pub(crate) lapsed: bool,
    pub(crate) used: u32,
    pub(crate) waiting: u32,
    pub(crate) round_trip_us: u64,
}

/// A member's field of a bucket's hash; `None` for other fields.
pub(crate) fn written(field: &str, value: &str) -> Option<Written> {
    let member = field.strip_prefix(MEMBER)?.to_owned();
    let numbers: Vec<u64> = value.split(' ').map(|word| word.parse().unwrap_or(0)).collect();
    let number = |at: usize| numbers.get(at).copied().unwrap_or(0);
    let count = |at: usize| u32::try_from(number(at)).unwrap_or(u32::MAX);
    Some(Written {
        member,
        held: count(1),
        want: count(2),
        lapsed: number(7) == 1,
        used: count(13),
        waiting: count(14),
        round_trip_us: number(15),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_names_the_bucket_and_who_has_to_act() {
        let (bucket, wake) = wake("orders\n1\na/1 6 4\nb/2 0 0").unwrap();
        assert_eq!((bucket, wake.hungry), ("orders", true));
        assert_eq!(wake.members, [("a/1".to_owned(), 6, 4), ("b/2".to_owned(), 0, 0)]);
        assert_eq!(super::wake("orders"), None);
        assert_eq!(super::wake("orders\n1\nnonsense"), None);
    }

    #[test]
    fn answers_that_the_script_does_not_give_are_errors() {
        for value in [
            Value::Nil,
            Value::Array(Vec::new()),
            Value::Array(vec![Value::BulkString(b"taken".to_vec())]),
            Value::Array(vec![Value::BulkString(b"other".to_vec())]),
            Value::Array(vec![Value::BulkString(b"hello".to_vec()), Value::Int(1)]),
        ] {
            assert!(answer(&value).is_err(), "{value:?}");
        }
        let unknown = || Value::Array(vec![Value::BulkString(b"unknown".to_vec())]);
        assert_eq!(answers(&Value::Array(vec![unknown(), unknown()]), 2).unwrap().len(), 2);
        assert!(answers(&Value::Array(vec![unknown()]), 2).is_err());
    }

    #[test]
    fn what_is_written_about_a_member_is_read_by_position() {
        let line = "7 4 9 0 10 20 1 0 1 0 5 20 10000 3 2 850";
        let read = written("m:pod-1/ab", line).unwrap();
        assert_eq!((read.member.as_str(), read.held, read.want, read.lapsed), ("pod-1/ab", 4, 9, false));
        assert_eq!((read.used, read.waiting, read.round_trip_us), (3, 2, 850));
        assert_eq!(written("state", "x"), None);
    }
}
