"""The README of a trained model's folder."""

from __future__ import annotations

from typing import Any

from cardioembed.embedder.encoder import Embedder


def model_card(embedder: Embedder, summary: dict[str, Any]) -> str:
    """Markdown with Hugging Face metadata: what the model is, was trained on, scored, and is not for."""
    recipe = embedder.recipe
    base, best = summary["base_validation"], summary["best_validation"]
    prompts = "\n".join(f"- `{name}`: `{text!r}`" for name, text in recipe.prompts.items()) or "none"
    return f"""---
base_model: {embedder.base.name}
library_name: sentence-transformers
pipeline_tag: sentence-similarity
tags: [sentence-transformers, peft, lora, cardiology]
---

# A cardiology text-embedding model

A LoRA adapter on `{embedder.base.name}`{f" at revision `{embedder.base.revision}`" if embedder.base.revision else ""},
trained by contrast of textbook sentences with their paraphrases. Vectors have {embedder.dimension} dimensions and unit
length; {recipe.pooling} pooling; at most {recipe.max_length} tokens; base held in memory as
{recipe.quantization if recipe.quantization != "none" else recipe.dtype}.

```python
from sentence_transformers import SentenceTransformer

model = SentenceTransformer("path/to/this/folder")
```

Prompts: {prompts}

## Training

{summary["triplets"]:,} triplets, {summary["steps"]:,} steps, {summary["tokens"]:,} tokens; the weights of step
{summary["best_step"]} were kept.

| validation | base | adapted |
|---|---|---|
| accuracy@1 | {base["accuracy@1"]:.4f} | {best["accuracy@1"]:.4f} |
| MRR | {base["mrr"]:.4f} | {best["mrr"]:.4f} |

The adapted column is the best of several validations and so a little optimistic; the held-out test results are in
`04_evaluation/`.

## Use

For research on retrieval, clustering and similarity of cardiology text. Not a medical device; not for decisions about
patients. Licence: that of the base and of the training texts.
"""
