"""Tables as text, Markdown and HTML: a header, lines, and a total as the last line where there is one.

``left`` tells which columns stand left: the first so many, or the numbers of the columns. The others stand right.
"""

import html


def text_table(lines, left, *, total=True):
    """Return a table for a terminal; the last line is set apart if it is a ``total``."""
    widths = [max(map(len, column)) for column in zip(*lines)]
    align = [str.ljust if k in _columns(left) else str.rjust for k in range(len(widths))]
    text = ["  ".join(put(cell, w) for put, cell, w in zip(align, line, widths)).rstrip() for line in lines]
    rule = "-" * (sum(widths) + 2 * len(widths) - 2)
    body = [*text[1:-1], rule, text[-1]] if total else text[1:]
    return "\n".join([text[0], rule, *body])


def markdown_table(lines, left):
    """Return a table of the same lines as Markdown."""
    header, *lines = lines
    rule = ["---" if k in _columns(left) else "---:" for k in range(len(header))]
    return "\n".join("| " + " | ".join(line) + " |" for line in (header, rule, *lines))


def html_table(lines, left=(), *, total=True):
    """Return a table of the same lines for a notebook."""
    header, *lines = lines
    parts = {"thead": [_html_line("th", header, left)]}
    parts["tbody"] = [_html_line("td", line, left) for line in (lines[:-1] if total else lines)]
    parts["tfoot"] = [_html_line("th", line, left) for line in (lines[-1:] if total else [])]
    return "<table>" + "".join(f"<{part}>{''.join(rows)}</{part}>" for part, rows in parts.items() if rows) + "</table>"


def _html_line(tag, cells, left):
    sides = ("left" if k in _columns(left) else "right" for k in range(len(cells)))
    styled = (f'<{tag} style="text-align:{side}">{html.escape(cell)}</{tag}>' for cell, side in zip(cells, sides))
    return f"<tr>{''.join(styled)}</tr>"


def _columns(left):
    return range(left) if isinstance(left, int) else left
