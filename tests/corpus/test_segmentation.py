import json
from itertools import accumulate
from pathlib import Path

import pytest
import sentencex

from cardioembed.corpus.segmentation import guard, split_sentences

GOLD = [
    json.loads(line)
    for line in Path(__file__).with_name("segmentation_gold.jsonl").read_text(encoding="utf-8").splitlines()
]


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
        "It is rare in the U.S. | The rest of the world sees more of it.",
        "Sgt. Miller collapsed. | He had been well.",
        "The sheath is 6 F. | A larger one is needed.",
        "Endothelium relaxes muscle. | eNOS makes nitric oxide. | hs-cTnT is a marker. | dP/dt fell.",
        "It was given i.v. p53 was measured later.",
        "The effect was lost. | p = 0.4 was far from significant.",
        "Potassium leaves. | β-Blockers shift it back.",
        "Embolism is prevented. [12] | Delay costs lives. [13,14] | Not all are fit.",
        "He slept. | (She woke. She called for help.) | They came.",
        "The dose is on p. 14 and in no. 4 of the series. | Read both.",
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


def test_gold_set_is_sound():
    assert len(GOLD) >= 220
    assert len({row["id"] for row in GOLD}) == len({row["text"] for row in GOLD}) == len(GOLD)
    assert all(" ".join(row["sentences"]) == row["text"] for row in GOLD)
    halves = [row["split"] for row in GOLD]
    assert halves.count("development") == halves.count("test") == len(GOLD) / 2


@pytest.mark.parametrize(("half", "floor"), [("development", 0.99), ("test", 0.96)])
def test_boundaries_of_the_gold_set_are_found_and_more_of_them_than_by_the_library_alone(half, floor):
    rows = [row for row in GOLD if row["split"] == half]
    ours, library = (f1(split, rows) for split in (split_sentences, lambda text: sentencex.segment("en", text)))
    assert ours >= floor > library + 0.05


def test_guards_mend_pieces_of_any_library():
    assert guard(["Dr. ", "Osler wrote (Fig. ", "3). ", "It is late. It ends."]) == [
        "Dr. Osler wrote (Fig. 3).",
        "It is late.",
        "It ends.",
    ]


def f1(split, rows):
    hits = mine = gold = 0
    for row in rows:
        found, wanted = borders(split(row["text"])), borders(row["sentences"])
        hits, mine, gold = hits + len(found & wanted), mine + len(found), gold + len(wanted)
    return 2 * hits / (mine + gold)


def borders(sentences):
    return set(list(accumulate(len("".join(sentence.split())) for sentence in sentences if sentence.strip()))[:-1])
