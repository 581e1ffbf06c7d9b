"""From nothing to the domain's language: ``python -m recipes.tiny.pretrain judge|policy --out DIR``.

The judge's base learns to work problems and to compare completions with a result, in plain text without any chat
frame; the wire formats come later, by ``training.judge_sft``. The policy learns to answer at once, without working,
and is stopped early, so that it is right about half of the time. A killed run goes on from its last checkpoint.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy
from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen2Tokenizer

from recipes.tiny import domain, tokenizer

Doc = tuple[str, str]
"""What is given, and what is to be learned."""


def solve(rng: random.Random, problem: domain.Problem) -> Doc:
    """Work a problem."""
    return f"Question: {problem.question}\n", domain.result(problem)


def review(rng: random.Random, problem: domain.Problem, *, most: int = 4) -> Doc:
    """Work a problem, hold one to four completions against the result, mark them."""
    return _review(rng, problem, problem.answer, given=0, most=most)


def check(rng: random.Random, problem: domain.Problem) -> Doc:
    """As ``review``, but with a result that is given and often wrong: the marks follow what the thought says."""
    return _review(rng, problem, domain.slip(problem.answer, rng), given=1, most=2)


def hold(rng: random.Random, problem: domain.Problem) -> Doc:
    """Hold one completion against a result, digit by digit, and nothing else; often one whose digits stand twice."""
    few = rng.sample(domain.DIGITS, rng.randint(2, 5))
    stated = problem.answer if rng.random() < 0.4 else "".join(rng.choice(few) for _ in range(rng.randint(1, 5)))
    seen = domain.completion(domain.Problem(kind="", question="", work="", answer=stated), rng)
    number = rng.choice((None, 1, 2))
    head = f"Completion{'' if number is None else f' {number}'}: {seen.text}\nThe result is {stated}.\n"
    return head, domain.remark(number, seen.says, stated)


def _review(rng: random.Random, problem: domain.Problem, stated: str, *, given: int, most: int) -> Doc:
    number = rng.randint(1, most) if most > 2 and rng.random() < 0.15 else rng.randint(1, 2)
    seen = [domain.completion(problem, rng) for _ in range(number)]
    if given and rng.random() < 0.6:
        at = rng.randrange(number)
        seen[at] = domain.Completion(text=rng.choice(domain.PHRASES).format(stated), says=stated)
    if number > 1 and rng.random() < 0.1:
        seen[1] = seen[0]
    head = f"Question: {problem.question}\n"
    head += "".join(f"Completion {i}: {c.text}\n" for i, c in enumerate(seen, 1))
    worked = f"{problem.work} The result is {stated}.".strip()
    marks = " ".join(str(domain.mark(c.says, stated, top=9)) for c in seen)
    body = "".join(f"\n{domain.remark(i if number > 1 else None, c.says, stated)}" for i, c in enumerate(seen, 1))
    body += f"\nMarks: {marks}"
    return (head + worked, body) if given else (head, worked + body)


def reply(rng: random.Random, problem: domain.Problem) -> Doc:
    """Answer at once in the chat frame: the policy's lesson."""
    return (
        f"<|im_start|>user\n{problem.question}<|im_end|>\n<|im_start|>assistant\n",
        f"The answer is {problem.answer}.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """One kind of document with the batch shape that fits it."""

    make: Callable[[random.Random, domain.Problem], Doc]
    batch: int
    length: int
    """Tokens a row; what is longer is left out."""
    share: tuple[float, float]
    """Weight at the start and at the end of the training, linear between."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What one model learns, how long, and how large it is."""

    lessons: tuple[Lesson, ...]
    steps: int
    hidden: int
    layers: int
    heads: int
    learning_rate: float = 1.5e-3
    warmup: int = 100


PLANS = {
    "judge": Plan(
        lessons=(
            Lesson(make=solve, batch=128, length=64, share=(0.45, 0.2)),
            Lesson(make=hold, batch=112, length=72, share=(0.45, 0.1)),
            Lesson(make=review, batch=40, length=192, share=(0.05, 0.5)),
            Lesson(make=check, batch=48, length=160, share=(0.05, 0.2)),
        ),
        steps=5000,
        hidden=192,
        layers=4,
        heads=4,
    ),
    "policy": Plan(
        lessons=(Lesson(make=reply, batch=128, length=48, share=(1.0, 1.0)),),
        steps=600,
        hidden=128,
        layers=3,
        heads=4,
    ),
}


def batch(
    lesson: Lesson, rng: random.Random, tok: Qwen2Tokenizer, arithmetic: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """``(B, T)`` int64 token ids and labels, padded on the right; labels are -100 wherever nothing is learned."""
    stream = problems(rng, arithmetic)
    ids = torch.full((lesson.batch, lesson.length), tok.pad_token_id)
    labels = torch.full_like(ids, -100)
    row = 0
    while row < lesson.batch:
        given, learned = lesson.make(rng, next(stream))
        head = tok.encode(given)
        tail = [*tok.encode(learned), tok.eos_token_id]
        if len(head) + len(tail) > lesson.length:
            continue
        ids[row, : len(head) + len(tail)] = torch.tensor(head + tail)
        labels[row, len(head) : len(head) + len(tail)] = torch.tensor(tail)
        row += 1
    return ids, labels


def problems(rng: random.Random, arithmetic: float) -> Iterator[domain.Problem]:
    """Training problems, ``arithmetic`` of them from the kinds that need sums."""
    sums = ("add", "subtract", "story")
    rest = tuple(kind for kind in domain.KINDS if kind not in sums)
    streams = (domain.problems(rng, held_out=False, kinds=rest), domain.problems(rng, held_out=False, kinds=sums))
    return (next(streams[rng.random() < arithmetic]) for _ in itertools.count())


def train(name: str, out: Path, *, seed: int, steps: int | None, compiled: bool, every: int = 250) -> None:
    """Train and save to ``out``; the state of a run under way lies in ``out/state.pt`` and is read by tensors only."""
    plan = PLANS[name]
    total = steps or plan.steps
    state = out / "state.pt"
    tok = Qwen2Tokenizer.from_pretrained(out) if state.exists() else tokenizer.build()
    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=len(tok),
        hidden_size=plan.hidden,
        intermediate_size=plan.hidden * 3,
        num_hidden_layers=plan.layers,
        num_attention_heads=plan.heads,
        num_key_value_heads=plan.heads,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tok.eos_token_id,
        pad_token_id=tok.pad_token_id,
    )
    model = Qwen2ForCausalLM._from_config(config, attn_implementation="eager").train()
    decayed = [p for p in model.parameters() if p.dim() > 1]
    others = [p for p in model.parameters() if p.dim() <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.01}, {"params": others, "weight_decay": 0.0}],
        lr=plan.learning_rate,
        betas=(0.9, 0.98),
        fused=True,
    )
    forward = torch.compile(model, dynamic=False) if compiled else model
    out.mkdir(parents=True, exist_ok=True)
    first = 0
    if state.exists():
        saved = torch.load(state, weights_only=True)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        first = saved["step"]
        print(f"going on from step {first}", flush=True)
    began, losses = time.monotonic(), []
    for step in range(first, total):
        rng = random.Random(f"{seed}-{name}-{step}")
        progress = step / total
        rate = plan.learning_rate * min((step + 1) / plan.warmup, 0.5 + 0.5 * math.cos(math.pi * progress))
        for group in optimizer.param_groups:
            group["lr"] = max(rate, plan.learning_rate * 0.02)
        shares = [lesson.share[0] + (lesson.share[1] - lesson.share[0]) * progress for lesson in plan.lessons]
        lesson = rng.choices(plan.lessons, shares)[0]
        ids, labels = batch(lesson, rng, tok, arithmetic=0.5 - 0.2 * progress)
        with torch.autocast("cpu", torch.bfloat16):
            logits = forward(input_ids=ids).logits
        loss = cross_entropy(logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append((lesson.make.__name__, loss.item()))
        if (step + 1) % 50 == 0:
            by_lesson = {k: [x for n, x in losses if n == k] for k, _ in losses}
            shown = "  ".join(f"{k} {sum(v) / len(v):.4f}" for k, v in sorted(by_lesson.items()))
            pace = (time.monotonic() - began) / (step + 1 - first)
            print(f"step {step + 1}/{total}  {shown}  {pace:.2f} s/step", flush=True)
            losses.clear()
        if (step + 1) % every == 0 or step + 1 == total:
            torch.save(
                {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step + 1},
                state.with_suffix(".new"),
            )
            os.replace(state.with_suffix(".new"), state)
            model.save_pretrained(out)
            tok.save_pretrained(out)
    (out / "pretrain.json").write_text(json.dumps({"model": name, "seed": seed, "steps": total}) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=sorted(PLANS))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, help="other than the plan's")
    parser.add_argument("--no-compile", action="store_true", help="where there is no C++ compiler; about half as fast")
    args = parser.parse_args()
    train(args.model, args.out, seed=args.seed, steps=args.steps, compiled=not args.no_compile)


if __name__ == "__main__":
    main()
