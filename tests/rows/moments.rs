//! What is summed beside the exponentials: weighted logits, the energy from which the entropy comes, and how many
//! logits are greater. Against sums in double precision, where the reference is raised, and in parts.

use crate::masks::spoilt;
use crate::twin::{Random, bits, on_every_level, thinned};
use crate::{
    Item, Mask, Total, cells, check_fused, check_near, epsilon, for_every_element, lengths, logits,
    masks, partial_bits, places, plain,
};
use softxent::exp::Base;
use softxent::row::{
    Along, CHUNK, Chunk, Moments, Partial, Statistics, Summarize, Weighted, Weights,
};
use softxent::simd::Number;
use std::cell::Cell;

/// What a row is weighted with, in memory.
#[derive(Clone)]
pub(crate) struct Weighting<E: Item> {
    classes: Option<Vec<Cell<E::Compute>>>,
    targets: Option<Vec<Cell<E>>>,
    of_targets: f64,
    of_allowed: f64,
}

impl<E: Item> Weighting<E> {
    /// All the same, class weights, probability targets with smoothing, and both; some of them 0 or negative.
    pub(crate) fn all(length: usize) -> [Self; 4] {
        let random = &mut Random(length as u64);
        let mut number = |i: usize| match i % 5 {
            0 => 0.0,
            1 => random.between(-1.0, 0.0),
            _ => random.between(0.0, 2.0),
        };
        let mut classes = || Some(cells((0..length).map(&mut number)));
        let (some, others) = (classes(), classes());
        let mut target = |i: usize| if i.is_multiple_of(3) { 0.0 } else { number(i) };
        let mut targets = || Some(cells((0..length).map(&mut target)));
        let (own, both) = (targets(), targets());
        [
            Self { classes: None, targets: None, of_targets: 0.0, of_allowed: 1.0 },
            Self { classes: some, targets: None, of_targets: 0.0, of_allowed: 0.25 },
            Self { classes: None, targets: own, of_targets: 0.9, of_allowed: 0.125 },
            Self { classes: others, targets: both, of_targets: -0.75, of_allowed: 0.0 },
        ]
    }

    /// The weights of a part of the row.
    pub(crate) fn part(&self, start: usize, end: usize) -> Weights<'_, E> {
        let one = E::Compute::from_f64(1.0);
        Weights {
            classes: match &self.classes {
                Some(cells) => Along::Each(&cells[start..end]),
                None => Along::Same(one),
            },
            targets: match &self.targets {
                Some(cells) => Along::Stored(&cells[start..end]),
                None => Along::Same(one),
            },
            of_targets: E::Compute::from_f64(self.of_targets),
            of_allowed: E::Compute::from_f64(self.of_allowed),
        }
    }

    /// The weight of a class.
    pub(crate) fn weight(&self, at: usize, allowed: bool) -> f64 {
        let class = self.classes.as_ref().map_or(1.0, |cells| cells[at].get().to_f64());
        let target = self.targets.as_ref().map_or(1.0, |cells| cells[at].get().to_f64());
        class * (self.of_targets * target + if allowed { self.of_allowed } else { 0.0 })
    }
}

/// Two sums, term by term, and how far the kernel may be from each.
struct Naive {
    sums: [f64; 2],
    slack: [f64; 2],
}

/// What the kernel loses for each term: its own roundings, and those of up to sixteen additions in working precision.
const ROUNDINGS: f64 = 32.0;

impl Naive {
    /// `sum q (x - max)` and `sum q` of logits with their weights; 0 times infinity is 0.
    fn weighted<E: Item>(terms: &[(f64, f64)], max: f64, temperature: f64) -> Self {
        let (mut moment, mut weight) = (Total::default(), Total::default());
        let mut slack = [f64::from(f32::MIN_POSITIVE); 2];
        for &(x, q) in terms {
            let d = if x == f64::NEG_INFINITY { x } else { x - max };
            moment.add(if q == 0.0 { 0.0 } else { q * d });
            weight.add(q);
            let lost = ROUNDINGS * epsilon::<E>() * q.abs();
            slack[0] += if d.is_finite() { lost * (d.abs() + temperature) } else { 0.0 };
            slack[1] += lost;
        }
        Self { sums: [moment, weight].map(Total::value), slack }
    }

    /// `sum exp((x - max) / T) (x - max)`, and how many logits are greater than a given one.
    fn statistics<E: Item>(logits: &[f64], max: f64, temperature: f64, than: f64) -> Self {
        let (mut energy, mut greater) = (Total::default(), Total::default());
        let mut slack = f64::from(f32::MIN_POSITIVE);
        for &x in logits {
            let d = if x == max { 0.0 } else { x - max };
            let (power, size) = ((d / temperature).exp(), d.abs().min(1e30));
            energy.add(if power == 0.0 { 0.0 } else { power * d });
            greater.add(if x > than { 1.0 } else { 0.0 });
            let lost = power * (ROUNDINGS + 2.0 * size / temperature) * epsilon::<E>();
            slack += lost * (size + temperature);
        }
        Self { sums: [energy, greater].map(Total::value), slack: [slack, 0.0] }
    }

    fn check(&self, got: (f64, f64), about: &dyn Fn() -> String) {
        check_near(got.0, self.sums[0], self.slack[0], about);
        check_near(got.1, self.sums[1], self.slack[1], about);
    }
}

/// A level, and the summary and the sums that it gives.
type Named = (&'static str, (Partial, (f64, f64)));

/// Sums on every level; those that have to agree with the twin do.
fn sums<E: Item, M: Moments<E::Compute>>(
    chunk: Chunk<'_, E>,
    skip: Option<usize>,
    base: &Base<E::Compute>,
    moments: M,
    weights: Option<Weights<'_, E>>,
) -> Vec<Named> {
    let results = on_every_level(|| Summarize { chunk, skip, base, moments, weights });
    let all_bits = |&(partial, (first, second)): &(Partial, (f64, f64))| {
        (partial_bits(partial), bits(first), bits(second))
    };
    check_fused(&results, all_bits, &|| format!("{} {:?}", chunk.cells.len(), E::KIND));
    results
}

const WEIGHTED: Weighted<false> = Weighted { guarded: true };

/// Compares the weighted sums of a row on every level.
fn check_weighted<E: Item>(
    row: &[Cell<E>],
    mask: Option<&Mask>,
    skip: Option<usize>,
    weighting: &Weighting<E>,
    temperature: f64,
) {
    let base = Base::new(temperature);
    let there = (0..row.len()).filter(|&i| Some(i) != skip);
    let term = |i: usize| {
        let allowed = mask.is_none_or(|mask| mask.allows(i));
        let x = if allowed { row[i].get().to_f64() } else { f64::NEG_INFINITY };
        (x, weighting.weight(i, allowed))
    };
    let terms: Vec<(f64, f64)> = there.map(term).collect();
    let max = terms.iter().fold(f64::NEG_INFINITY, |max, &(x, _)| x.max(max));
    let naive = Naive::weighted::<E>(&terms, max, temperature);
    let spoilt = mask.map_or_else(|| row.to_vec(), |mask| spoilt(row, mask));
    let chunk = Chunk { mask: mask.map(Mask::bytes), ..plain(&spoilt) };
    let weights = Some(weighting.part(0, row.len()));
    for (level, (partial, got)) in sums(chunk, skip, &base, WEIGHTED, weights) {
        let about = || {
            let mask = mask.map(Mask::bytes);
            format!("{level}: {} {:?}, skip {skip:?}, mask {mask:?}", row.len(), E::KIND)
        };
        assert_eq!(bits(partial.max), bits(max), "{}", about());
        naive.check(got, &about);
    }
}

#[test]
fn weighted_sums_of_rows_of_every_length_are_those_of_doubles() {
    fn check<E: Item>() {
        for length in lengths() {
            let row = logits::<E>(length, length as u64);
            for weighting in &Weighting::all(length) {
                for temperature in [1.0, 0.1, 25.0] {
                    check_weighted(&row, None, None, weighting, temperature);
                }
                for skip in places(length).into_iter().step_by(1 + length / 8) {
                    check_weighted(&row, None, Some(skip), weighting, 1.0);
                }
            }
        }
    }
    for_every_element!(check());
}

/// A masked class with a target is infinitely improbable; without one it is not there.
#[test]
fn weighted_sums_of_masked_rows_are_those_of_doubles() {
    fn check<E: Item>() {
        for length in lengths().step_by(4) {
            let row = logits::<E>(length, length as u64);
            for weighting in &Weighting::all(length) {
                for (n, mask) in masks(length).iter().enumerate().step_by(3) {
                    check_weighted(&row, Some(mask), None, weighting, 1.0);
                    let skip = places(length).get(n).copied();
                    check_weighted(&row, Some(mask), skip, weighting, 1.0);
                }
            }
        }
    }
    for_every_element!(check());
}

#[test]
fn a_weight_of_zero_takes_minus_infinity_out_and_any_other_lets_it_through() {
    fn check<E: Item>() {
        let infinity = f64::INFINITY;
        for length in lengths().filter(|&length| length > 1).step_by(3) {
            let row = logits::<E>(length, 8);
            let mut weighting = Weighting::<E> {
                classes: Some(cells(vec![0.5; length])),
                targets: None,
                of_targets: 0.0,
                of_allowed: 1.0,
            };
            for at in places(length) {
                let before = row[at].replace(E::from_f64(-infinity));
                for (weight, expected) in
                    [(0.0, None), (-0.0, None), (0.5, Some(-infinity)), (-2.0, Some(infinity))]
                {
                    weighting.classes = Some(cells(vec![0.5; length]));
                    weighting.classes.as_ref().unwrap()[at].set(E::Compute::from_f64(weight));
                    check_weighted(&row, None, None, &weighting, 1.0);
                    let weights = Some(weighting.part(0, length));
                    let base = Base::new(1.0);
                    for (level, (_, (moment, _))) in
                        sums(plain(&row), None, &base, WEIGHTED, weights)
                    {
                        let right = expected.map_or(moment.is_finite(), |x| moment == x);
                        assert!(right, "{level}: {moment} with the weight {weight} at {at}");
                    }
                }
                row[at].set(before);
            }
        }
    }
    for_every_element!(check());
}

/// Weights that are 1 for all need not be read.
#[test]
fn even_weights_give_the_bits_of_weights_of_one() {
    fn check<E: Item>() {
        let base = Base::new(1.0);
        let one = || Along::Same(E::Compute::from_f64(1.0));
        let zero = E::Compute::from_f64(0.0);
        for length in lengths() {
            let row = logits::<E>(length, 3);
            let ones: Vec<Cell<E::Compute>> =
                (0..length).map(|_| Cell::new(E::Compute::from_f64(1.0))).collect();
            let allowed = Weights {
                classes: one(),
                targets: one(),
                of_targets: zero,
                of_allowed: E::Compute::from_f64(1.0),
            };
            assert!(allowed.are_even());
            let each = Weights { classes: Along::Each(&ones), ..allowed };
            assert!(!each.are_even());
            for skip in [None].into_iter().chain(places(length).into_iter().map(Some)) {
                let guarded = false;
                let even = Weighted::<true> { guarded };
                let evenly = sums(plain(&row), skip, &base, even, Some(allowed));
                let weighted = Weighted::<false> { guarded };
                let by_weight = sums(plain(&row), skip, &base, weighted, Some(each));
                for ((level, (_, even)), (_, (_, each))) in evenly.into_iter().zip(by_weight) {
                    let pairs = [(even.0, each.0), (even.1, each.1)];
                    let same = pairs.iter().all(|&(a, b): &(f64, f64)| bits(a) == bits(b));
                    assert!(same, "{level}: {even:?}, not {each:?}, {skip:?} of {length}");
                }
            }
        }
    }
    for_every_element!(check());
}

/// The faster sums differ only where they say so themselves.
#[test]
fn unguarded_sums_are_the_same_or_not_a_number() {
    fn check<E: Item>() {
        let base = Base::new(1.0);
        for length in lengths().step_by(3) {
            let row = logits::<E>(length, 9);
            for infinite in [None].into_iter().chain(places(length).into_iter().map(Some)) {
                let before = infinite.map(|at| row[at].replace(E::from_f64(f64::NEG_INFINITY)));
                let same = |guarded: Vec<Named>, unguarded: Vec<Named>| {
                    for ((level, (_, guarded)), (_, (_, got))) in guarded.into_iter().zip(unguarded)
                    {
                        let (got, expected): ((f64, f64), _) = (got, guarded);
                        let equal = bits(got.0) == bits(expected.0)
                            || (infinite.is_some() && got.0.is_nan());
                        assert!(
                            equal && bits(got.1) == bits(expected.1),
                            "{level}: {got:?}, not {expected:?}, {infinite:?} in {length}"
                        );
                    }
                };
                for weighting in &Weighting::all(length) {
                    let weights = Some(weighting.part(0, length));
                    let of = |guarded| {
                        sums(plain(&row), None, &base, Weighted::<false> { guarded }, weights)
                    };
                    same(of(true), of(false));
                }
                let of = |guarded| {
                    let logit = E::Compute::from_f64(2.5);
                    sums(plain(&row), None, &base, Statistics { logit, guarded }, None)
                };
                same(of(true), of(false));
                if let (Some(at), Some(before)) = (infinite, before) {
                    row[at].set(before);
                }
            }
        }
    }
    for_every_element!(check());
}

/// Compares the statistics of a row on every level.
fn check_statistics<E: Item>(
    row: &[Cell<E>],
    mask: Option<&Mask>,
    skip: Option<usize>,
    than: f64,
    temperature: f64,
) {
    let base = Base::new(temperature);
    let counts = |i: &usize| Some(*i) != skip && mask.is_none_or(|mask| mask.allows(*i));
    let logits: Vec<f64> = (0..row.len()).filter(counts).map(|i| row[i].get().to_f64()).collect();
    let max = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let naive = Naive::statistics::<E>(&logits, max, temperature, than);
    let spoilt = mask.map_or_else(|| row.to_vec(), |mask| spoilt(row, mask));
    let chunk = Chunk { mask: mask.map(Mask::bytes), ..plain(&spoilt) };
    let moments = Statistics { logit: E::Compute::from_f64(than), guarded: true };
    for (level, (_, got)) in sums(chunk, skip, &base, moments, None) {
        naive.check(got, &|| {
            let mask = mask.map(Mask::bytes);
            let (length, kind) = (row.len(), E::KIND);
            format!("{level}: {length} {kind:?}, skip {skip:?}, than {than}, mask {mask:?}")
        });
    }
}

#[test]
fn energy_is_that_of_doubles_and_all_greater_logits_are_counted() {
    fn check<E: Item>() {
        let infinity = f64::INFINITY;
        for length in lengths() {
            let row = logits::<E>(length, length as u64);
            // One that stands in the row several times, ends, and what nothing is greater than.
            for than in [2.5, -12.5, 0.0, infinity, -infinity, f64::NAN] {
                check_statistics(&row, None, None, than, 1.0);
            }
            for temperature in [0.1, 25.0] {
                check_statistics(&row, None, None, 2.5, temperature);
            }
            for at in places(length).into_iter().step_by(1 + length / 8) {
                let than = row[at].get().to_f64();
                check_statistics(&row, None, Some(at), than, 1.0);
                let before = row[at].replace(E::from_f64(-infinity));
                check_statistics(&row, None, None, than, 1.0);
                check_statistics(&row, None, None, -infinity, 1.0);
                row[at].set(before);
            }
        }
    }
    for_every_element!(check());
}

#[test]
fn the_statistics_of_a_masked_row_leave_masked_classes_out() {
    fn check<E: Item>() {
        for length in lengths().step_by(3) {
            let row = logits::<E>(length, length as u64);
            for (n, mask) in masks(length).iter().enumerate() {
                let skip = places(length).get(n).copied();
                for than in [2.5, f64::NEG_INFINITY] {
                    check_statistics(&row, Some(mask), None, than, 1.0);
                    check_statistics(&row, Some(mask), skip, than, 1.0);
                }
            }
        }
    }
    for_every_element!(check());
}

#[test]
fn a_nan_among_the_logits_is_not_greater_and_leaves_the_others_counted() {
    fn check<E: Item>() {
        let row = logits::<E>(300, 10);
        let numbers = row.iter().map(|x| x.get().to_f64());
        let greater = numbers.filter(|&x| x > 2.5).count() as f64;
        let moments = Statistics { logit: E::Compute::from_f64(2.5), guarded: true };
        for at in places(300) {
            let was_greater = f64::from(u8::from(row[at].get().to_f64() > 2.5));
            let before = row[at].replace(E::from_f64(f64::NAN));
            for (level, (partial, (energy, got))) in
                sums(plain(&row), None, &Base::new(1.0), moments, None)
            {
                assert!(partial.sum.is_nan() && energy.is_nan(), "{level}");
                assert_eq!(got, greater - was_greater, "{level}: NaN at {at}");
            }
            row[at].set(before);
        }
    }
    for_every_element!(check());
}

#[test]
fn sums_keep_their_digits_when_the_reference_is_raised() {
    fn check<E: Item>(length: usize) {
        let weighting = &Weighting::all(length)[3];
        let mask = Mask::new(length, |i| i % 7 != 2);
        for temperature in [1.0, 0.25, 30.0] {
            for step in [0.01, 1.1, 60.0].map(|step| step * temperature) {
                let rising = |i: usize| ((i / 64) as f64 * step).min(60_000.0);
                let late = |i: usize| if i + 3 == length { 20.0 * step } else { -step };
                for row in [
                    cells::<E>((0..length).map(rising)),
                    cells((0..length).map(|i| i / 64 % 9).map(|i| i as f64 * step - 100.0)),
                    cells((0..length).map(late)),
                ] {
                    for mask in [None, Some(&mask)] {
                        // What is masked has no target here: its logit of -inf would be all that is left.
                        let weighting =
                            Weighting { of_allowed: 0.5, of_targets: 0.0, ..weighting.clone() };
                        check_weighted(&row, mask, None, &weighting, temperature);
                        check_statistics(&row, mask, None, row[0].get().to_f64(), temperature);
                    }
                }
            }
        }
    }
    for_every_element!(check(CHUNK / thinned(16)));
}

#[test]
fn merged_parts_have_the_sums_of_the_whole() {
    fn check<E: Item>() {
        let row = logits::<E>(1000, 9);
        row[20].set(E::from_f64(90.0));
        row[700].set(E::from_f64(95.0));
        let numbers: Vec<f64> = row.iter().map(|x| x.get().to_f64()).collect();
        let weighting = &Weighting::<E>::all(1000)[3];
        let terms: Vec<(f64, f64)> =
            numbers.iter().enumerate().map(|(i, &x)| (x, weighting.weight(i, true))).collect();
        for temperature in [1.0, 0.1, 25.0] {
            let base = Base::new(temperature);
            let naive = Naive::weighted::<E>(&terms, 95.0, temperature);
            let naive_statistics = Naive::statistics::<E>(&numbers, 95.0, temperature, 2.5);
            let moments = Statistics { logit: E::Compute::from_f64(2.5), guarded: true };
            for cut in (0..=row.len()).step_by(37) {
                let part = |start: usize, end: usize| {
                    let chunk = plain(&row[start..end]);
                    let weights = Some(weighting.part(start, end));
                    let weighted = sums(chunk, None, &base, WEIGHTED, weights);
                    let statistics = sums(chunk, None, &base, moments, None);
                    weighted.into_iter().zip(statistics).map(|((_, weighted), (_, statistics))| {
                        let (partial, (moment, weight)) = weighted;
                        let (_, (energy, greater)) = statistics;
                        Partial { moment, weight, energy, greater, ..partial }
                    })
                };
                for (left, right) in part(0, cut).zip(part(cut, row.len())) {
                    for whole in [left.merge(right, temperature), right.merge(left, temperature)] {
                        let about = || format!("{:?} cut at {cut}: {whole:?}", E::KIND);
                        naive.check((whole.moment, whole.weight), &about);
                        naive_statistics.check((whole.energy, whole.greater), &about);
                    }
                }
            }
        }
    }
    for_every_element!(check());
}

#[test]
fn merging_names_the_first_chunk_in_which_the_maximum_stands() {
    let of = |max: f64, chunk: usize| Partial { max, sum: 1.0, chunk, ..Partial::EMPTY };
    let nothing = Partial { chunk: 5, ..Partial::EMPTY };
    for (parts, chunk) in [
        (vec![of(1.0, 0), of(2.0, 8), of(2.0, 16)], 8),
        (vec![of(3.0, 0), of(2.0, 8), of(3.0, 16)], 0),
        (vec![of(1.0, 0), of(2.0, 8), of(3.0, 16)], 16),
        (vec![nothing, of(-7.0, 8)], 8),
        (vec![of(-7.0, 8), nothing], 8),
    ] {
        let merged = parts.into_iter().fold(Partial::EMPTY, |a, b| a.merge(b, 1.0));
        assert_eq!(merged.chunk, chunk, "{merged:?}");
    }
}

#[test]
fn merging_moves_the_sums_of_the_part_with_the_smaller_maximum() {
    // sum q (x - max) of the logits 1 and 3 with the weights 2 and 5, and of 0 with the weight 4.
    let a = Partial { moment: 2.0 * -2.0, weight: 7.0, ..Partial::of_one(3.0, 0.0) };
    let b = Partial { weight: 4.0, ..Partial::of_one(0.0, 0.0) };
    for merged in [a.merge(b, 1.0), b.merge(a, 1.0)] {
        assert_eq!((merged.max, merged.moment, merged.weight), (3.0, -4.0 + 4.0 * -3.0, 11.0));
    }
    // exp(0) * 0 + exp(-2) * -2, two of them.
    let part = Partial::of_one(-2.0, 0.0).merge(Partial::of_one(0.0, 0.0), 1.0);
    let expected = -2.0 * (-2.0_f64).exp();
    assert!((part.energy - expected).abs() < 1e-15, "{part:?}");
    let counted = Partial { greater: 3.0, ..part }.merge(Partial { greater: 4.0, ..part }, 1.0);
    assert_eq!((counted.greater, counted.energy), (7.0, 2.0 * part.energy));
}

#[test]
fn a_single_logit_brings_what_its_weight_makes_of_it() {
    let (infinity, nan) = (f64::INFINITY, f64::NAN);
    for (logit, weight, sum, moment) in [
        (3.0, 2.0, 1.0, 0.0),
        (-infinity, 0.0, 0.0, 0.0),
        (-infinity, 2.0, 0.0, -infinity),
        (-infinity, -2.0, 0.0, infinity),
        (infinity, 1.0, infinity, 0.0),
    ] {
        let expected = Partial { max: logit, sum, moment, weight, ..Partial::EMPTY };
        assert_eq!(Partial::of_one(logit, weight), expected);
        // Beside others, of which none has a weight.
        let others = Partial { max: 1.0, sum: 1.5, ..Partial::EMPTY };
        for merged in [expected.merge(others, 1.0), others.merge(expected, 1.0)] {
            assert_eq!(merged.weight, weight);
            assert!(logit == infinity || !merged.moment.is_nan(), "{merged:?}");
            assert!(merged.moment != 0.0 || moment == 0.0, "{merged:?}");
        }
    }
    assert!(Partial::of_one(nan, 1.0).max.is_nan());
}
