//! Which SET options exist, and whether replaying the statement on another connection gives the same session.

/// How an option is dealt with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Treatment {
    /// Replayed.
    Replay,
    /// Holds until it is set OFF: it changes how the following batches run at all, or what they answer.
    HoldUntilOff,
}

/// An option by its name in lower case; the name returned lives on.
pub(super) fn known(name: &str) -> Option<(&'static str, Treatment)> {
    let find = |list: &'static [&'static str]| list.binary_search(&name).ok().map(|at| list[at]);
    find(REPLAYED)
        .map(|name| (name, Treatment::Replay))
        .or_else(|| find(HELD).map(|name| (name, Treatment::HoldUntilOff)))
}

/// Options that the option sets besides itself, when it is set ON or (the first alone) OFF.
pub(super) const ANSI_DEFAULTS: [&str; 7] = [
    "ansi_nulls",
    "ansi_null_dflt_on",
    "ansi_padding",
    "ansi_warnings",
    "cursor_close_on_commit",
    "implicit_transactions",
    "quoted_identifier",
];

/// Of these two at most one is ON: setting one ON sets the other OFF.
pub(super) fn opposite(option: &str) -> Option<&'static str> {
    match option {
        "ansi_null_dflt_on" => Some("ansi_null_dflt_off"),
        "ansi_null_dflt_off" => Some("ansi_null_dflt_on"),
        _ => None,
    }
}

/// `SET STATISTICS` these.
pub(super) fn statistics(name: &str) -> Option<&'static str> {
    match name {
        "io" => Some("statistics io"),
        "time" => Some("statistics time"),
        "xml" => Some("statistics xml"),
        "profile" => Some("statistics profile"),
        _ => None,
    }
}

const REPLAYED: &[&str] = &[
    "ansi_defaults",
    "ansi_null_dflt_off",
    "ansi_null_dflt_on",
    "ansi_nulls",
    "ansi_padding",
    "ansi_warnings",
    "arithabort",
    "arithignore",
    "concat_null_yields_null",
    "cursor_close_on_commit",
    "datefirst",
    "dateformat",
    "deadlock_priority",
    "forceplan",
    "implicit_transactions",
    "language",
    "lock_timeout",
    "no_browsetable",
    "nocount",
    "numeric_roundabort",
    "query_governor_cost_limit",
    "quoted_identifier",
    "remote_proc_transactions",
    "rowcount",
    "textsize",
    "xact_abort",
];

const HELD: &[&str] = &[
    "disable_def_cnst_chk",
    "fips_flagger",
    "fmtonly",
    "noexec",
    "offsets",
    "parseonly",
    "showplan_all",
    "showplan_text",
    "showplan_xml",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lists_are_sorted_and_the_groups_known() {
        assert!(REPLAYED.is_sorted() && HELD.is_sorted());
        assert!(ANSI_DEFAULTS.iter().all(|name| known(name).is_some()));
    }
}
