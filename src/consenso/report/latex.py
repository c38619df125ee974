"""Text and tables as LaTeX that compiles, whatever names hold."""

from __future__ import annotations

import re
from collections.abc import Sequence

_SPECIAL = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "%": r"\%", "#": r"\#", "_": r"\_",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': "''", "[": "{[}", "]": "{]}",
    "−": "$-$", "±": r"$\pm$", "×": r"$\times$", "≥": r"$\geq$", "≤": r"$\leq$", "→": r"$\rightarrow$",
    "α": r"$\alpha$", "δ": r"$\delta$", "∞": r"$\infty$", "…": r"\ldots{}", "–": "--", "—": "---",
    "“": "``", "”": "''", "‘": "`", "’": "'", "\u202f": r"\,", "\u00a0": "~",
}  # fmt: skip
"""Character → what LaTeX reads as that character; a bracket in braces is no argument of the command before it."""
_CITED = re.compile(r"\[@([a-z]+\d*)\]")


def escape_latex(text: str) -> str:
    """Return text that LaTeX sets as it stands, on one line; letters beyond ASCII stay (UTF-8)."""
    return "".join(_SPECIAL.get(sign, sign) for sign in " ".join(_words(text)))


def _words(text: str) -> list[str]:
    """The words of a text without control characters; narrow and no-break spaces are part of a word."""
    kept = "".join(sign if sign.isprintable() or sign in "\u202f\u00a0" else " " for sign in text)
    return [word for word in kept.split(" ") if word]


def cite_latex(text: str) -> str:
    r"""Return an escaped text whose marks `[@key]` are `~\cite{key}`."""
    parts = _CITED.split(text)
    said = [rf"~\cite{{{part}}}" if place % 2 else escape_latex_part(part) for place, part in enumerate(parts)]
    return "".join(said).replace(" ~\\cite", "~\\cite")


def escape_latex_part(text: str) -> str:
    """Return a part of a sentence, escaped, with the spaces at its ends."""
    inner = escape_latex(text)
    lead = " " if text[:1] == " " else ""
    trail = " " if text[-1:] == " " and text.strip(" ") else ""
    return f"{lead}{inner.strip(' ')}{trail}" if inner.strip(" ") else lead


def cite_plain(text: str, names: dict[str, str]) -> str:
    """Return the text with `[@key]` as ` (Author year)`."""
    return re.sub(r" ?\[@([a-z]+\d*)\]", lambda found: f" ({names[found[1]]})", text)


def cited(text: str) -> list[str]:
    """Return the keys that a text cites, each once, in order."""
    return list(dict.fromkeys(_CITED.findall(text)))


def booktabs(columns: Sequence[tuple[str, bool]], rows: Sequence[Sequence[str]], *, caption: str, label: str) -> str:
    """Return a table for the packages booktabs and graphicx, shrunk to the text's width where it is wider.

    `columns`: pairs (heading, True for numbers); cells are plain text.
    """
    form = "".join("r" if number else "l" for _, number in columns)
    lines = [" & ".join(escape_latex(cell) for cell in row) + r" \\" for row in rows]
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{escape_latex(caption)}}}",
            rf"\label{{{label}}}",
            r"\footnotesize",
            r"\setlength{\tabcolsep}{3pt}",
            r"\resizebox{\ifdim\width>\textwidth\textwidth\else\width\fi}{!}{%",
            rf"\begin{{tabular}}{{{form}}}",
            r"\toprule",
            " & ".join(escape_latex(name) for name, _ in columns) + r" \\",
            r"\midrule",
            *lines,
            r"\bottomrule",
            r"\end{tabular}%",
            "}",
            r"\end{table}",
        ]
    )
