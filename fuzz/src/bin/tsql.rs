//! The T-SQL scan: any bytes in any chunking give the same findings and verdict, and a scanner that is used again
//! remembers nothing.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tds::tsql::{Procedures, Scope, TextScanner, Verdict};

fn scan(scanner: &mut TextScanner, text: &[u8], chunk: usize) -> (Vec<String>, Verdict) {
    let procedures = Procedures::new().holding("holds");
    let mut findings = vec![];
    for piece in text.chunks(chunk) {
        scanner.feed(piece, &procedures, &mut |finding| findings.push(format!("{finding:?}")));
    }
    let verdict = scanner.finish(&procedures, &mut |finding| findings.push(format!("{finding:?}")));
    (findings, verdict)
}

fuzz_target!(|data: &[u8]| {
    let [first, second, text @ ..] = data else { return };
    let scope = if first % 2 == 0 { Scope::Batch } else { Scope::Called };
    let mut scanner = TextScanner::new(scope);
    // Most bytes make no ASCII text in UTF-16: the second half of the choices widens them.
    let wide: Vec<u8>;
    let text = if first & 2 == 0 {
        wide = text.iter().flat_map(|byte| [*byte, 0]).collect();
        &wide
    } else {
        text
    };
    let whole = scan(&mut scanner, text, text.len().max(1));
    scanner.restart(scope);
    assert_eq!(scan(&mut scanner, text, usize::from(*second) + 1), whole);
    assert_eq!(whole.1.unsure.is_some(), whole.1.holds.contains(tds::tsql::Hold::Unsure));
});
