//! Which instruction set to use: the best that the processor has, or the one that was asked for by name.

use super::portable::Portable;
use super::{Kernel, Simd};

/// The instruction set in use. Holds the proof that the processor has it.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Level {
    /// Plain Rust for any processor.
    Portable(Portable),
    /// AVX2 with FMA, F16C and POPCNT.
    #[cfg(target_arch = "x86_64")]
    Avx2(super::avx2::Avx2),
    /// AVX-512 F, BW, DQ, VL.
    #[cfg(target_arch = "x86_64")]
    Avx512(super::avx512::Avx512),
    /// NEON, which every aarch64 processor has.
    #[cfg(target_arch = "aarch64")]
    Neon(super::neon::Neon),
}

/// A name that is no level, or none that this processor has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownLevel {
    /// What was asked for.
    pub name: String,
    /// What there is here.
    pub available: Vec<&'static str>,
}

impl Level {
    /// All levels that this processor has, the best one first.
    pub fn available() -> Vec<Self> {
        let mut levels = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            levels.extend(super::avx512::Avx512::detect().map(Self::Avx512));
            levels.extend(super::avx2::Avx2::detect().map(Self::Avx2));
        }
        #[cfg(target_arch = "aarch64")]
        levels.extend(super::neon::Neon::detect().map(Self::Neon));
        levels.push(Self::Portable(Portable));
        levels
    }

    /// The best level that this processor has.
    pub fn best() -> Self {
        Self::available().first().copied().unwrap_or(Self::Portable(Portable))
    }

    /// The level of that name, if this processor has it.
    pub fn named(name: &str) -> Result<Self, UnknownLevel> {
        let levels = Self::available();
        levels.iter().find(|level| level.name() == name).copied().ok_or_else(|| UnknownLevel {
            name: name.to_owned(),
            available: levels.iter().map(|level| level.name()).collect(),
        })
    }

    /// The name, as in `SOFTXENT_ISA`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Portable(_) => "portable",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(_) => "avx2",
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(_) => "avx512",
            #[cfg(target_arch = "aarch64")]
            Self::Neon(_) => "neon",
        }
    }

    /// Runs a kernel, compiled for this level.
    #[inline]
    pub fn run<K: Kernel>(self, kernel: K) -> K::Output {
        match self {
            Self::Portable(simd) => simd.vectorize(kernel),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(simd) => simd.vectorize(kernel),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(simd) => simd.vectorize(kernel),
            #[cfg(target_arch = "aarch64")]
            Self::Neon(simd) => simd.vectorize(kernel),
        }
    }

    /// Makes streamed stores visible to other threads. Once at the end of a task.
    pub fn fence(self) {
        struct Fence;
        impl Kernel for Fence {
            type Output = ();
            #[inline(always)]
            fn run<S: Simd>(self, simd: S) {
                simd.fence();
            }
        }
        self.run(Fence);
    }
}
