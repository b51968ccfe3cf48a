"""Sentences for the training voice to read, made from word lists by a seeded grammar."""

import random
import re
from pathlib import Path

NOUNS = """
river mountain teacher window kitchen garden engine doctor village shadow ocean letter bridge tower market
forest station pilot winter summer thunder feather basket candle hammer mirror pencil carpet ladder bottle
button jacket pocket saddle puzzle rabbit tiger turtle falcon salmon orchard meadow valley island harbor
castle temple palace cottage hallway blanket pillow curtain cushion spoon kettle oven furnace chimney
voice sound number measure layer weather season morning evening midnight journey language picture question
answer machine computer science music orchestra violin trumpet piano guitar drummer singer dancer actor
writer author poem chapter library museum gallery painting statue marble copper silver golden diamond
pleasure treasure vision division television garage version region culture nature future lecture
father mother brother sister daughter uncle cousin neighbor stranger soldier captain sailor farmer
baker butcher lawyer judge witness prisoner thief police fire water earth cloud rain snow storm breeze
apple orange lemon cherry pepper onion garlic butter cheese chocolate coffee sugar honey bread pudding
church choir joy toy coin oil boy house mouse cow owl crown power flower hour youth truth month path
""".split()
ADJECTIVES = """
quiet yellow purple narrow hollow gentle bitter clever simple sudden ancient modern frozen broken wooden
silent distant pleasant honest humble famous curious serious nervous jealous anxious precious smooth rough
thick thin sharp dull bright dark heavy light empty crowded hungry thirsty sleepy lazy busy happy angry
lonely lovely early strange large small huge tiny young old fresh rotten wet dry warm cool hot cold red
blue green grey black white brown pink soft hard loud calm wild tame rich poor cheap fair cruel brave
shy proud royal loyal rural urban central final local vital normal equal usual casual northern southern
""".split()
VERBS = """
watched followed carried painted covered opened closed finished studied remembered forgot discovered measured
noticed ignored enjoyed feared trusted questioned answered visited crossed reached climbed passed pushed pulled
lifted dropped threw caught kept lost found sold bought brought built broke fixed cleaned washed cooked served
chose judged joined avoided borrowed shared pleased surprised admired described imagined changed charged touched
""".split()
ADVERBS = """
slowly quickly quietly gently always never often rarely suddenly finally carefully happily nearly hardly
yesterday today tomorrow tonight again together outside upstairs forever somehow perhaps though enough early
""".split()
NAMES = """
Alice Arthur Oliver Emma Julia George Hannah Victor Sophie Thomas Rachel Joseph Vivian Walter Zoe Hugh Joyce
Charles Michelle Philip Yvonne Oscar Ursula Theo Judith Owen Faith Roy Boris Geoffrey
""".split()
PREPOSITIONS = (
    "near behind under over beside before after without toward around between against across above below".split()
)
NUMBERS = (
    "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen twenty "
    "thirty forty fifty sixty seventy eighty ninety hundred thousand million".split()
)
PATTERNS = (
    "The {adj} {noun} {verb} the {noun} {prep} the {noun}.",
    "{name} {verb} a {adj} {noun}, and {name} {verb} the {noun}.",
    "Why has {name} never {verb} the {adj} {noun}?",
    "{adv}, the {noun} {verb} its {adj} {noun}.",
    "There were {number} {adj} things {prep} the {noun} and the {noun}.",
    "Please bring the {noun}, the {noun} and {number} of the {rare}.",
    "She said {rare} twice, then {rare} and {rare}.",
    "If the {noun} is {adj}, we {adv} go {prep} the {noun}.",
    "{name} and {name} were {adj} but not {adj}.",
    "His {noun} was as {adj} as the {rare}.",
    "They would choose {rare} {rare} over the {noun}.",
    "Is this {noun} of {name} more {adj} than your {noun}?",
    "No {noun} should be {verb} {prep} such a {adj} {rare}.",
    "You could measure {rare}, {rare} or {number} {noun} voices.",
    "What do you think of the {adj} {rare} {prep} our {noun}?",
    "I {verb} it {adv}, with the {noun} of {name}.",
    "Both {rare} and {rare} sound {adj} to me.",
    "The {noun} {adv} {verb} {number} {rare}.",
)


def rare_words(dictionary: Path) -> list[str]:
    """Words of 4 to 9 plain letters from a system word list (Debian's wamerican), one a line."""
    words = dictionary.read_text(encoding="utf-8").split()
    return [word for word in words if re.fullmatch(r"[a-z]{4,9}", word)]


def sentences(count: int, rare: list[str], seed: int) -> list[str]:
    """Make `count` different sentences; the same arguments give the same sentences."""
    draw = random.Random(seed)
    pools = {
        "noun": NOUNS,
        "adj": ADJECTIVES,
        "verb": VERBS,
        "adv": ADVERBS,
        "name": NAMES,
        "prep": PREPOSITIONS,
        "number": NUMBERS,
        "rare": rare,
    }
    made: dict[str, None] = {}
    while len(made) < count:
        pattern = draw.choice(PATTERNS)
        text = re.sub(r"\{(\w+)\}", lambda slot: draw.choice(pools[slot.group(1)]), pattern)
        made[text[0].upper() + text[1:]] = None
    return list(made)
