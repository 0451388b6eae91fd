"""The road from logits to the gradient: the numbers that every reader of the field knows, in both forms.

That the functions compute them is tested elsewhere; here it is what is shown.
"""

import html
import json
import re
from typing import Any

import numpy as np
import pytest
import softxent as sx
from hypothesis import given, settings
from hypothesis import strategies as st
from softxent import cli
from softxent.explain import explain, explain_sequences
from softxent.explain.page import Page, number, shares

MAT = ([3.2, 1.0, -0.5, 2.5], ["mat", "hat", "sat", "rug"], "mat")


def numbers_of(page: Page, title: str) -> dict[str, str]:
    """Each line's number as it is spelled, by its label, in the first step with that title."""
    step = next(step for step in page.steps if step.title.startswith(title))
    return {line.label: line.number for line in step.lines}


def printed(capsys: pytest.CaptureFixture[str], *options: str) -> str:
    assert cli.main(["explain", *options]) == 0
    output = capsys.readouterr()
    assert output.err == ""
    return output.out


# The worked examples.


def test_the_word_after_the_cat_sat_on_the() -> None:
    page = explain(*MAT)
    exponentials = {"mat": "24.53", "hat": "2.72", "sat": "0.61", "rug": "12.18", "sum": "40.04"}
    assert numbers_of(page, "Exponentials") == exponentials
    probabilities = {"mat": "0.6127", "hat": "0.0679", "sat": "0.0151", "rug": "0.3043"}
    assert numbers_of(page, "Probabilities") == probabilities | {"sum": "1.0000"}
    assert numbers_of(page, "Loss") == {"mat": "0.4899"}
    assert numbers_of(page, "Gradient")["mat"] == "-0.3873"


def test_cat_dog_apple() -> None:
    found = numbers_of(explain([12.4, -3.2, 0.1], ["cat", "dog", "apple"]), "Probabilities")
    assert (found["cat"], found["dog"], found["apple"]) == ("0.999995", "1.68e-7", "4.55e-6")


def test_a_one_hot_target_leaves_one_logarithm(capsys: pytest.CaptureFixture[str]) -> None:
    output = printed(capsys, "--probabilities", "0.80,0.15,0.05")
    assert "-(1 log 0.8000 + 0 log 0.1500 + 0 log 0.0500) = -log 0.8000" in output
    assert re.search(r"5\. Loss.*\n +0 +0\.2231 ", output)


def test_the_scale_of_surprise_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert "0.80, 0.60, 0.01, 0.001 it is 0.223, 0.511, 4.605, 6.908" in printed(capsys)


def test_temperature_sharpens_and_flattens() -> None:
    found = {}
    for temperature in (0.5, 1.0, 2.0):
        page = explain(*MAT, temperature=temperature)
        found[temperature] = float(numbers_of(page, "Probabilities")["mat"])
        expected = sx.softmax(MAT[0], temperature=temperature)[0]
        assert found[temperature] == pytest.approx(expected, abs=5e-5)
    assert found[0.5] > found[1.0] > found[2.0]


def test_the_loss_of_a_dataset_is_the_mean_of_sums() -> None:
    page = explain_sequences([("a b c", [0.80, 0.60]), ("a b", [0.01])])
    sums = [-np.log(0.80) - np.log(0.60), -np.log(0.01)]
    assert page.values["sums"] == pytest.approx(sums)
    assert page.values["sequence_mean"] == pytest.approx(np.mean(sums))
    assert page.values["mean"] == pytest.approx(sum(sums) / 3)
    assert page.values["perplexity"] == pytest.approx(np.exp(sum(sums) / 3))


def test_the_dataset_is_shown_on_the_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    output = printed(capsys, "--dataset")
    assert "The cat sat on the mat" in output
    page = explain_sequences()
    assert f"loss        {page.values['sequence_mean']:.3f}" in output
    assert f"perplexity  {page.values['perplexity']:.3f}" in output


# Any numbers.


@given(
    st.lists(st.floats(-1e4, 1e4), min_size=1, max_size=8),
    st.integers(0, 7),
    st.floats(0.01, 100),
)
@settings(deadline=None)
def test_the_values_are_those_of_the_functions(
    logits: list[float], target: int, temperature: float
) -> None:
    target %= len(logits)
    page = explain(logits, None, target, temperature=temperature)
    loss, grad = sx.cross_entropy_with_grad(np.array(logits), target, temperature=temperature)
    assert page.values["loss"] == loss
    assert np.array_equal(page.values["gradient"], grad)
    assert np.array_equal(page.values["probabilities"], sx.softmax(logits, temperature=temperature))
    assert page.values["surprises"][target] == loss
    assert np.isfinite(page.values["exponentials"]).all()


@given(st.lists(st.floats(-1e4, 1e4), min_size=1, max_size=5))
@settings(deadline=None)
def test_lines_are_at_most_80_columns_and_aligned(logits: list[float]) -> None:
    text = explain(logits).text()
    assert max(map(len, text.splitlines())) <= 80 + 20 * (len(logits) > 4)
    ascii_text = explain(logits).text(ascii_only=True)
    assert ascii_text.isascii()


@given(st.floats(-1e12, 1e12), st.integers(2, 4))
@settings(deadline=None)
def test_a_spelled_number_is_the_number(value: float, decimals: int) -> None:
    spelled = float(number(value, decimals).replace(",", ""))
    assert spelled == pytest.approx(value, abs=0.51 * 10.0**-decimals, rel=0.006)
    assert (spelled == 0) == (value == 0)


def test_shares_are_between_0_and_1() -> None:
    assert shares([1.0, 4.0, -2.0, float("nan"), float("inf")]) == [0.25, 1.0, 0.0, 0.0, 1.0]
    assert shares([0.0, 0.0]) == [0.0, 0.0]


# Both forms.


def test_a_notebook_sees_what_a_terminal_shows() -> None:
    page = explain(*MAT)
    shown = page._repr_html_()
    cells = [html.unescape(cell) for cell in re.findall(r"<td[^>]*>([^<]*)</td>", shown)]
    for step in page.steps:
        for line in step.lines:
            assert line.number in cells
            assert line.number in str(page)
    assert shown.count("<table>") == shown.count("</table>") == len(page.steps)


def test_labels_cannot_escape() -> None:
    page = explain([1.0, 2.0], ["<script>alert(1)</script>", "a\x1b[2J\nb"])
    assert "<script>" not in page._repr_html_()
    assert "\x1b" not in page.text()
    assert "a\\x1b[2J\\nb" in page.text()


def test_no_colours_and_no_more_than_80_columns(capsys: pytest.CaptureFixture[str]) -> None:
    for options in ([], ["--dataset"], ["--temperature", "0.5"]):
        output = printed(capsys, *options)
        assert "\x1b" not in output
        assert max(map(len, output.splitlines())) <= 80


# What is refused.


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (([],), "logits: expected at least one finite number"),
        (([1.0, np.inf],), "logits: expected at least one finite number"),
        (([1.0], ["a", "b"]), "labels: expected 1, one for each logit, got 2"),
        (([1.0, 2.0], ["a", "b"], "c"), "target: expected one of a, b, got 'c'"),
        (([1.0, 2.0], None, 2), "target: expected one of 0, 1, got 2"),
    ],
)
def test_a_bad_example_is_refused(arguments: Any, expected: str) -> None:
    with pytest.raises(ValueError, match=re.escape(expected)):
        explain(*arguments)


@pytest.mark.parametrize(
    ("sequences", "expected"),
    [
        ([], "expected at least one"),
        ([("a", [])], "expected 1 probabilities"),
        ([("a b c", [0.5])], "expected 2 probabilities"),
        ([("a b", [0.0])], "expected probabilities in (0, 1], got 0.0"),
    ],
)
def test_bad_sequences_are_refused(sequences: Any, expected: str) -> None:
    with pytest.raises(ValueError, match=re.escape(expected)):
        explain_sequences(sequences)


@pytest.mark.parametrize(
    "options",
    [
        ["--logits", "1,2", "--labels", "a"],
        ["--target", "dog"],
        ["--temperature", "0"],
        ["--probabilities", "0,1"],
        ["--dataset", "--temperature", "2"],
        ["--dataset", "--target", "mat"],
    ],
)
def test_bad_options_are_refused_in_one_line(
    options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["explain", *options]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert len(output.err.splitlines()) == 1


def test_a_page_says_nothing_that_json_could_not(capsys: pytest.CaptureFixture[str]) -> None:
    """Also a class whose probability is 0 has a number for its surprise."""
    page = explain([0.0, -1e4])
    assert numbers_of(page, "Surprise")["1"] == "10,000.0000"
    json.dumps({name: np.asarray(value).tolist() for name, value in page.values.items()})
    capsys.readouterr()
