import copy
import json
from collections import Counter, defaultdict

import pytest

from cardioembed.embedder.encoder import load_embedder
from cardioembed.errors import UserError
from cardioembed.records import normalise
from cardioembed.triplets.audit import audit_leaks
from cardioembed.triplets.building import build_triplets

SHARES = {"train": 0.6, "validation": 0.2, "test": 0.2}
SETTINGS = {
    "split": {"by": "group", **SHARES},
    "near_duplicate_jaccard": 0.8,
    "decontaminate": [],
    "ngram_words": 8,
    "negatives": {"distant": 1.0},
    "negatives_per_anchor": 2,
    "min_distance": 5,
    "length_tolerance": 0.3,
    "section_distance": 3,
    "mined": {"relative_margin": 0.05, "range_min": 0, "range_max": 10, "sampling_strategy": "top"},
    "counterfactual": {"of": ["anchor", "positive"], "categories": ["negation", "direction"]},
    "seed": 42,
}


def prepare(sentences, pairs, **changed):
    return build_triplets(sentences, pairs, **{**SETTINGS, **changed})


def build(sentences, pairs, **changed):
    prepared = prepare(sentences, pairs, **changed)
    return prepared.splits, prepared.counts


def all_rows(splits):
    return [row for rows in splits.values() for row in rows]


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
        "negative_kinds": ["distant", "distant"],
        "source": "valves",
        "section": "Part 0",
        "model": "writer1",
    }
    assert {key: counts[key] for key in ("sentences", "groups", "groups_of_several_sentences", "largest_group")} == {
        "sentences": 80, "groups": 80, "groups_of_several_sentences": 0, "largest_group": 1,
    }  # fmt: skip
    assert sum(count["distant"] for count in counts["negatives"].values()) == 240


def test_splits_pass_the_audit_and_paraphrases_of_a_sentence_stay_together(corpus):
    splits, _ = build(*corpus)
    audit_leaks(splits, 8)
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
    splits, _ = build(*corpus, negatives={"similar_length": 1}, negatives_per_anchor=1, length_tolerance=0.1)
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


def by_kind(splits):
    return Counter(kind for row in all_rows(splits) for kind in row["negative_kinds"])


def test_kinds_are_mixed_by_weight_and_stand_beside_the_negatives(corpus):
    sentences, pairs = corpus
    splits, _ = build(sentences, pairs, negatives={"distant": 1, "similar_length": 3})
    found = by_kind(splits)
    assert found.keys() == {"distant", "similar_length"}
    assert abs(found["distant"] - 60) <= 2  # of 240, to within a slot a split, and what was replaced
    place = {row["text"]: n for n, row in enumerate(sentences)}
    for row in all_rows(splits):
        assert len(row["negatives"]) == len(row["negative_kinds"]) == len(set(row["negatives"])) == 2
        for negative, kind in zip(row["negatives"], row["negative_kinds"], strict=True):
            if kind == "distant":
                assert abs(place[negative] - place[row["anchor"]]) >= 5
            else:
                assert abs(len(negative) - len(row["anchor"])) <= 0.3 * len(row["anchor"])


def test_same_section_negatives_are_of_the_book_and_section(corpus):
    sentences, pairs = corpus
    splits, counts = build(sentences, pairs, negatives={"same_section": 1}, negatives_per_anchor=1)
    of = {row["text"]: (row["source"], row["section"], n) for n, row in enumerate(sentences)}
    for row in all_rows(splits):
        (book, section, place), (other_book, other_section, other) = (of[t] for t in (row["anchor"], *row["negatives"]))
        if row["negative_kinds"] == ["same_section"]:
            assert (other_book, other_section) == (book, section)
            assert abs(other - place) >= 3
        else:
            assert row["negative_kinds"] == ["distant"]
    replaced = sum(count.get("same_section replaced by distant", 0) for count in counts["negatives"].values())
    found = by_kind(splits)
    assert found["same_section"] > 60
    assert found["distant"] == replaced > 0


def test_length_that_no_sentence_has_is_replaced_by_a_distant_negative_and_counted(corpus):
    sentences, pairs = corpus
    long = sentence("valves", 5) | {"text": "Long " * 60 + "ends."}
    sentences = [long if row["id"] == "valves05" else row for row in sentences]
    pairs = [p | {"original": long["text"]} if p["sentence_id"] == "valves05" else p for p in pairs]
    splits, counts = build(sentences, pairs, negatives={"similar_length": 1}, length_tolerance=0.5)
    rows = [row for row in all_rows(splits) if row["anchor"].startswith("Long")]
    assert [row["negative_kinds"] for row in rows] == [["distant"] * 2] * 2
    assert sum(c.get("similar_length replaced by distant", 0) for c in counts["negatives"].values()) == 4


CLINICAL = [
    "Severe stenosis number{n} raises the left ventricular pressure in patient{n}.",
    "Beta-blocker{n} reduces mortality in chronic failure of kind{n}.",
    "The drug{n} increases the risk of bleeding in old patient{n}.",
    "Nothing{n} here{n} can{n} be{n} edited{n}.",
]


@pytest.fixture
def clinic():
    sentences = [
        {"id": f"s{n:03}", "text": CLINICAL[n % 4].format(n=n), "source": "abc"[n % 3], "section": f"Part {n // 30}"}
        for n in range(120)
    ]
    return sentences, [pair(row, f"Reworded{row['id']} so{row['id']} it{row['id']}.") for row in sentences]


def test_counterfactuals_are_edits_of_the_row_that_are_no_text_of_the_corpus(clinic):
    splits, counts = build(*clinic, negatives={"counterfactual": 1}, negatives_per_anchor=1)
    audit_leaks(splits, 8)
    known = {normalise(row["text"]) for row in clinic[0]}
    seen = Counter()
    for row in all_rows(splits):
        (negative,), (kind,), (note,) = row["negatives"], row["negative_kinds"], row["negative_notes"]
        seen[kind] += 1
        if kind == "counterfactual":
            category, _, edit = note.partition(": ")
            old, _, new = edit.partition(" -> ")
            assert category in ("negation", "direction")
            assert normalise(negative) not in known
            assert negative != row["anchor"]
            assert old in row["anchor"]
            assert new in negative
        else:
            assert (kind, note) == ("distant", "")
            assert row["anchor"].startswith("Nothing")
    assert seen == {"counterfactual": 90, "distant": 30}
    replaced = Counter()
    for count in counts["negatives"].values():
        replaced.update(count)
    assert replaced["counterfactual replaced by distant"] == 30
    assert replaced["counterfactual: direction"] + replaced["counterfactual: negation"] == 90


def test_edit_that_is_a_text_of_another_split_is_not_used(clinic):
    sentences, pairs = clinic
    # Each of a sentence's edits in "direction" is another sentence of the corpus.
    twins = [
        row | {"id": f"{word}{row['id']}", "text": row["text"].replace("increases", word)}
        for row in sentences
        for word in ("reduces", "decreases")
        if "increases" in row["text"]
    ]
    settings = {"of": ["anchor"], "categories": ["direction"]}
    changed = {"negatives": {"counterfactual": 1}, "negatives_per_anchor": 1, "counterfactual": settings}
    alone, _ = build(sentences, pairs, **changed)
    edited = [row for row in all_rows(alone) if "increases" in row["anchor"]]
    assert {row["negative_kinds"][0] for row in edited} == {"counterfactual"}
    assert {row["negatives"][0] for row in edited} <= {row["text"] for row in twins}
    beside, _ = build(sentences + twins, pairs, **changed)
    edited = [row for row in all_rows(beside) if "increases" in row["anchor"]]
    assert len(edited) > 20
    assert {row["negative_kinds"][0] for row in edited} == {"distant"}


def test_several_counterfactuals_of_a_row_differ(clinic):
    splits, _ = build(*clinic, negatives={"counterfactual": 1}, negatives_per_anchor=3)
    for row in all_rows(splits):
        assert len({normalise(text) for text in row["negatives"]}) == 3


@pytest.fixture(scope="module")
def tiny_embedder(tiny_bert):
    return load_embedder(str(tiny_bert), max_length=64, device="cpu")


def test_mined_negatives_are_nearest_of_the_split_and_below_the_positive(clinic, tiny_embedder):
    splits, _ = build(*clinic, negatives={"mined": 1}, negatives_per_anchor=2, embedder=tiny_embedder)
    mined = 0
    for name, rows in splits.items():
        pool = sorted({text for row in rows for text in (row["anchor"], *row["negatives"])})
        vectors = tiny_embedder.encode(pool)
        assert {row["anchor"] for row in rows} <= set(pool)
        for row in rows:
            anchor, positive = tiny_embedder.encode([row["anchor"], row["positive"]])
            limit = anchor @ positive - 0.05 * abs(anchor @ positive)
            cosines = {text: anchor @ vector for text, vector in zip(pool, vectors, strict=True)}
            nearest = sorted((t for t in pool if t != row["anchor"]), key=cosines.get, reverse=True)[:10]
            expected = [text for text in nearest if cosines[text] < limit][:2]
            own = [t for t, kind in zip(row["negatives"], row["negative_kinds"], strict=True) if kind == "mined"]
            # Texts of equal vectors may stand for each other.
            assert [cosines[t] for t in own] == pytest.approx([cosines[t] for t in expected], abs=1e-6), name
            mined += len(own)
    assert mined > 20


def test_random_mined_negatives_are_seeded(clinic, tiny_embedder):
    mined = {**SETTINGS["mined"], "relative_margin": 0.0, "sampling_strategy": "random"}
    changed = {"negatives": {"mined": 1, "distant": 1}, "mined": mined, "embedder": tiny_embedder}
    first, second, other = (build(*clinic, seed=seed, **changed)[0] for seed in (1, 1, 2))
    assert first == second != other


def test_rows_that_overlap_with_an_evaluation_set_are_left_out_and_listed(corpus, tmp_path):
    sentences, pairs = corpus
    run = "these eight words stand in an evaluation set"
    sentences[3]["text"] = f"We say {run} here."
    pairs = [p | {"original": sentences[3]["text"]} if p["sentence_id"] == sentences[3]["id"] else p for p in pairs]
    pairs[20]["paraphrase"] = f"Another: {run.upper()}"
    pairs[40]["paraphrase"] = "exactly this"
    sentences[75]["text"] = "It is: these eight words stand in an evaluation room."
    path = tmp_path / "set.jsonl"
    path.write_text(json.dumps({"sentence1": f"So {run}!", "sentence2": "Exactly this.", "score": 1}), encoding="utf-8")
    prepared = prepare(sentences, pairs, decontaminate=[str(path)])
    removed = [(row["field"], row["reason"], row["row"]["id"]) for row in prepared.removed if row["set"] == str(path)]
    first = sentences[3]["id"]
    assert sorted(removed) == sorted(
        [
            ("sentence", "ngram", first),
            ("anchor", "ngram", f"{first}-0"),
            ("anchor", "ngram", f"{first}-1"),
            ("positive", "ngram", pairs[20]["id"]),
            ("positive", "text", pairs[40]["id"]),
        ]
    )
    assert {row["shared"] for row in prepared.removed if row["field"] == "anchor"} == {
        "these eight words stand in an evaluation set"
    }
    texts = " ".join(
        text for row in all_rows(prepared.splits) for text in (row["anchor"], row["positive"], *row["negatives"])
    )
    assert run not in texts.lower()
    assert len(all_rows(prepared.splits)) == 116
    assert len(all_rows(prepare(sentences, pairs, decontaminate=[str(path)], ngram_words=9).splits)) == 119


def test_what_two_splits_would_share_is_left_out_of_the_larger(corpus):
    sentences, pairs = corpus
    run = "the same eight words in very many paraphrases"
    pairs = [p | {"paraphrase": f"{p['id']} {p['id']}x {run} {p['id']}y {p['id']}z"} for p in pairs]
    prepared = prepare(sentences, pairs, near_duplicate_jaccard=0.95, ngram_words=9)
    assert prepared.removed == []
    with pytest.raises(UserError, match=r"the (train|validation) split is empty"):
        prepare(sentences, pairs, near_duplicate_jaccard=0.95)
    some = [p if int(p["id"][-4:-2]) % 4 else q for p, q in zip(pairs, corpus[1], strict=True)]
    prepared = prepare(sentences, some, near_duplicate_jaccard=0.95)
    audit_leaks(prepared.splits, 8)
    left = {name: sum(run in row["positive"] for row in rows) for name, rows in prepared.splits.items()}
    assert left["test"] > 0
    assert (left["train"], left["validation"]) == (0, 0)
    assert {row["reason"] for row in prepared.removed} == {"ngram_in_test"}
    assert {row["field"] for row in prepared.removed} == {"positive"}
    assert len(prepared.removed) + len(all_rows(prepared.splits)) == 120


def queries(sentences, book="drugs"):
    """Two queries with a passage each to every section of a book."""
    sections = sorted({row["section"] for row in sentences if row["source"] == book})
    for section in sections:
        own = [row for row in sentences if (row["source"], row["section"]) == (book, section)]
        for n in range(2):
            key = f"q{section[-1]}{n}"
            yield {
                "id": f"{key}-p", "sentence_id": key, "kind": "passage", "unit": f"u{section[-1]}",
                "original": f"What of {key}?", "paraphrase": " ".join(f"word{i}{key}" for i in range(40)),
                "sentence_ids": [row["id"] for row in own], "source": book, "section": section, "model": "asker",
            }  # fmt: skip


@pytest.fixture
def notes(corpus):
    sentences = [row | {"section": f"Part {int(row['id'][-2:]) // 4}"} for row in corpus[0]]
    return sentences, corpus[1], list(queries(sentences))


def test_passages_stay_with_their_section_and_draw_from_passages(notes):
    sentences, pairs, passages = notes
    prepared = prepare(sentences, pairs + passages, negatives_per_anchor=1, min_distance=1)
    audit_leaks(prepared.splits, 8)
    home = {row["anchor"]: name for name, rows in prepared.splits.items() for row in rows}
    text = {row["id"]: row["text"] for row in sentences}
    all_passages = {row["paraphrase"] for row in passages}
    found = [row for row in all_rows(prepared.splits) if row.get("kind") == "passage"]
    assert len(found) == 20
    by_id = {row["id"]: row for row in passages}
    for row in found:
        members = by_id[row["id"]]["sentence_ids"]
        assert {home[text[key]] for key in members if text[key] in home} <= {home[row["anchor"]]}
        assert row["group"] == min(members)
    large = [row for row in found if home[row["anchor"]] == "train"]
    assert len(large) > 4
    assert all(row["negatives"][0] in all_passages - {row["positive"]} for row in large)
    questions = {row["original"] for row in passages}
    assert not questions & {negative for row in all_rows(prepared.splits) for negative in row["negatives"]}


def test_passages_of_too_few_groups_draw_from_the_sentences_and_it_is_counted(notes):
    sentences, pairs, passages = notes
    prepared = prepare(sentences, pairs + passages[:2], negatives_per_anchor=1)
    (rows,) = (
        [r for r in rows if r.get("kind") == "passage"]
        for rows in prepared.splits.values()
        if any("kind" in r for r in rows)
    )
    assert len(rows) == 2
    assert {row["negatives"][0] for row in rows} <= {row["text"] for row in sentences}
    counted = [count.get("passages_with_sentences_as_negatives", 0) for count in prepared.counts["negatives"].values()]
    assert sorted(counted) == [0, 0, 2]


@pytest.mark.parametrize("by", ["group", "section", "book"])
def test_every_way_to_split_passes_the_audit(by, corpus):
    sentences, pairs = corpus
    third = [sentence("atlas", n) for n in range(40)]
    pairs = pairs + [pair(row, f"Of the atlas {row['id']} this{row['id']}.") for row in third[:30]]
    prepared = prepare(sentences + third, pairs, split={"by": by, **SHARES}, min_distance=1)
    audit_leaks(prepared.splits, 8)
    assert prepared.counts["split"]["by"] == by
    assert prepared.counts["split"]["units"] == {"group": 120, "section": 12, "book": 3}[by]
    assert ("books" in prepared.counts["split"]) == (by == "book")
    assert len(all_rows(prepared.splits)) == 150


def test_members_of_a_group_in_other_books_are_left_out_and_listed(corpus):
    sentences, pairs = corpus
    third = [sentence("atlas", n) for n in range(40)]
    pairs = pairs + [pair(row, f"Of the atlas {row['id']} this{row['id']}.") for row in third[:30]]
    shared = [
        p | {"paraphrase": "The same words in each book."} if p["id"][-4:] in ("03-0", "s3-0") else p for p in pairs
    ]
    prepared = prepare(sentences + third, shared, split={"by": "book", **SHARES})
    audit_leaks(prepared.splits, 8)
    out = [row for row in prepared.removed if row["reason"] == "group_in_test"]
    assert {row["set"] for row in out} == {"the test split"}
    assert Counter(row["field"] for row in out)["sentence"] == 2
    (test_book,) = prepared.counts["split"]["books"]["test"]
    assert test_book not in {row["row"]["source"] for row in out}
    assert len(all_rows(prepared.splits)) + sum(row["field"] == "anchor" for row in out) == 150


def test_two_books_cannot_be_held_out(corpus):
    with pytest.raises(UserError, match=r"prepare\.split\.by: book needs 3 books .*there are 2 \(drugs, valves\)"):
        build(*corpus, split={"by": "book", **SHARES})


def test_texts_that_repeat_each_other_are_named_as_the_reason_of_an_empty_split(corpus):
    sentences, _ = corpus
    rows = [
        row | {"text": f"{row['text'].rstrip('.')} as it is always and everywhere said of all these drugs."}
        for row in sentences
    ]
    pairs = [pair(row, f"It is {row['id']} of which {row['text']}") for row in rows]
    with pytest.raises(UserError, match=r"split is empty: \d+ of \d+ pairs were left out.*Raise prepare\.ngram_words"):
        build(rows, pairs)
