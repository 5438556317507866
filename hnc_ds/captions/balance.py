"""Balance over the data set: each change a -> b is kept as often as its reverse b -> a.

If "purple" were more frequent in false captions than in true ones, a model could learn that instead
of looking at the image. So a first pass counts the changes that all graphs allow: N(a -> b) in a
context (white -> black for horses). The second pass keeps each with the probability
min(N(a -> b), N(b -> a)) / N(a -> b), so that within the context every word occurs as often in true
captions as in false ones. Changes without a counterpart in a narrow context go on to the next wider
one (white -> black for animals, then for anything).

Wider contexts balance words, but not pairs of words: skies are blue in true captions, and other
things in false ones. So they add only a limited number of changes.

In a few graphs most changes have no counterpart by chance. Then the kept number follows expected
counts: those of the graphs themselves plus GQA's frequencies, weighted as PRIOR objects. Such
captions balance over many samples, not within this one.

P proposals, K keys, L levels. Keys are 32-bit hashes of (type, {a, b}, context) and, in the last
column, of the type; colliding keys are balanced together.
"""

import zlib
from array import array
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from operator import itemgetter
from typing import NamedTuple, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

Keys = NDArray[np.uint32]
Counts = NDArray[np.uint32]

NARROW = 3
"""Maximum number of narrow contexts of a proposal, which also balance pairs of words."""

LEVELS = NARROW + 2
"""Maximum number of contexts of a proposal."""

WIDE = 0.25
"""Maximum number of changes kept by wide contexts, as a fraction of those kept by narrow ones.
Pairs of words may give these negatives away."""

FEW = 2000
"""Number of changes of a type that wide contexts may always keep: too few for a model to learn
which words go together."""

PRIOR = 30
"""Weight of GQA's counts, in objects."""

FROM_PRIOR = 800
"""Number of changes per type that the prior may keep: all of them for 20 graphs, one in 500 for
20,000."""

FULL = 65535
"""The fraction 1 in 16 bits."""

_VALUE = zlib.crc32(b"a value that is annotated")
"""Stands for a type's hash in rows that count the objects with a value."""

MAX_PENDING = 1 << 19
"""Maximum number of rows, of 32 bytes, before they are merged."""

BIN_BITS = 6
"""Merged rows are kept in bins by the first bits of their narrowest key: a merge copies one bin at
a time."""


class Proposal(Protocol):
    """The part of negatives/changes.py that is counted."""

    @property
    def words(self) -> tuple[str, str]:
        """(a, b): the words in the true caption and those that replace them in the false one."""

    @property
    def contexts(self) -> tuple[str, ...]:
        """Contexts from narrow to wide; empty if it needs no counterpart."""

    @property
    def narrow(self) -> int:
        """Number of narrow contexts."""

    @property
    def prior(self) -> "Prior | None":
        """GQA's counts for the change, if known."""


class Prior(NamedTuple):
    """Frequencies of the values of a change a -> b in GQA."""

    values: tuple[str, str]
    """(a, b)."""
    shares: tuple[float, float]
    """Fractions of the objects with a value of the class that have a and b."""
    drawn: tuple[float, float]
    """Probabilities that b is proposed in place of a, and a in place of b."""

    def kept(self, a: int, b: int) -> float:
        """Expected value of min(N(a -> b), N(b -> a)) / N(a -> b).

        Args:
            a: Number of objects with a in the graphs at hand.
            b: Number of objects with b.
        """
        forward = (PRIOR * self.shares[0] + a) * self.drawn[0]
        backward = (PRIOR * self.shares[1] + b) * self.drawn[1]
        return min(1.0, backward / forward)


class Level(msgspec.Struct, frozen=True):
    """Kept fractions for the contexts of one width."""

    keys: bytes
    """uint32 [K], sorted, little-endian."""
    shares: bytes
    """uint16 [K, 2] in units of 1 / FULL: for changes in alphabetical order, and for others."""


class Balance(msgspec.Struct, frozen=True):
    """Kept fractions of all changes, in a file of its own or in the tables."""

    changes: int
    """Number of counted changes."""
    levels: tuple[Level, ...]
    """From narrow to wide."""
    from_prior: tuple[bytes, bytes] = (b"", b"")
    """Hashes of types, uint32 [T], and the fraction of their changes that the prior may keep,
    uint16 [T] in units of 1 / FULL."""
    values: tuple[bytes, bytes] = (b"", b"")
    """Hashes of values, uint32 [V], and the number of objects with them, uint32 [V]."""


def keys_of(
    named: Iterable[tuple[str, Proposal]], values: Iterable[str] = ()
) -> tuple[Keys, NDArray[np.bool_]]:
    """Keys of proposals and their direction.

    Args:
        named: (negative type, proposal).
        values: Annotated values, which are counted with the proposals, as rows after theirs.

    Returns:
        Keys [P, L + 1]; whether a comes before b in the alphabet [P].
    """
    keys, forward = list[int](), list[bool]()
    for type_, proposal in named:
        start, in_order, type_key = _start(type_, *proposal.words)
        contexts = proposal.contexts
        found = [zlib.crc32(context.encode(), start) for context in contexts]
        keys += _places(proposal.narrow, len(contexts))(found)
        keys.append(type_key)
        forward.append(in_order)
    for value in values:
        keys += (_value_key(value),) * LEVELS
        keys.append(_VALUE)
        forward.append(True)
    # An array of C integers is read several times as fast as a list.
    keys_PL = np.frombuffer(array("I", keys), dtype=np.uint32).reshape(-1, LEVELS + 1)
    return keys_PL, np.array(forward, dtype=np.bool_)


@lru_cache(maxsize=1 << 12)
def _value_key(value: str) -> int:
    return zlib.crc32(value.encode())


@lru_cache(maxsize=1 << 6)
def _places(narrow: int, contexts: int) -> Callable[[list[int]], tuple[int, ...]]:
    """Takes the context of each level; the last narrow one and the last one repeat."""
    wide = [min(level, contexts - 1) for level in range(narrow, narrow + LEVELS - NARROW)]
    return itemgetter(*(min(level, narrow - 1) for level in range(NARROW)), *wide)


@lru_cache(maxsize=1 << 14)
def _start(type_: str, a: str, b: str) -> tuple[int, bool, int]:
    first, last = (a, b) if a <= b else (b, a)
    start = zlib.crc32(f"{type_}\n{first}\n{last}\n".encode())
    return start, a <= b, zlib.crc32(type_.encode())


class Tally:
    """Counts of proposed changes, independent of the order of the images."""

    def __init__(self) -> None:
        self._bins = [_NO_ROWS] * (1 << BIN_BITS)
        self._pending: list[tuple[Keys, Counts]] = []
        self._number = 0
        """Of pending rows."""

    def add(self, keys_PL: Keys, forward_P: NDArray[np.bool_]) -> None:
        """Count proposals."""
        counts_P2 = np.empty((len(forward_P), 2), np.uint32)
        counts_P2[:, 0], counts_P2[:, 1] = forward_P, ~forward_P
        self.add_counts(keys_PL, counts_P2)

    def add_counts(self, keys_KL: Keys, counts_K2: Counts) -> None:
        """Add what another tally counted."""
        self._pending.append((keys_KL, counts_K2))
        self._number += len(keys_KL)
        if self._number > MAX_PENDING:
            self._merge()

    def counts(self) -> tuple[Keys, Counts]:
        """Unique keys [K, L + 1], sorted by the narrowest level, and counts [K, 2]."""
        self._merge()
        return _joined(self._bins)

    def _merge(self) -> None:
        """Move the pending rows into the bins; the order of the images leaves no trace."""
        keys_PL, counts_P2 = _joined(self._pending)
        self._pending, self._number = [], 0
        bin_P = keys_PL[:, 0] >> (32 - BIN_BITS)
        order_P = np.argsort(bin_P, kind="stable")
        ends = np.cumsum(np.bincount(bin_P, minlength=len(self._bins)))[:-1]
        for number, chosen in enumerate(np.split(order_P, ends)):
            if len(chosen):
                rows = keys_PL[chosen], counts_P2[chosen]
                self._bins[number] = _unique(*_joined([self._bins[number], rows]))

    def balance(self) -> Balance:
        """The kept fraction of each change."""
        self._merge()
        found = [_split(*rows) for rows in self._bins]
        values = _joined([of_values for of_values, _ in found])
        carried = (
            values[0][:, 0].astype("<u4").tobytes(),
            values[1][:, 0].astype("<u4").tobytes(),
        )
        types_T, proposed_T = _proposed([rows for _, rows in found])
        if not len(types_T):
            return Balance(0, (Level(b"", b""),) * LEVELS, values=carried)
        keys_KL, counts_K2 = _joined(_that_matter([rows for _, rows in found]))
        left_K2 = counts_K2.astype(np.float64)
        type_K = np.searchsorted(types_T, keys_KL[:, LEVELS])
        narrow_T = np.zeros(len(types_T))
        room_T = narrow_T
        levels = []
        for level, keys_K in enumerate(keys_KL.T[:LEVELS]):
            unique_G, first_G, place_K = np.unique(keys_K, return_index=True, return_inverse=True)
            sums_G2 = np.stack(
                [np.bincount(place_K, left, len(unique_G)) for left in left_K2.T],
                axis=1,
                dtype=np.float64,  # of no rows the sums are integers
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
        shares_T = np.round(FULL * np.minimum(1, FROM_PRIOR / proposed_T)).astype("<u2")
        from_prior = types_T.astype("<u4").tobytes(), shares_T.tobytes()
        return Balance(int(proposed_T.sum()), tuple(levels), from_prior, carried)


_Rows = tuple[Keys, Counts]
_NO_ROWS = np.empty((0, LEVELS + 1), np.uint32), np.empty((0, 2), np.uint32)


def _joined(parts: Sequence[_Rows]) -> _Rows:
    parts = [_NO_ROWS, *parts]
    return np.concatenate([keys for keys, _ in parts]), np.concatenate([n for _, n in parts])


def _unique(keys: Keys, counts: Counts) -> _Rows:
    """The sums of equal rows, sorted."""
    pairs = keys[:, 0::2].astype(np.uint64) << 32 | keys[:, 1::2]  # half as many columns to sort
    order = np.lexsort(pairs.T[::-1])
    keys, counts = keys[order], counts[order]
    starts = np.flatnonzero(np.append(True, (keys[1:] != keys[:-1]).any(axis=1)))
    return keys[starts], np.add.reduceat(counts, starts, axis=0, dtype=np.uint32)


def _split(keys_KL: Keys, counts_K2: Counts) -> tuple[_Rows, _Rows]:
    """The rows of values, and those of changes."""
    of_value_K = keys_KL[:, LEVELS] == _VALUE
    changes_K = ~of_value_K
    return (
        (keys_KL[of_value_K], counts_K2[of_value_K]),
        (keys_KL[changes_K], counts_K2[changes_K]),
    )


def _proposed(bins: Sequence[_Rows]) -> tuple[Keys, NDArray[np.float64]]:
    """Hashes of types [T] and their numbers of changes [T]."""
    types_T = np.unique(np.concatenate([np.unique(keys[:, LEVELS]) for keys, _ in bins]))
    proposed_T = np.zeros(len(types_T))
    for keys, counts in bins:
        type_K = np.searchsorted(types_T, keys[:, LEVELS])
        proposed_T += np.bincount(type_K, counts.sum(axis=1), len(types_T))
    return types_T, proposed_T


def _that_matter(bins: Sequence[_Rows]) -> list[_Rows]:
    """The rows with a counterpart in some context; most changes have none, and none is kept."""
    matters = [np.zeros(len(keys), np.bool_) for keys, _ in bins]
    for level in range(LEVELS):
        ahead, back = (
            np.unique(np.concatenate([keys[counts[:, side] > 0, level] for keys, counts in bins]))
            for side in (0, 1)
        )
        both_G = np.intersect1d(ahead, back, assume_unique=True)
        for matters_K, (keys, _) in zip(matters, bins, strict=True):
            matters_K |= np.isin(keys[:, level], both_G)
    return [
        (keys[matters_K], counts[matters_K])
        for matters_K, (keys, counts) in zip(matters, bins, strict=True)
    ]


class Quotas:
    """A balance, decoded for look-ups.

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
        types, shares = balance.from_prior
        self._from_prior = dict(
            zip(
                np.frombuffer(types, "<u4").tolist(),
                (np.frombuffer(shares, "<u2") / FULL).tolist(),
                strict=True,
            )
        )
        keys, counts = (np.frombuffer(part, "<u4").tolist() for part in balance.values)
        self._values = dict(zip(keys, counts, strict=True))

    def kept(self, named: Sequence[tuple[str, Proposal]]) -> list[float]:
        """The probability of keeping each proposal; 1 for those without a context."""
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
        types = keys_PL[:, LEVELS].tolist()
        dropped_P *= [
            1 - self._from_prior.get(type_, 0.0) * self._kept_by_prior(proposal.prior)
            for type_, (_, proposal) in zip(types, counted, strict=True)
        ]
        found = iter((1 - dropped_P).tolist())
        return [next(found) if proposal.contexts else 1.0 for _, proposal in named]

    def _kept_by_prior(self, prior: Prior | None) -> float:
        if prior is None:
            return 0.0
        a, b = (self._values.get(_value_key(value), 0) for value in prior.values)
        return prior.kept(a, b)
