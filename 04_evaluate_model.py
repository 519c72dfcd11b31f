"""Stage 04: base and adapted model, or any models, through the same evaluator, on texts none was trained on.

reads   02_training_test.jsonl, 03_model/, and the test sets that config.yaml's evaluate block names;
        02_held_out_books.jsonl and 02_labelled_test.jsonl where stage 02 wrote them
writes  04_evaluation/metrics.json   models.<base|adapted>.<evaluation>.<metric> and delta, with 95 % intervals
        04_evaluation/report.html    tables, figures, worst errors; opens offline
        04_evaluation/figures/       PNG and SVG
        04_comparison/               the same for --models, with head-to-head wins, ranks and tests of all pairs

--models takes run folders, model folders, hub ids and folders of bases; an adapted model brings its base along.
--fail-under makes it fail with exit code 1 if the adapted model (or, with delta., its gain) is below a number.

example python 04_evaluate_model.py --config configs/laptop.yaml --set evaluate.sts=biosses.jsonl
        python 04_evaluate_model.py --config configs/laptop.yaml --models runs/laptop BAAI/bge-small-en-v1.5
        python 04_evaluate_model.py --config configs/laptop.yaml --fail-under retrieval.accuracy@1=0.9
"""

import argparse

from cardioembed import stage
from cardioembed.config import Settings, to_yaml
from cardioembed.errors import GateError, UserError
from cardioembed.evaluation.gate import parse_gates
from cardioembed.evaluation.statistics import Sampling
from cardioembed.evaluation.suite import build_tasks
from cardioembed.records import atomic_folder, read_jsonl, sha256

TEXTS = ("id", "group", "anchor", "positive")


def main(settings: Settings, options: argparse.Namespace | None = None) -> None:
    options = options or argparse.Namespace(models=[], fail_under=[])
    run = stage.Stage("04", settings)
    if options.models and options.fail_under:
        raise UserError("--fail-under is about one adapted model; leave out --models, or check one model at a time")

    # 1. The test sets, checked before a model loads.
    train_path, validation_path, test_path = run.requires(
        "02", "02_training_train.jsonl", "02_training_validation.jsonl", "02_training_test.jsonl"
    )
    model_path = None if options.models else run.requires("03", "03_model")[0]
    pairs = read_jsonl(test_path, texts=TEXTS)
    others = (train_path, validation_path) if settings.evaluate.distractors == "corpus" else ()
    held_out, labelled = (run.run_dir / f"02_{name}.jsonl" for name in ("held_out_books", "labelled_test"))
    tasks = build_tasks(
        settings.evaluate,
        pairs,
        distractors=[row for path in others for row in read_jsonl(path, texts=TEXTS)],
        held_out=held_out if held_out.exists() else None,
        labelled=labelled if labelled.exists() else None,
        seed=settings.seed,
    )
    gates = parse_gates(options.fail_under, [task.name for task in tasks])
    run.inputs += [path for task in tasks for path in task.files]
    sampling = Sampling(settings.evaluate.bootstrap_resamples, settings.seed)
    print(f"  {len(pairs):,} test pairs, {len(tasks)} evaluations")

    # 2. The same evaluator for all models. torch is imported after all checks.
    from cardioembed.evaluation import comparing, evaluating

    if options.models:
        specs = comparing.find_models(options.models)
        outcome = comparing.compare(specs, tasks, sampling, settings, training_sha256=sha256(train_path))
        target = run.path("04_comparison")
    else:
        outcome = evaluating.evaluate(model_path, tasks, sampling, settings)
        target = run.path("04_evaluation")

    # 3. Numbers, figures, page.
    with atomic_folder(target) as folder:
        outcome.write(folder, run=str(run.run_dir), settings=to_yaml(settings))
    outcome.show()
    run.wrote(target)
    run.finish({"test_pairs": len(pairs), "evaluations": len(tasks)}, following="05")
    if failures := [failure for gate in gates if (failure := gate.failure(outcome.document))]:
        raise GateError("; ".join(failures))


def add_options(parser: argparse.ArgumentParser) -> None:
    """The stage's own options."""
    parser.add_argument(
        "--models", nargs="+", default=[], metavar="MODEL", help="compare these instead: run or model folders, bases"
    )
    parser.add_argument(
        "--fail-under",
        action="append",
        default=[],
        metavar="EVALUATION.METRIC=NUMBER",
        help="fail (exit code 1) if the adapted model has less; may be repeated",
    )


if __name__ == "__main__":
    raise SystemExit(stage.run(main, __doc__, add_options=add_options))
