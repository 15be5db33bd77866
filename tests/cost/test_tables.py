"""Tables as text, Markdown and HTML."""

from npnets.cost import html_table, markdown_table, text_table

LINES = [("what", "how many", "why"), ("a <b>", "1", "so"), ("c", "1,000", "because")]


def test_columns_stand_left_or_right():
    assert text_table(LINES, (0, 2), total=False).splitlines() == [
        "what   how many  why",
        "------------------------",
        "a <b>         1  so",
        "c         1,000  because",
    ]
    assert text_table(LINES, 1).splitlines()[3] == "------------------------"  # above the total
    assert markdown_table(LINES, (0, 2)).splitlines()[1] == "| --- | ---: | --- |"


def test_html_escapes_and_sets_the_total_apart():
    page = html_table(LINES, (0, 2))
    assert "a &lt;b&gt;" in page and "<b>" not in page
    assert page.count("<td") == 3 and page.endswith("</tfoot></table>")
    assert '<td style="text-align:right">1</td>' in page and '<td style="text-align:left">so</td>' in page
    without = html_table(LINES, (0, 2), total=False)
    assert without.count("<td") == 6 and "tfoot" not in without
