"""From logits to loss and gradient, one step after the other, with the numbers of a small example.

    page.py       steps of aligned numbers and bars, as text for a terminal and as HTML for a notebook
    one_row.py    `explain`: logits -> exponentials -> probabilities -> surprise -> loss -> gradient
    sequences.py  `explain_sequences`: the loss of a dataset, a mean over sequences of sums over tokens

The numbers come from the functions of `softxent`; here they are only shown.
"""

from softxent.explain.one_row import explain
from softxent.explain.page import Page
from softxent.explain.sequences import explain_sequences

__all__ = ["Page", "explain", "explain_sequences"]
