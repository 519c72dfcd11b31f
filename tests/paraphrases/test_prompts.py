import re
from typing import get_args

import pytest

from cardioembed.config import GeneratorSettings
from cardioembed.errors import UserError
from cardioembed.paraphrases.fidelity import check_paraphrase
from cardioembed.paraphrases.generation import prompts
from cardioembed.paraphrases.generation.prompts import PROMPTS, Prompt, find_prompt


def test_a_name_alone_is_the_newest_version_and_a_pinned_one_stays(monkeypatch):
    monkeypatch.setattr(prompts, "PROMPTS", {f"close/{n}": Prompt(f"close/{n}", "", "{text}") for n in (2, 10, 9)})
    assert find_prompt("close").name == "close/10"
    assert find_prompt("close/2").name == "close/2"


@pytest.mark.parametrize("name", ["close/7", "free/0", "poem", "close/x", ""])
def test_an_unknown_version_names_those_there_are(name):
    with pytest.raises(UserError, match=rf"there is no '{name}'; there are close/1, free/1, passages/1"):
        find_prompt(name)


def test_every_kind_that_the_settings_allow_has_a_prompt():
    pattern = next(
        item.pattern for item in GeneratorSettings.model_fields["prompt"].metadata if hasattr(item, "pattern")
    )
    kinds = re.search(r"\((.*?)\)", pattern)[1].split("|")
    assert {find_prompt(kind).kind for kind in kinds} == set(kinds) == {prompt.kind for prompt in PROMPTS.values()}
    assert get_args(GeneratorSettings.model_fields["engine"].annotation) == ("openai", "transformers")


@pytest.mark.parametrize("name", PROMPTS)
def test_the_text_goes_in_as_it_stands_braces_and_all(name):
    text = r"dP/dt {text} {0} \1 \g<0> 40 %"
    system, user = PROMPTS[name].messages(text)
    assert (system["role"], user["role"]) == ("system", "user")
    assert user["content"].endswith(f"\n\n{text}")
    assert "{text}" not in system["content"]
    assert PROMPTS[name].user.count("{text}") == 1


@pytest.mark.parametrize("name", PROMPTS)
def test_every_prompt_states_what_must_not_change(name):
    stated = PROMPTS[name].system.lower()
    for word in ("number", "unit", "dose", "den", "direction", "sever", "timing", "drug", "valve", "vessel"):
        assert word in stated, word
    assert "left and right" in stated or "side" in stated
    assert "nothing else" in stated


@pytest.mark.parametrize("name", ["close/1", "free/1"])
def test_a_model_that_repeats_its_instruction_is_refused_by_the_gates(name):
    sentence = "Severe aortic stenosis narrows the valve area below 1.0 cm2."
    echo = PROMPTS[name].messages(sentence)[1]["content"].replace("\n\n", " ")
    limits = {"min_characters": 20, "max_characters": 1000, "min_length_ratio": 0.4, "max_length_ratio": 2.5}
    assert check_paraphrase(sentence, echo, **limits).reason == "prompt_echo"
    assert check_paraphrase(sentence, sentence, **limits).reason == "copy"
