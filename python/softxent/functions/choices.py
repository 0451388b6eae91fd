"""The words that arguments may be, for those who check types."""

from typing import Literal, TypeAlias

Reduction: TypeAlias = Literal["mean", "sum", "none", "sequence_mean"]
OnEmpty: TypeAlias = Literal["nan", "zero", "raise"]
Direction: TypeAlias = Literal["forward", "reverse"]
Teacher: TypeAlias = Literal["logits", "probabilities"]
LinearGrad: TypeAlias = Literal["hidden", "linear_weight", "linear_bias"]
