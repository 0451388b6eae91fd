//! Memory for large results: kept when a result is gone, and used for the next one. Knows no dtype and no shape.
//!
//! A fresh array of hundreds of megabytes costs more than what is computed into it, because the system clears every
//! page that it hands out. So a block that is given back stays mapped:
//!
//! 1. *It counts as free.* The system is told that it may take the pages back whenever it is short of memory
//!    (`MADV_FREE`); if it has not, the next result finds them in place.
//! 2. *Bounded*: at most a quarter of the machine's memory is kept, the block that waits longest goes first.
//!    [`release`] returns all of it, and so does a mapping that fails, before it is tried once more.
//! 3. *Huge pages* are asked for. Nothing is cleared here, and the thread that writes a page is the first to touch it.
//! 4. *Fork*: the lock is only tried, never waited for. A child in whose memory some thread of its parent holds the
//!    lock keeps nothing and finds nothing, but works.

use crate::error::Error;
use std::ptr::NonNull;
use std::sync::{Mutex, TryLockError};

/// Bytes from which on a result gets a block. Below, the allocator keeps memory for the next array itself, and a block
/// costs its system calls: a loop of gradients into new arrays took, over the same with `out`, with NumPy's memory and
/// with blocks: 1.5 MiB 0.95 and 1.42, 4 MiB 0.95 and 1.27, 15 MiB 0.96 and 1.06, 31 MiB 1.10 and 0.98, 61 MiB 1.89 and
/// 1.04 (EPYC, glibc, which maps from 32 MiB on).
pub const LEAST: usize = 32 << 20;

/// Blocks are multiples of a huge page.
pub const PAGE: usize = 2 << 20;

/// The blocks that wait for the next result, the one that waits longest first.
static WAITING: Mutex<Vec<Mapping>> = Mutex::new(Vec::new());

/// Writable memory with no particular content.
#[derive(Debug)]
pub struct Block {
    /// None only while the block is being dropped.
    mapping: Option<Mapping>,
}

impl Block {
    /// At least that many bytes, at an address that is a multiple of 64.
    pub fn new(bytes: usize) -> Result<Self, Error> {
        let size = bytes.max(1).checked_next_multiple_of(PAGE).ok_or(Error::Memory(bytes))?;
        let mapping = waiting(|blocks| {
            // The smallest that is large enough, and not so large that most of it would lie idle.
            let fits = |&i: &usize| (size..=size + size / 4).contains(&blocks[i].size);
            let best = (0..blocks.len()).filter(fits).min_by_key(|&i| blocks[i].size)?;
            Some(blocks.remove(best))
        });
        let mapped = || {
            Mapping::new(size).or_else(|| {
                release();
                Mapping::new(size)
            })
        };
        match mapping.flatten().or_else(mapped) {
            Some(mapping) => Ok(Self { mapping: Some(mapping) }),
            None => Err(Error::Memory(bytes)),
        }
    }

    /// Its first byte.
    pub fn address(&self) -> *mut u8 {
        self.mapping.as_ref().map_or(std::ptr::null_mut(), |mapping| mapping.address.as_ptr())
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        if let Some(mapping) = self.mapping.take() {
            mapping.offer();
            keep(mapping, limit());
        }
    }
}

/// Lets a mapping wait, and unmaps as many of the others, and in the end it, as it takes to stay within the limit.
fn keep(mapping: Mapping, limit: usize) {
    // What goes is unmapped when the lock is free again.
    let mut rest = Vec::new();
    waiting(|blocks| {
        blocks.push(mapping);
        let mut size: usize = blocks.iter().map(|block| block.size).sum();
        while size > limit {
            let oldest = blocks.remove(0);
            size -= oldest.size;
            rest.push(oldest);
        }
    });
}

/// Returns all memory that waits for a result to the system, and says how many bytes it was.
pub fn release() -> usize {
    let blocks = waiting(std::mem::take).unwrap_or_default();
    blocks.iter().map(|block| block.size).sum()
}

/// The bytes that wait for a result.
pub fn kept() -> usize {
    waiting(|blocks| blocks.iter().map(|block| block.size).sum()).unwrap_or(0)
}

/// Does something with the blocks that wait, unless somebody else is at it.
fn waiting<R>(f: impl FnOnce(&mut Vec<Mapping>) -> R) -> Option<R> {
    match WAITING.try_lock() {
        Ok(mut blocks) => Some(f(&mut blocks)),
        Err(TryLockError::Poisoned(blocks)) => Some(f(&mut blocks.into_inner())),
        Err(TryLockError::WouldBlock) => None,
    }
}

/// Memory of our own.
#[derive(Debug)]
struct Mapping {
    address: NonNull<u8>,
    size: usize,
}

// SAFETY: it is only an address, which whoever has the block may use on any thread.
unsafe impl Send for Mapping {}
// SAFETY: as above; nothing is read or written through a shared reference here.
unsafe impl Sync for Mapping {}

#[cfg(unix)]
impl Mapping {
    fn new(size: usize) -> Option<Self> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a new mapping at an address of the system's choice touches no memory that is in use.
        let address = unsafe { libc::mmap(std::ptr::null_mut(), size, protection, flags, -1, 0) };
        if address == libc::MAP_FAILED {
            return None;
        }
        let mapping = Self { address: NonNull::new(address.cast())?, size };
        #[cfg(target_os = "linux")]
        mapping.advise(libc::MADV_HUGEPAGE);
        Some(mapping)
    }

    /// Lets the system have the pages when it is short of memory.
    fn offer(&self) {
        self.advise(libc::MADV_FREE);
    }

    /// Advice that the system does not know is no error: it only costs time or memory.
    fn advise(&self, advice: libc::c_int) {
        // SAFETY: our own mapping, and neither advice changes what a block promises, which is no content at all.
        unsafe { libc::madvise(self.address.as_ptr().cast(), self.size, advice) };
    }
}

#[cfg(unix)]
impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped by `new` with this size, and owned.
        unsafe { libc::munmap(self.address.as_ptr().cast(), self.size) };
    }
}

/// The most bytes that wait.
#[cfg(unix)]
pub fn limit() -> usize {
    // SAFETY: reads two numbers of the system's.
    let numbers =
        unsafe { [libc::sysconf(libc::_SC_PHYS_PAGES), libc::sysconf(libc::_SC_PAGESIZE)] };
    let [pages, size] = numbers.map(|number| usize::try_from(number).unwrap_or(0));
    pages.saturating_mul(size) / 4
}

/// Elsewhere a block is the allocator's memory, and none waits.
#[cfg(not(unix))]
impl Mapping {
    fn new(size: usize) -> Option<Self> {
        let layout = Self::layout(size)?;
        // SAFETY: blocks are never of no size.
        let address = NonNull::new(unsafe { std::alloc::alloc(layout) })?;
        Some(Self { address, size })
    }

    fn layout(size: usize) -> Option<std::alloc::Layout> {
        std::alloc::Layout::from_size_align(size, 64).ok()
    }

    fn offer(&self) {}
}

#[cfg(not(unix))]
impl Drop for Mapping {
    fn drop(&mut self) {
        if let Some(layout) = Self::layout(self.size) {
            // SAFETY: allocated by `new` with this layout, and owned.
            unsafe { std::alloc::dealloc(self.address.as_ptr(), layout) };
        }
    }
}

/// The most bytes that wait.
#[cfg(not(unix))]
pub fn limit() -> usize {
    0
}
