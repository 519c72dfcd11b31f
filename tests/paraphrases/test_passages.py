import json

import pytest
from chat_server import ChatServer, answer, error

from cardioembed.errors import UserError
from cardioembed.paraphrases.generation.passages import GROUNDED_SHARE, grounded_share, parse_objects, read_pairs
from cardioembed.paraphrases.generation.run import Generator, run_generators
from cardioembed.paraphrases.generation.units import Unit, units_of_books, units_of_notes
from cardioembed.records import normalise, read_jsonl, text_id

NOTE = (
    "A woman of 78 years came with breathlessness on climbing stairs and one faint. Echocardiography showed a "
    "calcified aortic valve with a mean gradient of 48 mmHg and a preserved ejection fraction of 60%. There was no "
    "coronary stenosis at angiography. The heart team advised transcatheter valve implantation by the femoral route. "
    "Aspirin 100 mg daily was started and echocardiography is due after 30 days."
)
UNIT = Unit("u1", NOTE, "clinic", "", ("s1", "s2"))
GOOD = {
    "query": "calcified aortic valve with syncope",
    "type": "keyword",
    "passage": "A calcified aortic valve with a mean gradient of 48 mmHg lay behind the breathlessness and the faint. "
    "The ejection fraction was preserved at 60%.",
    "relevance": 0.9,
}
SECOND = {
    "query": "How was the valve replaced in this elderly patient?",
    "type": "natural_language",
    "passage": "The heart team advised implantation of a transcatheter valve by the femoral route. Angiography had "
    "shown no coronary stenosis.",
    "relevance": 1,
}
THIRD = {
    "query": "follow-up after TAVI",
    "type": "treatment",
    "passage": "Aspirin 100 mg daily is given after the valve implantation. Echocardiography follows after 30 days.",
    "relevance": 0.7,
}


def rows_of(texts, source="book", section="One"):
    return [{"id": text_id(normalise(text)), "text": text, "source": source, "section": section} for text in texts]


def test_a_section_is_a_unit_and_another_section_or_book_begins_a_new_one():
    first = rows_of(["Rest lowers the demand.", "Nitrates widen the veins."])
    second = rows_of(["Ivabradine slows the sinus node."], section="Two")
    third = rows_of(["The pericardium has two layers."], source="atlas", section="Two")
    units = units_of_books([*first, *second, *third], 400)
    assert [(unit.text, unit.source, unit.section) for unit in units] == [
        ("Rest lowers the demand. Nitrates widen the veins.", "book", "One"),
        ("Ivabradine slows the sinus node.", "book", "Two"),
        ("The pericardium has two layers.", "atlas", "Two"),
    ]
    assert [unit.sentence_ids for unit in units] == [
        tuple(row["id"] for row in rows) for rows in (first, second, third)
    ]
    assert len({unit.id for unit in units}) == 3


@pytest.mark.parametrize(("count", "parts"), [(10, [10]), (11, [6, 5]), (21, [7, 7, 7]), (25, [9, 9, 7])])
def test_a_long_section_is_cut_at_sentences_into_parts_without_a_short_rest(count, parts):
    rows = rows_of([f"Lead number {n} records the vector from its own angle." for n in range(count)])
    units = units_of_books(rows, 100)
    assert [len(unit.sentence_ids) for unit in units] == parts
    assert all(len(unit.text.split()) <= 100 for unit in units)
    assert [one for unit in units for one in unit.sentence_ids] == [row["id"] for row in rows]
    assert " ".join(unit.text for unit in units) == " ".join(row["text"] for row in rows)


def test_notes_come_from_text_and_jsonl_files_with_the_ids_of_their_sentences(tmp_path):
    (tmp_path / "a.txt").write_text("Medication:\nAspirin 100 mg.\n\nNo allergies are known. He feels well.", "utf-8")
    (tmp_path / "b.md").write_text("The pulse is regular.", "utf-8")
    lines = [
        {"text": "The ECG shows sinus rhythm.", "source": "ward", "section": "ECG"},
        {"text": "The pulse is regular."},
    ]
    (tmp_path / "c.jsonl").write_text("\n".join(map(json.dumps, lines)), "utf-8")
    (tmp_path / "d.csv").write_text("not,a,note", "utf-8")
    units = units_of_notes([str(tmp_path)], 400)
    assert [(unit.text, unit.source, unit.section) for unit in units] == [
        ("Medication:\nAspirin 100 mg.\n\nNo allergies are known. He feels well.", "a", ""),
        ("The pulse is regular.", "b", ""),
        ("The ECG shows sinus rhythm.", "ward", "ECG"),
    ]
    assert units[1].sentence_ids == (text_id(normalise("The pulse is regular.")),)
    assert len(units[0].sentence_ids) == 4
    assert units_of_notes([str(tmp_path / "*.md"), str(tmp_path / "b.md")], 400) == [units[1]]


def test_a_long_note_is_cut_and_nothing_of_it_is_lost(tmp_path):
    note = "\n".join(f"Day {n}: The fever has gone. The murmur is unchanged at the apex." for n in range(1, 31))
    (tmp_path / "long.txt").write_text(note, "utf-8")
    units = units_of_notes([str(tmp_path / "long.txt")], 100)
    assert len(units) > 3
    assert all(len(unit.text.split()) <= 100 for unit in units)
    assert " ".join(unit.text for unit in units).split() == note.split()


def test_notes_that_are_not_there_or_hold_nothing_are_said(tmp_path):
    with pytest.raises(UserError, match=r"no \.txt, \.md or \.jsonl file matches .*none"):
        units_of_notes([str(tmp_path / "none")], 400)
    (tmp_path / "empty.txt").write_text(" \n")
    with pytest.raises(UserError, match="hold no text"):
        units_of_notes([str(tmp_path)], 400)
    (tmp_path / "latin.txt").write_bytes("Ménière".encode("latin-1"))
    with pytest.raises(UserError, match=r"latin\.txt is not UTF-8"):
        units_of_notes([str(tmp_path)], 400)


PLAIN = json.dumps([GOOD, SECOND, THIRD], indent=1)
FORMS = {
    "strict": (PLAIN, []),
    "compact": (json.dumps([GOOD, SECOND, THIRD]), []),
    "fence": (f"```json\n{PLAIN}\n```", ["text_around"]),
    "remarks": (
        f"Here are the pairs:\n{PLAIN}\nI hope that helps [as asked].".replace("[as asked]", ""),
        ["text_around"],
    ),
    "comma": (PLAIN.replace("\n }\n]", ",\n },\n]").replace(",\n }", "\n }"), ["trailing_comma"]),
    "inner comma": (PLAIN.replace("0.9\n }", "0.9,\n }"), ["trailing_comma"]),
    "line breaks": (PLAIN.replace("faint. The", "faint.\nThe"), ["control_characters"]),
    "wrapped": (json.dumps({"pairs": [GOOD, SECOND, THIRD]}), ["wrapped"]),
    "objects in a row": ("\n".join(map(json.dumps, [GOOD, SECOND, THIRD])), ["cut_off"]),
    "several": (f"```\n{PLAIN.replace(chr(10) + ']', ',' + chr(10) + ']')}\n```", ["text_around", "trailing_comma"]),
}


@pytest.mark.parametrize("form", FORMS)
def test_json_is_read_strictly_or_repaired_in_a_stated_way(form):
    text, repairs = FORMS[form]
    elements, found = parse_objects(text)
    assert found == repairs
    assert [normalise(one["passage"]) for one in elements] == [normalise(p["passage"]) for p in (GOOD, SECOND, THIRD)]


def test_a_single_object_is_a_list_of_one():
    assert parse_objects(json.dumps(GOOD)) == ([GOOD], ["single_object"])
    assert parse_objects(f"```json\n{json.dumps(GOOD)}\n```") == ([GOOD], ["text_around", "single_object"])


@pytest.mark.parametrize("length", range(len(json.dumps([GOOD, SECOND])), 0, -37))
def test_of_a_list_that_breaks_off_every_complete_object_is_kept(length):
    text = json.dumps([GOOD, SECOND])[:length]
    complete = [one for one in (GOOD, SECOND) if json.dumps(one) in text]
    elements, repairs = parse_objects(text)
    assert elements == complete
    if complete and length < len(json.dumps([GOOD, SECOND])):
        assert repairs == ["cut_off"]


def test_commas_and_brackets_inside_texts_stay():
    pair = {**GOOD, "passage": 'Values [1.2, ] and {a,} stand, he said "so, }" there, ]'}
    assert parse_objects(f"Note:\n{json.dumps([pair])},")[0] == [pair]


@pytest.mark.parametrize("text", ["I cannot do that.", "", "[1, 2", "null", "3"])
def test_an_answer_without_objects_is_unparsable(text):
    reading = read_pairs(text, UNIT, 0.5)
    assert reading.pairs == []
    assert [row["reason"] for row in reading.refused] == ["unparsable"]


REFUSED = {
    "not_an_object": "a text",
    "missing_key": {key: value for key, value in GOOD.items() if key != "passage"},
    "bad_type": {**GOOD, "type": "poem"},
    "bad_relevance": {**GOOD, "relevance": 7},
    "empty": {**GOOD, "passage": " . "},
    "below_min_relevance": {**GOOD, "relevance": 0.49},
    "too_short": {**GOOD, "passage": "The aortic valve is calcified."},
    "copy": {**GOOD, "query": GOOD["passage"]},
    "number_not_in_unit": {**GOOD, "passage": GOOD["passage"].replace("48", "84")},
    "not_grounded": {
        **GOOD,
        "passage": "Amiodarone may injure the thyroid, lungs and liver, so hormone levels are checked twice a year.",
    },
    "duplicate": {**SECOND, "query": "Calcified aortic valve, with syncope"},
}


@pytest.mark.parametrize("reason", REFUSED)
def test_each_refusal_has_its_reason_and_keeps_the_pair(reason):
    reading = read_pairs(json.dumps([GOOD, REFUSED[reason], THIRD]), UNIT, 0.5)
    assert [pair["query"] for pair in reading.pairs] == [GOOD["query"], THIRD["query"]]
    (row,) = reading.refused
    assert (row["reason"], row["pair"]) == (reason, REFUSED[reason])
    assert row["detail"]


@pytest.mark.parametrize(
    ("written", "kept"),
    [("Keyword", "keyword"), ("Natural Language", "natural_language"), ("natural-language", "natural_language"),
     ("follow-up", "treatment"), ("treatment/procedure/follow-up", "treatment"), ("Procedure", "treatment")],
)  # fmt: skip
def test_types_are_known_in_the_spellings_that_models_use(written, kept):
    (pair,) = read_pairs(json.dumps([{**GOOD, "type": written, "relevance": "0.8"}]), UNIT, 0.5).pairs
    assert (pair["type"], pair["relevance"]) == (kept, 0.8)


def test_grounding_is_the_share_of_content_words_endings_aside():
    assert grounded_share("Calcified valves and gradients", "a calcification of the valve; the gradient") == 1.0
    assert grounded_share("Warfarin and heparin", "heparin was not given") == 0.5
    assert grounded_share(SECOND["passage"], NOTE) > 2 * GROUNDED_SHARE


def run(server, folder, notes, **options):
    generator = {"name": "pairs", "model": "tiny", "prompt": "passages", "base_url": server.base_url, "max_retries": 0}
    return run_generators(
        [Generator(**generator | options)], [], folder=folder, seed=42, notes=[str(notes)], min_relevance=0.5
    )[0]


@pytest.fixture
def notes(tmp_path):
    folder = tmp_path / "notes"
    folder.mkdir()
    for number in range(4):
        (folder / f"{number}.txt").write_text(f"{NOTE} This is visit {number}.", "utf-8")
    return folder


def test_a_units_pairs_are_rows_and_its_refused_ones_stay_in_the_failed_file(tmp_path, notes):
    reply = answer(f"```json\n{json.dumps([GOOD, SECOND, REFUSED['bad_type'], REFUSED['not_grounded'], THIRD])}\n```")
    with ChatServer(lambda text, before: reply) as server:
        counts = run(server, tmp_path, notes)
        again = run(server, tmp_path, notes)
    assert (counts.wanted, counts.done, counts.rows, counts.asked) == (4, 4, 12, 4)
    assert counts.refused == {"bad_type": 4, "not_grounded": 4}
    assert counts.repaired == {"text_around": 4}
    assert (counts.prompt_tokens, counts.completion_tokens) == (44, 28)
    assert (again.asked, again.rows, again.refused, again.prompt_tokens) == (0, 12, counts.refused, 44)
    assert json.loads(json.dumps(again.statistics())) == counts.statistics()
    assert counts.statistics()["refused"] == {"bad_type": 4, "not_grounded": 4}
    row = read_jsonl(counts.path)[0]
    unit = next(unit for unit in units_of_notes([str(notes)], 400) if unit.id == row["unit"])
    assert row == {
        "original": GOOD["query"], "paraphrase": GOOD["passage"], "kind": "passage", "query_type": "keyword",
        "relevance": 0.9, "unit": unit.id, "sentence_ids": list(unit.sentence_ids), "source": unit.source,
        "section": "", "pairs": 3, "repairs": ["text_around"], "model": "tiny", "generator": "pairs",
        "prompt": "passages/1", "finish_reason": "stop", "prompt_tokens": 11, "completion_tokens": 7,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (answer("I would rather talk."), "unparsable"),
        (answer(json.dumps([REFUSED["copy"]])), "no_pair"),
        (answer("no", "content_filter"), "refused"),
        (error(400, "too long"), "bad_request"),
    ],
)
def test_a_unit_without_a_pair_is_asked_again_in_the_next_run(tmp_path, notes, reply, reason):
    healed = []

    def respond(text, before):
        return reply if "visit 2" in text and not healed else answer(json.dumps([GOOD, THIRD]))

    with ChatServer(respond) as server:
        counts = run(server, tmp_path, notes)
        assert (counts.done, counts.failed) == (3, {reason: 1})
        healed.append(True)
        counts = run(server, tmp_path, notes)
    assert (counts.asked, counts.done, counts.rows, counts.failed, counts.refused) == (1, 4, 8, {}, {})


def test_an_answer_that_was_cut_off_counts_with_its_complete_pairs(tmp_path, notes):
    text = json.dumps([GOOD, SECOND, THIRD])[:-60]
    with ChatServer(lambda text_, before: answer(text, "length")) as server:
        counts = run(server, tmp_path, notes)
    assert (counts.rows, counts.repaired) == (8, {"cut_off": 4})


def test_a_unit_of_which_a_crash_left_a_part_is_asked_again_whole(tmp_path, notes):
    with ChatServer(lambda text, before: answer(json.dumps([GOOD, SECOND, THIRD]))) as server:
        counts = run(server, tmp_path, notes, max_concurrency=1)
        whole = counts.path.read_bytes()
        for left in (
            whole[:-10],
            b"".join(whole.splitlines(keepends=True)[:-1]),
            b"".join(whole.splitlines(True)[:-2]),
        ):
            counts.path.write_bytes(left)
            assert run(server, tmp_path, notes).asked == 1
            assert counts.path.read_bytes() == whole
