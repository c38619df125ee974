"""What the LLM labels cost, from which price of a human label on they pay, and what a point of the metric costs."""

from __future__ import annotations

import math
from collections.abc import Iterator

from consenso.compare.accounts import Account, Row, finite, plain_row
from consenso.compare.costs import Spent, money
from consenso.compare.gains import Gain
from consenso.compare.metrics import METRIC_NAMES


def cost_rows(cost: Spent, currency: str) -> Iterator[Row]:
    """Yield tokens and money; an unknown cost is null, and the sentence says whose."""
    texts = f"{cost.texts:,.0f} training and dev texts"
    for name, tokens in (("in", cost.tokens_in), ("out", cost.tokens_out)):
        if tokens is not None:
            yield plain_row(
                f"llm_tokens_{name}", tokens, "tokens", f"Labelling {texts} took {tokens:,.0f} tokens {name}."
            )
    if cost.cost is None or cost.per_text is None:
        whose = ", ".join(cost.unknown) or "any annotator"
        yield plain_row("llm_cost", None, currency, f"What labelling {texts} cost is not known: no cost of {whose}.")
        return
    said = f"Labelling {texts} cost {money(cost.cost, currency)}"
    yield plain_row("llm_cost", cost.cost, currency, f"{said}.")
    yield plain_row("llm_cost_per_text", cost.per_text, currency, f"{said}: {money(cost.per_text, currency)} per text.")


def break_even(account: Account, paid: float, currency: str) -> Row:
    """Return the price p of a human label at which paid + used · p = n* · p, so p = paid / (n* − used).

    Its interval is that of n*, turned round; null is no bound. Where n* is beyond the curve the price is at most
    `high`; where the arm uses as many human labels as it is worth, no price pays and the value is null.
    """
    star, low, high = account.star
    value = None if account.is_below or account.is_beyond else finite(_price(paid, star - account.used))
    cheapest = finite(_price(paid, max(high, account.least) - account.used))
    dearest = finite(_price(paid, min(low, account.most) - account.used))
    if value is not None:
        ends = (
            f"{money(cheapest or 0.0, currency)} to {'no upper bound' if dearest is None else money(dearest, currency)}"
        )
        said = f"pays where a human label costs more than {money(value, currency)} (95 % interval {ends})"
    elif account.is_beyond and account.most > account.used:
        at_most = money(_price(paid, account.most - account.used), currency)
        said = f"pays where a human label costs more than {at_most}, and perhaps below: n* is beyond the curve"
    elif account.is_below and account.least > account.used:
        at_least = money(_price(paid, account.least - account.used), currency)
        said = f"pays, if at all, where a human label costs more than {at_least}: n* is below the curve"
    else:
        said = f"is not shown to pay at any price of a human label: it uses {account.used:,} of them itself"
    return plain_row("break_even_price", value, currency, f"{account.arm} {said}.", low=cheapest, high=dearest)


def _price(paid: float, saved: float) -> float:
    """The price at which `saved` human labels cost what was paid; inf where none is saved."""
    return paid / saved if saved > 0 else math.inf


def money_saved(account: Account, paid: float, price: float, currency: str) -> Row:
    """Return what the human labels saved would have cost at this price, less what was paid."""

    def saved(n: float) -> float:
        return (n - account.used) * price - paid

    amount = saved(min(max(account.star[0], account.least), account.most))
    word = "saves" if amount >= 0 else "loses"
    bound = "at least " if account.is_beyond == (amount >= 0) else "at most "
    if not (account.is_below or account.is_beyond):
        bound = ""
    said = f"At {money(price, currency)} per human label, {account.arm} {word} {bound}{money(abs(amount), currency)}."
    return account.row("money_saved", currency, said, saved)


def cost_per_point(name: str, metric: str, paid: float, found: Gain, currency: str, *, arm: str) -> Row:
    """Return the cost of one percentage point over the better floor; null where the arm is not above it."""
    result, called = found.result, METRIC_NAMES.get(metric, metric)
    per = [finite(_price(paid, 100 * value)) for value in (result.difference, result.high, result.low)]
    if per[0] is None:
        said = f"The labels of {arm} bring no point of {called} over the floor."
    else:
        said = f"One point of {called} over the floor costs {money(per[0], currency)} with the labels of {arm}: "
        said += f"{money(paid, currency)} for {100 * result.difference:.1f} points."
    return plain_row(name, per[0], f"{currency} per pp", said, low=per[1], high=per[2])
