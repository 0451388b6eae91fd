"""`softxent demo`: a next-token model learns real text with softxent's loss, in half a minute.

    corpus.py          files -> documents -> token ids; what is held out
    language_model.py  the model, its training and its evaluation, in NumPy and softxent
    side_by_side.py    the same loss and gradient in plain NumPy, checked and timed against softxent
    head_step.py       a step of the head with and without its logits: tokens a second, peak memory
    loss_curve.py      the picture; the only file that knows matplotlib
    screen.py          the order of events and what is printed; the only file that knows rich

`screen` knows the others; of them, only the model knows another one, the corpus's `Part`. The
command line imports `screen` when the command is asked for, so that `import softxent` needs neither
rich nor matplotlib.
"""
