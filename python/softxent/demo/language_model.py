"""A next-token model in NumPy whose loss is softxent's: one hidden layer, the whole vocabulary.

    x      = the embeddings of the C previous tokens, side by side      (N, C * D)
    h      = tanh([x, 1] @ hidden)                                      (N, H)
    logits = [h, 1] @ head.T                                            (N, V)
    loss, d logits = cross_entropy_with_grad(logits, targets, out=logits)

Knows token ids, not text or screens. The one idea: the logits are the only array of size N x V.
The loss turns them into their gradient where they stand, and the biases are the weights of a
column of ones, so that no pass over N x V is spent on them either.

Every matrix learns by AdaGrad with one step size per row instead of one per element. A row is a
token, in the embeddings and in the head. It costs three passes over the head where Adam needs ten,
and embeddings that a batch does not touch need none. At the best rate tried of each, the held-out
perplexity after 300 steps was 33, with momentum 35, with Adam 45.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

import softxent
from softxent.demo.corpus import Part

EMBEDDING = 32  # D
HIDDEN = 127  # H; with the column of ones the head is 128 wide
BATCH = 256  # N, tokens of a step
RATE = 0.1  # of the first step; it falls in a straight line to a twentieth
MOST_EVALUATED = 32_768  # held-out tokens: a standard error of about 2 % of the perplexity
FIRST_ENERGY = 1e-6  # a row's usual squared gradient: the first steps of rare tokens stay small

Floats = NDArray[np.float32]
Ids = NDArray[np.int32]


class Rows:
    """A matrix that learns. The step size of a row is rate / root(energy), where its energy is the
    sum of its mean squared gradients so far.
    """

    def __init__(self, value: Floats) -> None:
        """Start from `value`, a float32 matrix that is changed in place."""
        self.value = value
        self.energy = np.full(len(value), FIRST_ENERGY, np.float32)

    def descend(self, gradient: Floats, rate: float, rows: Ids | slice = slice(None)) -> None:
        """One step for the given distinct rows. The gradient's memory is used up."""
        self.energy[rows] += np.einsum("ij,ij->i", gradient, gradient) / gradient.shape[1]
        gradient *= (np.float32(rate) / np.sqrt(self.energy[rows]))[:, None]
        self.value[rows] -= gradient


class NextTokenModel:
    """The model above, before its first step as good as the unigram it is given.

    `unigram` holds the (V,) log-probabilities of the tokens; they are the head's first biases.
    """

    def __init__(
        self, unigram: NDArray[np.float64], context: int, random: np.random.Generator
    ) -> None:
        """Draw the first weights; `context` is C."""
        inputs = context * EMBEDDING + 1

        def normal(rows: int, columns: int, scale: float) -> Floats:
            return random.standard_normal((rows, columns), np.float32) * np.float32(scale)

        head = np.zeros((len(unigram), HIDDEN + 1), np.float32)
        head[:, -1] = unigram
        self.embeddings = Rows(normal(len(unigram), EMBEDDING, 0.1))
        self.hidden = Rows(normal(inputs, HIDDEN, 2.5 / inputs**0.5))
        self.head = Rows(head)
        self.head_gradient = np.empty_like(head)

    @property
    def parameters(self) -> int:
        """The number of weights."""
        return sum(rows.value.size for rows in (self.embeddings, self.hidden, self.head))

    def logits(self, contexts: Ids, out: Floats | None = None) -> Floats:
        """(N, C) previous tokens -> (N, V) logits."""
        return self._head(self._hidden(self._inputs(contexts)), out)

    def learn(self, contexts: Ids, targets: Ids, logits: Floats, rate: float) -> float:
        """One step of descent on N contexts; `logits` (N, V) is scratch. The loss before it."""
        inputs = self._inputs(contexts)
        hidden = self._hidden(inputs)
        self._head(hidden, logits)

        loss, d_logits = softxent.cross_entropy_with_grad(logits, targets, out=logits)

        d_hidden = (d_logits @ self.head.value)[:, :-1] * (1 - np.square(hidden[:, :-1]))
        d_inputs = d_hidden @ self.hidden.value[:-1].T
        np.matmul(d_logits.T, hidden, out=self.head_gradient)

        self.head.descend(self.head_gradient, rate)
        self.hidden.descend(inputs.T @ d_hidden, rate)
        tokens, gradient = _sum_by_token(contexts.ravel(), d_inputs.reshape(-1, EMBEDDING))
        self.embeddings.descend(gradient, rate, tokens)
        return float(loss)

    def _inputs(self, contexts: Ids) -> Floats:
        return _with_ones(self.embeddings.value[contexts].reshape(len(contexts), -1))

    def _hidden(self, inputs: Floats) -> Floats:
        return _with_ones(np.tanh(inputs @ self.hidden.value))

    def _head(self, hidden: Floats, out: Floats | None) -> Floats:
        return np.matmul(hidden, self.head.value.T, out=out)


def unigram_log_probabilities(part: Part, classes: int) -> NDArray[np.float64]:
    """(V,) log of each token's share of the text, every token counted once more than it occurs."""
    counts = np.bincount(part.ids[part.positions], minlength=classes) + 1.0
    shares: NDArray[np.float64] = counts / counts.sum()
    return np.log(shares)


def train(
    model: NextTokenModel, part: Part, steps: int, random: np.random.Generator
) -> Iterator[float]:
    """Take steps on random batches of a text; yields the loss of each batch, before its step."""
    logits = np.empty((BATCH, len(model.head.value)), np.float32)
    for step in range(steps):
        positions = random.choice(part.positions, BATCH)
        rate = RATE * max(1 - step / steps, 0.05)
        yield model.learn(part.contexts(positions), part.ids[positions], logits, rate)


def evaluated_positions(part: Part) -> NDArray[np.int64]:
    """The positions on which models are compared: all, or evenly spaced ones of a long text."""
    every = -(-len(part.positions) // MOST_EVALUATED)
    return part.positions[::every]


def evaluate(model: NextTokenModel, part: Part) -> float:
    """The mean loss, in nats per token, on a text that the model has not seen."""
    positions = evaluated_positions(part)
    logits = np.empty((BATCH, len(model.head.value)), np.float32)
    total = 0.0
    for start in range(0, len(positions), BATCH):
        batch = positions[start : start + BATCH]
        scores = model.logits(part.contexts(batch), out=logits[: len(batch)])
        total += float(softxent.cross_entropy(scores, part.ids[batch], reduction="sum"))
    return total / len(positions)


def evaluate_unigram(unigram: NDArray[np.float64], part: Part) -> float:
    """The mean loss of the baseline that ignores the context, on the same tokens as `evaluate`."""
    return -float(unigram[part.ids[evaluated_positions(part)]].mean())


def _with_ones(matrix: Floats) -> Floats:
    return np.hstack([matrix, np.ones((len(matrix), 1), np.float32)])


def _sum_by_token(tokens: Ids, gradients: Floats) -> tuple[Ids, Floats]:
    """The distinct tokens, and for each the sum of the gradients at its places."""
    order = np.argsort(tokens, kind="stable")
    distinct, starts = np.unique(tokens[order], return_index=True)
    return distinct, np.add.reduceat(gradients[order], starts)
