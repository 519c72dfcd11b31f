import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas
import pytest
import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer
from sentence_transformers.util.quantization import quantize_embeddings
from texts import MINILM, SENTENCES

from cardioembed.embedder import inputs
from cardioembed.embedder.encoder import load_embedder
from cardioembed.embedder.precision import calibration_ranges, quantize
from cardioembed.errors import UserError

MANY = [f"{text} Case {number}." for number in range(6) for text in SENTENCES]


@pytest.fixture(scope="module")
def minilm():
    return load_embedder(MINILM, max_length=128, device="cpu")


@pytest.fixture(scope="module")
def peer(minilm):
    model = SentenceTransformer(str(minilm.base.folder), device="cpu")
    model.max_seq_length = 128
    return model


@pytest.fixture
def tiny(tiny_bert):
    return load_embedder(str(tiny_bert), max_length=64, device="cpu")


COLUMNS = {
    "list": list,
    "tuple": tuple,
    "generator": iter,
    "numpy": np.array,
    "numpy of objects": lambda texts: np.array(texts, object),
    "pandas": lambda texts: pandas.Series(texts, index=range(7, 7 + len(texts))),
    "pandas strings": lambda texts: pandas.Series(texts, dtype="string"),
    "datasets": lambda texts: Dataset.from_dict({"text": texts})["text"],
    "dictionary values": lambda texts: dict(enumerate(texts)).values(),
}


@pytest.mark.parametrize("kind", COLUMNS)
def test_any_column_of_texts_gives_the_vectors_of_the_list(kind, tiny):
    assert np.array_equal(tiny.encode(COLUMNS[kind](SENTENCES)), tiny.encode(SENTENCES))


def test_one_text_of_numpy_is_one_text(tiny):
    assert np.array_equal(tiny.encode(np.array(SENTENCES)[0]), tiny.encode(SENTENCES[0]))


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["ECG", None], r"texts\[1\] is a NoneType, not a text: None\. Leave it out"),
        (pandas.Series(["ECG", "MRI", np.nan], dtype=object), r"texts\[2\] is a float, not a text: nan"),
        (pandas.Series(["ECG", None], dtype="string"), r"texts\[1\] is a NAType"),
        (["ECG", b"MRI"], r"texts\[1\] is a bytes"),
        (["ECG", ["MRI"]], r"texts\[1\] is a list"),
        ([{"text": "ECG"}], r"texts\[0\] is a dict"),
        (["ECG", "\ud83d"], r"texts\[1\] has half a surrogate pair at character 0"),
        (None, "texts is a NoneType; give one text, or texts in an order"),
        (3, "texts is a int; give"),
        (b"ECG", "texts is a bytes; give"),
        ({"ECG": 1}, "texts is a dict; give"),
        ({"ECG"}, "texts is a set; give"),
        (np.array([["ECG"]]), "texts is a ndarray; give"),
        (pandas.DataFrame({"text": ["ECG"]}), "texts is a DataFrame; give .* one column of a table"),
    ],
)
def test_what_is_no_text_is_refused(texts, message, tiny):
    with pytest.raises(UserError, match=message):
        tiny.encode(texts)


def test_an_empty_text_is_its_special_tokens(tiny, minilm, peer):
    (ids,), _ = tiny.tokenize([""])
    assert tiny.tokenizer.convert_ids_to_tokens(ids) == ["[CLS]", "[SEP]"]
    assert np.abs(minilm.encode(["", "ECG"]) - peer.encode(["", "ECG"])).max() < 1e-5


def test_an_empty_text_without_any_token_is_refused_rather_than_a_vector_of_zeros(tiny_qwen2):
    embedder = load_embedder(str(tiny_qwen2), max_length=64, device="cpu", pooling="mean")
    with pytest.raises(UserError, match=r"texts\[1\] gives no token"):
        embedder.encode(["ECG", ""])


@pytest.mark.parametrize("batch_size", [1, 7, 20])
def test_no_more_texts_than_batch_size_go_through_at_once(batch_size, tiny, monkeypatch):
    sizes, embed = [], tiny.embed_tokens
    monkeypatch.setattr(tiny, "embed_tokens", lambda rows: sizes.append(len(rows)) or embed(rows))
    together = tiny.encode(MANY, chunk_tokens=10**6)
    assert sizes.pop() == len(MANY)
    assert np.abs(tiny.encode(MANY, batch_size=batch_size, chunk_tokens=10**6) - together).max() < 2e-6
    assert max(sizes) == batch_size
    assert sum(sizes) == len(MANY)


def test_the_token_budget_holds_beside_batch_size(tiny, monkeypatch):
    padded, embed = [], tiny.embed_tokens
    monkeypatch.setattr(
        tiny, "embed_tokens", lambda rows: padded.append((len(rows), len(rows) * max(map(len, rows)))) or embed(rows)
    )
    tiny.encode(MANY, batch_size=5, chunk_tokens=100)
    assert all(size == 1 or (size <= 5 and tokens <= 100) for size, tokens in padded)


@pytest.mark.parametrize("truncate_dim", [1, 100, 128, 384])
def test_truncated_vectors_equal_sentence_transformers(truncate_dim, minilm, peer):
    ours = minilm.encode(SENTENCES, truncate_dim=truncate_dim)
    theirs = peer.encode(SENTENCES, truncate_dim=truncate_dim, normalize_embeddings=True)
    assert ours.shape == (len(SENTENCES), truncate_dim)
    assert np.abs(ours - theirs).max() < 1e-5
    assert np.abs(minilm.encode(SENTENCES[0], truncate_dim=truncate_dim) - theirs[0]).max() < 1e-5


@pytest.mark.parametrize("truncate_dim", [0, -1, 65, 2.0, True])
def test_an_impossible_dimension_is_refused(truncate_dim, tiny):
    with pytest.raises(UserError, match=rf"truncate_dim: {truncate_dim} is not possible.* 1 to 64"):
        tiny.encode(SENTENCES, truncate_dim=truncate_dim)


@pytest.mark.parametrize("truncate_dim", [None, 100])
@pytest.mark.parametrize("precision", ["int8", "binary"])
def test_small_vectors_equal_sentence_transformers_bit_for_bit(precision, truncate_dim, minilm):
    vectors = minilm.encode(MANY, truncate_dim=truncate_dim)
    ours, theirs = quantize(vectors, precision), quantize_embeddings(vectors, precision)
    assert ours.dtype == theirs.dtype == np.int8
    assert np.array_equal(ours, theirs)
    assert np.array_equal(minilm.encode(MANY, truncate_dim=truncate_dim, precision=precision), ours)


@pytest.mark.parametrize("precision", ["float32", "int8", "binary"])
def test_encode_in_small_kinds_is_that_of_sentence_transformers(precision, minilm, peer):
    ours, theirs = (model.encode(MANY, precision=precision) for model in (minilm, peer))
    assert ours.shape == theirs.shape
    assert ours.dtype == theirs.dtype
    if precision == "float32":
        assert np.abs(ours - theirs).max() < 1e-5
    else:
        # The vectors differ by 1e-7, so a value on the border of two steps may fall on either side.
        assert np.mean(ours != theirs) < 2e-3


def test_given_ranges_make_queries_comparable_with_documents(minilm):
    documents = minilm.encode(MANY)
    ranges = calibration_ranges(documents)
    query = minilm.encode(SENTENCES[0], precision="int8", ranges=ranges)
    assert query.shape == (384,)
    assert np.array_equal(query, quantize_embeddings(minilm.encode(SENTENCES[:1]), "int8", ranges=ranges)[0])
    beyond = quantize(np.array([[9.0, -9.0]], np.float32), "int8", np.array([[-1.0, -1.0], [1.0, 1.0]]))
    assert beyond.tolist() == [[127, -128]]


def test_a_dimension_that_is_always_the_same_is_not_divided_by_zero():
    vectors = np.array([[0.5, 0.1], [0.5, 0.9]], np.float32)
    assert np.array_equal(quantize(vectors, "int8"), quantize_embeddings(vectors, "int8"))


def test_bits_are_signs_as_faiss_takes_them(tiny):
    vectors = tiny.encode(SENTENCES, truncate_dim=12)
    bits = tiny.encode(SENTENCES, truncate_dim=12, precision="binary").view(np.uint8) ^ 0x80
    assert bits.shape == (len(SENTENCES), 2)
    assert np.array_equal(np.unpackbits(bits, axis=1)[:, :12], vectors > 0)
    assert np.array_equal(bits, quantize_embeddings(vectors, "ubinary"))


@pytest.mark.parametrize(
    ("precision", "kind", "width"),
    [("float32", "float32", 64), ("float16", "float16", 64), ("int8", "int8", 64), ("binary", "int8", 8)],
)
def test_kinds_and_shapes(precision, kind, width, tiny):
    options = {"precision": precision}
    ranges = {"ranges": calibration_ranges(tiny.encode(MANY))} if precision == "int8" else {}
    found = tiny.encode(SENTENCES, **options)
    assert (found.shape, found.dtype) == ((6, width), kind)
    assert tiny.encode([], **options).shape == (0, width)
    assert tiny.encode([], **options).dtype == kind
    assert tiny.encode("ECG", **options, **ranges).shape == (width,)
    tensor = tiny.encode(SENTENCES, convert_to_tensor=True, **options)
    assert tensor.device == tiny.device
    assert np.array_equal(tensor.numpy(), found)


def test_float16_is_within_its_rounding(tiny):
    exact = tiny.encode(SENTENCES)
    assert 0 < np.abs(tiny.encode(SENTENCES, precision="float16") - exact).max() < 2**-11


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "int4"}, "precision: 'int4' is unknown; choose float32, float16, int8, binary"),
        ({"precision": "int8"}, r"cannot be told from a single vector.*give it as ranges"),
        ({"precision": "binary", "ranges": np.zeros((2, 64))}, "ranges: they are those of precision int8"),
        ({"precision": "int8", "ranges": np.zeros((2, 32))}, r"ranges: shape \(2, 32\), but \(2, 64\) is needed"),
        ({"precision": "int8", "ranges": np.array([[1.0] * 64, [0.0] * 64])}, "ranges: the first row must be the low"),
        ({"precision": "int8", "ranges": np.full((2, 64), np.nan)}, "ranges: .* finite numbers"),
        ({"batch_size": 0}, "batch_size: 0 is not possible"),
    ],
)
def test_impossible_options_are_refused(options, message, tiny):
    with pytest.raises(UserError, match=message):
        tiny.encode("ECG", **options)


@pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor, lambda vectors: list(map(torch.as_tensor, vectors))])
def test_similarity_equals_sentence_transformers(kind, minilm, peer):
    first, second = kind(minilm.encode(MANY[:4]) * 3), kind(minilm.encode(MANY[4:10]))  # of any length
    found, expected = minilm.similarity(first, second), peer.similarity(first, second)
    assert found.shape == (4, 6)
    assert isinstance(found, np.ndarray if kind is np.asarray else torch.Tensor)
    assert np.abs(np.asarray(found) - expected.numpy()).max() < 1e-5
    pairs = minilm.similarity_pairwise(first, second[:4])
    assert pairs.shape == (4,)
    assert np.abs(np.asarray(pairs) - peer.similarity_pairwise(first, second[:4]).numpy()).max() < 1e-5


def test_similarity_of_single_and_of_half_precision_vectors(tiny):
    vectors, half = tiny.encode(SENTENCES), tiny.encode(SENTENCES, precision="float16")
    assert tiny.similarity(vectors[0], vectors).shape == (1, 6)
    assert tiny.similarity_pairwise(vectors[0], vectors[1]).shape == (1,)
    assert tiny.similarity(half, half).dtype == np.float32
    assert np.abs(tiny.similarity(half, half) - tiny.similarity(vectors, vectors)).max() < 1e-3


def test_vectors_that_do_not_compare_are_refused(tiny):
    vectors = tiny.encode(SENTENCES)
    with pytest.raises(UserError, match="64 and of 32 dimensions"):
        tiny.similarity(vectors, tiny.encode(SENTENCES, truncate_dim=32))
    for precision in ("int8", "binary"):
        with pytest.raises(UserError, match="not of int8 ones"):
            tiny.similarity(tiny.encode(SENTENCES, precision=precision), vectors)
    with pytest.raises(UserError, match="6 and 5 vectors; pairs need as many of each"):
        tiny.similarity_pairwise(vectors, vectors[:5])


@pytest.mark.parametrize("base", ["tiny_bert", "tiny_qwen3", "tiny_gemma2", "tiny_xlm_roberta"])
def test_the_head_of_a_long_text_gives_the_tokens_of_the_whole(base, request):
    embedder = load_embedder(str(request.getfixturevalue(base)), max_length=16, device="cpu")
    prose = " ".join(SENTENCES * 10)
    texts = [prose, " " * 3000 + prose, "ECG", "x" * 5000 + " " + prose, "." * 5000, "heart" * 1000, ""]
    whole = embedder.tokenizer(texts, truncation=True, max_length=16)
    ids, cut = embedder.tokenize(texts)
    assert ids == whole["input_ids"]
    assert cut == sum(bool(encoding.overflowing) for encoding in whole.encodings)


def test_of_a_megabyte_the_tokenizer_reads_only_the_head(minilm, monkeypatch):
    text, read, tokenizer = SENTENCES[0] * 17_000, [], minilm.tokenizer

    class Reading:
        def __call__(self, texts, **options):
            read.append(sum(map(len, texts)))
            return tokenizer(texts, **options)

    (ids,), cut = inputs.token_ids(Reading(), [text], 128)
    assert len(text) > 10**6
    assert sum(read) < 10_000
    assert (len(ids), cut) == (128, 1)
    assert np.array_equal(minilm.encode([text, "ECG"])[0], minilm.encode(text[:5000]))


def test_vectors_that_are_not_finite_are_refused_by_place(tiny):
    with torch.no_grad():
        tiny.model.embeddings.word_embeddings.weight[tiny.tokenize(["Tetralogy"])[0][0][1]] = float("inf")
    texts = [SENTENCES[0], SENTENCES[5]]
    bad = [bool(set(tiny.tokenize([text])[0][0]) & {tiny.tokenize(["Tetralogy"])[0][0][1]}) for text in texts]
    assert bad == [False, True]
    with pytest.raises(UserError, match=r"1 of 2 vectors .* not finite numbers, .* texts\[1\]; load it in float32"):
        tiny.encode(texts)
    assert np.isfinite(tiny.encode(texts[0])).all()


@pytest.mark.parametrize("base", [MINILM, "tiny_qwen3", "tiny_jina", "tiny_gemma2"])
def test_threads_that_encode_at_once_get_the_vectors_that_each_gets_alone(base, request):
    name = base if base == MINILM else str(request.getfixturevalue(base))
    embedder = load_embedder(name, max_length=24, device="cpu")
    jobs = [MANY[start : start + 1 + start % 5] for start in range(0, 30, 3)]
    alone = [embedder.encode(job) for job in jobs]
    with ThreadPoolExecutor(8) as threads:
        together = list(threads.map(embedder.encode, jobs))
    assert all(np.array_equal(*pair) for pair in zip(alone, together, strict=True))

    async def gather():
        return await asyncio.gather(*(asyncio.to_thread(embedder.encode, job) for job in jobs))

    assert all(np.array_equal(*pair) for pair in zip(alone, asyncio.run(gather()), strict=True))


def test_a_thread_that_ends_leaves_dropout_off_for_one_that_still_encodes(tiny, monkeypatch):
    expected = tiny.encode(SENTENCES)
    tiny.model.train()  # as in the middle of training
    started, ended, embed = threading.Event(), threading.Event(), tiny.embed_tokens

    def slowly(sequences):
        if threading.current_thread() is not threading.main_thread():
            started.set()
            assert ended.wait(30)
        return embed(sequences)

    monkeypatch.setattr(tiny, "embed_tokens", slowly)
    with ThreadPoolExecutor(1) as threads:
        slow = threads.submit(tiny.encode, SENTENCES)
        assert started.wait(30)
        assert np.array_equal(tiny.encode(SENTENCES), expected)
        ended.set()
        assert np.array_equal(slow.result(), expected)
    assert tiny.model.training


def test_the_mode_comes_back_after_an_error(tiny, monkeypatch):
    tiny.model.train()
    monkeypatch.setattr(tiny, "embed_tokens", lambda rows: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        tiny.encode("ECG")
    assert tiny.model.training


def test_the_bar_counts_texts(tiny, capsys):
    assert tiny.encode(MANY).shape[0] == len(MANY)
    assert capsys.readouterr().err == ""
    tiny.encode(MANY, show_progress_bar=True)
    assert f"{len(MANY)}/{len(MANY)}" in capsys.readouterr().err
