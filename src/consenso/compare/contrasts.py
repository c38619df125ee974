"""Which arms are set against each other, and what each contrast means."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from consenso.errors import ConfigError, nearest

FLOORS = ("floor", "floor-prior")
"""Arms that learn nothing: exempt from collapse and from pairing by seed."""


@dataclass(frozen=True)
class Contrast:
    """One difference: metric of `arm` minus metric of `control`."""

    arm: str
    """The arm whose labels are on trial."""
    control: str
    """The arm it is compared with."""
    effect: str = ""
    """What the difference is called."""
    phrase: str = ""
    """What was done instead of what, for the sentence."""

    @property
    def name(self) -> str:
        """How the contrast is called in tables."""
        return f"{self.arm} − {self.control}"

    @property
    def arms(self) -> tuple[str, str]:
        """Arm and control."""
        return self.arm, self.control

    @property
    def does(self) -> str:
        """What was done instead of what."""
        return self.phrase or f"trained on {self.arm} instead of {self.control}"


CONTRASTS = (
    Contrast("consensus", "gold-aligned", "label effect", "trained on consensus labels instead of human ones"),
    Contrast(
        "gold-aligned", "gold", "coverage effect",
        "trained on the human labels of only those texts that have a consensus label instead of all human labels",
    ),
    Contrast("consensus", "gold", "total effect", "trained on consensus labels instead of all human labels"),
    Contrast(
        "consensus-kept", "consensus-random", "filtering effect",
        "trained without the problematic texts instead of without as many random ones",
    ),
    Contrast(
        "consensus-kept", "gold-kept", "label effect on easy texts",
        "trained on consensus labels instead of human ones, problematic texts left out of both",
    ),
    Contrast(
        "consensus-kept", "gold-aligned", "label and filtering effect",
        "trained on consensus labels without the problematic texts instead of human labels with them",
    ),
    Contrast("consensus-soft", "consensus", "soft-label effect", "trained on the shares of votes instead of one label"),
    Contrast(
        "perspectivist", "consensus-repeated", "perspectivist effect",
        "trained on every annotator's label instead of the consensus label as many times",
    ),
    Contrast(
        "consensus-selected", "consensus-selected-random", "selection effect",
        "trained on selected texts instead of as many random ones",
    ),
    Contrast(
        "gold-noised", "consensus", "cost of the error's structure",
        "trained on human labels with as many random errors instead of consensus labels",
    ),
    Contrast("gold", "floor", "sanity", "trained on human labels instead of always giving the commonest one"),
)  # fmt: skip
"""The primary contrast first, then the decompositions; a comparison reports those whose arms were trained."""


STANDARD_ARMS = frozenset({name for contrast in CONTRASTS for name in contrast.arms} | {*FLOORS, "permuted"})
"""Arms whose names are known: one that a student did not train is left out; any other name must be there."""


NUMBERED = ("gold@", "consensus+", "single:", "panel:")
"""How the names of standard arms with a number or an annotator in them begin."""


def contrasts_of(arms: Collection[str]) -> list[Contrast]:
    """Return `CONTRASTS` and those that arms with a number or an annotator in their names stand in, both arms or not."""
    found = [*CONTRASTS]
    for arm in sorted(arms):
        head, _, rest = arm.partition(":")
        if head == "single":
            phrase = f"trained on the panel's consensus labels instead of those of {rest} alone"
            found.append(Contrast("consensus", arm, "panel effect", phrase))
        elif head.startswith("consensus+") and not rest:
            count = f"{head.removeprefix('consensus+')} human corrections"
            found += [
                Contrast(arm, "consensus", "review effect", f"trained on consensus labels with {count} instead of none"),
                Contrast(arm, f"{arm}:random", "review order effect",
                         f"trained with {count} of the most doubtful texts instead of random ones"),
            ]  # fmt: skip
    return [contrast for contrast in found if contrast.effect != "sanity"] + [
        contrast for contrast in found if contrast.effect == "sanity"
    ]


def _is_standard(arm: str) -> bool:
    return arm in STANDARD_ARMS or arm.startswith(NUMBERED)


def read_contrast(given: Contrast | tuple[str, str] | str) -> Contrast:
    """Return the contrast that `("consensus", "gold")` or `"consensus − gold"` names, with its meaning if known.

    Raises `ConfigError` where it does not name two different arms.
    """
    if isinstance(given, Contrast):
        return _between_two(given)
    parts = given.replace(" - ", " − ").split(" − ") if isinstance(given, str) else list(given)
    if len(parts) != 2 or not all(part.strip() for part in parts):
        raise ConfigError(f"a contrast names two arms, like ('consensus', 'gold-aligned'); found {given!r}")
    arm, control = (part.strip() for part in parts)
    known = [contrast for contrast in contrasts_of((arm, control)) if contrast.arms == (arm, control)]
    return known[0] if known else _between_two(Contrast(arm, control))


def _between_two(contrast: Contrast) -> Contrast:
    if contrast.arm == contrast.control:
        raise ConfigError(f"a contrast sets one arm against another; found {contrast.arm!r} on both sides")
    return contrast


def choose_contrasts(
    arms: Collection[str],
    contrasts: Sequence[Contrast | tuple[str, str] | str] | None = None,
    primary: Contrast | tuple[str, str] | str | None = None,
    elsewhere: Collection[str] = (),
) -> tuple[list[Contrast], Contrast | None]:
    """Return the contrasts to report, the primary one first, and the primary one (None where its arms are not there).

    `arms`: those of one student; `elsewhere`: those of all students. By default all of `contrasts_of` whose arms exist.
    Without `primary` the first contrast asked for is primary. A contrast whose arms this student lacks is left out (a
    primary one: then there is no headline), so the list may be empty. Raises `ConfigError` for an arm that no student
    has and that is no standard name, and where no arm has a standard name and no contrast is asked for.
    """
    first, wanted = _wanted(contrasts, primary)
    known = {*arms, *elsewhere}
    for contrast in wanted:
        for name in contrast.arms:
            if name not in known and not _is_standard(name):
                hint = nearest(name, sorted(known))
                raise ConfigError(
                    f"contrast {contrast.name}: no predictions of arm {name!r}; found {sorted(known)}.{hint}"
                )
    if not contrasts and first in CONTRASTS and not any(map(_is_standard, known)):
        raise ConfigError(
            f"no contrast to compute among the arms {sorted(known)}; name one: contrasts=[('arm', 'control')], or --contrast ARM,CONTROL"
        )
    chosen = [
        contrast
        for contrast in (wanted if contrasts else [*contrasts_of(arms), first])
        if set(contrast.arms) <= set(arms)
    ]
    chosen = sorted(dict.fromkeys(chosen), key=lambda contrast: contrast != first)
    return chosen, first if first in chosen else None


def left_out(
    arms: Collection[str],
    contrasts: Sequence[Contrast | tuple[str, str] | str] | None = None,
    primary: Contrast | tuple[str, str] | str | None = None,
) -> list[Contrast]:
    """Return the contrasts that were asked for by name and whose arms are not all there."""
    return [contrast for contrast in _wanted(contrasts, primary)[1] if not set(contrast.arms) <= set(arms)]


def _wanted(
    contrasts: Sequence[Contrast | tuple[str, str] | str] | None, primary: Contrast | tuple[str, str] | str | None
) -> tuple[Contrast, list[Contrast]]:
    """The primary contrast, and all that were asked for by name."""
    asked = [read_contrast(given) for given in contrasts or ()]
    if primary is not None:
        first = read_contrast(primary)
        return first, list(dict.fromkeys([*asked, first]))
    return (asked[0] if asked else CONTRASTS[0]), asked
