"""Typed settings of all stages; ``config_file`` reads them from YAML.

Every default lives here, once, and the defaults are the paper's H100 run; ``config.yaml`` spells them out with the
trade-off of each.
"""

from __future__ import annotations

import re
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from cardioembed.lexicon import CATEGORIES


class Block(BaseModel):
    """A block of settings: unknown keys are errors, values cannot change after validation."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class OcrSettings(Block):
    """Stage 01: pages that are pictures. The defaults of the server are the paper's DeepSeek-OCR."""

    engine: Literal["none", "tesseract", "openai"] = "tesseract"
    min_page_characters: int = Field(25, ge=0)
    dpi: int = Field(300, ge=72, le=1200)
    language: str = "eng"
    model: str = "deepseek-ai/DeepSeek-OCR"
    base_url: str = "http://127.0.0.1:8000/v1"
    api_key_env: str = "OPENAI_API_KEY"
    prompt: str = "<|grounding|>Convert the document to markdown."
    max_tokens: int = Field(6144, ge=16)
    extra_body: dict[str, Any] = {
        "skip_special_tokens": False,
        "vllm_xargs": {"ngram_size": 30, "window_size": 90, "whitelist_token_ids": [128821, 128822]},
    }
    max_concurrency: int = Field(4, ge=1)
    max_retries: int = Field(4, ge=0)
    timeout: float = Field(300, gt=0)
    cache: str = "runs/ocr_cache"


class GeneratorSettings(Block):
    """Stage 01: one language model that writes paraphrases or query-passage pairs."""

    name: str = Field(pattern=r"^[A-Za-z0-9][\w.-]*$")
    model: str
    prompt: str = Field("close", pattern=r"^(close|free|passages)(/\d+)?$")
    engine: Literal["openai", "transformers"] = "openai"
    base_url: str = "http://127.0.0.1:8000/v1"
    api_key_env: str = "OPENAI_API_KEY"
    temperature: float = Field(0.7, ge=0, le=2)
    top_p: float = Field(0.95, gt=0, le=1)
    max_tokens: int = Field(512, ge=16)
    extra_body: dict[str, Any] = {}
    max_requests: int | None = Field(None, ge=1)
    max_concurrency: int = Field(16, ge=1)
    requests_per_minute: float | None = Field(None, gt=0)
    max_retries: int = Field(6, ge=0)
    timeout: float = Field(120, gt=0)
    input_price: float = Field(0.0, ge=0)
    output_price: float = Field(0.0, ge=0)


class PassageSettings(Block):
    """Stage 01: what generators with ``prompt: passages`` read, and which of their pairs count."""

    notes: list[str] = []
    max_words: int = Field(400, ge=50)
    min_relevance: float = Field(0.5, ge=0, le=1)

    @field_validator("notes", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value


class EmbeddingGateSettings(Block):
    """Stage 01: an optional gate on the cosine between sentence and paraphrase."""

    model: str | None = None
    min_cosine: float = Field(0.6, ge=-1, le=1)
    max_cosine: float = Field(0.99, ge=-1, le=1)

    @model_validator(mode="after")
    def _ordered(self) -> EmbeddingGateSettings:
        if self.min_cosine >= self.max_cosine:
            raise ValueError(f"min_cosine ({self.min_cosine:g}) must be below max_cosine ({self.max_cosine:g})")
        return self


class MergeSettings(Block):
    """Stage 01: books, generators and paraphrase files."""

    books: list[str] = ["data/books"]
    ocr: OcrSettings = OcrSettings()
    min_characters: int = Field(20, ge=1)
    max_characters: int = Field(1000, ge=20)
    near_duplicate_jaccard: float | None = Field(0.9, gt=0, le=1)
    generators: list[GeneratorSettings] = []
    passages: PassageSettings = PassageSettings()
    paraphrases: list[str] = ["data/paraphrases/*.jsonl"]
    trusted: list[str] = []
    min_length_ratio: float = Field(0.4, gt=0, lt=1)
    max_length_ratio: float = Field(2.5, gt=1)
    language: Literal["en", "de", "fr", "es", "it", "pt", "nl", "sv", "pl", "tr"] | None = "en"
    embedding_gate: EmbeddingGateSettings = EmbeddingGateSettings()

    @field_validator("books", "paraphrases", "trusted", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @model_validator(mode="after")
    def _ordered(self) -> MergeSettings:
        if self.min_characters >= self.max_characters:
            raise ValueError(
                f"min_characters ({self.min_characters}) must be below max_characters ({self.max_characters})"
            )
        names = [generator.name for generator in self.generators]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(
                f"generators: two are named {twice[0]!r}; a name marks a generator's rows and file, give each its own"
            )
        return self


class SplitSettings(Block):
    """What is kept together, the shares that go to each split (they add up to 1), and books that go to none."""

    by: Literal["group", "section", "book"] = "group"
    train: float = Field(0.85, gt=0, lt=1)
    validation: float = Field(0.10, gt=0, lt=1)
    test: float = Field(0.05, gt=0, lt=1)
    held_out_books: list[str] = []

    @field_validator("held_out_books", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @model_validator(mode="after")
    def _whole(self) -> SplitSettings:
        total = self.train + self.validation + self.test
        if abs(total - 1) > 1e-6:
            raise ValueError(f"train + validation + test must be 1, they add up to {total:g}")
        return self


class MinedSettings(Block):
    """Stage 02: negatives found by a model; the names are those of sentence-transformers' mine_hard_negatives."""

    model: str = "sentence-transformers/all-MiniLM-L6-v2"
    relative_margin: float = Field(0.05, ge=0, lt=1)
    range_min: int = Field(0, ge=0)
    range_max: int = Field(50, ge=1)
    sampling_strategy: Literal["random", "top"] = "random"

    @model_validator(mode="after")
    def _ordered(self) -> MinedSettings:
        if self.range_min >= self.range_max:
            raise ValueError(f"range_min ({self.range_min}) must be below range_max ({self.range_max})")
        return self


NEGATIVE_KINDS = ("distant", "similar_length", "same_section", "mined", "counterfactual")


class CounterfactualSettings(Block):
    """Stage 02: minimally edited sentences that say something clinically different."""

    files: list[str] = []
    of: list[Literal["anchor", "positive"]] = Field(["anchor", "positive"], min_length=1)
    categories: list[Literal[CATEGORIES]] = Field(list(CATEGORIES), min_length=1)

    @field_validator("files", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value


# What stage 02 needs for labelled passages only.
FOR_LABELS = {"labelled", "triplets_per_passage"}


class PrepareSettings(Block):
    """Stage 02: splits, decontamination and negatives."""

    labelled: str | None = None
    triplets_per_passage: int = Field(3, ge=1, le=1000)
    split: SplitSettings = SplitSettings()
    near_duplicate_jaccard: float = Field(0.8, gt=0, le=1)
    decontaminate: list[str] = ["data/sample/concept_pairs.jsonl"]
    ngram_words: int = Field(8, ge=3, le=50)
    negatives: dict[Literal[NEGATIVE_KINDS], float] = {"distant": 1.0}
    negatives_per_anchor: int = Field(1, ge=1, le=64)
    min_distance: int = Field(50, ge=1)
    length_tolerance: float = Field(0.3, gt=0, le=1)
    section_distance: int = Field(3, ge=1)
    mined: MinedSettings = MinedSettings()
    counterfactual: CounterfactualSettings = CounterfactualSettings()
    opposed_statements: bool = False

    @field_validator("decontaminate", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @field_validator("negatives", mode="before")
    @classmethod
    def _one_kind(cls, value: Any) -> Any:
        return {value: 1.0} if isinstance(value, str) else value

    @field_validator("negatives")
    @classmethod
    def _weights(cls, value: dict[str, float]) -> dict[str, float]:
        wrong = [kind for kind, weight in value.items() if weight <= 0]
        if not value or wrong:
            raise ValueError(
                f"{wrong[0]}: {value[wrong[0]]:g} is not a weight above 0; leave out a kind that is not wanted"
                if wrong
                else "no kind is named; give one or several with weights, for example {distant: 1, counterfactual: 1}"
            )
        return value

    @model_validator(mode="after")
    def _labelled_or_books(self) -> PrepareSettings:
        if self.labelled is None:
            return self
        if not self.labelled.strip():
            raise ValueError("labelled is empty; give a JSONL file of labelled passages, or null to train on books")
        defaults = PrepareSettings()
        books = {
            "split.by": self.split.by != defaults.split.by,
            "split.held_out_books": bool(self.split.held_out_books),
            "negatives": self.negatives != defaults.negatives,
            "opposed_statements": self.opposed_statements,
        }
        if wrong := [key for key, is_set in books.items() if is_set]:
            raise ValueError(
                f"{wrong[0]} is for paraphrases from books; labelled passages are split by document and their "
                f"negatives have another label. Leave prepare.{wrong[0]} out, or set prepare.labelled: null"
            )
        return self

    @model_validator(mode="after")
    def _opposed_statements_are_written(self) -> PrepareSettings:
        if self.opposed_statements and not self.counterfactual.files:
            raise ValueError(
                "opposed_statements takes what people wrote: name files in prepare.counterfactual.files, with rows of "
                "'original', 'counterfactual', 'paraphrase' (of the counterfactual) and 'category'"
            )
        return self


class LoraSettings(Block):
    """The LoRA adapter, under PEFT's argument names."""

    r: int = Field(16, ge=1)
    lora_alpha: int = Field(32, ge=1)
    lora_dropout: float = Field(0.05, ge=0, lt=1)
    target_modules: Literal["all-linear", "query-value"] | list[str] = "all-linear"
    use_rslora: bool = False
    use_dora: bool = False


class ModelSettings(Block):
    """The base model. ``auto`` means: as the base's own files say."""

    base: str = "Qwen/Qwen3-Embedding-8B@4e423935c619ae4df87b646a3ce949610c66241c"
    fine_tuning: Literal["lora", "full"] = "lora"
    frozen_layers: int | None = Field(None, ge=0)
    quantization: Literal["none", "int8", "nf4"] = "int8"
    llm_int8_threshold: float = Field(6.0, ge=0)
    dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    attn_implementation: Literal["auto", "varlen", "sdpa", "eager", "flash_attention_2"] = "auto"
    pooling: Literal["auto", "cls", "mean", "lasttoken"] = "auto"
    max_length: int = Field(512, ge=8)
    anchor_prompt: str | None = "auto"
    positive_prompt: str | None = "auto"
    trust_remote_code: bool = False
    lora: LoraSettings = LoraSettings()

    @model_validator(mode="after")
    def _remote_code_is_pinned(self) -> ModelSettings:
        if self.trust_remote_code and not re.search(r"@[0-9a-f]{40}$", self.base):
            raise ValueError("trust_remote_code runs code from the hub: pin it, base: owner/name@<40-digit commit>")
        return self

    @model_validator(mode="after")
    def _trainable(self) -> ModelSettings:
        if self.fine_tuning == "full" and (self.quantization != "none" or self.dtype != "float32"):
            raise ValueError(
                "fine_tuning: full trains the base's own weights and needs quantization: none and dtype: float32 "
                "(train.bf16 still computes in bfloat16)"
            )
        if self.frozen_layers is not None and self.fine_tuning != "full":
            raise ValueError(
                "frozen_layers is for fine_tuning: full; LoRA leaves the whole base as it is. Set it to null"
            )
        return self


# TensorBoard and accelerate's other trackers; each needs its own package and, where it is a service, an account.
TRACKERS = ("tensorboard", "wandb", "mlflow", "trackio")


class TrainSettings(Block):
    """Stage 03, under Hugging Face's argument names."""

    loss: Literal["info_nce", "multiple_negatives_ranking", "triplet_margin", "opposed_statements"] = "info_nce"
    temperature: float = Field(0.05, gt=0, le=10)
    symmetric: bool = False
    false_negative_margin: float | None = Field(None, ge=-1, le=2)
    triplet_margin: float = Field(0.5, ge=0, le=4)
    triplet_distance: Literal["euclidean", "cosine"] = "euclidean"
    opposed_weight: float = Field(6.0, ge=0)
    opposed_margin: float = Field(0.2, ge=0, le=4)
    distillation: float = Field(0.0, ge=0)
    drop_final_punctuation: float = Field(0.0, ge=0, le=1)
    interpolation: float = Field(1.0, gt=0, le=1)
    matryoshka_dims: list[int] = []
    matryoshka_weights: list[float] = []
    per_device_train_batch_size: int = Field(128, ge=2)
    num_train_epochs: int = Field(2, ge=1)
    max_steps: int | None = Field(None, ge=1)
    learning_rate: float = Field(2e-4, gt=0, lt=1)
    weight_decay: float = Field(0.0, ge=0)
    warmup_ratio: float = Field(0.1, ge=0, lt=1)
    lr_scheduler_type: Literal["cosine", "linear", "constant_with_warmup"] = "cosine"
    max_grad_norm: float = Field(1.0, gt=0)
    bf16: bool = True
    dataloader_drop_last: bool = True
    chunk_tokens: int = Field(8192, ge=16)
    gradient_cache: bool | Literal["auto"] = "auto"
    gradient_checkpointing: bool = True
    fsdp: bool = False
    eval_steps: float = Field(0.1, gt=0)
    save_steps: float = Field(0.1, gt=0)
    logging_steps: int = Field(1, ge=1)
    early_stopping_patience: int | None = Field(None, ge=1)
    average_checkpoints: int = Field(0, ge=0, le=50)
    report_to: list[str] = ["tensorboard"]

    @field_validator("eval_steps", "save_steps")
    @classmethod
    def _share_or_count(cls, value: float) -> float:
        if value > 1 and value != int(value):
            raise ValueError(f"{value:g} is neither a share of all steps (below 1) nor a whole number of steps")
        return value

    @field_validator("report_to")
    @classmethod
    def _known_trackers(cls, value: list[str]) -> list[str]:
        if unknown := sorted(set(value) - set(TRACKERS)):
            raise ValueError(
                f"{unknown[0]!r} is unknown; allowed: {', '.join(TRACKERS)}, or [] for the JSONL log alone"
            )
        return value

    @model_validator(mode="after")
    def _loss_has_what_it_needs(self) -> TrainSettings:
        plain = self.loss in ("triplet_margin", "opposed_statements")
        if plain and (self.symmetric or self.false_negative_margin is not None):
            raise ValueError(f"loss: {self.loss} takes neither symmetric nor false_negative_margin")
        if any(dim < 1 for dim in self.matryoshka_dims) or len(set(self.matryoshka_dims)) < len(self.matryoshka_dims):
            raise ValueError("matryoshka_dims are different whole numbers of 1 or more, for example [384, 128, 64]")
        if self.matryoshka_weights and len(self.matryoshka_weights) != len(self.matryoshka_dims):
            raise ValueError("matryoshka_weights are one for each of matryoshka_dims, or none for 1 each")
        return self


class EvaluateSettings(Block):
    """Stage 04."""

    distractors: Literal["test", "corpus"] = "test"
    generalisation: list[str] = []
    concept_pairs: str | None = "data/sample/concept_pairs.jsonl"
    counterfactual_rules: bool = True
    counterfactuals: list[str] = []
    sts: list[str] = []
    beir: list[str] = []
    clustering: list[str] = []
    mteb: list[str] = []
    robustness: bool = True
    bias: bool = True
    efficiency: bool = True
    bootstrap_resamples: int = Field(5000, ge=100)

    @field_validator("generalisation", "counterfactuals", "sts", "beir", "clustering", "mteb", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value


class Settings(Block):
    """All stages of one run. ``Settings()`` is the paper's run."""

    run_dir: str = "runs/paper_h100"
    seed: int = Field(42, ge=0, lt=2**32)
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    num_proc: int | None = Field(None, ge=1)
    merge: MergeSettings = MergeSettings()
    prepare: PrepareSettings = PrepareSettings()
    model: ModelSettings = ModelSettings()
    train: TrainSettings = TrainSettings()
    evaluate: EvaluateSettings = EvaluateSettings()

    @model_validator(mode="after")
    def _possible_pairs(self) -> Settings:
        if self.device == "cpu" and self.model.dtype == "float16":
            raise ValueError("device: cpu with model.dtype: float16 is not usable; choose float32 or bfloat16")
        if self.model.dtype == "float16" and self.train.bf16:
            raise ValueError("model.dtype: float16 with train.bf16: true mixes two half precisions; change one of them")
        if self.train.fsdp and (self.model.quantization != "none" or self.model.fine_tuning == "full"):
            raise ValueError(
                "train.fsdp divides a frozen, unquantised base among processes: set model.quantization: none and "
                "model.fine_tuning: lora"
            )
        if not self.run_dir.strip():
            raise ValueError("run_dir is empty; name a folder such as runs/my_run")
        return self

    @model_validator(mode="after")
    def _possible_with_labels(self) -> Settings:
        if self.prepare.labelled is None:
            return self
        if self.train.loss == "multiple_negatives_ranking":
            raise ValueError(
                "train.loss: multiple_negatives_ranking counts other rows' negatives against an anchor, and with "
                "prepare.labelled some of them have its label; choose info_nce or triplet_margin"
            )
        if self.evaluate.counterfactual_rules:
            raise ValueError(
                "evaluate.counterfactual_rules asks whether a paraphrase is nearer than a changed sentence, and with "
                "prepare.labelled positives are no paraphrases; set evaluate.counterfactual_rules: false"
            )
        return self


def flatten(settings: BaseModel | dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Settings as ``{"train.learning_rate": 0.0002, ...}``."""
    items = settings.model_dump() if isinstance(settings, BaseModel) else settings
    flat: dict[str, Any] = {}
    for key, value in items.items():
        name = f"{prefix}{key}"
        flat.update(flatten(value, name + ".") if isinstance(value, dict) else {name: value})
    return flat


def to_yaml(settings: Settings) -> str:
    """The resolved settings as YAML text."""
    return yaml.safe_dump(settings.model_dump(), sort_keys=False, allow_unicode=True)
