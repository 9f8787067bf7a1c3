"""Says in sentences what the numbers say."""

from typing import Final

from app.drawings.subjects import NAMES, UNSPECIFIED
from app.drawings.tables import Analysis, Drawing

BANDS: Final = ((0.2, "very low"), (0.5, "low"), (0.7, "moderate"), (2.0, "high"))


def band(confidence: float) -> str:
    """Confidence in words."""
    return next(word for limit, word in BANDS if confidence < limit)


def age_words(group: str) -> str:
    """An age group in words: 5 to 6 years."""
    return f"{group.replace('-', ' to ')} years"


def headline(row: Analysis) -> str:
    """The verdict in a few words."""
    return "Unusual for this age" if row.is_anomaly else "Within what is usual for this age"


def explanation(drawing: Drawing, row: Analysis, places: list[str]) -> str:
    """The verdict in two or three sentences."""
    of_hundred = min(99, max(1, round(row.normalized_score)))
    first = (
        f"This drawing differs from {of_hundred} of 100 drawings of {age_words(row.age_group)}, more than usual."
        if row.is_anomaly
        else f"This drawing is within what is usual for {age_words(row.age_group)} (more different than {of_hundred} of 100)."
    )
    parts = [first]
    if row.method_used.startswith("ink"):
        parts.append("There is hardly anything on the paper, so there is little to compare.")
    elif row.is_anomaly:
        parts.append(reason(drawing, row))
    if places and row.anomaly_attribution in {"visual", "both"} and not row.method_used.startswith("ink"):
        parts.append(f"What adds most lies at the {' and the '.join(dict.fromkeys(places[:2]))}.")
    return " ".join(parts)


def reason(drawing: Drawing, row: Analysis) -> str:
    """Which part it is."""
    subject = NAMES[drawing.subject_index]
    return {
        "visual": "The way it looks differs from the drawings of this age.",
        "subject": f"It looks different from what children draw as “{subject}”.",
        "both": f"Both the way it looks and the subject “{subject}” differ from what is usual.",
        "age": "It looks like a drawing of another age.",
    }[row.anomaly_attribution]


def parts(drawing: Drawing, row: Analysis) -> list[dict[str, object]]:
    """Each part of the score with a sentence."""
    subject = NAMES[drawing.subject_index]
    told = {
        "visual": (row.visual_anomaly_score, row.visual_percentile, "how the picture looks"),
        "subject": (
            row.subject_anomaly_score,
            row.subject_percentile,
            "no subject was given, so this part is silent"
            if drawing.subject_index == UNSPECIFIED
            else f"how well it fits the subject “{subject}”",
        ),
        "age": (row.age_anomaly_score, row.age_percentile, "how far it looks from the child's age, in years"),
    }
    return [
        {
            "part": name,
            "score": round(score, 6),
            "percentile": round(percentile, 2),
            "sentence": f"{sentence[0].upper()}{sentence[1:]}.",
        }
        for name, (score, percentile, sentence) in told.items()
    ]


def sureness(row: Analysis, confidence: float) -> str:
    """Why it is so sure."""
    side = "above" if row.is_anomaly else "below"
    distance = abs(row.anomaly_score - row.threshold) / row.threshold
    if distance < 0.01:
        return f"The score is at the threshold ({distance:.1%} {side}): it could as well have been the other way."
    return f"The score is {distance:.0%} {side} the threshold: the confidence is {band(confidence)}."
