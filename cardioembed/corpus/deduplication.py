"""Exact and near duplicates among sentences."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from rensa import RMinHash, RMinHashLSH

from cardioembed.records import normalise

_PERMUTATIONS = 128
# Rows a band by threshold: a pair at the threshold is missed with a probability of at most 2e-4.
_ROWS = ((0.7, 4), (0.45, 2), (0.0, 1))


def shingles(text: str, size: int = 3) -> frozenset[str]:
    """Word n-grams of the normalised text; a text of fewer words is one shingle."""
    words = normalise(text).split()
    return frozenset(" ".join(words[i : i + size]) for i in range(max(1, len(words) - size + 1)))


def jaccard(first: frozenset[str], second: frozenset[str]) -> float:
    """|A and B| / |A or B|."""
    union = len(first | second)
    return len(first & second) / union if union else 1.0


def near_duplicates(
    texts: list[str], threshold: float, progress: Callable[[Iterable], Iterable] = iter
) -> Iterator[tuple[int, int, float]]:
    """Pairs of texts whose word 3-grams have a Jaccard index of at least ``threshold``.

    MinHash proposes candidates and the exact index decides, so no reported pair is wrong; a true pair is missed only
    where no band agrees.

    Args:
        texts: The texts to compare.
        threshold: Lowest Jaccard index, in (0, 1].
        progress: Wraps the loop over texts, as tqdm does.

    Yields:
        ``(i, j, index)`` with ``j < i``, in order of ``i``.
    """
    rows = next(rows for lowest, rows in _ROWS if threshold >= lowest)
    lsh = RMinHashLSH(threshold=threshold, num_perm=_PERMUTATIONS, num_bands=_PERMUTATIONS // rows)
    sets = [shingles(text) for text in texts]
    for i, items in enumerate(progress(sets)):
        signature = RMinHash(num_perm=_PERMUTATIONS, seed=1)
        signature.update(sorted(items))
        for j in sorted(lsh.query(signature)):
            index = jaccard(items, sets[j])
            if index >= threshold:
                yield i, j, index
        lsh.insert(i, signature)
