//! SET options: their values, their names, what shows them.

/// The options of a session.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Settings {
    pub(super) ansi_nulls: bool,
    pub(super) ansi_padding: bool,
    pub(super) ansi_warnings: bool,
    pub(super) ansi_null_dflt_on: bool,
    pub(super) ansi_null_dflt_off: bool,
    pub(super) arithabort: bool,
    pub(super) arithignore: bool,
    pub(super) concat_null_yields_null: bool,
    pub(super) cursor_close_on_commit: bool,
    pub(super) quoted_identifier: bool,
    pub(super) numeric_roundabort: bool,
    pub(super) nocount: bool,
    pub(super) xact_abort: bool,
    pub(super) implicit_transactions: bool,
    pub(super) fmtonly: bool,
    pub(super) noexec: bool,
    pub(super) parseonly: bool,
    pub(super) rowcount: i64,
    pub(super) textsize: i64,
    pub(super) date_format: String,
    pub(super) date_first: u8,
    pub(super) lock_timeout: i64,
    pub(super) deadlock_priority: i64,
    pub(super) language: String,
}

impl Settings {
    /// As a login leaves them: ODBC's defaults, or DB-Library's.
    pub(super) fn at_login(ansi: bool, language: &str) -> Settings {
        let (date_format, date_first) = language_dates(language);
        Settings {
            ansi_nulls: ansi,
            ansi_padding: ansi,
            ansi_warnings: ansi,
            ansi_null_dflt_on: ansi,
            ansi_null_dflt_off: false,
            arithabort: false,
            arithignore: false,
            concat_null_yields_null: ansi,
            cursor_close_on_commit: false,
            quoted_identifier: ansi,
            numeric_roundabort: false,
            nocount: false,
            xact_abort: false,
            implicit_transactions: false,
            fmtonly: false,
            noexec: false,
            parseonly: false,
            rowcount: 0,
            textsize: if ansi { 2_147_483_647 } else { 4096 },
            date_format: date_format.into(),
            date_first,
            lock_timeout: -1,
            deadlock_priority: 0,
            language: language.into(),
        }
    }

    /// An on/off option by its name.
    pub(super) fn flag(&mut self, name: &str) -> Option<&mut bool> {
        Some(match name {
            "ANSI_NULLS" => &mut self.ansi_nulls,
            "ANSI_PADDING" => &mut self.ansi_padding,
            "ANSI_WARNINGS" => &mut self.ansi_warnings,
            "ANSI_NULL_DFLT_ON" => &mut self.ansi_null_dflt_on,
            "ANSI_NULL_DFLT_OFF" => &mut self.ansi_null_dflt_off,
            "ARITHABORT" => &mut self.arithabort,
            "ARITHIGNORE" => &mut self.arithignore,
            "CONCAT_NULL_YIELDS_NULL" => &mut self.concat_null_yields_null,
            "CURSOR_CLOSE_ON_COMMIT" => &mut self.cursor_close_on_commit,
            "QUOTED_IDENTIFIER" => &mut self.quoted_identifier,
            "NUMERIC_ROUNDABORT" => &mut self.numeric_roundabort,
            "NOCOUNT" => &mut self.nocount,
            "XACT_ABORT" => &mut self.xact_abort,
            "IMPLICIT_TRANSACTIONS" => &mut self.implicit_transactions,
            "FMTONLY" => &mut self.fmtonly,
            "NOEXEC" => &mut self.noexec,
            "PARSEONLY" => &mut self.parseonly,
            _ => return None,
        })
    }

    /// `@@OPTIONS`.
    pub(super) fn bits(&self) -> i64 {
        let bits = [
            (2, self.implicit_transactions),
            (4, self.cursor_close_on_commit),
            (8, self.ansi_warnings),
            (16, self.ansi_padding),
            (32, self.ansi_nulls),
            (64, self.arithabort),
            (128, self.arithignore),
            (256, self.quoted_identifier),
            (512, self.nocount),
            (1024, self.ansi_null_dflt_on),
            (2048, self.ansi_null_dflt_off),
            (4096, self.concat_null_yields_null),
            (8192, self.numeric_roundabort),
            (16384, self.xact_abort),
        ];
        bits.iter().filter(|b| b.1).map(|b| b.0).sum()
    }

    /// The rows of `DBCC USEROPTIONS`.
    pub(super) fn user_options(&self, isolation: u8) -> Vec<(&'static str, String)> {
        let mut rows = vec![
            ("textsize", self.textsize.to_string()),
            ("language", self.language.clone()),
            ("dateformat", self.date_format.clone()),
            ("datefirst", self.date_first.to_string()),
            ("lock_timeout", self.lock_timeout.to_string()),
        ];
        let flags = [
            ("quoted_identifier", self.quoted_identifier),
            ("arithabort", self.arithabort),
            ("nocount", self.nocount),
            ("xact_abort", self.xact_abort),
            ("implicit_transactions", self.implicit_transactions),
            ("ansi_null_dflt_on", self.ansi_null_dflt_on),
            ("ansi_warnings", self.ansi_warnings),
            ("ansi_padding", self.ansi_padding),
            ("ansi_nulls", self.ansi_nulls),
            ("concat_null_yields_null", self.concat_null_yields_null),
        ];
        rows.extend(flags.iter().filter(|f| f.1).map(|f| (f.0, "SET".to_string())));
        if self.rowcount > 0 {
            rows.push(("rowcount", self.rowcount.to_string()));
        }
        rows.push(("isolation level", isolation_name(isolation).to_string()));
        rows
    }
}

/// Isolation levels by the number that sys.dm_exec_sessions and the TM request use.
pub(super) fn isolation_name(level: u8) -> &'static str {
    match level {
        1 => "read uncommitted",
        3 => "repeatable read",
        4 => "serializable",
        5 => "snapshot",
        _ => "read committed",
    }
}

/// Languages: name, alias, id, DATEFORMAT, DATEFIRST.
pub(super) const LANGUAGES: &[(&str, &str, i64, &str, u8)] = &[
    ("us_english", "English", 0, "mdy", 7),
    ("Deutsch", "German", 1, "dmy", 1),
    ("Français", "French", 2, "dmy", 1),
    ("日本語", "Japanese", 3, "ymd", 7),
    ("Dansk", "Danish", 4, "dmy", 1),
    ("Español", "Spanish", 5, "dmy", 1),
    ("Italiano", "Italian", 6, "dmy", 1),
    ("Nederlands", "Dutch", 7, "dmy", 1),
    ("Norsk", "Norwegian", 8, "dmy", 1),
    ("Português", "Portuguese", 9, "dmy", 7),
    ("Suomi", "Finnish", 10, "dmy", 1),
    ("Svenska", "Swedish", 11, "ymd", 1),
    ("polski", "Polish", 14, "dmy", 1),
    ("British", "British English", 23, "dmy", 1),
];

/// A language by its name or alias.
pub(super) fn find_language(
    name: &str,
) -> Option<&'static (&'static str, &'static str, i64, &'static str, u8)> {
    LANGUAGES.iter().find(|l| l.0.eq_ignore_ascii_case(name) || l.1.eq_ignore_ascii_case(name))
}

fn language_dates(name: &str) -> (&'static str, u8) {
    find_language(name).map_or(("mdy", 7), |l| (l.3, l.4))
}
