import copy
from collections import Counter, defaultdict

import pytest

from cardioembed.errors import UserError
from cardioembed.triplets.audit import audit_leaks
from cardioembed.triplets.building import build_triplets

SETTINGS = {
    "shares": {"train": 0.6, "validation": 0.2, "test": 0.2},
    "near_duplicate_jaccard": 0.8,
    "negatives": "distant",
    "negatives_per_anchor": 2,
    "min_distance": 5,
    "length_tolerance": 0.3,
    "seed": 42,
}


def build(sentences, pairs, **changed):
    return build_triplets(sentences, pairs, **{**SETTINGS, **changed})


def sentence(book, n):
    key = f"{book}{n:02}"
    text = f"Drug{key} relieves symptom{key} within week{key}" + " of steady treatment" * (n % 3) + "."
    return {"id": key, "text": text, "source": book, "section": f"Part {n // 10}"}


def pair(row, paraphrase, version=0):
    return {
        "id": f"{row['id']}-{version}",
        "sentence_id": row["id"],
        "original": row["text"],
        "paraphrase": paraphrase,
        "source": row["source"],
        "section": row["section"],
        "model": f"writer{version}",
    }


@pytest.fixture
def corpus():
    # two books of 40 sentences; the first 30 of each have two paraphrases
    sentences = [sentence(book, n) for book in ("drugs", "valves") for n in range(40)]
    pairs = [
        pair(row, f"Version{version} {row['id']} says it otherwise{version}{row['id']}.", version)
        for row in sentences
        if int(row["id"][-2:]) < 30
        for version in (0, 1)
    ]
    return sentences, pairs


def test_every_pair_becomes_one_triplet_with_its_texts_and_origin(corpus):
    splits, counts = build(*corpus)
    rows = {row["id"]: row for split in splits.values() for row in split}
    assert list(splits) == ["train", "validation", "test"]
    assert sum(map(len, splits.values())) == len(rows) == 120
    assert rows["valves07-1"] == {
        "id": "valves07-1",
        "group": "valves07",
        "anchor": "Drugvalves07 relieves symptomvalves07 within weekvalves07 of steady treatment.",
        "positive": "Version1 valves07 says it otherwise1valves07.",
        "negatives": rows["valves07-1"]["negatives"],
        "source": "valves",
        "section": "Part 0",
        "model": "writer1",
    }
    assert counts == {"sentences": 80, "groups": 80, "groups_of_several_sentences": 0, "largest_group": 1}


def test_splits_pass_the_audit_and_paraphrases_of_a_sentence_stay_together(corpus):
    splits, _ = build(*corpus)
    audit_leaks(splits)
    homes = defaultdict(set)
    for name, rows in splits.items():
        for row in rows:
            homes[row["anchor"]].add(name)
    assert len(homes) == 60
    assert all(len(names) == 1 for names in homes.values())


def test_pairs_of_every_book_come_into_the_test_split_in_the_same_share(corpus):
    for seed in range(12):
        splits, _ = build(*corpus, seed=seed)
        groups = {row["group"]: row["source"] for row in splits["test"]}
        assert Counter(groups.values()) == pytest.approx({"drugs": 6, "valves": 6}, abs=1), seed


def test_distant_negatives_come_from_their_own_split_and_from_afar(corpus):
    sentences, pairs = corpus
    splits, _ = build(sentences, pairs, min_distance=30)
    place = {row["text"]: n for n, row in enumerate(sentences)}
    home = {row["anchor"]: name for name, rows in splits.items() for row in rows}
    unpaired = defaultdict(set)
    for name, rows in splits.items():
        for row in rows:
            assert len(set(row["negatives"])) == 2
            for negative in row["negatives"]:
                assert abs(place[negative] - place[row["anchor"]]) >= 30
                assert home.get(negative, name) == name
                if negative not in home:
                    unpaired[negative].add(name)
    assert len(unpaired) >= 10
    assert all(len(names) == 1 for names in unpaired.values())


def test_negatives_of_similar_length_keep_the_tolerance(corpus):
    splits, _ = build(*corpus, negatives="similar_length", negatives_per_anchor=1, length_tolerance=0.1)
    rows = [row for rows in splits.values() for row in rows]
    assert all(abs(len(row["negatives"][0]) - len(row["anchor"])) <= 0.1 * len(row["anchor"]) for row in rows)
    assert all(row["negatives"][0] != row["anchor"] for row in rows)


def test_near_duplicates_stay_together_and_are_never_each_others_negatives(corpus):
    sentences, pairs = corpus
    words = [f"word{n}" for n in range(30)]
    twins = [
        {"id": f"twin{n}", "text": " ".join([*words, f"end{n}"]), "source": "drugs", "section": ""} for n in range(12)
    ]
    sentences = [*sentences, *twins]
    pairs = [*pairs, *(pair(row, f"Another{row['id']} wording{row['id']} of{row['id']}.") for row in twins)]
    splits, counts = build(sentences, pairs, min_distance=1)
    assert (counts["groups_of_several_sentences"], counts["largest_group"]) == (1, 12)
    homes = {name: [row for row in rows if row["anchor"].startswith("word0 ")] for name, rows in splits.items()}
    assert sorted(map(len, homes.values())) == [0, 0, 12]
    (rows,) = (rows for rows in homes.values() if rows)
    assert {row["group"] for row in rows} == {"twin0"}
    assert not any(negative.startswith("word0 ") for row in rows for negative in row["negatives"])


def test_sentences_that_share_a_paraphrase_stay_together(corpus):
    sentences, pairs = corpus
    shared = [pair(sentences[n], "The same words for many sentences.", 9) for n in (0, 13, 45, 61)]
    splits, counts = build(sentences, pairs + shared)
    assert sorted(len({row["anchor"] for row in rows if row["group"] == "drugs00"}) for rows in splits.values()) == [
        0,
        0,
        4,
    ]
    assert counts["largest_group"] == 4


def test_original_of_no_book_is_split_like_a_sentence_and_used_as_a_negative(corpus):
    sentences, pairs = corpus
    strangers = [sentence("atlas", n) for n in range(20)]
    splits, counts = build(sentences, pairs + [pair(row, f"Of the atlas {row['id']} this.") for row in strangers])
    assert counts["sentences"] == 100
    rows = [row for rows in splits.values() for row in rows]
    assert Counter(row["source"] for row in rows) == {"drugs": 60, "valves": 60, "atlas": 20}
    assert any(negative.startswith("Drugatlas") for row in rows for negative in row["negatives"])


def test_same_seed_same_rows_and_another_seed_others(corpus):
    first, second, other = (build(*corpus, seed=seed)[0] for seed in (1, 1, 2))
    assert first == second
    assert [row["id"] for row in first["test"]] != [row["id"] for row in other["test"]]
    negatives = {row["id"]: row["negatives"] for row in first["train"]}
    common = [row for row in other["train"] if row["id"] in negatives]
    assert any(row["negatives"] != negatives[row["id"]] for row in common)


def test_inputs_are_left_as_they_were(corpus):
    before = copy.deepcopy(corpus)
    build(*corpus)
    assert corpus == before


def test_too_few_pairs_for_a_split_say_which(corpus):
    sentences, pairs = corpus
    with pytest.raises(UserError, match=r"the \w+ split is empty: 2 pairs in 80 groups .*prepare\.split\.\w+ = 0\.\d"):
        build(sentences, pairs[:2])


def test_impossible_distance_says_what_to_change(corpus):
    with pytest.raises(
        UserError, match=r"0 possible negatives in its split, 2 are wanted: lower prepare\.min_distance"
    ):
        build(*corpus, min_distance=500)


def test_more_negatives_than_a_split_holds_say_what_to_change(corpus):
    with pytest.raises(UserError, match=r"64 are wanted: .*prepare\.negatives_per_anchor \(now 64\)"):
        build(*corpus, negatives_per_anchor=64)


def test_progress_wraps_the_texts(corpus):
    seen = []
    build(*corpus, progress=lambda items: (seen.append(item) or item for item in items))
    assert len(seen) == 200
