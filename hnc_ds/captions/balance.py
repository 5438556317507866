"""Balance over the data set: of every change a -> b as many as of b -> a.

If false captions said "purple" more often than true ones, a model could learn that and not look at
the image. So before anything is written, all changes that all graphs would allow are counted:
N(a -> b) in a context (of horses, white -> black). Then each is kept with the probability
min(N(a -> b), N(b -> a)) / N(a -> b), so that within the context every word stands as often in
true captions as in false ones. What a narrow context has no counterpart for is passed to the next
wider one (white -> black of animals; of anything), where it is balanced with what others left.

Wider contexts balance words, but not pairs of words: skies are blue in true captions, and other
things in the false ones. So only a little comes from them, unless there is little altogether.

P proposals, K keys, L levels. Keys are 32-bit hashes of (type, {a, b}, context); two that fall
together are balanced together. After them comes a hash of the type.
"""

import zlib
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

Keys = NDArray[np.uint32]
Counts = NDArray[np.uint32]

NARROW = 3
"""Contexts of a proposal that are narrow, at most: they balance pairs of words, too."""

LEVELS = NARROW + 2
"""All contexts of a proposal, at most."""

WIDE = 0.25
"""Most of what wider contexts let through, as a share of what the narrow ones do: a type's
negatives that pairs of words give away."""

FEW = 2000
"""Changes of a type that wider contexts may let through in any case: too few to learn from which
words go together."""

FULL = 65535
"""A share of one, as it is kept in 16 bits."""

MOST_WAITING = 1 << 20
"""Rows that are counted together: bounds the memory."""


class Proposal(Protocol):
    """What is counted: negatives/proposals.py."""

    @property
    def words(self) -> tuple[str, str]:
        """(a, b): what stands in the true caption, and what in the false one in its place."""

    @property
    def contexts(self) -> tuple[str, ...]:
        """From narrow to wide; none if it needs no counterpart."""

    @property
    def narrow(self) -> int:
        """How many of them are narrow."""


class Level(msgspec.Struct, frozen=True):
    """How much is kept in the contexts of one width."""

    keys: bytes
    """uint32 [K], sorted, little-endian."""
    shares: bytes
    """uint16 [K, 2], of FULL: of the changes in the order of the alphabet, and of the others."""


class Balance(msgspec.Struct, frozen=True):
    """How often each change is kept, in a file of its own or among the tables."""

    changes: int
    """That were counted."""
    levels: tuple[Level, ...]
    """From narrow to wide."""


def keys_of(named: Iterable[tuple[str, Proposal]]) -> tuple[Keys, NDArray[np.bool_]]:
    """Keys [P, L + 1] of proposals with the names of their types; whether a comes before b [P]."""
    keys, forward = list[int](), list[bool]()
    for type_, proposal in named:
        start, in_order, type_key = _start(type_, *proposal.words)
        contexts = proposal.contexts
        found = [zlib.crc32(context.encode(), start) for context in contexts]
        keys += [found[level] for level in _places(proposal.narrow, len(contexts))]
        keys.append(type_key)
        forward.append(in_order)
    keys_PL = np.array(keys, dtype=np.uint32).reshape(-1, LEVELS + 1)
    return keys_PL, np.array(forward, dtype=np.bool_)


@lru_cache(maxsize=1 << 6)
def _places(narrow: int, contexts: int) -> tuple[int, ...]:
    """Which context stands at each level: the last narrow one, and the last, are repeated."""
    wide = [min(level, contexts - 1) for level in range(narrow, narrow + LEVELS - NARROW)]
    return (*(min(level, narrow - 1) for level in range(NARROW)), *wide)


@lru_cache(maxsize=1 << 14)
def _start(type_: str, a: str, b: str) -> tuple[int, bool, int]:
    first, last = sorted((a, b))
    start = zlib.crc32(f"{type_}\n{first}\n{last}\n".encode())
    return start, a <= b, zlib.crc32(type_.encode())


class Tally:
    """Counts how often each change is proposed. The order in which images come does not matter."""

    def __init__(self) -> None:
        self._rows: list[tuple[Keys, Counts]] = []
        self._waiting = 0

    def add(self, keys_PL: Keys, forward_P: NDArray[np.bool_]) -> None:
        """Count proposals."""
        self.add_counts(keys_PL, np.stack([forward_P, ~forward_P], axis=1).astype(np.uint32))

    def add_counts(self, keys_KL: Keys, counts_K2: Counts) -> None:
        """Add what another tally counted."""
        self._rows.append((keys_KL, counts_K2))
        self._waiting += len(keys_KL)
        if self._waiting > MOST_WAITING:
            keys, counts = self.counts()
            self._rows, self._waiting = [(keys, counts)], 0

    def counts(self) -> tuple[Keys, Counts]:
        """Keys [K, L + 1], those of the narrowest level sorted and different, and counts [K, 2]."""
        if not any(len(keys) for keys, _ in self._rows):
            return np.empty((0, LEVELS + 1), np.uint32), np.empty((0, 2), np.uint32)
        keys = np.concatenate([keys for keys, _ in self._rows])
        counts = np.concatenate([counts for _, counts in self._rows])
        order = np.lexsort(keys.T[::-1])
        keys, counts = keys[order], counts[order]
        starts = np.flatnonzero(np.append(True, (keys[1:] != keys[:-1]).any(axis=1)))
        return keys[starts], np.add.reduceat(counts, starts, axis=0, dtype=np.uint32)

    def balance(self) -> Balance:
        """How much of each change is to be kept."""
        keys_KL, counts_K2 = self.counts()
        if not len(keys_KL):
            return Balance(0, (Level(b"", b""),) * LEVELS)
        left_K2 = counts_K2.astype(np.float64)
        _, type_K = np.unique(keys_KL[:, LEVELS], return_inverse=True)
        narrow_T = np.zeros(type_K.max() + 1)
        room_T = narrow_T
        levels = []
        for level, keys_K in enumerate(keys_KL.T[:LEVELS]):
            unique_G, first_G, place_K = np.unique(keys_K, return_index=True, return_inverse=True)
            sums_G2 = np.stack(
                [np.bincount(place_K, left, len(unique_G)) for left in left_K2.T], axis=1
            )
            least_G = sums_G2.min(axis=1)
            type_G = type_K[first_G]
            let_through_T = 2 * np.bincount(type_G, least_G, len(narrow_T))
            if level == NARROW:
                room_T = np.maximum(FEW, WIDE * narrow_T)
            if level < NARROW:
                narrow_T += let_through_T
            else:
                least_G *= np.minimum(1, room_T / np.maximum(let_through_T, 1))[type_G]
                room_T -= np.minimum(let_through_T, room_T)
            kept_G2 = np.zeros_like(sums_G2)
            np.divide(least_G[:, None], sums_G2, out=kept_G2, where=sums_G2 > 0)
            shares_G2 = np.round(kept_G2 * FULL).astype("<u2")
            left_K2 *= 1 - kept_G2[place_K]
            used = shares_G2.any(axis=1)
            levels.append(Level(unique_G[used].astype("<u4").tobytes(), shares_G2[used].tobytes()))
        return Balance(int(counts_K2.sum()), tuple(levels))


class Quotas:
    """A balance, arranged for questions.

    Args:
        balance: Read from a file, or counted.
    """

    def __init__(self, balance: Balance) -> None:
        self._levels = [
            (
                np.frombuffer(level.keys, "<u4"),
                np.frombuffer(level.shares, "<u2").reshape(-1, 2).astype(np.float64) / FULL,
            )
            for level in balance.levels
        ]

    def kept(self, named: Sequence[tuple[str, Proposal]]) -> list[float]:
        """The probability with which each proposal is kept; 1 for those without a context."""
        counted = [item for item in named if item[1].contexts]
        keys_PL, forward_P = keys_of(counted)
        side_P = 1 - forward_P.astype(np.int64)
        dropped_P = np.ones(len(keys_PL))
        for (known_K, shares_K2), keys_P in zip(self._levels, keys_PL.T[:LEVELS], strict=True):
            if not len(known_K):
                continue
            place_P = np.minimum(np.searchsorted(known_K, keys_P), len(known_K) - 1)
            share_P = np.where(known_K[place_P] == keys_P, shares_K2[place_P, side_P], 0.0)
            dropped_P *= 1 - share_P
        found = iter((1 - dropped_P).tolist())
        return [next(found) if proposal.contexts else 1.0 for _, proposal in named]
