"""The explorer in a real browser, on a run that the stages made: every view opens, is searched and clicked.

Skipped where Chromium or Playwright is missing, unless CARDIOEMBED_REQUIRE_BROWSER=1 makes that a failure.
"""

import importlib
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from importlib.util import find_spec

import pytest
from test_stages import small
from texts import ROOT

from cardioembed import stage
from cardioembed.records import read_jsonl, write_jsonl

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
MISSING = [name for name in ("playwright", "streamlit", "plotly") if not find_spec(name)]
STAGES = ("01_merge_paraphrases", "02_prepare_training_data", "03_train_embedding_model", "04_evaluate_model")
WAIT = 90_000  # milliseconds; a busy machine is slow, and nothing here is measured
# Headless Chromium draws WebGL in software.
FLAGS = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]


@pytest.fixture(scope="module", autouse=True)
def needed():
    missing = [*MISSING, *([] if CHROMIUM else ["chromium"])]
    if missing:
        tell = pytest.fail if os.environ.get("CARDIOEMBED_REQUIRE_BROWSER") == "1" else pytest.skip
        tell(f"not installed: {', '.join(missing)} (pip install -e '.[explorer,test]'; apt-get install chromium)")


@pytest.fixture(scope="module")
def run_dir(tiny_bert, tmp_path_factory, needed):
    """A trained and evaluated run."""
    folder = tmp_path_factory.mktemp("explored")
    arguments = small(
        tiny_bert, folder, train__max_steps=2, train__learning_rate="1e-2", model__max_length=64, evaluate__mteb="[]"
    )
    for name in STAGES:
        module = importlib.import_module(name)
        options = getattr(module, "add_options", None)
        assert stage.run(module.main, module.__doc__, list(map(str, arguments)), options) == 0
    return folder / "run"


class Served:
    """The explorer's own command, serving a run until it is closed."""

    def __init__(self, *arguments):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        command = [sys.executable, "-m", "cardioembed.explorer", "--port", str(self.port), *map(str, arguments)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
        self._wait()

    def _wait(self):
        for _ in range(600):
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/_stcore/health", timeout=5):
                    return
            except OSError:
                assert self.process.poll() is None, "the explorer ended"
                time.sleep(0.1)
        self.close()
        pytest.fail("the explorer does not answer")

    def close(self):
        self.process.terminate()
        self.process.wait(20)


@pytest.fixture(scope="module")
def served(run_dir):
    found = Served("--run", run_dir)
    yield found
    found.close()


@pytest.fixture(scope="module")
def browser(needed):
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield found
        found.close()


@pytest.fixture
def page(browser):
    """A page on which an error of the console, or a request to another machine, is a failure."""
    faults = []
    found = browser.new_page(viewport={"width": 1280, "height": 1600})
    found.set_default_timeout(WAIT)
    found.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    found.on("pageerror", lambda error: faults.append(str(error)))
    own = ("http://127.0.0.1:", "ws://127.0.0.1:", "data:", "blob:")
    found.on("request", lambda request: None if request.url.startswith(own) else faults.append(request.url))
    yield found
    found.close()
    assert not faults


def go(page, served, view):
    page.goto(f"http://127.0.0.1:{served.port}/?view={view}")
    page.get_by_role("heading", name=view.replace("+", " "), exact=True).wait_for()


def test_metrics_show_base_and_adapted_with_intervals(page, served):
    go(page, served, "Metrics")
    table = page.get_by_role("region", name="Paraphrase retrieval on the test split")
    table.wait_for()
    assert table.locator("thead").inner_text().split() == "metric base adapted difference p n chance".split()
    row = table.locator("tr", has=page.get_by_role("rowheader", name="mrr", exact=True)).inner_text()
    assert row.count("[") == 3
    page.locator(".stPlotlyChart .main-svg").first.wait_for()


def test_a_query_finds_its_sentence_and_a_click_opens_a_text(page, served, run_dir):
    text = read_jsonl(run_dir / "02_training_test.jsonl")[0]["anchor"]
    go(page, served, "Space")
    plot = page.locator(".stPlotlyChart .main-svg").first
    plot.wait_for()
    page.get_by_label("Place a query in the map").fill(text)
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Nearest to the query").wait_for()
    for side in ("before training (base)", "after training (adapted)"):
        first = page.get_by_role("region", name=f"Nearest {side}").first.locator("tbody tr").first.inner_text()
        assert text in first
        assert "1.000" in first
    page.get_by_text("the query", exact=True).wait_for()  # in the legend: it has a place in the map
    _click_a_point(page)
    page.get_by_role("heading", name="The open text").wait_for()
    assert page.locator("blockquote").inner_text().strip()
    page.get_by_role("region", name="Nearest after training (adapted)").nth(1).wait_for()  # the query's and the text's


def _click_a_point(page):
    """Clicks the last point of the first label, where Plotly says that it is; the query's mark covers the first."""
    where = page.evaluate(
        """() => {
            const plot = document.querySelector('.stPlotlyChart .js-plotly-plot');
            const {xaxis, yaxis} = plot._fullLayout, {x, y} = plot._fullData[0], last = x.length - 1;
            const box = plot.getBoundingClientRect();
            return [box.left + xaxis._offset + xaxis.c2p(x[last]), box.top + yaxis._offset + yaxis.c2p(y[last])];
        }"""
    )
    page.mouse.move(*where)
    page.locator(".hoverlayer .hovertext").first.wait_for()
    page.mouse.click(*where)


def test_a_text_is_opened_by_keys_alone(page, served):
    go(page, served, "Space")
    box = page.get_by_role("combobox", name="Open a text")
    box.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="The open text").wait_for()


def test_before_and_after_share_a_space(page, served):
    go(page, served, "Before+and+after")
    page.get_by_role("region", name="Texts that moved most").wait_for()
    page.locator(".stPlotlyChart .main-svg").nth(3).wait_for(state="attached")
    ranges = page.evaluate(
        "[...document.querySelectorAll('.js-plotly-plot')].map(p => JSON.stringify(p._fullLayout.xaxis.range))"
    )
    assert len(ranges) == 2
    assert ranges[0] == ranges[1]
    assert page.get_by_role("region", name="Texts that moved most").locator("tbody tr").count() == 20


def test_details_show_curves_data_stages_and_settings(page, served):
    go(page, served, "Details")
    page.get_by_role("region", name="Training summary").wait_for()
    for tab, content in (("Data", "Pairs by book"), ("Stages", "Stage 04"), ("Settings", "run_dir")):
        page.get_by_role("tab", name=tab).click()
        page.get_by_text(content).first.wait_for()


def test_an_incomplete_run_is_told_with_its_stage_on_every_view(page, tmp_path):
    write_jsonl(tmp_path / "01_sentences.jsonl", [{"id": "1", "text": t} for t in ("One.", "Two.", "Three.")])
    served = Served("--run", tmp_path)
    try:
        missing = {
            "Metrics": ("metrics.json is missing", "python 04_evaluate_model.py"),
            "Space": ("cardioembed.json is missing", "python 03_train_embedding_model.py"),
            "Before+and+after": ("cardioembed.json is missing", "python 03_train_embedding_model.py"),
            "Details": ("03_training_log.jsonl is missing", "python 03_train_embedding_model.py"),
        }
        for view, (said, command) in missing.items():
            go(page, served, view)
            alert = page.get_by_role("alert").first
            alert.wait_for()
            assert said in alert.inner_text()
            assert command in page.locator("code").first.inner_text()
            assert "Traceback" not in page.content()
    finally:
        page.goto("about:blank")  # before the server ends, which the page would call an error
        served.close()
