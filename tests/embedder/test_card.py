import yaml
from huggingface_hub import ModelCard

from cardioembed.config import Settings, flatten
from cardioembed.embedder.adapters import attach_lora, train_everything
from cardioembed.embedder.bases import Base
from cardioembed.embedder.card import model_card
from cardioembed.embedder.encoder import load_embedder
from cardioembed.training.checkpoints import Progress
from cardioembed.training.summary import training_summary

PROGRESS = Progress(
    step=99, base_score=[0.9208, 0.9460], best_step=75, best_score=[0.97654, 0.98705], masked_pairs=22, tokens=248_236
)


def card(folder, *, full=False, hub=True, language="en", **settings):
    embedder = load_embedder(str(folder), max_length=64, device="cpu")
    if full:
        train_everything(embedder.model)
    else:
        embedder.model = attach_lora(
            embedder.model, r=2, lora_alpha=4, lora_dropout=0.0, target_modules="all-linear", base_reference="x",
            revision=None,
        )  # fmt: skip
    if hub:
        embedder.base = Base("owner/a-base", "0123456789abcdef", folder, "owner/a-base")
    rows = [{"source": f"book {i % 3}"} for i in range(2353)]
    flat = flatten(Settings()) | {f"train.{name}": value for name, value in settings.items()}
    return model_card(
        embedder,
        {
            **training_summary(embedder, PROGRESS, rows), "validation_pairs": 341, "global_batch": 24,
            "fine_tuning": "full" if full else "lora", "language": language, "settings": flat,
        },
    )  # fmt: skip


def test_metadata_parses_and_is_the_hubs(tiny_bert):
    text = card(tiny_bert)
    header = yaml.safe_load(text.split("---\n")[1])
    assert header["base_model"] == "owner/a-base"
    assert header["base_model_relation"] == "adapter"
    assert header["library_name"] == "sentence-transformers"
    assert header["pipeline_tag"] == "sentence-similarity"
    assert header["language"] == "en"
    assert {"sentence-transformers", "peft", "lora"} <= set(header["tags"])
    assert not {"license", "datasets"} & set(header)
    data = ModelCard(text).data
    assert {result.metric_type: result.metric_value for result in data.eval_results} == {
        "accuracy@1": 0.9765,
        "mrr": 0.9870,
    }
    assert {result.dataset_split for result in data.eval_results} == {"validation"}
    assert yaml.safe_load(data.to_yaml()) == header


def test_text_tells_base_data_results_and_limits(tiny_bert):
    text = " ".join(card(tiny_bert).split())
    for part in (
        "A LoRA adapter on `owner/a-base` at revision `0123456789abcdef`",
        "2,353 triplets from 3 books, 99 steps of 24 rows, 248,236 tokens;",
        "The weights of step 75 were kept.",
        "| `learning_rate` | `0.0002` |",
        "| `r` | `16` |",
        "| `temperature` | `0.05` |",
        "341 validation pairs",
        "| Accuracy@1 | 0.9208 | 0.9765 |",
        "For research on retrieval",
        "Not a medical device; not for decisions about patients.",
        'SentenceTransformer("path/to/this/folder")',
    ):
        assert part in text
    assert "triplet_margin" not in text
    assert "matryoshka" not in text


def test_python_of_the_card_compiles(tiny_bert, tiny_jina):
    for folder in (tiny_bert, tiny_jina):
        (code,) = [part.split("```")[0] for part in card(folder).split("```python\n")[1:]]
        compile(code, "README.md", "exec")


def test_a_fully_tuned_model_is_no_adapter(tiny_bert):
    text = card(tiny_bert, full=True)
    data = ModelCard(text).data
    assert data.base_model_relation == "finetune"
    assert not {"peft", "lora"} & set(data.tags)
    assert "All weights of `owner/a-base`" in text
    assert "lora" not in text.lower()


def test_a_jinabert_says_that_only_this_project_opens_it(tiny_jina):
    text = card(tiny_jina)
    data = ModelCard(text).data
    assert data.library_name is None
    assert "sentence-transformers" not in data.tags
    assert "load_model(" in text
    assert "SentenceTransformer(" not in text
    assert "this folder opens\nwith this project's `load_model` only" in text


def test_a_local_base_is_named_without_its_path(tiny_bert):
    text = card(tiny_bert, hub=False, language=None)
    header = yaml.safe_load(text.split("---\n")[1])
    assert not {"base_model", "base_model_relation", "language"} & set(header)
    assert f"`{tiny_bert.name}`" in text
    assert str(tiny_bert.parent) not in text


def test_settings_of_the_loss_in_use_are_shown(tiny_bert):
    text = card(tiny_bert, loss="triplet_margin", matryoshka_dims=[64, 32])
    assert "| `triplet_distance` | `euclidean` |" in text
    assert "`temperature`" not in text
    assert "| `matryoshka_dims` | `[64, 32]` |" in text
