import pytest

from cardioembed.corpus.cleaning import clean_pages, clean_text


def texts(*pages):
    return [block.text for block in clean_pages(list(pages))[0]]


def counts(*pages):
    return clean_pages(list(pages))[1]


def test_a_noisy_chapter_comes_out_as_its_sentences():
    page = """# Heart Failure

## 2 Drug Treatment

Beta-blockers lower mortality in heart failure with reduced ejection frac-
tion [12, 13] and are started at a low dose (see Fig. 2.1). The treat-

17

Handbook of Cardiology

ment is kept for life.

Figure 2.1 Survival in three trials of bisoprolol.

| Drug | Target dose |
|---|---|
| Bisoprolol | 10 mg |

Handbook of Cardiology

- Check the *potassium* and **creatinine** after a week.
- Ask about dizziness.

Handbook of Cardiology

## References

1. Smith J. Beta-blockers. Lancet 1999;353:9-13.

## 3 Devices

An ICD is offered when the ejection fraction stays at &le;35&nbsp;% in spite of drugs.
""".replace("&le;", "≤")
    blocks, found = clean_pages([page])
    assert [(block.section, block.text) for block in blocks] == [
        (
            "2 Drug Treatment",
            "Beta-blockers lower mortality in heart failure with reduced ejection fraction "
            "and are started at a low dose. The treatment is kept for life.",
        ),
        ("2 Drug Treatment", "Check the potassium and creatinine after a week."),
        ("2 Drug Treatment", "Ask about dizziness."),
        ("3 Devices", "An ICD is offered when the ejection fraction stays at ≤35 % in spite of drugs."),
    ]
    expected = {
        "headings": 4,
        "page_numbers": 1,
        "running_lines": 3,
        "captions": 1,
        "table_rows": 3,
        "reference_list_lines": 1,
        "hyphenations": 2,
        "citations": 1,
        "cross_references": 1,
        "emphasis": 2,
        "html_entities": 1,
    }
    assert {rule: count for rule, count in found.items() if count} == expected


@pytest.mark.parametrize(
    "line", ["17", "- 17 -", "[17]", "Page 17", "page 17 of 300", "| 17 |", "— 17 —", "xiv", "XIV", "17 of 300"]
)
def test_page_number_alone_on_a_line_is_dropped(line):
    page = f"The valve opens in\n\n{line}\n\nsystole and closes in diastole."
    assert texts(page) == ["The valve opens in systole and closes in diastole."]
    assert counts(page)["page_numbers"] == 1


def test_end_of_a_wrapped_sentence_is_no_page_number_and_no_list_item():
    page = (
        "An ICD is offered when the ejection fraction is below\n40. The next sentence starts here.\n\nThe rate is\n40."
    )
    assert texts(page) == [
        "An ICD is offered when the ejection fraction is below 40. The next sentence starts here.",
        "The rate is 40.",
    ]


def test_running_header_with_changing_numbers_is_dropped():
    page = "\n\n".join(
        f"{n} · Arrhythmias\n\nFact {name} is here." for n, name in ((1, "one"), (2, "two"), (3, "three"))
    )
    assert texts(page) == ["Fact one is here.", "Fact two is here.", "Fact three is here."]
    assert counts(page)["running_lines"] == 3


def test_running_header_does_not_cut_the_sentence_around_it():
    pages = [f"Sentence {n} is cut by the\n\nManual of Cardiology\n\npage border." for n in ("one", "two", "three")]
    assert texts(*pages) == [f"Sentence {n} is cut by the page border." for n in ("one", "two", "three")]


def test_line_that_comes_back_only_twice_is_kept():
    page = "Give oxygen at once\n\nThe first case ends.\n\nGive oxygen at once\n\nThe second case ends."
    assert texts(page) == page.split("\n\n")


@pytest.mark.parametrize(
    "line",
    [
        "Figure 2.1 Survival curves of the two arms.",
        "Fig. 3 – Tracing of atrial flutter.",
        "FIGURE 12-4. Pressure curves.",
        "**Table 2** Doses of beta-blockers",
        "Table 4.2: Scores",
        "Box 3 Red flags in chest pain",
        "Video 7 Colour Doppler of the shunt",
        "Plate 2a Aschoff body.",
    ],
)
def test_caption_is_dropped(line):
    assert texts(f"The text before ends.\n\n{line}\n\nThe text after goes on.") == [
        "The text before ends.",
        "The text after goes on.",
    ]


@pytest.mark.parametrize(
    "line",
    [
        "Figure 3 shows the survival of treated patients.",
        "Table 2 lists the doses of beta-blockers.",
        "Fig. 3 depicts the pressure curves.",
        "Table 4 summarises the four trials of statins.",
        "Figure 3 illustrates the pressure curves of the left heart.",
        "Figure 3 demonstrates how the murmur fades.",
        "Table 2 compares the two drugs in old age.",
        "Figures 3 and 4 show both tracings.",
    ],
)
def test_sentence_that_starts_like_a_caption_is_kept(line):
    assert texts(f"The text before ends.\n\n{line}\n\nThe text after goes on.")[1:-1] == [line]


def test_figure_at_a_line_start_within_a_sentence_is_kept():
    page = "The tracing in\nFigure 3 of this chapter is normal."
    assert texts(page) == ["The tracing in Figure 3 of this chapter is normal."]


def test_second_line_of_a_caption_goes_with_the_first():
    page = (
        "The survival of the patients\n\nFigure 2.1 Survival curves of patients who were treated with\n"
        "bisoprolol or with placebo.\n\nrose in later years."
    )
    assert texts(page) == ["The survival of the patients rose in later years."]


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("Aspirin saves lives.[3] Statins do too [1,2].", "Aspirin saves lives. Statins do too."),
        ("Aspirin [4–6] saves lives [7, 9; 11-13].", "Aspirin saves lives."),
        ("Aspirin saves lives.<sup>12,13</sup> It is cheap.", "Aspirin saves lives. It is cheap."),
        ("Aspirin saves lives.^12^ It is cheap.", "Aspirin saves lives. It is cheap."),
        ("Doses were adjusted [see text] on day 3.", "Doses were adjusted [see text] on day 3."),
        ("The interval [0.5] was given.", "The interval [0.5] was given."),
    ],
)
def test_citation_marks(raw, clean):
    assert clean_text(raw) == clean


@pytest.mark.parametrize(
    "mark",
    ["(Fig. 1.1)", "(see Figure 3)", "(Table 2)", "(figs 1, 2)", "(Tables 2 and 3)", "(see Chapter 12)", "(Fig. 3a-c)",
     "(cf. Table 4)", "(Box 4-1)"],
)  # fmt: skip
def test_cross_reference_is_dropped(mark):
    assert (
        clean_text(f"The murmur radiates to the neck {mark}. It is late.")
        == "The murmur radiates to the neck. It is late."
    )


@pytest.mark.parametrize(
    "kept", ["(95% CI 1.2 to 1.9)", "(class I)", "(figure-of-eight re-entry)", "(120 ms)", "(LVEF <35%)"]
)
def test_other_brackets_are_kept(kept):
    text = f"The wave is abnormal {kept} at rest."
    assert clean_text(text) == text


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("The treat-\nment is long.", "The treatment is long."),
        ("A beta-blocker helps. The beta-\nblocker is stopped.", "A beta-blocker helps. The beta-blocker is stopped."),
        ("Beta-blockers help. All beta-\nblockers do.", "Beta-blockers help. All beta-blockers do."),
        ("One beta-blocker helps. All beta-\nblockers do.", "One beta-blocker helps. All beta-blockers do."),
        ("A left-sided and a left-\nsided lesion.", "A left-sided and a left-sided lesion."),
        ("Contra-indicated or contra-\nindicated.", "Contra-indicated or contra-indicated."),
        ("The 30-day rate and the 30-\nday rate.", "The 30-day rate and the 30-day rate."),
        ("Patients with non-\nST-elevation infarction.", "Patients with non-ST-elevation infarction."),
        ("Images are T2-\nweighted.", "Images are T2-weighted."),
        ("It lasts 120–\n200 ms.", "It lasts 120–200 ms."),
        ("The treat\u00ad\nment is long.", "The treatment is long."),
    ],
)
def test_hyphen_at_a_line_end(raw, clean):
    assert texts(raw) == [clean]


def test_ligatures_soft_hyphens_and_invisible_characters():
    raw = "The e\ufb03cacy of \ufb02ecainide in \ufb01brillation is sig\u00adni\ufb01\u00adcant\u200b\ufeff."
    assert clean_text(raw) == "The efficacy of flecainide in fibrillation is significant."
    assert (counts(raw)["ligatures"], counts(raw)["invisible_characters"]) == (4, 4)


def test_non_breaking_and_thin_spaces_become_plain_and_accents_are_composed():
    assert clean_text("35\u00a0% of\u2009them \t had Me\u0301nie\u0300re .") == "35 % of them had Ménière."


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("It <b>fails</b> at<br/>rest.", "It fails at rest."),
        ('<p class="x">The heart fails.</p>', "The heart fails."),
        ("LVEF < 35% and LVEDP > 20 mmHg.", "LVEF < 35% and LVEDP > 20 mmHg."),
        ("p <0.05, n>10, BNP<100 pg/ml.", "p <0.05, n>10, BNP<100 pg/ml."),
        ("LVEF &lt;35% &amp; BNP &gt;400.", "LVEF <35% & BNP >400."),
        ("The heart <!-- page 12 --> fails.", "The heart fails."),
        (
            "The <|ref|>left ventricle<|/ref|><|det|>[[100, 200, 300, 400]]<|/det|> dilates.",
            "The left ventricle dilates.",
        ),
        ("<|ref|>text<|/ref|><|det|>[[1, 2, 3, 4],\n[5, 6, 7, 8]]<|/det|> It dilates.", "text It dilates."),
        ("<|grounding|>The heart fails.", "The heart fails."),
        ("See ![tracing](ecg.png) here.", "See here."),
        ("See [the ESC](https://escardio.org/x) or [the AHA](#aha).", "See the ESC or the AHA."),
        ("See the site (https://escardio.org/x) first.", "See the site first."),
        ("The site is https://escardio.org/x. It is free.", "The site is. It is free."),
    ],
)
def test_markup_goes_and_comparison_signs_stay(raw, clean):
    assert clean_text(raw) == clean


def test_emphasis_marks_go_and_other_stars_stay():
    raw = "**Bold** and *S. aureus* and _italic_ and __both__ but 2 * 3 * 4, P*Q and snake_case_name."
    assert clean_text(raw) == "Bold and S. aureus and italic and both but 2 * 3 * 4, P*Q and snake_case_name."


def test_pipe_table_rules_and_fences_are_dropped():
    page = "The text goes on.\n\n| Drug | Dose |\n|:---|---:|\n| Digoxin | 125 mcg |\n\n***\n\n=====\n\nIt ends here."
    assert texts(page) == ["The text goes on.", "It ends here."]
    assert (counts(page)["table_rows"], counts(page)["rules_and_fences"]) == (3, 2)


def test_html_table_of_an_ocr_page_is_dropped():
    table = (
        "<table><tr><td>digoxin</td><td>125 micrograms daily</td></tr><tr><td>sotalol</td><td>80 mg</td></tr></table>"
    )
    assert texts(f"The text goes on.\n\n{table}\n\nIt ends here.") == ["The text goes on.", "It ends here."]


@pytest.mark.parametrize(
    "mark", ["## References", "# BIBLIOGRAPHY", "### Further reading:", "References", "**References**"]
)
def test_reference_list_is_dropped_up_to_the_next_heading(mark):
    entries = "1. Smith J. On the failing heart. Lancet 2001;12:34-40.\n2. Jones K. Valves. BMJ 2004;5:6-9."
    page = f"The heart fails.\n\n{mark}\n\n{entries}\n\n# Valves\n\nThey close."
    assert texts(page) == ["The heart fails.", "They close."]


def test_list_items_are_blocks_without_their_marks():
    items = "- Check potassium.\n* Check weight.\n• Ask for help.\n1. Go slowly.\n2) Come back.\na) Call us.\n(b) Rest."
    assert texts(f"Before discharge:\n{items}") == [
        "Before discharge:",
        "Check potassium.",
        "Check weight.",
        "Ask for help.",
        "Go slowly.",
        "Come back.",
        "Call us.",
        "Rest.",
    ]


def test_doubled_list_marks_go_together():
    assert texts("- • Check the potassium.\n- * Check the weight.") == ["Check the potassium.", "Check the weight."]


def test_numbered_items_without_full_stops_stay_apart():
    assert texts("Drugs to stop:\n1. digoxin and verapamil\n2. all of the nitrates") == [
        "Drugs to stop:",
        "digoxin and verapamil",
        "all of the nitrates",
    ]


def test_list_item_goes_on_over_its_lines():
    assert texts("- Check the potassium\n  after a week.\n- Rest.") == ["Check the potassium after a week.", "Rest."]


def test_decimal_or_minus_at_a_line_start_is_no_list_mark():
    assert texts("The dose is\n2.5 mg and the axis\n-30 degrees.") == ["The dose is 2.5 mg and the axis -30 degrees."]


def test_paragraphs_stay_apart_and_a_cut_one_is_joined():
    pages = ["The first ends here.\n\nThe second is cut by the", "page border.\n\nThe third stands alone."]
    assert texts(*pages) == ["The first ends here.", "The second is cut by the page border.", "The third stands alone."]


def test_heading_names_the_section_and_a_bare_heading_is_dropped():
    page = "# Valves #\n\nThey close.\n\nMitral Regurgitation\n\nIt leaks.\n\n## *Aortic* Stenosis\n\nIt narrows."
    blocks, found = clean_pages([page])
    assert [(b.section, b.text) for b in blocks] == [
        ("Valves", "They close."),
        ("Valves", "It leaks."),
        ("Aortic Stenosis", "It narrows."),
    ]
    assert found["heading_lines"] == 1


def test_long_capitalised_line_is_no_heading():
    line = "Left Ventricular Hypertrophy Raises The Risk Of Sudden Cardiac Death"
    assert texts(f"It thickens.\n\n{line}\n\nIt widens.") == ["It thickens.", line, "It widens."]


def test_clean_text_changes_nothing_when_done_twice():
    raw = "The e\ufb03cacy [3] of **sta\u00adtins** (Fig. 2) is <b>high</b> at LVEF &lt;35&nbsp;%."
    once = clean_text(raw)
    assert once == "The efficacy of statins is high at LVEF <35 %."
    assert clean_text(once) == once
