"""Figures as people read them: few digits, a unit, and words for what is no number."""

import math

MISSING = "not recorded"


def number(value: object) -> float | None:
    """A number of a JSON file, where NaN and infinities may be texts; None where there is none."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


def positive(value: object) -> float | None:
    """A finite number above 0 of a JSON file; None where there is none."""
    found = number(value)
    return found if found is not None and math.isfinite(found) and found > 0 else None


def significant(value: float | None, digits: int = 3) -> str:
    """A number with few significant digits.

    >>> significant(1234.5), significant(0.04449), significant(float("nan")), significant(None)
    ('1,230', '0.0445', 'undefined', 'not recorded')
    """
    if value is None:
        return MISSING
    if math.isnan(value):
        return "undefined"
    if math.isinf(value):
        return "infinite" if value > 0 else "minus infinite"
    rounded = float(f"{value:.{digits}g}")
    return f"{rounded:,.12g}" if rounded else "0"


def told_apart(value: float | None, threshold: float | None) -> str:
    """A value with as many digits as show on which side of a threshold it lies, four at least."""
    for digits in range(4, 12):
        told = significant(value, digits)
        if value is None or threshold is None or value == threshold or told != significant(threshold, digits):
            break
    return told


def percent(share: float | None) -> str:
    """A share in percent, with one digit after the point; what is not all is never rounded to all, nor to nothing.

    >>> percent(0.9732), percent(0.99999), percent(1.0), percent(0.00001)
    ('97.3 %', '> 99.9 %', '100 %', '< 0.1 %')
    """
    if share is None or not math.isfinite(share):
        return significant(share)
    if share in (0.0, 1.0):
        return f"{share:.0%}".replace("%", " %")
    if 0.9995 <= share < 1.0:
        return "> 99.9 %"
    if 0.0 < share < 0.0005:
        return "< 0.1 %"
    return f"{100 * share:.1f} %"


def usd(value: float | None) -> str:
    """US dollars: whole from 100 up, cents below, three significant digits under a dollar.

    >>> usd(8300.0), usd(27.5), usd(0.4), usd(0.9999), usd(0.0000141)
    ('$8,300', '$27.50', '$0.40', '$1.00', '$0.0000141')
    """
    if value is None or not math.isfinite(value):
        return significant(value)
    if 0 < abs(value) < 1:
        places = 2 - math.floor(math.log10(abs(value)))
        whole, _, cents = f"{value:.{places}f}".partition(".")
        return f"${whole}.{cents.rstrip('0').ljust(2, '0')}"
    return f"${value:,.2f}" if abs(value) < 100 else f"${value:,.0f}"


def duration(seconds: float | None) -> str:
    """A time for people.

    >>> duration(83.4), duration(4000.0)
    ('83 s', '1 h 7 min')
    """
    if seconds is None or not math.isfinite(seconds):
        return significant(seconds)
    if seconds < 120:
        return f"{significant(seconds, 2)} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def count(value: object) -> str:
    """A whole number with its thousands apart."""
    found = number(value)
    return f"{found:,.0f}" if found is not None and math.isfinite(found) else significant(found)


def amount(how_many: int, noun: str) -> str:
    """A number with its noun: `1 gate`, `2 gates`."""
    return f"{how_many} {noun}" if how_many == 1 else f"{how_many} {noun}s"
