//! The Python module `etp_ws._etp_ws`: the core's server and client as Python objects.
//!
//! The core's connections live on one thread with a tokio runtime ([`runtime`]), which never touches Python. What is for Python waits in a
//! queue for each event loop ([`queue`]); the loop is woken once for a batch ([`pump`]), and asyncio tasks draw from it ([`runner`]).

mod asgi;
mod call;
mod cell;
mod client;
mod codec;
mod conn;
mod dispatch;
mod error;
mod log;
mod pump;
mod queue;
mod request;
mod routes;
mod runner;
mod runtime;
mod server;
mod types;
mod waiting;
mod wake;

use pyo3::prelude::*;

/// The core's server and client; `etp_ws` is the package to import.
#[pymodule(gil_used = true)]
mod _etp_ws {
    #[pymodule_export]
    use crate::asgi::{Admitted, Link};
    #[pymodule_export]
    use crate::client::ClientCore;
    #[pymodule_export]
    use crate::conn::{BroadcastBase, ConnBase};
    #[pymodule_export]
    use crate::log::{set_log_level, take_logs};
    #[pymodule_export]
    use crate::pump::{Pump, Reader};
    #[pymodule_export]
    use crate::request::RequestBase;
    #[pymodule_export]
    use crate::routes::Routes;
    #[pymodule_export]
    use crate::runner::Runner;
    #[pymodule_export]
    use crate::runtime::{after_fork, after_fork_in_parent, before_fork, live, panic_for_tests, stop};
    #[pymodule_export]
    use crate::server::ServerCore;
    #[pymodule_export]
    use crate::types::install;
    #[pymodule_export]
    use crate::waiting::Waiting;
    use pyo3::prelude::*;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
