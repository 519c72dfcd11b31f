import pytest

from cardioembed.corpus.segmentation import split_sentences


@pytest.mark.parametrize(
    "marked",
    [
        "As Fig. 3 shows, the P wave is upright. | The axis is normal.",
        "Figs. 2 and 3 agree. | Tab. 1 lists the doses.",
        "Compare Vol. 2, Chap. 4 and Ref. 12. | The data agree.",
        "Give a loop diuretic, e.g. furosemide, at once. | Review after an hour.",
        "Factor Xa is inhibited directly, i.e. by apixaban. | Warfarin acts indirectly.",
        "Ticagrelor vs. Clopidogrel was the question of PLATO. | Ticagrelor won.",
        "The gradient was 40 mm Hg vs. 20 mm Hg at rest.",
        "Adenosine 6 mg i.v. is given as a rapid bolus. | A flush follows.",
        "Amiodarone 300 mg was given i.v. | Adrenaline came next.",
        "Metoprolol 25 mg b.i.d. was started. | Symptoms improved.",
        "Metoprolol was given b.i.d. | Symptoms improved.",
        "Aspirin (75 mg o.d.) and ticagrelor (90 mg b.i.d.) were given. | Both were tolerated.",
        "The dose is 2.5 mg/kg over 10 min. | The infusion is then stopped.",
        "The dose is 2.5 mg. | It is given at night.",
        "A St. Jude valve was implanted in 1998. | It still works.",
        "Dr. Smith and Prof. Jones described it. | Others followed.",
        "The PR interval lies between 120 and 200 ms. | A PR interval below 120 ms suggests pre-excitation.",
        "The ejection fraction was 35%. | The patient received an ICD.",
        "LVEF fell to <35%. | An ICD was offered.",
        "Surgery is advised (class I). | In stable patients, wait.",
        "No deaths occurred (0 of 20). | Two patients relapsed (10%).",
        "Give 5 mg every 4 h. | The dose may be doubled.",
        "Wait 30 s. | Then repeat the shock.",
        "The valve area was 0.8 cm2. | Severe stenosis was diagnosed.",
        "Potassium was 6.2 mmol/L. | ECG showed tall T waves.",
        "He was in NYHA class II. | ACE inhibitors were begun.",
        "The patient was given vitamin K. | The INR fell.",
        "Prinzmetal et al. described variant angina in 1959. | It is now called vasospastic angina.",
        "The septum measured approx. 15 mm. | The diagnosis was clear.",
        "Endocarditis is often caused by S. aureus. | It is grave.",
        "H. pylori is common. | E. coli is not.",
        "The rate is 150/min. | QRS complexes are narrow.",
        "Is the rhythm regular? | If so, suspect flutter! | Adenosine shows it.",
        'The rule was "stop the drug." | It is sound.',
        "Blood loss was min. 20 ml in every case.",
        "pH was 7.4 and pCO2 40 mm Hg.",
        "The sign was described by W. H. Bayard in 1901.",
        "The patient was seen by Dr. A. Jones in clinic. | He was well.",
        "The U.S. Food and Drug Administration approved it. | Europe followed.",
    ],
)
def test_hard_borders(marked):
    assert split_sentences(marked.replace(" | ", " ")) == marked.split(" | ")


def test_nothing_is_lost_or_added():
    text = (
        "  Give 2.5 mg/kg i.v.  (see Fig. 3).  Then wait 30 s. A PR of 200 ms. is long; e.g. in Lyme disease! Is it? "
    )
    assert "".join("".join(split_sentences(text)).split()) == "".join(text.split())


@pytest.mark.parametrize("text", ["", "   ", "\n"])
def test_empty_text_has_no_sentence(text):
    assert split_sentences(text) == []


def test_text_without_a_full_stop_is_one_sentence():
    assert split_sentences("Loop diuretics such as furosemide") == ["Loop diuretics such as furosemide"]


def test_long_chain_of_numeric_citations_does_not_hang():
    text = "Outcome was better " + " ".join(f"({n})." for n in range(3000)) + " The end came."
    assert split_sentences(text)[-1].endswith("The end came.")
