import base64
import io
import json
import os
import shutil
import threading
from concurrent.futures import Future

import pytest
from chat_server import ChatServer, answer, error
from PIL import Image
from rapidfuzz.distance import Levenshtein

from cardioembed.corpus import tesseract, vision
from cardioembed.corpus.ocr import build_recogniser
from cardioembed.corpus.pages import Page
from cardioembed.corpus.reading import read_pages
from cardioembed.errors import UserError

needs_tesseract = pytest.mark.skipif(
    not shutil.which("tesseract"), reason="the program tesseract is not installed: apt-get install tesseract-ocr"
)
STENOSIS = "Severe aortic stenosis narrows the valve area below 1.0 cm2.\nThe treatment is valve replacement."
OXYGEN = "Beta-blockers slow the heart rate and lower the demand for oxygen."
EXTRA = {"skip_special_tokens": False, "vllm_xargs": {"ngram_size": 30, "whitelist_token_ids": [128821]}}


@pytest.fixture
def recogniser(tmp_path):
    def build(engine="openai", **settings):
        defaults = {
            "dpi": 150, "language": "eng", "model": "tiny", "base_url": "http://127.0.0.1:9/v1",
            "api_key_env": "NO_KEY_HERE", "prompt": "Convert.", "max_tokens": 500, "extra_body": EXTRA,
            "max_concurrency": 2, "max_retries": 1, "timeout": 30.0, "cache": str(tmp_path / "cache"),
        }  # fmt: skip
        return build_recogniser(engine, **(defaults | settings))

    return build


@pytest.fixture
def scan(tmp_path, write_scan):
    """Three pictures around a born-digital page."""
    return write_scan(tmp_path / "scan.pdf", "One", "Two", None, "Four", digital=OXYGEN, dpi=40)


def read(book, recogniser):
    return list(read_pages(book, recogniser, min_page_characters=25, num_proc=1))


def image_of(request):
    """The page image in a request's body."""
    url = request["messages"][0]["content"][0]["image_url"]["url"]
    head, _, data = url.partition(",")
    assert head == "data:image/png;base64"
    return Image.open(io.BytesIO(base64.b64decode(data)))


def cached(tmp_path):
    return sorted((tmp_path / "cache").rglob("*.json"))


def test_engine_none_reads_nothing(recogniser):
    assert recogniser("none") is None


# --- tesseract -------------------------------------------------------------------------------------------------------


@needs_tesseract
def test_tesseract_reads_the_pictures_of_a_mixed_book(tmp_path, recogniser, write_scan):
    book = write_scan(tmp_path / "book.pdf", STENOSIS, None, OXYGEN, digital="The heart has four chambers, two atria.")
    pages = read(book, recogniser("tesseract"))
    assert [(page.number, page.origin) for page in pages] == [(1, "ocr"), (2, "text"), (3, "ocr")]
    for page, text in ((pages[0], STENOSIS), (pages[2], OXYGEN)):
        assert Levenshtein.distance(" ".join(page.text.split()), " ".join(text.split())) <= 1


@needs_tesseract
def test_tesseract_answers_from_its_cache(tmp_path, recogniser, write_scan, monkeypatch):
    book = write_scan(tmp_path / "book.pdf", OXYGEN)
    pages = read(book, recogniser("tesseract"))
    assert len(cached(tmp_path)) == 1

    async def no_more(*_):
        raise AssertionError("the page was read again")

    monkeypatch.setattr(tesseract.Tesseract, "_run", no_more)
    assert read(book, recogniser("tesseract")) == pages


@needs_tesseract
def test_missing_language_pack_names_its_debian_package(recogniser, scan):
    expected = (
        r"no language 'deu', 'chi_sim'; there are: .*eng.*apt-get install tesseract-ocr-deu tesseract-ocr-chi-sim"
    )
    with pytest.raises(UserError, match=expected):
        read(scan, recogniser("tesseract", language="eng+deu+chi_sim"))


def test_missing_program_names_the_command_before_any_page_is_done(tmp_path, recogniser, scan, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"apt-get install tesseract-ocr tesseract-ocr-deu \(as root\), or leave"):
        read(scan, recogniser("tesseract", language="deu"))
    assert cached(tmp_path) == []


def test_book_without_pictures_needs_no_program(tmp_path, recogniser, write_pdf, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert read(write_pdf(tmp_path / "book.pdf", OXYGEN), recogniser("tesseract")) == [Page(1, OXYGEN, "text")]


@pytest.fixture
def stub_program(tmp_path, monkeypatch):
    """A program in tesseract's place that notes its calls and then does as the script says."""

    def install(script: str):
        folder = tmp_path / "bin"
        folder.mkdir()
        program = folder / "tesseract"
        program.write_text(
            f"""#!/bin/sh
case $1 in
  --list-langs) printf 'List (1):\\neng\\n'; exit;;
  --version) echo 'tesseract 9.9'; exit;;
esac
cat > /dev/null
echo "$OMP_THREAD_LIMIT $@" >> {tmp_path}/calls
{script}
"""
        )
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
        monkeypatch.setattr(tesseract, "_FIRST_PAUSE", 0.0)
        return lambda: (tmp_path / "calls").read_text().splitlines()

    return install


def test_program_that_breaks_down_once_is_asked_again(tmp_path, recogniser, scan, stub_program):
    calls = stub_program(f"[ -e {tmp_path}/again ] || {{ touch {tmp_path}/again; exit 139; }}\necho 'The text.'")
    pages = read(scan, recogniser("tesseract", max_concurrency=1))
    assert [page.text for page in pages] == ["The text.", "The text.", OXYGEN, "The text."]
    assert calls() == ["1 stdin stdout -l eng --dpi 150 -c page_separator="] * 4


def test_program_that_breaks_down_for_good_fails_its_page_only(tmp_path, recogniser, scan, stub_program):
    calls = stub_program("echo 'image too small' >&2; exit 1")
    pages = read(scan, recogniser("tesseract"))
    assert [page.origin for page in pages] == ["failed", "failed", "text", "failed"]
    assert pages[0].problem == "tesseract ended with code 1, 2 times: image too small"
    assert len(calls()) == 6
    assert cached(tmp_path) == []


def test_program_that_hangs_is_stopped(recogniser, scan, stub_program):
    stub_program("exec sleep 60")
    pages = read(scan, recogniser("tesseract", timeout=0.3))
    assert pages[3] == Page(4, "", "failed", "tesseract took longer than 0.3 s (merge.ocr.timeout)")


# --- a vision server -------------------------------------------------------------------------------------------------


def test_request_carries_the_page_image_the_prompt_and_the_settings(recogniser, scan):
    with ChatServer(lambda text, before: answer("Read.")) as server:
        pages = read(scan, recogniser(base_url=server.base_url, dpi=100))
    assert [(page.text, page.origin) for page in pages] == [
        ("Read.", "ocr"), ("Read.", "ocr"), (OXYGEN, "text"), ("Read.", "ocr")
    ]  # fmt: skip
    request = server.requests[0]
    assert len(server.requests) == 3
    assert (request["model"], request["temperature"], request["max_tokens"]) == ("tiny", 0.0, 500)
    assert request["skip_special_tokens"] is False
    assert request["vllm_xargs"] == EXTRA["vllm_xargs"]
    assert request["messages"][0]["role"] == "user"
    assert request["messages"][0]["content"][1] == {"type": "text", "text": "Convert."}
    with image_of(request) as image:
        assert image.size == (827, 1170)


def test_answers_belong_to_their_pages_whatever_comes_first(recogniser, scan):
    """The first page's answer waits for the second's."""
    second = threading.Event()
    first_image: Future[str] = Future()

    def respond(text, before):
        if not first_image.done():
            first_image.set_result(text)
        if text == first_image.result():
            assert second.wait(20)
            return answer("slow")
        second.set()
        return answer("quick")

    with ChatServer(respond) as server:
        pages = read(scan, recogniser(base_url=server.base_url))
    assert [page.text for page in pages] == ["slow", "quick", OXYGEN, "quick"]
    assert server.most_at_once == 2


def test_server_error_is_asked_again(recogniser, scan):
    with ChatServer(lambda text, before: answer("Read.") if before else error(500, "busy")) as server:
        pages = read(scan, recogniser(base_url=server.base_url))
    assert [page.origin for page in pages] == ["ocr", "ocr", "text", "ocr"]
    assert set(server.asked.values()) == {2}


def test_page_that_is_never_answered_fails_alone_and_is_asked_for_in_the_next_run(tmp_path, recogniser, scan):
    refused: list[str] = []

    def respond(text, before):
        refused[:] = refused or [text]
        return error(500, "no memory") if text == refused[0] else answer("Read.")

    with ChatServer(respond) as server:
        pages = read(scan, recogniser(base_url=server.base_url, max_concurrency=1))
        assert [page.origin for page in pages] == ["failed", "ocr", "text", "ocr"]
        assert "server_error" in pages[0].problem
        assert "no memory" in pages[0].problem
        assert "(asked 2 times)" in pages[0].problem
        assert len(cached(tmp_path)) == 2
        server.requests.clear()
        server.respond = lambda text, before: answer("At last.")
        again = read(scan, recogniser(base_url=server.base_url))
    assert again == [Page(1, "At last.", "ocr"), *pages[1:]]
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("text", "finish_reason", "problem"),
    [
        ("The heart", "length", "the answer was cut off at 500 tokens (merge.ocr.max_tokens)"),
        ("The heart. " + "and the aorta " * 40, "length", "the answer repeats itself without end: 'and the aorta '"),
        ("Sorry.", "content_filter", "the server refused the page: 'Sorry.'"),
    ],
)
def test_unusable_answer_is_a_failure_with_its_reason(tmp_path, recogniser, scan, text, finish_reason, problem):
    with ChatServer(lambda _, before: answer(text, finish_reason)) as server:
        pages = read(scan, recogniser(base_url=server.base_url))
    assert pages[0].origin == "failed"
    # Where the repeated part begins is no matter.
    assert sorted(pages[0].problem) == sorted(problem)
    assert cached(tmp_path) == []


@pytest.mark.parametrize(
    "text",
    [
        "Contents . . . . " + ". " * 500,
        "|---|---|" * 60,
        "<table>" + "<tr><td></td></tr>" * 90 + "</table>",
        "The left ventricle and the right ventricle, the left atrium and the right atrium.",
        "aortic " * 9 + "valve",
    ],
)
def test_dots_tables_and_prose_are_no_endless_repetition(text):
    assert vision._endless(text) == ""


def test_half_a_surrogate_pair_in_an_answer_does_no_harm(recogniser, scan):
    with ChatServer(lambda text, before: answer("Beta \ud83d blockers")) as server:
        pages = read(scan, recogniser(base_url=server.base_url))
    assert pages[0] == Page(1, "Beta ? blockers", "ocr")


def test_killed_run_goes_on_where_it_stopped(tmp_path, recogniser, scan):
    with ChatServer(lambda text, before: answer("Read.")) as server:
        settings = {"base_url": server.base_url, "max_concurrency": 1}
        pages = read_pages(scan, recogniser(**settings), min_page_characters=25, num_proc=1)
        assert next(pages).text == "Read."
        pages.close()
        done = len(cached(tmp_path))
        assert 1 <= done <= 3
        server.requests.clear()
        assert [page.origin for page in read(scan, recogniser(**settings))] == ["ocr", "ocr", "text", "ocr"]
        # The one that was in flight may only now have come to the server's notice.
        assert 3 - done <= len(server.requests) <= 3 - done + 1
        server.requests.clear()
        read(scan, recogniser(**settings))
        assert server.requests == []


@pytest.mark.parametrize(
    "change",
    [
        {"dpi": 151}, {"prompt": "Free OCR."}, {"max_tokens": 501}, {"extra_body": {}}, {"model": "other"},
    ],
)  # fmt: skip
def test_setting_that_decides_the_text_is_part_of_the_key(recogniser, scan, change):
    with ChatServer(lambda text, before: answer("Read."), models=("tiny", "other")) as server:
        read(scan, recogniser(base_url=server.base_url))
        read(scan, recogniser(base_url=server.base_url, max_retries=3, timeout=7.0))
        assert len(server.requests) == 3
        read(scan, recogniser(base_url=server.base_url, **change))
    assert len(server.requests) == 6


def test_other_file_with_the_same_name_is_read_anew_and_a_moved_one_is_not(tmp_path, recogniser, scan, write_scan):
    with ChatServer(lambda text, before: answer("Read.")) as server:
        build = lambda: recogniser(base_url=server.base_url)  # noqa: E731
        read(scan, build())
        moved = scan.rename(tmp_path / "moved.pdf")
        read(moved, build())
        assert len(server.requests) == 3
        read(write_scan(scan, "Another", dpi=40), build())
    assert len(server.requests) == 4


def test_spoilt_cache_entry_is_read_anew(tmp_path, recogniser, scan):
    with ChatServer(lambda text, before: answer("Read.")) as server:
        read(scan, recogniser(base_url=server.base_url))
        spoilt = cached(tmp_path)[0]
        spoilt.write_text(spoilt.read_text()[:-20])
        read(scan, recogniser(base_url=server.base_url))
        assert len(server.requests) == 4
    assert json.loads(spoilt.read_text())["text"] == "Read."


def test_cache_folder_that_cannot_be_made_is_told(tmp_path, recogniser, scan):
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match=r"merge\.ocr\.cache: .*file/cache cannot be made \(Not a directory\)"):
        read(scan, recogniser(cache=str(tmp_path / "file" / "cache")))


def test_server_that_is_not_there_ends_the_run(recogniser, scan):
    with pytest.raises(UserError, match=r"merge\.ocr: base_url http://127\.0\.0\.1:9/v1: no server answers"):
        read(scan, recogniser())


def test_key_of_the_named_variable_is_sent(recogniser, scan, monkeypatch):
    monkeypatch.setenv("READER_KEY", "secret-1")
    with ChatServer(lambda text, before: answer("Read.")) as server:
        read(scan, recogniser(base_url=server.base_url, api_key_env="READER_KEY"))
    assert server.keys == {"Bearer secret-1"}


def test_missing_key_of_a_remote_server_is_told_before_any_page(recogniser, scan):
    with pytest.raises(UserError, match=r"merge\.ocr: NO_KEY_HERE is not set, and vision\.example is not this machine"):
        read(scan, recogniser(base_url="https://vision.example/v1"))


def test_book_whose_pages_all_fail_tells_the_reason(tmp_path, recogniser, write_scan):
    book = write_scan(tmp_path / "book.pdf", "One", dpi=40)
    with (
        ChatServer(lambda text, before: answer("cut", "length")) as server,
        pytest.raises(UserError, match=r"book\.pdf holds no text \(1 of 1 pages: the answer was cut off at 500 tokens"),
    ):
        read(book, recogniser(base_url=server.base_url))


def test_layout_tags_of_the_model_are_left_to_cleaning(tmp_path, recogniser, write_scan):
    raw = (
        "<|ref|>title<|/ref|><|det|>[[61, 40, 300, 66]]<|/det|>\n## Valves\n\n"
        f"<|ref|>text<|/ref|><|det|>[[61, 80, 900, 120]]<|/det|>\n{OXYGEN}"
    )
    with ChatServer(lambda text, before: answer(raw)) as server:
        pages = read(write_scan(tmp_path / "book.pdf", "One", dpi=40), recogniser(base_url=server.base_url))
    assert pages == [Page(1, raw, "ocr")]
