import json
import re
from pathlib import Path

import fpdf
import pytest

from cardioembed.corpus.reading import find_books
from cardioembed.corpus.sentences import build_corpus
from cardioembed.errors import UserError

SAMPLE = Path(__file__).parents[2] / "data" / "sample"
LIMITS = {"min_characters": 20, "max_characters": 1000}


@pytest.fixture
def books(tmp_path):
    def write(**contents):
        for name, content in contents.items():
            (tmp_path / f"{name}.md").write_text(content, encoding="utf-8")
        return [tmp_path / f"{name}.md" for name in contents]

    return write


@pytest.fixture(scope="module")
def sample():
    return build_corpus(find_books([str(SAMPLE / "books")]), **LIMITS)


def test_sentence_row_has_id_text_source_section_and_sources(books):
    corpus = build_corpus(
        books(valves="# Valves\n\nThe mitral valve has two leaflets. It closes in systole."), **LIMITS
    )
    first, second = corpus.sentences
    assert first["text"] == "The mitral valve has two leaflets."
    assert second["text"] == "It closes in systole."
    assert (first["source"], first["section"], first["sources"]) == ("valves", "Valves", ["valves"])
    assert re.fullmatch("[0-9a-f]{16}", first["id"])
    assert first["id"] != second["id"]


def test_sentence_of_two_books_is_kept_once_with_both_sources(books):
    corpus = build_corpus(
        books(
            first="The mitral valve has two leaflets. The mitral valve has two leaflets.",
            second="The aortic valve has three cusps.\n\nThe mitral valve has TWO leaflets!",
        ),
        **LIMITS,
    )
    assert [(row["text"], row["source"], row["sources"]) for row in corpus.sentences] == [
        ("The mitral valve has two leaflets.", "first", ["first", "second"]),
        ("The aortic valve has three cusps.", "second", ["second"]),
    ]
    assert (corpus.books["first"]["duplicates"], corpus.books["second"]["duplicates"]) == (1, 1)


def test_two_books_of_one_name_keep_their_counts_apart(tmp_path):
    paths = [tmp_path / folder / "heart.md" for folder in ("first", "second")]
    for path, text in zip(paths, ("The mitral valve has two leaflets.", "It closes in every systole."), strict=True):
        path.parent.mkdir()
        path.write_text(text, encoding="utf-8")
    corpus = build_corpus(paths, **LIMITS)
    assert [row["source"] for row in corpus.sentences] == ["first/heart", "second/heart"]
    assert {name: counts["sentences"] for name, counts in corpus.books.items()} == {"first/heart": 1, "second/heart": 1}


def test_sentences_that_differ_in_a_comparison_sign_are_two(books):
    text = "An ICD is offered when LVEF is <35%. An ICD is offered when LVEF is >35%."
    assert len(build_corpus(books(icd=text), **LIMITS).sentences) == 2


def test_id_depends_on_the_text_alone(books):
    one = build_corpus(books(a="# One\n\nThe mitral valve has two leaflets."), **LIMITS).sentences[0]
    two = build_corpus(
        books(b="# Two\n\nIt is thin and soft. The mitral valve has  two leaflets."), **LIMITS
    ).sentences[1]
    assert one["id"] == two["id"]


def test_short_long_and_wordless_sentences_are_left_out_and_counted(books):
    long = "The " + "very " * 30 + "long sentence ends."
    text = f"It leaks. {long} The dose of digoxin is low.\n\n12 34 56 78 90 12 34 56 ms 78 90 12."
    corpus = build_corpus(books(a=text), min_characters=20, max_characters=100)
    assert [row["text"] for row in corpus.sentences] == ["The dose of digoxin is low."]
    assert {key: corpus.books["a"][key] for key in ("sentences", "too_short", "too_long", "not_prose")} == {
        "sentences": 1,
        "too_short": 1,
        "too_long": 1,
        "not_prose": 1,
    }
    (rejected,) = corpus.rejected
    assert (rejected["reason"], rejected["row"]["text"]) == ("sentence_too_long", long)
    assert rejected["file"].endswith("a.md")


def test_length_limits_are_inclusive(books):
    text = "Nineteen letters a.\n\nTwenty letters abcd.\n\nTwenty-one letters a."
    assert [len(part) for part in text.split("\n\n")] == [19, 20, 21]
    corpus = build_corpus(books(a=text), min_characters=20, max_characters=20)
    assert [row["text"] for row in corpus.sentences] == ["Twenty letters abcd."]


def test_all_unreadable_books_are_named_at_once(books, tmp_path):
    paths = books(good="The mitral valve has two leaflets.", blank=" ")
    (tmp_path / "cut.pdf").write_bytes(b"%PDF-1.4 cut")
    with pytest.raises(
        UserError, match=r"(?s)2 of 3 books cannot be used:.*blank\.md holds no text.*cut\.pdf cannot be"
    ):
        build_corpus([*paths, tmp_path / "cut.pdf"], **LIMITS)


def test_books_without_one_long_enough_sentence_are_an_error(books):
    with pytest.raises(
        UserError, match=r"no sentence of 20 or more characters in 1 books; lower merge\.min_characters"
    ):
        build_corpus(books(a="It leaks. It fails."), **LIMITS)


def test_named_originals_come_out_of_the_sample_books_word_for_word(sample):
    originals = set()
    for name, key in (("close", "original"), ("free", "sentence")):
        lines = (SAMPLE / "paraphrases" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
        originals |= {json.loads(line)[key] for line in lines}
    found = originals & {row["text"] for row in sample.sentences}
    assert len(originals) > 1700
    assert len(found) >= 0.995 * len(originals)


def test_sample_books_give_few_sentences_that_nobody_wrote(sample):
    lines = (SAMPLE / "paraphrases" / "close.jsonl").read_text(encoding="utf-8").splitlines()
    originals = {json.loads(line)["original"] for line in lines}
    strange = [row["text"] for row in sample.sentences if row["text"] not in originals]
    assert len(strange) <= 0.005 * len(sample.sentences), strange[:5]


def test_sample_sentences_carry_no_noise(sample):
    noise = re.compile(r"\[\d|\(see|\(Fig|\*\*|<\||</|&\w+;|[\ufb00-\ufb06\u00ad]|- [a-z]+tion\b|\s{2}")
    assert [row["text"] for row in sample.sentences if noise.search(row["text"])] == []


def test_every_sample_book_and_section_is_represented(sample):
    assert len(sample.books) == 7
    assert all(counts["sentences"] > 200 for counts in sample.books.values())
    assert all(row["section"] for row in sample.sentences)


NEAR = (
    "In constrictive pericarditis the rigid pericardium holds the total volume of the heart constant, so that the "
    "filling of one ventricle comes at the cost of the other and the septum bounces with breathing"
)


def near(books, later, **options):
    corpus = build_corpus(books(a=f"{NEAR}.", b=later), **LIMITS, near_duplicate_jaccard=0.9, **options)
    return [row["text"] for row in corpus.sentences], corpus


def test_near_duplicate_that_states_the_same_is_left_out_and_its_book_kept(books):
    texts, corpus = near(books, f"{NEAR} cycle.\n\nAnother sentence stands here.")
    assert texts == [f"{NEAR}.", "Another sentence stands here."]
    assert corpus.sentences[0]["sources"] == ["a", "b"]
    (rejected,) = corpus.rejected
    assert (rejected["reason"], rejected["kept"]) == ("sentence_near_duplicate", corpus.sentences[0]["id"])
    assert corpus.aliases == {rejected["row"]["id"]: corpus.sentences[0]["id"]}
    assert (corpus.books["b"]["sentences"], corpus.books["b"]["near_duplicates"]) == (1, 1)


@pytest.mark.parametrize("ending", ["not", "2", "left", "increases"])
def test_near_duplicate_that_states_something_else_is_kept(books, ending):
    assert len(near(books, f"{NEAR} {ending}.")[0]) == 2


def test_none_keeps_near_duplicates(books):
    corpus = build_corpus(books(a=f"{NEAR}.", b=f"{NEAR} cycle."), **LIMITS, near_duplicate_jaccard=None)
    assert len(corpus.sentences) == 2


def test_book_of_several_windows_gives_the_same_from_one_process_and_from_two(books):
    chapters = "".join(
        f"# Chapter {number}\n\n" + " ".join(f"Vessel {number} {i} carries blood to region {i}." for i in range(900))
        + "\n\n"
        for number in range(120)
    )  # fmt: skip
    path = books(long=chapters)
    assert len(chapters) > 2 * 2_000_000
    one, two = (build_corpus(path, **LIMITS, num_proc=n) for n in (1, 2))
    assert one == two
    assert len(one.sentences) == 120 * 900
    wrong = [row for row in one.sentences if row["section"].split()[1] != row["text"].split()[1]]
    assert wrong == []  # a section goes on from one window to the next


def test_pages_that_gave_no_text_are_listed(tmp_path):
    scan = fpdf.FPDF()
    scan.set_font("helvetica", size=12)
    scan.add_page()
    scan.multi_cell(0, text="The mitral valve has two leaflets. It closes in every systole.")
    scan.add_page()
    scan.rect(20, 20, 100, 100, style="F")
    scan.add_page()
    scan.output(str(tmp_path / "scan.pdf"))
    corpus = build_corpus([tmp_path / "scan.pdf"], **LIMITS, min_page_characters=25)
    assert [row["text"] for row in corpus.sentences] == [
        "The mitral valve has two leaflets.",
        "It closes in every systole.",
    ]
    (failed,) = corpus.failed_pages
    assert failed["file"].endswith("scan.pdf")
    assert failed["page"] == 2
    assert "merge.ocr.engine" in failed["reason"]
    counts = corpus.books["scan"]
    assert (counts["pages"], counts["pages_failed"], counts["pages_blank"]) == (3, 1, 1)
