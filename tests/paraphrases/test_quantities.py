import pytest

from cardioembed.paraphrases.limits import limit_change
from cardioembed.paraphrases.quantities import number_change, stated_numbers, unit_change, word_number_change
from cardioembed.paraphrases.rates import rate_change
from cardioembed.paraphrases.wording import Wording


def changes(gate, original, paraphrase):
    return gate(Wording(original), Wording(paraphrase))


@pytest.mark.parametrize(
    ("original", "paraphrase"),
    [
        ("Load with 1 g of aspirin.", "A loading dose of 1000 mg of aspirin."),
        ("Digoxin 0.5 mg is given.", "Digoxin 500 micrograms is given."),
        ("Monitor for 24 hours.", "Monitoring lasts one day."),
        ("Treat for 12 months.", "Treatment goes on for 1 year."),
        ("Screen every 24 to 36 months.", "Screening takes place every two to three years."),
        ("Open the artery within 90 minutes.", "The artery is opened within an hour and a half."),
        ("About 50% survive.", "About half of them survive."),
        ("One in five of them relapses.", "Some 20% of them relapse."),
        ("Deficiency was seen in 33% of them.", "A third of them were deficient."),
        ("Dyspnoea in NYHA class III.", "NYHA class 3 breathlessness."),
        ("Follow-up is 1 year long.", "They are followed for a year."),
        ("About 12 000 patients took part.", "Some 12,000 patients took part."),
        ("Warfarin 0.5 mg a day.", "A daily dose of .5 mg of warfarin."),
    ],
)
def test_equal_quantities_are_no_change(original, paraphrase):
    assert changes(number_change, original, paraphrase) is None
    assert changes(unit_change, original, paraphrase) is None
    assert changes(word_number_change, original, paraphrase) is None


@pytest.mark.parametrize(
    ("original", "paraphrase", "detail"),
    [
        ("Load with 1 g of aspirin.", "Load with 100 mg of aspirin.", "lost 1; added 100"),
        ("Monitor for 24 hours.", "Monitoring lasts two days.", "lost 24"),
        ("Treat for 12 months.", "Treatment goes on for 2 years.", "lost 12; added 2"),
        ("About 50% survive.", "About a quarter of them survive.", "lost 50"),
    ],
)
def test_unequal_quantities_are_a_change(original, paraphrase, detail):
    assert changes(number_change, original, paraphrase) == detail


@pytest.mark.parametrize(
    ("original", "paraphrase", "detail"),
    [
        ("The valve has two leaflets.", "Three leaflets form the valve.", "two became three"),
        ("Half of them recover.", "A quarter of them recover.", "half became quarter"),
        ("Symptoms of NYHA class III.", "NYHA class IV symptoms.", "III became IV"),
        ("A type II endoleak was seen.", "An endoleak of type III was seen.", "II became III"),
    ],
)
def test_number_in_words_that_gave_way_to_another(original, paraphrase, detail):
    assert changes(word_number_change, original, paraphrase) == detail


def test_both_states_two_and_a_lost_word_number_alone_is_no_change():
    assert changes(word_number_change, "The two leaflets prolapse.", "Both leaflets prolapse.") is None
    assert changes(word_number_change, "The two leaflets prolapse.", "The leaflets prolapse.") is None


def test_stated_numbers_hold_fractions_and_roman_ones():
    assert {"3", "33", "4"} <= stated_numbers("A third of them in class IV.")


@pytest.mark.parametrize(
    ("original", "paraphrase", "detail"),
    [
        ("Wait two hours before it.", "Two days must pass before it.", "2 h became 2 day"),
        ("A level of 6 ng/L is normal.", "6 ng/mL is a normal level.", "6 per l became 6 per ml"),
        ("Pressure of 20 mmHg.", "A 20 kPa pressure.", "20 mmHg became 20 kPa"),
        ("A calibration of 0.5 mV.", "It is calibrated to 0.5 V.", "0.5 mV became 0.5 V"),
    ],
)
def test_changed_unit_is_named(original, paraphrase, detail):
    assert changes(unit_change, original, paraphrase) == detail


@pytest.mark.parametrize(
    ("original", "paraphrase"),
    [
        ("Pressure of 20 mmHg.", "A pressure of 20 mm Hg."),
        ("Readings of seven days, without the first day.", "A week of readings, leaving out day one."),
        ("Move for 150 to 300 minutes each week.", "Aim for 150 to 300 weekly minutes of movement."),
        ("A velocity of 4 m/s.", "A velocity of 4 metres per second."),
    ],
)
def test_same_unit_is_no_change(original, paraphrase):
    assert changes(unit_change, original, paraphrase) is None


@pytest.mark.parametrize(
    ("original", "paraphrase", "detail"),
    [
        ("LVEF above 40% is needed.", "An LVEF below 40% is needed.", "above 40 became the opposite"),
        ("Give at least 300 mg of it.", "At most 300 mg of it is given.", "above 300 became the opposite"),
        ("A gap >= 10 mm is wide.", "A wide gap measures <= 10 mm.", "above 10 became the opposite"),
        ("Patients aged 65 or older.", "Patients younger than 65 years.", "above 65 became the opposite"),
        ("Treat for at least three months.", "Treat for three months at the most.", "above 3 became the opposite"),
        ("Use no more than 2 g a day.", "Use more than 2 g a day.", "below 2 became the opposite"),
    ],
)
def test_turned_limit_is_named(original, paraphrase, detail):
    assert changes(limit_change, original, paraphrase) == detail


@pytest.mark.parametrize(
    ("original", "paraphrase"),
    [
        ("LVEF above 40% is needed.", "LVEF must exceed 40%."),
        ("Use no more than 2 g a day.", "Use at most 2 g a day."),
        ("The dose is 40 mg or less.", "No more than 40 mg is the dose."),
        ("Implant when LVEF is 35% or less.", "Implant when LVEF has not risen above 35%."),
        ("Aged 75 years or older or under 60 kg.", "Below 60 kg or at least 75 years of age."),
        ("A width of 120 ms.", "A width below 120 ms."),
    ],
)
def test_same_limit_is_no_change(original, paraphrase):
    assert changes(limit_change, original, paraphrase) is None


@pytest.mark.parametrize(
    ("original", "paraphrase"),
    [
        ("Take it twice daily.", "Take it b.i.d. with food."),
        ("Take it twice a day.", "Take it every 12 hours."),
        ("Take it three times daily.", "Take it 8-hourly."),
        ("Take it once daily.", "A single daily dose is taken."),
        ("Inject it every fortnight.", "Inject it every two weeks."),
        ("Dose 1 to 2 times the daily oral dose.", "Dose 1 to 2 times what is taken each day."),
    ],
)
def test_same_rate_is_no_change(original, paraphrase):
    assert changes(rate_change, original, paraphrase) is None


@pytest.mark.parametrize(
    ("original", "paraphrase", "detail"),
    [
        ("Take it once daily.", "Take it twice daily.", "1 a day became 2 a day"),
        ("Take it b.d. with food.", "Take it three times a day.", "2 a day became 3 a day"),
        ("Take it every 8 hours.", "Take it every 12 hours.", "3 a day became 2 a day"),
        ("Inject it weekly.", "Inject it monthly.", "0.143 a day became 0.033 a day"),
        ("Image it every three years.", "Image it three times a year.", "0.001 a day became 0.008 a day"),
    ],
)
def test_changed_rate_is_named(original, paraphrase, detail):
    assert changes(rate_change, original, paraphrase) == detail


@pytest.mark.parametrize(
    ("original", "paraphrase"),
    [
        ("It is given twice a day.", "It is given every 12 hours."),
        ("They come every six months.", "They come twice a year."),
        ("Half a gram is infused.", "An infusion of 500 mg is given."),
        ("One and a half litres were drained.", "Drainage yielded 1500 ml."),
        ("It took a quarter of an hour.", "It took 15 minutes."),
        ("Women in their thirties took part.", "Women aged 30 to 39 took part."),
        ("Children with trisomy 21 were seen.", "Children with Down syndrome were seen."),
        ("A 12-lead ECG is recorded.", "An electrocardiogram is recorded."),
        ("Three fifths of the volume is ejected.", "The ejection fraction is 60%."),
        ("Four of the eight needed drainage.", "Half of the eight needed drainage."),
        ("Seventy percent came from there.", "Seven out of every ten came from there."),
        ("Some 5% of them died.", "Of them, 95% stayed alive."),
        ("Eight out of ten survived.", "One in five died."),
        ("About 100 000 beats a day.", "About one hundred thousand beats a day."),
        ("The dose of 5 mg was increased threefold.", "The dose of 5 mg was tripled."),
        ("It fell by two thirds, from 60 to 20.", "It fell from 60 to 20, one third of what it was."),
    ],
)
def test_numbers_told_in_other_ways_are_no_change(original, paraphrase):
    assert changes(number_change, original, paraphrase) is None
    assert changes(word_number_change, original, paraphrase) is None
    assert changes(unit_change, original, paraphrase) is None


@pytest.mark.parametrize(
    ("original", "paraphrase"),
    [
        ("It is given twice a day.", "It is given every 8 hours."),
        ("Half a gram is infused.", "An infusion of 250 mg is given."),
        ("Some 5% of them died.", "Of them, 90% stayed alive."),
        ("Some 40% of them died.", "Some 60% of them died."),
        ("Women in their thirties took part.", "Women aged 50 to 59 took part."),
        ("Children with trisomy 21 were seen.", "Children with Edwards syndrome were seen."),
        ("Three fifths of the volume is ejected.", "The ejection fraction is 35%."),
        ("The valve has two leaflets, both thin.", "The valve has three leaflets, both thin."),
        ("A third of them relapse.", "Two thirds of them relapse."),
    ],
)
def test_numbers_that_changed_are_seen_in_other_words(original, paraphrase):
    assert changes(number_change, original, paraphrase) or changes(word_number_change, original, paraphrase)


@pytest.mark.parametrize(
    ("original", "paraphrase", "changed"),
    [
        ("Screen them after the first 24 hours.", "Screen them in the initial 24 hours.", True),
        ("It appears more than thirty days later.", "It appears in the first thirty days.", True),
        ("Give it within 3 hours.", "Give it in the first 3 hours.", False),
        ("Infuse it over 2 hours.", "The infusion is complete within 2 hours.", False),
    ],
)
def test_a_span_of_time_is_a_limit(original, paraphrase, changed):
    assert bool(changes(limit_change, original, paraphrase)) == changed


def test_spelt_numbers_are_put_together():
    assert {"120", "2.5"} <= stated_numbers("One hundred and twenty of them took two and a half tablets.")
    assert "1000000" in stated_numbers("One million people.")
    assert "25" not in stated_numbers("Twenty tablets for five days.")
