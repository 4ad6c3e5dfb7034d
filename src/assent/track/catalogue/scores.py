"""Metrics of several scorers: each by itself, together, and what they are made of."""

from assent.track.catalogue.declare import Metric, Range, Section

SCORES = Section(
    "Online: several scorers",
    "Each scorer by its own name, watched ones and the members of combinations too; a selection logs them as well. A "
    "sum hides its parts: here they are.",
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

CONSTRAINT = Section(
    "Online: a constraint on cost",
    "PPO-Lagrangian. Watch `cost/window` against the threshold, and the multiplier that answers it.",
    (
        Metric(
            "cost/episode", "cost", "mean over responses of the cost, clipped and weighted, without KL", None,
            "It should fall to the threshold and stay about there.",
        ),
        Metric(
            "cost/window", "cost", "mean cost of the last episodes, which moves the multiplier", None,
            "Above the threshold the multiplier grows, below it shrinks. For long above it at the multiplier's cap: "
            "the constraint cannot be met within the leash; raise the cap or lower the KL coefficient.",
            "cost",
        ),
        Metric(
            "cost/above_zero", "share", "responses whose cost is above 0: unsafe, of a cost model's zero", None,
            "The harmful rate as the cost model sees it; compare it with a judge that it was not trained on.",
        ),
        Metric(
            "cost/multiplier", "reward per cost", "lambda in force for this batch", None,
            "It should settle. Swinging widely: lower its lr or widen its window. At its cap: see `cost/window`.",
            "lambda",
        ),
        Metric(
            "cost_advantage/mean", "cost", "mean advantage of the cost, with KL", None,
            "Around 0 once the cost critic is good.",
        ),
        Metric(
            "cost_advantage/std", "cost", "its standard deviation", None,
            "Compare it with `advantage/std` times 1 / lambda: it says which side moves the policy.",
        ),
        Metric(
            "cost_value/explained_variance", "share", "of the cost returns by the second critic, before the update",
            Range(low=0.0), "As `value/explained_variance`.",
        ),
        Metric("loss/cost_value_avg", "squared cost", "value loss of the second critic", None, "As `loss/value_avg`."),
    ),
)  # fmt: skip
