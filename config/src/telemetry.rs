//! Where traces go and which requests are traced.

use crate::check::{Check, plain};
use crate::duration;
use crate::mirror;
use crate::problem::Problem;
use std::time::Duration;

pub use crate::mirror::OtlpProtocol;

/// Traces.
#[derive(Debug, Clone, PartialEq)]
pub struct Telemetry {
    /// The collector's URL; none: nothing is traced.
    pub endpoint: Option<String>,
    /// How it is spoken to.
    pub protocol: OtlpProtocol,
    /// Which part of all requests is traced, 0 to 1.
    pub ratio: f64,
    /// A request that takes longer is traced and logged; none: no request is slow.
    pub slow: Option<Duration>,
}

impl Default for Telemetry {
    fn default() -> Self {
        let from = mirror::Telemetry::default();
        Self { endpoint: None, protocol: from.protocol, ratio: from.ratio, slow: from.slow }
    }
}

impl Telemetry {
    pub(crate) fn check(from: &mirror::Telemetry, check: &mut Check<'_>) -> Self {
        check.within("telemetry.ratio", from.ratio, 0.0..=1.0, plain);
        if let Some(slow) = from.slow {
            let bounds = Duration::from_millis(1)..=Duration::from_secs(86_400);
            check.within("telemetry.slow", slow, bounds, duration::show);
        }
        let endpoint = if from.endpoint == "off" { None } else { endpoint(from, check) };
        Self { endpoint, protocol: from.protocol, ratio: from.ratio, slow: from.slow }
    }
}

fn endpoint(from: &mirror::Telemetry, check: &mut Check<'_>) -> Option<String> {
    let url = from.endpoint.trim_end_matches('/');
    let Some(rest) = url.strip_prefix("http://").filter(|rest| !rest.is_empty()) else {
        let problem = Problem::new("telemetry.endpoint", "must be a URL that begins with http://");
        let hint = "such as http://collector:4317; a collector beside the proxy speaks TLS to the world";
        check.problem(problem.hint(hint));
        return None;
    };
    // OTLP over HTTP has a path of its own, gRPC has none.
    match from.protocol {
        OtlpProtocol::Http if !rest.contains('/') => Some(format!("{url}/v1/traces")),
        _ => Some(url.to_owned()),
    }
}
