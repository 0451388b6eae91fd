"""The probabilities themselves: softmax, its logarithm, log-sum-exp, log p of chosen classes.

Each is a number that a row has, put where it belongs; the mathematics is in `row.py`. What is lost
when a class is not predicted is not known here.
"""

from softxent.reference.lists import Nested, cut, cut_for_loss, integer, nest, read
from softxent.reference.row import Transformation
from softxent.reference.targets import IgnoreIndex, check_classes


def softmax(
    logits: Nested,
    axis: int = -1,
    *,
    temperature: float = 1.0,
    softcap: float | None = None,
    valid_classes: int | None = None,
    class_mask: Nested = None,
) -> Nested:
    """The probabilities `exp(s_i) / sum_a exp(s_a)` along `axis`, shaped as `logits`.

    s is `logits / temperature`, or with a `softcap` c `c * tanh(logits / c) / temperature`. The sum
    is over the classes that take part: the first `valid_classes`, where `class_mask` is True (it
    lies along `axis`, or broadcasts to the shape of `logits`). The others are not read, and get 0.
    """
    table = cut("logits", logits, axis)
    transformation = Transformation(temperature, softcap, valid_classes, class_mask)
    return table.join([row.p for row in transformation.rows(table)])


def log_softmax(
    logits: Nested,
    axis: int = -1,
    *,
    temperature: float = 1.0,
    softcap: float | None = None,
    valid_classes: int | None = None,
    class_mask: Nested = None,
) -> Nested:
    """The logarithms of `softmax`, finite also where the probability itself underflows to 0."""
    table = cut("logits", logits, axis)
    transformation = Transformation(temperature, softcap, valid_classes, class_mask)
    return table.join([row.log_p for row in transformation.rows(table)])


def logsumexp(
    logits: Nested,
    axis: int = -1,
    *,
    keepdims: bool = False,
    temperature: float = 1.0,
    softcap: float | None = None,
    valid_classes: int | None = None,
    class_mask: Nested = None,
) -> Nested:
    """`log sum_a exp(s_a)` along `axis`, which is dropped or, with `keepdims`, has length 1."""
    table = cut("logits", logits, axis)
    transformation = Transformation(temperature, softcap, valid_classes, class_mask)
    values = [row.lse for row in transformation.rows(table)]
    return nest(values, table.keepdims_shape if keepdims else table.rows_shape)


def token_logprobs(
    logits: Nested,
    tokens: Nested,
    *,
    axis: int = -1,
    ignore_index: IgnoreIndex = -100,
    temperature: float = 1.0,
    softcap: float | None = None,
    valid_classes: int | None = None,
    class_mask: Nested = None,
) -> Nested:
    """`log p` of chosen classes, shaped as `tokens`.

    `tokens` holds class ids, one for each row or, along one more axis at the end, K for each row.
    One that is (one of) `ignore_index` gives 0; one that is masked, -inf.
    """
    table = cut_for_loss("logits", logits, axis)
    rows = Transformation(temperature, softcap, valid_classes, class_mask).rows(table)
    shape, flat = read("tokens", tokens, integer)
    several = shape[len(table.rows_shape) :]
    if shape[: len(table.rows_shape)] != table.rows_shape or len(several) > 1:
        wanted = f"shape {table.rows_shape}, or that and one more axis, for logits {table.shape}"
        raise ValueError(f"tokens: expected {wanted}, got {shape}")
    ids = check_classes("tokens", flat, shape, table.classes, ignore_index)
    each = several[0] if several else 1
    values: list[float] = []
    for i, row in enumerate(rows):
        chosen = ids[i * each : (i + 1) * each]
        log_p = row.log_p if any(y is not None for y in chosen) else []
        values += [0.0 if y is None else log_p[y] for y in chosen]
    return nest(values, shape)
