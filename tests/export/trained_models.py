"""Model folders as stage 03 writes them, with an adapter that is far from the identity."""

import torch

from cardioembed.config import Settings, flatten
from cardioembed.embedder.adapters import adapter_weights, attach_lora, train_everything
from cardioembed.embedder.encoder import load_embedder
from cardioembed.embedder.saving import save_model
from cardioembed.training.checkpoints import Progress
from cardioembed.training.summary import training_summary

PROGRESS = Progress(step=9, base_score=[0.9, 0.92], best_step=7, best_score=[0.95, 0.96], masked_pairs=0, tokens=900)


def trained(base, folder, *, full=False, use_dora=False, use_rslora=False, **options):
    """An embedder, and its folder written."""
    embedder = load_embedder(str(base), max_length=64, device="cpu", **options)
    torch.manual_seed(3)
    if full:
        train_everything(embedder.model)
        with torch.no_grad():
            for weight in embedder.model.parameters():
                weight.add_(torch.randn_like(weight) * 0.01)
        embedder.load_base = lambda: None
    else:
        embedder.model = attach_lora(
            embedder.model, r=4, lora_alpha=8, lora_dropout=0.05, target_modules="all-linear", use_dora=use_dora,
            use_rslora=use_rslora, base_reference=embedder.base.reference, revision=None,
        )  # fmt: skip
        with torch.no_grad():
            for name, weight in adapter_weights(embedder.model).items():
                if "lora_B" in name:
                    weight.normal_(0, 0.1)
                if "magnitude" in name:
                    weight.mul_(1.1)
    embedder.model.eval()
    summary = {
        **training_summary(embedder, PROGRESS, [{"source": "a"}]), "validation_pairs": 5, "global_batch": 4,
        "fine_tuning": "full" if full else "lora", "language": "en", "settings": flatten(Settings()),
    }  # fmt: skip
    folder.mkdir()
    save_model(embedder, folder, summary)
    return embedder
