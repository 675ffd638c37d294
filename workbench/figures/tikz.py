"""A scene as TikZ in a `standalone` document that pdflatex, lualatex and xelatex compile, whatever its texts hold."""

from __future__ import annotations

import re
from itertools import cycle

from workbench.figures.scene import Label, Mark, Scene, Step
from workbench.views.text import show_line

# Every character that TeX would obey, or join with its neighbour to another sign.
_ESCAPES = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "`": r"\textasciigrave{}",
    "'": r"\textquotesingle{}",
    '"': r"\textquotedbl{}",
    "|": r"\textbar{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    **{sign: f"\\{sign}" for sign in "$&#%_"},
    **{sign: f"{{{sign}}}" for sign in "-,!?[]=*;:"},
    "·": r"\textperiodcentered{}",
    "−": r"\ensuremath{-}",
    "×": r"\ensuremath{\times}",
    "→": r"\ensuremath{\rightarrow}",
    "⏎": r"\ensuremath{\hookleftarrow}",
    "⇥": r"\ensuremath{\mapsto}",
    "∅": r"\ensuremath{\emptyset}",
    "…": r"\ldots{}",
    "–": r"\textendash{}",
    "›": r"\ensuremath{>}",
    "≥": r"\ensuremath{\geq}",
    "≤": r"\ensuremath{\leq}",
}
# Shows a character that the font has, or else its number. `\providecommand`: several files may go into one paper.
SIGNS = r"""\makeatletter
\ifdefined\iffontchar\ifdefined\Umathcode
  \providecommand{\sign}[2]{\iffontchar\font"#1\relax\char"#1\relax\else\texttt{U+#1}\fi}
\else
  \providecommand{\sign}[2]{\@ifundefined{u8:\detokenize{#2}}{\texttt{U+#1}}{#2}}
\fi\fi
\makeatother
"""
PREAMBLE = r"""\documentclass[border=1pt]{standalone}
\ifdefined\Umathcode
  \usepackage{fontspec}
\else
  \usepackage[T1]{fontenc}
  \usepackage[utf8]{inputenc}
  \usepackage{textcomp}
  \IfFileExists{lmodern.sty}{\usepackage{lmodern}}{}
\fi
\usepackage{tikz}
"""


def escape_tex(text: str) -> str:
    """Text as TeX that shows exactly it, on one line; invisible characters as escapes."""
    pieces = []
    for character in re.sub(" {2,}", lambda found: "\u00a0" * len(found.group()), show_spaces(text)):
        if character == "\u00a0":
            pieces.append(r"\ ")
        elif character in _ESCAPES:
            pieces.append(_ESCAPES[character])
        elif character.isascii():
            pieces.append(character)
        else:
            pieces.append(f"\\sign{{{ord(character):04X}}}{{{character}}}")
    return "".join(pieces)


def show_spaces(text: str) -> str:
    """One line of text, spaces at its ends such that TeX keeps them."""
    line = show_line(text)
    inner = line.strip(" ")
    lead = len(line) - len(line.lstrip(" "))
    return "\u00a0" * lead + inner + "\u00a0" * (len(line) - lead - len(inner)) if inner else "\u00a0" * len(line)


def write_point(x: float, y: float, height: float) -> str:
    """A point, upwards as TikZ has it."""
    return f"({round(x, 2) + 0.0:g},{round(height - y, 2) + 0.0:g})"


def write_steps(steps: tuple[Step, ...], height: float) -> str:
    """A TikZ path."""
    pieces = []
    for letter, points in steps:
        places = [write_point(x, y, height) for x, y in points]
        if letter == "C":
            pieces.append(f" .. controls {places[0]} and {places[1]} .. {places[2]}")
        else:
            pieces.append({"M": " ", "L": " -- ", "Z": " -- cycle"}[letter] + "".join(places))
    return "".join(pieces)


def write_mark(mark: Mark, height: float, names: dict[str, str]) -> str:
    """One TikZ command."""
    if isinstance(mark, Label):
        anchor = {"start": "west", "middle": "center", "end": "east"}[mark.anchor]
        turn = f",rotate={round(-mark.angle, 2) + 0.0:g}" if mark.angle else ""
        bold = r"\bfseries" if mark.bold else ""
        font = f"\\fontsize{{{mark.size:.1f}}}{{{mark.size * 1.2:.1f}}}\\selectfont{bold}"
        return (
            f"\\node[text={names[mark.colour]},anchor={anchor},inner sep=0pt,"
            f"text height={0.65 * mark.size:.2f}bp,text depth={0.05 * mark.size:.2f}bp"
            f"{turn},font={font}] at {write_point(mark.x, mark.y, height)} {{{escape_tex(mark.text)}}};"
        )
    looks = [f"fill={names[mark.fill]}"] if mark.fill else []
    if mark.stroke:
        looks.append(
            f"draw={names[mark.stroke]},line width={mark.width:.2f}bp,line cap={'butt' if mark.dash else 'round'}"
        )
    if mark.dash:
        pattern = zip(cycle(("on", "off")), mark.dash, strict=False)
        looks.append("dash pattern=" + " ".join(f"{word} {length:.2f}bp" for word, length in pattern))
    if mark.opacity != 1:
        looks.append(f"opacity={mark.opacity:g}")
    return f"\\path[{','.join(looks)}]{write_steps(mark.steps, height)};"


def write_tikz(scene: Scene, caption: str = "") -> str:
    """A whole document; the caption stands in it as a comment, for the figure's environment in the paper."""
    used = {colour for mark in scene.marks for colour in list_colours(mark)}
    names = {colour: f"shade{index}" for index, colour in enumerate(sorted(used))}
    colours = [f"\\definecolor{{{name}}}{{HTML}}{{{colour[1:].upper()}}}" for colour, name in names.items()]
    corner = write_point(scene.width, 0, scene.height)
    return "\n".join(
        [
            *(f"% {escape_comment(line)}" for line in caption.splitlines()),
            PREAMBLE.rstrip(),
            SIGNS.rstrip(),
            *colours,
            r"\begin{document}\sffamily",
            r"\begin{tikzpicture}[x=1bp,y=1bp]",
            f"\\path[use as bounding box] (0,0) rectangle {corner};",
            *(write_mark(mark, scene.height, names) for mark in scene.marks),
            r"\end{tikzpicture}",
            r"\end{document}",
            "",
        ]
    )


def list_colours(mark: Mark) -> list[str]:
    """Colours that a mark needs."""
    return [mark.colour] if isinstance(mark, Label) else [colour for colour in (mark.fill, mark.stroke) if colour]


def escape_comment(text: str) -> str:
    """A line of a comment, which no character can end."""
    return show_line(text)
