"""What came out of a scoring: by name, for JSON, and as an aligned table, for people.

Knows no file but by what it is called. Both say the same: the table is made from what goes into the JSON.
"""

import math
from dataclasses import asdict
from typing import Any, TypeAlias

from softxent.score.request import Request, described
from softxent.score.scoring import Score

Fact: TypeAlias = tuple[str, str]  # what it is called, and its value with its unit

PERCENTILES = [5.0, 25.0, 50.0, 75.0, 95.0, 99.0]


def as_dict(score: Score) -> dict[str, Any]:
    """All numbers by name; losses and divergences in nats, shares from 0 to 1."""
    request, totals = score.request, score.totals
    found: dict[str, Any] = {
        "logits": _file(request, "logits"),
        "targets": _file(request, "targets"),
        "options": _options(request),
        **asdict(totals),
        "nan_rows": score.distribution.nan,
        "infinite_rows": score.distribution.infinite,
        "loss_percentiles": dict(
            zip(PERCENTILES, score.distribution.percentiles(PERCENTILES), strict=True)
        ),
        "expected_calibration_error": score.calibration.expected_error,
    }
    if (sequences := _sequences(request)) is not None:
        total = totals.loss * totals.weight if totals.weight else 0.0
        found["sequences"] = sequences
        found["sequence_mean"] = total / sequences if sequences else math.nan
    if request.objective:
        weight = score.objective_weight
        found["objective"] = score.objective_sum / weight if weight else math.nan
    if score.curve is not None:
        found["temperature_grid"] = {
            "temperatures": score.curve.temperatures.tolist(),
            "losses": score.curve.losses.tolist(),
            "best": score.curve.best,
        }
    if score.teacher is not None:
        found["teacher"] = {**_file(request, "teacher"), **score.teacher.as_dict()}
    return found


def for_json(value: Any) -> Any:
    """The same with null for what JSON cannot say: NaN and infinities."""
    if isinstance(value, dict):
        return {_key(key): for_json(each) for key, each in value.items()}
    if isinstance(value, list):
        return [for_json(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def table(found: dict[str, Any], request: Request, plus_minus: str = "±") -> str:
    """The numbers for people, in lines of at most 80 columns but for the names of files."""
    parts = [_rows(found), _losses(found, plus_minus), _curve(found), _teacher(found, plus_minus)]
    lines = [f"{request.logits.label}: {described(request.logits)}"]
    if request.options.teacher is not None:
        teacher = request.files["teacher"]
        lines += [f"teacher {teacher.label}: {described(teacher)}"]
    facts = [fact for part in parts for fact in part]
    width = max(len(name) for name, _ in facts)
    for part in parts:
        if part:
            lines += ["", *(f"{name:<{width}}  {value}".rstrip() for name, value in part)]
    return "\n".join(lines)


def _rows(found: dict[str, Any]) -> list[Fact]:
    facts = [("rows", f"{found['rows']:,}"), ("ignored", f"{found['ignored']:,}")]
    if found["weight"] != found["rows"] - found["ignored"]:
        facts.append(("weight of the others", _number(found["weight"])))
    for name, what in ("nan_rows", "rows of loss NaN"), ("infinite_rows", "rows of infinite loss"):
        if found[name]:
            facts.append((what, f"{found[name]:,}"))
    return facts


def _losses(found: dict[str, Any], plus_minus: str) -> list[Fact]:
    def with_error(name: str, unit: str = "") -> str:
        error = found[f"{name}_standard_error"]
        return f"{_number(found[name])} {plus_minus} {_number(error, 2)}{unit}"

    facts = [
        ("loss", with_error("loss", " nats")),
        ("perplexity", with_error("perplexity")),
        ("bits per token", _number(found["bits_per_token"])),
        ("accuracy", _share(found["accuracy"])),
    ]
    facts += [(f"top-{k} accuracy", _share(v)) for k, v in found["top_k_accuracy"].items()]
    facts.append(("calibration error", _share(found["expected_calibration_error"])))
    middle = found["loss_percentiles"]
    ends = f"{_number(middle[5.0], 4)} to {_number(middle[95.0], 4)}"
    facts.append(("median loss", f"{_number(middle[50.0], 4)} (90 % of the rows: {ends})"))
    if "sequence_mean" in found:
        sequences = f"{found['sequences']:,} sequences"
        facts.append(("loss per sequence", f"{_number(found['sequence_mean'])} nats, {sequences}"))
    if "objective" in found:
        facts.append(("objective", f"{_number(found['objective'])} (with {_objective(found)})"))
    return facts


def _objective(found: dict[str, Any]) -> str:
    options = found["options"]
    names = ("weight", "label_smoothing", "z_loss")
    return ", ".join(
        name if name == "weight" else f"{name}={options[name]:g}"
        for name in names
        if name in options
    )


def _curve(found: dict[str, Any]) -> list[Fact]:
    if "temperature_grid" not in found:
        return []
    grid = found["temperature_grid"]
    best = grid["best"]
    return [
        (
            f"loss at temperature {temperature:.4g}",
            f"{_number(loss)}{'  best' if temperature == best else ''}",
        )
        for temperature, loss in zip(grid["temperatures"], grid["losses"], strict=True)
    ]


def _teacher(found: dict[str, Any], plus_minus: str) -> list[Fact]:
    if "teacher" not in found:
        return []
    report = found["teacher"]

    def with_error(name: str) -> str:
        return (
            f"{_number(report[name])} {plus_minus} {_number(report[f'{name}_standard_error'], 2)}"
        )

    return [
        ("KL divergence, mean", f"{with_error('kl_divergence')} nats"),
        *(
            (f"KL divergence, {'median' if percent == 50 else f'{percent:g} %'}", _number(value, 4))
            for percent, value in report["kl_divergence_percentiles"].items()
        ),
        ("KL divergence, largest", _number(report["kl_divergence_max"], 4)),
        ("same most probable", _share(report["top_1_agreement"])),
        ("teacher's perplexity", _number(report["teacher_perplexity"])),
        ("perplexity / teacher's", with_error("perplexity_ratio")),
        ("loss - teacher's", f"{with_error('loss_change')} nats"),
        ("change of p, mean", _share(report["probability_change"])),
        ("change of p, rms", _share(report["probability_change_rms"])),
    ]


def _file(request: Request, name: str) -> dict[str, Any]:
    file = request.files[name]
    return {"file": file.label, "shape": list(file.shape), "dtype": file.dtype.name}


def _options(request: Request) -> dict[str, Any]:
    """The options that are not the default."""
    given, default = asdict(request.options), asdict(type(request.options)())
    named = {name: value for name, value in given.items() if value != default[name]}
    return {
        name: list(value) if isinstance(value, tuple) else value for name, value in named.items()
    }


def _sequences(request: Request) -> int | None:
    if request.offsets is not None:
        return len(request.offsets) - 1
    shape = request.targets.shape
    return shape[0] if len(shape) == 2 else None


def _number(value: float, digits: int = 6) -> str:
    """So many significant digits, in exponents only where the number is far from 1."""
    if not math.isfinite(value):
        return str(value)
    if value != 0 and not 1e-4 <= abs(value) < 1e9:
        return f"{value:.{digits - 1}e}"
    decimals = digits if value == 0 else max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return f"{value:,.{0 if value == 0 else decimals}f}"


def _share(value: float) -> str:
    return f"{value:.2%}".replace("%", " %") if math.isfinite(value) else str(value)


def _key(key: Any) -> str:
    return f"{key:g}" if isinstance(key, float) else str(key)
