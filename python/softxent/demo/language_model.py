"""A next-token model in NumPy whose loss is softxent's: one hidden layer, the whole vocabulary.

    x = the embeddings of the C previous tokens, side by side      (N, C * D)
    h = tanh([x, 1] @ hidden)                                      (N, H)
    loss, (d h, d head) = linear_cross_entropy_with_grad([h, 1], head, targets)

Knows token ids, not text or screens. The one idea: there is no array of size N x V. The loss goes
from h and the head, (V, H), to its gradients; the biases are the weights of a column of ones.

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

    def logits(self, contexts: Ids) -> Floats:
        """(N, C) previous tokens -> (N, V) logits."""
        logits: Floats = self._hidden(self._inputs(contexts)) @ self.head.value.T
        return logits

    def loss(self, contexts: Ids, targets: Ids) -> float:
        """The sum of the losses of N contexts."""
        hidden = self._hidden(self._inputs(contexts))
        return float(
            softxent.linear_cross_entropy(hidden, self.head.value, targets, reduction="sum")
        )

    def learn(self, contexts: Ids, targets: Ids, rate: float) -> float:
        """One step of descent on N contexts. The loss before it."""
        inputs = self._inputs(contexts)
        hidden = self._hidden(inputs)
        into = np.empty_like(hidden), self.head_gradient, None

        loss, _ = softxent.linear_cross_entropy_with_grad(
            hidden, self.head.value, targets, out=into
        )

        d_hidden = into[0][:, :-1] * (1 - np.square(hidden[:, :-1]))
        d_inputs = d_hidden @ self.hidden.value[:-1].T

        self.head.descend(self.head_gradient, rate)
        self.hidden.descend(inputs.T @ d_hidden, rate)
        tokens, gradient = _sum_by_token(contexts.ravel(), d_inputs.reshape(-1, EMBEDDING))
        self.embeddings.descend(gradient, rate, tokens)
        return float(loss)

    def _inputs(self, contexts: Ids) -> Floats:
        return _with_ones(self.embeddings.value[contexts].reshape(len(contexts), -1))

    def _hidden(self, inputs: Floats) -> Floats:
        return _with_ones(np.tanh(inputs @ self.hidden.value))


def unigram_log_probabilities(part: Part, classes: int) -> NDArray[np.float64]:
    """(V,) log of each token's share of the text, every token counted once more than it occurs."""
    counts = np.bincount(part.ids[part.positions], minlength=classes) + 1.0
    shares: NDArray[np.float64] = counts / counts.sum()
    return np.log(shares)


def train(
    model: NextTokenModel, part: Part, steps: int, random: np.random.Generator
) -> Iterator[float]:
    """Take steps on random batches of a text; yields the loss of each batch, before its step."""
    for step in range(steps):
        positions = random.choice(part.positions, BATCH)
        rate = RATE * max(1 - step / steps, 0.05)
        yield model.learn(part.contexts(positions), part.ids[positions], rate)


def evaluated_positions(part: Part) -> NDArray[np.int64]:
    """The positions on which models are compared: all, or evenly spaced ones of a long text."""
    every = -(-len(part.positions) // MOST_EVALUATED)
    return part.positions[::every]


def evaluate(model: NextTokenModel, part: Part) -> float:
    """The mean loss, in nats per token, on a text that the model has not seen."""
    positions = evaluated_positions(part)
    return model.loss(part.contexts(positions), part.ids[positions]) / len(positions)


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
