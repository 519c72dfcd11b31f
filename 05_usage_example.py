"""Stage 05: a guided tour of a trained model, and the import for notebooks.

reads   03_model/ (or a base, where there is none), 01_sentences.jsonl for the search
writes  05_vectors.safetensors   the vectors of the searched sentences, saved and opened again

In a notebook:

    import importlib
    usage = importlib.import_module("05_usage_example")
    model = usage.load_model("runs/laptop/03_model")
    vectors = model.encode(["Severe aortic stenosis.", "Critical narrowing of the aortic valve."])
    model.similarity(vectors, vectors)
    usage.search(model, "when to implant a pacemaker", my_sentences)

example python 05_usage_example.py --config configs/laptop.yaml
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

from cardioembed import stage
from cardioembed.config import Settings
from cardioembed.errors import UserError
from cardioembed.records import atomic_path, read_jsonl

if TYPE_CHECKING:
    from cardioembed.embedder.encoder import Embedder

QUESTIONS = (
    "Which patients with atrial fibrillation need an anticoagulant?",
    "gradient and valve area in severe aortic stenosis",
    "drugs that prolong life in heart failure with reduced ejection fraction",
)


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
        UserError: ``vectors`` and ``texts`` differ in number, or there is nothing to search.
    """
    vectors = model.encode(texts, prompt_name=model.recipe.positive_prompt) if vectors is None else vectors
    if len(vectors) != len(texts) or not len(texts):
        raise UserError(f"search: {len(texts)} texts and {len(vectors)} vectors; give one vector a text, at least one")
    scores = model.similarity(model.encode(query, prompt_name=model.recipe.anchor_prompt), vectors)[0]
    best = np.argsort(-scores, kind="stable")[:top_k]
    return [Hit(texts[i], int(i), float(scores[i])) for i in best]


class CardiologySearch:
    """A small service: texts encoded once, searched many times, kept on disk.

    Args:
        model: From ``load_model``.
        texts: What to search.
        vectors: Their vectors, if at hand.
    """

    def __init__(self, model: "Embedder", texts: Sequence[str], vectors: np.ndarray | None = None) -> None:
        self.model = model
        self.texts = list(texts)
        if vectors is None:
            vectors = model.encode(self.texts, prompt_name=model.recipe.positive_prompt, show_progress_bar=True)
        self.vectors = vectors

    def ask(self, query: str, top_k: int = 3) -> list[Hit]:
        """The ``top_k`` texts most like the query."""
        return search(self.model, query, self.texts, self.vectors, top_k)

    def save(self, path: Path) -> None:
        """Writes the vectors with a mark of the texts and of the model that they belong to."""
        with atomic_path(path) as temporary:
            save_file({"vectors": self.vectors}, temporary, metadata=self._mark(self.model, self.texts))

    @classmethod
    def open(cls, model: "Embedder", texts: Sequence[str], path: Path) -> "CardiologySearch":
        """Opens saved vectors.

        Raises:
            UserError: They are of other texts or of another model.
        """
        with safe_open(path, framework="numpy") as saved:
            if saved.metadata() != cls._mark(model, texts):
                raise UserError(f"{path} holds vectors of other texts or of another model; encode again and save")
            return cls(model, texts, saved.get_tensor("vectors"))

    @staticmethod
    def _mark(model: "Embedder", texts: Sequence[str]) -> dict[str, str]:
        return {
            "texts": hashlib.sha256("\x1f".join(texts).encode()).hexdigest(),
            "model": model.identity,
        }


def main(settings: Settings) -> None:
    run = stage.Stage("05", settings)
    (model_path,) = run.requires("03", "03_model")
    (sentences_path,) = run.requires("01", "01_sentences.jsonl")

    print("\n1. Load")
    model = load_model(model_path, device=settings.device, trust_remote_code=settings.model.trust_remote_code)
    print(f"  {model_path}: {model.dimension} dimensions, {model.recipe.pooling} pooling, on {model.device}")

    print("\n2. Encode one text or many")
    texts = [
        "The patient has had an inferior myocardial infarction.",
        "He suffered a heart attack of the inferior wall.",
        "The patient has mitral valve prolapse.",
    ]
    vectors = model.encode(texts)
    print(
        f"  {len(texts)} texts -> {vectors.shape} {vectors.dtype}, length of the first {np.linalg.norm(vectors[0]):.4f}"
    )

    print("\n3. Similarity")
    cosines = model.similarity(vectors[0], vectors[1:])[0]
    for text, cosine in zip(texts[1:], cosines, strict=True):
        print(f"  {cosine:.3f}  {texts[0]}  |  {text}")

    print("\n4. A batch of sentences, with progress")
    sentences = [row["text"] for row in read_jsonl(sentences_path, texts=("text",))][:1000]
    service = CardiologySearch(model, sentences)

    print("\n5. Save and open the vectors")
    saved = run.path("05_vectors.safetensors")
    service.save(saved)
    run.wrote(saved)
    service = CardiologySearch.open(model, sentences, saved)
    print(f"  {service.vectors.shape} opened again")

    print("\n6. Search")
    for question in QUESTIONS:
        print(f"  {question}")
        for hit in service.ask(question):
            print(f"    {hit.score:.3f}  {hit.text}")
    run.finish({"texts": len(sentences)})


if __name__ == "__main__":
    raise SystemExit(stage.run(main, __doc__))
