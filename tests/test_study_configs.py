"""Every shipped YAML loads, and what its header tells to type is right."""

import re

import pytest
from architectures import ARCHITECTURES
from texts import ROOT

from cardioembed.config_file import load_settings

STUDY = sorted((ROOT / "configs/study").glob("*.yaml"))
# configs/study*.yaml are lists of such files, see test_study.py.
LISTS = set((ROOT / "configs").glob("study*.yaml"))
SHIPPED = [ROOT / "config.yaml", *sorted(set((ROOT / "configs").glob("*.yaml")) - LISTS), *STUDY]
each_shipped = pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
each_study = pytest.mark.parametrize("path", STUDY, ids=lambda path: path.stem)
BASES = [
    "michiyasunaga/BioLinkBERT-large",
    "google/gemma-2-2b-it",
    "Qwen/Qwen3-Embedding-4B",
    "sentence-transformers/all-mpnet-base-v2",
    "Qwen/Qwen2.5-0.5B",
    "BAAI/bge-large-en-v1.5",
    "intfloat/e5-large-v2",
    "BAAI/bge-small-en-v1.5",
    "BAAI/bge-m3",
    "jinaai/jina-embeddings-v2-base-en",
    "Qwen/Qwen3-Embedding-8B",
    "Qwen/Qwen3-Embedding-0.6B",
]
EAGER = ("gemma-2-2b-it", "all-mpnet-base-v2")
ENCODERS = re.compile(r"bge|e5|mpnet|jina|BioLinkBERT")


def header(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    return "\n".join(line[1:] for line in lines[: next(i for i, line in enumerate(lines) if line[:1] != "#")])


def overrides(text):
    return [quoted or plain for quoted, plain in re.findall(r"--set\s+(?:'([^']+)'|([\w.]+=[^\s,;:]+))", text)]


@each_shipped
def test_the_file_loads_and_its_run_dir_is_its_own(path):
    assert load_settings(path).run_dir.startswith("runs/")
    assert len({load_settings(other).run_dir for other in SHIPPED}) == len(SHIPPED)


@each_shipped
def test_scripts_and_files_of_the_header_exist(path):
    text = header(path)
    scripts = re.findall(r"\b(0\d_\w+)(?=\.py|[\s;])", text)
    assert all((ROOT / f"{script}.py").is_file() for script in scripts), scripts
    configs = re.findall(r"--config (\S+?)[;.,]?(?=\s|$)", text)
    assert all((ROOT / config).resolve() == path for config in configs), configs
    assert path.stem == "config" or configs or re.search(r"\bmake \w+", text)
    targets = re.findall(r"\bmake (\w+)", text)
    assert all(f"\n{target}:" in (ROOT / "Makefile").read_text(encoding="utf-8") for target in targets)


@each_shipped
def test_every_set_of_the_header_is_accepted(path):
    found = overrides(header(path))
    assert found or path.parent.name != "study"
    for override in found:
        changed = load_settings(path, [override])
        assert changed != load_settings(path), f"{override} changes nothing"
    load_settings(path, found)


def test_there_is_one_file_a_base_of_the_study():
    bases = {path.stem: load_settings(path).model.base.partition("@")[0] for path in STUDY}
    assert sorted(bases.values()) == sorted(BASES)
    assert all(base.rpartition("/")[2] == stem for stem, base in bases.items())
    assert {architecture.config for architecture in ARCHITECTURES} <= bases.keys()


@each_study
def test_the_recipe_is_the_studys(path):
    settings = load_settings(path)
    assert settings.run_dir == f"runs/study/{path.stem}"
    model, lora, train = settings.model, settings.model.lora, settings.train
    assert (model.quantization, model.dtype, model.trust_remote_code) == ("int8", "bfloat16", False)
    assert model.max_length == (384 if path.stem == "all-mpnet-base-v2" else 512)
    assert (lora.r, lora.lora_alpha, lora.target_modules) == (16, 32, "query-value")
    assert (train.loss, train.temperature, train.learning_rate) == ("multiple_negatives_ranking", 0.05, 2e-5)
    assert (train.warmup_ratio, train.num_train_epochs, train.per_device_train_batch_size) == (0.1, 2, 8)


@each_study
def test_the_revision_is_a_commit_or_its_absence_is_explained(path):
    revision = load_settings(path).model.base.partition("@")[2]
    assert re.fullmatch(r"[0-9a-f]{40}", revision) or "Not pinned" in header(path)


@each_study
def test_the_header_leads_to_the_first_papers_recipe(path):
    found = [item for item in overrides(header(path)) if not item.startswith("model.base=")]
    assert found[0] == "model.lora.target_modules=all-linear"
    settings = load_settings(path, found)
    paper = load_settings(ROOT / "config.yaml")
    assert settings.model.lora == paper.model.lora
    same = ("loss", "temperature", "learning_rate", "per_device_train_batch_size", "num_train_epochs", "warmup_ratio")
    assert all(getattr(settings.train, name) == getattr(paper.train, name) for name in same)
    assert settings.run_dir == f"runs/study/{path.stem}-all-linear"


@each_study
def test_prompts_and_pooling_are_the_bases(path):
    model = load_settings(path).model
    prompts = {"e5-large-v2": ("query: ", "query: ")}
    if path.stem.startswith("bge") or path.stem.startswith("jina"):
        prompts[path.stem] = (None, None)
    assert (model.anchor_prompt, model.positive_prompt) == prompts.get(path.stem, ("auto", "auto"))
    pooling = "cls" if path.stem.startswith("bge") else "mean" if ENCODERS.search(path.stem) else "lasttoken"
    assert model.pooling == pooling
    assert model.attn_implementation == ("eager" if path.stem in EAGER else "auto")
