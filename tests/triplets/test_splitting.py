from collections import Counter

import pytest

from cardioembed.triplets.splitting import SPLITS, assign_splits

PAPER = {"train": 0.85, "validation": 0.10, "test": 0.05}
LAPTOP = {"train": 0.7, "validation": 0.1, "test": 0.2}
THIRDS = {"train": 0.34, "validation": 0.33, "test": 0.33}
BOOKS = {"anatomy": 37, "drugs": 5, "ecg": 101, "imaging": 64, "surgery": 1, "valves": 20}


def strata(sizes):
    return {f"{book}-{n:03}": book for book, size in sizes.items() for n in range(size)}


def counts(splits, book):
    return Counter(split for group, split in splits.items() if group.startswith(f"{book}-"))


def test_every_group_gets_one_of_the_three_splits():
    splits = assign_splits(strata(BOOKS), PAPER, 1)
    assert splits.keys() == strata(BOOKS).keys()
    assert set(splits.values()) == set(SPLITS) == {"train", "validation", "test"}


@pytest.mark.parametrize("shares", [PAPER, LAPTOP, THIRDS], ids=["paper", "laptop", "thirds"])
def test_test_share_of_every_book_is_within_one_group_of_exact(shares):
    for seed in range(40):
        splits = assign_splits(strata(BOOKS), shares, seed)
        for book, size in BOOKS.items():
            assert abs(counts(splits, book)["test"] - size * shares["test"]) <= 1 + 1e-9, (seed, book)


@pytest.mark.parametrize("split", ["train", "validation"])
@pytest.mark.parametrize("shares", [PAPER, LAPTOP, THIRDS], ids=["paper", "laptop", "thirds"])
def test_train_and_validation_share_of_every_book_is_within_two_groups_of_exact(shares, split):
    worst = max(
        (abs(counts(splits, book)[split] - size * shares[split]), seed, book)
        for seed in range(40)
        for splits in [assign_splits(strata(BOOKS), shares, seed)]
        for book, size in BOOKS.items()
    )
    assert worst[0] < 2, f"off by {worst[0]:.2f} groups at seed {worst[1]} in {worst[2]}"


@pytest.mark.parametrize("shares", [PAPER, LAPTOP, THIRDS], ids=["paper", "laptop", "thirds"])
def test_share_of_the_whole_is_within_two_groups_of_exact(shares):
    total = sum(BOOKS.values())
    for seed in range(40):
        sizes = Counter(assign_splits(strata(BOOKS), shares, seed).values())
        assert all(abs(sizes[split] - total * shares[split]) < 2 for split in SPLITS), (seed, sizes)


def test_same_seed_same_splits_whatever_the_order_and_another_seed_others():
    groups = strata(BOOKS)
    backwards = dict(reversed(groups.items()))
    assert assign_splits(groups, PAPER, 7) == assign_splits(backwards, PAPER, 7)
    assert assign_splits(groups, PAPER, 7) != assign_splits(groups, PAPER, 8)


def test_every_group_can_come_into_the_test_split():
    groups = strata({"a": 12, "b": 8})
    hits = Counter(g for seed in range(400) for g, s in assign_splits(groups, LAPTOP, seed).items() if s == "test")
    assert hits.keys() == groups.keys()
    assert all(40 <= hits[group] <= 130 for group in groups), hits  # 80 expected, 8 standard deviation


def test_one_group_goes_to_one_split():
    assert assign_splits({"only": "book"}, PAPER, 3)["only"] in SPLITS
    assert assign_splits({}, PAPER, 3) == {}
