import re
from pathlib import Path

import numpy as np
import pytest

from cardioembed.lexicon import CATEGORIES
from cardioembed.records import read_jsonl
from cardioembed.triplets.counterfactuals import Counterfactual, choose_counterfactual, counterfactuals

SAMPLE = Path(__file__).parents[2] / "data/sample/paraphrases/close.jsonl"


def texts(sentence, *categories):
    return [edit.text for edit in counterfactuals(sentence, categories or CATEGORIES)]


@pytest.mark.parametrize(
    ("category", "sentence", "expected"),
    [
        ("laterality", "The left atrium is dilated.", "The right atrium is dilated."),
        ("laterality", "Left ventricular function is poor.", "Right ventricular function is poor."),
        ("laterality", "An LV thrombus was seen.", "An RV thrombus was seen."),
        ("direction", "It was followed by an increase in preload.", "It was followed by a decrease in preload."),
        ("direction", "Digoxin may raise the gradient.", "Digoxin may lower the gradient."),
        ("severity", "Severe stenosis needs surgery.", "Mild stenosis needs surgery."),
        ("severity", "An excellent outcome is expected.", "A poor outcome is expected."),
        ("temporality", "This is an acute illness.", "This is a chronic illness."),
        ("temporality", "Diastolic function declined.", "Systolic function declined."),
        ("entity", "The patient's LAD is occluded.", "The patient's RCA is occluded."),
        ("entity", "An ASD was closed.", "A VSD was closed."),
        ("entity", "A STEMI is treated by PCI.", "An NSTEMI is treated by PCI."),
        ("entity", "Give ACE inhibitors early.", "Give thiazides early."),
        ("entity", "The ventricle's apex was thin.", "The atrium's apex was thin."),
        ("role", "Thrombolysis is contraindicated here.", "Thrombolysis is indicated here."),
        ("number", "Give 5 mg of it.", "Give 10 mg of it."),
        ("number", "A dose of 2.5 mg is given.", "A dose of 5.0 mg is given."),
        ("number", "It took 1 hour.", "It took 2 hours."),
        ("number", "A 30-day course was given.", "A 60-day course was given."),
        ("number", "Repair it above 55 mm.", "Repair it below 55 mm."),
        ("number", "LVEF was > 35 %.", "LVEF was < 35 %."),
        ("number", "A value of 20 or more is abnormal.", "A value of 20 or less is abnormal."),
        ("number", "NYHA class II was recorded.", "NYHA class IV was recorded."),
        ("number", "It is a type A dissection.", "It is a type B dissection."),
        ("number", "Recovery took two weeks.", "Recovery took four weeks."),
    ],
)
def test_one_meaning_changes_and_the_grammar_holds(category, sentence, expected):
    assert expected in texts(sentence, category)


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        ("The valve is bicuspid.", "The valve is not bicuspid."),
        ("Aspirin should be given.", "Aspirin should not be given."),
        ("Fever may occur.", "Fever cannot occur."),
        ("There is an effusion.", "There is no effusion."),
        ("Amiodarone prolongs QT.", "Amiodarone does not prolong QT."),
        ("Amiodarone usually prolongs QT.", "Amiodarone does not usually prolong QT."),
        ("Statins inhibit the enzyme.", "Statins do not inhibit the enzyme."),
        ("Drugs that inhibit it are useful.", "Drugs that do not inhibit it are useful."),
        ("Stress causes the attack.", "Stress does not cause the attack."),
        ("The disease has a cure.", "The disease does not have a cure."),
        ("It has been studied.", "It has not been studied."),
        ("Treat patients with diabetes first.", "Treat patients without diabetes first."),
        ("It does not reduce mortality.", "It reduces mortality."),
        ("They do not reduce mortality.", "They reduce mortality."),
        ("It could not be repaired.", "It could be repaired."),
        ("It should not be repaired.", "It should be repaired."),
        ("It isn't repaired.", "It is repaired."),
        ("No thrombus was seen.", "Thrombus was seen."),
        ("It has no effect on survival.", "It has an effect on survival."),
        ("It acts without reducing preload.", "It acts while reducing preload."),
        ("They had angina without stenosis.", "They had angina with stenosis."),
        ("Non-obstructive disease was seen.", "Obstructive disease was seen."),
        ("The murmur is absent today.", "The murmur is present today."),
        ("This is never needed.", "This is always needed."),
    ],
)
def test_denials_and_their_removal(sentence, expected):
    assert expected in texts(sentence, "negation")


@pytest.mark.parametrize(
    ("category", "sentence"),
    [
        ("laterality", "Blood flows from left to right."),
        ("laterality", "LV pressure equals that of the right ventricle."),
        ("laterality", "The left anterior descending artery is open."),
        ("laterality", "The left main stem is open."),
        ("laterality", "It was left untreated."),
        ("laterality", "They are on the right track."),
        ("laterality", "Measure right heart catheterisation pressures."),
        ("laterality", "Aortic dilation (di-LA-shun) is common."),
        ("direction", "High-sensitivity troponin was measured."),
        ("direction", "Low-density lipoprotein was measured."),
        ("temporality", "Early repolarisation was seen."),
        ("temporality", "Systolic and diastolic function were measured."),
        ("severity", "Mild to moderate stenosis was seen."),
        ("number", "In 2014 the trial ended."),
        ("number", "See Table 3 and reference 12."),
        ("number", "Leads V1 to V3, T3, CYP2C9 and GLP-1 were named."),
        ("number", "The blood pressure was 130/80 mmHg."),
        ("number", "Give 0.9% saline."),
        ("number", "The gradient was 20 to 39 mmHg."),
        ("number", "Class I or II was recorded."),
        ("negation", "Not only rare but grave."),
        ("negation", "Note no. 4 helped."),
        ("negation", "It is no longer than that."),
        ("negation", "Nonetheless it helped."),
        ("negation", "No drug reduces mortality."),
        ("negation", "What is angina?"),
        ("negation", "It rarely causes harm."),
        ("negation", "Rarer than was thought, it helped."),
        ("negation", "It did so without delay."),
        ("negation", "The common causes of it, at last."),
        ("negation", "He tried to reduce the pain."),
        ("negation", "Wait until it is repaired."),
        ("negation", "Once it is repaired, he walks."),
        ("negation", "Let drugs inhibit the enzyme."),
        ("negation", "His tests shows the flow."),
        ("negation", "It has no effect on pain or fever."),
        ("number", "The rate was 10% to 15%."),
        ("negation", "The more it is repaired the better."),
        ("negation", "It is treated only by rest."),
        ("negation", "It is defined by symptoms rather than by pressure."),
        ("negation", "It should be given early but not late."),
        ("negation", "It does not reduce mortality but symptoms."),
        ("negation", "It was not repaired or replaced until then."),
        ("negation", "It has no effect nor any value."),
        ("negation", "The heart rates below this count."),
        ("number", "It lasted 2 to 5 days."),
        ("number", "Between 2 and 5 days pass."),
        ("number", "Use 2 or 3 mg."),
    ],
)
def test_fixed_names_both_poles_and_other_meanings_are_left_alone(category, sentence):
    assert texts(sentence, category) == []


@pytest.mark.parametrize(
    ("category", "word", "left_alone", "exchanged"),
    [
        # What holds of a quantity also holds of a larger or smaller one.
        ("number", "6 hours", "It is over in 6 hours.", "It lasts 6 hours."),
        ("number", "6 hours", "It ends inside 6 hours.", "It lasts 6 hours."),
        ("number", "two weeks", "It peaks in the first two weeks.", "Recovery took two weeks."),
        ("number", "24 h", "It must be repeated over 24 h.", "It lasted 24 h."),
        ("number", "0.5 mm", "A shift of 0.5 mm is sufficient.", "A shift of 0.5 mm was seen."),
        ("number", "30", "The 30-day mortality was measured.", "A 30-day course was given."),
        ("number", "Ten years", "Ten years later it still works.", "Ten years later it failed."),
        ("number", "within", "Take none within 24 hours of it.", "Take it within 24 hours."),
        ("number", "or more", "Give it if 2 or more segments fail.", "A score of 2 or more is high."),
        # No event or span follows that the change of order could refer to.
        ("temporality", "after", "Chest pain comes after.", "Pain returned and rose after the operation."),
        ("temporality", "after", "Pain continues after the effort.", "Pain rose after the effort."),
        ("temporality", "late", "Late comers are treated.", "Late enlargement is treated."),
        ("temporality", "initial", "It was found in the initial 48 hours.", "It was initially found there."),
        # The rest of the sentence leans on the word.
        ("entity", "systolic", "He had systolic heart failure (HFrEF).", "He had systolic heart failure."),
        ("entity", "venous", "Pulmonary venous (wedge) pressure was high.", "Pulmonary venous oxygen was high."),
        ("entity", "atrial", "Secundum atrial defects close.", "Small atrial defects close."),
        ("entity", "statin", "One statin replaces another statin.", "One statin was stopped."),
        ("entity", "hypertension", "Hypertension treated is hypertension still.", "Hypertension was treated."),
        ("entity", "oral", "An intravenous line was placed.", "An intravenous drug was given."),
        ("entity", "endocarditis", "Native valve endocarditis was seen.", "Acute pericarditis was seen."),
        ("direction", "rising", "The dose was 70, rising to 100 units.", "The rising pressure was noted."),
        ("direction", "increases", "The rate increases from 60 beats.", "The rate increases at night."),
        ("direction", "small", "Small-dose aspirin was given.", "Small valves leak."),
        ("direction", "narrowing", "It is a days-long narrowing (stenosis).", "Narrowing was seen."),
        ("laterality", "left", "It is in left dominance, in other words as here.", "It is in left dominance."),
        ("severity", "moderate", "Even moderate activity tires him.", "Moderate stenosis was seen."),
        ("severity", "mild", "Anaemia makes mild stenosis look severe.", "Anaemia makes mild stenosis look alike."),
        ("role", "favours", "It favours infarction over pericarditis.", "It favours infarction."),
        ("role", "preferred", "Covered stents are preferred over bare ones.", "Covered stents are preferred."),
        ("role", "caused by", "Narrowing caused by treatment was seen.", "Narrowing due to treatment was seen."),
        ("role", "precipitated", "Takotsubo precipitated by grief heals.", "Takotsubo is precipitated by grief."),
        ("role", "confirms", "Tenting confirms the site of puncture.", "Tenting confirms puncture."),
        ("negation", "adequately", "No view was adequately seen.", "It may be adequately seen."),
        (
            "negation",
            "without",
            "They fared worse than those without the disease.",
            "They fared well without stenosis.",
        ),
        # The denial would take along what follows, or stand in a clause that cannot bear it.
        ("negation", "is", "The balloon is inflated, and withdrawn later.", "The balloon is inflated."),
        ("negation", "compresses", "It compresses the vein, a known condition.", "It compresses the vein."),
        ("negation", "is", "Symptoms fade as effort is continued.", "Effort is continued."),
        ("negation", "should", "It should preferably be treated.", "It should be treated."),
        ("negation", "is", "What defines it is injury.", "The cause is injury."),
        ("negation", "is", "Give the lowest dose that is practicable.", "The dose is practicable."),
        ("negation", "can", "Cocaine can provoke it as well.", "Cocaine can provoke it."),
        ("negation", "with", "Patients with fever and no rash recover.", "Patients with fever recover."),
        ("negation", "cannot", "He is steady but cannot be weaned.", "He cannot be weaned."),
    ],
)
def test_a_word_is_left_alone_where_the_edit_would_be_wrong(category, word, left_alone, exchanged):
    assert texts(left_alone, category) == [], word
    assert texts(exchanged, category), word


def test_a_quantity_does_not_become_another_one_of_the_sentence():
    found = texts("Give 5 mg, then 10 mg, then 20 mg.", "number")
    assert found == ["Give 5 mg, then 10 mg, then 40 mg."]


def test_an_abbreviation_that_spells_the_word_out_keeps_it():
    sentence = "Left ventricular hypertrophy (LVH) was found."
    assert "Right ventricular hypertrophy (LVH) was found." not in texts(sentence)
    assert "Right ventricular hypertrophy was found." in texts(sentence.replace(" (LVH)", ""))


def test_only_the_wanted_categories_come_back_and_the_order_is_the_same_each_time():
    sentence = "Severe left atrial dilatation increases the risk by 20%."
    found = counterfactuals(sentence)
    assert found == counterfactuals(sentence)
    assert {edit.category for edit in found} >= {"laterality", "severity", "direction", "number", "negation"}
    for category in CATEGORIES:
        assert counterfactuals(sentence, [category]) == [edit for edit in found if edit.category == category]


@pytest.fixture(scope="module")
def sample():
    originals = list(dict.fromkeys(row["original"] for row in read_jsonl(SAMPLE)))
    return {text: counterfactuals(text) for text in originals}


def test_most_sentences_of_the_sample_have_an_edit_and_every_category_occurs(sample):
    assert sum(map(bool, sample.values())) > 0.9 * len(sample) > 900
    assert {edit.category for found in sample.values() for edit in found} == set(CATEGORIES)


def test_edits_of_the_sample_are_small_distinct_and_well_formed(sample):
    for text, found in sample.items():
        assert len({edit.text for edit in found} | {text}) == len(found) + 1
        for edit in found:
            assert text not in (edit.text, "")
            assert "  " not in edit.text
            assert edit.text[0].isupper() or not text[0].isupper()
            assert edit.text[-1] == text[-1]
            assert abs(len(edit.text) - len(text)) < 40
            assert not re.search(
                r"\ba (?=[aeio][a-z]{2})(?!one\b|once\b|e[uw])|\ban (?=[bcdfgjklmnpqrstvwxz][a-z])", edit.text
            ), edit


@pytest.mark.parametrize(
    "text", ["", " ", ".", "a", "İ left", "LEFT VENTRICLE", "µg 5 mg <", "(", "12", "no", "is not", "the left"]
)
def test_any_text_is_accepted(text):
    for edit in counterfactuals(text):
        assert edit.text != text


def test_categories_are_drawn_alike_whatever_their_number_of_edits():
    candidates = [Counterfactual(f"n{i}", "negation", "") for i in range(9)] + [Counterfactual("r", "role", "")]
    rng = np.random.default_rng(0)
    drawn = [choose_counterfactual(candidates, rng) for _ in range(1000)]
    assert 420 < sum(edit.category == "role" for edit in drawn) < 580
    assert {edit.text for edit in drawn} == {edit.text for edit in candidates}
