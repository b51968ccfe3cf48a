"""Train the letters-to-phones classifier on what flite says of single words.

`python -m voice.training.pronunciation OUT` has flite pronounce words of the system word list, aligns letters with
phones by expectation maximization, trains `voice.pronunciation.Pronouncer`, and writes OUT/pronouncer.pt and
OUT/lexicon.json: the chunks, and the words of the training grammar as flite pronounces them.
"""

import argparse
import json
import math
import re
import subprocess
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from voice.pronunciation import Pronouncer, letters_of
from voice.training import corpus
from voice.training.speech import DICTIONARY, VOICE

FUNCTION_WORDS = """
a an the and or but if then than that this these those there here where when why who what which how is are was were be
been being am do does did done have has had having will would shall should can could may might must not no yes of in
on at by for from to into onto with without as it its he she his her him they them their we us our you your i my me
mine one two said say says twice more most less least please bring things such both sound between so very too also
just only some any each every all other another new people time day way hello thank thanks goodbye
""".split()


def flite_phones(words: list[str]) -> dict[str, tuple[str, ...]]:
    """What flite says of each word, alone in its sentence."""
    said: dict[str, tuple[str, ...]] = {}
    for start in range(0, len(words), 10):
        part = words[start : start + 10]
        said.update(zip(part, _flite_lines(part), strict=True))
    return said


def _flite_lines(words: list[str]) -> list[tuple[str, ...]]:
    command = ["flite", "-voice", VOICE, "-ps", "-t", " . ".join(f"{word}." for word in words), "-o", "none"]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    groups = [tuple(group.split()) for group in re.split(r"\bpau\b", printed) if group.strip()]
    if len(groups) != len(words):  # a word that flite reads with a pause: take them one by one
        groups = []
        for word in words:
            one = ["flite", "-voice", VOICE, "-ps", "-t", word, "-o", "none"]
            printed = subprocess.run(one, check=True, capture_output=True, text=True).stdout
            groups.append(tuple(phone for phone in printed.split() if phone != "pau"))
    return groups


def align(said: dict[str, tuple[str, ...]], rounds: int = 6) -> dict[str, list[str]]:
    """Give each letter of each word its chunk of zero to two phones: the likeliest, re-estimated by hard EM."""
    cost: dict[str, dict[str, float]] = defaultdict(dict)
    aligned: dict[str, list[str]] = {}
    for _ in range(rounds):
        counts: dict[str, Counter[str]] = defaultdict(Counter)
        aligned = {}
        for word, phones in said.items():
            chunks = _best_path(word, phones, cost)
            if chunks is None:
                continue
            aligned[word] = chunks
            for letter, chunk in zip(word, chunks, strict=True):
                counts[letter][chunk] += 1
        cost = defaultdict(dict)
        for letter, seen in counts.items():
            total = sum(seen.values()) + len(seen)
            cost[letter] = {chunk: -math.log((count + 0.1) / total) for chunk, count in seen.items()}
    return aligned


def _best_path(word: str, phones: tuple[str, ...], cost: dict[str, dict[str, float]]) -> list[str] | None:
    """Cheapest split of the phones over the letters; before any estimate, one phone a letter is cheapest."""
    best: list[dict[int, tuple[float, int]]] = [{0: (0.0, 0)}]
    for letter in word:
        row: dict[int, tuple[float, int]] = {}
        for place, (so_far, _) in best[-1].items():
            for size in (0, 1, 2):
                if place + size > len(phones):
                    continue
                chunk = " ".join(phones[place : place + size])
                price = cost[letter].get(chunk, 12.0) if cost[letter] else (1.0, 0.0, 2.0)[size]
                if place + size not in row or so_far + price < row[place + size][0]:
                    row[place + size] = (so_far + price, size)
        best.append(row)
    if len(phones) not in best[-1]:
        return None
    place, chunks = len(phones), []
    for row in reversed(best[1:]):
        size = row[place][1]
        chunks.append(" ".join(phones[place - size : place]))
        place -= size
    return chunks[::-1]


def main() -> None:
    """Pronounce, align, train, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--words", type=int, default=24000)
    parser.add_argument("--steps", type=int, default=6000)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    draw = np.random.default_rng(0)
    listed = [w for w in DICTIONARY.read_text(encoding="utf-8").split() if re.fullmatch(r"[a-z]{2,14}", w)]
    chosen = [listed[i] for i in sorted(draw.permutation(len(listed))[: arguments.words])]
    pools = (corpus.NOUNS, corpus.ADJECTIVES, corpus.VERBS, corpus.ADVERBS, corpus.PREPOSITIONS, corpus.NUMBERS)
    own = sorted({w for pool in pools for w in pool} | {n.lower() for n in corpus.NAMES} | set(FUNCTION_WORDS))
    said = flite_phones(chosen)
    lexicon = flite_phones(own)
    aligned = align({**said, **lexicon})
    tally = Counter(chunk for chunks in aligned.values() for chunk in chunks)
    chunks = tuple(sorted(chunk for chunk, count in tally.items() if count >= 5))
    number = {chunk: i for i, chunk in enumerate(chunks)}
    words = sorted(w for w, cs in aligned.items() if all(c in number for c in cs))
    order = draw.permutation(len(words))
    judged, learned = [words[i] for i in order[:1000]], [words[i] for i in order[1000:]]
    model = Pronouncer(chunks)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for step in range(arguments.steps):
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * max(0.02, 1 - step / arguments.steps)
        batch = [learned[i] for i in draw.integers(len(learned), size=128)]
        letters = torch.nn.utils.rnn.pad_sequence([letters_of(w) for w in batch], batch_first=True)
        labels = [torch.tensor([number[c] for c in aligned[w]]) for w in batch]
        target = torch.nn.utils.rnn.pad_sequence(labels, batch_first=True, padding_value=-100)
        loss = F.cross_entropy(model(letters).transpose(1, 2), target)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if step % 500 == 0:
            print(f"step {step}  loss {loss.item():.3f}", flush=True)
    model.eval()
    right = sum(model.pronounce(w) == {**said, **lexicon}[w] for w in judged)
    print(f"{right} of {len(judged)} words held back pronounced as flite does")
    arguments.out.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), arguments.out / "pronouncer.pt")
    words_said = {word: " ".join(phones) for word, phones in lexicon.items()}
    text = json.dumps({"chunks": chunks, "words": words_said}, indent=0, sort_keys=True)
    (arguments.out / "lexicon.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
