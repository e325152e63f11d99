"""The names of an evaluation's figures as a reader wants them: what is measured, and by which protocol."""

from __future__ import annotations

from neuronwise.answers.protocols.table import PROTOCOLS as PUBLISHED

PROTOCOLS = {
    "forced": "teacher-forced",
    "free": "free generation",
    "success": "p(new) > p(true)",
    "magnitude": "p(new) − p(true)",
}
LABELS = {
    "success": "Edit success",
    "success_text": "Edit success, text alone",
    "success_image": "Edit success, photo alone",
    "generality": "Generality (paraphrases)",
    "portability": "Portability, mean of kinds",
    "portability_first": "Portability, the first answer alone",
    "locality": "Locality, mean of kinds",
    "overediting": "Over-editing (same subject answers the new target)",
    "unchanging": "Unchanging (same subject answers as before)",
    "others_unchanged": "Other facts unchanged",
    "efficacy": "CounterFact efficacy",
    "paraphrase": "CounterFact paraphrase",
    "neighborhood": "CounterFact neighborhood",
    "fluency": "Fluency (n-gram entropy, bits)",
    "fluency_released": "Fluency as released (n-gram entropy, bits)",
    "perplexity": "Perplexity",
    "perplexity_text": "Perplexity",
}
TEXTS = {"fluency": "100 tokens, greedy", "fluency_released": "100 tokens with the prompt, drawn from the top 5",
         "perplexity": "a neutral text of 75 words", "perplexity_text": "the given text"}  # fmt: skip
TASK = "task_"
ORDER = (
    "success", "success_text", "success_image", "generality", "portability", "portability_first", "portability_",
    "locality", "locality_", "overediting", "unchanging", "others_unchanged", "efficacy", "paraphrase", "neighborhood",
    "fluency", "fluency_released", "perplexity", "perplexity_text", "task_",
)  # fmt: skip


def described(name: str) -> tuple[str, str]:
    """What a figure measures, and its protocol: "generality_free" → ("Generality (paraphrases)", "free generation")."""
    if name.startswith(TASK):
        return name.removeprefix(TASK), "lm-evaluation-harness"
    what, protocol = _parts(name)
    if name in LABELS or protocol is None:
        return LABELS.get(name, name), TEXTS.get(name, "")
    how = PROTOCOLS[protocol] if protocol in PROTOCOLS else PUBLISHED[protocol].says
    if what == "neighborhood":
        how = how.replace("p(new) > p(true)", "p(true) > p(new)").replace("p(new) − p(true)", "p(true) − p(new)")
    if what in ("efficacy", "paraphrase", "neighborhood"):
        return f"{LABELS[what]} {protocol}", how
    if what not in LABELS:
        group, _, kind = what.partition("_")
        kind, alone = kind.removesuffix("_first"), ", the first answer alone" if kind.endswith("_first") else ""
        return f"{group.capitalize()}: {kind.replace('_', ' ')}{alone}", how
    return LABELS[what], how


def _parts(name: str) -> tuple[str, str | None]:
    """What a figure measures, and the protocol that its name ends in, if any."""
    if name.startswith(TASK):
        return name, None
    protocol = next((one for one in (*PROTOCOLS, *PUBLISHED) if name.endswith(f"_{one}")), None)
    return (name, None) if protocol is None else (name.removesuffix(f"_{protocol}"), protocol)


def ordered(names: list[str]) -> list[str]:
    """Figures in the order of a report: what the edit was for first."""

    def place(name: str) -> tuple[int, str]:
        what, _ = _parts(name)
        if what not in ORDER:
            what = f"{what.partition('_')[0]}_"
        return ORDER.index(what) if what in ORDER else len(ORDER), name

    return sorted(names, key=place)
