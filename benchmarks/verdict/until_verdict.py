"""How often adding seeds until a verdict is wrong: both rules, without a difference and with one as large as the margin.

    python benchmarks/verdict/until_verdict.py [--studies 3000]

D is drawn from normal components (variance .05 over texts, .26 from seed to seed on one text, standard deviation .05 of
the difference over seeds), n = 300, margin 8 pp, 5 to 15 seeds: a margin that these seeds can show, so that neither
rule stops at once for want of texts. Targets: BETTER or WORSE in at most .06 at 0, EQUIVALENT in at most .06 at the
margin. About four minutes.
"""

from __future__ import annotations

import argparse
import math

N, MOST, MARGIN, SD_SEED, ITEM, ERROR = 300, 15, 0.08, 0.05, 0.05, 0.26


def rates(rule: str, difference: float, studies: int) -> tuple[float, float, float]:
    """Return the shares of BETTER or WORSE and of EQUIVALENT, and the mean number of seeds."""
    import numpy as np

    from consenso.compare import UntilVerdict, level_of, next_seeds, two_way

    settings = UntilVerdict.read({"rule": rule, "most": MOST})
    rng = np.random.default_rng([1, round(100 * difference)])
    differs, equivalent, seeds = 0, 0, []
    for _ in range(studies):
        D = rng.normal(difference, SD_SEED, (MOST, 1)) + rng.normal(0, math.sqrt(ITEM), (1, N))
        D = D + math.sqrt(ERROR) * rng.standard_normal((MOST, N), dtype="float32")
        S, planned = settings.pilot, None
        while True:
            found = two_way(D[:S], level_of(settings))
            decision = next_seeds(found, settings, margin=MARGIN, planned=planned)
            if decision.action == "stop":
                break
            S = planned = decision.seeds
        beyond = found.low > 0 or found.high < 0
        differs += beyond
        equivalent += found.low90 > -MARGIN and found.high90 < MARGIN and not beyond
        seeds.append(S)
    return differs / studies, equivalent / studies, float(np.mean(seeds))


def main() -> None:
    """Print one line per rule and true difference."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=3000)
    studies = parser.parse_args().studies
    print("rule,difference,better_or_worse,equivalent,mean_seeds,studies")
    for rule in ("reestimate", "looks"):
        for difference in (0.0, MARGIN):
            said = ",".join(f"{value:.4f}" for value in rates(rule, difference, studies))
            print(f"{rule},{difference},{said},{studies}", flush=True)


if __name__ == "__main__":
    main()
