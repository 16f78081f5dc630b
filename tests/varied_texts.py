"""Short texts to train tiny pairs on, whose topic words differ: a line of the teacher's that is always the same would be refused."""


def varied_text(i: int) -> str:
    """The i-th text, about one of 35 combinations of vessel and water."""
    vessel = ("ferry", "barge", "canoe", "tanker", "rowing boat", "trawler", "catamaran")[i % 7]
    water = ("river", "harbour", "channel", "lagoon", "estuary")[i % 5]
    return f"Text {i} tells how the {vessel} number {i * 7} crosses the wide {water} at dawn and at dusk."
