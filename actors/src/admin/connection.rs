//! One operator's connection: a bounded line in, a line out, and so on until it ends or falls silent.

use super::request::Door;
use super::{Source, request};
use std::io;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::time::timeout;

/// The longest question, in bytes; names and tokens are far shorter.
const LONGEST_LINE: u64 = 4096;

/// The longest silence between questions, and the longest that an answer may stay unread.
const PATIENCE: Duration = Duration::from_secs(30);

/// Answers questions until the connection ends.
///
/// # Errors
/// The connection broke, or the operator's program was silent or did not read for too long.
pub(super) async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    door: Door<'_>,
    source: &dyn Source,
) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut line = Vec::new();
    loop {
        line.clear();
        let length =
            timeout(PATIENCE, (&mut stream).take(LONGEST_LINE).read_until(b'\n', &mut line)).await??;
        if length == 0 {
            return Ok(());
        }
        let whole = line.ends_with(b"\n");
        if !whole && length as u64 == LONGEST_LINE {
            let refusal = request::refusal(format!("a question has at most {LONGEST_LINE} bytes"));
            return send(&mut stream, &refusal).await;
        }
        let answer = request::answer(&line, door, source).await;
        send(&mut stream, &answer).await?;
        if !whole {
            return Ok(());
        }
    }
}

async fn send(stream: &mut (impl AsyncWrite + Unpin), mut answer: &[u8]) -> io::Result<()> {
    while !answer.is_empty() {
        // Patience begins anew with each piece: a long answer may take its time, a stuck reader may not.
        let written = timeout(PATIENCE, stream.write(answer)).await??;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        answer = &answer[written..];
    }
    timeout(PATIENCE, stream.flush()).await?
}

#[cfg(test)]
mod tests {
    use super::super::stand_in::OneOfEach;
    use super::*;
    use tokio::io::duplex;
    use tokio::time::Instant;

    async fn talk(questions: &[u8]) -> (io::Result<()>, String) {
        let (mut ours, theirs) = duplex(1 << 16);
        ours.write_all(questions).await.unwrap();
        ours.shutdown().await.unwrap();
        let outcome = serve(theirs, Door::Socket, &OneOfEach).await;
        let mut answers = String::new();
        ours.read_to_string(&mut answers).await.unwrap();
        (outcome, answers)
    }

    #[tokio::test]
    async fn questions_are_answered_in_order_and_a_bad_one_does_not_end_the_connection() {
        let (outcome, answers) = talk(b"{\"show\":\"version\"}\nwhat?\n{\"show\":\"config\"}").await;
        assert!(outcome.is_ok());
        let answers: Vec<&str> = answers.lines().collect();
        assert_eq!(answers.len(), 3);
        assert!(
            answers[0].contains("1.2.3")
                && answers[1].contains("error")
                && answers[2].contains("max_clients")
        );
    }

    #[tokio::test]
    async fn a_question_that_is_too_long_is_refused_and_ends_the_connection() {
        let (outcome, answers) = talk(&[b'x'; 10_000]).await;
        assert!(outcome.is_ok());
        assert_eq!(answers, "{\"error\":\"a question has at most 4096 bytes\"}\n");
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_connection_is_ended() {
        let (mut ours, theirs) = duplex(64);
        ours.write_all(b"{\"sh").await.unwrap();
        let start = Instant::now();
        let outcome = serve(theirs, Door::Socket, &OneOfEach).await;
        assert_eq!(outcome.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(start.elapsed() >= PATIENCE && start.elapsed() < PATIENCE * 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_does_not_read_its_answer_is_ended() {
        let (mut ours, theirs) = duplex(32);
        ours.write_all(b"{\"show\":\"buckets\"}\n").await.unwrap();
        assert_eq!(
            serve(theirs, Door::Socket, &OneOfEach).await.unwrap_err().kind(),
            io::ErrorKind::TimedOut
        );
    }
}
