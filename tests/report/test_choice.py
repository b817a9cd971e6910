"""What was chosen and why, on which data, what changed sides, and one sign for the change."""

from __future__ import annotations

import re
from dataclasses import fields
from typing import Any

import pytest

from kompakt.measuring.certificate import Tolerances
from kompakt.report import LANGUAGES, parity, render
from kompakt.report.draft import Draft
from kompakt.report.render import prose
from kompakt.report.verdict import marks


def plain(text: str) -> str:
    return text.replace("\N{NO-BREAK SPACE}", " ")


def table(html: str, ident: str) -> list[list[str]]:
    """The cells of a table, row by row."""
    found = re.search(rf'<table id="{ident}".*?</table>', html, re.DOTALL)
    assert found is not None
    rows = re.findall(r"<tr[^>]*>(.*?)</tr>", found[0], re.DOTALL)
    return [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", plain(row)) for row in rows]


def test_the_choice_stands_below_the_headline_in_plain_words(record: Any, parse: Any) -> None:
    text = parse(render(record)).text("header")
    assert "Chosen: w8a8 (8-bit weights and activations, integer arithmetic)." in text
    record["scheme"]["default"] = {"mode": "weight_only", "weight": "int4"}
    record["scheme_name"] = "w4-g32"
    assert "Chosen: w4-g32 (4-bit weights, float arithmetic)." in parse(render(record)).text()
    assert "选中：w4-g32（4 位权重，浮点运算）。" in parse(render(record, lang="zh-CN")).text()


def test_the_trials_say_which_was_chosen_and_why(record: Any, parse: Any) -> None:
    told = "Number 3, w8a8 mse, was chosen: smallest error among those fast enough."
    assert told in parse(render(record)).text()
    record["trials"][2]["why"] = ""
    assert "Number 3, w8a8 mse, was chosen. " in parse(render(record)).text()


def test_a_split_of_the_validation_data_is_told(record: Any, parse: Any) -> None:
    record["validation_split"] = {"choosing": 200, "certifying": 199}
    told = parse(render(record)).text()
    assert "200 samples to choose among the trials, the other 199 for the figures" in told
    assert "--test" in told
    assert "were split" not in parse(render(record | {"validation_split": None})).text()


def test_samples_that_changed_sides_are_counted_by_class(record: Any, parse: Any) -> None:
    html = render(record)
    assert "137 were right with the float model and are wrong now; 77 were wrong" in html
    assert table(html, "changes-table")[1:] == [["7", "10", "3", "0"], ["12", "10", "1", "2"]]
    record["changes"] = {"lost": 0, "gained": 0, "classes": []}
    html = render(record)
    assert "none changed from right to wrong" in html
    assert "changes-table" not in html


def test_the_change_has_one_sign_wherever_it_stands(record: Any, parse: Any) -> None:
    html = render(record)
    accuracy = table(html, "comparison-table")[1]
    assert accuracy[4:] == ["−0.15 points", "−0.47 to +0.17"]
    text = plain(parse(html).text())
    assert re.search(r"change −0.15 points\s*95% interval −0.47 to \+0.17", text)
    assert "a change of −0.15 points (95% interval −0.47 to +0.17)" in text


def test_where_lower_is_better_a_loss_is_a_rise(record: Any, parse: Any) -> None:
    record["metric"] |= {"name": "perplexity", "higher_is_better": False}
    record |= {"drop": 0.02, "drop_interval": [-0.01, 0.05]}
    record["baseline"]["metric"], record["candidate"]["metric"] = 3.9, 3.92
    accuracy = table(render(record), "comparison-table")[1]
    assert accuracy[2:] == ["3.9000", "3.9200", "+0.0200", "−0.0100 to +0.0500"]


def test_throughput_names_its_batch_and_the_percentile_is_explained(record: Any) -> None:
    labels = [row[0] for row in table(render(record), "comparison-table")[1:]]
    assert "Throughput, batch 32" in labels
    assert "Latency, 90th percentile: 9 of 10 calls are faster" in labels


def test_tolerances_are_sentences(record: Any, parse: Any) -> None:
    record["parity"]["tolerances"] |= {"float_step": 1, "something_new": 0.5}
    text = parse(render(record)).text()
    assert (
        "What the certificate accepts: behind an integer kernel none of the codes may differ; "
        "behind a float kernel 0.10% of them; "
    ) in text
    assert "such a code by at most 1; something new 0.5." in text


@pytest.mark.parametrize("lang", LANGUAGES)
def test_every_tolerance_has_words(record: Any, lang: str) -> None:
    draft = Draft.of(record, lang)
    for field in fields(Tolerances):
        assert draft.say(f"tolerance.{field.name}", value="7")


def test_a_largest_difference_is_told_only_where_codes_may_differ(record: Any) -> None:
    tolerances = record["parity"]["tolerances"]
    tolerances["integer_step"] = 3
    assert "at most 3" not in render(record)
    tolerances["integer_share"] = 0.01
    assert "such a code by at most 3" in render(record)


@pytest.mark.parametrize("lang", LANGUAGES)
def test_without_quantized_activations_no_code_is_certified(record: Any, lang: str) -> None:
    nothing = {"quantizers": 0, "codes": 0, "differing_codes": 0, "rows": []}
    record["parity"] |= nothing | {"forced_output_error": 1.8e-7}
    draft = Draft.of(record, lang)
    assert [mark.standing for mark in marks(draft)][2] == "none"
    told = parity.section(draft).text
    assert "1.80 × 10⁻⁷" in plain(told) or "1.8 × 10⁻⁷" in plain(told)
    assert draft.say("parity.no_codes.exact", samples="200") not in told
    record["parity"]["verdict"] = "failed"
    failed = Draft.of(record, lang)
    assert [mark.standing for mark in marks(failed)][2] == "bad"


def test_the_sites_of_the_profile_are_named_below_it(record: Any) -> None:
    html = render(record)
    figure = re.search(r'<figure id="profile-figure".*?</figure>', html, re.DOTALL)
    assert figure is not None
    named = re.findall(r"<li><b>(\d+)</b> <code>([^<]+)</code>", figure[0])
    worst = sorted(
        (site for site in record["sites"] if site["sqnr_db"] is not None),
        key=lambda site: site["sqnr_db"],
    )
    assert named == [(str(i), site["name"]) for i, site in enumerate(worst[:10], 1)]


@pytest.mark.parametrize("lang", LANGUAGES)
def test_each_cell_of_a_stacked_table_carries_its_head(record: Any, parse: Any, lang: str) -> None:
    html = render(record, lang=lang)
    heads = table(html, "comparison-table")[0]
    row = re.search(r'<tr role="row">(.*?)</tr>', html, re.DOTALL)
    assert row is not None
    assert re.findall(r'data-head="([^"]+)"', row[1]) == heads[1:]


def test_backticks_become_code_and_markup_stays_text() -> None:
    assert prose("run `kompakt <b>` & go") == ("run <code>kompakt &lt;b&gt;</code> &amp; go")
    assert prose("one ` alone <i>") == "one ` alone &lt;i&gt;"


def test_backticks_of_a_warning_are_not_shown(record: Any) -> None:
    html = render(record | {"warnings": ["run `kompakt verify --here` there"]})
    assert "<li>run <code>kompakt verify --here</code> there</li>" in html
