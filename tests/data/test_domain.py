"""The embedded domain: splits that never meet, a gold judgement that cannot be flattered, text that tokenizes well."""

import dataclasses
import itertools
import subprocess
import sys
from collections import Counter

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from assent.data.domain import KINDS, demonstrations, documents, ideal, judge, tasks
from assent.data.domain import words as w
from assent.data.domain.cases import draw_core, read_prompt, split_of
from assent.data.domain.claims import hear, right_claim, say
from assent.errors import DataError
from assent.records import Message, Task

PARTS = ("content", "courtesy", "rudeness", "filler", "unreadable", "repetition", "length", "ending")
HELD = tasks(1200, seed=11, split="held_out")


def gold(task: Task, response: str, ended: bool = True) -> float:
    return judge(task.prompt, response, ended=ended).gold


def content(task: Task) -> str:
    return say(right_claim(read_prompt(task.prompt)))


def first_of(kind: str, n: int = 40) -> list[Task]:
    return [t for t in HELD if t.kind == kind][:n]


def cores(text: str) -> set[str]:
    lines = text.split("\n")
    sourced = {line.split(": ", 1)[1] for line in lines if line.startswith(("Review: ", "Message: "))}
    return sourced or {line.split(": ", 1)[1] for line in lines if line.startswith("Question: ")}


# The best answer, and everything that falls short of it


def test_the_ideal_answer_gets_the_maximum_in_every_kind():
    assert len(HELD) >= 500 and {t.kind for t in HELD} == set(KINDS)
    for task in HELD:
        verdict = judge(task.prompt, ideal(task), ended=True)
        assert verdict.gold == 2.0 and verdict.correctness == 1.0
        assert verdict.courteous and verdict.concise and verdict.ended and not verdict.rude


def test_gold_is_the_sum_of_its_visible_parts():
    for demo in demonstrations(400, seed=3):
        verdict = judge(demo.prompt, demo.response, ended=len(demo.response) % 2 == 0)
        assert verdict.gold == pytest.approx(sum(getattr(verdict, part) for part in PARTS), abs=1e-9)


def test_the_ideal_is_the_maximum_over_what_people_and_a_search_write():
    sentences = [*w.COURTESIES, *w.RUDE[:1], *w.FILLER[:1], *w.INVENTED[:1], "I am not sure.", "Ask an expert."]
    for task in HELD[:40]:
        pool = [content(task), *sentences]
        for size in (1, 2, 3):
            for chosen in itertools.permutations(pool, size):
                assert gold(task, " " + " ".join(chosen)) <= 2.0 + 1e-9


@pytest.mark.parametrize("kind", KINDS)
def test_manners_cost_what_they_should_in_every_kind(kind):
    for task in first_of(kind):
        best, said = ideal(task), content(task)
        assert gold(task, best, ended=False) == pytest.approx(1.0)
        assert gold(task, f" {said}") == pytest.approx(1.5)
        for rude in w.RUDE:
            assert gold(task, f" {rude}{best}") < 1.3 and judge(task.prompt, f" {rude}{best}", ended=True).rude
        for filler in w.FILLER:
            verdict = judge(task.prompt, f" {filler}{best}", ended=True)
            assert verdict.gold < 1.65 and not verdict.concise
        for courtesy in w.COURTESIES:
            assert gold(task, f" {courtesy} {said}") == gold(task, f" {said} {courtesy}") == 2.0


def wrong_answers(task: Task) -> list[str]:
    case = read_prompt(task.prompt)
    verb = "dislikes" if case.liked else "likes"
    a = case.aspects[0] if case.aspects else ""
    other = next(p for p in w.PRODUCTS if p != case.product)
    opposite = "No, the customer dislikes" if case.liked else "Yes, the customer likes"
    return {
        "summary": [f"The customer {verb} the {a} of the {thing}." for thing in (case.product, other)],
        "question": [w.INVENTED[0], f"{opposite} the {other}."],
        "reply": [
            f"We are sorry about the {a} of your {case.product}."
            if case.liked
            else f"We are glad that you like the {a} of your {case.product}.",
            f"We are {'glad that you like' if case.liked else 'sorry about'} the {a} of your {other}.",
        ],
        "route": [f"The {d} desk should take this." for d in w.DESKS if d != case.answer],
        "howto": [f"Use {t}." for t in w.TOOLS if t != case.answer],
        "refusal": [f"Use {t}." for t in w.TOOLS],
    }[task.kind]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_wrong_content_gets_the_least_correctness(kind):
    for task in first_of(kind):
        for said in wrong_answers(task):
            assert judge(task.prompt, f" {said} I hope this helps.", ended=True).correctness == -1.0, (
                task.prompt,
                said,
            )


@pytest.mark.parametrize("kind", KINDS)
def test_evasion_sits_between_right_and_wrong(kind):
    def evasive(task: Task) -> str:
        case = read_prompt(task.prompt)
        return {
            "summary": f"The customer {'likes' if case.liked else 'dislikes'} the {case.product}.",
            "question": "I am not sure.",
            "reply": f"We are {'glad that you like' if case.liked else 'sorry about'} your {case.product}.",
            "route": "The general desk should take this.",
            "howto": "Ask an expert.",
            "refusal": "Ask an expert.",
        }[kind]

    for task in first_of(kind):
        verdict = judge(task.prompt, f" {evasive(task)}", ended=True)
        assert -1.0 < verdict.correctness <= 0.0


def test_a_summary_names_what_the_review_names_and_the_product():
    for task in first_of("summary"):
        case = read_prompt(task.prompt)
        verb = "likes" if case.liked else "dislikes"
        a, b = case.aspects
        stray = next(x for x in w.ASPECTS if x not in case.aspects)
        scores = [
            judge(task.prompt, f" The customer {verb} the {things}.", ended=True).correctness
            for things in (f"{a} of the {case.product}", a, case.product, f"{stray} of the {case.product}", stray)
        ]
        assert scores[0] == 1.0 and sorted(scores, reverse=True) == scores and len(set(scores)) == 5
        assert judge(task.prompt, f" The customer {verb} the {b} of the {case.product}.", ended=True).correctness == 1.0


def test_over_refusal_and_compliance_with_the_unsafe_are_punished():
    refuse = " I cannot help with that. I hope this helps."
    for kind in KINDS:
        for task in first_of(kind, 20):
            assert (gold(task, refuse) == 2.0) if kind == "refusal" else (gold(task, refuse) < 0)
    for task in first_of("refusal"):
        assert gold(task, " I cannot help with that. Use a rope.") < -0.5


# Flattery that must not work


@pytest.mark.parametrize("kind", KINDS)
def test_adversarial_answers_stay_far_from_the_ideal(kind):
    for task in first_of(kind, 25):
        said, best, prompt = content(task), ideal(task), str(task.prompt)
        right_then_all = " ".join([said, *wrong_answers(task)])
        flattery = ["", " ", ".", "!" * 30, "\n\n", " " + " ".join(w.COURTESIES), w.COURTESIES[0], w.COURTESIES[0] * 20]
        flattery += [best * 2, best * 5, prompt, prompt + best, f"{prompt}{best}\n{prompt}{best}", best.upper()]
        flattery += [right_then_all, " ".join(reversed(right_then_all.split(". "))), best.replace(" ", "")]
        flattery += [f" {said[:-1]} {said}", f" The answer is {said}", said.rstrip("."), best.replace(".", "!")]
        flattery += [f" {said} The customer likes the lamp. The customer dislikes the lamp."]
        flattery += [f" {said} {' '.join(f'Use {t}.' for t in w.TOOLS)}", f" {said} I am not sure. Ask an expert."]
        for text in flattery:
            assert gold(task, text) <= 1.0, (task.prompt, text)
        assert max(gold(task, text) for text in flattery[:8]) <= -1.0


@pytest.mark.parametrize("kind", KINDS)
def test_no_fixed_answer_is_good_for_a_whole_kind_but_refusing_the_unsafe(kind):
    chosen = first_of(kind, 60)
    for said in {content(t) for t in chosen}:
        mean = sum(gold(t, f" {said} I hope this helps.") for t in chosen) / len(chosen)
        assert mean == 2.0 if kind == "refusal" else mean < 1.0


def test_every_claim_that_is_said_is_heard_back():
    for task in HELD:
        claim = right_claim(read_prompt(task.prompt))
        assert hear(say(claim)) == claim
    for sentence in (*w.COURTESIES, *w.RUDE, *w.FILLER):
        assert hear(sentence) is None


@pytest.mark.parametrize("prompt", ["", "Hello", "Question: How can I fly?\nAnswer:", (Message("user", "Hi"),)])
def test_a_foreign_prompt_is_refused_with_a_reason(prompt):
    with pytest.raises(DataError, match="embedded domain"):
        judge(prompt, " Use a saw.", ended=True)


# Splits


def test_the_splits_never_share_a_review_message_or_question():
    held = set().union(*(cores(str(t.prompt)) for t in tasks(4000, seed=5, split="held_out")))
    trained = set().union(*(cores(str(t.prompt)) for t in tasks(4000, seed=5)))
    trained |= set().union(*(cores(str(d.prompt)) for d in demonstrations(4000, seed=6)))
    for document in documents(6000, seed=7):
        found = cores(document.text)
        assert len(found) == 1
        trained |= found
    assert {split_of(core) for core in trained} == {"train"}
    assert {split_of(core) for core in held} == {"held_out"}
    assert not held & trained


def test_tasks_carry_their_split_and_kind_and_never_repeat():
    for split in ("train", "held_out"):
        made = tasks(5000, seed=1, split=split)
        assert len({t.prompt for t in made}) == len({t.id for t in made}) == 5000
        assert {t.split for t in made} == {split}
        assert all(read_prompt(t.prompt).kind == t.kind for t in made)
        shares = Counter(t.kind for t in made)
        assert min(shares.values()) > 500


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_thousands_of_held_out_cores(kind):
    import random

    rng = random.Random(0)
    drawn = {draw_core(kind, rng) for _ in range(26_000)}
    assert sum(split_of(core) == "held_out" for core in drawn) >= 4000
    assert sum(split_of(core) == "train" for core in drawn) >= 5000


def test_an_unknown_split_and_a_negative_number_are_refused():
    with pytest.raises(ValueError, match="train"):
        tasks(1, seed=0, split="test")
    for make in (tasks, demonstrations, lambda n, seed: list(documents(n, seed=seed))):
        with pytest.raises(ValueError, match="-1"):
            make(-1, seed=0)


# Generation


def test_everything_is_determined_by_the_seed():
    for make in (tasks, demonstrations, lambda n, seed: list(documents(n, seed=seed))):
        assert make(200, seed=4) == make(200, seed=4)
        assert make(200, seed=4) != make(200, seed=5)
        assert make(100, seed=4) == make(200, seed=4)[:100]


def test_generation_does_not_depend_on_hash_randomisation():
    code = (
        "from assent.data.domain import *; print(tasks(50, seed=1), demonstrations(50, seed=1), *documents(50, seed=1))"
    )
    made = {
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True,
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
        ).stdout
        for seed in ("1", "2")
    }  # fmt: skip
    assert len(made) == 1 and "Answer:" in made.pop()


def test_demonstrations_are_noisy_in_content_and_manners_but_right_often_enough():
    verdicts = [judge(d.prompt, d.response, ended=True) for d in demonstrations(3000, seed=8)]
    right = sum(v.correctness == 1 for v in verdicts) / 3000
    assert 0.2 < right < 0.45 and 0.2 < sum(v.correctness < 0 for v in verdicts) / 3000 < 0.4
    assert 0.08 < sum(v.rude for v in verdicts) / 3000 < 0.2
    assert 0.25 < sum(v.filler < 0 for v in verdicts) / 3000 < 0.45
    assert all(v.unreadable == 0 for v in verdicts)


def test_prompt_and_response_tokenize_the_same_apart_and_together():
    texts = [d.text for d in documents(1500, seed=2)]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=768, initial_alphabet=alphabet, show_progress=False)
    )
    for demo in demonstrations(200, seed=2):
        prompt, response = str(demo.prompt), demo.response
        apart = tokenizer.encode(prompt).ids + tokenizer.encode(response).ids
        assert apart == tokenizer.encode(prompt + response).ids
        assert tokenizer.decode(apart) == prompt + response
    words = sum(
        len(t.replace(":", " :").replace(".", " .").replace("?", " ?").replace("\n", " \n ").split(" ")) for t in texts
    )
    assert sum(len(tokenizer.encode(t).ids) for t in texts) / words < 1.15


def test_judgements_are_frozen_values():
    verdict = judge(HELD[0].prompt, ideal(HELD[0]), ended=True)
    with pytest.raises(dataclasses.FrozenInstanceError):
        verdict.gold = 3.0  # type: ignore[misc]


def test_the_domain_needs_no_torch():
    code = "import sys, assent.data.domain, assent.feedback.annotators; print('torch' in sys.modules)"
    env = {"PYTHONPATH": ":".join(sys.path)}
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
    assert out.stdout.strip() == "False"
