"""Stage 04: base and adapted model through the same evaluator, on texts neither was trained on.

reads   02_training_test.jsonl, 03_model/
        evaluate.concept_pairs   JSONL: {"kind": similar|different|negation, "text1", "text2"}
        evaluate.sts             JSONL files: {"sentence1", "sentence2", "score"}
writes  04_evaluation/metrics.json   models.<base|adapted>.<evaluation>.<metric> and delta, with 95 % intervals
        04_evaluation/report.html    tables, figures, worst errors; opens offline
        04_evaluation/figures/

example python 04_evaluate_model.py --config configs/laptop.yaml --set evaluate.sts=biosses.jsonl
"""

from pathlib import Path

from cardioembed import stage
from cardioembed.config import Settings, to_yaml
from cardioembed.errors import UserError
from cardioembed.evaluation.sets import TestSets, load_concept_pairs, load_sts
from cardioembed.records import atomic_folder, read_jsonl, write_json


def main(settings: Settings) -> None:
    run = stage.Stage("04", settings)

    # 1. The test sets, checked before a model loads.
    (test_path,) = run.requires("02", "02_training_test.jsonl")
    (model_path,) = run.requires("03", "03_model")
    pairs = read_jsonl(test_path, texts=("id", "group", "anchor", "positive"))
    concepts = settings.evaluate.concept_pairs
    sts = {Path(place).stem: Path(place) for place in settings.evaluate.sts}
    if len(sts) < len(settings.evaluate.sts):
        raise UserError("evaluate.sts: two files have the same name; rename one, results are reported by name")
    sets = TestSets(
        pairs=pairs,
        concepts=load_concept_pairs(Path(concepts)) if concepts else [],
        sts={name: load_sts(path) for name, path in sts.items()},
    )
    run.inputs += [*([Path(concepts)] if concepts else []), *sts.values()]
    print(f"  {len(pairs):,} test pairs, {len(sets.concepts)} concept pairs, {len(sts)} STS sets")

    # 2. The same weights and evaluator twice: adapter off, adapter on. torch is imported after all checks.
    from cardioembed.embedder.saving import load_model
    from cardioembed.evaluation.figures import all_figures
    from cardioembed.evaluation.report import html_report, metrics_document, summary_sentences, terminal_table
    from cardioembed.evaluation.suite import evaluate

    embedder = load_model(model_path, device=settings.device, trust_remote_code=settings.model.trust_remote_code)
    resamples = settings.evaluate.bootstrap_resamples
    results = {}
    with embedder.without_adapter():
        results["base"] = evaluate(embedder, sets, resamples=resamples, seed=settings.seed, progress=True)
    results["adapted"] = evaluate(embedder, sets, resamples=resamples, seed=settings.seed, progress=True)

    # 3. Numbers, figures, page.
    document = metrics_document(results)
    figures = all_figures(results)
    target = run.path("04_evaluation")
    with atomic_folder(target) as folder:
        write_json(folder / "metrics.json", document)
        (folder / "figures").mkdir()
        for name, (_, png) in figures.items():
            (folder / "figures" / name).write_bytes(png)
        page = html_report(
            document,
            results,
            pairs,
            figures,
            run=str(run.run_dir),
            base=embedder.base.name,
            resamples=resamples,
            settings=to_yaml(settings),
        )
        (folder / "report.html").write_text(page, encoding="utf-8")
    print(terminal_table(document))
    for sentence in summary_sentences(document):
        print(sentence)
    run.wrote(target)
    run.finish({"test_pairs": len(pairs), "concept_pairs": len(sets.concepts)}, following="05")


if __name__ == "__main__":
    raise SystemExit(stage.run(main, __doc__))
