//! The way to the device: one thread that calls it, one batch at a time, and a breaker that nobody waits behind.
//!
//! A batch that is late is given up: whoever waited computes it from its own copy, the device is opened anew, and another
//! thread takes the next batches. The thread that hangs in the driver ends when the driver answers it, if ever.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tidegate_gpu::risk::RiskReport;
use tidegate_gpu::sweep::{SweepCell, SweepRequest, SweepSeries, SweepSpec};
use tidegate_gpu::{Accel, BatchError};

use crate::RiskSpec;

/// What a device is asked, with buffers of its own so that nobody waits for a device that hangs.
#[derive(Debug)]
pub(crate) enum Ask {
    Sweep(SweepAsk),
    Risk { returns: Vec<f64>, spec: Arc<RiskSpec> },
}

/// Series one behind the other.
#[derive(Debug)]
pub(crate) struct SweepAsk {
    pub(crate) high: Vec<i64>,
    pub(crate) low: Vec<i64>,
    pub(crate) close: Vec<i64>,
    /// Where each series ends.
    pub(crate) ends: Vec<usize>,
    pub(crate) specs: Arc<[SweepSpec]>,
}

impl SweepAsk {
    pub(crate) fn new(specs: Arc<[SweepSpec]>) -> Self {
        Self { high: Vec::new(), low: Vec::new(), close: Vec::new(), ends: Vec::new(), specs }
    }

    pub(crate) fn clear(&mut self) {
        self.high.clear();
        self.low.clear();
        self.close.clear();
        self.ends.clear();
    }
}

/// What it says.
#[derive(Debug)]
pub(crate) enum Said {
    Cells(Vec<Vec<SweepCell>>),
    Report(RiskReport),
}

/// How a question to the device ended.
#[derive(Debug)]
pub(crate) enum Answer {
    /// It computed it.
    Done(Said),
    /// It failed or refused.
    Failed,
    /// It did not answer in time.
    Late,
    /// It has another batch, or there is none.
    Busy,
}

struct Job {
    ask: Ask,
    back: SyncSender<(Ask, Option<Result<Said, BatchError>>)>,
}

#[derive(Debug)]
struct Way {
    /// Whether a batch is with the device.
    taken: AtomicBool,
    jobs: SyncSender<Job>,
}

/// The device, as all classes share it.
#[derive(Debug)]
pub(crate) struct Lane {
    accel: Arc<Accel>,
    way: Mutex<Option<Arc<Way>>>,
}

impl Lane {
    pub(crate) fn new(accel: Arc<Accel>) -> Self {
        Self { accel, way: Mutex::new(None) }
    }

    pub(crate) fn accel(&self) -> &Accel {
        &self.accel
    }

    /// Whether a batch would be taken now.
    pub(crate) fn free(&self) -> bool {
        let way = self.way.lock().unwrap_or_else(PoisonError::into_inner);
        way.as_ref().is_none_or(|way| !way.taken.load(Ordering::SeqCst)) && self.accel.has_device()
    }

    /// Asks the device and waits for at most `longest`. The question comes back unless the device kept it.
    pub(crate) fn ask(&self, ask: Ask, longest: Duration) -> (Option<Ask>, Answer) {
        let Some(way) = self.claim() else { return (Some(ask), Answer::Busy) };
        let (back, answer) = sync_channel(1);
        if let Err(gone) = way.jobs.send(Job { ask, back }) {
            self.leave(&way);
            return (Some(gone.0.ask), Answer::Failed);
        }
        match answer.recv_timeout(longest) {
            Ok((ask, Some(Ok(said)))) => {
                way.taken.store(false, Ordering::SeqCst);
                (Some(ask), Answer::Done(said))
            }
            Ok((ask, _)) => {
                way.taken.store(false, Ordering::SeqCst);
                (Some(ask), Answer::Failed)
            }
            Err(RecvTimeoutError::Timeout) => {
                self.leave(&way);
                self.accel.expire();
                (None, Answer::Late)
            }
            Err(RecvTimeoutError::Disconnected) => {
                self.leave(&way);
                (None, Answer::Failed)
            }
        }
    }

    /// The way to the device for one batch, unless another has it.
    fn claim(&self) -> Option<Arc<Way>> {
        if !self.accel.has_device() {
            return None;
        }
        let mut held = self.way.lock().unwrap_or_else(PoisonError::into_inner);
        if held.is_none() {
            *held = self.open();
        }
        let way = held.as_ref()?;
        way.taken.compare_exchange(false, true, Ordering::SeqCst, Ordering::SeqCst).ok()?;
        Some(Arc::clone(way))
    }

    fn open(&self) -> Option<Arc<Way>> {
        let (jobs, work) = sync_channel::<Job>(1);
        let accel = Arc::clone(&self.accel);
        let run = move || serve(&accel, &work);
        std::thread::Builder::new().name("batch-device".to_owned()).spawn(run).ok()?;
        Some(Arc::new(Way { taken: AtomicBool::new(false), jobs }))
    }

    /// Nobody asks by this way any more.
    fn leave(&self, way: &Arc<Way>) {
        let mut held = self.way.lock().unwrap_or_else(PoisonError::into_inner);
        if held.as_ref().is_some_and(|held| Arc::ptr_eq(held, way)) {
            *held = None;
        }
    }
}

/// Answers questions until nobody can ask any more.
fn serve(accel: &Accel, jobs: &Receiver<Job>) {
    while let Ok(Job { ask, back }) = jobs.recv() {
        let found = catch_unwind(AssertUnwindSafe(|| compute(accel, &ask))).unwrap_or_else(|_| {
            accel.expire();
            None
        });
        // Nobody is there any more when it was late.
        let _ = back.send((ask, found));
    }
}

fn compute(accel: &Accel, ask: &Ask) -> Option<Result<Said, BatchError>> {
    match ask {
        Ask::Sweep(sweep) => {
            let mut start = 0;
            let series: Vec<SweepSeries<'_>> = sweep
                .ends
                .iter()
                .map(|&end| {
                    let span = start..end;
                    start = end;
                    let (high, low) = (&sweep.high[span.clone()], &sweep.low[span.clone()]);
                    SweepSeries { high, low, close: &sweep.close[span] }
                })
                .collect();
            let request = SweepRequest { series: &series, specs: &sweep.specs, horizon: 1 };
            Some(accel.sweep_on_device(&request)?.map(Said::Cells))
        }
        Ask::Risk { returns, spec } => Some(accel.risk_on_device(&spec.request(returns))?.map(Said::Report)),
    }
}
