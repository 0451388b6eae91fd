"""What `softxent demo` does, in order, and what it prints.

Knows rich and the other files of this folder; computes nothing itself but means and rates. The one
idea: whatever a run with the same seed must repeat is printed with all its digits, and whatever the
clock decides stands on lines of its own.

Ctrl-C during the training ends the training; the rest is done with what has been learnt, and the
exit status is 130. A second Ctrl-C, or one at any other time, ends the command.
"""

import sys
from collections.abc import Iterable
from io import TextIOWrapper
from math import exp
from pathlib import Path
from time import perf_counter

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

import softxent
from softxent.demo.corpus import CONTEXT, UNKNOWN, VOCABULARY, Corpus, Part, open_corpus
from softxent.demo.head_step import TOKENS, measure
from softxent.demo.language_model import (
    BATCH,
    EMBEDDING,
    HIDDEN,
    NextTokenModel,
    evaluate,
    evaluate_unigram,
    evaluated_positions,
    train,
    unigram_log_probabilities,
)
from softxent.demo.side_by_side import ROUNDS, compare

NOT_SAVED = 1
INTERRUPTED = 130  # the shell's 128 + SIGINT
RECENT = 20  # steps whose mean loss the bar shows
BAR_TEXT_WIDTH = 72  # what stands beside the bar, and the terminal's "^C" behind it
REPORTS = 10  # lines about the training where no bar can be drawn
CONTEXTS = 6  # shown with the model's guesses
GUESSES = 4  # most probable next tokens shown for each


def run(corpus_path: Path | None, steps: int, seed: int, plot: Path | None) -> int:
    """Run the demo; returns the exit status. CorpusError where the text cannot be used."""
    if isinstance(sys.stdout, TextIOWrapper):  # a text may hold what the terminal cannot show
        sys.stdout.reconfigure(errors="backslashreplace")
    console = Console(highlight=False, markup=False, emoji=False)
    corpus = open_corpus(corpus_path)
    _print_corpus(console, corpus)

    random = np.random.default_rng(seed)
    unigram = unigram_log_probabilities(corpus.training, len(corpus.words))
    model = NextTokenModel(unigram, CONTEXT, random)
    nats = {
        "unigram baseline": evaluate_unigram(unigram, corpus.held_out),
        "model before training": evaluate(model, corpus.held_out),
    }

    _print_heading(console, "Training")
    console.print(
        f"{CONTEXT} previous tokens x {EMBEDDING} -> {HIDDEN} tanh -> {len(corpus.words):,} logits;"
        f" {model.parameters:,} weights\n"
        f"{steps:,} steps of {BATCH} tokens, seed {seed}; Ctrl-C ends the training early"
    )
    losses: list[float] = []
    status = 0
    try:
        _show_training(console, train(model, corpus.training, steps, random), losses, steps)
    except KeyboardInterrupt:
        status = INTERRUPTED
        console.print(f"interrupted after {len(losses):,} of {steps:,} steps")
    if losses:
        console.print(f"loss of the last batch: {losses[-1]:.9g}")
    if losses and plot is not None:
        saved = _save_plot(console, losses, nats["unigram baseline"], plot)
        status = status or (0 if saved else NOT_SAVED)

    nats[f"model after {len(losses):,} steps"] = evaluate(model, corpus.held_out)
    _print_perplexities(console, corpus, nats)
    _print_guesses(console, corpus, model)
    _print_comparison(console, corpus.training, model)
    _print_head_steps(console, model)
    return status


def _print_heading(console: Console, title: str) -> None:
    console.print(f"\n{title}", style="bold")


def _print_corpus(console: Console, corpus: Corpus) -> None:
    _print_heading(console, f"Text: {corpus.source}")
    for part, purpose in (corpus.training, "to learn from"), (corpus.held_out, "held out"):
        tokens, documents = len(part.positions), len(part.names)
        console.print(f"{tokens:9,} tokens {purpose}, {_count(documents, 'file')}")
    if corpus.skipped:
        console.print(f"{corpus.skipped:9,} skipped: no readable text in UTF-8")
    if len(corpus.words) < VOCABULARY:
        which = f"all there are, fewer than {VOCABULARY:,}"
    else:
        which = f"the most frequent of {corpus.different_tokens:,}"
    console.print(f"{len(corpus.words):9,} tokens in the vocabulary, {which}")


def _show_training(
    console: Console, training: Iterable[float], losses: list[float], steps: int
) -> None:
    """Drain the training into `losses`, under a bar on a terminal, with a few lines elsewhere."""
    bar = Progress(
        BarColumn(bar_width=max(8, console.width - BAR_TEXT_WIDTH)),
        TextColumn("{task.completed:,}/{task.total:,} {task.description}"),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_interactive,
    )
    every = max(1, steps // REPORTS)
    start = perf_counter()
    with bar:
        task = bar.add_task("", total=steps)
        for step, loss in enumerate(training, 1):
            losses.append(loss)
            if bar.disable and step % every == 0:
                console.print(f"step {step:6,}  {_loss_and_perplexity(losses[-every:])}")
            elif not bar.disable:
                speed = step * BATCH / (perf_counter() - start)
                text = f"{_loss_and_perplexity(losses[-RECENT:], 3)}  {speed:,.0f} tokens/s"
                bar.update(task, completed=step, description=text)
    seconds = perf_counter() - start
    console.print(f"{seconds:.1f} s, {steps * BATCH / seconds:,.0f} tokens/s")


def _save_plot(console: Console, losses: list[float], unigram: float, path: Path) -> bool:
    from softxent.demo.loss_curve import save_loss_curve  # matplotlib: only where it is wanted

    try:
        save_loss_curve(losses, unigram, path)
    except OSError as error:
        console.print(f"loss curve not saved: {path}: {error.strerror or error}")
        return False
    console.print(f"loss curve: {path}")
    return True


def _print_perplexities(console: Console, corpus: Corpus, nats: dict[str, float]) -> None:
    targets = corpus.held_out.ids[evaluated_positions(corpus.held_out)]
    _print_heading(console, f"Held-out text: {len(targets):,} tokens")
    table = Table("", "loss (nats)", "perplexity", box=None, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    for name, loss in nats.items():
        table.add_row(name, f"{loss:.6f}", f"{exp(loss):.2f}")
    console.print(table)
    unknown = float(np.mean(targets == UNKNOWN))
    console.print(
        f"{unknown:.1%} of these tokens are outside the vocabulary: {corpus.words[UNKNOWN]}"
    )


def _print_guesses(console: Console, corpus: Corpus, model: NextTokenModel) -> None:
    """A few contexts of the held-out text, what follows there, and what the model expects."""
    part, words = corpus.held_out, corpus.words
    positions = _positions_before_words(corpus)
    contexts = part.contexts(positions)
    probabilities = softxent.softmax(model.logits(contexts))
    _print_heading(console, "Contexts -> what follows in the held-out text; what the model expects")
    for context, p, target in zip(contexts, probabilities, part.ids[positions], strict=True):
        before = "".join(_visible(words[i]) for i in context)
        likely = np.argsort(-p, kind="stable")[:GUESSES]
        guesses = "   ".join(f"{p[i]:.0%} {_guess(words[i])}" for i in likely)
        for line in f"{before} -> {_visible(words[target])}", f"    {guesses}":
            console.print(line, no_wrap=True, overflow="ellipsis")


def _positions_before_words(corpus: Corpus) -> NDArray[np.int64]:
    """A few evenly spaced positions whose next token is a word and whose context is known."""
    part = corpus.held_out
    positions = evaluated_positions(part)
    is_word = np.array([len(word) > 2 and word.isidentifier() for word in corpus.words])
    good = is_word[part.ids[positions]] & (part.contexts(positions) != UNKNOWN).all(axis=1)
    chosen = positions[good] if good.any() else positions
    return chosen[np.linspace(0, len(chosen) - 1, CONTEXTS + 2).astype(np.int64)[1:-1]]


def _print_comparison(console: Console, part: Part, model: NextTokenModel) -> None:
    batch = part.positions[:BATCH]
    logits = model.logits(part.contexts(batch))
    result = compare(logits, part.ids[batch])
    rows, columns = logits.shape
    _print_heading(
        console, f"Loss and gradient of one batch, {rows:,} x {columns:,}; best of {ROUNDS}"
    )
    threads = _count(softxent.get_threads(), "thread")
    table = Table(box=None, pad_edge=False, show_header=False)
    for name, seconds in (
        ("NumPy, block by block", result.numpy_seconds),
        ("softxent, 1 thread", result.one_thread_seconds),
        (f"softxent, {threads}", result.all_threads_seconds),
    ):
        ratio = result.numpy_seconds / seconds
        table.add_row(name, f"{seconds * 1e3:8.2f} ms", f"{ratio:5.1f} x")
    console.print(table)
    console.print(
        f"largest difference: loss {result.loss_difference:.1e}, "
        f"gradient {result.gradient_difference:.1e} (its largest: {result.gradient_size:.1e})"
    )


def _print_head_steps(console: Console, model: NextTokenModel) -> None:
    """What a step of the head costs with logits and without."""
    classes, width = model.head.value.shape
    _print_heading(console, f"A step of the head, {TOKENS:,} x {width} -> {classes:,}")
    table = Table("", "tokens/s", "memory beside weights and gradients", box=None, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    for name, cost in measure(width, classes).items():
        memory = "unknown" if cost.extra_bytes is None else f"{cost.extra_bytes / 2**20:,.0f} MiB"
        table.add_row(name, f"{TOKENS / cost.seconds:,.0f}", memory)
    console.print(table)


def _loss_and_perplexity(losses: list[float], decimals: int = 6) -> str:
    mean = sum(losses) / len(losses)
    return f"loss {mean:.{decimals}f}  perplexity {exp(mean):.1f}"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _guess(token: str) -> str:
    return f"'{_visible(token)}'" if token.isspace() else _visible(token)


def _visible(token: str) -> str:
    """The token with line ends, tabs and control characters spelled as escapes."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in token)
