//! The floating-point state of a thread: rounding to nearest, denormals kept.
//!
//! A library compiled with fast-math switches flush-to-zero on for the thread that loads it, and only for
//! that one. Work that ran in whatever state its thread happens to have would give results that depend on
//! the thread. Each task therefore runs in the default state and puts back what it found.

/// Runs `work` in the default floating-point state and then restores the state that was there before.
pub fn with_default_float_state<R>(work: impl FnOnce() -> R) -> R {
    let _restore = Restore(arch::replace(arch::DEFAULT));
    work()
}

/// Puts the state back, also when the work panics.
struct Restore(arch::State);

impl Drop for Restore {
    fn drop(&mut self) {
        arch::replace(self.0);
    }
}

#[cfg(target_arch = "x86_64")]
mod arch {
    use core::arch::asm;

    pub(super) type State = u32;
    /// All exceptions masked, round to nearest, denormals kept: the state that Rust assumes.
    pub(super) const DEFAULT: State = 0x1f80;

    /// Sets the state and returns the former one.
    pub(super) fn replace(state: State) -> State {
        let mut former: State = 0;
        // SAFETY: both instructions exist on every x86-64 and only touch these two variables and MXCSR.
        // `state` is the default or what was found in the register before, so no reserved bit is set.
        unsafe {
            asm!("stmxcsr [{}]", in(reg) &raw mut former, options(nostack));
            if former != state {
                asm!("ldmxcsr [{}]", in(reg) &raw const state, options(nostack));
            }
        }
        former
    }
}

#[cfg(target_arch = "aarch64")]
mod arch {
    use core::arch::asm;

    pub(super) type State = u64;
    /// Round to nearest, denormals kept, default NaN off: the state that Rust assumes.
    pub(super) const DEFAULT: State = 0;

    /// Sets the state and returns the former one.
    pub(super) fn replace(state: State) -> State {
        let former: State;
        // SAFETY: FPCR is readable and writable at every privilege level; `state` is the default or what
        // was found in the register before.
        unsafe {
            asm!("mrs {}, fpcr", out(reg) former, options(nostack));
            if former != state {
                asm!("msr fpcr, {}", in(reg) state, options(nostack));
            }
        }
        former
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
mod arch {
    pub(super) type State = ();
    pub(super) const DEFAULT: State = ();
    pub(super) fn replace((): State) -> State {}
}
