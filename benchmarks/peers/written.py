"""The results as a page."""

from pathlib import Path

from table import CASES, MEMORY_TARGET


def write(every: dict, path: Path) -> None:
    """One line for every target, those not measured too; then the details of every measurement."""
    lines = [
        "# Assent and TRL side by side",
        "",
        f"Machine: {every['machine']}; Python {every['python']}. Written by `benchmarks/peers/compare.py`, which",
        "`make bench-peers` runs.",
        "",
        "Ratio = units a second of Assent over those of the other side, fp32, turn by turn on the same core:",
        "median (lowest to highest). By CPU time = by the process's own seconds, which other jobs of a shared",
        "machine disturb least; where the load was above 1 it is the one to read. Below nice 0 both sides ran before",
        "other work. Memory = peak resident memory of the process, libraries included, ours over theirs; of the work =",
        "the same less what stood there before the first turn (libraries, models, data); each side has an environment",
        "of what it requires and no more. Losses of the first 10 steps agree where the algorithm is the same, else no",
        "ratio is given. Limit = least FLOPs over matmul speed (decoding: or weights over memory speed), measured in",
        "the same run, the fastest of torch's own, oneDNN's and ours; 100 % is out of reach.",
        "PPO and GRPO step at a rate of 1e-9 on both sides, so that",
        "the lengths of the responses stay those of the common policy; their mean differs by chance (a column below),",
        "and a rate counts episodes or completions. Ours: micro-batches of up to 8192 slots, the default.",
        "Useful = of the slots that went through the trunk, the share of distinct tokens: a prompt once for all its",
        "responses. Above 100 % where the last token of a response, of which nothing is asked, is not read.",
        "",
        *(line for note in every.get("notes", []) for line in (note, "")),
        "## Targets",
        "",
        "| work | size | target | by CPU time | met | memory (target 0.5) | met | memory of the work |",
        "|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for case in CASES:
        for size, target in case.targets.items():
            lines.append(_target(case.name, size, target, every["rows"]))
    lines += [
        "",
        "## Every measurement",
        "",
        "| work | model | threads | TRL | pairs, load, nice | CPU time | wall | ours /s, theirs /s (CPU) "
        "| MB ours, theirs | share of limit ours, theirs | useful slots ours, theirs | largest loss gap | mean length "
        "| date, code |",
        "|" + "---|" * 14,
    ]
    lines += [_detail(row) for row in sorted(every["rows"], key=lambda r: (r["case"], r["size"], r["family"]))]
    lines += _given(every.get("given", []))
    versions = sorted({", ".join(f"{n} {v}" for n, v in r["versions"].items()) for r in every["rows"]})
    lines += ["", "Versions of the other side: " + "; ".join(versions) + ".", ""]
    path.write_text("\n".join(lines))


def _target(name: str, size: str, target: float, rows: list[dict]) -> str:
    found = [
        r for r in rows if (r["case"], r["size"], r["family"], r["threads"]) == (name, size, "gpt2", 1)
    ]  # fmt: skip
    good = [r for r in found if "ratio_cpu" in r]
    if not good:
        why = found[-1].get("refused", found[-1].get("failed", "")) if found else "not measured"
        return f"| {name} | {size} | >= {target:g} | {why} | - | - | - | - |"
    row = good[-1]
    ratio, memory = row["ratio_cpu"]["median"], row["memory_ratio"]
    return (
        f"| {name} | {size} | >= {target:g} | {_spread(row['ratio_cpu'])} | {_met(ratio >= target)} "
        f"| {memory:.2f} | {_met(memory <= MEMORY_TARGET)} | {_of_the_work(row)} |"
    )


def _given(rows: list[dict]) -> list[str]:
    """What both sides come to where the responses are given."""
    if not rows:
        return []
    return [
        "",
        "## The same algorithm where it samples",
        "",
        "No two runs sample the same responses, so that above the losses of PPO and GRPO cannot agree. Here both",
        "sides learn from given responses at a rate of 1e-4. GRPO: the KL to the reference before each of 10 steps on",
        "10 batches. PPO: surrogate, mean of four steps on 64 responses, and the KL before each of 10 such updates,",
        "with values fixed and lambda 1: the other side has one state more, after the last token, and pays the score",
        "there. Apart = largest difference as a part of the largest value. Its GRPO gives GPT-2 no positions, so that",
        "prompts of unequal length, padded on the left, are read at others than in sampling: there the two cannot",
        "agree; Llama's positions are relative.",
        "",
        "| what | model | steps | apart | TRL | date, code |",
        "|---|---|---|---|---|---|",
        *(
            f"| {r['case']} | {r['size']} {r['family']} | {r['steps']} | {', '.join(f'{p:.1g}' for p in r['parts'])} "
            f"| {r['versions']['trl']} | {r['date']}, {r['code']} |"
            for r in rows
        ),
    ]


def _of_the_work(row: dict) -> str:
    if "before_mb" not in row:
        return "-"
    ours, theirs = (peak - before for peak, before in zip(row["memory_mb"], row["before_mb"], strict=True))
    return f"{ours / theirs:.2f} ({ours:.0f}, {theirs:.0f} MB)"


def _met(is_met: bool) -> str:
    return "yes" if is_met else "no"


def _spread(ratio: dict) -> str:
    return f"{ratio['median']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f})"


def _detail(row: dict) -> str:
    head = f"| {row['case']} | {row['size']} {row['family']} | {row['threads']} | {row['versions']['trl']} "
    if "ratio_cpu" not in row:
        return head + f"| {row.get('refused', row.get('failed'))} |" + " |" * 8 + f" {row['date']}, {row['code']} |"
    ours, theirs = row["ours"], row["theirs"]
    shares = [f"{100 * s['share_of_limit']:.0f} %" if "share_of_limit" in s else "-" for s in (ours, theirs)]
    useful = [f"{100 * s['useful_share']:.0f} %" if "useful_share" in s else "-" for s in (ours, theirs)]
    lengths = [f"{s['length']:.0f}" if "length" in s else "-" for s in (ours, theirs)]
    gap = f"{row['largest_loss_gap']:.1g}" if "largest_loss_gap" in row else "-"
    return head + (
        f"| {row['pairs']}, {row['load']:.1f}, {row.get('nice', 0)} "
        f"| {_spread(row['ratio_cpu'])} | {_spread(row['ratio_wall'])} "
        f"| {ours['rate_cpu']:.4g}, {theirs['rate_cpu']:.4g} | {row['memory_mb'][0]:.0f}, {row['memory_mb'][1]:.0f} "
        f"| {', '.join(shares)} | {', '.join(useful)} | {gap} | {', '.join(lengths)} | {row['date']}, {row['code']} |"
    )
