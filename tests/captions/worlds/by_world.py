"""Labels of captions checked against a drawn world, of which all is known."""

from collections.abc import Iterator

from hnc_ds.records import CaptionGroup
from tests.captions.worlds.findings import Finding, Label
from tests.captions.worlds.judging import Judge, WorldFacts
from tests.captions.worlds.parsing import parse
from tests.captions.worlds.worlds import NO, YES, World


class WorldJudge:
    """Judges the labels of one world's captions: all are proven right, or wrong."""

    def __init__(self, world: World) -> None:
        self.judge = Judge(WorldFacts(world))

    def findings(self, group: CaptionGroup) -> Iterator[Finding]:
        """A finding for each caption of a group but for open-world ones, which nothing proves."""
        yield self._true(group)
        for negative in group.negatives:
            if not negative.open_world:
                yield self._false(negative.caption, negative.type, group.positive)

    def _true(self, group: CaptionGroup) -> Finding:
        claim, definite = parse(group.positive)
        verdict = self.judge.verdict(claim)
        label, why = Label.RIGHT, ""
        if verdict is not YES:
            label, why = Label.WRONG, f"is {verdict.name}"
        elif any([*self.judge.meant(phrase).values()] != [YES] for phrase in definite):
            label, why = Label.WRONG, "'the' means several things"
        return Finding(label, group.positive, True, group.type, why)

    def _false(self, caption: str, type_: str, positive: str) -> Finding:
        verdict = self.judge.verdict(parse(caption).claim)
        label = Label.RIGHT if verdict is NO else Label.WRONG
        why = "" if verdict is NO else f"is {verdict.name}"
        return Finding(label, caption, False, type_, why, positive)
