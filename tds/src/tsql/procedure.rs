//! What calling a procedure by name does to the connection, as far as the name tells.

use std::collections::BTreeSet;

use super::finding::Hold;

/// What a call does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing that outlives it.
    Harmless,
    /// Something that holds begins.
    Begins(Hold),
    /// Something that holds ends.
    Ends(Hold),
    /// It runs what was prepared under a handle.
    ExecutesHandle,
    /// It shows process ids.
    ReadsProcessId,
    /// A procedure that nothing is known of.
    Unknown,
}

/// Which procedures hold. The built-in list knows the server's own; the operator adds to it.
#[derive(Clone, Debug, Default)]
pub struct Procedures {
    holding: BTreeSet<String>,
    harmless: BTreeSet<String>,
    unknown_hold: bool,
}

impl Procedures {
    /// The built-in list alone; others are [`Effect::Unknown`].
    pub fn new() -> Self {
        Self::default()
    }

    /// This procedure holds ([`Hold::ListedProcedure`]). The name is the last part alone; ASCII case is ignored.
    #[must_use]
    pub fn holding(mut self, name: &str) -> Self {
        self.holding.insert(name.to_ascii_lowercase());
        self
    }

    /// This procedure does not hold, whatever the built-in list says.
    #[must_use]
    pub fn harmless(mut self, name: &str) -> Self {
        self.harmless.insert(name.to_ascii_lowercase());
        self
    }

    /// Procedures that are on no list hold.
    #[must_use]
    pub fn unknown_hold(mut self) -> Self {
        self.unknown_hold = true;
        self
    }

    /// What a call of this name does; the last part of the name, without quotes.
    pub fn effect(&self, name: &str) -> Effect {
        let mut buffer = [0; LONGEST];
        let lower = lower(name, &mut buffer);
        if lower.is_empty() {
            // Longer than any built-in name, or not ASCII; the lists may still know it.
            let is_in = |list: &BTreeSet<String>| list.iter().any(|listed| listed.eq_ignore_ascii_case(name));
            return match () {
                () if is_in(&self.holding) => Effect::Begins(Hold::ListedProcedure),
                () if is_in(&self.harmless) => Effect::Harmless,
                () => self.unknown(),
            };
        }
        if let Some(effect) = self.listed(lower) {
            return effect;
        }
        match built_in(lower) {
            Effect::Unknown => self.unknown(),
            effect => effect,
        }
    }

    fn listed(&self, lower: &str) -> Option<Effect> {
        if self.holding.contains(lower) {
            Some(Effect::Begins(Hold::ListedProcedure))
        } else if self.harmless.contains(lower) {
            Some(Effect::Harmless)
        } else {
            None
        }
    }

    fn unknown(&self) -> Effect {
        if self.unknown_hold { Effect::Begins(Hold::ListedProcedure) } else { Effect::Unknown }
    }
}

/// Longer than any keyword or system procedure that is known here.
pub(super) const LONGEST: usize = 48;

/// The name in lower case; empty if it is too long or not ASCII, and so no known word.
pub(super) fn lower<'a>(name: &str, buffer: &'a mut [u8; LONGEST]) -> &'a str {
    let Some(buffer) = buffer.get_mut(..name.len()).filter(|_| name.is_ascii()) else { return "" };
    buffer.copy_from_slice(name.as_bytes());
    buffer.make_ascii_lowercase();
    std::str::from_utf8(buffer).unwrap_or_default()
}

fn built_in(name: &str) -> Effect {
    match name {
        "sp_getapplock" => Effect::Begins(Hold::ApplicationLock),
        "sp_releaseapplock" => Effect::Ends(Hold::ApplicationLock),
        "sp_setapprole" => Effect::Begins(Hold::ApplicationRole),
        "sp_unsetapprole" => Effect::Ends(Hold::ApplicationRole),
        "sp_set_session_context" => Effect::Begins(Hold::SessionContext),
        "sp_xml_preparedocument" => Effect::Begins(Hold::XmlDocument),
        "sp_xml_removedocument" => Effect::Ends(Hold::XmlDocument),
        "sp_prepare" | "sp_prepexec" | "sp_prepexecrpc" => Effect::Begins(Hold::PreparedHandle),
        "sp_unprepare" => Effect::Ends(Hold::PreparedHandle),
        "sp_execute" => Effect::ExecutesHandle,
        "sp_bindsession" | "sp_enable_sql_debug" | "sp_sdidebug" => Effect::Begins(Hold::BoundSession),
        "sp_executesql" | "sp_sqlexec" | "sp_execute_external_script" | "sp_execute_remote" => {
            Effect::Begins(Hold::DynamicText)
        }
        "sp_who" | "sp_who2" | "sp_lock" => Effect::ReadsProcessId,
        "sp_oadestroy" | "sp_oageterrorinfo" | "sp_oastop" => Effect::Harmless,
        _ if name.starts_with("sp_oa") => Effect::Begins(Hold::OleObject),
        _ if name.starts_with("sp_msforeach") => Effect::Begins(Hold::DynamicText),
        _ if name.starts_with("sp_cursor") => Effect::Begins(Hold::Cursor),
        _ if HARMLESS.contains(&catalog_name(name)) => Effect::Harmless,
        _ => Effect::Unknown,
    }
}

/// Drivers call the catalog procedures under names for a version: `sp_columns_100`, `sp_tables_rowset;2`.
fn catalog_name(name: &str) -> &str {
    let name = name.trim_end_matches(|c: char| c.is_ascii_digit());
    let name = name.strip_suffix('_').unwrap_or(name);
    let name = name.strip_suffix("_rowset").unwrap_or(name);
    name.strip_suffix("_ex").unwrap_or(name)
}

const HARMLESS: &[&str] = &[
    "sp_addextendedproperty",
    "sp_catalogs",
    "sp_column_privileges",
    "sp_columns",
    "sp_configure",
    "sp_databases",
    "sp_datatype_info",
    "sp_depends",
    "sp_describe_first_result_set",
    "sp_describe_parameter_encryption",
    "sp_describe_undeclared_parameters",
    "sp_dropextendedproperty",
    "sp_fkeys",
    "sp_foreignkeys",
    "sp_help",
    "sp_helpconstraint",
    "sp_helpdb",
    "sp_helpfile",
    "sp_helpindex",
    "sp_helplanguage",
    "sp_helprole",
    "sp_helprolemember",
    "sp_helpsort",
    "sp_helptext",
    "sp_helpuser",
    "sp_indexes",
    "sp_indoption",
    "sp_linkedservers",
    "sp_pkeys",
    "sp_primarykeys",
    "sp_provider_types",
    "sp_recompile",
    "sp_rename",
    "sp_server_info",
    "sp_spaceused",
    "sp_special_columns",
    "sp_sproc_columns",
    "sp_statistics",
    "sp_stored_procedures",
    "sp_table_privileges",
    "sp_table_type_columns",
    "sp_tableoption",
    "sp_tables",
    "sp_updateextendedproperty",
    "sp_updatestats",
    "xp_msver",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_that_drivers_use_are_harmless() {
        for name in ["sp_datatype_info_100", "SP_TABLES", "sp_columns_ex_100", "sp_sproc_columns_90"] {
            assert_eq!(Procedures::new().effect(name), Effect::Harmless, "{name}");
        }
    }

    #[test]
    fn the_operators_lists_come_first() {
        let procedures = Procedures::new().holding("My_Lock").harmless("sp_who").unknown_hold();
        assert_eq!(procedures.effect("my_lock"), Effect::Begins(Hold::ListedProcedure));
        assert_eq!(procedures.effect("sp_WHO"), Effect::Harmless);
        assert_eq!(procedures.effect("other"), Effect::Begins(Hold::ListedProcedure));
        assert_eq!(Procedures::new().effect("other"), Effect::Unknown);
    }
}
