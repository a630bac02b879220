"""What the drawn world has to teach: the pairs of a skill, and old ones to mix in against forgetting."""

from __future__ import annotations

from collections.abc import Sequence

from ..basics.checks import check_name
from ..data.pairs import Pair
from ..data.tokens import TokenPairs, token_pairs
from ..editor import Editor
from ..metrics.truth import picture_size
from ..world import CATEGORIES, SKILLS, EditSample, sample_edit, sample_skill


def skill_pairs(editor: Editor, skill: str, count: int | None = None) -> TokenPairs:
    """Tokens of the training pairs of one of the SKILLS, as many as it ships with or `count`. Raises SettingError."""
    check_name(skill, "skill", SKILLS)
    numbers = range(SKILLS[skill].count if count is None else count)
    samples = [sample_skill(i, skill, size=picture_size(editor)) for i in numbers]
    return token_pairs(editor, pairs_of(samples), progress=False)


def old_pairs(editor: Editor, count: int) -> TokenPairs:
    """Tokens of `count` edits of the training split, the categories in turn."""
    size = picture_size(editor)
    samples = [sample_edit(i, category=CATEGORIES[i % len(CATEGORIES)], size=size) for i in range(count)]
    return token_pairs(editor, pairs_of(samples), progress=False)


def pairs_of(samples: Sequence[EditSample]) -> list[Pair]:
    """Drawn edits as pairs, with their masks."""
    return [Pair(each.source, each.target, each.instruction, each.category, each.mask) for each in samples]
