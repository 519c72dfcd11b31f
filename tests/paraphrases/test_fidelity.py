import json
from pathlib import Path

import pytest

from cardioembed.paraphrases.fidelity import check_paraphrase
from cardioembed.paraphrases.quantities import numbers
from cardioembed.triplets.counterfactuals import counterfactuals

SAMPLE = Path(__file__).parents[2] / "data" / "sample" / "paraphrases"
LIMITS = {"min_characters": 20, "max_characters": 1000, "min_length_ratio": 0.4, "max_length_ratio": 2.5}
ADENOSINE = "Adenosine terminates the tachycardia within seconds."


def check(original, paraphrase, **limits):
    return check_paraphrase(original, paraphrase, **{**LIMITS, **limits})


def reason(original, paraphrase, **limits):
    rejection = check(original, paraphrase, **limits)
    return rejection.reason if rejection else None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Give 2.50 mg/kg of drug 40.", {"2.5", "40"}),
        ("About 1,200 of 12,345 patients.", {"1200", "12345"}),
        ("PDE5, V1, T2, cm2 and CHA2DS2-VASc hold none.", set()),
        ("A 30-day course at 120/80 mm Hg, INR 2.0-3.0.", {"30", "120", "80", "2", "3"}),
        ("A 5mg tablet, 35% and <10.", {"5", "35", "10"}),
        ("Ends with 100.", {"100"}),
        ("No number here.", set()),
    ],
)
def test_free_standing_numbers(text, expected):
    assert numbers(text) == expected


@pytest.mark.parametrize(
    ("original", "paraphrase"),
    [
        ("Give bisoprolol 5 mg once daily.", "Bisoprolol is taken at a dose of 5 mg every day."),
        ("Troponin rises within 3 to 6 hours of infarction.", "Troponin climbs three to six hours after infarction."),
        ("Two of the three cusps are fused in this valve.", "In this valve 2 of the 3 leaflets have joined."),
        ("About 1,200 patients were enrolled in the trial.", "The trial enrolled roughly 1200 patients."),
        ("Mortality was 5.0% at one year.", "At 1 year mortality had reached 5%."),
        ("Score one point from 65 to 74 years of age.", "Patients aged 65-74 get 1 point on the score."),
        ("The valve area is 1.0 cm2 or less.", "A valve orifice of at most 1 cm2 is found."),
        ("The QRS is wider than 120 ms.", "A QRS complex of over 120 milliseconds is seen."),
        ("Sildenafil is a PDE5 inhibitor that lowers pressure.", "Pressure falls on sildenafil, which blocks PDE-5."),
        ("The third heart sound is heard at the apex.", "The S3 is audible over the cardiac apex."),
        ("The infusion lasts 24 hours in all patients.", "All patients are infused for twenty-four hours."),
        ("The registry holds 100 patients with amyloid.", "One hundred patients with amyloid are on the register."),
    ],
)
def test_same_numbers_in_other_words_pass(original, paraphrase):
    assert check(original, paraphrase) is None


@pytest.mark.parametrize(
    ("original", "paraphrase", "detail"),
    [
        ("Give 300 mg of aspirin at once.", "Aspirin 30 mg is given at once.", "lost 300; added 30"),
        ("Give 300 mg of aspirin at once.", "Aspirin is given at once by mouth.", "lost 300"),
        ("Give aspirin at once by mouth.", "Aspirin 300 mg is swallowed at once.", "added 300"),
        ("The dose is 2.5 mg of warfarin.", "Warfarin is dosed at 25 mg a day.", "lost 2.5; added 25"),
        ("Potassium above 6.5 mmol/L needs calcium.", "Calcium is given above 5.6 mmol/L.", "lost 6.5; added 5.6"),
        ("Wait 24 to 48 hours before surgery.", "Surgery waits for 24 to 72 hours.", "lost 48; added 72"),
        ("Repeat after 3 and 6 hours from the start.", "Repeat after two and six hours from the start.", "lost 3"),
    ],
)
def test_changed_number_is_refused_and_named(original, paraphrase, detail):
    rejection = check(original, paraphrase)
    assert (rejection.reason, rejection.detail) == ("numbers_changed", detail)


@pytest.mark.parametrize(
    ("original", "paraphrase"),
    [
        ("Give digoxin 250 micrograms once daily.", "Digoxin 250 mg is taken every day."),
        ("Give bisoprolol 5 mg once daily.", "Bisoprolol is taken at a dose of 5 g every day."),
        ("The effusion measures 20 mm in diastole.", "In diastole the effusion is 20 cm deep."),
        ("Stop the infusion after 48 hours of therapy.", "The infusion ends after 48 days of therapy."),
    ],
)
def test_changed_unit_is_refused(original, paraphrase):
    assert check(original, paraphrase) is not None


@pytest.mark.parametrize(
    ("original", "paraphrase"),
    [
        ("Bisoprolol is stopped before the stress test.", "Before the stress test carvedilol is withheld."),
        ("Warfarin is preferred for mechanical valves.", "For mechanical valves apixaban is favoured."),
        ("Regurgitation of the mitral valve causes a murmur.", "A murmur is caused by an incompetent aortic valve."),
    ],
)
def test_changed_drug_or_structure_is_refused(original, paraphrase):
    assert check(original, paraphrase) is not None


@pytest.mark.parametrize(
    ("original", "paraphrase"),
    [
        ("The left ventricle dilates early on.", "LV dilatation is an early finding."),
        ("Deoxygenated blood fills the right atrium.", "The RA is filled with deoxygenated blood."),
        ("Occlusion of the right coronary artery slows the node.", "An RCA blockage makes the node slow down."),
        ("The apex beat is displaced to the left.", "The apex beat lies further towards the axilla."),
        ("Blood flows from the left to the right atrium.", "The right atrium receives blood from the left one."),
        ("Valve surgery cures most of these patients.", "Most such patients are cured by valve surgery."),
    ],
)
def test_same_side_passes(original, paraphrase):
    assert check(original, paraphrase) is None


@pytest.mark.parametrize(
    ("original", "paraphrase", "detail"),
    [
        ("The left ventricle dilates early on.", "The right ventricle dilates at an early stage.", "left became right"),
        ("The left ventricle dilates early on.", "RV dilatation is an early finding.", "left became right"),
        ("The right bundle branch runs deep.", "The LEFT bundle branch takes a deep course.", "right became left"),
        (
            "Occlusion of the right coronary artery slows the node.",
            "An LCA blockage slows the node.",
            "right became left",
        ),
    ],
)
def test_swapped_side_is_refused(original, paraphrase, detail):
    rejection = check(original, paraphrase)
    assert (rejection.reason, rejection.detail) == ("laterality_changed", detail)


@pytest.mark.parametrize(
    ("original", "paraphrase"),
    [
        ("Warfarin is not safe in pregnancy.", "Warfarin is unsafe when a woman is pregnant."),
        ("Verapamil must not be given in heart failure.", "Verapamil is contraindicated in heart failure."),
        ("There is no evidence of ischaemia on the tracing.", "The tracing is free of signs of ischaemia."),
        ("No drug prolongs life in this setting.", "In this setting drugs fail to prolong life."),
        ("Statins do not lower mortality on dialysis.", "On dialysis mortality is unchanged by statins."),
        ("Digoxin does not prolong life.", "Digoxin lacks an effect on survival."),
        ("The patient should not be fasted beforehand.", "Fasting the patient beforehand should be avoided."),
        ("The dose must be no less than 40 mg daily.", "A daily dose of at least 40 mg is required."),
        ("The ST segment is not only raised but domed.", "The ST segment is raised and domed as well."),
        ("Infarction without ST elevation is common.", "Infarction in which ST elevation is absent is common."),
        ("The murmur is soft and short in most adults.", "Most adults have a brief murmur without much intensity."),
        ("Warfarin is not given in pregnancy.", "Warfarin isn’t given to pregnant women."),
        ("Non-ST-elevation infarction is treated early.", "NSTEMI receives early treatment in hospital."),
        ("Give the drug without delay to all patients.", "The drug should be given to all patients immediately."),
    ],
)  # fmt: skip
def test_kept_negation_passes(original, paraphrase):
    assert check(original, paraphrase) is None


@pytest.mark.parametrize(
    ("original", "paraphrase", "detail"),
    [
        ("Warfarin is not safe in pregnancy.", "Warfarin is safe when a woman is pregnant.", "lost the negation 'not'"),
        ("No drug prolongs life here at all.", "Drugs prolong life here in all cases.", "lost the negation 'No'"),
        ("Clonidine is never withdrawn abruptly.", "Clonidine is withdrawn abruptly.", "lost the negation 'never'"),
        ("Warfarin is safe in pregnancy.", "Warfarin is not safe for pregnant women.", "added the negation 'not'"),
        ("Warfarin is safe in pregnancy.", "In pregnancy warfarin isn't a safe drug.", "added the negation \"isn't\""),
        ("Patients can drive at once.", "Patients cannot drive then.", "added the negation 'cannot'"),
    ],
)  # fmt: skip
def test_lost_or_added_negation_is_refused(original, paraphrase, detail):
    rejection = check(original, paraphrase)
    assert (rejection.reason, rejection.detail) == ("negation_changed", detail)


@pytest.mark.parametrize(
    "paraphrase",
    ["In pregnancy warfarin isn’t a safe drug to give.", "Warfarin shouldn't be given to women in pregnancy."],
)
def test_negation_with_a_curly_apostrophe_or_should_is_seen(paraphrase):
    assert reason("Warfarin is safe to give in pregnancy.", paraphrase) == "negation_changed"


@pytest.mark.parametrize(
    "paraphrase",
    [
        "I'm sorry, but I can't help with medical advice.",
        "I am sorry, this is outside what I may do.",
        "I cannot paraphrase this medical sentence.",
        "As an AI language model, I have no view on adenosine.",
        "As a language model I have no view on adenosine.",
        "Unfortunately, I do not have the text.",
        "I’m sorry, but I can’t help with medical advice.",
        "I can’t help with that request about adenosine.",
        "I apologize, but this is outside what I may do.",
    ],
)
def test_refusal_of_a_model_is_refused(paraphrase):
    assert reason(ADENOSINE, paraphrase) == "refusal"


@pytest.mark.parametrize(
    "paraphrase",
    [
        "Unfortunately, in most patients adenosine acts for seconds only.",
        "Unfortunately, it works for seconds: adenosine ends tachycardia.",
    ],
)
def test_regret_about_a_drug_is_no_refusal(paraphrase):
    assert check(ADENOSINE, paraphrase) is None


@pytest.mark.parametrize(
    "paraphrase",
    [
        "Sure, the tachycardia is ended by adenosine within seconds.",
        "Certainly! Adenosine ends the tachycardia within seconds.",
        "Here is a paraphrase: adenosine ends the tachycardia.",
        "Here's the rewritten sentence: adenosine ends tachycardia.",
        "Paraphrase: adenosine ends the tachycardia within seconds.",
        "Paraphrased sentence: adenosine ends the tachycardia.",
        "Output: adenosine ends the tachycardia within seconds.",
        "The original sentence states that adenosine is fast.",
        "assistant: adenosine ends the tachycardia in seconds.",
        "Paraphrase the following sentence: adenosine ends tachycardia.",
        "Please rewrite this sentence in other words and keep its meaning.",
    ],
)
def test_echo_of_the_task_is_refused(paraphrase):
    assert reason(ADENOSINE, paraphrase) == "prompt_echo"


@pytest.mark.parametrize(
    "paraphrase",
    [
        "Output from the heart stays the same while adenosine ends it.",
        "Surely adenosine ends the tachycardia within seconds.",
        "Here adenosine ends the tachycardia within seconds.",
    ],
)
def test_subject_that_looks_like_the_task_passes(paraphrase):
    assert check(ADENOSINE, paraphrase) is None


@pytest.mark.parametrize(
    "paraphrase",
    [
        ADENOSINE,
        "ADENOSINE terminates the tachycardia within seconds",
        "  Adenosine   terminates “the tachycardia” within seconds!",
    ],
)
def test_copy_is_refused(paraphrase):
    assert reason(ADENOSINE, paraphrase) == "copy"


@pytest.mark.parametrize(
    "paraphrase", ["# Adenosine and tachycardia", "**Adenosine and tachycardia**", "Adenosine and the tachycardia:"]
)
def test_heading_is_refused(paraphrase):
    assert reason(ADENOSINE, paraphrase) == "heading"


def test_colon_is_kept_where_the_original_has_one():
    assert check("The causes of syncope are these three:", "There are three causes of syncope:") is None


@pytest.mark.parametrize("paraphrase", ["", "  \n\t "])
def test_empty_paraphrase_is_refused(paraphrase):
    assert reason(ADENOSINE, paraphrase) == "empty"


def test_length_limits_are_inclusive():
    original = "Digoxin slows the ventricular rate at rest."
    paraphrase = "Digoxin slows the rate."
    assert len(paraphrase) == 23
    assert check(original, paraphrase, min_characters=23) is None
    rejection = check(original, paraphrase, min_characters=24)
    assert (rejection.reason, rejection.detail) == ("too_short", "23 characters, at least 24 are needed")
    assert check(original, paraphrase, max_characters=23) is None
    rejection = check(original, paraphrase, max_characters=22)
    assert (rejection.reason, rejection.detail) == ("too_long", "23 characters, at most 22 are allowed")


@pytest.mark.parametrize(("length", "expected"), [(39, "length_drift"), (40, None), (250, None), (251, "length_drift")])
def test_length_ratio_is_inclusive_at_both_ends(length, expected):
    assert reason("a" * 100, "b" * length) == expected


def test_length_drift_tells_the_ratio():
    assert check("a" * 100, "b" * 300).detail == "3.00 times the original's length"


def test_nearly_all_sample_paraphrases_pass_and_the_planted_bad_ones_do_not():
    refused, rows = {}, 0
    for name, first, second in (("close", "original", "paraphrase"), ("free", "sentence", "paraphrased")):
        for line in (SAMPLE / f"{name}.jsonl").read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            rows += 1
            if rejection := check(row[first], row[second]):
                refused[row["id"]] = rejection.reason
    assert rows > 3400
    planted = {
        "c90001": "numbers_changed",
        "c90002": "prompt_echo",
        "c90003": "copy",
        "c90004": "too_short",
        "f90001": "refusal",
        "f90002": "negation_changed",
        "f90003": "laterality_changed",
        "f90004": "length_drift",
    }
    assert {key: refused.get(key) for key in planted} == planted
    assert len(refused) - len(planted) <= 15


def test_nearly_all_sentences_with_one_meaning_changed_are_refused():
    lines = (SAMPLE / "close.jsonl").read_text(encoding="utf-8").splitlines()[::10]
    texts = [json.loads(line)["original"] for line in lines]
    pairs = [(text, changed.text) for text in texts for changed in counterfactuals(text)]
    assert len(pairs) > 500
    assert sum(check(*pair) is not None for pair in pairs) >= 0.97 * len(pairs)


@pytest.mark.parametrize(
    ("original", "paraphrase", "expected"),
    [
        (ADENOSINE, "腺苷在几秒钟内终止心动过速，这是一种常用的治疗方法。", "language_changed"),
        ("Troponin rises after infarction.", "Troponin levels fall after infarction.", "direction_changed"),
        ("Give it at a dose of 20 mg or more.", "Give it at a dose of 20 mg or less.", "comparator_changed"),
        ("The tablet is taken once daily.", "The tablet is taken twice daily.", "frequency_changed"),
        ("The stenosis found was severe.", "The stenosis found was mild.", "severity_changed"),
        (
            "Acute regurgitation is poorly tolerated.",
            "Chronic regurgitation is badly tolerated.",
            "temporality_changed",
        ),
        ("Verapamil is contraindicated in it.", "Verapamil is recommended in it.", "role_changed"),
    ],
)
def test_reason_code_of_each_new_gate(original, paraphrase, expected):
    assert reason(original, paraphrase) == expected


def test_language_is_not_checked_where_none_is_given():
    text = "La adenosina termina la taquicardia en unos segundos y es segura para los pacientes."
    assert reason(ADENOSINE, text) == "language_changed"
    assert check(ADENOSINE, text, language=None) is None


@pytest.mark.parametrize(
    "paraphrase",
    [
        "Termination Of Tachycardia By Adenosine",
        "ADENOSINE FOR SUPRAVENTRICULAR TACHYCARDIA",
    ],
)
def test_titles_are_headings(paraphrase):
    assert reason(ADENOSINE, paraphrase) == "heading"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("Within seconds adenosine ends the tachycardia. Would you like another version?", "prompt_echo"),
        ("Within seconds adenosine ends the tachycardia. (I kept the drug's name.)", "prompt_echo"),
        ("Within seconds adenosine ends the tachycardia. Note: nothing was left out.", "prompt_echo"),
        ("In simpler terms: adenosine ends the tachycardia within seconds.", "prompt_echo"),
        ("Here you go! Adenosine ends the tachycardia within seconds.", "prompt_echo"),
        ("I'm not comfortable with statements about adenosine and tachycardia.", "refusal"),
        ("For adenosine in tachycardia within seconds, please consult a professional.", "refusal"),
        ("Of type I, the tachycardia is ended by adenosine in seconds.", None),
        ("Within seconds, as intended, adenosine ends the tachycardia: a quick effect.", None),
    ],
)
def test_remarks_of_a_model_at_either_end(answer, expected):
    assert reason(ADENOSINE, answer) == expected
