//! The soft cap `c tanh(x / c)` and its derivative: against double-double arithmetic within their bounds, and in
//! literals what becomes of zeros, infinities and NaN.
//!
//! `cargo test --test exp softcap -- --nocapture` prints the largest errors found.

use crate::Lane;
use crate::pair::Pair;
use crate::twin::{Random, bits, is_fused, on_every_level, run, thinned, vector};
use softxent::exp::Softcap;
use softxent::simd::{Kernel, Level, Simd, Vector};

/// What the capped logit promises, and its derivative, in units in the last place.
const BOUNDS: [f64; 2] = [6.0, 7.0];

/// Those that models have, a small one and a large one, and two that no float holds.
const CAPS: [f64; 8] = [0.5, 1.0, 5.0, 30.0, 50.0, 1e4, 0.7, 1.0 / 3.0];

/// The capped numbers and their derivatives, of as many as fill whole vectors.
struct Capped<'a, T> {
    softcap: &'a Softcap<T>,
    x: &'a [T],
}

impl<T: Lane> Kernel for Capped<'_, T> {
    type Output = Vec<[T; 2]>;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> Vec<[T; 2]> {
        let mut results = Vec::with_capacity(self.x.len());
        for x in self.x.chunks_exact(T::LANES) {
            let (capped, slope) = self.softcap.apply(simd, vector(simd, x));
            let (capped, slope) = (capped.to_array(T::MAX), slope.to_array(T::MAX));
            results.extend((0..T::LANES).map(|i| [capped[i], slope[i]]));
        }
        results
    }
}

/// Looks at every number with what becomes of it, on every level.
fn check_each<T: Lane>(cap: f64, mut x: Vec<T>, mut check: impl FnMut(&str, T, [T; 2])) {
    x.resize(x.len().next_multiple_of(T::LANES), x[0]);
    let softcap = Softcap::new(cap);
    for level in Level::available() {
        for (&x, result) in x.iter().zip(run(level, Capped { softcap: &softcap, x: &x })) {
            check(level.name(), x, result);
        }
    }
}

#[test]
fn capped_numbers_and_their_derivatives_keep_their_bounds() {
    fn check<T: Lane>(name: &str) {
        let random = &mut Random(4);
        let count = (1 << 18) / thinned(64);
        let (largest, smallest) = (T::TANH_IS_ONE, -100.0);
        let mut y: Vec<f64> = (0..count).map(|_| random.between(-largest, largest)).collect();
        y.extend((0..count).map(|_| random.between(-3.0, 3.0)));
        y.extend((0..count).map(|_| random.between(smallest, largest.log2()).exp2()));
        y.extend((0..count).map(|_| -random.between(smallest, largest.log2()).exp2()));
        y.extend([largest, -largest, largest / 2.0, 1.0, -1.0]);
        y.resize(y.len().next_multiple_of(T::LANES), 0.125);
        for cap in CAPS {
            let x: Vec<T> = y.iter().map(|y| T::from_f64(y * cap)).collect();
            let exact: Vec<_> = x.iter().map(|x| Pair(x.to_f64(), 0.0).over(cap).tanh()).collect();
            let softcap = Softcap::new(cap);
            for level in Level::available() {
                let (mut worst, mut worst_at) = ([0.0; 2], [0.0; 2]);
                let results = run(level, Capped { softcap: &softcap, x: &x });
                for ((result, x), &(tanh, slope, n)) in results.iter().zip(&x).zip(&exact) {
                    let [capped, derivative] = result.map(T::to_f64);
                    let errors = [
                        tanh.times(Pair(cap, 0.0)).ulps(capped, T::EPSILON),
                        slope.ulps(derivative * 2f64.powi(-n), T::EPSILON),
                    ];
                    for i in 0..2 {
                        // What the exponential has more without a fused multiply-add.
                        let unfused = if is_fused(level.name()) || T::LANES == 16 {
                            0.0
                        } else {
                            2.0 * (x.to_f64() / cap).abs()
                        };
                        assert!(
                            errors[i] <= BOUNDS[i] + unfused,
                            "{}: {errors:?} ulp at {x:e}, cap {cap}",
                            level.name()
                        );
                        if errors[i] > worst[i] {
                            (worst[i], worst_at[i]) = (errors[i], x.to_f64() / cap);
                        }
                    }
                }
                let level = level.name();
                println!("{name} capped at {cap}, {level}: {worst:.4?} ulp at {worst_at:?}");
            }
        }
    }
    check::<f32>("singles");
    check::<f64>("doubles");
}

/// Where twice the quotient with the cap is subnormal, digits are lost with it; they are worth a number so small
/// beside the cap.
#[test]
fn numbers_next_to_zero_stay_next_to_themselves() {
    fn check<T: Lane>() {
        let smallest_normal = T::MIN_EXPONENT.exp2();
        let smallest = T::of(1).to_f64();
        for cap in CAPS {
            let x = [1e-3, 1.0, 7.0, 1e3].map(|x| x * smallest_normal);
            let x = x.into_iter().chain([1.0, 2.0, 12345.0].map(|x| x * smallest));
            let x = x.flat_map(|x| [x, -x]).map(T::from_f64).collect();
            check_each(cap, x, |level, x, [capped, slope]| {
                let x = x.to_f64();
                let error = (capped.to_f64() - x).abs();
                let lost = BOUNDS[0] * T::EPSILON * x.abs() + 2.0 * smallest.max(cap * smallest);
                assert!(error <= lost, "{level}: {x:e} capped at {cap} is {capped:e}");
                assert_eq!(slope.to_f64(), 1.0, "{level}: the derivative at {x:e}");
            });
        }
    }
    check::<f32>();
    check::<f64>();
}

#[test]
fn zero_stays_zero_with_a_derivative_of_one() {
    fn check<T: Lane>() {
        for cap in CAPS {
            let zeros = vec![T::from_f64(0.0), T::from_f64(-0.0)];
            check_each(cap, zeros, |level, x, [capped, slope]| {
                let result = [capped, slope].map(T::to_f64);
                assert_eq!(result, [0.0, 1.0], "{level}: {x:e} capped at {cap}");
            });
        }
    }
    check::<f32>();
    check::<f64>();
}

#[test]
fn what_is_far_from_zero_becomes_the_cap_with_next_to_no_derivative() {
    fn check<T: Lane>() {
        for cap in CAPS {
            let far = [T::TANH_IS_ONE * cap, 1e3 * cap, 1e9 * cap, T::MAX.to_f64(), f64::INFINITY];
            let far = far.into_iter().flat_map(|x| [x, -x]).map(T::from_f64).collect();
            let rounded = T::from_f64(cap).to_f64();
            check_each(cap, far, |level, x, [capped, slope]| {
                let about = || format!("{level}: {x:e} capped at {cap} is {capped:e}, {slope:e}");
                let missing = 1.0 - capped.to_f64() / (rounded * x.to_f64().signum());
                assert!((0.0..=T::EPSILON).contains(&missing), "{}", about());
                assert!((0.0..=1e-34).contains(&slope.to_f64()), "{}", about());
            });
        }
    }
    check::<f32>();
    check::<f64>();
}

/// Numbers of the size of logits under caps of any other size.
fn check_caps<T: Lane>(caps: &[f64], right: impl Fn(f64, f64, [f64; 2]) -> bool) {
    for &cap in caps {
        let x = [0.5, 1.0, 3.0, 88.7].into_iter().flat_map(|x| [x, -x]).map(T::from_f64).collect();
        check_each::<T>(cap, x, |level, x, result| {
            let result = result.map(T::to_f64);
            let right = right(cap, x.to_f64(), result);
            assert!(right, "{level}: {x:e} capped at {cap:e} is {result:?}");
        });
    }
}

#[test]
fn a_cap_far_above_all_numbers_changes_nothing() {
    fn check<T: Lane>(caps: &[f64]) {
        check_caps::<T>(caps, |cap, x, [capped, slope]| {
            let lost = BOUNDS[0] * T::EPSILON * x.abs() + 2.0 * cap * T::of(1).to_f64();
            (capped - x).abs() <= lost && (slope - 1.0).abs() <= T::EPSILON
        });
    }
    check::<f32>(&[1e10, 1e20, 1e30, 3e38]);
    check::<f64>(&[1e20, 1e100, 1e300, f64::MAX]);
}

#[test]
fn a_cap_far_below_all_numbers_leaves_only_their_signs() {
    fn check<T: Lane>(caps: &[f64]) {
        check_caps::<T>(caps, |cap, x, [capped, slope]| {
            let expected = T::from_f64(cap).to_f64() * x.signum();
            (capped / expected - 1.0).abs() <= T::EPSILON && (0.0..=1e-34).contains(&slope)
        });
    }
    check::<f32>(&[1e-5, 1e-20, 3e-36]);
    check::<f64>(&[1e-20, 1e-200, 3e-300]);
}

#[test]
fn nothing_exceeds_the_cap_and_no_derivative_is_outside_of_zero_and_one() {
    fn check<T: Lane>() {
        let random = &mut Random(5);
        for cap in CAPS {
            let count = (1 << 16) / thinned(64);
            let mut x: Vec<T> = (0..count).map(|_| T::of(random.bits())).collect();
            x.extend((0..count).map(|_| T::from_f64(random.between(-40.0, 40.0) * cap)));
            let rounded = T::from_f64(cap).to_f64();
            check_each(cap, x, |level, x, [capped, slope]| {
                let [capped, slope] = [capped, slope].map(T::to_f64);
                let within = capped.abs() <= rounded && (0.0..=1.0 + T::EPSILON).contains(&slope);
                let nan = x.to_f64().is_nan() && capped.is_nan() && slope.is_nan();
                assert!(within || nan, "{level}: {x:e} capped at {cap} is {capped:e}, {slope:e}");
            });
        }
    }
    check::<f32>();
    check::<f64>();
}

#[test]
fn a_nan_stays_nan_whatever_its_payload_and_so_does_its_derivative() {
    fn check<T: Lane>() {
        let random = &mut Random(6);
        let payloads = T::SIGN - T::INFINITY;
        let others = (0..1 << 12).map(|_| 1 + random.bits() % (payloads - 1));
        let all = others.chain([1, payloads / 2, payloads - 1]);
        let nans = all.flat_map(|x| [T::INFINITY + x, T::SIGN + T::INFINITY + x]);
        check_each(30.0, nans.map(T::of).collect(), |level, x, result| {
            let nan = result.into_iter().all(|x| x.to_f64().is_nan());
            assert!(nan, "{level}: {:#x} becomes {result:?}", x.pattern());
        });
    }
    check::<f32>();
    check::<f64>();
}

#[test]
fn capped_numbers_have_the_same_bits_on_every_level_with_a_fused_multiply_add() {
    fn check<T: Lane>() {
        let random = &mut Random(7);
        let count = (1 << 14) / thinned(16);
        for cap in CAPS.into_iter().chain([1e-30, 1e30]) {
            let mut x: Vec<T> = (0..count).map(|_| T::of(random.bits())).collect();
            x.extend((0..count).map(|_| T::from_f64(random.between(-4.0, 4.0) * cap)));
            let softcap = Softcap::new(cap);
            let results = on_every_level(|| Capped { softcap: &softcap, x: &x });
            let (_, expected) = results.last().unwrap();
            for (level, got) in results.iter().filter(|(level, _)| is_fused(level)) {
                for i in 0..x.len() {
                    let (got, expected) = (got[i], expected[i]);
                    let about = format_args!("{level}: {:e} capped at {cap}", x[i]);
                    assert_eq!(got.map(bits), expected.map(bits), "{about}");
                }
            }
        }
    }
    check::<f32>();
    check::<f64>();
}
