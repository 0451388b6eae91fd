"""The table of targets: complete, and judged by both statistics against the right thing."""

import pytest

from benches import readme, report, targets
from benches.libraries import OURS, PEERS
from benches.measured import LIMIT, Measured, What, bandwidth, speed, times
from benches.operations import OPERATIONS
from benches.targets import SETTINGS, TARGETS, Size, judge, wanted


def test_the_table_has_every_row_of_the_targets() -> None:
    cases = [target.case for target in TARGETS]
    assert len(set(cases)) == len(cases)
    for target in TARGETS:
        for what in (target.what, *target.over):
            assert what.setting in SETTINGS
            assert what.operation in OPERATIONS or what.library == LIMIT
            assert what.setting == target.what.setting  # else they would not take turns
        assert target.over or target.unit in (targets.RATE, targets.MICROSECONDS)
    named = {what.library for target in TARGETS for what in target.over}
    assert named == {LIMIT, OURS, *PEERS}


def test_a_setting_measures_each_thing_once_and_no_absent_peer() -> None:
    for setting in SETTINGS:
        what = wanted(setting, ["numpy"], readme.needed(["numpy"]))
        assert len(set(what)) == len(what) > 0
        assert {w.library for w in what} <= {LIMIT, OURS, "numpy"}
        assert {w.setting for w in what} == {setting}


def test_the_arrays_in_cache_fit_it() -> None:
    size = Size(4096, 128256, l2=2 << 20, l3=480 << 20)
    shapes = {name: shape(size) for name, shape in SETTINGS.items()}
    assert shapes["L2"] == (8, 50257)
    assert shapes["L3"] == (64, 50257)
    assert shapes["short rows"] == (65536, 1000)
    small = SETTINGS["L2"](Size(1, 1, l2=1 << 20, l3=0))
    assert 4 * small[0] * small[1] < 1 << 20
    assert SETTINGS["L3"](Size(1, 1, l2=0, l3=0)) == (1, 50257)


def measured(what: What, seconds: list[float], moved: int = 4000) -> Measured:
    return Measured(what, rows=10, columns=100, size=4000, moved=moved, seconds=seconds)


READ, COPY = What("beyond", LIMIT, "read"), What("beyond", LIMIT, "streaming copy")
LOSS = What("beyond", OURS, "cross_entropy")


@pytest.mark.parametrize(
    ("seconds", "verdict", "values"),
    [
        ([1.0, 1.0, 1.0], "held", (1.0, 1.0)),
        ([2.0, 1.0, 2.0], "missed", (1.0, 0.5)),  # the fastest alone is not enough
        ([1.0, 1.25, 0.5], "held", (2.0, 1.0)),
    ],
)
def test_a_target_is_held_by_the_fastest_and_the_median_round(
    seconds: list[float], verdict: str, values: tuple[float, float]
) -> None:
    target = targets.of_limit("loss", 0.95, "beyond", "cross_entropy")
    judged = judge(target, [measured(READ, [1.0, 1.0, 1.0]), measured(LOSS, seconds)])
    assert judged.verdict == verdict
    assert (judged.min, judged.median) == values
    assert judged.over == "limit read"


def test_a_target_counts_against_the_fastest_peer() -> None:
    target = targets.of_peers("best", 6, "cross_entropy_with_grad out=", ["numpy", "numba"])
    ours = measured(target.what, [1.0])
    # One can write to an array that exists and the other cannot.
    numpy = measured(What("peers", "numpy", "cross_entropy_with_grad out="), [9.0])
    numba = measured(What("peers", "numba", "cross_entropy_with_grad"), [7.0])
    judged = judge(target, [ours, numpy, numba])
    assert (judged.median, judged.verdict) == (7.0, "held")
    assert judged.over == str(numba)


def test_a_target_at_most_is_judged_the_other_way_round() -> None:
    target = targets.of_ours("fresh", 1.1, LOSS, READ, targets.TIME)
    assert judge(target, [measured(LOSS, [1.05]), measured(READ, [1.0])]).verdict == "held"
    assert judge(target, [measured(LOSS, [1.2]), measured(READ, [1.0])]).verdict == "missed"
    alone = targets.Target("call", LOSS, (), targets.MICROSECONDS, 3)
    judged = judge(alone, [measured(LOSS, [2e-6])])
    assert (judged.median, judged.over, judged.verdict) == (2.0, "", "held")


def test_what_was_not_measured_is_neither_held_nor_missed() -> None:
    target = targets.of_limit("loss", 0.95, "beyond", "cross_entropy")
    for rows in ([], [measured(LOSS, [1.0])], [measured(READ, [1.0])]):
        judged = judge(target, rows)
        assert (judged.verdict, judged.min, judged.median) == ("not measured", None, None)


def test_the_units() -> None:
    narrow = Measured(LOSS, rows=10, columns=100, size=2000, moved=2000, seconds=[1.0])
    read = measured(READ, [1.0])
    assert bandwidth(narrow, read, min) == 0.5
    assert speed(narrow, read, min) == 1
    half = Measured(LOSS, rows=5, columns=100, size=4000, moved=4000, seconds=[1.0])
    assert bandwidth(half, read, min) == 1
    assert speed(half, read, min) == 0.5
    twice = measured(LOSS, [2.5], moved=8000)
    assert bandwidth(twice, measured(READ, [1.0]), min) == 0.8
    assert times(twice, read, min) == 2.5
    assert targets.RATE.against(measured(LOSS, [1e-6]), read, min) == pytest.approx(1.0)


def test_a_peer_without_out_stands_against_ours_with_and_without() -> None:
    names = ["softmax", "softmax out="]
    ours = [measured(What("family", OURS, name), [1.0]) for name in names]
    peer = measured(What("family", "scipy", "softmax"), [3.0])
    against = [r.fast.what.operation for r in report.ratios([*ours, peer]) if r.slow == peer]
    assert against == names


def test_an_option_stands_against_the_same_without_it_and_no_other() -> None:
    ours = [measured(What("family", OURS, name), [1.0]) for name in OPERATIONS]
    peer = measured(What("family", "scipy", "cross_entropy"), [3.0])
    pairs = [(r.slow.what.operation, r.fast.what.operation) for r in report.ratios(ours)]
    for pair in (
        ("cross_entropy of probabilities", "cross_entropy"),
        ("cross_entropy_with_grad class_mask= out=", "cross_entropy_with_grad out="),
        ("cross_entropy_with_grad class_mask=", "cross_entropy_with_grad class_mask= out="),
    ):
        assert pairs.count(pair) == 1
    # A peer that has no such option does not stand against ours that has.
    against = [r.fast.what.operation for r in report.ratios([*ours, peer]) if r.slow == peer]
    assert against == ["cross_entropy"]
