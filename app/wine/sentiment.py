"""How a note speaks of its wine: a tone from -1 (scathing) to 1 (glowing).

A small lexicon written for tasting notes, since the general ones need a download and take "dry", "sharp" or "dark" for blame.
The tone is `s / sqrt(s * s + 6)`, with `s` the sum of the words' weights; a negation within the three words before turns a
weight around and halves it.
"""

import math
from typing import Final

from app.wine.text import fold, words

_SCALE: Final = 6.0
_REACH: Final = 3
_NEGATIONS: Final = frozenset(
    "not no never without lacks lacking hardly barely isn't doesn't don't nothing neither nor can't won't".split()
)

_WEIGHTS: Final = {
    3.0: """superb stunning magnificent outstanding extraordinary spectacular profound brilliant glorious gorgeous sublime
        exceptional thrilling breathtaking majestic benchmark wonderful wonderfully perfect""",
    2.0: """excellent beautiful beautifully delicious elegant elegance complex complexity impressive lovely delightful
        exciting refined harmonious seductive polished classy captivating luscious remarkable terrific fantastic great
        graceful finesse fabulous hedonist sumptuous stylish distinguished irresistible charming compelling superbly""",
    1.0: """fine good nice pleasant pleasing enjoyable attractive appealing balanced balance fresh refreshing bright vibrant
        lively smooth silky velvety rich ripe pure clean juicy generous lush plush concentrated concentration supple crisp
        expressive inviting satisfying well fragrant layered depth deep long lingering structured intense vivid friendly
        mouthwatering mouthfilling precise focused persistent value recommended best ageworthy likable likeable
        delicate creamy charm integrated potential fun drinkable harmony lifted worth reward rewarding mature power""",
    -1.0: """simple light thin short lean sharp tart bitter tannic hot rough coarse green herbal stalky weedy heavy
        awkward hollow muted closed clumsy chunky choppy scratchy grabby gritty astringent sour soft modest ordinary
        basic generic rustic oaky overripe raisiny stewed syrupy cloying sugary candied sticky hard austere rubbery
        horsey funky medicinal pickled acidic drying tired lacks lacking unbalanced overoaked confected resiny dull""",
    -2.0: """harsh flat dilute diluted watery weak disappointing unripe vegetal flabby disjointed faded oxidized stale
        bland burnt overly excessive boring insipid clunky unpleasant murky raw sweaty""",
    -3.0: """awful terrible undrinkable flawed faulty corked rancid spoiled foul nasty putrid unacceptable""",
}
LEXICON: Final = {word: weight for weight, listed in _WEIGHTS.items() for word in listed.split()}


def tone(text: str) -> float:
    """The tone of a note, between -1 and 1; 0 when it has no word of praise or blame."""
    found = words(fold(text))
    total = 0.0
    for index, word in enumerate(found):
        weight = LEXICON.get(word)
        if weight is None:
            continue
        negated = any(before in _NEGATIONS for before in found[max(0, index - _REACH) : index])
        total += -weight / 2 if negated else weight
    return total / math.sqrt(total * total + _SCALE)
