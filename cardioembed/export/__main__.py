"""Exports a trained model: whole weights, sentence-transformers or ONNX, and the hub if asked.

python -m cardioembed.export runs/laptop/03_model --out runs/laptop/merged
python -m cardioembed.export runs/laptop/03_model --out runs/laptop/peer --format sentence-transformers
python -m cardioembed.export runs/laptop/03_model --out runs/laptop/onnx --format onnx
python -m cardioembed.export runs/laptop/03_model --out runs/laptop/merged --push-to-hub me/cardio --private --dry-run

The adapter is merged into the base's unquantised weights; how far the vectors move by that is measured, shown and
bounded. What was written is opened again and compared before it takes its place.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from cardioembed.errors import UserError
from cardioembed.export.checks import (
    DTYPES,
    FORMATS,
    check_format,
    check_target,
    find_weights,
    read_model_file,
    read_texts,
)
from cardioembed.export.hub import check_push, push_to_hub, upload_list


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m cardioembed.export",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", type=Path, help="runs/<name>/03_model, or a merged export")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="an export there is replaced")
    parser.add_argument("--format", choices=FORMATS, default="merged", help="default: merged")
    parser.add_argument("--dtype", choices=DTYPES, default="auto", help="of the weights (default: that of the base)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda", "mps"), default="auto", help="default: auto")
    parser.add_argument("--base", help="where the base is now, if it moved since training")
    parser.add_argument(
        "--texts", type=Path, metavar="FILE", help="more texts to measure drift on: a line each, or JSONL"
    )
    parser.add_argument(
        "--max-drift",
        type=_drift,
        metavar="X",
        help="highest 1 - cosine of a text (default: 0.001; after int8 training 0.01, after nf4 0.08)",
    )
    parser.add_argument("--push-to-hub", metavar="OWNER/NAME", help="upload, with the token in HF_TOKEN")
    parser.add_argument("--private", action="store_true", help="a repository that only its owner sees")
    parser.add_argument("--dry-run", action="store_true", help="show what would be uploaded, and upload nothing")
    return parser


def _drift(value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = -1.0
    if not 0 <= number <= 2:
        raise argparse.ArgumentTypeError(f"{value!r} is not a number from 0 to 2")
    return number


def main(arguments: list[str] | None = None) -> int:
    """Runs the export; a user's mistake ends with advice and exit code 2."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if (options.private or options.dry_run) and not options.push_to_hub:
        parser.error("--private and --dry-run belong to --push-to-hub OWNER/NAME")
    try:
        _run(options)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(
            f"error: {error.filename or 'file'}: {error.strerror or error}; check path, rights, space", file=sys.stderr
        )
        return 2
    except SafetensorError as error:
        print(f"error: a weights file is damaged, or the disk is full: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped; nothing was put in place", file=sys.stderr)
        return 130
    return 0


def _run(options: argparse.Namespace) -> None:
    # All that can be found wrong without loading a model comes first: importing torch alone takes seconds.
    if options.push_to_hub:
        check_push(options.push_to_hub, dry_run=options.dry_run)
    model_file = read_model_file(options.model)
    check_target(options.model, options.out)
    texts = read_texts(options.texts) if options.texts else None
    weights = find_weights(options.model, model_file, options.base)
    check_format(options.model, model_file, weights, format=options.format, dtype=options.dtype)

    from cardioembed.export.writing import export_model

    # Said by transformers of a name that this project does not use.
    warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
    report = export_model(
        options.model,
        options.out,
        format=options.format,
        dtype=options.dtype,
        texts=texts,
        max_drift=options.max_drift,
        device=options.device,
        base=options.base,
    )
    print(_summary(report, options.out))
    if options.push_to_hub:
        _push(options)


def _summary(report: dict[str, Any], out: Path) -> str:
    drift = report["drift"]
    return (
        f"wrote {out}: {report['format']}, {report['dtype']}\n"
        f"  drift from the trained model (1 - cosine) over {drift['texts']} texts: mean {drift['mean']:.2g}, worst "
        f"{drift['worst']:.2g} (limit {drift['limit']:g}), at {report['worst_text'][:80]!r}\n"
        f"  opened again, an element differs by at most {report['parity']:.2g}"
    )


def _push(options: argparse.Namespace) -> None:
    files = upload_list(options.out)
    kind = "private" if options.private else "public"
    print(f"{'would upload' if options.dry_run else 'uploading'} to {options.push_to_hub} ({kind}):")
    print("\n".join(f"  {size:>13,}  {name}" for name, size in files))
    if options.dry_run:
        return
    try:
        print(f"uploaded: {push_to_hub(options.out, options.push_to_hub, private=options.private)}")
    except KeyboardInterrupt:
        raise UserError(f"stopped: {options.out} is whole, its upload is not; give the same command again") from None


if __name__ == "__main__":
    raise SystemExit(main())
