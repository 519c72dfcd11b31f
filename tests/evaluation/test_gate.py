import pytest

from cardioembed.errors import UserError
from cardioembed.evaluation.gate import Gate, parse_gates

EVALUATIONS = ["paraphrase_retrieval", "sts_biosses", "sts_other", "concept_separation"]
DOCUMENT = {
    "models": {"adapted": {"paraphrase_retrieval": {"accuracy@1": {"value": 0.91}}}, "base": {}},
    "delta": {"sts_biosses": {"spearman_cosine": {"value": -0.03}}},
}


def test_a_name_may_be_given_by_its_end():
    assert parse_gates(["retrieval.accuracy@1=0.9"], EVALUATIONS) == [Gate("paraphrase_retrieval", "accuracy@1", 0.9)]
    assert parse_gates(["delta.sts_biosses.spearman_cosine=-0.02"], EVALUATIONS) == [
        Gate("sts_biosses", "spearman_cosine", -0.02, delta=True)
    ]


def test_a_value_below_fails_and_one_that_is_equal_passes():
    assert Gate("paraphrase_retrieval", "accuracy@1", 0.91).failure(DOCUMENT) is None
    failure = Gate("paraphrase_retrieval", "accuracy@1", 0.95).failure(DOCUMENT)
    assert failure == "paraphrase_retrieval.accuracy@1 is 0.9100, below 0.95"


def test_a_gate_can_be_about_the_gain():
    failure = Gate("sts_biosses", "spearman_cosine", -0.02, delta=True).failure(DOCUMENT)
    assert failure == "delta.sts_biosses.spearman_cosine is -0.0300, below -0.02"


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("retrieval.accuracy@1", "is not evaluation.metric=number"),
        ("retrieval=0.9", "is not evaluation.metric=number"),
        ("retrieval.accuracy@1=high", "is not evaluation.metric=number"),
        ("retrieval.accuracy@1=nan", "is not evaluation.metric=number"),
        ("recall.accuracy@1=0.9", "'recall' is not an evaluation of this run: paraphrase_retrieval, sts_biosses"),
    ],
)
def test_mistakes_are_told_with_what_is_possible(argument, message):
    with pytest.raises(UserError, match=message):
        parse_gates([argument], EVALUATIONS)


def test_an_ending_of_two_evaluations_is_refused():
    with pytest.raises(UserError, match="'trec' is more than one evaluation: beir_trec, mteb_trec"):
        parse_gates(["trec.ndcg@10=0.5"], ["beir_trec", "mteb_trec"])


def test_an_unknown_metric_is_told_with_the_known_ones():
    with pytest.raises(UserError, match="paraphrase_retrieval has no metric 'acc'; it has accuracy@1"):
        Gate("paraphrase_retrieval", "acc", 0.9).failure(DOCUMENT)
