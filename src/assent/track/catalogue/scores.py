"""Metrics of several scorers: each by itself, together, and what they are made of."""

from assent.track.catalogue.declare import Metric, Range, Section

SCORES = Section(
    "Online: several scorers",
    "Each scorer by its own name, watched ones and the members of combinations too. A sum hides its parts: here they "
    "are.",
    (
        Metric(
            "score/<name>", "score", "mean of what one scorer said, before normalisation, clipping and penalties", None,
            "Watch each: a sum can rise while one of its parts falls.",
        ),
        Metric(
            "score_std/<name>", "score", "standard deviation of the same over the batch", None,
            "A scorer whose spread goes to 0 has nothing left to teach; one whose spread is far above the others' "
            "decides alone unless it is normalised.",
        ),
        Metric(
            "score_low/<name>", "score", "its 5th percentile", None,
            "A mean that rises while this falls is bought with a tail of bad responses.",
        ),
        Metric(
            "score_high/<name>", "score", "its 95th percentile", None,
            "Beyond what it was on the data of the reward model, the scorer is read where it was never trained.",
        ),
        Metric(
            "score_correlation/<pair>", "correlation", "of two scorers' raw scores over the batch", None,
            "It falls when one of the two is exploited: between a reward model and a held-out judge that is "
            "over-optimisation, often before their means part.",
        ),
        Metric(
            "score_weighted/<name>", "score", "mean of what a scorer adds to the reward: normalised, clipped, weighted",
            None,
            "Around 0 where it is normalised; the spreads decide who rules the sum.",
        ),
        Metric(
            "normaliser_mean/<name>", "score", "the mean that is subtracted from one scorer", None,
            "It follows the policy's improvement; that is its purpose.",
        ),
        Metric(
            "normaliser_std/<name>", "score", "the deviation that it is divided by", Range(low=1e-3),
            "Near 0 every response has the same score and division blows up noise: check the scorer.",
        ),
        Metric(
            "gate/safety_prompts", "share", "rollouts whose prompt is known to ask for safety", None,
            "It follows the prompts. 0 with safety prompts among them means that their kind is not in `safety_kinds`.",
        ),
        Metric(
            "gate/below_threshold", "share", "rollouts whose probability of being safe is below the threshold", None,
            "It should fall as the policy becomes safer. Stuck at 0 or 1 from the start, the safety model's zero means "
            "nothing: train it with safety labels.",
        ),
        Metric(
            "gate/gated", "share", "rollouts that are scored by the safety model, for either reason", None,
            "The rest is scored by helpfulness.",
        ),
        Metric(
            "disagreement/<name>", "squared score", "mean sample variance among the members of an ensemble", None,
            "It grows as the policy leaves what the members were trained on, which is what worst case and uncertainty "
            "weighting act on. Near 0 from the start the members are copies.",
        ),
    ),
)  # fmt: skip
