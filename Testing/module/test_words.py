"""What the panel says of an answer: scores with what they lack, sources, caveats, and lesions without specks."""

from __future__ import annotations

import pytest


@pytest.fixture
def words(slicer):
    from ICHAnalysisPanel import words

    return words


def lesion(volume_ml):
    from ICHAnalysisLib.analysis import Lesion

    return Lesion(volume_ml, (1.0, 2.0, 3.0), (0.0, 0.0, 0.0, 2.0, 4.0, 6.0), (3, 5))


def test_a_score_says_what_it_lacks_where_it_comes_from_and_what_it_is_not(words):
    from ICHAnalysisLib.analysis import PROGNOSIS_CAVEAT, Analysis
    from ICHAnalysisLib.scores import ich_score

    def text(ivh):
        given = ich_score(age=67, gcs=12, volume_ml=24.0, ivh=ivh, infratentorial=False)
        return words.outcome_html(Analysis("ok", lesions=(lesion(24.0),), prognosis={"ich_score": given}))

    lacking = text(None)
    assert "<b>ICH Score 1 to 2:</b> death within 30 days 13 to 26 %." in lacking
    assert "needs whether blood reached the ventricles" in lacking
    assert "Source: Hemphill 2001" in lacking
    assert lacking.count(PROGNOSIS_CAVEAT) == 1 and "overestimate today" in lacking
    assert "<b>ICH Score 1:</b> death within 30 days 13 %." in text(False)
    assert "<b>ICH Score 2:</b> death within 30 days 26 %." in text(True)


def test_a_refused_prognosis_gives_its_reason_alone(words):
    from ICHAnalysisLib.analysis import Analysis, Prognosis

    given = Prognosis(
        None, "poor outcome", "volume net", caveat="Learned from simulated outcomes.", reason="Not shown."
    )
    text = words.outcome_html(Analysis("ok", lesions=(lesion(3.0),), prognosis={"scan_network": given}))
    assert "<b>Volume net:</b> Not shown." in text
    assert "Learned from" not in text and "Source" not in text


def test_specks_are_counted_and_not_called_lesions(words):
    from ICHAnalysisLib.analysis import Analysis
    from ICHAnalysisPanel.lesions import shown_lesions, shown_lines

    volumes = {"segmentation": 24.8}
    analysis = Analysis("ok", lesions=(lesion(0.02), lesion(24.7), lesion(0.08)), volumes_ml=volumes)
    assert [one.volume_ml for one in shown_lesions(analysis)] == [24.7]
    text = words.outcome_html(analysis)
    assert "Hemorrhage: 24.8 mL<" in text
    assert "includes 2 outlined specks below 0.1 mL" in text
    assert "in 2 lesions" in words.outcome_html(Analysis("ok", lesions=(lesion(4.0), lesion(1.0)), volumes_ml=volumes))
    assert len(shown_lesions(Analysis("ok", lesions=(lesion(0.02),)))) == 1
    lines = ({"volumes_ml": {"abc2": 24.0}}, {"volumes_ml": {"abc2": 0.01}}, {"volumes_ml": {"abc2": 2.0}})
    assert shown_lines(Analysis("ok", abc2_lines=lines)) == [lines[0], lines[2]]
