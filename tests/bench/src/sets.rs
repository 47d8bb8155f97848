//! Sets: servers that are measured in the same rounds, the scenarios for them, and what is wanted of the first server.

use crate::scenarios::{
    ACKED, ACKED_1, ACKED_1K, BROADCAST_1, BROADCAST_8, CONNECT, IDLE, LATENCY, MANY, PING_BUSY, SLOW, Scenario,
};

pub(crate) struct Set {
    pub(crate) name: &'static str,
    /// The one that goals are about, then those that it is compared with.
    pub(crate) servers: &'static [&'static str],
    pub(crate) rows: &'static [Row],
}

/// A scenario and what is wanted in it.
pub(crate) struct Row {
    pub(crate) scenario: Scenario,
    wants: &'static [Want],
}

struct Want {
    /// Nothing: the figure itself is meant and not its share of another server's.
    than: Option<&'static str>,
    bounds: Bounds,
}

/// What a figure, or its share of another server's, should not exceed.
#[derive(Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) goal: Bound,
    pub(crate) floor: Bound,
}

#[derive(Clone, Copy)]
pub(crate) struct Bound {
    pub(crate) text: &'static str,
    pub(crate) value: f64,
}

const KIB: f64 = 1_024.0;
const MILLISECOND: f64 = 1e6;

pub(crate) static ALL: [Set; 4] = [
    Set {
        name: "rust",
        servers: &["rust", "go"],
        rows: &[
            row(ACKED, &[than("go", one_in("1/18", 18.0), one_in("1/14", 14.0))]),
            row(ACKED_1K, &[than("go", one_in("1/20", 20.0), one_in("1/14", 14.0))]),
            row(ACKED_1, &[than("go", bound("0.5", 0.5), bound("0.6", 0.6))]),
            row(LATENCY, &[than("go", bound("0.8", 0.8), bound("1.0", 1.0))]),
            row(SLOW, &[than("go", one_in("1/4", 4.0), one_in("1/3", 3.0))]),
            row(BROADCAST_8, &[than("go", one_in("1/9", 9.0), one_in("1/7", 7.0))]),
            row(BROADCAST_1, &[than("go", bound("0.7", 0.7), bound("0.8", 0.8))]),
            row(IDLE, &[itself(bound("4.5 KiB", 4.5 * KIB), bound("6 KiB", 6.0 * KIB))]),
            row(CONNECT, &[than("go", bound("0.7", 0.7), bound("0.85", 0.85))]),
            row(MANY, &[itself(bound("1.3", 1.3), bound("1.5", 1.5))]),
        ],
    },
    Set {
        name: "python",
        servers: &["python", "websockets", "picows", "socketio"],
        rows: &[
            row(
                ACKED,
                &[
                    than("websockets", one_in("1/12", 12.0), one_in("1/8", 8.0)),
                    than("picows", one_in("1/6", 6.0), one_in("1/4", 4.0)),
                    than("socketio", one_in("1/40", 40.0), one_in("1/30", 30.0)),
                ],
            ),
            row(
                ACKED_1,
                &[
                    than("picows", bound("1.0", 1.0), bound("1.2", 1.2)),
                    than("websockets", bound("0.5", 0.5), bound("0.6", 0.6)),
                ],
            ),
            row(LATENCY, &[than("websockets", bound("1.0", 1.0), bound("1.3", 1.3))]),
            row(SLOW, &[than("websockets", one_in("1/3", 3.0), one_in("1/2", 2.0))]),
            row(
                BROADCAST_8,
                &[
                    than("socketio", one_in("1/20", 20.0), one_in("1/15", 15.0)),
                    than("picows", one_in("1/3", 3.0), one_in("1/2", 2.0)),
                ],
            ),
            row(
                PING_BUSY,
                &[itself(
                    bound("0.5 ms", 0.5 * MILLISECOND),
                    bound("2 ms", 2.0 * MILLISECOND),
                )],
            ),
            row(IDLE, &[itself(bound("8 KiB", 8.0 * KIB), bound("12 KiB", 12.0 * KIB))]),
        ],
    },
    Set {
        name: "node",
        servers: &["node", "ws", "socketio-node", "bun"],
        rows: &[
            row(
                ACKED,
                &[
                    than("ws", one_in("1/10", 10.0), one_in("1/7", 7.0)),
                    than("socketio-node", one_in("1/12", 12.0), one_in("1/9", 9.0)),
                    than("bun", bound("1.0", 1.0), bound("1.11", 1.0 / 0.9)),
                ],
            ),
            row(
                ACKED_1,
                &[
                    than("ws", bound("0.9", 0.9), bound("1.1", 1.1)),
                    than("socketio-node", bound("0.6", 0.6), bound("0.8", 0.8)),
                ],
            ),
            row(LATENCY, &[than("ws", bound("1.0", 1.0), bound("1.3", 1.3))]),
            row(SLOW, &[than("ws", one_in("1/3", 3.0), one_in("1/2", 2.0))]),
            row(
                BROADCAST_8,
                &[
                    than("socketio-node", one_in("1/6", 6.0), one_in("1/4", 4.0)),
                    than("bun", bound("1.0", 1.0), bound("1.11", 1.0 / 0.9)),
                ],
            ),
            row(
                PING_BUSY,
                &[itself(
                    bound("0.5 ms", 0.5 * MILLISECOND),
                    bound("2 ms", 2.0 * MILLISECOND),
                )],
            ),
            row(IDLE, &[itself(bound("8 KiB", 8.0 * KIB), bound("12 KiB", 12.0 * KIB))]),
        ],
    },
    // What it costs to share the port of an application's HTTP server.
    Set {
        name: "node-attach",
        servers: &["node --attach", "node"],
        rows: &[row(ACKED, &[than("node", bound("1.05", 1.05), bound("1.10", 1.10))])],
    },
];

const fn row(scenario: Scenario, wants: &'static [Want]) -> Row {
    Row { scenario, wants }
}

/// What is wanted of a figure's share of another server's.
const fn than(server: &'static str, goal: Bound, floor: Bound) -> Want {
    Want {
        than: Some(server),
        bounds: Bounds { goal, floor },
    }
}

/// What is wanted of a figure by itself.
const fn itself(goal: Bound, floor: Bound) -> Want {
    Want {
        than: None,
        bounds: Bounds { goal, floor },
    }
}

const fn bound(text: &'static str, value: f64) -> Bound {
    Bound { text, value }
}

/// A share of the other server's figure.
const fn one_in(text: &'static str, parts: f64) -> Bound {
    Bound {
        text,
        value: 1.0 / parts,
    }
}

impl Set {
    pub(crate) fn find(name: &str) -> Option<&'static Self> {
        ALL.iter().find(|set| set.name == name)
    }
}

impl Row {
    /// What is wanted of the first server's figure compared with that of `server`, or by itself.
    pub(crate) fn wanted(&self, than: Option<&str>) -> Option<Bounds> {
        let want = self.wants.iter().find(|want| want.than == than)?;
        Some(want.bounds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goals_compare_the_first_server_with_others_of_its_set() {
        for set in &ALL {
            for row in set.rows {
                for than in row.wants.iter().filter_map(|want| want.than) {
                    let (set_name, scenario) = (set.name, row.scenario.name);
                    assert!(
                        set.servers[1..].contains(&than),
                        "`{set_name}` wants a share of {than} in `{scenario}` and doesn't measure it"
                    );
                }
            }
        }
    }

    #[test]
    fn a_goal_is_stricter_than_the_least_that_is_wanted() {
        for want in ALL.iter().flat_map(|set| set.rows).flat_map(|row| row.wants) {
            let Bounds { goal, floor } = want.bounds;
            assert!(goal.value < floor.value, "{} and {}", goal.text, floor.text);
        }
    }
}
