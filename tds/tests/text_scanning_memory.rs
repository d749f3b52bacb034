//! The T-SQL scan allocates nothing once it exists, whatever the text.

use tds::tsql::{Procedures, Scope, TextScanner};

#[test]
fn scanning_texts_one_after_the_other_allocates_nothing() {
    let long = "x".repeat(100_000);
    let quotes = "''".repeat(50_000);
    let name = "ü".repeat(128);
    let text = format!(
        "set nocount on set language N'{quotes}' use [{name}] select '{long}', [{long}], {long} /* {long} */
         create table [#{name}] (i int) exec [{name}].[{name}].[{name}].[{name}] exec sp_getapplock 'a'
         set transaction isolation level read committed declare {long} cursor for select @@spid {}",
        "begin ".repeat(1000)
    );
    let text: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let procedures = Procedures::new().holding("a_procedure");
    let mut scanner = TextScanner::new(Scope::Batch);
    let mut findings = 0;
    let allocated = allocation_counter::measure(|| {
        for _ in 0..3 {
            scanner.restart(Scope::Batch);
            for piece in text.chunks(4088) {
                scanner.feed(piece, &procedures, &mut |_| findings += 1);
            }
            scanner.finish(&procedures, &mut |_| findings += 1);
        }
    });
    assert!(findings > 20);
    assert_eq!(allocated.count_total, 0);
}
