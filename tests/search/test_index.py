import csv
import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import faiss
import numpy as np
import pytest
from safetensors.numpy import load_file
from texts import SENTENCES

from cardioembed.embedder.encoder import load_embedder
from cardioembed.errors import UserError
from cardioembed.search import building
from cardioembed.search import index as index_module
from cardioembed.search.building import add_to_index, build_index, write_index
from cardioembed.search.index import KINDS, Index
from cardioembed.search.texts import distinct, list_texts, read_texts

MODEL = {"identity": "model", "place": "model", "anchor_prompt": None, "positive_prompt": None}
ROWS = [
    {"id": f"s{number}", "text": text, "book": "esc" if number % 2 else "aha", "year": 2000 + number}
    for number, text in enumerate(SENTENCES)
]


@pytest.fixture(scope="module")
def embedder(tiny_bert):
    return load_embedder(str(tiny_bert), max_length=64, device="cpu")


@pytest.fixture(scope="module")
def vectors():
    """3,000 unit vectors in 60 clusters on a 12-dimensional sheet, the last 40 of them queries."""
    rng = np.random.default_rng(5)
    latent = rng.normal(size=(60, 12))[rng.integers(60, size=3040)] + 0.4 * rng.normal(size=(3040, 12))
    found = np.tanh(latent @ rng.normal(size=(12, 48)) / 3).astype(np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def save(folder, vectors, kind="exact", ids=None):
    """An index of given vectors; row n has the metadata {"third": n % 3}."""
    names = ids or [f"v{number:05}" for number in range(len(vectors))]
    rows = [{"id": name, "text": f"text {name}", "metadata": {"third": n % 3}} for n, name in enumerate(names)]
    write_index(folder, rows, [vectors[:7], vectors[7:]], kind=kind, dimension=vectors.shape[1], model=MODEL)
    return Index.open(folder)


def naive(vectors, query, top_k, allowed=lambda position: True):
    cosines = vectors.astype(np.float64) @ query.astype(np.float64)
    positions = [position for position in range(len(vectors)) if allowed(position)]
    order = sorted(positions, key=lambda position: -cosines[position])[:top_k]
    return [f"v{position:05}" for position in order], cosines[order]


def damage(folder, name, change):
    path = folder / name
    path.write_bytes(change(path.read_bytes()))


def test_exact_hits_are_those_of_a_naive_search(tmp_path, vectors):
    index = save(tmp_path / "index", vectors[:3000])
    for condition, allowed in [(None, lambda n: True), ({"third": 1}, lambda n: n % 3 == 1)]:
        for query, hits in zip(vectors[3000:], index.search_vectors(vectors[3000:], 10, condition), strict=True):
            expected, cosines = naive(vectors[:3000], query, 10, allowed)
            assert [hit.id for hit in hits] == expected
            assert np.allclose([hit.score for hit in hits], cosines, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_finds_what_the_exact_one_finds(tmp_path, vectors, kind):
    index = save(tmp_path / "index", vectors[:3000], kind)
    found = index.search_vectors(vectors[3000:], np.int64(10))  # numpy's whole numbers are no int
    shared = [len({hit.id for hit in hits} & set(naive(vectors[:3000], query, 10)[0]))
              for query, hits in zip(vectors[3000:], found, strict=True)]  # fmt: skip
    assert np.mean(shared) / 10 >= (1 if kind == "exact" else 0.97)
    exact = vectors[:3000].astype(np.float64) @ vectors[3000].astype(np.float64)
    assert all(abs(hit.score - exact[int(hit.id[1:])]) < 1e-6 for hit in found[0])


@pytest.mark.parametrize("few", [0, 20_000])
@pytest.mark.parametrize("kind", ["hnsw", "int8", "binary"])
def test_a_filter_holds_and_fills_with_approximate_kinds(tmp_path, vectors, kind, few, monkeypatch):
    monkeypatch.setattr(index_module, "_FEW", few)  # 0: faiss is asked however few pass
    index = save(tmp_path / "index", vectors[:3000], kind)
    cases = [({"third": 2}, lambda n: n % 3 == 2), (lambda row: row["id"] < "v00015", lambda n: n < 15)]
    for condition, allowed in cases:
        found = index.search_vectors(vectors[3000:], 20, condition)
        expected = [naive(vectors[:3000], query, 20, allowed)[0] for query in vectors[3000:]]
        assert all(allowed(int(hit.id[1:])) for hits in found for hit in hits)
        assert [len(hits) for hits in found] == [len(ids) for ids in expected]
        shared = [
            len({hit.id for hit in hits} & set(ids)) / len(ids) for hits, ids in zip(found, expected, strict=True)
        ]
        assert np.mean(shared) >= (1 if few else 0.97)


def test_the_walk_goes_on_for_longer_the_more_a_filter_hides(tmp_path, vectors):
    index = save(tmp_path / "index", vectors[:3000], "hnsw")
    positions = np.arange(0, 3000, 30)
    for query, found in zip(vectors[3000:], index.approximate.candidates(vectors[3000:], 10, positions), strict=True):
        expected = positions[np.argsort(-(vectors[positions] @ query))[:10]]
        assert len(set(found) & set(expected)) >= 9


def test_a_filter_that_hides_all_that_is_near_is_filled_by_exact_search(tmp_path, monkeypatch):
    monkeypatch.setattr(index_module, "_FEW", 0)
    # Two opposite crowds, the second hidden behind the first.
    noise = np.random.default_rng(5).normal(size=(10_000, 48)).astype(np.float32)
    apart = 0.3 * noise / np.linalg.norm(noise, axis=1, keepdims=True)
    apart[:, 0] += np.repeat([1, -1], 5000)
    apart /= np.linalg.norm(apart, axis=1, keepdims=True)
    index, far, queries = save(tmp_path / "index", apart, "hnsw"), np.arange(5000, 10_000), apart[:30]
    assert min(map(len, index.approximate.candidates(queries, 10, far))) < 10  # or the test shows nothing
    assert [len(hits) for hits in index.nearest(queries, 10, far)] == [10] * 30


@pytest.mark.parametrize("kind", KINDS)
def test_equal_scores_are_in_the_order_of_ids_and_do_not_depend_on_the_batch(tmp_path, vectors, kind):
    alike = np.repeat(vectors[:40], 25, axis=0)
    ids = [f"v{number:05}" for number in np.random.default_rng(0).permutation(1000)]
    index = save(tmp_path / "index", alike, kind, ids)
    together = index.search_vectors(vectors[:5], 10)
    assert together == [index.search_vectors(query, 10) for query in vectors[:5]]
    if kind == "exact":
        assert [[hit.id for hit in hits] for hits in together] == [
            sorted(ids[25 * n : 25 * n + 25])[:10] for n in range(5)
        ]
    assert all([hit.id for hit in hits] == sorted(hit.id for hit in hits) for hits in together)


@pytest.mark.parametrize("kind", KINDS)
def test_one_text_and_more_hits_than_texts(tmp_path, vectors, kind):
    index = save(tmp_path / "index", vectors[:1], kind)
    assert [hit.id for hit in index.search_vectors(vectors[0], 100)] == ["v00000"]
    assert index.search_vectors(vectors[0], 5, {"third": 1}) == []
    assert index.search_vectors(vectors[:0], 5) == []


def test_vectors_are_those_of_the_library_and_mapped_from_disk(tmp_path, vectors):
    index = save(tmp_path / "index", vectors[:100])
    (stored,) = load_file(tmp_path / "index" / "vectors.safetensors").values()
    assert np.array_equal(stored, vectors[:100])
    assert np.array_equal(index.vectors, stored)
    assert isinstance(index.vectors.base, np.memmap)
    assert not index.vectors.flags.writeable


def test_texts_are_found_by_meaning_of_the_model_with_its_prompts(tmp_path, tiny_qwen3):
    embedder = load_embedder(str(tiny_qwen3), max_length=64, device="cpu")
    assert embedder.recipe.anchor_prompt == "query"
    index = build_index(embedder, ROWS, tmp_path / "index").index
    queries = ["Loop diuretics", "thrombus"]
    expected = embedder.encode(queries, prompt_name="query") @ embedder.encode(SENTENCES, prompt_name="document").T
    for hits, cosines in zip(index.search(embedder, queries, top_k=6), expected, strict=True):
        assert [hit.text for hit in hits] == [SENTENCES[n] for n in np.argsort(-cosines)]
        assert np.allclose([hit.score for hit in hits], np.sort(cosines)[::-1], atol=1e-5)
    assert index.search(embedder, queries[0], 6) == index.search(embedder, queries, 6)[0]
    assert hits[0].metadata.keys() == {"book", "year"}


@pytest.mark.parametrize("kind", KINDS)
def test_adding_gives_the_index_that_building_at_once_gives(tmp_path, embedder, kind):
    texts = [f"{first} {second}" for first in SENTENCES for second in SENTENCES]
    built = build_index(embedder, texts, tmp_path / "all", kind=kind).index
    before = build_index(embedder, texts[:20], tmp_path / "parts", kind=kind).index
    change = add_to_index(embedder, tmp_path / "parts", texts[15:])
    assert (change.added, change.replaced, change.unchanged) == (16, 0, 5)
    assert change.index.rows == built.rows
    assert np.allclose(change.index.vectors, built.vectors, atol=1e-6)
    for query in SENTENCES:
        expected = [hit.id for hit in built.search(embedder, query, 36)]
        assert [hit.id for hit in change.index.search(embedder, query, 36)] == expected
    assert len(before.search(embedder, SENTENCES[0], 36)) == 20  # what was open answers as before


@pytest.mark.parametrize("kind", KINDS)
def test_another_row_of_an_id_is_refused_or_replaces(tmp_path, embedder, kind):
    build_index(embedder, ROWS, tmp_path / "index", kind=kind)
    other = {"id": "s2", "text": "Amiodarone prolongs the QT interval.", "book": "esc"}
    before = {path.name: path.read_bytes() for path in (tmp_path / "index").iterdir()}
    with pytest.raises(UserError, match=r"1 ids stand for other texts.*'s2'.*--replace"):
        add_to_index(embedder, tmp_path / "index", [other, "A new text."])
    assert {path.name: path.read_bytes() for path in (tmp_path / "index").iterdir()} == before
    change = add_to_index(embedder, tmp_path / "index", [other, "A new text.", ROWS[0]], replace=True)
    assert (change.added, change.replaced, change.unchanged, len(change.index)) == (1, 1, 1, 7)
    assert [row["id"] for row in change.index.rows][:6] == ["s0", "s1", "s3", "s4", "s5", "s2"]
    if kind == "hnsw":
        graph = faiss.read_index(str(tmp_path / "index" / "hnsw.faiss"))
        assert np.array_equal(graph.reconstruct_n(0, 7), change.index.vectors)
    (hit,) = change.index.search(embedder, other["text"], 1)
    assert (hit.id, hit.metadata) == ("s2", {"book": "esc"})
    assert SENTENCES[2] not in [hit.text for hit in change.index.search(embedder, SENTENCES[2], 10)]


@pytest.mark.parametrize("moment", ["encode", "write_json", "replace"])
def test_a_crash_while_adding_leaves_the_index_as_it_was(tmp_path, embedder, moment, monkeypatch):
    build_index(embedder, ROWS, tmp_path / "index")
    before = {path.name: path.read_bytes() for path in (tmp_path / "index").iterdir()}

    def crash(*arguments, **options):
        raise KeyboardInterrupt

    if moment == "encode":
        monkeypatch.setattr(embedder, "encode", crash)
    else:
        monkeypatch.setattr(*((building, "write_json") if moment == "write_json" else (os, "replace")), crash)
    with pytest.raises(KeyboardInterrupt):
        add_to_index(embedder, tmp_path / "index", ["A new text."])
    monkeypatch.undo()
    assert {path.name: path.read_bytes() for path in (tmp_path / "index").iterdir()} == before
    assert list(tmp_path.iterdir()) == [tmp_path / "index"]
    assert add_to_index(embedder, tmp_path / "index", ["A new text."]).added == 1


def test_a_kill_between_the_two_renames_is_told(tmp_path, embedder):
    build_index(embedder, ROWS, tmp_path / "index")
    (tmp_path / "index").rename(tmp_path / ".index.123.old")
    with pytest.raises(UserError, match=r"interrupted.*\.index\.123\.old; rename"):
        Index.open(tmp_path / "index")


def test_two_programs_that_add_at_once_lose_nothing(tmp_path, embedder, monkeypatch):
    build_index(embedder, ROWS, tmp_path / "index")
    encode, own = embedder.encode, []

    def encode_while_another_adds(texts, **options):
        if not own:
            own.append(texts)
            add_to_index(embedder, tmp_path / "index", ["The other program's text."])
        return encode(texts, **options)

    monkeypatch.setattr(embedder, "encode", encode_while_another_adds)
    with pytest.raises(UserError, match="changed by another program meanwhile; run the same command again"):
        add_to_index(embedder, tmp_path / "index", ["Our text."])
    assert len(Index.open(tmp_path / "index")) == 7
    assert len(add_to_index(embedder, tmp_path / "index", ["Our text."]).index) == 8


def test_threads_get_the_hits_that_one_gets(tmp_path, vectors):
    for kind in KINDS:
        index = save(tmp_path / kind, vectors[:3000], kind)
        expected = [index.search_vectors(query, 5, {"third": n % 3}) for n, query in enumerate(vectors[3000:])]
        index = Index.open(tmp_path / kind)
        with ThreadPoolExecutor(8) as pool:
            jobs = [pool.submit(index.search_vectors, query, 5, {"third": n % 3})
                    for n, query in enumerate(vectors[3000:])]  # fmt: skip
            assert [job.result() for job in jobs] == expected


def test_another_model_or_dimension_is_refused(tmp_path, embedder, tiny_e5, vectors):
    index = build_index(embedder, ROWS, tmp_path / "index").index
    other = load_embedder(str(tiny_e5), max_length=64, device="cpu")
    with pytest.raises(UserError, match="built with another model"):
        index.search(other, "text")
    with pytest.raises(UserError, match="built with another model"):
        add_to_index(other, tmp_path / "index", ["A new text."])
    with pytest.raises(UserError, match=r"holds vectors of 48 dimensions, this model gives 64"):
        save(tmp_path / "other", vectors[:10]).search(other, "text")
    with pytest.raises(UserError, match=r"shape \(48,\).*takes \(64,\)"):
        index.search_vectors(vectors[0])


@pytest.mark.parametrize(("name", "kind"), [("vectors.safetensors", "exact"), ("rows.jsonl", "exact"),
    ("hnsw.faiss", "hnsw"), ("int8.faiss", "int8"), ("binary.faiss", "binary")])  # fmt: skip
def test_a_damaged_file_is_told(tmp_path, vectors, name, kind):
    save(tmp_path / "index", vectors[:50], kind)
    for change in (lambda old: old[:-10], lambda old: old[:90] + b"\x07" + old[91:], lambda old: b""):
        folder = shutil.copytree(tmp_path / "index", tmp_path / "damaged", dirs_exist_ok=True)
        damage(folder, name, change)
        with pytest.raises(UserError, match=rf"{name} is not as it was written.*build the index again"):
            Index.open(folder)
    (folder / name).unlink()
    with pytest.raises(UserError, match=rf"{name} is missing"):
        Index.open(folder)


@pytest.mark.parametrize(("change", "message"), [
    ({"format": 2}, "has format 2, this version reads 1"), ({"format": None}, "is not an index's"),
    ({"kind": "fast"}, "kind is missing or wrong"), ({"count": "6"}, "count is missing or wrong"),
    ({"model": {}}, "model.identity is missing"), ({"dimension": 7}, "says 50 vectors of 7 dimensions"),
    ({"kind": "hnsw"}, r"hnsw\.faiss is missing"),
])  # fmt: skip
def test_a_changed_index_json_is_told(tmp_path, vectors, change, message):
    path = tmp_path / "index" / "index.json"
    save(path.parent, vectors[:50])
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match=message):
        Index.open(path.parent)
    path.write_text("{half")
    with pytest.raises(UserError, match="not valid JSON"):
        Index.open(path.parent)
    path.unlink()
    with pytest.raises(UserError, match="is not an index"):
        Index.open(path.parent)


@pytest.mark.parametrize(("queries", "options", "message"), [
    ("", {}, "empty"), (["a", "  "], {}, r"queries\[1\] is empty"), (["a", None], {}, r"queries\[1\] is a NoneType"),
    (None, {}, "must be a text or a list"), (b"a", {}, "is a bytes"), ("a", {"top_k": 0}, "top_k is 0"),
    ("a", {"top_k": True}, "top_k is True"), ("a", {"top_k": 2.0}, "top_k is 2.0"),
    ("a", {"filter": {"bok": "esc"}}, "'bok'; did you mean 'book'"), ("a", {"filter": "book=esc"}, "filter is a str"),
    ("a", {"filter": {"book": {1, 2}}}, "no JSON value"),
])  # fmt: skip
def test_a_wrong_question_is_told(tmp_path, embedder, queries, options, message):
    index = build_index(embedder, ROWS, tmp_path / "index").index
    with pytest.raises(UserError, match=message):
        index.search(embedder, queries, **options)


@pytest.mark.parametrize("wrong", [np.zeros(48), np.full(48, np.nan), np.full(48, np.inf), "text", [None] * 48,
                                   np.ones((2, 2, 48))])  # fmt: skip
def test_wrong_vectors_are_told(tmp_path, vectors, wrong):
    with pytest.raises(UserError, match="vectors"):
        save(tmp_path / "index", vectors[:10]).search_vectors(wrong)


def test_queries_need_not_be_of_unit_length(tmp_path, vectors):
    index = save(tmp_path / "index", vectors[:100])
    far, near = index.search_vectors(np.stack([7 * vectors[3], vectors[3]]), 5)
    assert [hit.id for hit in far] == [hit.id for hit in near]
    assert np.allclose([hit.score for hit in far], [hit.score for hit in near], atol=1e-6)


def test_filters_compare_values_as_json_has_them(tmp_path, embedder):
    values = [1, 1.0, True, "1", None, [1, 2], {"k": 1}]
    rows = [{"text": text, "n": value} for text, value in zip("abcdefg", values, strict=True)]
    index = build_index(embedder, rows + [{"text": "h", "m": 1}], tmp_path / "index").index
    found = {}
    for value in (1, True, "1", None, [1, 2], {"k": 1}, 3):
        hits = index.search(embedder, "a", 10, {"n": value})
        found[json.dumps(value)] = "".join(sorted(hit.text for hit in hits))
    assert found == {"1": "ab", "true": "c", '"1"': "d", "null": "e", "[1, 2]": "f", '{"k": 1}': "g", "3": ""}
    assert len(index.search(embedder, "a", 10, {})) == 8
    assert index.search(embedder, "a", 10, {"n": 1, "m": 1}) == []


@pytest.mark.parametrize(("texts", "message"), [
    ([], "no texts"), ("one text", "list of texts"), (["a", ""], r"texts\[1\]: the text is empty"),
    (["a", None], r"texts\[1\]: the text is a NoneType"), ([{"sentence": "a"}], r"texts\[0\] has no key 'text'"),
    ([{"text": "a", "id": 1.5}], "id 1.5 is neither"), ([{"text": "a", "id": ""}], "id '' is neither"),
    ([{"text": "a", "when": object()}], "metadata are not JSON"), (["\ud800"], "surrogate"),
    ([{"text": "a", "x": float("nan")}], "metadata are not JSON"),
    ([{"id": 1, "text": "a"}, {"id": "1", "text": "b"}], r"texts\[1\]: id '1' is the id of another.*texts\[0\]"),
])  # fmt: skip
def test_wrong_texts_are_told(tmp_path, embedder, texts, message):
    with pytest.raises(UserError, match=message):
        build_index(embedder, texts, tmp_path / "index")
    assert not (tmp_path / "index").exists()


def test_long_texts_are_cut_and_counted(tmp_path, embedder, monkeypatch):
    monkeypatch.setattr(building, "_BLOCK", 1)
    change = build_index(embedder, ["valve " * 200_000, SENTENCES[0], SENTENCES[0]], tmp_path / "index")
    assert (change.truncated, change.added, change.unchanged) == (1, 2, 1)
    assert max(len(row["text"]) for row in Index.open(tmp_path / "index").rows) == 1_200_000


def test_what_is_there_is_not_overwritten(tmp_path, embedder):
    build_index(embedder, ROWS, tmp_path / "index")
    with pytest.raises(UserError, match="is an index already; add to it"):
        build_index(embedder, ROWS, tmp_path / "index")
    with pytest.raises(UserError, match="not an empty folder"):
        build_index(embedder, ROWS, tmp_path)
    with pytest.raises(UserError, match="kind 'fast' is unknown; choose one of exact, hnsw, int8, binary"):
        build_index(embedder, ROWS, tmp_path / "new", kind="fast")
    (tmp_path / "empty").mkdir()
    assert len(build_index(embedder, ROWS, tmp_path / "empty").index) == 6


def read(*paths, **options):
    return [row for _, row in read_texts(paths, **options)]


def test_the_same_texts_from_every_kind_of_file(tmp_path):
    expected = [{"id": row["id"], "text": row["text"], "metadata": {"book": row["book"]}} for row in ROWS]
    given = [{"id": row["id"], "sentence": row["text"], "book": row["book"]} for row in ROWS]
    (tmp_path / "a.jsonl").write_text("\ufeff" + "\n\n".join(map(json.dumps, given)), encoding="utf-8")
    with (tmp_path / "a.csv").open("w", encoding="utf-8-sig", newline="") as stream:
        writer = csv.DictWriter(stream, ["id", "sentence", "book"])
        writer.writeheader()
        writer.writerows(given)
    (tmp_path / "a.txt").write_text("\n".join([*SENTENCES, "  ", ""]), encoding="utf-8")
    assert read(tmp_path / "a.jsonl", text_key="sentence") == expected
    assert read(tmp_path / "a.csv", text_key="sentence") == expected
    plain = read(tmp_path / "a.txt", text_key="sentence")
    assert plain == [row for _, row in list_texts(SENTENCES)]
    assert len({row["id"] for row in plain}) == 6
    assert read(tmp_path / "a.jsonl", text_key="sentence", id_key="book")[0]["metadata"] == {"id": "s0"}


def test_rows_without_ids_are_told_apart_by_text_and_metadata():
    rows = [{"text": "a", "n": 1}, {"text": "a", "n": 2}, {"n": 1, "text": "a"}, "a"]
    found, repeated = distinct(list_texts(rows))
    assert (len(found), repeated) == (3, 1)


@pytest.mark.parametrize(("name", "content", "message"), [
    ("a.jsonl", '{"text": "a"}\n{half', "line 2: Expecting"), ("a.jsonl", '{"txt": "a"}', "no 'text'; found: txt"),
    ("a.jsonl", '{"text": ""}', "line 1: the text is empty"), ("a.jsonl", '{"text": 5}', "line 1: the text is a int"),
    ("a.csv", 'text,book\n"a, b",x\na, b,x\n', "line 3: not the 2 cells"), ("a.csv", "text\n\"half", "after line 1"),
    ("a.csv", "sentence\na", "no 'text'; found: sentence"), ("a.pdf", "x", r"named \.jsonl, \.csv, \.txt"),
    ("a.txt", "Größe", "not UTF-8"), ("a.csv", "text\nGröße", "not UTF-8"), ("a.jsonl", '{"text": "ö"}', "not UTF-8"),
])  # fmt: skip
def test_wrong_files_are_told(tmp_path, name, content, message):
    (tmp_path / name).write_text(content, encoding="latin-1")
    with pytest.raises(UserError, match=message):
        read(tmp_path / name)
    with pytest.raises(UserError, match=r"none\.txt is not a file"):
        read(Path("none.txt"))


def test_a_cell_of_a_megabyte_is_read(tmp_path):
    (tmp_path / "a.csv").write_text("text,id\n" + "valve " * 200_000 + ",\n", encoding="utf-8")
    (row,) = read(tmp_path / "a.csv")
    assert (len(row["text"]), len(row["id"]), csv.field_size_limit()) == (1_200_000, 16, 131_072)
