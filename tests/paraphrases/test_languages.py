import pytest

from cardioembed.paraphrases.languages import language_change
from cardioembed.paraphrases.wording import Wording


def change(text, language="en"):
    return language_change(text, Wording(text).vocabulary, language)


@pytest.mark.parametrize(
    "text",
    [
        "二尖瓣狭窄导致左心房压力升高。",
        "Митральный стеноз повышает давление в левом предсердии.",
        "تضيق الصمام التاجي يرفع الضغط في الأذين الأيسر.",
        "Eine Mitralstenose erhöht den Druck im linken Vorhof und führt zu Atemnot.",
        "La sténose mitrale augmente la pression dans l'oreillette gauche et provoque une dyspnée.",
        "La estenosis mitral eleva la presión en la aurícula izquierda y no causa fiebre, según un estudio sobre ella.",
        "La stenosi mitralica aumenta la pressione nell'atrio sinistro e non causa febbre nel paziente con dispnea.",
        "Mitralisstenose verhoogt de druk in het linker atrium en veroorzaakt kortademigheid bij het lopen.",
    ],
)
def test_other_languages_are_seen(text):
    assert change(text) is not None


@pytest.mark.parametrize(
    "text",
    [
        "Cor triatriatum sinistrum, arteria lusoria and pulsus paradoxus are Latin names.",
        "De novo SCN5A variants, torsades de pointes and the sinus of Valsalva.",
        "Apixaban, rivaroxaban, edoxaban, dabigatran: DOACs.",
        "LVEF 35%, NYHA III, LBBB: CRT-D.",
        "The β-blocker lowers the gradient by ≥ 30 mmHg at 37 °C.",
        "Ménière and Sjögren described other diseases than Brugada or Sokolow.",
    ],
)
def test_english_full_of_latin_and_names_is_english(text):
    assert change(text) is None


def test_another_language_can_be_the_wanted_one():
    german = "Eine Mitralstenose erhöht den Druck im linken Vorhof und führt zu Atemnot."
    assert change(german, "de") is None
    assert "not in Latin script" in change("二尖瓣狭窄导致左心房压力升高。", "de")
    assert "function words" in change("The stenosis raises the pressure in the atrium and it is severe.", "de")
