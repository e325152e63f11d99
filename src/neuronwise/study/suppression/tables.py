"""Tables of a study of suppression: which method takes a concept away, and what else goes with it."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np

from neuronwise.drawing.tables import Cell, Estimate, Table
from neuronwise.measure.score import suppression_score
from neuronwise.study.kind import Study
from neuronwise.study.rows import Rows, average, by, mean, where
from neuronwise.study.suppression.swaps import swap_tables

ROLES = {"held_out": "held-out photos", "found_on": "photos the neurons were found on"}
RESAMPLES = 2000


def tables(study: Study) -> list[Table]:
    """Suppression, side effects, captions, swaps, thresholds, concepts and what two_stage lets through."""
    interventions = by(study.rows, "intervention").items()
    found = [_main(rows, intervention, role) for intervention, rows in interventions for role in ROLES]
    found += [_side(rows, intervention) for intervention, rows in interventions]
    found += [table for intervention, rows in interventions if (table := _captions(rows, intervention))]
    found += [_hallucinated(rows, intervention) for intervention, rows in interventions]
    found += [*swap_tables(study), _thresholds(study), _concepts(study), _funnel(study)]
    return [table for table in found if table.rows]


def cells(rows: Rows) -> dict[tuple[str, int | None], Rows]:
    """Rows by method and K ("found" is None), as the recipe has them."""
    found = by(rows, "method", "K")
    methods = list(by(rows, "method"))
    order = sorted(found, key=lambda key: (methods.index(key[0]), key[1] is None, key[1] or 0))
    return {key: found[key] for key in order}


def tested(rows: Rows) -> str:
    """The role of the photos that count: held-out ones, or in a study of single photos those themselves."""
    return next((role for role in ROLES if any(row["role"] == role for row in rows)), "held_out")


def score(rows: Rows) -> float | None:
    """The suppression-retention score of some rows' means."""
    both = [mean(rows, column) for column in ("suppressed", "retained")]
    return suppression_score(*(one.mean if one else None for one in both))


def score_interval(rows: Rows, seed: int = 0) -> Estimate | None:
    """``score`` with its 95 % percentile bootstrap interval over photos (of the resamples that define it)."""
    total = score(rows)
    if total is None:
        return None
    pairs = np.array([[row["suppressed"], row["retained"]] for row in rows], dtype=np.float64)
    picks = np.random.default_rng(seed).integers(0, len(pairs), (RESAMPLES, len(pairs)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # the mean of nothing is nan
        gone, kept = np.moveaxis(np.nanmean(pairs[picks], axis=1), 1, 0)
    both = gone + kept
    scores = np.divide(2 * gone * kept, both, out=np.where(np.isnan(both), np.nan, 0.0), where=both > 0)
    low, high = np.nanquantile(scores, [0.025, 0.975])
    return Estimate(total, float(low), float(high), len(rows))


def _main(rows: Rows, intervention: str, role: str) -> Table:
    body = []
    for (method, count), cell in cells(rows).items():
        own = where(cell, role=role)
        if own:
            body.append(
                [
                    method, count_text(count), _neurons(own), mean(own, "suppressed"), mean(own, "retained"),
                    score_interval(own), mean(own, "repeated"),
                ]
            )  # fmt: skip
    return Table(
        f"suppression-{slug(intervention)}-{role}",
        f"Suppression and retention, {ROLES[role]} ({intervention})",
        ("method", "K", "neurons", "suppression", "retention", "score", "repeated pairs"),
        body,
        "Suppression: share of captions that named the concept and no longer do. Retention: share of the other nouns "
        "still named. Score: their harmonic mean. Repeated pairs: share of a caption's word pairs that it had "
        "before, which shows broken speech. Means over photos with 95 % bootstrap intervals; photos count alike, so "
        "concepts with more photos weigh more.",
    )


def _side(rows: Rows, intervention: str) -> Table:
    body = []
    for (method, count), cell in cells(rows).items():
        own = where(cell, role="without")
        if own:
            body.append([method, count_text(count), mean(own, "unchanged"), mean(own, "retained"), mean(own, "named")])
    return Table(
        f"side-effects-{slug(intervention)}",
        f"Photos without the concept ({intervention})",
        ("method", "K", "captions unchanged", "nouns kept", "concept named"),
        body,
        "Nothing should change here.",
    )


def _hallucinated(rows: Rows, intervention: str) -> Table:
    """What becomes of an unsupported noun, and of the same noun where it is true."""
    body: list[list[Cell]] = []
    for (method, count), cell in cells(rows).items():
        wrong, right = where(cell, role="held_out"), where(cell, role="supported")
        if right:
            about = [mean(wrong, column) for column in ("suppressed", "unsupported_before", "unsupported", "repeated")]
            about += [mean([*wrong, *right], "retained"), mean(right, "named"), mean(right, "unchanged")]
            body.append([method, count_text(count), *about])
    return Table(
        f"hallucinated-{slug(intervention)}",
        f"Unsupported nouns ({intervention})",
        ("method", "K", "unsupported noun gone", "unsupported a caption before", "after", "repeated pairs",
         "other nouns kept", "where it is there: still named", "caption unchanged"),
        body,
        "Held-out photos on which neither annotations nor references support the noun, and photos that do have it. "
        "Unsupported: objects of a caption that nothing supports. 95 % bootstrap intervals over photos.",
    )  # fmt: skip


def _captions(rows: Rows, intervention: str) -> Table | None:
    names = dict.fromkeys(
        name for row in rows for name, value in row.items() if value is not None and name.startswith(("to_", "clip"))
    )
    own = [name for name in names if not name.startswith(("to_references_before.", "clipscore_before"))]
    if not own:
        return None
    body, role = [], tested(rows)
    for (method, count), cell in cells(rows).items():
        held = where(cell, role=role)
        if held:
            body.append([method, count_text(count), *(mean(held, name) for name in own), *_chair(held)])
    columns = [name.replace("to_before.", "").replace("to_references.", "refs: ") for name in own]
    return Table(
        f"captions-{slug(intervention)}",
        f"Captions of {ROLES[role]} ({intervention})",
        ("method", "K", *columns, "CHAIR-i before", "CHAIR-i after"),
        body,
        "The caption after against the one before; refs: against the reference captions. CHAIR-i: share of objects "
        "named that neither annotations nor references support.",
    )


def _chair(rows: Rows) -> list[Estimate | None]:
    found: list[Estimate | None] = []
    for end in ("_before", ""):
        mentions = sum(row[f"mentions{end}"] for row in rows)
        share = sum(row[f"unsupported{end}"] for row in rows) / mentions if mentions else None
        found.append(None if share is None else Estimate(share))
    return found


def _concepts(study: Study) -> Table:
    """The best K of each method by score on held-out photos, concept by concept."""
    held = where(study.rows, role="held_out")
    concepts = list(by(held, "concept"))
    best: dict[str, tuple[float, Rows, int | None]] = {}
    for (method, count), cell in cells(held).items():
        total = score(cell)
        if total is not None and (method not in best or total > best[method][0]):
            best[method] = (total, cell, count)
    body = []
    for method, (_, cell, count) in best.items():
        scores = [score(where(cell, concept=concept)) for concept in concepts]
        body.append([method, count_text(count), *(None if one is None else Estimate(one) for one in scores)])
    return Table(
        "concepts",
        "Score of each concept on held-out photos, at each method's best K",
        ("method", "K", *concepts),
        body,
        "K was chosen on these same photos, so the scores flatter methods with many K; concepts have few photos each.",
    )


def _thresholds(study: Study) -> Table:
    """two_stage's automatic thresholds against the best of those set by hand, both as they filter."""
    recipe = [one for one in study.recipe["methods"] if one["method"] == "two_stage"]
    swept = [one["name"] or one["method"] for one in recipe if one.get("sweep")]
    automatic = [
        one["name"] or one["method"]
        for one in recipe
        if not one.get("sweep") and one.get("options", {}).get("stages", "both") == "both"
    ]
    body: list[list[Cell]] = []
    for intervention, rows in by(study.rows, "intervention").items():
        named = by(where(rows, role="held_out", K=None), "method")
        byhand = [name for name in named if label_of(name, swept) != name and score(named[name]) is not None]
        if not byhand:
            continue
        best = max(sorted(byhand), key=lambda name: score(named[name]) or 0.0)
        for name in [*(name for name in automatic if name in named), best]:
            own, top = score(named[name]), score(named[best])
            share = None if own is None or not top else Estimate(own / top)
            body.append([name, intervention, _neurons(named[name]), score_interval(named[name]), share])
    return Table(
        "thresholds",
        "Automatic thresholds against the best set by hand",
        ("two_stage", "intervention", "neurons", "score", "of the best by hand"),
        body,
        "Held-out photos; all neurons that passed both stages and the vote. The best by hand was chosen on these same "
        "photos, so it is flattered.",
    )


def _funnel(study: Study) -> Table:
    body = []
    for key, kept in study.notes.get("found", {}).items():
        funnel = kept.get("funnel")
        if funnel:
            photos = funnel["photos"]
            parts = [sum(photo[name] for photo in photos) / len(photos) for name in ("neurons", "after_difference",
                     "after_both")]  # fmt: skip
            concept, _, method = key.partition("/")
            body.append([concept, method, len(photos), *(Estimate(part, digits=0) for part in parts),
                         funnel["after_vote"]])  # fmt: skip
    return Table(
        "funnel",
        "What two_stage lets through",
        ("concept", "method", "photos", "neurons", "after stage 1", "after both", "after the vote"),
        body,
        "Neurons left after each stage, mean over the photos, and after the vote over them.",
    )


def label_of(method: str, swept: Sequence[str]) -> str:
    """The name that all settings of a sweep share; of others their own."""
    return next((name for name in swept if method.startswith(f"{name} ")), method)


def count_text(count: int | None) -> str:
    """K as tables show it."""
    return "found" if count is None else str(count)


def _neurons(rows: Rows) -> Estimate:
    return average(rows, "neurons", digits=0)


def slug(text: str) -> str:
    """A text as part of a file's name."""
    return "".join(letter if letter.isalnum() else "-" for letter in text.lower())
