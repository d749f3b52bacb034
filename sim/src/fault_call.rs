//! How a client arms faults: `EXEC sim_fault 'name' [, value [, times [, 'server']]]`, a batch of its own.

use crate::fault::Fault;

/// A batch that is about faults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum FaultCall {
    Arm {
        fault: Fault,
        /// `None`: until cleared.
        times: Option<u32>,
        /// For all connections of the server, not only this one.
        everywhere: bool,
    },
    /// `EXEC sim_fault 'clear'`: this connection's and the server's.
    Clear,
    /// It is about faults, but wrong.
    Unknown(String),
}

impl FaultCall {
    /// Reads a batch; `None` if it is about something else.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let text = text.trim().trim_end_matches(';').trim_end();
        let verb = text.get(..4)?;
        if !verb.eq_ignore_ascii_case("exec") {
            return None;
        }
        let (_, rest) = text.split_once(char::is_whitespace)?;
        let rest = rest.trim_start();
        let (name, arguments) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
        if !matches!(name.to_ascii_lowercase().as_str(), "sim_fault" | "sim.fault" | "dbo.sim_fault") {
            return None;
        }
        Some(Self::arguments(arguments).unwrap_or_else(|| Self::Unknown(arguments.to_owned())))
    }

    fn arguments(text: &str) -> Option<Self> {
        let mut arguments = text.split(',').map(|argument| {
            let argument = argument.trim();
            argument
                .strip_prefix(['N', 'n'])
                .filter(|rest| rest.starts_with('\''))
                .unwrap_or(argument)
                .trim_matches('\'')
        });
        let name = arguments.next()?;
        if name.eq_ignore_ascii_case("clear") {
            return Some(Self::Clear);
        }
        let number = |text: &str| -> Option<Option<i64>> {
            if text.eq_ignore_ascii_case("null") { Some(None) } else { text.parse().ok().map(Some) }
        };
        let value = arguments.next().map_or(Some(None), number)?;
        // A fault armed by a client strikes once unless it says otherwise.
        let times = match arguments.next() {
            None => Some(1),
            Some(text) => match number(text)? {
                None => None,
                Some(times) => Some(u32::try_from(times).ok()?),
            },
        };
        let everywhere = match arguments.next() {
            None => false,
            Some(place) => place.eq_ignore_ascii_case("server"),
        };
        Some(Self::Arm { fault: Fault::from_name(name, value)?, times, everywhere })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_arms_a_fault_once_for_its_connection() {
        assert_eq!(
            FaultCall::parse(" exec sim_fault 'drop_in_response', 12;"),
            Some(FaultCall::Arm {
                fault: Fault::DropInResponse { after: 12 },
                times: Some(1),
                everywhere: false
            })
        );
    }

    #[test]
    fn a_batch_arms_a_fault_for_ever_and_everywhere() {
        assert_eq!(
            FaultCall::parse("EXECUTE sim_fault N'hang_at_login', NULL, NULL, 'server'"),
            Some(FaultCall::Arm { fault: Fault::HangAtLogin, times: None, everywhere: true })
        );
        assert_eq!(FaultCall::parse("exec sim_fault 'clear'"), Some(FaultCall::Clear));
    }

    #[test]
    fn other_batches_are_left_alone() {
        assert_eq!(FaultCall::parse("select 1"), None);
        assert_eq!(FaultCall::parse("exec sp_who"), None);
        assert!(matches!(FaultCall::parse("exec sim_fault 'nonsense'"), Some(FaultCall::Unknown(_))));
    }
}
