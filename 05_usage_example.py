"""Stage 05: a guided tour of a trained model, and the import for notebooks.

reads   03_model/, and 01_sentences.jsonl (or 02_labelled_test.jsonl), which it searches
writes  05_vectors.safetensors   vectors of the first sentences, saved and opened again
        05_index/                a search index of them, which knows its model

In a notebook (examples/quickstart.ipynb is one):

    import importlib
    usage = importlib.import_module("05_usage_example")
    model = usage.load_model("runs/laptop/03_model")
    vectors = model.encode(["Severe aortic stenosis.", "Critical narrowing of the aortic valve."])
    model.similarity(vectors, vectors)
    usage.search(model, "when to implant a pacemaker", my_sentences)

example python 05_usage_example.py --config configs/laptop.yaml
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from safetensors.numpy import load_file, save_file

from cardioembed import stage
from cardioembed.config import Settings
from cardioembed.errors import UserError
from cardioembed.records import Row, atomic_folder, atomic_path, read_jsonl

if TYPE_CHECKING:
    from cardioembed.embedder.encoder import Embedder

QUESTIONS = (
    "Which patients with atrial fibrillation need an anticoagulant?",
    "gradient and valve area in severe aortic stenosis",
    "drugs that prolong life in heart failure with reduced ejection fraction",
)


TEXTS = (
    "The patient has had an inferior myocardial infarction.",
    "He suffered a heart attack of the inferior wall.",
    "The patient has mitral valve prolapse.",
)
MOST_SENTENCES = 1000


@dataclass(frozen=True)
class Hit:
    """One search result: the text, its place in the searched texts, and its cosine with the query."""

    text: str
    index: int
    score: float


def load_model(
    path: str | Path = "runs/laptop/03_model", device: str = "auto", trust_remote_code: bool = False
) -> "Embedder":
    """Opens a trained model; it has ``encode`` and ``similarity``, see ``cardioembed.embedder.encoder.Embedder``.

    Args:
        path: A folder that stage 03 wrote, or a base by hub id or folder.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        trust_remote_code: Whether a base that needs code of its own may run it.

    Raises:
        UserError: Not a model, or not the weights it was saved with.
    """
    from cardioembed.embedder.saving import load_model as open_model  # torch takes seconds to import

    return open_model(path, device=device, trust_remote_code=trust_remote_code)


def search(
    model: "Embedder", query: str, texts: Sequence[str], vectors: np.ndarray | None = None, top_k: int = 5
) -> list[Hit]:
    """The texts most like a query, exactly, best first; equal scores in the order of the texts.

    Args:
        model: From ``load_model``.
        query: What to look for.
        texts: What to look in.
        vectors: ``model.encode(texts)``, if at hand; encoded here otherwise.
        top_k: How many to return.

    Raises:
        UserError: ``vectors`` and ``texts`` differ in number, there is nothing to search, or ``top_k`` is below 1.
    """
    if top_k < 1:
        raise UserError(f"search: top_k is {top_k}; give 1 or more")
    vectors = model.encode(texts, prompt_name=model.recipe.positive_prompt) if vectors is None else vectors
    if len(vectors) != len(texts) or not len(texts):
        raise UserError(f"search: {len(texts)} texts and {len(vectors)} vectors; give one vector a text, at least one")
    scores = model.similarity(model.encode(query, prompt_name=model.recipe.anchor_prompt), vectors)[0]
    best = np.argsort(-scores, kind="stable")[:top_k]
    return [Hit(texts[i], int(i), float(scores[i])) for i in best]


def main(settings: Settings) -> None:
    run = stage.Stage("05", settings)
    (model_path,) = run.requires("03", "03_model")
    # A run on labelled passages has no books.
    source = ("02", "02_labelled_test.jsonl") if settings.prepare.labelled else ("01", "01_sentences.jsonl")
    (sentences_path,) = run.requires(*source)
    rows = read_jsonl(sentences_path, texts=("text",))[:MOST_SENTENCES]

    print("\n1. Load")
    model = load_model(model_path, device=settings.device, trust_remote_code=settings.model.trust_remote_code)
    print(f"  {model_path}: {model.dimension} dimensions, {model.recipe.pooling} pooling, on {model.device}")

    print("\n2. Encode one text or many: a list, a generator, a column of pandas or datasets")
    vectors = model.encode(TEXTS)
    print(f"  one text   {model.encode(TEXTS[0]).shape}")
    print(f"  {len(TEXTS)} texts    {vectors.shape} {vectors.dtype}, length {np.linalg.norm(vectors[0]):.4f}")
    print(f"  as tensor  {model.encode(TEXTS, convert_to_tensor=True).dtype}")
    print(f"  prompts    {', '.join(model.recipe.prompts) or 'this model has none'}  (encode(..., prompt_name=))")

    print("\n3. Similarity")
    for text, cosine in zip(TEXTS[1:], model.similarity(vectors[0], vectors[1:])[0], strict=True):
        print(f"  {cosine:.3f}  {TEXTS[0]}  |  {text}")
    first_two = model.similarity_pairwise(vectors[:1], vectors[1:2])
    print(f"  {first_two[0]:.3f}  the first pair again, pair by pair: shape {first_two.shape}")

    print("\n4. Many texts, with progress")
    sentences = [row["text"] for row in rows]
    vectors = model.encode(sentences, prompt_name=model.recipe.positive_prompt, show_progress_bar=True)
    print(f"  {vectors.shape}, {vectors.nbytes / 1e6:.2f} MB; batch_size= and chunk_tokens= bound what is in memory")

    print("\n5. Smaller vectors")
    show_sizes(model, sentences)

    print("\n6. Save vectors and open them again")
    saved = run.path("05_vectors.safetensors")
    with atomic_path(saved) as temporary:
        save_file({"vectors": vectors}, temporary, metadata={"model": model.identity})
    run.wrote(saved)
    print(f"  opened again: {np.array_equal(load_file(saved)['vectors'], vectors)}")

    print("\n7. Search: an index in a folder, opened again with the model it belongs to")
    folder = run.path("05_index")
    search_index(model, rows, folder)
    run.wrote(folder)
    run.finish({"texts": len(sentences)})


def show_sizes(model: "Embedder", texts: list[str]) -> None:
    """Prints what a vector weighs in each precision, and how much of the cosines half of its dimensions keep."""
    texts = texts[:200]
    for precision in ("float32", "float16", "int8", "binary"):
        small = model.encode(texts, precision=precision)
        print(f"  precision={precision:<8}  {small.shape[1]:>5} x {small.dtype!s:<8} {small[0].nbytes:>6} bytes a text")
    half = model.dimension // 2
    whole, cut = (model.encode(texts, truncate_dim=dimensions) for dimensions in (None, half))
    error = np.abs(model.similarity(whole, whole) - model.similarity(cut, cut)).mean()
    print(f"  truncate_dim={half}: cosines differ by {error:.3f} on average (less if trained with matryoshka_dims)")


def search_index(model: "Embedder", rows: list[Row], folder: Path) -> None:
    """Builds an index, opens it and asks it; ``python -m cardioembed.search`` does this with your own files."""
    from cardioembed.search.building import build_index
    from cardioembed.search.index import Index

    with atomic_folder(folder) as temporary:
        build_index(model, [{key: row[key] for key in ("text", "source") if key in row} for row in rows], temporary)
    index = Index.open(folder)
    for question, hits in zip(QUESTIONS, index.search(model, list(QUESTIONS), top_k=3), strict=True):
        print(f"  {question}")
        for hit in hits:
            print(f"    {hit.score:.3f}  {hit.text}")


if __name__ == "__main__":
    raise SystemExit(stage.run(main, __doc__))
