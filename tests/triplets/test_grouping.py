import random

from cardioembed.triplets.grouping import group_sentences

A = "The left ventricle pumps blood into the aorta during every systole of the heart."
A_NEAR = "The left ventricle pumps blood into the aorta during every systole of the organ."
B = "A murmur of mitral regurgitation is heard best at the apex in left lateral position."
C = "Loop diuretics relieve congestion quickly but have never been shown to prolong life."


def sentence(key, text):
    return {"id": key, "text": text}


def pair(key, paraphrase):
    return {"sentence_id": key, "paraphrase": paraphrase}


def test_unrelated_sentences_are_groups_of_their_own_named_after_themselves():
    rows = [sentence("c", C), sentence("a", A), sentence("b", B)]
    assert group_sentences(rows, [pair("a", "The aorta receives its blood from the LV.")], 0.8) == {k: k for k in "abc"}


def test_near_duplicate_sentences_share_a_group_named_after_the_smaller_id():
    # 12 word 3-grams each, 11 in common: 11 / 13 = 0.846
    rows = [sentence("z", A), sentence("b", B), sentence("a", A_NEAR)]
    assert group_sentences(rows, [], 0.8) == {"z": "a", "a": "a", "b": "b"}
    assert group_sentences(rows, [], 0.85) == {"z": "z", "a": "a", "b": "b"}


def test_sentences_with_one_paraphrase_in_common_share_a_group():
    rows = [sentence("a", A), sentence("b", B), sentence("c", C)]
    pairs = [pair("a", "The heart is a pump."), pair("b", "the heart is a PUMP")]
    assert group_sentences(rows, pairs, 0.8) == {"a": "a", "b": "a", "c": "c"}


def test_paraphrase_that_is_another_sentence_joins_the_two():
    rows = [sentence("a", A), sentence("b", B)]
    assert group_sentences(rows, [pair("b", A.upper())], 0.8) == {"a": "a", "b": "a"}


def test_paraphrase_that_nearly_is_another_sentence_joins_the_two():
    rows = [sentence("a", A), sentence("b", B)]
    assert group_sentences(rows, [pair("b", A_NEAR)], 0.8) == {"a": "a", "b": "a"}


def test_near_duplicate_paraphrases_join_their_sentences():
    rows = [sentence("a", "One."), sentence("b", "Two.")]
    assert group_sentences(rows, [pair("a", A), pair("b", A_NEAR)], 0.8) == {"a": "a", "b": "a"}


def test_connections_are_passed_on():
    rows = [sentence(key, f"{key} stands alone here.") for key in "abcdef"]
    links = [("a", "f"), ("f", "c"), ("c", "e")]
    pairs = [pair(key, f"link {n}") for n, keys in enumerate(links) for key in keys]
    assert group_sentences(rows, pairs, 0.8) == {"a": "a", "f": "a", "c": "a", "e": "a", "b": "b", "d": "d"}


def test_groups_do_not_depend_on_the_order_of_rows():
    rows = [sentence(f"s{n}", text) for n, text in enumerate((A, A_NEAR, B, C, "It is one.", "It is two."))]
    pairs = [pair("s4", "Both say so."), pair("s5", "Both say so."), pair("s3", B), pair("s2", "It is a leak.")]
    expected = {"s0": "s0", "s1": "s0", "s2": "s2", "s3": "s2", "s4": "s4", "s5": "s4"}
    for seed in range(5):
        rng = random.Random(seed)
        assert group_sentences(rng.sample(rows, 6), rng.sample(pairs, 4), 0.8) == expected


def test_comparison_signs_keep_sentences_apart():
    rows = [sentence("a", "An ICD is for LVEF <35%."), sentence("b", "An ICD is for LVEF >35%.")]
    assert group_sentences(rows, [], 0.8) == {"a": "a", "b": "b"}


def test_long_chain_of_links_does_not_exhaust_the_stack():
    rows = [sentence(f"{n:05}", f"word{n}") for n in range(5000)]
    pairs = [pair(f"{n + side:05}", f"link{n}") for n in range(4999) for side in (0, 1)]
    assert set(group_sentences(rows, pairs, 0.8).values()) == {"00000"}


def passage(key, text, unit, sentence_ids=()):
    return {"sentence_id": key, "paraphrase": text, "kind": "passage", "unit": unit, "sentence_ids": list(sentence_ids)}


def test_pairs_of_one_unit_and_the_sentences_of_its_section_share_a_group():
    rows = [
        sentence("a", A),
        sentence("b", B),
        sentence("c", C),
        sentence("q1", "What pumps?"),
        sentence("q2", "Where?"),
    ]
    pairs = [passage("q1", "The heart does.", "u1", ["b", "gone"]), passage("q2", "At the apex.", "u1", ["b"])]
    assert group_sentences(rows, pairs, 0.8) == {"a": "a", "b": "b", "c": "c", "q1": "b", "q2": "b"}


def test_units_without_sentences_are_kept_together_too():
    rows = [sentence("q1", "What pumps?"), sentence("q2", "Where?"), sentence("q3", "When?")]
    pairs = [
        passage("q1", "One note.", "n1"),
        passage("q2", "A second note.", "n2"),
        passage("q3", "Of the first.", "n1"),
    ]
    assert group_sentences(rows, pairs, 0.8) == {"q1": "q1", "q2": "q2", "q3": "q1"}


def test_query_of_two_units_joins_them():
    rows = [sentence("a", A), sentence("b", B), sentence("q", "What pumps?")]
    pairs = [passage("q", "One answer here.", "u1", ["a"]), passage("q", "Another answer.", "u2", ["b"])]
    assert set(group_sentences(rows, pairs, 0.8).values()) == {"a"}
