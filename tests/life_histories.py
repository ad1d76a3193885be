"""Life histories of one code after the other, written as their definitions in plain Python: a slow twin."""

import math


def lives_of_code(records, code, verdict, first):
    """The lives of one code as (life, began, start, end, ended, count), the definitions read aloud.

    ``records`` are (step, window, hits, resets), lists by code; ``verdict`` is in tokens.
    """
    tokens = [0]
    for _, _, hits, _ in records:
        tokens.append(tokens[-1] + sum(hits))
    lives, open_life, number, doubt = [], None, 0, False

    def close(ended):
        lives.append((open_life["life"], open_life["began"], open_life["start"], open_life["end"], ended, 1))

    for t, (step, window, hits, resets) in enumerate(records):
        doubt = doubt or math.isnan(resets[code])
        if hits[code]:
            if open_life and tokens[t] - open_life["seen"] >= verdict:  # whole windows before this one
                close("silence")
                open_life = None
            if open_life is None:
                number += 1
                start, began = step - window, "unknown" if doubt else "revived"
                if number == 1:
                    if first > 0 and tokens[t] < verdict:
                        start, began = first, "before"
                    elif first > 0:
                        began = "unknown"
                    elif t == 0 or not doubt:
                        began = "born"
                open_life = {"life": number, "began": began, "start": start}
            open_life |= {"end": step, "seen": tokens[t + 1]}
            doubt = math.isnan(resets[code])
        resets_now = 0 if math.isnan(resets[code]) else int(resets[code])
        if resets_now:
            if open_life:
                close("silence" if tokens[t + 1] - open_life["seen"] >= verdict else "reset")
            if resets_now > 1:
                lives.append((number + 1, "reset", step, step, "reset", resets_now - 1))
            number += resets_now
            open_life = {"life": number, "began": "reset", "start": step, "end": step, "seen": tokens[t + 1]}
            doubt = False
    if open_life:
        close("silence" if tokens[-1] - open_life["seen"] >= verdict else "censored")
    return lives


def histories(steps, window, hits, resets, tokens_per_code):
    """All lives as rows (code, life, began, start, end, ended, count), and the horizon."""
    records = list(zip(steps, window, hits, resets, strict=True))
    verdict, first = tokens_per_code * len(hits[0]), steps[0] - window[0]
    rows = [(code, *life) for code in range(len(hits[0])) for life in lives_of_code(records, code, verdict, first)]
    horizon = None
    for t, step in enumerate(steps):
        if sum(map(sum, hits[t + 1 :])) >= verdict:
            horizon = step
    return rows, horizon


def durations(rows, horizon, kinds):
    """(age, ended) of the lives that began in one of ``kinds`` ways, as far as the horizon; sorted."""
    followed = []
    for _, _, began, start, end, ended, count in rows:
        seen_by = start if began == "reset" else start + 1  # of a life that began with a hit, its record is later
        if horizon is None or began not in kinds or seen_by > horizon:
            continue
        over = ended != "censored" and end <= horizon
        followed += [((end if over else horizon) - start, over)] * count
    return sorted(followed)


def in_use(rows, horizon, kind, after):
    """Of each life of a kind that began so long before the horizon: does the code live then, as the same individual?"""
    found = []
    for i, (code, _, began, start, _, _, times) in enumerate(rows):
        seen_by = start if began == "reset" else start + 1
        if horizon is None or began != kind or max(seen_by, start + after) > horizon:
            continue
        lives = False
        for j, (other, _, how, since, until, _, _) in enumerate(rows[i:]):
            if other != code or (j and how == "reset"):
                break
            lives |= since <= start + after < until
        reset_by_then = [
            row for row in rows[i + 1 :] if row[0] == code and row[2] == "reset" and row[3] <= start + after
        ]
        found += [lives and not reset_by_then] * times
    return sorted(found)


def kaplan_meier(followed):
    """[(age, share, Greenwood's sum)] by the product formula, at every age at which a life ended or was censored."""
    share, greenwood, curve = 1.0, 0.0, []
    for age in sorted({age for age, _ in followed}):
        at_risk = sum(other >= age for other, _ in followed)
        deaths = sum(other == age and ended for other, ended in followed)
        share *= 1 - deaths / at_risk
        greenwood += deaths / (at_risk * (at_risk - deaths)) if at_risk > deaths else math.inf
        curve.append((age, share, greenwood))
    return curve


def nelson_aalen(followed, low, high):
    """The rise of the cumulative hazard over the ages in (low, high], and from 0 on where ``low`` is 0."""
    rise = 0.0
    for age in {age for age, ended in followed if ended and (low < age <= high or age == low == 0)}:
        deaths = sum(other == age and ended for other, ended in followed)
        rise += deaths / sum(other >= age for other, _ in followed)
    return rise
