"""Find the cells of a grid in which the position words of an expression stay true.

A mosaic moves the whole image. Every word that places something *in the image* binds, whether it
places the referent ("left man") or what the referent is told from ("dog next to the man on the
left"). These words do not bind:

* relations between things ("left of the dog", "on top of the fridge", "under the table"), parts of
  bodies ("left hand", "her left"), directions ("facing left", "from left to right"), other senses
  ("right behind", "the only one left", "black top", "high chair") and what is denied ("not left");
* depth ("front", "background") and clock faces, which name no row or column.

"left of the picture" does bind. So does the choice from a group: "left of the two", "leftmost of
three", "right side of the group", "left end of the top row", but not "to the left of the two men".
A place counted from a side ("second from left") binds to the side where the count begins.

"middle" alone is the middle of rows and columns. Beside a row ("top middle") or before "of the row"
it is that of the columns; beside "left" or "right" ("middle left") or before "row" or "shelf" that
of the rows. Words that exclude one another leave their axis free. If the sense is unsure, nothing
binds.
"""

from __future__ import annotations

import re
from functools import lru_cache

_SIDE = r'(?:left|right|top|bottom|upper|lower|middle|center)'
_PART = r'(?:side|half|part|corner|edge|end|portion|quarter|section)'
_THE = r'(?:(?:the|this|that|these|those|an?|our|all|whole|entire|main) )*'
# The image itself, not what hangs on a wall, and not the frame of something.
_PICTURE = (
    r'(?:pic|pictures?|photo(?:graph)?s?|images?|screen|frame(?! with)|shot|scene|view|page)'
    r'(?! (?:on|hanging|half|frames?)\b)'
)
_GROUP = r'(?:two|three|four|five|six|[2-6]|both|pair|trio|group|bunch|stack|them)\b'
_ROW = (
    rf'(?:(?:{_SIDE}|front|back|rear|first|last|second|third|[1-9](?:st|nd|rd|th)) )?'
    r'(?:row|line|line ?up)\b'
)
_ORDINAL = r'(?:(?:fir|1)st|(?:seco|2)nd|(?:thi|3)rd|\w+th|number)\b'
_BODY = (
    r'(?:hand|arm(?! chair| rest)|leg|foot|feet|eye|ear|knee|elbow|shoulder|wrist|ankle|thumb|paw|'
    r'finger|hoof|wing|tusk|horn|thigh|hip|cheek|lip|palm|fist|heel|toe|forearm|body|shoe|sock|'
    r'boot|glove|sleeve|field|fielder)s?\b'
)
_MOVING = (
    r'(?:fac|look|point|head|go|mov|walk|runn?|lean|turn|tilt|rid|driv|swing|reach|star|gaz|glanc)'
    r'(?:es|ing|ed|s|e)?'
)
# Before a "left" or "right" that is a place: no "left behind", no "right next to".
_PLACE = ''.join(
    rf'(?<!\b{word} )'
    for word in (
        *('on', 'the', 'far', 'at', 'to', 'from', 'most', 'our', 'your', 'my'),
        *('top', 'bottom', 'upper', 'lower', 'middle', 'center'),
    )
)
# Before a "top" that is clothing, furniture or a roof, as long as it is no row or corner.
_CLOTH = (
    r'(?:black|white|red|blue|green|yellow|pink|purple|orange|gr[ae]y|brown|tan|beige|teal|dark|'
    r'light|bright|striped?|plaid|floral|flower(?:ed)?|print(?:ed)?|patterned|checkered|dot|denim|'
    r'colou?red|sleeveless|sleeved?|halter|tank|tube|crop(?:ped)?|lace|sheer|tight|sparkly|shiny|'
    r'bikini|pajama|table|counter|roof|tree|hill|mountain|desk|stove|hard|soft|convertible|bottle)'
)
_NO_ROW = r'(?! (?:left|right|corner|row|shelf|bunk|rack|middle|center|most|side|edge))\b'
_WORDS = r'(?:(?!(?:on|at|in|near|by|to|from|of|the)\b)\w+ ){0,4}'


def _bind(match: re.Match) -> str:
    return match[1].upper()


# Pattern and replacement, in this order. A word in capitals binds: no later pattern sees it.
_RULES = [
    # One spelling for each word. A hyphen tells "left-hand zebra" from "left hand".
    (r'\b(left|right)(?:-?hand\b| hand(?= (?:side|corner|edge|part|end|most|one)\b))', r'\1'),
    (r"[’']s\b", ' s'),
    (r"[’']", ''),
    (r'[-_]', ' '),
    (r'[^\w\s]+', ' , '),
    (r'\s+', ' '),
    (r'\bcent(?:re|ral)\b', 'center'),
    (r'\b(?:bott?[eo][mn]|bttm|btm)\b', 'bottom'),
    (r'\b(far|top|bottom|upper|lower|mid|middle)(left|right|row)\b', r'\1 \2'),
    (r'\b(left|right)(side|corner|end)\b', r'\1 \2'),
    (r'\bbot(?= (?:left|right|l|r|row|shelf|corner)\b)|\blow(?= (?:left|right)\b)', 'bottom'),
    (r'\bhigh(?= (?:left|right)\b)', 'top'),
    (rf'\bmid(?= (?:left|right|top|bottom|row|{_PICTURE})\b)', 'middle'),
    (r'\b(on |far |top |bottom |upper |lower )l\b|\b(?:lft|lhs)\b', r'\1left'),
    (r'\b(on |far |top |bottom |upper |lower )r\b|\b(?:rt|rhs)\b', r'\1right'),
    # Denied.
    (rf'\b(?:not|isn ?t|except) (?:(?:on|at|in|to|the|an?|one|far|very) )*{_SIDE}(?:most)?\b', ''),
    (r'\boff center\b', ''),
    # Superlatives, the picture's sides, the choice from a group.
    (r'\b(?:upmost|upper ?most|top ?most|highest|high up|up high|higher up)\b', 'TOP'),
    (r'\b(?:bottom ?most|lower ?most|lowest|low down)\b', 'BOTTOM'),
    (rf'\b(left|right) ?most\b(?! {_PART} of)', _bind),
    (rf'\b({_SIDE}) (?:{_PART} )?of {_THE}(?:{_PICTURE}|center$|middle$)\b', _bind),
    (rf'\b(?:{_PICTURE}|viewer|camera|photographer) s ({_SIDE})\b', _bind),
    (rf'\b(?:middle|center) (?:{_PART} )?of(?= {_THE}{_ROW})', 'MIDCOLUMN'),
    (rf'(?<!\bto the )\b({_SIDE}) (?:{_PART} )?of(?= {_THE}{_ROW})', _bind),
    (rf'\b({_SIDE}) {_PART} of {_THE}{_GROUP}', _bind),
    (
        rf'(?:^|\bfar |(?<!\bto )(?<!\bon )(?<!\bin )\bthe )((?:{_SIDE} )?{_SIDE}) of '
        rf'{_THE}{_GROUP}',
        _bind,
    ),
    (rf'\bon the ({_SIDE}) of {_THE}(?!them){_GROUP}(?=$| ,)', _bind),
    (r'\bhigher\b(?! than)', 'TOP'),
    (r'(?<!from )\babove(?=$| ,)', 'TOP'),
    (r'\bbelow(?=$| ,)', 'BOTTOM'),
    # Directions. With an ordinal, "left to right" is a count from the left.
    (rf'(\b{_ORDINAL}.*?\b{_SIDE}) to (?:the )?{_SIDE}\b', r'\1'),
    (rf'\b({_SIDE}) to (?:the )?{_SIDE}\b(?=.*\b{_ORDINAL})', r'\1'),
    (rf'\b{_SIDE} to (?:the )?{_SIDE}\b', ''),
    (
        rf'\b{_MOVING} (?:(?:off|out|up|back|over|down|slightly|and|to|towards?|the|his|her|our|'
        r'its) )*(?:left|right)\b',
        '',
    ),
    (r'\b(?:left|right) (?:facing|turn)\b', ''),
    # Relations to other things, parts of bodies.
    (rf'\b(?:{_SIDE} )*{_SIDE} ?(?:most )?(?:{_PART} )?of\b', ''),
    (rf'{_PLACE}\b(?:left|right) (?:to|from) (?:the|an?|his|her|him|it)\b', ''),
    (rf'\b(?:{_SIDE} )?{_SIDE} (?:front |back |rear |hind |hand )?{_BODY}', ''),
    (r'\b(?:left|right) (?:hand|foot|ey)ed\b', ''),
    (rf'\b(?:his|hers?|its|their|s|mans|womans|stage) (?:far |own )?{_SIDE}\b', ''),
    (r'\blower than\b', ''),
    # Other senses.
    (
        rf'{_PLACE}\bright (?:behind|next|beside|in (?:front|back|the)|under|above|below|beneath|'
        r'near|by|before|after|there|here|now|at|against|on|across|off|up|over|outside|inside|'
        r'side up)\b',
        '',
    ),
    (r'\ball right\b', ''),
    (rf'{_PLACE}\bleft ?(?:overs?|alone|behind|by|out|open|unattended)\b', ''),
    (r'\b(?:is|was|s|are|been|being|has|have|nothing) left\b', ''),
    (r'\b(?:only|last) (?:(?!(?:on|at|to|far|the)\b)\w+ )*left(?=$| on\b| in\b)', ''),
    (
        r'\b(?:food|pizza|cake|pieces?|slices?|bread|sandwich|(?:piece|slice)s? of \w+) left '
        r'(?:on|in) (?:the|an?|his|her)\b',
        '',
    ),
    (rf'\b{_CLOTH} top{_NO_ROW}', ''),
    (rf'\b(?:in|with|wearing|wears) (?:an?|his|her) {_WORDS}top{_NO_ROW}', ''),
    (rf'\bwearing {_WORDS}top{_NO_ROW}', ''),
    (rf'\b(?:with|has|have|having) (?:\w+ )+on (?:the )?top{_NO_ROW}', ''),
    (r'\btop (?:hats?|knot|down|off|coat)\b|\bbikini bottom\b', ''),
    (r'\bmiddle (?:aged?|school\w*|eastern|class)\b', ''),
    (r'\bcenter ?(?:piece|court|stage)\b', ''),
    (r'\b(?:shopping|entertainment|community|city|town|convention|visitor) center\b', ''),
    # The middle of one axis.
    (r'\b(?:middle|center) (?:row|shelf|rack|tier|level|layer)\b', 'MIDROW'),
    (r'\b(?:middle|center) column\b', 'MIDCOLUMN'),
    (
        r'\b(?:middle|center) (left|right|LEFT|RIGHT)\b|\b(left|right) (?:middle|center)\b',
        r'\1\2 MIDROW',
    ),
]
_RULES = [(re.compile(pattern), replacement) for pattern, replacement in _RULES]
_ROWS = dict(top='first', upper='first', bottom='last', lower='last', midrow='middle')
_COLUMNS = dict(left='first', right='last', midcolumn='middle')


@lru_cache(maxsize=4096)
def position_of(expression: str) -> tuple[str | None, str | None]:
    """Find the row and the column to which the position words of an expression bind.

    Args:
        expression: The expression.

    Returns:
        For rows and for columns ``'first'`` (top, left), ``'middle'``, ``'last'`` (bottom, right),
        or None if nothing binds or words exclude one another.
    """
    rest = expression.lower()
    for pattern, replacement in _RULES:
        rest = pattern.sub(replacement, rest)
    words = rest.lower().split()
    rows = {_ROWS[word] for word in words if word in _ROWS}
    columns = {_COLUMNS[word] for word in words if word in _COLUMNS}
    if 'middle' in words or 'center' in words:
        if not rows and not columns:
            rows.add('middle')
        columns.add('middle')
    return tuple(places.pop() if len(places) == 1 else None for places in (rows, columns))


def position_cells(expression: str, rows: int, columns: int) -> frozenset[int]:
    """Find the cells of a grid in which an expression stays true.

    Args:
        expression: The expression.
        rows: Number of rows of the grid.
        columns: Number of columns of the grid.

    Returns:
        Indices of the cells, row by row from the top left one. All cells if nothing binds. An even
        number of rows or columns has two in the middle.
    """
    row, column = position_of(expression)
    return frozenset(r * columns + c for r in _lines(row, rows) for c in _lines(column, columns))


def _lines(place: str | None, size: int) -> range:
    """List the rows or columns at a place, out of ``size``."""
    ends = dict(first=(0, 1), last=(size - 1, size), middle=((size - 1) // 2, size // 2 + 1))
    return range(*ends.get(place, (0, size)))
