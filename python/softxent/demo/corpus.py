"""The text that the demo learns from: files into documents, documents into token ids.

Knows nothing of models, losses or screens. The one idea: nothing is thrown away. The tokens of a
document, joined, are the document again, spaces and line ends included, so "perplexity per token"
hides no easy or hard part. A token outside the vocabulary is the class `UNKNOWN`, predicted and
counted like any other.
"""

import os
import platform
import re
import sysconfig
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

VOCABULARY = 2**15  # classes, the unknown one included: 32,767 words
UNKNOWN = 0  # also stands for what precedes the first token of a document
CONTEXT = 8  # the tokens before a token from which it is predicted
HELD_OUT = 1 / 20  # of the text, in whole documents, is never trained on
FEWEST_TOKENS = 1_000  # less text than this teaches nothing
MOST_CHARACTERS = 64_000_000  # bounds memory; half a minute of training sees about 1,000,000

# A word, a number, a line end with the next line's indentation, other blanks, or operators.
TOKEN = re.compile(r"[^\W\d]\w*|\d[\w.]*|\n[ \t]*|[^\S\n]+|[^\w\s]+")

# `encodings` is a hundred tables that repeat each other: what is held out would have been seen.
NOT_SOURCES = frozenset({"site-packages", "dist-packages", "__pycache__", "encodings"})
TEST_FOLDERS = frozenset({"test", "tests", "idle_test"})


class CorpusError(Exception):
    """The text cannot be used. The message is one line: what was given and what was wanted."""


@dataclass(frozen=True)
class Document:
    """One file, or one part of the only file."""

    name: str
    text: str


@dataclass(frozen=True)
class Part:
    """Documents as one array of classes, each document preceded by `CONTEXT` unknown tokens."""

    names: tuple[str, ...]
    ids: NDArray[np.int32]
    positions: NDArray[np.int64]  # where in `ids` the tokens of the text are

    def contexts(self, positions: NDArray[np.int64]) -> NDArray[np.int32]:
        """The `(N, CONTEXT)` classes before each of N positions, the nearest last."""
        before = positions[:, None] + np.arange(-CONTEXT, 0)
        return np.take(self.ids, before)


@dataclass(frozen=True)
class Corpus:
    """A text, ready to be learnt."""

    source: str
    words: tuple[str, ...]  # words[i] is the token of class i
    different_tokens: int  # in the documents to learn from, whether in the vocabulary or not
    training: Part
    held_out: Part
    skipped: int  # files that are no readable text


def open_corpus(path: Path | None = None) -> Corpus:
    """Read the text of `path` (a file or a folder), or the standard library's own sources."""
    if path is None:
        return _standard_library()
    if path.is_dir():
        documents, skipped = _read_all(path, _files(path, hidden=False))
        if not documents:
            raise CorpusError(f"{path}: expected a folder with text in UTF-8, found none")
    else:
        documents, skipped = [_only_document(path)], 0
    return _encode(str(path), documents, skipped)


def tokenize(text: str) -> list[str]:
    """Cut a text into tokens; joined, they are the text."""
    return TOKEN.findall(text)


def _standard_library() -> Corpus:
    """The sources without the tests, or with them where the vocabulary would not be full."""
    root = Path(sysconfig.get_paths()["stdlib"])
    source = f"the standard library of Python {platform.python_version()}"
    for left_out in (NOT_SOURCES | TEST_FOLDERS, NOT_SOURCES):
        sources = [
            path
            for path in _files(root)
            if path.suffix == ".py" and left_out.isdisjoint(path.relative_to(root).parts)
        ]
        documents, skipped = _read_all(root, sources)
        if not documents:
            raise CorpusError(f"{root} holds no sources of the standard library: name a --corpus")
        corpus = _encode(source, documents, skipped)
        if len(corpus.words) == VOCABULARY:
            break
    return corpus


def _files(root: Path, *, hidden: bool = True) -> list[Path]:
    """All regular files below a folder, in order of name."""
    found: list[Path] = []
    for folder, folders, names in os.walk(root):
        if not hidden:
            folders[:] = [name for name in folders if not name.startswith(".")]
            names = [name for name in names if not name.startswith(".")]
        found += (Path(folder, name) for name in names)
    return sorted(path for path in found if os.path.isfile(path))


def _read_all(root: Path, paths: list[Path]) -> tuple[list[Document], int]:
    """The documents among the files, and the number of files that are no readable text."""
    documents: list[Document] = []
    skipped = 0
    room = MOST_CHARACTERS
    for path in paths:
        if room == 0:
            break
        try:
            text = _read(path, room)
        except (OSError, ValueError):
            skipped += 1
            continue
        room -= len(text)
        if text.strip():
            documents.append(Document(path.relative_to(root).as_posix(), text))
    return documents, skipped


def _only_document(path: Path) -> Document:
    try:
        return Document(path.name, _read(path, MOST_CHARACTERS))
    except OSError as error:
        raise CorpusError(f"{path}: {error.strerror or error}") from error
    except ValueError as error:
        raise CorpusError(f"{path}: expected text in UTF-8, got something else") from error


def _read(path: Path, most_characters: int) -> str:
    """A file's text. OSError where it cannot be read, ValueError where it is no text."""
    with path.open(encoding="utf-8-sig") as file:
        text = file.read(most_characters)
    if "\0" in text:
        raise ValueError("a NUL character: a binary file")
    return text


def _encode(source: str, documents: list[Document], skipped: int) -> Corpus:
    training, held_out = _split(documents)

    # Classes in order of appearance first; then the frequent ones, by rank, get the final ids.
    index: defaultdict[str, int] = defaultdict()
    index.default_factory = index.__len__
    learnt = [_appearance(document, index) for document in training]
    different = len(index)
    kept_back = [_appearance(document, index) for document in held_out]
    if (tokens := sum(map(len, learnt))) < FEWEST_TOKENS:
        raise CorpusError(
            f"{source}: expected at least {FEWEST_TOKENS:,} tokens to learn from, got {tokens:,}"
        )

    counts = np.bincount(np.concatenate(learnt), minlength=len(index))
    frequent = np.argsort(-counts, kind="stable")[: min(different, VOCABULARY - 1)]
    final = np.full(len(index), UNKNOWN, np.int32)
    final[frequent] = np.arange(1, len(frequent) + 1)
    tokens_in_order = list(index)
    return Corpus(
        source=source,
        words=("<unknown>", *(tokens_in_order[i] for i in frequent)),
        different_tokens=different,
        training=_part(training, [final[ids] for ids in learnt]),
        held_out=_part(held_out, [final[ids] for ids in kept_back]),
        skipped=skipped,
    )


def _split(documents: list[Document]) -> tuple[list[Document], list[Document]]:
    """Documents to learn from, documents held out.

    The hash of a name decides which: the same everywhere, and no favour to a letter or a folder. An
    only document is cut near nine tenths.
    """
    if len(documents) == 1:
        [whole] = documents
        tenth = len(whole.text) * 9 // 10
        cut = whole.text.rfind("\n", 0, tenth) + 1 or tenth
        return (
            [Document(f"{whole.name}, the beginning", whole.text[:cut])],
            [Document(f"{whole.name}, the last tenth", whole.text[cut:])],
        )
    enough = HELD_OUT * sum(len(document.text) for document in documents)
    training = sorted(documents, key=lambda document: crc32(os.fsencode(document.name)))
    held_out: list[Document] = []
    while len(training) > 1 and enough > 0:
        held_out.append(training.pop())
        enough -= len(held_out[-1].text)
    return training, held_out


def _appearance(document: Document, index: defaultdict[str, int]) -> NDArray[np.int64]:
    return np.fromiter(map(index.__getitem__, tokenize(document.text)), np.int64)


def _part(documents: list[Document], ids: list[NDArray[np.int32]]) -> Part:
    before = np.full(CONTEXT, UNKNOWN, np.int32)
    is_text = [np.arange(-CONTEXT, len(document)) >= 0 for document in ids]
    return Part(
        names=tuple(document.name for document in documents),
        ids=np.concatenate([piece for document in ids for piece in (before, document)]),
        positions=np.flatnonzero(np.concatenate(is_text)),
    )
