"""What bad input gets: the promised exception, a message that names the argument, nothing written.

A *mistake* spoils one argument of a call that is otherwise right. Every mistake is made in every
function that has the argument, for every dtype and reduction, with the result in an array of its
own and in place of the logits. What a message says in full is for `test_inputs_messages` to test,
and what looks bad and is welcome for `test_inputs_welcome`.
"""

import inspect
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import softxent as sx
from mistakes import MISTAKES, Mistake
from right_calls import (
    LOGITS,
    PARAMETERS,
    SHARDS,
    Call,
    logits_of,
    memory,
    outputs,
    right_call,
    right_calls,
)


def cases(mistake: Mistake) -> Iterator[tuple[str, str, Call]]:
    """Every call that the mistake can be made in: a description, the function, the arguments."""
    for name, parameters in PARAMETERS.items():
        if mistake.error is IndexError and mistake.argument == "targets" and name in SHARDS:
            continue
        logits = logits_of(name)
        # Mistakes know logits by one name.
        known = ["logits" if argument == logits else argument for argument in parameters]
        if logits is None and mistake.argument == "out" and "hidden" in parameters:
            logits = "hidden"  # of their shape here, and the first that has a gradient
        for call in right_calls(name) if mistake.argument in known else ():
            if logits is not None:
                call["logits"] = call.pop(logits)
            bad = mistake.make_in(call)
            if bad is not None:
                place = "in place" if call.get("out") is call.get("logits", ...) else "elsewhere"
                if mistake.argument == "out":
                    bad["out"] = outputs(name, bad["out"], bad["logits"].dtype)
                how = (
                    f"{getattr(call.get('logits'), 'dtype', '')}, {call.get('reduction')}, {place}"
                )
                if logits is not None:
                    bad[logits] = bad.pop("logits")
                yield f"{name} ({how})", name, bad


def outcome(name: str, call: Call) -> Any:
    """What the call raises or returns."""
    try:
        return getattr(sx, name)(**call)
    except Exception as error:
        return error


def test_the_calls_without_a_mistake_are_right() -> None:
    for name in PARAMETERS:
        for call in right_calls(name):
            getattr(sx, name)(**call)


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.name)
def test_a_mistake_is_refused_before_anything_is_written(mistake: Mistake) -> None:
    for description, name, call in cases(mistake):
        before = memory(call)
        problem = outcome(name, call)
        if type(problem) is not mistake.error:
            pytest.fail(f"{description}: expected {mistake.error.__name__}, got {problem!r}")
        if mistake.argument not in str(problem):
            pytest.fail(f"{description}: names no {mistake.argument}: {problem}")
        if memory(call) != before:
            pytest.fail(f"{description}: something was written")


def test_thousands_of_mistakes_are_made_with_every_argument() -> None:
    arguments = set().union(*PARAMETERS.values()) - set(LOGITS)
    assert {mistake.argument for mistake in MISTAKES} == {"logits", *arguments}
    assert len({mistake.name for mistake in MISTAKES}) == len(MISTAKES)
    assert sum(1 for mistake in MISTAKES for _ in cases(mistake)) >= 2000


@pytest.mark.parametrize("name", PARAMETERS)
def test_an_argument_that_does_not_exist_is_refused(name: str) -> None:
    call = right_call(name, np.dtype(np.float32), "none", in_place=True)
    before = memory(call)
    with pytest.raises(TypeError, match="unexpected keyword argument 'lables'"):
        getattr(sx, name)(**call, lables=1)
    positional = [
        call.get(key, -1)
        for key, parameter in inspect.signature(getattr(sx, name)).parameters.items()
        if parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
    ]
    with pytest.raises(TypeError, match="positional argument"):
        getattr(sx, name)(*positional, 1.0)
    with pytest.raises(TypeError, match=rf"missing .*'{PARAMETERS[name][0]}'"):
        getattr(sx, name)()
    assert memory(call) == before


def test_set_threads_refuses_what_a_call_refuses() -> None:
    sx.set_threads(3)
    refused = [m for m in MISTAKES if m.argument == "threads"]
    for mistake in refused:
        with pytest.raises(mistake.error, match="threads"):
            sx.set_threads(mistake.value({}))
    assert sx.get_threads() == 3
    sx.set_threads(None)
