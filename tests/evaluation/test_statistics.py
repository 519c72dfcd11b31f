import numpy as np
import pytest
from scipy import stats

from cardioembed.evaluation.similarity import separation_estimates, sts_estimates, tier
from cardioembed.evaluation.statistics import Estimate, Sampling, bootstrap_means, item_estimates, numbered


def test_interval_of_a_mean_agrees_with_scipy():
    values = np.random.default_rng(1).gamma(2, size=(400, 1))
    samples = bootstrap_means(values, resamples=4000, seed=2)[:, 0]
    ours = Estimate(values.mean(), samples, 400).summary()["ci95"]
    peer = stats.bootstrap((values[:, 0],), np.mean, method="percentile", n_resamples=4000, rng=3).confidence_interval
    assert ours == pytest.approx([peer.low, peer.high], rel=0.02)


def test_interval_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(4)
    hits = 0
    for trial in range(200):
        values = rng.binomial(1, 0.9, size=(150, 1)).astype(float)
        low, high = Estimate(0, bootstrap_means(values, resamples=400, seed=trial)[:, 0], 150).summary()["ci95"]
        hits += low <= 0.9 <= high
    assert 0.88 <= hits / 200 <= 0.99


def test_clusters_widen_the_interval_of_dependent_items():
    group_values = np.random.default_rng(5).normal(size=50)
    values = np.repeat(group_values, 8)[:, None]
    clusters = np.repeat(np.arange(50), 8)
    alone = bootstrap_means(values, resamples=2000, seed=6)[:, 0].std()
    grouped = bootstrap_means(values, resamples=2000, seed=6, clusters=clusters)[:, 0].std()
    assert grouped / alone == pytest.approx(np.sqrt(8), rel=0.1)


def test_differences_are_resampled_on_the_same_items():
    values = np.random.default_rng(7).normal(size=(100, 1))
    first = Estimate(values.mean(), bootstrap_means(values, resamples=300, seed=8)[:, 0], 100)
    second = Estimate(values.mean() + 1, bootstrap_means(values + 1, resamples=300, seed=8)[:, 0], 100)
    assert second.minus(first).summary()["ci95"] == pytest.approx([1, 1])


def test_a_difference_carries_the_differences_of_its_items():
    clusters = np.array([0, 0, 1])
    before = item_estimates(
        {"loss": np.array([3.0, 1.0, 2.0])}, Sampling(50, seed=1), clusters=clusters, chance={"loss": 9.0},
        better={"loss": "lower"},
    )["loss"]  # fmt: skip
    after = item_estimates({"loss": np.array([1.0, 1.0, 5.0])}, Sampling(50, seed=1), clusters=clusters)["loss"]
    difference = before.minus(after)
    assert difference.items.tolist() == [2, 0, -3]
    assert difference.value == pytest.approx(-1 / 3)
    assert difference.clusters is clusters
    assert (difference.better, difference.chance, difference.n) == ("lower", None, 3)
    assert before.minus(Estimate(1.0, before.resamples, 3)).items is None


def test_item_estimates_are_bootstrapped_means():
    values = np.random.default_rng(15).normal(size=(60, 2))
    clusters = np.repeat(np.arange(20), 3)
    estimates = item_estimates({"a": values[:, 0], "b": values[:, 1]}, Sampling(300, seed=2), clusters=clusters)
    means = bootstrap_means(values, resamples=300, seed=2, clusters=clusters)
    for column, name in enumerate("ab"):
        assert estimates[name].value == pytest.approx(values[:, column].mean(), abs=1e-15)
        assert (estimates[name].resamples == means[:, column]).all()
        assert (estimates[name].items == values[:, column]).all()
        assert (estimates[name].n, estimates[name].better, estimates[name].chance) == (60, "higher", None)


def test_bootstrapped_means_equal_a_loop_over_drawn_clusters():
    values, clusters = np.array([[1.0], [2.0], [4.0], [8.0], [16.0]]), np.array([0, 0, 1, 2, 2])
    means = bootstrap_means(values, resamples=300, seed=3, clusters=clusters)[:, 0]
    rng = np.random.default_rng(3)
    # Blocks of 256 draws, as the module makes them.
    for start, draws in ((0, rng.multinomial(3, [1 / 3] * 3, size=256)), (256, rng.multinomial(3, [1 / 3] * 3, 44))):
        for row, times in enumerate(draws):
            drawn = np.concatenate([np.tile(values[clusters == c, 0], times[c]) for c in range(3)])
            assert means[start + row] == pytest.approx(drawn.mean())


def test_summary_is_what_the_document_holds():
    resamples = np.linspace(0, 1, 41)
    estimate = Estimate(0.5, resamples, 7, chance=0.1, better="lower")
    low, high = estimate.interval()
    assert (low, high) == pytest.approx((0.025, 0.975))
    assert estimate.summary() == {"value": 0.5, "ci95": [low, high], "n": 7, "better": "lower", "chance": 0.1}
    assert Estimate(0.5, resamples, 7, better=None).summary() == {
        "value": 0.5, "ci95": [low, high], "n": 7, "better": None,
    }  # fmt: skip


def test_equal_names_get_equal_numbers():
    numbers = numbered(["b", "a", "b", "c"])
    assert numbers[0] == numbers[2]
    assert sorted(set(numbers.tolist())) == [0, 1, 2]


def test_same_seed_same_interval():
    values = np.random.default_rng(9).normal(size=(60, 2))
    first, second = (bootstrap_means(values, resamples=500, seed=10) for _ in range(2))
    assert (first == second).all()
    assert (first != bootstrap_means(values, resamples=500, seed=11)).any()


def test_separation_worked_out_on_paper():
    cosines = {
        "similar": np.array([0.9, 0.7]),
        "different": np.array([0.1, 0.3]),
        "negation": np.array([0.95, 0.85]),
    }
    estimates = separation_estimates(cosines, Sampling(100, seed=1))
    assert estimates["separation"].value == pytest.approx(0.6)
    assert estimates["negation_gap"].value == pytest.approx(-0.1)
    assert estimates["separation"].chance == 0.0
    assert estimates["separation"].n == 4
    assert estimates["different_similarity"].better == "lower"
    assert estimates["similar_similarity"].better is None
    assert estimates["similar_similarity"].items.tolist() == [0.9, 0.7]


def test_kinds_of_pairs_are_resampled_independently():
    same = np.random.default_rng(14).normal(size=50)
    cosines = {"similar": same, "different": same, "negation": same}
    separation = separation_estimates(cosines, Sampling(2000, seed=1))["separation"]
    # Drawn together the difference would be 0 in every resample.
    assert separation.resamples.std() == pytest.approx(np.sqrt(2 * same.var() / 50), rel=0.1)


@pytest.mark.parametrize(("value", "name"), [(0.45, "high"), (0.449, "moderate"), (0.25, "moderate"), (0.249, "low")])
def test_tiers_of_the_comparison_paper(value, name):
    assert tier(value) == name


def test_correlations_equal_scipy_with_ties():
    rng = np.random.default_rng(12)
    scores = rng.integers(0, 5, 80).astype(float)
    cosines = np.round(scores / 5 + rng.normal(scale=0.3, size=80), 1)
    estimates = sts_estimates(cosines, scores, Sampling(300, seed=13))
    assert estimates["spearman_cosine"].value == pytest.approx(stats.spearmanr(cosines, scores).statistic, abs=1e-12)
    assert estimates["pearson_cosine"].value == pytest.approx(stats.pearsonr(cosines, scores).statistic, abs=1e-12)
    low, high = estimates["spearman_cosine"].summary()["ci95"]
    assert low < estimates["spearman_cosine"].value < high
