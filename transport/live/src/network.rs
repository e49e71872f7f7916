//! The runtime that moves the packets, alone or with the engine on it.

use crate::service::{Live, LiveError, LiveOptions};
use std::future::Future;
use std::thread::JoinHandle;
use std::time::Duration;
use tidegate_actors::runtime::{RuntimeOptions, StageFactory, Threads};
use tidegate_proto::hub::StreamMeta;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::oneshot;

/// Threads of a network that has its own.
const NETWORK_THREADS: usize = 2;
/// The runtime for the sockets of front ends. Dropping it, or [`Network::shutdown`], ends its tasks; only the latter waits.
pub struct Network {
    handle: Handle,
    kind: Kind,
}

enum Kind {
    /// Gone once shut down.
    Separate(Option<Runtime>),
    /// What ends the thread, also when it is dropped, and the thread.
    Fused(Option<(oneshot::Sender<Duration>, JoinHandle<()>)>),
}

impl Network {
    /// Starts the threads: two, or `tg-core` that the engine shares.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub fn start(threads: Threads, options: &RuntimeOptions) -> std::io::Result<Self> {
        if threads.here(options) == Threads::Separate {
            let runtime = Builder::new_multi_thread()
                .worker_threads(NETWORK_THREADS)
                .thread_name("tg-network")
                .enable_all()
                .build()?;
            return Ok(Self { handle: runtime.handle().clone(), kind: Kind::Separate(Some(runtime)) });
        }
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (end, ended) = oneshot::channel();
        let thread = std::thread::Builder::new().name("tg-core".into()).spawn(move || {
            let patience = runtime.block_on(ended).unwrap_or_default();
            runtime.shutdown_timeout(patience);
        })?;
        Ok(Self { handle, kind: Kind::Fused(Some((end, thread))) })
    }

    /// Starts the engine as this network is laid out.
    ///
    /// # Errors
    /// As [`Live::start`].
    pub fn live(
        &self,
        stages: StageFactory,
        streams: Vec<StreamMeta>,
        options: LiveOptions,
    ) -> Result<Live, LiveError> {
        match &self.kind {
            Kind::Separate(_) => Live::start(stages, streams, options),
            Kind::Fused(_) => Live::start_on(&self.handle, stages, streams, options),
        }
    }

    /// Fused or separate.
    #[must_use]
    pub fn threads(&self) -> Threads {
        match &self.kind {
            Kind::Separate(_) => Threads::Separate,
            Kind::Fused(_) => Threads::Fused,
        }
    }

    /// The runtime: to spawn on, or to enter.
    #[must_use]
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Runs a future on the calling thread, with the sockets and timers of this runtime. Not for asynchronous code.
    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.handle.block_on(future)
    }

    /// Ends the tasks; those that block have so long.
    pub fn shutdown(mut self, patience: Duration) {
        match &mut self.kind {
            Kind::Separate(runtime) => {
                if let Some(runtime) = runtime.take() {
                    runtime.shutdown_timeout(patience);
                }
            }
            Kind::Fused(thread) => {
                if let Some((end, thread)) = thread.take() {
                    let _ = end.send(patience);
                    let _ = thread.join();
                }
            }
        }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // Dropping the runtime would wait, which asynchronous code must not.
        if let Kind::Separate(runtime) = &mut self.kind
            && let Some(runtime) = runtime.take()
        {
            runtime.shutdown_background();
        }
    }
}
