"""Hard negatives: the sentences that a model places next to an anchor, though they are not its own.

Positive-aware, after NV-Retriever (arXiv 2407.15831): what is nearly as close as the positive may be a true paraphrase.
"""

from __future__ import annotations

import numpy as np
import torch
from tqdm import tqdm

from cardioembed.embedder.encoder import Embedder

ANCHOR_BLOCK, POOL_BLOCK = 1024, 8192  # one block of cosines is 32 MiB
_BLOCK = 16_384  # texts encoded at once


class Miner:
    """Finds candidates in one pool of texts; each distinct text goes through the model once.

    In memory are the vectors of the pool and of the anchors asked for, never those of all positives.

    Args:
        embedder: The model; anchors get the prompt of its anchors, positives and pool that of its positives.
        pool: Distinct texts to choose from.
        pool_groups: Their group numbers, shape (texts,).
        progress: Whether to show progress bars.
    """

    def __init__(self, embedder: Embedder, pool: list[str], pool_groups: np.ndarray, *, progress: bool = False) -> None:
        self._embedder, self._pool_groups, self._progress = embedder, pool_groups, progress
        recipe = embedder.recipe
        self._vectors = self._encode(pool, recipe.positive_prompt, "encode pool")
        one_prompt = embedder.prompt_text(recipe.anchor_prompt) == embedder.prompt_text(recipe.positive_prompt)
        # With one prompt, an anchor that is a sentence of the pool has its vector already.
        self._known = {text: place for place, text in enumerate(pool)} if one_prompt else {}

    def candidates(
        self,
        anchors: list[str],
        positives: list[str],
        anchor_groups: np.ndarray,
        *,
        relative_margin: float,
        range_min: int,
        range_max: int,
    ) -> tuple[np.ndarray, int]:
        """Candidates for pairs of anchor and positive.

        Args:
            anchors, positives: Texts of the pairs.
            anchor_groups: Group numbers, shape (pairs,); a text of the anchor's group is no candidate.
            relative_margin: A candidate's cosine stays below the positive's by this part of it.
            range_min: So many of the nearest that keep the margin are skipped.
            range_max: So many of the nearest are looked at.

        Returns:
            Indices into the pool, nearest first, shape (pairs, range_max - range_min), -1 stands for none; and how
            many of the nearest were left out for the margin.
        """
        distinct, anchor_of = _distinct(anchors)
        vectors = self._anchor_vectors(distinct)
        cosines = self._positive_cosines(vectors, anchor_of, positives)
        groups = np.empty(len(distinct), anchor_groups.dtype)
        groups[anchor_of] = anchor_groups
        device = self._embedder.device
        scores, indices = nearest(
            vectors, self._vectors, groups, self._pool_groups, range_max, device=device, progress=self._progress
        )
        kept, too_near = keep_margin(scores[anchor_of], indices[anchor_of], cosines, relative_margin)
        return kept[:, range_min:], too_near

    def _anchor_vectors(self, anchors: list[str]) -> np.ndarray:
        new = [text for text in anchors if text not in self._known]
        encoded = self._encode(new, self._embedder.recipe.anchor_prompt, "encode anchors")
        vectors = np.empty((len(anchors), self._embedder.dimension), np.float32)
        is_known = np.array([text in self._known for text in anchors], bool)
        vectors[~is_known] = encoded
        vectors[is_known] = self._vectors[[self._known[text] for text in anchors if text in self._known]]
        return vectors

    def _positive_cosines(self, anchors: np.ndarray, anchor_of: np.ndarray, positives: list[str]) -> np.ndarray:
        """Cosine of each pair; only a block of the positives' vectors is in memory at once."""
        texts, place = _distinct(positives)
        order = np.argsort(place, kind="stable")
        cosines = np.empty(len(positives), np.float32)
        prompt = self._embedder.recipe.positive_prompt
        for low in tqdm(range(0, len(texts), _BLOCK), desc="encode positives", disable=not self._progress):
            vectors = self._embedder.encode(texts[low : low + _BLOCK], prompt_name=prompt)
            rows = order[slice(*np.searchsorted(place[order], (low, low + _BLOCK)))]
            cosines[rows] = np.einsum("ij,ij->i", anchors[anchor_of[rows]], vectors[place[rows] - low])
        return cosines

    def _encode(self, texts: list[str], prompt: str | None, name: str) -> np.ndarray:
        """Vectors, in blocks: token ids of all texts at once would need more memory than the vectors."""
        vectors = np.empty((len(texts), self._embedder.dimension), np.float32)
        for low in tqdm(range(0, len(texts), _BLOCK), desc=name, disable=not self._progress or not texts):
            block = texts[low : low + _BLOCK]
            vectors[low : low + len(block)] = self._embedder.encode(block, prompt_name=prompt)
        return vectors


def nearest(
    anchors: np.ndarray,
    pool: np.ndarray,
    anchor_groups: np.ndarray,
    pool_groups: np.ndarray,
    count: int,
    *,
    device: torch.device | str = "cpu",
    anchor_block: int = ANCHOR_BLOCK,
    pool_block: int = POOL_BLOCK,
    progress: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """The texts of the pool with the highest cosine that are not of the anchor's group: exact, block by block.

    Args:
        anchors, pool: Unit vectors, float32, shapes (n, dimension) and (m, dimension).
        anchor_groups, pool_groups: Group numbers, shapes (n,) and (m,).
        count: How many.
        device: Where to compute.
        anchor_block, pool_block: Most anchors and texts of the pool whose cosines are in memory at once.
        progress: Whether to show a progress bar.

    Returns:
        ``(cosines, indices)``, both of shape (n, count), best first; where the pool has fewer, -inf and -1.
    """
    scores, indices = np.full((len(anchors), count), -np.inf, np.float32), np.full((len(anchors), count), -1, np.int32)
    by_group = np.argsort(pool_groups, kind="stable")
    left, right = (np.searchsorted(pool_groups[by_group], anchor_groups, side) for side in ("left", "right"))
    bar = tqdm(total=len(anchors), desc="search", unit="anchor", disable=not progress)
    for low in range(0, len(anchors), anchor_block):
        rows = slice(low, low + anchor_block)
        own = [by_group[a:b] for a, b in zip(left[rows], right[rows], strict=True)]
        own_rows = np.repeat(np.arange(len(own)), [len(found) for found in own])
        own_columns = np.concatenate([*own, np.empty(0, by_group.dtype)])
        block = torch.from_numpy(anchors[rows]).to(device)
        best, where = _search(block, pool, own_rows, own_columns, count, pool_block)
        scores[rows, : best.shape[1]] = best.cpu().numpy()
        indices[rows, : best.shape[1]] = where.cpu().numpy()
        bar.update(len(own))
    bar.close()
    indices[np.isneginf(scores)] = -1
    return scores, indices


def _search(
    anchors: torch.Tensor,
    pool: np.ndarray,
    own_rows: np.ndarray,
    own_columns: np.ndarray,
    count: int,
    pool_block: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Best cosines of one block of anchors with the whole pool, without the anchors' own."""
    best = torch.empty((len(anchors), 0), device=anchors.device)
    where = torch.empty((len(anchors), 0), dtype=torch.long, device=anchors.device)
    for low in range(0, len(pool), pool_block):
        part = torch.from_numpy(pool[low : low + pool_block]).to(anchors.device)
        cosines = anchors @ part.T
        here = (own_columns >= low) & (own_columns < low + len(part))
        cosines[torch.from_numpy(own_rows[here]), torch.from_numpy(own_columns[here] - low)] = -torch.inf
        top, columns = cosines.topk(min(count, len(part)), dim=1)
        best, where = torch.cat((best, top), 1), torch.cat((where, columns + low), 1)
        best, chosen = best.topk(min(count, best.shape[1]), dim=1)
        where = where.gather(1, chosen)
    return best, where


def keep_margin(
    scores: np.ndarray, indices: np.ndarray, positive_cosines: np.ndarray, relative_margin: float
) -> tuple[np.ndarray, int]:
    """Leaves out what is too near to the positive's cosine.

    The limit is ``positive - relative_margin * |positive|``: also below a negative cosine.

    Args:
        scores, indices: As from ``nearest``, one row a pair.
        positive_cosines: Cosine of each anchor with its positive, shape (pairs,).
        relative_margin: As in ``Miner.candidates``.

    Returns:
        The indices that are left, nearest first, filled up with -1; and how many were left out.
    """
    limit = positive_cosines - relative_margin * np.abs(positive_cosines)
    found = indices >= 0
    kept = found & (scores < limit[:, None])
    order = np.argsort(~kept, axis=1, kind="stable")
    left = np.where(np.take_along_axis(kept, order, 1), np.take_along_axis(indices, order, 1), -1)
    return left, int(found.sum() - kept.sum())


def _distinct(texts: list[str]) -> tuple[list[str], np.ndarray]:
    """The texts without repetitions, in order of appearance, and the place of each text in them."""
    places: dict[str, int] = {}
    place = np.fromiter((places.setdefault(text, len(places)) for text in texts), np.int64, len(texts))
    return list(places), place
