import json

import pytest

from cardioembed.errors import UserError
from cardioembed.paraphrases.merging import find_paraphrase_files, find_trusted_files, merge_paraphrases
from cardioembed.records import normalise, text_id

LIMITS = {"min_characters": 20, "max_characters": 1000, "min_length_ratio": 0.4, "max_length_ratio": 2.5}
T1, T2 = "Adenosine terminates the tachycardia.", "The mitral valve has two leaflets."
S1, S2 = (text_id(normalise(text)) for text in (T1, T2))
SENTENCES = [
    {"id": S1, "text": T1, "source": "drugs", "section": "1 Rhythm"},
    {"id": S2, "text": T2, "source": "valves", "section": "2 Anatomy"},
]
A1 = "The tachycardia is ended by adenosine."
A2 = "Adenosine brings the tachycardia to an end."
M1 = "There are two leaflets in the mitral valve."
M2 = "The mitral valve is made of 2 leaflets."


@pytest.fixture
def write(tmp_path):
    def to_file(name, *rows):
        lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
        path = tmp_path / name
        path.write_bytes(b"\n".join(lines) + b"\n")
        return path

    return to_file


def row(original, paraphrase, **more):
    return {"original": original, "paraphrase": paraphrase, **more}


def merge(*files):
    return merge_paraphrases(list(files), SENTENCES, **LIMITS)


def found(merged):
    return [(pair["sentence_id"], pair["paraphrase"]) for pair in merged.pairs]


def reasons(merged):
    return [(rejected["line"], rejected["reason"]) for rejected in merged.rejected]


def test_every_paraphrase_of_every_sentence_is_merged_in_the_order_of_the_sentences(write):
    one = write("one.jsonl", row(SENTENCES[1]["text"], M1), row(SENTENCES[0]["text"], A1))
    two = write("two.jsonl", row(SENTENCES[0]["text"], A2), row(SENTENCES[1]["text"], M2))
    merged = merge(one, two)
    assert found(merged) == [(S1, A1), (S1, A2), (S2, M1), (S2, M2)]
    assert len({pair["id"] for pair in merged.pairs}) == 4
    assert [merged.counts[str(path)]["kept"] for path in (one, two)] == [2, 2]


def test_both_key_spellings_are_read_even_in_one_file(write):
    file = write(
        "mixed.jsonl",
        row(SENTENCES[0]["text"], A1),
        {"sentence": SENTENCES[1]["text"], "paraphrased": M1},
    )
    assert found(merge(file)) == [(S1, A1), (S2, M1)]


def test_merged_row_takes_text_source_and_section_from_the_book(write):
    file = write(
        "gpt.jsonl", row("ADENOSINE  terminates the tachycardia", A1, source="elsewhere", model="gpt-x", score=3)
    )
    (pair,) = merge(file).pairs
    assert pair == {
        "score": 3,
        "id": pair["id"],
        "original": "Adenosine terminates the tachycardia.",
        "paraphrase": A1,
        "source": "drugs",
        "section": "1 Rhythm",
        "sentence_id": S1,
        "model": "gpt-x",
    }


def test_model_is_the_file_name_where_a_row_names_none(write):
    file = write("llama.jsonl", row(SENTENCES[0]["text"], A1), row(SENTENCES[1]["text"], M1, model=" "))
    assert {pair["model"] for pair in merge(file).pairs} == {"llama"}


def test_noisy_original_is_matched_after_cleaning(write):
    file = write("ocr.jsonl", row("The **mitral** valve has two lea\ufb02ets [12] (see Fig. 2).", M1))
    assert found(merge(file)) == [(S2, M1)]


def test_original_that_is_in_no_book_is_kept_under_its_own_source(write):
    stranger = "Amyloid thickens the ventricular walls."
    file = write(
        "extra.jsonl",
        row(stranger, "The walls of the ventricles are thickened by amyloid.", source="atlas"),
        row(stranger, "Amyloid makes the walls of the ventricle thick."),
        row(SENTENCES[0]["text"], A1),
    )
    merged = merge(file)
    assert [pair["source"] for pair in merged.pairs] == ["drugs", "atlas", "extra"]
    assert merged.pairs[1]["sentence_id"] == merged.pairs[2]["sentence_id"] not in (S1, S2)
    assert merged.counts[str(file)]["not_in_books"] == 2


def test_same_pair_is_kept_once_across_files(write):
    one = write("one.jsonl", row(SENTENCES[0]["text"], A1))
    two = write("two.jsonl", row("adenosine terminates the tachycardia", A1.upper()), row(SENTENCES[0]["text"], A2))
    merged = merge(one, two)
    assert found(merged) == [(S1, A1), (S1, A2)]
    assert reasons(merged) == [(1, "duplicate_pair")]
    assert merged.rejected[0]["file"].endswith("two.jsonl")


def test_one_paraphrase_of_two_sentences_is_two_pairs(write):
    shared = "Here is said of the two sentences the same."
    file = write("a.jsonl", row(SENTENCES[1]["text"], shared), row("The aortic valve has two leaflets.", shared))
    assert len({pair["id"] for pair in merge(file).pairs}) == 2


def test_rejects_carry_file_line_reason_detail_and_row(write):
    good, text = row(SENTENCES[0]["text"], A1), SENTENCES[0]["text"]
    refused = [
        row(text, text),
        row(text, "I'm sorry, I cannot do that for you."),
        row(text, "Too short."),
        row(text, ""),
        row("", A1),
        row("Short one.", A1),
        row(text, None),
        row(7, A1),
        {"original": text, "paraphrased": A1},
        {},
    ]
    bad_lines = [b"{broken", b"[1]", json.dumps(row(text, "Adénosine ends it."), ensure_ascii=False).encode("latin-1")]
    merged = merge(write("bad.jsonl", good, *refused, *bad_lines))
    assert found(merged) == [(S1, A1)]
    assert reasons(merged) == [
        (2, "copy"),
        (3, "refusal"),
        (4, "too_short"),
        (5, "empty"),
        (6, "empty"),
        (7, "original_too_short"),
        (8, "wrong_type"),
        (9, "wrong_type"),
        (10, "missing_key"),
        (11, "missing_key"),
        (12, "broken_json"),
        (13, "not_an_object"),
        (14, "not_utf8"),
    ]
    assert [rejected["row"] for rejected in merged.rejected[:10]] == refused
    assert merged.rejected[10]["row"] == "{broken"
    assert all(rejected["file"].endswith("bad.jsonl") and rejected["detail"] for rejected in merged.rejected)
    details = [merged.rejected[i]["detail"] for i in (6, 8, 9)]
    needed = "needs 'original' and 'paraphrase' or 'sentence' and 'paraphrased' or 'query' and 'passage'"
    assert details == [
        "'paraphrase' must be text, it is a NoneType",
        f"{needed}; has 'original', 'paraphrased'",
        f"{needed}; has nothing",
    ]


def test_counts_add_up_by_file(write):
    file = write("a.jsonl", row(SENTENCES[0]["text"], A1), b"", b"{", row(SENTENCES[0]["text"], SENTENCES[0]["text"]))
    assert merge(file).counts[str(file)] == {
        "read": 3,
        "kept": 1,
        "not_in_books": 0,
        "rejected: broken_json": 1,
        "rejected: copy": 1,
    }


@pytest.mark.parametrize(
    ("paraphrase", "expected"),
    [
        ("<b>Adenosine terminates the tachycardia.</b>", "copy"),
        ("_Adenosine_ terminates the tachycardia.", "copy"),
        ("<!-- nothing to say about adenosine -->", "empty"),
    ],
)
def test_markup_does_not_carry_a_copy_or_an_empty_text_through(write, paraphrase, expected):
    merged = merge(write("a.jsonl", row(SENTENCES[0]["text"], paraphrase)))
    assert [rejected["reason"] for rejected in merged.rejected] == [expected]
    assert merged.pairs == []


def test_markup_of_a_valid_paraphrase_is_removed(write):
    merged = merge(write("a.jsonl", row(SENTENCES[0]["text"], f"<p>{A1}</p>"), row(SENTENCES[1]["text"], f" {M1}\n")))
    assert found(merged) == [(S1, A1), (S2, M1)]


def test_half_an_emoji_is_refused_or_can_be_written(write):
    raw = json.dumps(row(SENTENCES[0]["text"], A1)).replace("ended", "ended \\ud83d").encode()
    merged = merge(write("a.jsonl", raw))
    assert json.dumps(merged.pairs + merged.rejected, ensure_ascii=False).encode("utf-8")


def test_no_files_merge_to_nothing():
    merged = merge()
    assert (merged.pairs, merged.rejected, merged.counts) == ([], [], {})


def test_files_come_from_paths_globs_and_folders_each_once_in_the_given_order(write, tmp_path):
    b, a = write("b.jsonl", {}), write("a.jsonl", {})
    (tmp_path / "notes.txt").write_text("x")
    assert find_paraphrase_files([str(b), str(tmp_path / "*.jsonl")]) == [b, a]
    assert find_paraphrase_files([str(tmp_path)]) == [a, b]
    assert find_paraphrase_files([]) == []


def test_file_with_brackets_in_its_name_is_found(write):
    path = write("out [final].jsonl", {})
    assert find_paraphrase_files([str(path)]) == [path]


def test_missing_file_says_how_to_go_on_without(tmp_path):
    with pytest.raises(
        UserError, match=r"no file matches .*none\.jsonl\. .*merge\.paraphrases=\[\] to write the sentences"
    ):
        find_paraphrase_files([str(tmp_path / "none.jsonl")])
    with pytest.raises(UserError, match="no file matches"):
        find_paraphrase_files([str(tmp_path)])


def test_pairs_are_the_same_from_one_process_and_from_two(write):
    rows = [
        row(f"Chamber number {i} of the heart fills in diastole.", f"Diastole is when chamber {i} of the heart fills.")
        for i in range(16_000)
    ]
    rows[500] = row(T1, T1)
    file = write("many.jsonl", *rows)
    assert file.stat().st_size > 2_000_000  # smaller files are judged in one process
    one, two = (merge_paraphrases([file], SENTENCES, **LIMITS, num_proc=n) for n in (1, 2))
    assert (one.pairs, one.rejected, one.counts) == (two.pairs, two.rejected, two.counts)
    assert [rejected["reason"] for rejected in one.rejected] == ["copy"]
    assert len(one.pairs) == 15_999


def test_original_that_was_left_out_as_a_near_duplicate_gets_the_kept_sentence(write):
    near = "Adenosine usually terminates the tachycardia."
    file = write("a.jsonl", row(near, A1), row(T1, A1), row(near, A2))
    merged = merge_paraphrases([file], SENTENCES, aliases={text_id(normalise(near)): S1}, **LIMITS)
    assert [(pair["sentence_id"], pair["original"], pair["paraphrase"]) for pair in merged.pairs] == [
        (S1, T1, A1),
        (S1, T1, A2),
    ]
    assert reasons(merged) == [(2, "duplicate_pair")]
    assert merged.counts[str(file)]["not_in_books"] == 0


def test_query_passage_pairs_are_judged_by_relevance_not_as_paraphrases(write):
    passage = "Adenosine blocks the atrioventricular node for seconds. It ends most re-entrant tachycardias. " * 4
    file = write(
        "passages.jsonl",
        {"query": "adenosine SVT", "passage": passage, "relevance": 0.9},
        row("how is SVT ended?", passage, kind="passage", relevance=0.5, sentence_ids=[S1]),
        row("adenosine half-life", passage, kind="passage", relevance=0.4),
        row("adenosine dose", passage, kind="passage", relevance="high"),
        row("adenosine", " ", kind="passage"),
    )
    merged = merge_paraphrases([file], SENTENCES, **LIMITS, min_relevance=0.5)
    assert [(pair["original"], pair["kind"]) for pair in merged.pairs] == [
        ("adenosine SVT", "passage"),
        ("how is SVT ended?", "passage"),
    ]
    assert merged.pairs[1]["sentence_ids"] == [S1]
    assert reasons(merged) == [(3, "below_min_relevance"), (4, "wrong_type"), (5, "empty")]


def test_pairs_that_people_wrote_are_not_judged_by_the_gates(write):
    file = write(
        "people.jsonl",
        row("Aspirin for six weeks is enough here.", "A month and a half of aspirin will do."),
        row("LBBB", "left bundle block"),
        row(T1, T1.upper()),
        row(T2, " "),
    )
    judged, trusted = merge(file), merge_paraphrases([file], SENTENCES, trusted=[file], **LIMITS)
    assert reasons(judged)[:2] == [(1, "numbers_changed"), (2, "original_too_short")]
    assert [pair["paraphrase"] for pair in trusted.pairs] == [
        "A month and a half of aspirin will do.", "left bundle block",
    ]  # fmt: skip
    assert reasons(trusted) == [(3, "copy"), (4, "empty")]


def test_trusted_files_are_some_of_the_paraphrase_files(write, tmp_path):
    files = [write("a.jsonl", row(T1, A1)), write("b.jsonl", row(T2, M1))]
    assert find_trusted_files([str(tmp_path / "b*")], files) == files[1:]
    assert find_trusted_files([str(tmp_path)], files) == files
    assert find_trusted_files([], files) == []
    with pytest.raises(UserError, match=r"merge\.trusted: .*c\.jsonl names none of the files of merge\.paraphrases"):
        find_trusted_files([str(tmp_path / "c.jsonl")], files)
