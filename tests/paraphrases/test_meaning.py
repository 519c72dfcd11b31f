import pytest
import yaml

from cardioembed.paraphrases.comparisons import comparison_change
from cardioembed.paraphrases.denials import negation_change, prefix_change
from cardioembed.paraphrases.exchanges import exchange
from cardioembed.paraphrases.meaning import name_change, pole_change, residual_change
from cardioembed.paraphrases.roles import role_reversal
from cardioembed.paraphrases.turns import exchanged_places
from cardioembed.paraphrases.wording import Wording, load_tables


def judged(gate, original, paraphrase):
    return gate(Wording(original), Wording(paraphrase))


@pytest.mark.parametrize(
    ("original", "paraphrase", "reason"),
    [
        ("Troponin rises after infarction.", "After infarction the troponin level falls.", "direction_changed"),
        ("Nitrates reduce preload in people.", "In people preload is raised by nitrates.", "direction_changed"),
        ("Exercise training improves the outlook.", "The outlook worsens with exercise training.", "direction_changed"),
        ("The drug prolongs the QT interval.", "It shortens the interval called QT.", "direction_changed"),
        ("Stenosis of the valve is mild.", "The narrowing of the valve is severe.", "severity_changed"),
        ("A transient rise is usual.", "The increase is usually permanent.", "temporality_changed"),
        ("Systolic pressure is high in the elderly.", "The old have high diastolic pressure.", "temporality_changed"),
        ("Chronic regurgitation dilates the chamber.", "Acute leakage widens the chamber.", "temporality_changed"),
        ("It is given before surgery at all ages.", "At all ages it is given after surgery.", "temporality_changed"),
        ("The left ventricle fills slowly.", "Filling of the RV is slow.", "laterality_changed"),
        ("The proximal vessel is diseased.", "Disease affects the distal part.", "laterality_changed"),
        ("A right-to-left shunt is seen.", "Blood crosses from left to right.", "laterality_changed"),
        ("Mitral stenosis is rheumatic.", "Rheumatic disease narrows the tricuspid valve.", "name_changed"),
        ("Atrial arrhythmia is frequent.", "Ventricular rhythm trouble is common.", "name_changed"),
        ("Stenosis of the valve is loud.", "Incompetence of the valve is loud.", "name_changed"),
        ("The LAD is occluded.", "The circumflex is occluded.", "name_changed"),
        ("Verapamil is contraindicated here.", "The drug of choice here is verapamil.", "role_changed"),
        ("Left atrial and right ventricular size.", "Right atrial and left ventricular size.", "laterality_changed"),
    ],
)  # fmt: skip
def test_assertion_that_turned_into_its_rival(original, paraphrase, reason):
    assert judged(pole_change, original, paraphrase)[0] == reason


@pytest.mark.parametrize(
    ("original", "paraphrase"),
    [
        ("Troponin rises after infarction.", "Troponin climbs following infarction."),
        ("Hydralazine reduces afterload.", "Hydralazine lowers afterload."),
        ("LAD disease is common.", "Disease of the left anterior descending artery is frequent."),
        ("The AF is permanent.", "Atrial fibrillation is there for good and permanent."),
        ("MR dilates the LA.", "Mitral regurgitation enlarges the left atrium."),
        ("Levels are lower in obese than in lean people.", "Lean people have higher levels than obese ones."),
        ("Stenting comes after angiography.", "Angiography comes before stenting."),
        ("The left or the right atrium dilates.", "The right atrium or the left one dilates."),
        ("Severe disease does not improve.", "Severe disease goes on, and it may worsen."),
        ("A rate of 60 per minute or lower.", "A rate no higher than 60 per minute."),
    ],
)
def test_same_assertion_passes(original, paraphrase):
    assert judged(pole_change, original, paraphrase) is None


@pytest.mark.parametrize(
    ("original", "paraphrase", "detail"),
    [
        ("Bisoprolol is stopped.", "Carvedilol is withheld.", "bisoprolol became carvedilol"),
        ("Statins are first.", "Beta-blockers come first.", "statin became beta blocker"),
        ("Hyperkalaemia is feared.", "Hypokalemia is feared.", "hyper became hypo"),
        ("Tachycardia is common.", "Bradycardia is common.", "tachy became brady"),
        ("Apixaban is stopped.", "Vitamin K antagonists are stopped.", "apixaban became vitamin K antagonist"),
    ],
)
def test_name_that_gave_way_to_a_rival(original, paraphrase, detail):
    assert judged(name_change, original, paraphrase) == detail


@pytest.mark.parametrize(
    ("original", "paraphrase"),
    [
        ("Metoprolol slows the rate.", "The beta-blocker slows the rate."),
        ("Anticoagulants prevent stroke.", "Stroke is prevented by apixaban."),
        ("Frusemide is given.", "Furosemide is given."),
        ("Epinephrine is given.", "Adrenaline is given."),
        ("GTN spray helps.", "Glyceryl trinitrate spray helps."),
    ],
)
def test_drug_and_its_class_or_other_spelling_pass(original, paraphrase):
    assert judged(name_change, original, paraphrase) is None


@pytest.mark.parametrize(
    ("original", "paraphrase", "expected"),
    [
        ("It rises, then it falls.", "It falls, then it falls.", "direction_changed"),
        ("The defect is reversible in all.", "The defect is irreversible in all.", "negation_changed"),
        ("Statins reduce the risk here.", "Statins do not reduce the risk here.", "negation_changed"),
        ("The test fails in a few people.", "The test does not fail in a few people.", "negation_changed"),
    ],
)
def test_exchange_in_one_place(original, paraphrase, expected):
    assert judged(exchange, original, paraphrase)[0] == expected


def test_synonym_in_one_place_passes():
    assert judged(exchange, "The level rises in all patients.", "The level climbs in all patients.") is None


def test_prefix_against_bare_word_is_a_change_unless_denied():
    assert judged(prefix_change, "The damage is irreversible here.", "Here the damage is reversible.") is not None
    assert judged(prefix_change, "The damage is irreversible here.", "Here the damage is not reversible.") is None


def test_denial_counts_only_for_what_the_other_text_affirms():
    assert judged(negation_change, "The drug is safe.", "The drug is not safe.") == "added the negation 'not'"
    assert judged(negation_change, "Symptoms persist.", "The patient does not get well.") is None


def test_cause_and_consequence_that_changed_places():
    original = "Pacing of the apex causes dysfunction of the muscle."
    assert judged(role_reversal, original, "Dysfunction of the muscle causes pacing of the apex.") is not None
    assert judged(role_reversal, original, "Dysfunction of the muscle is caused by pacing of the apex.") is None


def test_sides_of_a_comparison_that_changed_places():
    original = "Surgery costs more than medication."
    assert judged(comparison_change, original, "Medication costs more than surgery.") is not None
    assert judged(comparison_change, original, "Medication costs less than surgery.") is None


def test_every_axis_has_two_poles_and_a_reason_and_no_word_is_sure_of_both():
    tables = load_tables()
    assert all(tables.rivals)
    assert all(reason.endswith("_changed") for reason in tables.reasons)
    for word, meaning in {**tables.exact, **tables.stems}.items():
        for place, rivals in enumerate(tables.rivals):
            assert not (meaning.sure >> place & 1 and meaning.sure & rivals), word


def test_table_file_is_yaml_that_spells_words_only():
    from importlib.resources import files

    content = yaml.safe_load(files("cardioembed.paraphrases").joinpath("meaning.yaml").read_text(encoding="utf-8"))
    words = [w for axis in content["axes"].values() for name, text in axis.items() if name not in ("reason", "mode")
             for w in text.split()]  # fmt: skip
    assert len(words) > 500
    assert [w for w in words if w != w.lower() or w.strip("*?_abcdefghijklmnopqrstuvwxyz0123456789")] == []


@pytest.mark.parametrize(
    ("original", "paraphrase", "detail"),
    [
        (
            "Statins do not reduce pain without claudication.",
            "In people free of claudication statins reduce pain.",
            "not",
        ),
        ("Massage failed to stop the attack.", "The attack was terminated by massage.", "failed"),
        ("A pericardial rub was absent.", "There was a pericardial rub.", "absent"),
        ("Beta blockers should not be withdrawn.", "The discontinuation of beta blockers is advised.", "not"),
        ("The shunt impairs growth.", "The shunt is unable to impair growth.", "unable"),
    ],
)
def test_denial_is_matched_with_what_it_denies(original, paraphrase, detail):
    assert detail in judged(negation_change, original, paraphrase)


@pytest.mark.parametrize(
    ("original", "paraphrase"),
    [
        ("It is not uncommon to see a rub.", "A rub is commonly seen."),
        ("Asthma is not a contraindication to it.", "It may be given in asthma."),
        ("Neither drug is safe in this state.", "In this state both drugs are hazardous."),
        ("The infarct was treated without delay, not later.", "Treatment of the infarct was immediate."),
        ("A third of them had no thrombus.", "Thrombus was found in two thirds of them."),
        ("Therapy should not be stopped.", "One must not discontinue therapy."),
    ],
)
def test_denial_told_in_another_way_passes(original, paraphrase):
    assert judged(negation_change, original, paraphrase) is None


@pytest.mark.parametrize(
    ("original", "paraphrase"),
    [
        ("Obesity predisposes to sleep apnoea.", "Sleep apnoea is a risk factor for obesity."),
        ("Rifampicin lowers the level of warfarin.", "The level of rifampicin is lowered by warfarin."),
        ("Oedema developed years after infarction.", "Infarction developed years after oedema."),
        ("The rash preceded joint pain.", "The rash followed joint pain."),
    ],
)
def test_doer_and_done_that_changed_places(original, paraphrase):
    assert judged(role_reversal, original, paraphrase) is not None


@pytest.mark.parametrize(
    ("original", "paraphrase"),
    [
        ("Obesity predisposes to sleep apnoea.", "Obesity is a risk factor for sleep apnoea."),
        ("Rifampicin lowers the level of warfarin.", "The level of warfarin is lowered by rifampicin."),
        ("Oedema developed years after infarction.", "After infarction, oedema developed within years."),
        ("The rash preceded joint pain.", "The rash was followed by joint pain."),
    ],
)
def test_doer_and_done_told_from_the_other_end_pass(original, paraphrase):
    assert judged(role_reversal, original, paraphrase) is None
    assert judged(exchanged_places, original, paraphrase) is None


def test_places_exchanged_around_any_verb():
    assert judged(exchanged_places, "The fellow taught the nurse.", "The nurse taught the fellow.") is not None
    assert judged(exchanged_places, "The fellow and the nurse spoke.", "The nurse and the fellow spoke.") is None
    assert judged(exchanged_places, "Rest helps with pain.", "Pain helps with rest.") is None


@pytest.mark.parametrize(
    ("original", "paraphrase"),
    [
        ("Strokes were fewer with apixaban than with warfarin.", "Apixaban led to more strokes than warfarin."),
        ("Levels are higher in women than in men.", "Men have greater levels than women."),
        ("Surgery was preferred to stenting.", "Stenting was favoured over surgery."),
        (
            "Rubs are more typical of uraemia than of infarction.",
            "A rub is more characteristic of infarction than of uraemia.",
        ),
    ],
)
def test_comparison_turned_round(original, paraphrase):
    assert judged(comparison_change, original, paraphrase) is not None


def test_comparison_told_from_the_other_side_passes():
    original = "Strokes were fewer with apixaban than with warfarin."
    assert judged(comparison_change, original, "Warfarin led to more strokes than apixaban.") is None
    original = "Death was commoner after delay than early on."
    assert judged(comparison_change, original, "Compared with delay, death was rarer early on.") is None
    original = "Surgery was preferred to stenting."
    assert judged(comparison_change, original, "Surgery was favoured over stenting.") is None


def test_what_only_may_mean_a_pole_counts_between_nearly_equal_texts():
    assert judged(residual_change, "Complications were serious.", "Complications were mild.")[0] == "severity_changed"
    assert (
        judged(residual_change, "Pressure goes up on nitrates.", "Nitrates lower the pressure.")[0]
        == "direction_changed"
    )
    assert judged(residual_change, "Complications were serious.", "Complications were grave.") is None
    far = "Complications of the long operation on both valves were serious in the elderly."
    assert judged(residual_change, far, "Mild trouble followed surgery.") is None


@pytest.mark.parametrize(
    ("original", "paraphrase", "reason"),
    [
        ("It is stopped before the biopsy.", "It is stopped once the biopsy is over.", "temporality_changed"),
        (
            "The drain stays until the lung expands.",
            "The drain is inserted once the lung expands.",
            "temporality_changed",
        ),
        ("Cardioversion is immediate.", "Cardioversion may be postponed.", "temporality_changed"),
        ("A small effusion was seen.", "A large fluid collection was seen.", "severity_changed"),
        ("Myxomas rarely recur.", "Myxomas usually come back.", "severity_changed"),
        ("Smokers should be counselled.", "There is no need to counsel smokers.", "negation_changed"),
        ("The patient denied pain.", "The patient complained of pain.", "negation_changed"),
    ],
)
def test_wider_families_of_words(original, paraphrase, reason):
    assert judged(pole_change, original, paraphrase)[0] == reason


def test_state_in_two_words_is_the_state_in_one():
    assert judged(name_change, "Hypokalaemia is harmful.", "A low potassium is harmful.") is None
    assert judged(name_change, "Hypokalaemia is harmful.", "Raised potassium is harmful.") is not None


def test_words_of_a_family_share_a_key_and_words_without_content_have_none():
    first, second = Wording("The renal withdrawal of it"), Wording("kidney discontinuation")
    assert first.keys == ["", second.keys[0], second.keys[1], "", ""]
    assert Wording("kidney").keys != Wording("liver").keys
