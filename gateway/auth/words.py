"""A fingerprint as words that two people can read to each other over the telephone.

256 short English words, chosen for this list so that no two begin with the same three letters; word number n stands for
the byte n. WORDS words carry 96 bits: who wants another CA behind the same words must try 2**96 keys.
"""

from typing import Final

WORDS: Final = 12
"""How many words are shown: the first 12 bytes of the fingerprint."""

_TEXT: Final = """
    able acid actor adult after agent alarm album alley amber angel ankle apple april arena army arrow atlas autumn
    award axis bacon badge baker bamboo banjo barrel basket beach bench berry bird blanket blend board bonus border
    bottle branch breeze bridge bucket budget burger butter cabin cactus camel candle carpet castle cedar cello
    chalk cherry chimney cigar circle clay climate cloud coast coffee comet copper coral cotton couch cradle crown
    cube curtain cycle dance dawn debate decade deer delta desert diamond diesel dinner doctor dollar donkey dragon
    drum eagle earth echo editor effect elbow elder engine equal estate event exit fabric falcon family feather
    fence fiber field finger flag flute forest fossil frame fruit fuel funnel galaxy garden gate gentle giant ginger
    glass goat golden grain guitar habit hammer harbor hazel helmet herb hill honey hotel hunter iceberg igloo image
    index insect iron island ivory jacket january jelly jewel jigsaw jockey judge juice kettle kidney kingdom
    kitchen knight label ladder lagoon lemon letter liberty lizard lobster locust lunar lyric magnet maple marble
    meadow melon mirror mobile monkey mosaic motor museum napkin nature needle nickel noble north number nylon oasis
    object ocean olive onion opera orbit orchid oven oxygen oyster paddle palace panda parrot pebble pepper piano
    picnic pilot planet pocket poem potato prairie pumpkin pyramid quartz queen quilt rabbit radio rain ranch reef
    rhythm ribbon river rocket roof royal rubber saddle salmon saturn school seed silver sketch smile snow soccer
    spider squirrel statue summer swan table teapot thunder ticket tomato tractor tulip turtle umbrella velvet
    walnut
"""
LIST: Final[tuple[str, ...]] = tuple(_TEXT.split())
_NUMBER: Final = {word: number for number, word in enumerate(LIST)}


def in_words(fingerprint: str, *, count: int = WORDS) -> tuple[str, ...]:
    """The first `count` bytes of a fingerprint (hex), a word each."""
    return tuple(LIST[byte] for byte in bytes.fromhex(fingerprint)[:count])


def from_words(words: str) -> str:
    """The hex digits that words stand for, whatever their case and what separates them; ValueError names a stranger."""
    found = words.replace("-", " ").lower().split()
    for word in found:
        if word not in _NUMBER:
            raise ValueError(f"{word!r} is none of the words")
    return bytes(_NUMBER[word] for word in found).hex()
