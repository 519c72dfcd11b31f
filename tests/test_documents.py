"""What the README and the configs promise exists and works."""

import re
import subprocess

import pytest
import yaml
from texts import ROOT

from cardioembed.config import Settings, flatten
from cardioembed.config_file import load_settings

README = (ROOT / "README.md").read_text(encoding="utf-8")
# configs/study*.yaml are lists of such files, see test_study.py.
LISTS = set((ROOT / "configs").glob("study*.yaml"))
CONFIGS = sorted({ROOT / "config.yaml", *(ROOT / "configs").rglob("*.yaml")} - LISTS)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_every_shipped_config_is_valid(path):
    assert load_settings(path).run_dir.startswith("runs/")


def test_config_yaml_spells_out_the_defaults_and_they_are_the_papers():
    settings = load_settings(ROOT / "config.yaml")
    assert settings == Settings()
    assert settings.model.base.startswith("Qwen/Qwen3-Embedding-8B@")
    assert settings.model.quantization == "int8"
    lora, train, split = settings.model.lora, settings.train, settings.prepare.split
    assert (lora.r, lora.lora_alpha, lora.lora_dropout, lora.target_modules) == (16, 32, 0.05, "all-linear")
    assert (train.loss, train.temperature, train.learning_rate, train.warmup_ratio) == ("info_nce", 0.05, 2e-4, 0.1)
    assert (train.per_device_train_batch_size, train.num_train_epochs) == (128, 2)
    assert (split.train, split.validation, split.test, settings.seed) == (0.85, 0.10, 0.05, 42)
    # 106,386 triplets in whole batches of 128, twice: the paper's number of steps.
    assert 2 * (106_386 // train.per_device_train_batch_size) == 1662


def test_config_yaml_states_every_setting():
    stated = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))
    assert flatten(stated).keys() == flatten(Settings()).keys()


def code_blocks():
    return [block for _, block in re.findall(r"```(\w*)\n(.*?)```", README, re.DOTALL)]


def test_every_path_in_the_readme_exists():
    generated = re.compile(r"^(runs/|data/books|data/paraphrases|\.venv|path/|biosses)")
    names = set(re.findall(r"(?<![\w/.])((?:[\w.-]+/)*[\w.-]+\.(?:py|yaml|jsonl|md|txt|toml))\b", README))
    names |= set(re.findall(r"`((?:[\w.-]+/)+)`", README))
    checked = {name for name in names if not generated.match(name) and not re.match(r"0\d_\w+\.jsonl?$", name)}
    missing = [name for name in checked if not (ROOT / name).exists() and not list(ROOT.glob(f"**/{name}"))]
    assert len(checked) > 10
    assert not missing


def test_every_line_of_the_file_tree_exists():
    (tree,) = re.findall(r"```text\n(.*?)```", README, re.DOTALL)
    parent, count = "", 0
    for line in tree.splitlines():
        name = line.split()[0]
        parent = name if line.strip() == name else parent if line.startswith(" ") else ""
        assert (ROOT / (parent if parent != name else "") / name).exists(), line
        count += 1
    assert count >= 20


def test_every_make_target_in_the_readme_exists():
    targets = set(re.findall(r"\bmake (\w+)", README))
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert {"demo", "test"} <= targets
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)


def test_every_setting_in_the_readme_is_accepted():
    overrides = [quoted or plain for quoted, plain in re.findall(r"--set (?:'([^']+)'|([\w.]+=[^\s'`]+))", README)]
    assert len(overrides) >= 3
    for override in overrides:
        load_settings(ROOT / "config.yaml", [override])


def test_every_script_line_in_the_readme_names_a_config_that_validates():
    lines = [
        line for block in code_blocks() for line in block.splitlines() if re.match(r"(\.venv/bin/)?python 0\d_", line)
    ]
    assert len(lines) >= 5
    for line in lines:
        script = re.search(r"0\d_\w+\.py", line)[0]
        assert (ROOT / script).is_file()
        config = re.search(r"--config (\S+)", line)
        load_settings(ROOT / (config[1] if config else "config.yaml"), re.findall(r"--set '?([^\s']+)", line))


def test_python_in_the_readme_compiles():
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert blocks
    for block in blocks:
        compile(block, "README.md", "exec")


def test_no_secret_path_or_host_is_tracked():
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split()
    if not tracked:
        pytest.skip("not a git checkout")
    for name in tracked:
        assert not name.endswith((".bin", ".pt", ".pkl", ".pth"))
