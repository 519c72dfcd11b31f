import re
from pathlib import Path

import pytest
import yaml

from cardioembed.config import Settings, flatten, to_yaml
from cardioembed.config_file import load_settings
from cardioembed.errors import UserError
from cardioembed.paraphrases.languages import FUNCTION_WORDS

ROOT = Path(__file__).parents[1]
# configs/study*.yaml are lists of such files, see test_study.py.
LISTS = set(ROOT.glob("configs/study*.yaml"))
SHIPPED = sorted({*ROOT.glob("*.yaml"), *ROOT.glob("configs/**/*.yaml")} - LISTS)
PIN = "4e423935c619ae4df87b646a3ce949610c66241c"


@pytest.fixture
def config(tmp_path):
    def write(text: str) -> Path:
        path = tmp_path / "run.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def message(path, *overrides):
    with pytest.raises(UserError) as caught:
        load_settings(path, overrides)
    return str(caught.value)


def test_two_or_more_yaml_files_are_shipped():
    assert {"config.yaml", "laptop.yaml"} <= {path.name for path in SHIPPED}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_shipped_yaml_validates(path):
    assert load_settings(path).run_dir


def test_config_yaml_is_the_paper_run_and_names_every_key():
    path = ROOT / "config.yaml"
    assert load_settings(path) == Settings()
    assert set(flatten(yaml.safe_load(path.read_text(encoding="utf-8")))) == set(flatten(Settings()))


def test_the_papers_values_stand():
    flat = flatten(Settings())
    expected = {
        "seed": 42,
        "merge.min_characters": 20,
        "prepare.split.train": 0.85,
        "prepare.negatives.distant": 1.0,
        "prepare.min_distance": 50,
        "model.quantization": "int8",
        "model.max_length": 512,
        "model.lora.r": 16,
        "model.lora.lora_alpha": 32,
        "model.lora.lora_dropout": 0.05,
        "train.temperature": 0.05,
        "train.per_device_train_batch_size": 128,
        "train.num_train_epochs": 2,
        "train.learning_rate": 2e-4,
    }
    assert {key: flat[key] for key in expected} == expected


def test_empty_file_gives_the_defaults(config):
    assert load_settings(config("")) == Settings()
    assert load_settings(config("# only a comment\n")) == Settings()


def test_left_out_keys_of_a_block_keep_their_defaults(config):
    settings = load_settings(config("train:\n  learning_rate: 1e-3\n"))
    assert settings.train.learning_rate == 0.001
    assert settings.train.temperature == 0.05
    assert settings.merge.min_characters == 20


def test_byte_order_mark_and_windows_line_ends_are_read(tmp_path):
    path = tmp_path / "windows.yaml"
    path.write_bytes(b"\xef\xbb\xbfseed: 7\r\ntrain:\r\n  num_train_epochs: 3\r\n")
    settings = load_settings(path)
    assert (settings.seed, settings.train.num_train_epochs) == (7, 3)


def test_saved_yaml_reads_back_to_the_same_settings(config):
    settings = load_settings(config("run_dir: runs/Ménière\nmodel:\n  anchor_prompt: 'query: '\n"))
    assert load_settings(config(to_yaml(settings))) == settings


def test_flatten_names_nested_keys_by_their_path():
    assert flatten({"a": 1, "b": {"c": 2, "d": {"e": [3, 4]}}}) == {"a": 1, "b.c": 2, "b.d.e": [3, 4]}


def test_one_place_may_be_written_without_a_list(config):
    merge = load_settings(config("merge:\n  books: shelf\n  paraphrases: out.jsonl\n")).merge
    assert (merge.books, merge.paraphrases) == (["shelf"], ["out.jsonl"])


def test_settings_cannot_be_changed_after_validation():
    with pytest.raises(ValueError, match="frozen"):
        Settings().seed = 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("train:\n  lerning_rate: 1.0e-4\n", r"line 2: train\.lerning_rate: unknown key; .* train\.learning_rate\?"),
        ("merge:\n  min_character: 5\n", r"line 2: merge\.min_character: .*did you mean merge\.min_characters\?"),
        ("learning_rate: 0.1\n", r"line 1: learning_rate: unknown key; did you mean train\.learning_rate\?"),
        ("sed: 1\n", r"sed: unknown key; did you mean seed\?"),
        ("model:\n  lora:\n    rank_alpha: 3\n", r"line 3: model\.lora\.rank_alpha: unknown key"),
        ("xyzzy: 1\n", r"xyzzy: unknown key; see config\.yaml"),
        ("1: 2\n", r"line 1: 1: .*keys should be strings"),
    ],
)
def test_unknown_key_names_the_nearest_one(config, text, expected):
    with pytest.raises(UserError, match=expected):
        load_settings(config(text))


def test_dotted_key_in_yaml_is_not_told_to_become_itself(config):
    assert "did you mean train.learning_rate?" not in message(config("train.learning_rate: 1.0e-4\n"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("train:\n  temperature: hot\n", r"line 2: train\.temperature: 'hot' is not allowed: .*a valid number"),
        ("train:\n  num_train_epochs: 1.5\n", r"train\.num_train_epochs: 1\.5 is not allowed: .*valid integer"),
        ("train:\n  bf16: perhaps\n", r"train\.bf16: 'perhaps' is not allowed: .*valid boolean"),
        ("train: 5\n", r"line 1: train: 5 is not allowed: .*valid dictionary"),
        ("run_dir: 2025\n", r"run_dir: 2025 is not allowed: .*valid string"),
        ("merge:\n  books: 5\n", r"merge\.books: 5 is not allowed: .*valid list"),
        ("merge:\n  paraphrases: [a.jsonl, 7]\n", r"merge\.paraphrases\.1: 7 is not allowed: .*valid string"),
        ("seed: -1\n", r"line 1: seed: -1 is not allowed: .*greater than or equal to 0"),
        ("seed: 4294967296\n", r"seed: 4294967296 is not allowed: .*less than 4294967296"),
        ("device: gpu\n", r"device: 'gpu' is not allowed: input should be 'auto', 'cpu', 'cuda' or 'mps'"),
        ("model:\n  quantization: int4\n", r"model\.quantization: 'int4' is not allowed: .*'none', 'int8' or 'nf4'"),
        ("prepare:\n  negatives: near\n", r"prepare\.negatives: 'near' is not allowed: .*'distant', "),
        ("prepare:\n  negatives_per_anchor: 0\n", r"prepare\.negatives_per_anchor: 0 is not allowed"),
        ("prepare:\n  near_duplicate_jaccard: 1.01\n", r"near_duplicate_jaccard: 1\.01 is not allowed"),
        ("merge:\n  min_length_ratio: .nan\n", r"merge\.min_length_ratio: nan is not allowed"),
        ("model:\n  lora:\n    target_modules: 5\n", r"line 3: model\.lora\.target_modules: 5 is not allowed"),
        ("train:\n  eval_steps: 1.5\n", r"train\.eval_steps: 1\.5 is neither a share .* nor a whole number"),
    ],
)
def test_wrong_value_names_key_line_value_and_what_is_allowed(config, text, expected):
    with pytest.raises(UserError, match=expected):
        load_settings(config(text))


def test_infinite_step_count_is_a_user_error(config):
    with pytest.raises(UserError, match=r"train\.eval_steps"):
        load_settings(config("train:\n  eval_steps: .inf\n"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("merge:\n  min_characters: 100\n  max_characters: 50\n", r"min_characters \(100\) must be below .*\(50\)"),
        ("prepare:\n  split: {train: 0.8, validation: 0.1, test: 0.2}\n", r"prepare\.split: .*must be 1, they .* 1\.1"),
        ("prepare:\n  split: {train: 0.5}\n", r"prepare\.split: .*they add up to 0\.65"),
        ("device: cpu\nmodel:\n  dtype: float16\n", r"device: cpu with .*float16 .*choose float32 or bfloat16"),
        ("device: cuda\nmodel:\n  dtype: float16\n", r"float16 with train\.bf16: true .*change one of them"),
        ("model:\n  base: a/b@main\n  trust_remote_code: true\n", r"model: trust_remote_code .*40-digit commit"),
        ("run_dir: '  '\n", r"run_dir is empty; name a folder"),
    ],
)
def test_impossible_pair_is_refused(config, text, expected):
    with pytest.raises(UserError, match=expected):
        load_settings(config(text))


def test_pinned_remote_code_and_half_precision_without_bf16_are_possible(config):
    text = (
        f"model:\n  base: a/b@{PIN}\n  trust_remote_code: true\n  dtype: float16\ntrain:\n  bf16: false\ndevice: cuda\n"
    )
    assert load_settings(config(text)).model.trust_remote_code is True


def test_several_mistakes_are_reported_at_once(config):
    text = message(
        config(
            "seed: -1\ntrain:\n  lerning_rate: 1\n  temperature: hot\nmerge: {min_characters: 90, max_characters: 80}\n"
        ),
        "prepare.min_distance=near",
    )
    assert text.startswith("5 mistakes in the settings:")
    for part in (
        "line 1: seed: -1",
        "line 3: train.lerning_rate: unknown key",
        "line 4: train.temperature: 'hot'",
        "min_characters (90) must be below",
        "--set prepare.min_distance=near: prepare.min_distance: 'near'",
    ):
        assert part in text


def test_an_impossible_pair_of_blocks_is_reported_with_the_other_mistakes(config):
    text = message(config("sed: 1\ndevice: cpu\nmodel:\n  dtype: float16\n"))
    assert "sed: unknown key" in text
    assert "device: cpu with model.dtype: float16" in text


def test_one_mistake_is_counted_once(config):
    assert message(config("seed: -1\n")).startswith("1 mistake in the settings:")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("seed: 1\ndevice: cpu\nseed: 2\n", r"line 3: seed is set twice \(first on line 1\); keep one"),
        ("train:\n  bf16: true\n\n  bf16: false\n", r"line 4: train\.bf16 is set twice \(first on line 2\)"),
        ("model:\n  lora: {r: 8, r: 16}\n", r"line 2: model\.lora\.r is set twice"),
        ("train:\n  bf16: true\ntrain:\n  bf16: true\n", r"line 3: train is set twice \(first on line 1\)"),
    ],
)
def test_duplicate_key_is_refused_with_both_lines(config, text, expected):
    with pytest.raises(UserError, match=expected):
        load_settings(config(text))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("seed: 1\ntrain: a: b\n", r"run\.yaml, line 2: not valid YAML .*Check indentation"),
        ("\tseed: 1\n", r"line 1: not valid YAML"),
        ("seed: [1, 2\n", r"not valid YAML"),
        ("- seed\n", r"expected 'key: value' lines at the top, found a list"),
        ("just words\n", r"found a str"),
        ("seed: !!python/object/apply:os.getpid []\n", r"line 1: not valid YAML"),
    ],
)
def test_broken_yaml_names_the_line(config, text, expected):
    with pytest.raises(UserError, match=expected):
        load_settings(config(text))


def test_missing_file_lists_the_configs_there_are(monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(UserError, match=r"labtop\.yaml does not exist.*config\.yaml, .*configs/laptop\.yaml"):
        load_settings("configs/labtop.yaml")


def test_missing_file_in_an_empty_folder_says_none(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"config\.yaml does not exist\. Give one with --config; here are: none"):
        load_settings("config.yaml")


def test_folder_and_latin1_file_cannot_be_read(tmp_path):
    with pytest.raises(UserError, match="cannot be read as UTF-8 text"):
        load_settings(tmp_path)
    path = tmp_path / "latin.yaml"
    path.write_bytes("run_dir: runs/Ménière\n".encode("latin-1"))
    with pytest.raises(UserError, match=r"latin\.yaml cannot be read as UTF-8 text"):
        load_settings(path)


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("train.learning_rate=1e-4", "train.learning_rate", 0.0001),
        ("train.max_steps=null", "train.max_steps", None),
        ("train.bf16=false", "train.bf16", False),
        ("merge.books=[a, 'b c']", "merge.books", ["a", "b c"]),
        ("merge.books=shelf", "merge.books", ["shelf"]),
        ("merge.paraphrases=[]", "merge.paraphrases", []),
        ("model.lora.target_modules=[q_proj]", "model.lora.target_modules", ["q_proj"]),
        ("model.base=me/base=x", "model.base", "me/base=x"),
        ("model.anchor_prompt=", "model.anchor_prompt", None),
        (" seed =7", "seed", 7),
    ],
)
def test_override_is_read_as_yaml_and_wins_over_the_file(config, override, key, value):
    text = "seed: 1\ntrain: {learning_rate: 0.1, max_steps: 9}\nmerge: {books: [x], paraphrases: [y]}\n"
    assert flatten(load_settings(config(text), [override]))[key] == value


def test_override_reaches_a_block_that_the_file_left_empty(config):
    assert load_settings(config("train:\n"), ["train.num_train_epochs=4"]).train.num_train_epochs == 4


def test_the_last_of_two_overrides_wins(config):
    assert load_settings(config(""), ["seed=1", "seed=2"]).seed == 2


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("train.learning_rate", r"expected key\.path=value, for example --set train\.learning_rate=1e-4"),
        ("=1", r"--set '=1': expected key\.path=value"),
        ("merge.books=[a", r"the value is not valid YAML; quote it"),
        ("seed.x=1", r"--set 'seed\.x=1': seed is a value, not a block of settings"),
        ("train.temprature=1", r"--set train\.temprature=1: .*unknown key; did you mean train\.temperature\?"),
        ("train.temperature=0", r"--set train\.temperature=0: train\.temperature: 0 is not allowed: .*greater than 0"),
        ("model.base=", r"model\.base: None is not allowed"),
        ("train=3", r"--set train=3: train: 3 is not allowed"),
    ],
)
def test_wrong_override_is_quoted_in_the_error(config, override, expected):
    with pytest.raises(UserError, match=expected):
        load_settings(config("seed: 1\n"), [override])


@pytest.mark.parametrize("value", ["0.25", "1", "40"])
def test_steps_are_a_share_or_a_whole_number(config, value):
    assert load_settings(config(f"train:\n  eval_steps: {value}\n")).train.eval_steps == float(value)


def test_one_kind_of_negatives_may_be_named_alone(config):
    assert load_settings(config("prepare:\n  negatives: mined\n")).prepare.negatives == {"mined": 1.0}
    mixed = load_settings(config("prepare:\n  negatives: {distant: 1, counterfactual: 3}\n")).prepare.negatives
    assert mixed == {"distant": 1.0, "counterfactual": 3.0}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("prepare:\n  negatives: nearest\n", r"line 2: prepare\.negatives.*'nearest' is not allowed.*'mined'"),
        ("prepare:\n  negatives: {distant: 0}\n", "distant: 0 is not a weight above 0; leave out a kind"),
        ("prepare:\n  negatives: {}\n", "no kind is named; give one or several with weights"),
        ("prepare:\n  split: {by: chapter}\n", r"prepare\.split\.by: 'chapter' is not allowed.*'section' or 'book'"),
        ("prepare:\n  mined: {range_min: 9, range_max: 9}\n", r"range_min \(9\) must be below range_max \(9\)"),
        ("prepare:\n  counterfactual: {of: []}\n", r"prepare\.counterfactual\.of"),
        ("merge:\n  ocr: {engine: abbyy}\n", "'abbyy' is not allowed: input should be 'none', 'tesseract' or 'openai'"),
        ("merge:\n  embedding_gate: {min_cosine: 0.9, max_cosine: 0.8}\n", "0.9.* must be below max_cosine .0.8."),
        ("merge:\n  generators: [{name: a, model: m}, {name: a, model: n}]\n", "two are named 'a'; a name marks"),
        ("merge:\n  generators: [{name: a b, model: m}]\n", "'a b' is not allowed"),
        ("merge:\n  generators: [{name: a, model: m, prompt: short}]\n", "'short' is not allowed"),
        ("merge:\n  generators: [{name: a, modle: m}]\n", r"modle: unknown key; did you mean merge.generators.0.model"),
    ],
)
def test_mistakes_in_the_data_stages_are_named(config, text, expected):
    assert re.search(expected, message(config(text)))


def test_languages_are_those_that_the_gate_knows():
    for language in [*FUNCTION_WORDS, None]:
        assert Settings(merge={"language": language}).merge.language == language
    with pytest.raises(ValueError, match="'en', 'de', 'fr'"):
        Settings(merge={"language": "tlh"})
