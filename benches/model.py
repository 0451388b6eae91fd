"""The bandwidth model: what a call takes on a machine of so many cores and sockets.

    seconds = call + wake * (threads - 1) + max(elements / (rate * threads), bytes / bandwidth(threads))

A call has a fixed cost; it wakes its helpers one after the other; then arithmetic and memory overlap, so
that the slower of the two is what it takes. Bandwidth grows with the threads until the memory of the
sockets that hold the pages gives no more. It knows no array and no clock: ``growth.py`` measures the
numbers of this machine and holds the model against it, ``docs/scaling.md`` says what follows for larger ones.
"""

from math import log
from typing import NamedTuple

PARALLEL = 64 * 1024  # elements below which the package wakes nobody


class Machine(NamedTuple):
    """What the model has to know of one."""

    sockets: int
    cores: int  # of a socket
    rate: float  # elements a second that a thread gets through in cache
    core_bandwidth: float  # bytes a second that a thread can read
    socket_bandwidth: float  # bytes a second that a socket's memory gives, to however many threads
    call: float  # seconds
    wake: float  # seconds, of one helper

    def bandwidth(self, threads: int, holding: int | None = None) -> float:
        """Of so many threads spread over all sockets, the pages lying on ``holding`` of them (all)."""
        memories = self.sockets if holding is None else holding
        return min(threads * self.core_bandwidth, memories * self.socket_bandwidth)

    def seconds(self, elements: int, moved: int, threads: int, holding: int | None = None) -> float:
        """Of one call that moves so many bytes between memory and the cores, none if it runs in cache."""
        if elements < PARALLEL:
            threads = 1
        computing = elements / (self.rate * threads)
        moving = moved / self.bandwidth(threads, holding)
        return self.call + self.wake * (threads - 1) + max(computing, moving)

    def best_threads(self, elements: int, moved: int) -> int:
        """The number of threads with which a call is done first."""
        return min(
            range(1, self.sockets * self.cores + 1), key=lambda t: self.seconds(elements, moved, t)
        )


def exponent(elements: int, seconds: float, more_elements: int, more_seconds: float) -> float:
    """1 where time grows like the number of elements, 0 where it does not grow."""
    return log(more_seconds / seconds) / log(more_elements / elements)
