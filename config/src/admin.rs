//! Where the operator's commands come in, and what agrees on connections with other proxies.

use crate::check::Check;
use crate::mirror;
use crate::problem::Problem;
use std::path::PathBuf;

/// The admin socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admin {
    /// Path of the Unix socket.
    pub socket: PathBuf,
    /// Its file permissions: who may connect may command.
    pub mode: u32,
}

/// What agrees on connections with other proxies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Coordinator {
    /// Nothing: this is the only proxy, and every bucket's limit is all its own.
    #[default]
    Local,
}

impl Admin {
    pub(crate) fn check(from: &mirror::Admin, check: &mut Check<'_>) -> Option<Self> {
        let mode = u32::from_str_radix(&from.mode, 8).ok().filter(|mode| *mode <= 0o777);
        let Some(mode) = mode else {
            let problem = Problem::new("admin.mode", "must be file permissions in octal");
            check.problem(problem.hint("such as \"0660\""));
            return None;
        };
        if mode & 0o007 != 0 {
            check.problem(Problem::new(
                "admin.mode",
                "must give nothing to others: they could command the proxy",
            ));
        }
        // sun_path has 108 bytes with its closing zero.
        if !check.given("admin.socket", &from.socket) || from.socket.len() > 107 {
            check.problem(Problem::new("admin.socket", "must be a path of 1 to 107 bytes"));
            return None;
        }
        Some(Self { socket: check.directory.join(&from.socket), mode })
    }
}

impl Coordinator {
    pub(crate) fn check(from: &mirror::Coordinator, check: &mut Check<'_>) -> Self {
        if from.kind == mirror::CoordinatorKind::Redis {
            let problem = Problem::new("coordinator.kind", "not available yet in this version");
            check.problem(problem.hint("use \"local\" and run one proxy per bucket"));
        }
        Self::Local
    }
}
