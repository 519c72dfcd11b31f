import json
import tracemalloc
from itertools import product

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower

from cardioembed.evaluation.comparisons import (
    WelchTest,
    bootstrap_p_value,
    cohens_d,
    correlation,
    holm,
    permutation_p_value,
    power_note,
    separation_tests,
    smallest_detectable,
    welch_contrast,
)
from cardioembed.evaluation.statistics import Sampling, bootstrap_means


def flips_in_a_loop(sums):
    totals = [abs(np.dot(signs, sums)) for signs in product((1, -1), repeat=len(sums))]
    return np.mean([total >= abs(sum(sums)) - 1e-9 for total in totals])


@pytest.mark.parametrize("shift", [0.0, 0.4, -1.0])
def test_few_items_are_flipped_exactly_as_in_scipy(shift):
    differences = np.random.default_rng(1).normal(shift, size=11)
    peer = stats.permutation_test((differences,), np.mean, permutation_type="samples", n_resamples=np.inf)
    assert permutation_p_value(differences, None, Sampling(7, seed=1)) == pytest.approx(peer.pvalue, abs=1e-12)


def test_ties_count_as_reached():
    # Sums of these round differently by order; 0.1 + 0.2 - 0.3 is not 0 in floats.
    differences = np.array([0.1, 0.2, -0.3, 0.3, 0.1, 0.2])
    assert permutation_p_value(differences, None, Sampling(7, seed=1)) == flips_in_a_loop(differences)


def test_many_items_are_flipped_at_random_as_in_scipy():
    differences = np.random.default_rng(2).normal(0.1, size=300)
    peer = stats.permutation_test(
        (differences,), lambda x, axis: x.mean(axis), permutation_type="samples", n_resamples=20_000, rng=3,
        vectorized=True,
    )  # fmt: skip
    ours = permutation_p_value(differences, None, Sampling(20_000, seed=4))
    assert 0.01 < peer.pvalue < 0.5
    assert ours == pytest.approx(peer.pvalue, abs=0.015)


def test_random_flips_agree_with_all_flips():
    differences = np.random.default_rng(5).normal(0.4, size=13)
    ours = permutation_p_value(differences, None, Sampling(40_000, seed=6))
    assert ours == pytest.approx(flips_in_a_loop(differences), abs=0.01)


def test_clusters_flip_as_one():
    rng = np.random.default_rng(7)
    clusters = rng.permutation(np.repeat(np.arange(9), 5))
    differences = 0.5 + rng.normal(size=9)[clusters] + 0.1 * rng.normal(size=45)
    sums = [differences[clusters == cluster].sum() for cluster in range(9)]
    grouped = permutation_p_value(differences, clusters, Sampling(5000, seed=8))
    assert grouped == pytest.approx(flips_in_a_loop(sums), abs=1e-12)
    # Dependent items taken for independent ones make far too much of the difference.
    assert grouped > 5 * permutation_p_value(differences, None, Sampling(5000, seed=8))


def test_items_without_a_difference_decide_nothing():
    differences = np.array([1.0, 1, 1, -1])
    padded = np.concatenate([np.zeros(500), differences])
    assert permutation_p_value(padded, None, Sampling(9, seed=1)) == flips_in_a_loop(differences) == 10 / 16
    assert permutation_p_value(np.zeros(50), None, Sampling(9, seed=1)) == 1.0
    assert permutation_p_value(np.array([1.0, -1, 2, -2]), np.array([0, 0, 1, 1]), Sampling(9, seed=1)) == 1.0


def test_random_p_value_is_never_zero_and_is_repeatable():
    clear = np.full(100, 0.5)
    assert permutation_p_value(clear, None, Sampling(999, seed=1)) == 1 / 1000
    unclear = np.random.default_rng(9).normal(size=100)
    assert permutation_p_value(unclear, None, Sampling(999, seed=1)) == permutation_p_value(
        unclear, None, Sampling(999, seed=1)
    )


def test_permutation_p_values_are_even_without_a_difference():
    rng = np.random.default_rng(10)
    p_values = [permutation_p_value(rng.normal(size=40), None, Sampling(199, seed=i)) for i in range(400)]
    assert stats.kstest(p_values, "uniform").pvalue > 0.001


def test_blocks_bound_the_memory():
    differences = np.random.default_rng(11).normal(size=50_000)
    tracemalloc.start()
    permutation_p_value(differences, None, Sampling(500, seed=1))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64e6  # all signs at once would be 200e6


def test_differences_that_are_no_numbers_are_refused():
    with pytest.raises(ValueError, match="2 differences are not finite"):
        permutation_p_value(np.array([1.0, np.nan, np.inf]), None, Sampling(9, seed=1))


def test_bootstrap_p_value_worked_out_on_paper():
    assert bootstrap_p_value(np.array([1.0] * 98 + [-1.0])) == pytest.approx(2 * 2 / 100)
    assert bootstrap_p_value(-np.array([1.0] * 98 + [-1.0])) == pytest.approx(2 * 2 / 100)
    assert bootstrap_p_value(np.ones(99)) == pytest.approx(2 / 100)
    assert bootstrap_p_value(np.zeros(99)) == 1.0


def test_bootstrap_p_value_is_near_that_of_a_t_test():
    values = np.random.default_rng(12).normal(size=(300, 1))
    values += 0.12 - values.mean()
    p_value = bootstrap_p_value(bootstrap_means(values, resamples=20_000, seed=13)[:, 0])
    expected = stats.ttest_1samp(values[:, 0], 0).pvalue
    assert 0.005 < expected < 0.3
    assert p_value == pytest.approx(expected, rel=0.2)


def test_welch_with_one_group_a_side_equals_scipy():
    rng = np.random.default_rng(14)
    first, second = rng.normal(0.5, 2, 30), rng.normal(0, 0.5, 12)
    ours, peer = welch_contrast([first], [second]), stats.ttest_ind(first, second, equal_var=False)
    assert (ours.t, ours.df, ours.p_value) == pytest.approx((peer.statistic, peer.df, peer.pvalue), rel=1e-12)
    assert ours.difference == pytest.approx(first.mean() - second.mean())
    assert ours.standard_error == pytest.approx(ours.difference / peer.statistic)


def test_welch_contrast_of_four_groups_equals_the_written_out_formula():
    rng = np.random.default_rng(15)
    groups = [rng.normal(m, s, n) for m, s, n in ((0.8, 0.1, 50), (0.2, 0.3, 40), (0.7, 0.2, 30), (0.3, 0.1, 20))]
    ours = welch_contrast([groups[0], groups[3]], [groups[1], groups[2]])
    shares = [g.var(ddof=1) / len(g) for g in groups]
    means = [g.mean() for g in groups]
    t = (means[0] - means[1] - means[2] + means[3]) / np.sqrt(sum(shares))
    df = sum(shares) ** 2 / sum(share**2 / (len(g) - 1) for share, g in zip(shares, groups, strict=True))
    assert (ours.t, ours.df) == pytest.approx((t, df), rel=1e-12)
    assert ours.p_value == pytest.approx(2 * stats.t.sf(abs(t), df), rel=1e-12)


def test_welch_contrast_rejects_as_often_as_it_says():
    rng = np.random.default_rng(16)
    scales = (1, 3, 0.5, 2)
    draws = [[rng.normal(0, s, n) for s, n in zip(scales, (25, 15, 40, 10), strict=True)] for _ in range(600)]
    assert 0.03 < np.mean([welch_contrast(four[:2], four[2:]).p_value < 0.05 for four in draws]) < 0.075


def test_without_spread_there_is_no_test_and_no_effect_size():
    ones, tenths = np.ones(5), np.full(7, 0.1)
    assert welch_contrast([ones], [tenths]) == WelchTest(pytest.approx(0.9), 0.0, None, None, None)
    assert cohens_d([ones], [tenths]) is None
    alone = welch_contrast([np.array([0.4])], [np.array([0.1, 0.2])])
    assert alone == WelchTest(pytest.approx(0.25), None, None, None, None)


def test_welch_with_tiny_variances_keeps_its_degrees_of_freedom():
    rng = np.random.default_rng(17)
    first, second = rng.normal(size=20), rng.normal(size=30)
    assert welch_contrast([first * 1e-90], [second * 1e-90]).df == pytest.approx(welch_contrast([first], [second]).df)


def test_cohens_d_worked_out_on_paper():
    first, second = np.array([2.0, 4, 6]), np.array([1.0, 2, 3, 4])
    pooled = np.sqrt((2 * 4 + 3 * 5 / 3) / 5)
    assert cohens_d([first], [second]) == pytest.approx((4 - 2.5) / pooled)
    # scipy's t test with equal variances is d / sqrt(1 / n + 1 / m).
    t = stats.ttest_ind(first, second).statistic
    assert cohens_d([first], [second]) == pytest.approx(t * np.sqrt(1 / 3 + 1 / 4))
    # Two separations: (4 - 2.5) - (2.5 - 4), and twice the same squares.
    assert cohens_d([first, first], [second, second]) == pytest.approx(3 / pooled)


def test_holm_equals_statsmodels():
    rng = np.random.default_rng(18)
    for size in (1, 2, 10, 55):
        p_values = np.round(rng.beta(0.4, 2, size), 2)  # rounded, so that some are equal
        assert holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1], abs=1e-15)
    assert holm([]).shape == (0,)


def models(seed, **separations):
    rng = np.random.default_rng(seed)
    kinds = {"similar": 1, "different": 0, "negation": 0}
    return {
        name: {kind: rng.normal(0.3 + value * share, 0.15, 50) for kind, share in kinds.items()}
        for name, value in separations.items()
    }


def test_separations_of_all_pairs_of_models():
    cosines = models(19, strong=0.5, near=0.47, weak=0.1)
    rows = separation_tests(cosines)
    assert [row["models"] for row in rows] == [["strong", "near"], ["strong", "weak"], ["near", "weak"]]
    separation = {m: found["similar"].mean() - found["different"].mean() for m, found in cosines.items()}
    for row in rows:
        one, other = row["models"]
        assert row["difference"] == pytest.approx(separation[one] - separation[other])
        assert np.sign(row["cohens_d"]) == np.sign(row["t"]) == np.sign(row["difference"])
    assert [row["p_holm"] for row in rows] == holm([row["p_value"] for row in rows]).tolist()
    assert rows[0]["p_holm"] > 0.05 > rows[1]["p_holm"] > rows[1]["p_value"]
    assert rows[0]["power_note"].startswith("n = 100: only differences of ")
    assert rows[1]["power_note"] is None
    assert json.loads(json.dumps(rows, allow_nan=False)) == rows


def test_a_model_that_gives_one_cosine_to_all_pairs_is_no_obstacle():
    cosines = models(20, strong=0.5, weak=0.1)
    collapsed = {kind: np.full(50, 0.7) for kind in ("similar", "different", "negation")}
    rows = separation_tests({**cosines, "collapsed": collapsed, "also": collapsed})
    json.dumps(rows, allow_nan=False)
    last = rows[-1]
    assert last["models"] == ["collapsed", "also"]
    assert (last["difference"], last["p_value"], last["p_holm"], last["cohens_d"]) == (0.0, None, None, None)
    # Six pairs were compared, whether or not all could be tested.
    smallest = min(row["p_value"] for row in rows[:-1])
    assert min(row["p_holm"] for row in rows[:-1]) == pytest.approx(6 * smallest, rel=1e-9, abs=0)
    assert separation_tests({"alone": collapsed}) == []


def test_correlation_equals_the_formulas_and_scipy():
    rng = np.random.default_rng(21)
    x = rng.normal(size=11)
    y = 0.6 * x + rng.normal(size=11)
    ours, peer = correlation(x, list(y)), stats.pearsonr(x, y)
    assert ours["r"] == pytest.approx(np.corrcoef(x, y)[0, 1])
    t = ours["r"] * np.sqrt(9 / (1 - ours["r"] ** 2))
    assert ours["p_value"] == pytest.approx(2 * stats.t.sf(abs(t), 9))
    z, half = np.arctanh(ours["r"]), stats.norm.ppf(0.975) / np.sqrt(8)
    assert ours["ci95"] == pytest.approx([np.tanh(z - half), np.tanh(z + half)])
    assert ours["ci95"] == pytest.approx(list(peer.confidence_interval(0.95)))
    assert ours["n"] == 11


@pytest.mark.filterwarnings("error")
def test_correlation_leaves_open_what_is_undefined():
    undefined = {"r": None, "p_value": None, "ci95": None}
    assert correlation([1, 2], [3, 5]) == {**undefined, "n": 2}
    assert correlation([], []) == {**undefined, "n": 0}
    assert correlation([1024] * 5, [0.1, 0.2, 0.3, 0.4, 0.5]) == {**undefined, "n": 5}
    assert correlation([1, 2, 3, 4], [0.1] * 4) == {**undefined, "n": 4}
    three = correlation([1, 2, 3], [1, 2, 4])
    assert three["ci95"] is None
    assert three["r"] == pytest.approx(0.98198, abs=1e-5)
    perfect = correlation([1, 2, 3, 4, 5], [-2, -4, -6, -8, -10])
    assert perfect["r"] == pytest.approx(-1)
    assert perfect["ci95"] == pytest.approx([-1, -1], abs=1e-6)


@pytest.mark.parametrize("n", [2, 3, 10, 60, 6259, 100_000])
@pytest.mark.parametrize(("power", "alpha"), [(0.8, 0.05), (0.95, 0.01)])
def test_smallest_detectable_has_the_power_that_statsmodels_gives_it(n, power, alpha):
    size = smallest_detectable(2.0, n, power, alpha) / 2.0
    assert TTestPower().power(size, n, alpha) == pytest.approx(power, abs=1e-5)


def test_smallest_detectable_at_the_ends():
    assert smallest_detectable(0.3, 1) == np.inf
    assert smallest_detectable(0.0, 50) == 0.0


def test_smallest_detectable_is_found_as_often_as_it_says():
    rng = np.random.default_rng(22)
    draws = rng.normal(smallest_detectable(1.5, 20), 1.5, size=(2000, 20))
    assert (stats.ttest_1samp(draws, 0, axis=1).pvalue < 0.05).mean() == pytest.approx(0.8, abs=0.03)


def test_power_note_says_what_n_can_show():
    # The standard error of 60 items with SD 0.22 is 0.0284; 0.0809 could be found, 0.0568 would be significant.
    error = 0.22 / np.sqrt(60)
    assert power_note(0.03, 60, error) == (
        "n = 60: only differences of 0.081 or more would be found with 80 % power; the 0.03 seen may be noise"
    )
    assert power_note(-0.07, 60, error).endswith("the -0.07 seen may be larger than the true one")
    assert power_note(0.082, 60, error) is None
    assert power_note(-0.082, 60, error) is None
    assert power_note(0.0, 60, 0.0) is None
    assert power_note(0.5, 1, 0.0) == "n = 1: too few to find any difference; the 0.5 seen may be noise"
    assert "of 0.000028 or more" in power_note(0.00001, 100, 0.00001)
