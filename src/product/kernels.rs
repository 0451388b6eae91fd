//! Which inner loop multiplies: one table of the crate gemm for each precision and instruction set.
//!
//! The crate chooses by what the processor has. Here the level chooses, so a level that `SOFTXENT_ISA` forbids is not
//! used: nothing of the crate runs but the functions in these tables, and what they call (on the level `avx512` a few
//! scalar operations with the fused multiply-add of AVX2, which every such processor has).

use crate::element::Element;
use crate::simd::{Float, Level};
use std::ops::{Add, Mul};

/// `dst = alpha * dst + beta * left * right` for a tile that fits the registers: rows, columns and depth of the tile
/// (the crate's matrices lie in columns, so its rows are our columns), `dst`, `left`, `right`; elements from one
/// column to the next of `dst`, from one row to the next of it, from one step of the depth to the next of `left`, of
/// `right`, and from one column to the next of `right`; alpha, beta; 0 or 1 if that is what alpha is, else 2;
/// conjugations, and an address that is not used.
type Tile<T> = unsafe fn(
    usize,
    usize,
    usize,
    *mut T,
    *const T,
    *const T,
    isize,
    isize,
    isize,
    isize,
    isize,
    T,
    T,
    u8,
    bool,
    bool,
    bool,
    *const T,
);

/// The inner loops for one precision on one instruction set.
#[derive(Clone, Copy, Debug)]
pub struct Kernels<T: 'static> {
    /// Elements of a register.
    pub(super) lanes: usize,
    /// Columns of a tile.
    pub(super) width: usize,
    /// Rows of a tile.
    pub(super) height: usize,
    /// For tiles of 1, 2, ... registers side by side, each of 1, 2, ... rows.
    tiles: &'static [Tile<T>],
}

impl<T> Kernels<T> {
    /// The loop for a tile of that many columns and rows.
    pub(super) fn tile(&self, columns: usize, rows: usize) -> Tile<T> {
        self.tiles[(columns.div_ceil(self.lanes) - 1) * self.height + rows - 1]
    }
}

/// A precision to multiply in.
pub trait Factor:
    Float + Element<Compute = Self> + Add<Output = Self> + Mul<Output = Self>
{
    /// The inner loops on that level.
    fn kernels(level: Level) -> Kernels<Self>;
}

macro_rules! kernels {
    ($library:ident, $level:ident, $t:ident, $lanes:literal) => {{
        use $library::microkernel::$level::$t::{MR_DIV_N, NR, UKR};
        static TILES: [[Tile<$t>; NR]; MR_DIV_N] = UKR;
        Kernels { lanes: $lanes, width: $lanes * MR_DIV_N, height: NR, tiles: TILES.as_flattened() }
    }};
}

macro_rules! factor {
    ($t:ident, $library:ident, $avx512:literal, $avx2:literal, $neon:literal) => {
        impl Factor for $t {
            fn kernels(level: Level) -> Kernels<Self> {
                match level {
                    Level::Portable(_) => kernels!($library, scalar, $t, 1),
                    #[cfg(target_arch = "x86_64")]
                    Level::Avx2(_) => kernels!($library, fma, $t, $avx2),
                    #[cfg(target_arch = "x86_64")]
                    Level::Avx512(_) => kernels!($library, avx512f, $t, $avx512),
                    #[cfg(target_arch = "aarch64")]
                    Level::Neon(_) => kernels!($library, neon, $t, $neon),
                }
            }
        }
    };
}
factor!(f32, gemm_f32, 16, 8, 4);
factor!(f64, gemm_f64, 8, 4, 2);
