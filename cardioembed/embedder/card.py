"""The README of a trained model's folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from cardioembed.embedder.encoder import Embedder
from cardioembed.embedder.jina_bert import JinaBertConfig

_MEASURES = {"accuracy@1": "Accuracy@1", "mrr": "MRR"}
_SHOWN = (
    "loss", "temperature", "symmetric", "false_negative_margin", "triplet_margin", "triplet_distance",
    "opposed_weight", "opposed_margin", "distillation", "drop_final_punctuation", "interpolation",
    "matryoshka_dims", "num_train_epochs", "learning_rate", "lr_scheduler_type", "warmup_ratio", "weight_decay", "bf16",
)  # fmt: skip
_PEER = """from sentence_transformers import SentenceTransformer

model = SentenceTransformer("path/to/this/folder")"""
_OURS = """from cardioembed.embedder.saving import load_model

model = load_model("path/to/this/folder")"""
_ENCODE = 'vectors = model.encode(["Severe aortic stenosis narrows the valve area."])'


@dataclass(frozen=True)
class Exported:
    """What the card of an exported model, whose weights are whole, says otherwise.

    Attributes:
        opening: Python that encodes with it; None for that of a model folder.
        note: What was done to the trained model and what it cost, in Markdown.
        library: The hub's name of the library that opens it; None for that of a model folder.
    """

    note: str
    opening: str | None = None
    library: str | None = None


def model_card(embedder: Embedder, summary: dict[str, Any], exported: Exported | None = None) -> str:
    """Markdown with Hugging Face metadata: what the model is, was trained on, scored, and is not for.

    Args:
        embedder: The trained one.
        summary: What stage 03 saves with the model.
        exported: For a model that was exported.
    """
    recipe, own = embedder.recipe, _only_opens_here(embedder) and not (exported and exported.opening)
    base, best = summary["base_validation"], summary["best_validation"]
    scores = "\n".join(f"| {shown} | {base[key]:.4f} | {best[key]:.4f} |" for key, shown in _MEASURES.items())
    prompts = "\n".join(f"- `{name}`: `{text!r}`" for name, text in recipe.prompts.items()) or "none"
    adapter = "A LoRA adapter merged into" if exported else "A LoRA adapter on"
    kind = "All weights of" if summary["fine_tuning"] == "full" else adapter
    held = recipe.quantization if recipe.quantization != "none" else recipe.dtype
    held = f"weights in {held}" if exported else f"base held\nin memory as {held}"
    note = f"\n## Export\n\n{exported.note}\n" if exported else ""
    opening = f"{_OURS if own else _PEER}\n\n{_ENCODE}"
    return f"""---
{_metadata(embedder, summary, exported)}
---

# A cardiology text-embedding model

{kind} {_named_base(embedder)}, trained by contrast of textbook sentences with their paraphrases. Vectors have
{embedder.dimension} dimensions and unit length; {recipe.pooling} pooling; at most {recipe.max_length} tokens; {held}.

```python
{exported.opening if exported and exported.opening else opening}
```
{_NO_PEER if own else ""}
Prompts: {prompts}
{note}
## Training

{summary["triplets"]:,} triplets{f" from {summary['books']:,} books" if summary.get("books") else ""},
{summary["steps"]:,} steps of {summary["global_batch"]:,} rows, {summary["tokens"]:,} tokens;
{summary["trainable_parameters"]:,} of {summary["total_parameters"]:,} parameters trained. The weights of step
{summary["best_step"]} were kept.

{_settings(summary)}

## Results

{summary["validation_pairs"]:,} validation pairs: each anchor looks for its own paraphrase among all of them.

| validation | base | adapted |
|---|---|---|
{scores}

The adapted column is the best of several validations and so a little optimistic; the held-out test results are in
`04_evaluation/` of the run.

## Use

For research on retrieval, clustering and similarity of cardiology text. Not a medical device; not for decisions about
patients. Licence: that of the base and of the training texts.
"""


_NO_PEER = """
The base is a JinaBERT, which sentence-transformers and PEFT cannot open without code from the hub: this folder opens
with this project's `load_model` only.
"""


def _metadata(embedder: Embedder, summary: dict[str, Any], exported: Exported | None) -> str:
    """The YAML header; a licence is not in it, since it depends on the base and on the training texts."""
    full = summary["fine_tuning"] == "full" or exported is not None
    library = None if _only_opens_here(embedder) else "sentence-transformers"
    if exported and exported.library:
        library = exported.library
    tags = ["feature-extraction", "cardiology", *([library] if library else [])]
    local = is_local(embedder.base.name)
    return ModelCardData(
        base_model=None if local else embedder.base.name,
        base_model_relation=None if local else "finetune" if full else "adapter",
        language=summary.get("language"),
        library_name=library,
        pipeline_tag="sentence-similarity",
        tags=[*tags, *([] if full else ["peft", "lora"])],
        model_name="Cardiology text-embedding model",
        eval_results=[
            EvalResult(
                task_type="sentence-similarity",
                dataset_type="cardiology-paraphrases",
                dataset_name="Cardiology paraphrases",
                dataset_split="validation",
                metric_type=key,
                metric_name=shown,
                metric_value=round(summary["best_validation"][key], 4),
            )
            for key, shown in _MEASURES.items()
        ],
    ).to_yaml()


def _settings(summary: dict[str, Any]) -> str:
    """A table of the settings that decide the weights; those of another loss are left out."""
    values = {name: summary["settings"][f"train.{name}"] for name in _SHOWN}
    own = {
        "triplet_margin": {"triplet_margin", "triplet_distance"},
        "opposed_statements": {"temperature", "opposed_weight", "opposed_margin"},
    }
    of_losses = set().union(*own.values(), {"symmetric"})
    off = {"distillation": 0.0, "drop_final_punctuation": 0.0, "interpolation": 1.0}
    absent = {name for name, value in off.items() if values[name] == value}
    absent |= of_losses - own.get(values["loss"], {"temperature", "symmetric"})
    rows = {name: value for name, value in values.items() if name not in absent and value not in (None, [])}
    if summary["fine_tuning"] == "lora":
        rows |= {key: value for key, value in summary["settings"].items() if key.startswith("model.lora.")}
    lines = [f"| `{name.removeprefix('model.lora.')}` | `{value}` |" for name, value in rows.items()]
    return "\n".join(["| setting | value |", "|---|---|", *lines])


def _named_base(embedder: Embedder) -> str:
    if is_local(embedder.base.name):  # the path says nothing to others, and more than it should
        return f"the local base `{Path(embedder.base.name).name}`"
    return f"`{embedder.base.name}`" + (f" at revision `{embedder.base.revision}`" if embedder.base.revision else "")


def is_local(name: str) -> bool:
    """Whether a base's name is of a folder, here or where it was trained, and not a hub id."""
    return Path(name).is_dir() or name.startswith((".", "/", "~")) or name.count("/") != 1


def _only_opens_here(embedder: Embedder) -> bool:
    model = embedder.model
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    return isinstance(inner.config, JinaBertConfig)
