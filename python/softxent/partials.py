"""What a shard of the classes knows of each row, as a NumPy array that travels.

Knows nothing of logits: how records come about and what is made of them is the core's affair. The one idea:
a merged partial is its pieces side by side, in the order of the classes, so it does not matter in which order
they came.
"""

from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: One record for each shard and row.
PARTIAL = np.dtype(
    [
        ("class_offset", np.int64),  # the shard's classes are those from here
        ("class_end", np.int64),  # up to here
        ("temperature", np.float64),
        ("softcap", np.float64),  # NaN for none
        ("single", np.bool_),  # whether the logits are computed in single precision
        ("target", np.int64),  # the class id among all classes
        ("ignored", np.bool_),
        ("held", np.bool_),  # whether the target is one of the shard's classes
        ("max", np.float64),  # the largest logit
        ("sum", np.float64),  # of exp((x - max) / temperature), without the target
        ("moment", np.float64),  # the sum of w (x - max) for class weights w, without the target
        ("weight", np.float64),  # the sum of w, without the target
        ("allowed", np.float64),  # how many classes are not masked
        ("target_logit", np.float64),  # where it is held
        ("target_weight", np.float64),
        ("target_allowed", np.float64),  # 0 if it is masked
    ]
)


def made_of(
    rows: dict[str, Any], class_offset: int, temperature: float, softcap: float | None
) -> NDArray[Any]:
    """A partial of one piece, of what the core says of each row."""
    partial = np.empty((1, *rows["target"].shape), PARTIAL)
    same = {
        "class_offset": class_offset,
        "class_end": class_offset + rows["classes"],
        "temperature": temperature,
        "softcap": np.nan if softcap is None else softcap,
    }
    for name in PARTIAL.names or ():
        partial[name] = same[name] if name in same else rows[name]
    return partial


def merged(parts: Iterable[NDArray[Any]]) -> NDArray[Any]:
    """The pieces of all partials in the order of the classes."""
    if not isinstance(parts, Iterable):
        raise TypeError(f"parts: expected several arrays, got {type(parts).__name__}")
    given = [checked("parts", part) for part in parts]
    if not given:
        raise ValueError("parts: expected at least one, got none")
    shapes = {part.shape[1:] for part in given}
    if len(shapes) > 1:
        raise ValueError(f"parts: expected the same rows, got rows of shapes {sorted(shapes)}")
    pieces = [piece for part in given for piece in part]
    if pieces[0].size:
        pieces.sort(key=lambda piece: int(piece["class_offset"].flat[0]))
        for one, other in pairwise(pieces):
            _check_neighbours(one, other)
    return np.stack(pieces)


def checked(argument: str, partial: Any) -> NDArray[Any]:
    """A partial, unless it is something else."""
    if not isinstance(partial, np.ndarray) or partial.dtype != PARTIAL or partial.ndim == 0:
        got = partial.dtype if isinstance(partial, np.ndarray) else type(partial).__name__
        wanted = "an array that partial_cross_entropy or merge_partials made"
        raise TypeError(f"{argument}: expected {wanted}, got {got}")
    if not len(partial):
        raise ValueError(f"{argument}: expected at least one piece, got none")
    return partial


def whole(partial: Any) -> NDArray[Any]:
    """A merged partial in which each target is held by some piece."""
    records = checked("merged", partial)
    missing = np.argwhere(~(records["held"] | records["ignored"]).any(axis=0))
    for place in missing[:1].tolist():
        target = records["target"][(0, *place)]
        where = str(place) if place else ""
        raise IndexError(f"targets{where} = {target} is in none of the shards")
    return records


def _check_neighbours(one: NDArray[Any], other: NDArray[Any]) -> None:
    first, second = one.flat[0], other.flat[0]
    if second["class_offset"] < first["class_end"]:
        both = " and ".join(f"{p['class_offset']} to {p['class_end']}" for p in (first, second))
        raise ValueError(f"parts: expected each class once, got classes {both}")
    transformations = [(piece["temperature"], piece["softcap"]) for piece in (first, second)]
    if not _same(*transformations):
        raise ValueError(f"parts: expected the same temperature and softcap, got {transformations}")
    differ = (one["target"] != other["target"]) | (one["ignored"] != other["ignored"])
    for place in np.argwhere(differ)[:1].tolist():
        at = tuple(place)
        both = f"{one['target'][at]} and {other['target'][at]} at {place}"
        raise ValueError(f"parts: expected the same targets, got {both}")


def _same(one: tuple[Any, ...], other: tuple[Any, ...]) -> bool:
    return bool(np.array_equal(np.array(one, float), np.array(other, float), equal_nan=True))
