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
    Contrast("gold", "floor", "sanity", "trained on human labels instead of always giving the commonest one"),
)  # fmt: skip
"""The primary contrast first, then the decompositions; a comparison reports those whose arms were trained."""


def read_contrast(given: Contrast | tuple[str, str] | str) -> Contrast:
    """Return the contrast that `("consensus", "gold")` or `"consensus − gold"` names, with its meaning if known."""
    if isinstance(given, Contrast):
        return given
    parts = given.replace(" - ", " − ").split(" − ") if isinstance(given, str) else list(given)
    if len(parts) != 2 or not all(part.strip() for part in parts):
        raise ConfigError(f"a contrast names two arms, like ('consensus', 'gold-aligned'); found {given!r}")
    arm, control = (part.strip() for part in parts)
    known = [contrast for contrast in CONTRASTS if (contrast.arm, contrast.control) == (arm, control)]
    return known[0] if known else Contrast(arm, control)


def choose_contrasts(
    arms: Collection[str],
    contrasts: Sequence[Contrast | tuple[str, str] | str] | None = None,
    primary: Contrast | tuple[str, str] | str | None = None,
) -> tuple[list[Contrast], Contrast | None]:
    """Return the contrasts to report, the primary one first, and the primary one (None where its arms are not there).

    By default all of `CONTRASTS` whose arms exist. Contrasts asked for by name must have their arms, else
    `ConfigError`; without `primary` the first of them is primary. A primary contrast of standard arms that were not
    trained is left out: then there is no headline.
    """
    asked = [read_contrast(given) for given in contrasts or ()]
    chosen = asked or [contrast for contrast in CONTRASTS if set(contrast.arms) <= set(arms)]
    first = read_contrast(primary) if primary is not None else (asked[0] if asked else CONTRASTS[0])
    wanted = [*asked, first] if primary is not None else asked
    standard = {name for contrast in CONTRASTS for name in contrast.arms}
    for contrast in wanted:
        for name in contrast.arms:
            if name not in arms and not (contrast == first and first not in asked and name in standard):
                hint = nearest(name, sorted(arms))
                raise ConfigError(
                    f"contrast {contrast.name}: no predictions of arm {name!r}; found {sorted(arms)}.{hint}"
                )
    if first not in chosen and set(first.arms) <= set(arms):
        chosen = [first, *chosen]
    if not chosen:
        raise ConfigError(
            f"no contrast to compute among the arms {sorted(arms)}; name one: contrasts=[('arm', 'control')]"
        )
    chosen = sorted(chosen, key=lambda contrast: contrast != first)
    return chosen, first if first in chosen else None
