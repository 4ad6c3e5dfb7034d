"""TRL on the common work, in an environment of its own: `python theirs.py WORK FOLDER [--threads N]`.

Defaults that would make the work another are switched off: bf16, gradient checkpointing, shuffling, logging to disk.
"""

import argparse
import json
import sys
from pathlib import Path

import torch
from gate import Gate
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer, TrainerCallback
from workload import given

LR, STILL, ROWS, LONGEST = 1e-4, 1e-9, 16, 128
gate = Gate()


class Gated(TrainerCallback):
    """One optimiser step, or `steps` of them, for each `go`."""

    def __init__(self, units: float, steps: int) -> None:
        self.units, self.steps, self.count = units, steps, 0

    def on_step_begin(self, args, state, control, **_):
        if self.count % self.steps == 0:
            gate.wait()

    def on_step_end(self, args, state, control, **_):
        self.count += 1
        control.should_log = True

    def on_log(self, args, state, control, logs=None, **_):
        if logs and "loss" in logs:
            gate.losses.append(logs["loss"])
            if self.count % self.steps == 0:
                gate.done(self.units * self.steps)


def common(folder: Path, **more) -> dict:
    return dict(
        output_dir=str(folder / "out"),
        per_device_train_batch_size=ROWS,
        learning_rate=LR,
        adam_beta1=0.9,
        adam_beta2=0.95,
        adam_epsilon=1e-5,
        weight_decay=0.0,
        max_grad_norm=1.0,
        lr_scheduler_type="constant",
        bf16=False,
        gradient_checkpointing=False,
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        max_steps=100_000,
        use_cpu=True,
        **more,
    )


def in_order(trainer):
    """The same rows in the same order as the other side."""
    trainer._get_train_sampler = lambda *_: torch.utils.data.SequentialSampler(trainer.train_dataset)
    return trainer


def text(tokenizer, ids) -> str:
    return " ".join(tokenizer.convert_ids_to_tokens(ids))


def sft(folder, rows, tokenizer):
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    data = Dataset.from_list(
        [
            {
                "input_ids": r["prompt"] + r["responses"][0],
                "completion_mask": [0] * len(r["prompt"]) + [1] * len(r["responses"][0]),
            }
            for r in rows
        ]
    )
    model = AutoModelForCausalLM.from_pretrained(folder / "policy", dtype=torch.float32)
    gate.watch(model)
    config = SFTConfig(**common(folder), max_length=None, completion_only_loss=True, packing=False)
    trainer = SFTTrainer(model=model, args=config, train_dataset=data, processing_class=tokenizer)
    real = sum(len(r["prompt"]) + len(r["responses"][0]) for r in rows) / len(rows)
    trainer.add_callback(Gated(ROWS * real, STEPS["sft"]))
    in_order(trainer).train()


def reward(folder, rows, tokenizer):
    from datasets import Dataset
    from trl import RewardConfig, RewardTrainer

    data = Dataset.from_list(
        [{"chosen_ids": r["prompt"] + r["responses"][0], "rejected_ids": r["prompt"] + r["responses"][1]} for r in rows]
    )
    model = AutoModelForSequenceClassification.from_pretrained(folder / "reward", num_labels=1, dtype=torch.float32)
    gate.watch(model)
    config = RewardConfig(**common(folder), max_length=None)
    trainer = RewardTrainer(model=model, args=config, train_dataset=data, processing_class=tokenizer)
    trainer.add_callback(Gated(ROWS, STEPS["reward"]))
    in_order(trainer).train()


def dpo(folder, rows, tokenizer, *, precomputed: bool = False):
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    data = Dataset.from_list(
        [
            {
                "prompt": text(tokenizer, r["prompt"]),
                "chosen": " " + text(tokenizer, r["responses"][0][:-1]),
                "rejected": " " + text(tokenizer, r["responses"][1][:-1]),
            }
            for r in rows
        ]
    )
    model = AutoModelForCausalLM.from_pretrained(folder / "policy", dtype=torch.float32)
    ref = None if precomputed else AutoModelForCausalLM.from_pretrained(folder / "policy", dtype=torch.float32)
    for each in (model, ref):
        if each is not None:
            gate.watch(each)
    config = DPOConfig(**common(folder), max_length=None, beta=0.1, precompute_ref_log_probs=precomputed)
    trainer = DPOTrainer(model=model, ref_model=ref, args=config, train_dataset=data, processing_class=tokenizer)
    trainer.add_callback(Gated(ROWS, STEPS["dpo"]))
    in_order(trainer).train()


def dpo_precomputed(folder, rows, tokenizer):
    dpo(folder, rows, tokenizer, precomputed=True)


def grpo(folder, rows, tokenizer):
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    data = Dataset.from_list([{"prompt": text(tokenizer, r["prompt"])} for r in rows])
    model = AutoModelForCausalLM.from_pretrained(folder / "policy", dtype=torch.float32)
    settings = common(folder) | {"per_device_train_batch_size": 32, "learning_rate": STILL}
    gate.watch(model)
    config = GRPOConfig(
        **settings,
        num_generations=8,
        max_completion_length=LONGEST,
        beta=0.04,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        loss_type="grpo",
        shuffle_dataset=False,
    )

    def length(completions, **_):
        gate.lengths += [len(c.split()) for c in completions]
        return [len(c.split()) / LONGEST for c in completions]

    trainer = GRPOTrainer(model=model, reward_funcs=length, args=config, train_dataset=data, processing_class=tokenizer)
    trainer.add_callback(Gated(32, STEPS["grpo"]))
    trainer.train()


def ppo(folder, rows, tokenizer, **others):
    from datasets import Dataset
    from trl.experimental.ppo import PPOConfig, PPOTrainer

    class Updates(TrainerCallback):
        def on_log(self, args, state, control, logs=None, **_):
            gate.losses += [logs["loss/policy_avg"], logs["objective/kl"]]

        def on_step_end(self, args, state, control, **_):
            gate.done(64)
            gate.wait()

    data = Dataset.from_list([{"input_ids": r["prompt"]} for r in rows])
    tokenizer.padding_side = "left"
    load = dict(dtype=torch.float32)
    policy, ref = (AutoModelForCausalLM.from_pretrained(folder / "policy", **load) for _ in "ab")
    value, judge = (
        AutoModelForSequenceClassification.from_pretrained(folder / "reward", num_labels=1, **load) for _ in "ab"
    )
    settings = common(folder) | dict(
        max_steps=-1,
        learning_rate=STILL,
        per_device_train_batch_size=16,
        gradient_accumulation_steps=4,
        num_mini_batches=4,
        num_ppo_epochs=4,
        total_episodes=64 * 1000,
        response_length=LONGEST,
        stop_token="eos",
        temperature=1.0,
        local_rollout_forward_batch_size=64,
        num_sample_generations=0,
        kl_coef=0.05,
    )
    config = PPOConfig(**settings | others)
    trainer = PPOTrainer(
        args=config,
        processing_class=tokenizer,
        model=policy,
        ref_model=ref,
        reward_model=judge,
        value_model=value,
        train_dataset=data,
        eval_dataset=data.select(range(64)),
        callbacks=[Updates()],
    )
    gate.wait()
    trainer.train()


def grpo_given(folder, rows, tokenizer):
    """Nothing is sampled: the responses are given."""
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    data = Dataset.from_list([{"prompt": text(tokenizer, r["prompt"])} for r in rows])
    model = AutoModelForCausalLM.from_pretrained(folder / "policy", dtype=torch.float32)
    settings = common(folder) | {"per_device_train_batch_size": 32}
    config = GRPOConfig(
        **settings, num_generations=8, max_completion_length=LONGEST, beta=0.04, temperature=1.0, top_k=0, top_p=1.0,
        loss_type="grpo", shuffle_dataset=False, use_bias_correction_kl=True,
    )  # fmt: skip

    class Given(GRPOTrainer):
        def _generate_single_turn(self, prompt_ids, *_, **__):
            places = [place_of[tuple(ids)] for ids in prompt_ids]
            assert places == [p for p in places[::8] for _ in range(8)], "eight rows of a prompt stand together"
            return [given(rows, place, k % 8) for k, place in enumerate(places)], None

    class Told(Gated):
        def on_log(self, args, state, control, logs=None, **_):
            if logs and "kl" in logs:
                gate.losses.append(logs["kl"])
                gate.done(32)

    place_of = {tuple(r["prompt"]): i for i, r in enumerate(rows)}
    trainer = Given(
        model=model, reward_funcs=lambda completion_ids, **_: [len(c) / LONGEST for c in completion_ids],
        args=config, train_dataset=data, processing_class=tokenizer,
    )  # fmt: skip
    trainer.add_callback(Told(32, 1))
    trainer.train()


def ppo_given(folder, rows, tokenizer):
    """Nothing is sampled: the responses to 64 prompts are given, and they come again in every update."""
    from trl.experimental.ppo import ppo_trainer

    place_of = {tuple(r["prompt"]): i for i, r in enumerate(rows[:64])}

    def generated(model, queries, _, pad, __):
        answers = [given(rows, place_of[tuple(t for t in row if t != pad)], 0) for row in queries.tolist()]
        longest = max(map(len, answers))
        padded = torch.tensor([[*a, *[pad] * (longest - len(a))] for a in answers])
        both = torch.cat([queries, padded], 1)
        return both, ppo_trainer.forward(model, both, pad).logits[:, queries.shape[1] - 1 : -1]

    ppo_trainer.batch_generation = generated
    ppo(folder, rows[:64], tokenizer, learning_rate=LR, per_device_train_batch_size=64, gradient_accumulation_steps=1,
        num_mini_batches=1, lam=1.0, vf_coef=0.0)  # fmt: skip


def rollouts(folder, rows, tokenizer):
    """transformers' own generate, as TRL calls it: 32 prompts at once, padded on the left."""
    from transformers import GenerationConfig

    model = AutoModelForCausalLM.from_pretrained(folder / "policy", dtype=torch.float32).eval()
    tokenizer.padding_side = "left"
    settings = GenerationConfig(
        max_new_tokens=LONGEST, do_sample=True, top_k=0, top_p=1.0, temperature=1.0,
        eos_token_id=0, pad_token_id=1,
    )  # fmt: skip
    start = 0
    while True:
        gate.wait()
        useful = 0
        for _ in range(STEPS["rollouts"]):
            some = [rows[(start + i) % len(rows)]["prompt"] for i in range(32)]
            start += 32
            batch = tokenizer.pad({"input_ids": some}, return_tensors="pt")
            with torch.no_grad():
                out = model.generate(**batch, generation_config=settings)[:, batch["input_ids"].shape[1] :]
            ends = (out == 0).int()
            lengths = torch.where(ends.any(1), ends.argmax(1) + 1, out.shape[1])
            useful += int(lengths.sum())
        gate.done(useful)


def rollouts_batch(folder, rows, tokenizer):
    """transformers' continuous batching, with at most 32 requests at a time, as many prompts known at once as ours."""
    from transformers import GenerationConfig
    from transformers.generation.configuration_utils import ContinuousBatchingConfig

    model = AutoModelForCausalLM.from_pretrained(folder / "policy", dtype=torch.float32).eval()
    settings = GenerationConfig(
        max_new_tokens=LONGEST, do_sample=True, top_k=0, top_p=1.0, temperature=1.0,
        eos_token_id=0, pad_token_id=1,
    )  # fmt: skip
    batching = ContinuousBatchingConfig(max_batch_tokens=2048, num_blocks=256, max_requests_per_batch=32)
    start = 0
    while True:
        gate.wait()
        some = [rows[(start + i) % len(rows)]["prompt"] for i in range(256)]
        start += 256
        with torch.no_grad():
            out = model.generate_batch(some, generation_config=settings, continuous_batching_config=batching)
        gate.done(sum(len(o.generated_tokens) for o in out.values()))


STEPS = {"sft": 2, "reward": 2, "dpo": 1, "grpo": 1, "ppo": 1, "rollouts": 1}
WORK = {f.__name__: f for f in (sft, reward, dpo, dpo_precomputed, grpo, ppo, rollouts, rollouts_batch)}
WORK |= {f.__name__: f for f in (grpo_given, ppo_given)}

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("work", choices=WORK)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    rows = json.loads((options.folder / "rows.json").read_text())
    WORK[options.work](options.folder, rows, AutoTokenizer.from_pretrained(options.folder / "policy"))
    sys.exit(0)
