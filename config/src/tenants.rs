//! Who shares a bucket: how its clients are told apart, whose turn comes how often, and the most that one may take.

use crate::check::{Check, plain};
use crate::mirror;
use crate::pattern::Pattern;
use crate::problem::Problem;

pub use crate::mirror::TenantBy;

/// `[buckets.tenants]`, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tenants {
    /// What makes two clients the same tenant.
    pub by: TenantBy,
    /// The most server connections that one tenant may use at once.
    pub max_connections: Option<usize>,
    /// The most clients of one tenant that may wait.
    pub queue_limit: Option<usize>,
    /// The most clients of one tenant that may be logged in.
    pub max_clients: Option<usize>,
    weights: Vec<(Pattern, u32)>,
}

impl Tenants {
    /// How many turns the tenant gets for one of the others: of the first rule that names it, else 1.
    pub fn weight(&self, name: &str) -> u32 {
        self.weights.iter().find(|(pattern, _)| pattern.matches(name)).map_or(1, |(_, weight)| *weight)
    }

    pub(crate) fn of(from: &mirror::Tenants) -> Self {
        let weights = from.weights.iter().map(|rule| (Pattern::new(&rule.tenant), rule.weight)).collect();
        let limit = |n: usize| (n > 0).then_some(n);
        Self {
            by: from.by,
            max_connections: limit(from.max_connections),
            queue_limit: limit(from.queue_limit),
            max_clients: limit(from.max_clients),
            weights,
        }
    }

    pub(crate) fn check(from: &mirror::Tenants, at: &str, check: &mut Check<'_>) {
        for (index, rule) in from.weights.iter().enumerate() {
            let path = |key: &str| format!("{at}.weights[{index}].{key}");
            check.given(&path("tenant"), &rule.tenant);
            check.within(&path("weight"), rule.weight, 1..=1000, plain);
        }
        if from.by == TenantBy::None && (!from.weights.is_empty() || from.max_connections > 0) {
            let hint = "weights and limits are of tenants: say by = \"database\" or \"user\"";
            check.problem(Problem::new(format!("{at}.by"), "tells nobody apart").hint(hint));
        }
    }

    /// The rules of weights, in their order.
    pub(crate) fn weights(&self) -> impl Iterator<Item = (&Pattern, u32)> {
        self.weights.iter().map(|(tenant, weight)| (tenant, *weight))
    }
}
