import textwrap

import pytest
import yaml

from cardioembed.errors import UserError
from cardioembed.lexicon import CATEGORIES, LEXICON_FILE, lexicon, load_lexicon, opposites


def write(tmp_path, laterality, grammar=None):
    """A lexicon whose only entry is in laterality."""
    content = {category: {} for category in CATEGORIES} | {
        "laterality": yaml.safe_load(textwrap.dedent(laterality)),
        "grammar": {
            "verbs": ["reduce reduces reducing"],
            "verbs_also_nouns": [],
            "mass_nouns": [],
            "counted_nouns": [],
            "adverbs": [],
            "units": [],
            "articles": [],
        }
        | (grammar or {}),
    }
    path = tmp_path / "lexicon.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def form_of(words, path=None):
    known = load_lexicon(path) if path else lexicon()
    return next(form for forms in known.forms.values() for _, form in forms if form.text == words)


def allowed(form, text):
    lower = text.lower()
    start = lower.index(form.text)
    before = lower[:start].replace("-", " ").split()
    return form.allowed(lower, start, start + len(form.text), before[-1] if before else "")


def test_opposites_go_both_ways_and_no_word_opposes_itself():
    found = opposites()
    assert set(found) == set(CATEGORIES)
    assert "right" in found["laterality"]["left"]
    assert "left" in found["laterality"]["right"]
    assert found["severity"]["mild"] >= {"moderate", "severe"}
    for words in found.values():
        assert words
        for word, others in words.items():
            assert word not in others
            assert all(word in words[other] for other in others)


def test_one_way_pairs_are_offered_one_way():
    assert form_of("reduction").targets == ("increase",)
    assert "reduction" not in form_of("increase").targets


def test_spellings_of_one_drug_do_not_replace_each_other():
    noradrenaline, norepinephrine = form_of("noradrenaline"), form_of("norepinephrine")
    assert noradrenaline.pole == norepinephrine.pole
    assert noradrenaline.targets == norepinephrine.targets
    assert not {"noradrenaline", "norepinephrine"} & set(noradrenaline.targets)


def test_rivals_offer_a_name_of_their_own_group_and_one_of_another_first():
    assert set(form_of("warfarin").targets[:2]) == {"apixaban", "enoxaparin"}


@pytest.mark.parametrize(
    ("form", "text", "expected"),
    [
        ("left", "the left ventricle", True),
        ("left", "the left main stem", False),
        ("left", "left untreated it progresses", False),
        ("right", "on the right track", False),
        ("above", "above 35 mmHg", True),
        ("above", "above about 35 mmHg", True),
        ("above", "above the valve", False),
        ("or more", "20 mmHg or more", True),
        ("or more", "1.73 m2 or more", True),
        ("or more", "one or more vessels", False),
        ("low", "low-density lipoprotein", False),
        ("low", "a low density", False),
        ("low", "a low output", True),
    ],
)
def test_contexts(form, text, expected):
    assert allowed(form_of(form), text) is expected


def test_a_wildcard_and_a_tilde_in_contexts(tmp_path):
    path = write(tmp_path, "{side: {swap: [left <-> right], keep: ['~ un*', 'NUM to the ~', 'too far ~']}}")
    for form, other in (("left", "right"), ("right", "left")):
        form = form_of(form, path)
        assert form.targets == (other,)
        assert allowed(form, f"a {form.text} lung")
        assert not allowed(form, f"it was {form.text} unrepaired")
        assert not allowed(form, f"3 cm to the {form.text} of it")
        assert not allowed(form, f"too far {form.text}")
        assert allowed(form, f"far {form.text}")


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("{side: {swap: [left = right]}}", r"laterality, side: 'left = right' is not a pair"),
        ("{side: {swap: [left <-> left]}}", r"side: 'left <-> left' is not a pair"),
        ("{side: {swap: [left <-> right, left -> medial]}}", r"side: 'left' stands twice"),
        ("{side: {swap: [left <-> right, a -> b, b -> c, a -> c]}}", r"'a -> c' opposes two words that stand on one"),
        ("{side: {swap: [no]}}", r"side: expected a list of words"),
        ("{side: {swap: [left <-> right], kepe: [left main]}}", r"side: an entry has either swap or rivals"),
        ("{side: {swap: [left <-> right], rivals: {a: [b, c]}}}", r"side: an entry has either swap or rivals"),
        ("{side: {swap: [left <-> right], keep: [main stem]}}", r"side, keep: 'main stem' holds none of the entry's"),
        ("{side: {swap: [left <-> right], keep: [left]}}", r"side, keep: 'left' alone is no context"),
        ("{side: {swap: [left <-> right], only: [left lung]}}", r"side: no context under only holds 'right'"),
        ("{side: {rivals: [left, right]}}", r"side: rivals are named groups"),
        ("{side: {rivals: {a: [left, right], b: [left]}}}", r"side: rivals are two or more names, each in one group"),
        (
            "{side: {swap: [left <-> right]}, hand: {swap: [left -> dominant]}}",
            r"'left' stands in laterality, hand and in laterality, side",
        ),
    ],
)
def test_a_mistake_is_reported_with_its_entry(tmp_path, entry, message):
    with pytest.raises(UserError, match=message):
        load_lexicon(write(tmp_path, entry))


@pytest.mark.parametrize(
    ("grammar", "message"),
    [
        ({"verbs": ["reduce reduces"]}, r"'reduce reduces' is not 'base third-person ing-form'"),
        ({"verbs_also_nouns": ["reduce reduces reducing"]}, r"verbs_also_nouns: 'reduce' stands twice"),
        ({"nouns": []}, r"grammar: the keys must be verbs,"),
    ],
)
def test_a_mistake_in_the_grammar_is_reported(tmp_path, grammar, message):
    with pytest.raises(UserError, match=message):
        load_lexicon(write(tmp_path, "{side: {swap: [left <-> right]}}", grammar))


def test_a_file_that_is_no_lexicon_is_reported(tmp_path):
    path = tmp_path / "lexicon.yaml"
    path.write_text("laterality: {}", encoding="utf-8")
    with pytest.raises(UserError, match=r"the keys must be negation, laterality"):
        load_lexicon(path)
    path.write_text("[", encoding="utf-8")
    with pytest.raises(UserError, match="cannot be read"):
        load_lexicon(path)


def test_every_entry_of_the_shipped_file_is_loaded():
    content = yaml.safe_load(LEXICON_FILE.read_text(encoding="utf-8"))
    loaded = {(form.category, form.entry) for forms in lexicon().forms.values() for _, form in forms}
    assert loaded == {(category, entry) for category in CATEGORIES for entry in content[category]}
