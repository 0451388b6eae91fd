//! Double-double arithmetic: numbers of more than a hundred bits, with which doubles are compared.
//!
//! The exponential, the logarithm, the hyperbolic tangent and its derivative come from textbook series, slowly.

use std::f64::consts::{E, LN_2, LOG2_E};

/// The unevaluated sum of two doubles, which is a number of 106 bits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pair(pub(crate) f64, pub(crate) f64);

impl Pair {
    /// `high + low`, where `low` is not the larger one.
    pub(crate) fn of(high: f64, low: f64) -> Self {
        let sum = high + low;
        Self(sum, low - (sum - high))
    }

    pub(crate) fn plus(self, b: Self) -> Self {
        let sum = self.0 + b.0;
        let part = sum - self.0;
        let lost = (self.0 - (sum - part)) + (b.0 - part);
        Self::of(sum, lost + self.1 + b.1)
    }

    pub(crate) fn times(self, b: Self) -> Self {
        let product = self.0 * b.0;
        Self::of(product, self.0.mul_add(b.0, -product) + self.0 * b.1 + self.1 * b.0)
    }

    pub(crate) fn over(self, divisor: f64) -> Self {
        let quotient = self.0 / divisor;
        Self::of(quotient, ((-quotient).mul_add(divisor, self.0) + self.1) / divisor)
    }

    /// `(p, n)` where `self.exp() = p * 2^n`: `n` from the logarithm of two, `p` from the series for a 64th of
    /// what is left, squared six times.
    pub(crate) fn exp(self) -> (Self, i32) {
        let n = (self.0 * LOG2_E).round();
        let rest = self.plus(Self(-LN_2, -2.319_046_813_846_299_6e-17).times(Self(n, 0.0)));
        let y = Self(rest.0 / 64.0, rest.1 / 64.0);
        let one = Self(1.0, 0.0);
        let series = (1..=11).rev().fold(one, |sum, k| one.plus(sum.times(y).over(f64::from(k))));
        ((0..6).fold(series, |power, _| power.times(power)), n as i32)
    }

    pub(crate) fn over_pair(self, divisor: Self) -> Self {
        let first = self.over(divisor.0);
        let rest = self.plus(divisor.times(Self(-first.0, -first.1)));
        first.plus(rest.over(divisor.0))
    }

    /// `exp(y) - 1`, unless that is beyond doubles.
    pub(crate) fn exp_m1(self) -> Self {
        if self.0.abs() < 2f64.powi(-10) {
            // The powers up to the eleventh: (((y/11 + 1) y/10 + 1) y/9 + ... + 1) y
            let one = Self(1.0, 0.0);
            let series =
                (2..=11).rev().fold(one, |sum, k| one.plus(sum.times(self).over(f64::from(k))));
            return self.times(series);
        }
        let (p, n) = self.exp();
        let scale = 2f64.powi(n);
        Self(p.0 * scale, p.1 * scale).plus(Self(-1.0, 0.0))
    }

    /// `log(1 + u)` of a double that is no subnormal number.
    pub(crate) fn log_1p(u: f64) -> Self {
        let u = Self(u, 0.0);
        if u.0.abs() < 2f64.powi(-10) {
            // The powers up to the eleventh.
            let series = (1..=11).rev().fold(Self(0.0, 0.0), |sum, k| {
                Self(1.0, 0.0).over(f64::from(k)).plus(sum.times(Self(-u.0, -u.1)))
            });
            return u.times(series);
        }
        u.plus(Self(1.0, 0.0)).log_by_newton()
    }

    /// The logarithm of a positive double.
    pub(crate) fn log(x: f64) -> Self {
        // What is subtracted is exact there.
        if (0.5..2.0).contains(&x) { Self::log_1p(x - 1.0) } else { Self(x, 0.0).log_by_newton() }
    }

    /// From an approximation `y`, `log x = y + log(1 + r)` where `r = x exp(-y) - 1` is next to nothing.
    fn log_by_newton(self) -> Self {
        let y = self.0.ln();
        let (p, n) = Self(-y, 0.0).exp();
        // In two steps, since 2^1023 is the last power of two.
        let (first, second) = (2f64.powi(n / 2), 2f64.powi(n - n / 2));
        let x = Self(self.0 * first * second, self.1 * first * second);
        let r = x.times(p).plus(Self(-1.0, 0.0));
        Self(y, 0.0).plus(r.plus(Self(-0.5 * r.0 * r.0, 0.0)))
    }

    /// How far a number is from this one, in units in the last place of this one; with the distance from 1 to the next
    /// number of the precision.
    pub(crate) fn ulps(self, got: f64, epsilon: f64) -> f64 {
        let binade = f64::from_bits(self.0.to_bits() & f64::INFINITY.to_bits());
        ((got - self.0) - self.1).abs() / (binade * epsilon)
    }

    /// `tanh(y)`, and `(p, n)` where its derivative is `p * 2^n`.
    pub(crate) fn tanh(self) -> (Self, Self, i32) {
        let one = Self(1.0, 0.0);
        let size = if self.0 < 0.0 { Self(-self.0, -self.1) } else { self };
        // E = exp(-2 |y|) = p 2^n,   tanh |y| = (1 - E) / (1 + E),   derivative 4 E / (1 + E)^2
        let (p, n) = Self(-2.0 * size.0, -2.0 * size.1).exp();
        let scale = 2f64.powi(n);
        let exponential = Self(p.0 * scale, p.1 * scale);
        let above = one.plus(exponential);
        let derivative = Self(4.0 * p.0, 4.0 * p.1).over_pair(above.times(above));
        let tanh = if size.0 < 0.01 {
            // Where 1 - E would cancel: the odd powers up to the 13th.
            let square = size.times(size);
            let series = [
                (21_844.0, 6_081_075.0),
                (-1382.0, 155_925.0),
                (62.0, 2835.0),
                (-17.0, 315.0),
                (2.0, 15.0),
                (-1.0, 3.0),
            ];
            let rest = series.into_iter().fold(Self(0.0, 0.0), |sum, (above, below)| {
                sum.times(square).plus(Self(above, 0.0).over(below))
            });
            size.plus(size.times(square).times(rest))
        } else {
            one.plus(Self(-exponential.0, -exponential.1)).over_pair(above)
        };
        let tanh = if self.0 < 0.0 { Self(-tanh.0, -tanh.1) } else { tanh };
        (tanh, derivative, n)
    }
}

#[test]
fn the_exponential_in_double_double_arithmetic_has_more_than_a_hundred_bits() {
    // e, 1/e and sqrt(e), each as two doubles, from a computation in 60 digits.
    for (x, high, low) in [
        (1.0, E, 1.445_646_891_729_250_2e-16),
        (-1.0, 0.367_879_441_171_442_33, -1.242_875_367_278_836_3e-17),
        (0.5, 1.648_721_270_700_128_2, -4.731_568_479_435_833e-17),
    ] {
        let (power, n) = Pair(x, 0.0).exp();
        let scale = 2f64.powi(n);
        let error = (power.0 * scale - high) + (power.1 * scale - low);
        assert!(error.abs() < high * 2f64.powi(-100), "exp({x}) is off by {error:e}");
    }
}

#[test]
fn the_tangent_in_double_double_arithmetic_has_almost_a_hundred_bits() {
    // tanh y and 1 - tanh(y)^2, each as two doubles, from a computation in 60 digits.
    for (y, tanh, derivative) in [
        (
            1.0,
            (0.761_594_155_955_764_9, 3.709_021_448_216_492_4e-17),
            (0.419_974_341_614_026_1, -1.159_873_045_777_197_6e-17),
        ),
        (
            -0.5,
            (-0.462_117_157_260_009_74, -2.191_660_323_826_093e-17),
            (0.786_447_732_965_927_4, 6.068_968_522_537_492e-18),
        ),
        (
            0.00390625,
            (0.003_906_230_131_906_34, -5.506_595_552_325_231e-20),
            (0.999_984_741_366_156_6, 2.714_945_489_188_876_4e-17),
        ),
        (
            1e-8,
            (1e-8, -3.333_333_333_333_333_5e-25),
            (0.999_999_999_999_999_9, 1.102_230_246_251_565_6e-17),
        ),
        (
            20.0,
            (1.0, -8.496_708_510_583_178e-18),
            (1.699_341_702_116_635_5e-17, 3.531_107_210_781_977e-34),
        ),
    ] {
        let (got, slope, n) = Pair(y, 0.0).tanh();
        let error = (got.0 - tanh.0) + (got.1 - tanh.1);
        assert!(error.abs() < tanh.0.abs() * 2f64.powi(-98), "tanh({y}) is off by {error:e}");
        let scale = 2f64.powi(n);
        let error = (slope.0 * scale - derivative.0) + (slope.1 * scale - derivative.1);
        assert!(error.abs() < derivative.0 * 2f64.powi(-98), "its derivative by {error:e}");
    }
}

#[test]
fn the_logarithm_in_double_double_arithmetic_has_almost_a_hundred_bits() {
    // Each as two doubles, from a computation in 80 digits.
    for (x, high, low) in [
        (2.0, LN_2, 2.319_046_813_846_299_6e-17),
        (0.3, -1.203_972_804_325_936_1, 8.935_521_583_403_776e-17),
        (1e300, 690.775_527_898_213_7, 2.374_766_002_880_024_3e-14),
        (f64::from_bits(1), -744.440_071_921_381_2, -4.422_444_340_918_698e-14),
        (1.000_976_563_431_322_6, 0.000_976_086_903_469_425_7, -2.709_915_590_201_953_2e-20),
    ] {
        let got = Pair::log(x);
        let error = (got.0 - high) + (got.1 - low);
        assert!(error.abs() < high.abs() * 2f64.powi(-90), "log({x:e}) is off by {error:e}");
    }
    for (u, high, low) in [
        (1e-5, 9.999_950_000_333_332e-6, -2.386_863_728_449_341_6e-22),
        (-(2f64.powi(-11)), -0.000_488_400_498_108_874_5, 4.833_640_110_330_175e-20),
        (1e-30, 1e-30, -5.000_000_000_000_000_5e-61),
    ] {
        let got = Pair::log_1p(u);
        let error = (got.0 - high) + (got.1 - low);
        assert!(error.abs() < high.abs() * 2f64.powi(-95), "log(1 + {u:e}) is off by {error:e}");
    }
}

#[test]
fn the_exponential_less_1_in_double_double_arithmetic_has_almost_a_hundred_bits() {
    // Each as two doubles, from a computation in 80 digits.
    for (y, high, low) in [
        (-1e-5, -9.999_950_000_166_666e-6, -7.687_946_724_313_578e-22),
        (-(2f64.powi(-11)), -0.000_488_162_060_110_634_6, 3.632_828_883_096_811e-21),
        (-1e-30, -1e-30, 5.000_000_000_000_000_5e-61),
        (-1.0, -0.632_120_558_828_557_7, -1.242_875_367_278_836_3e-17),
        (-40.0, -1.0, 4.248_354_255_291_589e-18),
    ] {
        let got = Pair(y, 0.0).exp_m1();
        let error = (got.0 - high) + (got.1 - low);
        assert!(error.abs() < high.abs() * 2f64.powi(-95), "exp({y:e}) - 1 is off by {error:e}");
    }
}
