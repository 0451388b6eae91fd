//! Tasks to threads. Knows nothing of floats.
//!
//! A call has numbered tasks; the calling thread and helpers from a pool take the next number until none is
//! left. Which thread does which task is left to chance, so a task's result must not depend on it.
//!
//! 1. *The caller works too*, and never waits for a helper that has not started: when the tasks run out it
//!    closes the job, and a helper that comes late finds it closed. So a small call is not held up by a large
//!    one that keeps the pool busy.
//! 2. *Fork.* A child inherits the pool's memory but not its threads. A handler that runs in the child forgets
//!    the pools, and the next call makes new ones. The old ones are leaked: no thread is left to end them.
//! 3. *Pools are never resized*, a larger one is made beside: sizes are powers of two, so that all of them
//!    together have less than twice the threads of the largest. No lock is held that a fork could catch but for
//!    the first call's.
//! 4. If the system gives no more threads the caller does all the work.
//! 5. *Nobody sleeps at once.* To wake a thread takes as long as a call on data in cache: a helper that is done looks
//!    out for the next call for a moment, and so does a caller for its last helper.

use crate::error::Error;
use rayon::{ThreadPool, ThreadPoolBuilder, Yield};
use std::cell::Cell;
use std::hint::spin_loop;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often the caller asks whether to stop. A run that is shorter does not ask: who has many of them asks between them.
pub const POLL: Duration = Duration::from_millis(50);

/// How long a thread that waits stays awake.
const AWAKE: Duration = Duration::from_micros(50);

/// The most threads that a call gets.
pub const MOST: usize = 1 << LARGEST_POOL;
const LARGEST_POOL: usize = 9;

/// Pools by the binary logarithm of their size.
static POOLS: [AtomicPtr<ThreadPool>; LARGEST_POOL + 1] =
    [const { AtomicPtr::new(std::ptr::null_mut()) }; LARGEST_POOL + 1];

/// The processors that this process may use: affinity and control-group quota.
pub fn available() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Runs `work` for every number below `tasks` on up to `threads` threads, the calling one included.
///
/// `interrupted` is asked on the calling thread every 50 ms, between two tasks; once it says yes, no further
/// task begins.
pub fn run(
    tasks: usize,
    threads: usize,
    work: &(dyn Fn(usize) + Sync),
    interrupted: &mut dyn FnMut() -> bool,
) -> Result<(), Error> {
    let helpers = threads.min(tasks).min(MOST).saturating_sub(1);
    let job = Arc::new(Job::new(tasks, work));
    if let Some(pool) = pool(helpers) {
        for _ in 0..helpers {
            let job = Arc::clone(&job);
            pool.spawn(move || {
                job.help();
                drop(job);
                stay_awake();
            });
        }
    }
    let mut last = Instant::now();
    let stopped = job.take_tasks(|| {
        let ask = last.elapsed() >= POLL;
        if ask {
            last = Instant::now();
        }
        ask && interrupted()
    });
    job.close();
    match job.panicked() {
        Some(message) => Err(Error::Panic(message)),
        None if stopped => Err(Error::Interrupted),
        None => Ok(()),
    }
}

/// Lines of work whose parts have to be done one after the other, each part a task of its own: the tasks come in the
/// order of the parts, so whoever has one to wait for knows that another thread is at it.
pub struct Lines(Vec<AtomicUsize>);

impl Lines {
    /// That many lines, none begun.
    pub fn new(count: usize) -> Self {
        Self((0..count).map(|_| AtomicUsize::new(0)).collect())
    }

    /// Takes up a part of a line, which is done when the turn is dropped.
    pub fn turn(&self, line: usize, part: usize) -> Turn<'_> {
        Turn { done: &self.0[line], part }
    }
}

/// A part of a line that is taken up. It counts as done also if its task panics, at any point: nobody is to wait for it
/// for ever.
pub struct Turn<'a> {
    /// The parts of the line that are done.
    done: &'a AtomicUsize,
    part: usize,
}

impl Turn<'_> {
    /// Waits until all parts before this one are done.
    pub fn wait(&self) {
        while self.done.load(Ordering::Acquire) < self.part {
            std::thread::yield_now();
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.wait();
        self.done.store(self.part + 1, Ordering::Release);
    }
}

/// The tasks of one call.
struct Job {
    /// What to do with a number. Lives on the caller's stack: see `help`.
    work: *const (dyn Fn(usize) + Sync),
    tasks: usize,
    next: AtomicUsize,
    stop: AtomicBool,
    /// Helpers at work; changed under the lock.
    working: AtomicUsize,
    helpers: Mutex<Helpers>,
    left: Condvar,
}

#[derive(Default)]
struct Helpers {
    closed: bool,
    panic: Option<String>,
}

// SAFETY: `work` points to something `Sync`, and is only followed while the caller keeps it alive: `help`
// registers before it does so, and `close` waits for all that are registered.
unsafe impl Send for Job {}
// SAFETY: as above; every other field is `Sync`.
unsafe impl Sync for Job {}

impl Job {
    fn new<'a>(tasks: usize, work: &'a (dyn Fn(usize) + Sync + 'a)) -> Self {
        let work: *const (dyn Fn(usize) + Sync + 'a) = work;
        // SAFETY: only the lifetime changes, and a raw pointer promises none; `help` says why it holds.
        let work: *const (dyn Fn(usize) + Sync + 'static) = unsafe { std::mem::transmute(work) };
        Self {
            work,
            tasks,
            next: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
            working: AtomicUsize::new(0),
            helpers: Mutex::default(),
            left: Condvar::new(),
        }
    }

    /// Takes tasks until none is left or `stop` says so; true if it did. To be called by the thread that
    /// owns the job, or by one that is registered.
    fn take_tasks(&self, mut stop: impl FnMut() -> bool) -> bool {
        // SAFETY: the job is open (the caller is inside `run`, or a helper is registered), so what `work`
        // points to is alive.
        let work = unsafe { &*self.work };
        let result = catch_unwind(AssertUnwindSafe(|| {
            loop {
                if self.stop.load(Ordering::Relaxed) {
                    return false;
                }
                let task = self.next.fetch_add(1, Ordering::Relaxed);
                if task >= self.tasks {
                    return false;
                }
                work(task);
                if stop() {
                    self.stop.store(true, Ordering::Relaxed);
                    return true;
                }
            }
        }));
        result.unwrap_or_else(|panic| {
            self.stop.store(true, Ordering::Relaxed);
            let message = panic
                .downcast_ref::<&str>()
                .map(ToString::to_string)
                .or_else(|| panic.downcast_ref::<String>().cloned());
            self.lock().panic = Some(message.unwrap_or_else(|| String::from("panic")));
            false
        })
    }

    /// What a pool thread does: registers if the job is still open, works, and signs off.
    fn help(&self) {
        {
            let helpers = self.lock();
            if helpers.closed {
                return;
            }
            self.working.fetch_add(1, Ordering::Relaxed);
        }
        self.take_tasks(|| false);
        {
            let _helpers = self.lock();
            self.working.fetch_sub(1, Ordering::Release);
        }
        self.left.notify_all();
    }

    /// Lets no further helper in and waits for those that are at work.
    fn close(&self) {
        self.lock().closed = true;
        let since = Instant::now();
        while self.working.load(Ordering::Acquire) > 0 && since.elapsed() < AWAKE {
            spin_loop();
        }
        let mut helpers = self.lock();
        while self.working.load(Ordering::Acquire) > 0 {
            helpers = self.left.wait(helpers).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn panicked(&self) -> Option<String> {
        self.lock().panic.take()
    }

    /// The lock; nothing panics while holding it.
    fn lock(&self) -> std::sync::MutexGuard<'_, Helpers> {
        self.helpers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Does what comes to this thread's pool, until nothing has come for a while.
fn stay_awake() {
    thread_local! {
        static IS_AWAKE: Cell<bool> = const { Cell::new(false) };
    }
    // What comes is done from within the loop below.
    if IS_AWAKE.replace(true) {
        return;
    }
    let mut since = Instant::now();
    while since.elapsed() < AWAKE {
        match rayon::yield_now() {
            Some(Yield::Executed) => since = Instant::now(),
            _ => spin_loop(),
        }
    }
    IS_AWAKE.set(false);
}

/// A pool with at least that many threads, or none if none is wanted or to be had.
fn pool(helpers: usize) -> Option<&'static ThreadPool> {
    if helpers == 0 {
        return None;
    }
    forget_pools_in_children();
    let size = helpers.next_power_of_two().ilog2() as usize;
    let slot = POOLS.get(size)?;
    let existing = slot.load(Ordering::Acquire);
    if !existing.is_null() {
        // SAFETY: a pool in a slot is never dropped.
        return Some(unsafe { &*existing });
    }
    let pool = ThreadPoolBuilder::new()
        .num_threads(helpers.next_power_of_two())
        .thread_name(|i| format!("softxent-{i}"))
        .build()
        .ok()?;
    let new = Box::into_raw(Box::new(pool));
    match slot.compare_exchange(std::ptr::null_mut(), new, Ordering::AcqRel, Ordering::Acquire) {
        // SAFETY: now in a slot, and so never dropped.
        Ok(_) => Some(unsafe { &*new }),
        Err(first) => {
            // SAFETY: another thread was faster; nobody else has seen this box.
            drop(unsafe { Box::from_raw(new) });
            // SAFETY: a pool in a slot is never dropped.
            Some(unsafe { &*first })
        }
    }
}

/// Has every forked child start without pools.
#[cfg(unix)]
fn forget_pools_in_children() {
    extern "C" fn forget() {
        for slot in &POOLS {
            slot.store(std::ptr::null_mut(), Ordering::Release);
        }
    }
    static REGISTERED: std::sync::Once = std::sync::Once::new();
    REGISTERED.call_once(|| {
        // SAFETY: the handler only stores to atomics, which is safe between fork and anything else.
        unsafe { libc::pthread_atfork(None, None, Some(forget)) };
    });
}

#[cfg(not(unix))]
fn forget_pools_in_children() {}
