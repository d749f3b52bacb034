//! What goes wrong in the simulation.

use rand::RngExt;

use super::super::ledger::Ledger;
use super::world::{Event, LEASE, World};

impl World {
    pub(super) fn fault(&mut self) {
        if self.calm.is_some() {
            return;
        }
        let next = self.random.random_range(100..LEASE);
        self.at(self.now + next, Event::Fault);
        let number = self.random.random_range(0..self.proxies.len());
        let (now, long) = (self.now, self.random.random_range(1..3 * LEASE));
        match self.random.random_range(0..16) {
            0 | 1 => self.kill(number),
            2 | 3 => {
                let proxy = &mut self.proxies[number];
                proxy.asleep_until = proxy.asleep_until.max(now + long);
            }
            4 => self.proxies[number].to_redis_cut ^= true,
            5 => self.proxies[number].from_redis_cut ^= true,
            6 => {
                let cut = self.random.random_bool(0.5);
                (self.proxies[number].to_redis_cut, self.proxies[number].from_redis_cut) = (cut, cut);
            }
            7 => self.replace_redis(vec![Ledger::default(); self.limits.len()]),
            8 => self.replace_redis(self.servers[self.master].ledgers.clone()),
            9 => self.replace_redis(self.saved.clone()),
            10 => self.fail_over(),
            11 => {
                let offset = self.random.random_range(-(LEASE as i64)..LEASE as i64 * 10);
                self.servers[self.master].offset += offset;
            }
            12 => {
                // A leap that is still taken for time, and no larger.
                self.servers[self.master].offset += self.random.random_range(0..LEASE as i64 * 3 / 10);
            }
            13 => {
                // Redis is away for everybody, for long.
                let every = self.random.random_bool(0.3);
                self.proxies.iter_mut().for_each(|proxy| proxy.to_redis_cut = every);
            }
            _ => {
                for proxy in &mut self.proxies {
                    (proxy.to_redis_cut, proxy.from_redis_cut) = (false, false);
                }
            }
        }
    }

    fn replace_redis(&mut self, ledgers: Vec<Ledger>) {
        let master = self.master;
        self.servers[master].alive = false;
        self.start_server(ledgers);
    }

    /// A replica is made master; who is left with the old one goes on asking it.
    fn fail_over(&mut self) {
        let old = self.master;
        for server in &mut self.servers {
            server.alive &= !server.isolated;
        }
        let ledgers = self.servers[old].ledgers.clone();
        self.servers[old].isolated = true;
        self.start_server(ledgers);
        for number in 0..self.proxies.len() {
            if self.random.random_bool(0.5) {
                self.proxies[number].server = self.master;
            }
        }
    }
}
