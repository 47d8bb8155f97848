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

pub(crate) static ALL: [Set; 2] = [
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
