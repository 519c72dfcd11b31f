import json
from pathlib import Path

import numpy
import pytest

from cardioembed.errors import UserError
from cardioembed.records import (
    BadLine,
    atomic_folder,
    atomic_open,
    atomic_path,
    library_versions,
    normalise,
    parse_jsonl,
    read_json,
    read_jsonl,
    sha256,
    text_id,
    write_json,
    write_jsonl,
)


@pytest.fixture
def jsonl(tmp_path):
    def write(content: bytes):
        path = tmp_path / "rows.jsonl"
        path.write_bytes(content)
        return path

    return write


class StopHereError(Exception):
    pass


def fail_in(context, write):
    with context as target:
        write(target)
        raise StopHereError


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_byte_order_mark_windows_line_ends_and_blank_lines_are_fine(jsonl):
    path = jsonl(b'\xef\xbb\xbf{"a": 1}\r\n\r\n   \n{"a": "\xc3\xa9"}\r\n\n')
    assert list(parse_jsonl(path)) == [(1, {"a": 1}), (4, {"a": "é"})]


def test_last_line_without_a_line_end_is_read(jsonl):
    assert read_jsonl(jsonl(b'{"a": 1}\n{"a": 2}')) == [{"a": 1}, {"a": 2}]


def test_empty_file_has_no_rows(jsonl):
    assert read_jsonl(jsonl(b"")) == []


@pytest.mark.parametrize(
    ("line", "reason", "detail"),
    [
        ('{"t": "Ménière"}'.encode("latin-1"), "not_utf8", "byte 9 is not UTF-8 (Latin-1?); convert the file: iconv"),
        (b'{"t": "cut', "broken_json", "one JSON object a line is expected"),
        (b"{'t': 1}", "broken_json", "Expecting property name"),
        (b'{"t": 1} {"t": 2}', "broken_json", "Extra data"),
        (b"[1, 2]", "not_an_object", "a JSON list; one object a line is expected"),
        (b'"text"', "not_an_object", "a JSON str"),
        (b"null", "not_an_object", "a JSON NoneType"),
        (b"[" * 200_000, "broken_json", "recursion"),
    ],
    ids=["latin1", "cut", "quotes", "two-objects", "list", "string", "null", "deep"],
)
def test_bad_line_is_kept_with_reason_and_the_rest_is_read(jsonl, line, reason, detail):
    rows = list(parse_jsonl(jsonl(b'{"a": 1}\n' + line + b'\n{"a": 2}\n')))
    assert [rows[0], rows[2]] == [(1, {"a": 1}), (3, {"a": 2})]
    bad = rows[1][1]
    assert isinstance(bad, BadLine)
    assert (bad.line, bad.reason) == (2, reason)
    assert detail in bad.detail
    assert bad.raw == line.decode("latin-1")


def test_number_of_too_many_digits_is_a_bad_line(jsonl):
    ((_, bad),) = parse_jsonl(jsonl(b'{"a": ' + b"1" * 5000 + b"}\n"))
    assert bad.reason == "broken_json"


def test_strict_reading_names_file_and_line_of_the_first_bad_line(jsonl):
    with pytest.raises(UserError, match=r"rows\.jsonl, line 2: .*Latin-1.*iconv"):
        read_jsonl(jsonl('{"t": "a"}\n{"t": "Ménière"}\n'.encode("latin-1")))
    with pytest.raises(UserError, match=r"rows\.jsonl, line 3: .*one JSON object a line"):
        read_jsonl(jsonl(b'{"t": 1}\n\n{"t": \n'))


def test_missing_key_is_named_with_those_found(jsonl):
    path = jsonl(b'{"id": 1, "text": "x"}\n{"id": 2, "txt": "y"}\n')
    with pytest.raises(UserError, match=r"rows\.jsonl, line 2: key 'text' is missing; found: id, txt"):
        read_jsonl(path, required=("id", "text"))
    with pytest.raises(UserError, match=r"line 1: key 'id' is missing; found: nothing"):
        read_jsonl(jsonl(b"{}\n"), required=("id",))


def test_missing_file_and_folder_cannot_be_read(tmp_path):
    with pytest.raises(UserError, match=r"none\.jsonl cannot be read: No such file"):
        read_jsonl(tmp_path / "none.jsonl")
    with pytest.raises(UserError, match=r"cannot be read: Is a directory"):
        list(parse_jsonl(tmp_path))


def test_written_rows_read_back_unchanged_and_as_utf8(tmp_path):
    path = tmp_path / "deep" / "rows.jsonl"
    rows = [{"t": "Ménière ≤35 %", "n": [1, None]}, {"t": "line\nbreak\u2028and\u0085more\r"}]
    assert write_jsonl(path, rows) == 2
    assert read_jsonl(path) == rows
    assert "Ménière ≤35 %" in path.read_text(encoding="utf-8")
    assert path.read_bytes().count(b"\n") == 2
    assert b"\r" not in path.read_bytes()


def test_nothing_stands_under_the_final_name_until_the_block_ends(tmp_path):
    path = tmp_path / "out.txt"
    with atomic_open(path) as stream:
        stream.write("whole")
        stream.flush()
        assert not path.exists()
    assert path.read_text() == "whole"
    assert names(tmp_path) == ["out.txt"]


def test_failed_text_file_keeps_the_old_content_and_leaves_nothing(tmp_path):
    path = tmp_path / "out.txt"
    path.write_text("old")
    with pytest.raises(StopHereError):
        fail_in(atomic_open(path), lambda stream: stream.write("half"))
    assert path.read_text() == "old"
    assert names(tmp_path) == ["out.txt"]


def test_failed_first_write_leaves_an_empty_folder(tmp_path):
    with pytest.raises(StopHereError):
        fail_in(atomic_path(tmp_path / "out.bin"), lambda temporary: temporary.write_bytes(b"half"))
    assert names(tmp_path) == []


def test_rows_that_fail_midway_keep_the_old_file(tmp_path):
    path = tmp_path / "rows.jsonl"
    write_jsonl(path, [{"a": 1}])

    def rows():
        yield {"a": 2}
        raise StopHereError

    with pytest.raises(StopHereError):
        write_jsonl(path, rows())
    assert read_jsonl(path) == [{"a": 1}]
    assert names(tmp_path) == ["rows.jsonl"]


def test_failed_folder_keeps_the_old_one_whole(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "weights").write_text("old")
    with pytest.raises(StopHereError):
        fail_in(atomic_folder(folder), lambda temporary: (temporary / "weights").write_text("half"))
    assert (folder / "weights").read_text() == "old"
    assert names(tmp_path) == ["model"]


def test_failed_first_folder_leaves_nothing(tmp_path):
    with pytest.raises(StopHereError):
        fail_in(atomic_folder(tmp_path / "model"), lambda temporary: (temporary / "weights").write_text("half"))
    assert names(tmp_path) == []


def test_new_folder_takes_the_place_of_the_old_one_without_its_files(tmp_path):
    folder = tmp_path / "deep" / "model"
    for name in ("first", "second"):
        with atomic_folder(folder) as temporary:
            (temporary / name).write_text(name)
    assert names(folder) == ["second"]
    assert names(tmp_path / "deep") == ["model"]


def test_a_link_and_the_working_folder_stand_for_the_folder_behind_them(tmp_path, monkeypatch):
    folder, link = tmp_path / "model", tmp_path / "link"
    folder.mkdir()
    link.symlink_to(folder)
    with atomic_folder(link) as temporary:
        (temporary / "first").write_text("first")
    assert link.is_symlink()
    assert names(folder) == ["first"]
    monkeypatch.chdir(folder)
    with atomic_folder(Path()) as temporary:
        (temporary / "second").write_text("second")
    assert names(folder) == ["second"]
    assert names(tmp_path) == ["link", "model"]


def test_json_with_nan_is_refused_and_the_old_file_kept(tmp_path):
    path = tmp_path / "metrics.json"
    write_json(path, {"score": 0.5, "name": "é"})
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(path, {"score": float("nan")})
    assert read_json(path) == {"score": 0.5, "name": "é"}


def test_unreadable_json_says_what_to_do(tmp_path):
    with pytest.raises(UserError, match=r"none\.json cannot be read: No such file"):
        read_json(tmp_path / "none.json")
    path = tmp_path / "cut.json"
    path.write_text('{"stage": "01", ')
    with pytest.raises(UserError, match=r"cut\.json is not valid JSON .*re-run the stage that wrote it"):
        read_json(path)


def test_hash_of_a_file_is_plain_sha256(tmp_path):
    path = tmp_path / "abc"
    path.write_bytes(b"abc")
    assert sha256(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_hash_of_a_folder_covers_names_and_bytes(tmp_path):
    for name, files in {
        "one": {"a": "1", "b/c": "2"},
        "same": {"b/c": "2", "a": "1"},
        "renamed": {"a": "1", "b/d": "2"},
        "changed": {"a": "1", "b/c": "3"},
    }.items():
        for file, content in files.items():
            (tmp_path / name / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name / file).write_text(content)
    hashes = {name: sha256(tmp_path / name) for name in ("one", "same", "renamed", "changed")}
    assert hashes["one"] == hashes["same"]
    assert len(set(hashes.values())) == 3


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("  The  Heart\nfails. ", "the heart fails"),
        ("LVEF <35 %", "lvef <35%"),
        ("LVEF >35%", "lvef >35%"),
        ("a dose of 2.5 mg", "a dose of 2.5 mg"),
        ("Beta-blockers, e.g. bisoprolol!", "beta blockers e g bisoprolol"),
        ("ﬁbrillation at 120\u00a0ms", "fibrillation at 120 ms"),
        ("from -30 to +90 degrees", "from -30 to +90 degrees"),
        ("120/80 mm Hg (supine)", "120/80 mm hg supine"),
        ("“Quoted” ‘words’", "quoted words"),
        ("Straße", "strasse"),
    ],
)
def test_normalised_form(text, expected):
    assert normalise(text) == expected


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("An ejection fraction <35%.", "An ejection fraction >35%."),
        ("An ejection fraction ≤35%.", "An ejection fraction ≥35%."),
        ("Give 2.5 mg.", "Give 25 mg."),
        ("Give 2.5 mg.", "Give 2 5 mg."),
        ("The axis is -30 degrees.", "The axis is 30 degrees."),
        ("A fall of 10%.", "A fall of 10."),
        ("The ratio is 3/4.", "The ratio is 34."),
    ],
)
def test_clinically_different_texts_stay_apart(first, second):
    assert normalise(first) != normalise(second)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("LVEF <35%", "LVEF <35 %."),
        ("LVEF <35%", "LVEF < 35%"),
        ("Beta-blockers help.", "beta blockers help"),
        ("caf\u00e9 coronary", "cafe\u0301 coronary"),
    ],
)
def test_equal_texts_meet(first, second):
    assert normalise(first) == normalise(second)


def test_text_id_is_stable_and_keeps_parts_apart():
    assert text_id("abc") == "ba7816bf8f01cfea"
    assert text_id("ab", "c") != text_id("a", "bc") != text_id("abc")


def test_library_versions_name_what_is_installed():
    versions = library_versions()
    assert versions["numpy"] == numpy.__version__
    assert {"python", "sentencex"} <= set(versions)
    assert json.dumps(versions)
