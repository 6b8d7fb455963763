"""Made data as folders, for tests and first tries: colored shapes with captions, and sentences of a small grammar."""

from __future__ import annotations

import io
import random

from curl_rl.text.data.shapes import scenes
from curl_rl.text.data.tables import CAPTIONS, SCORED, ScoredPair, captions_text, scored_text, table_text
from curl_rl.text.packages.prepared import PreparedSet
from curl_rl.text.sentences import made_sentences


def prepare_shapes(into: PreparedSet, *, count: int, seed: int) -> None:
    """Writes ``count`` pictures of 32 × 32 pixels, with two captions each; the class is the shape that is named first.

    A fifth of the scenes are for testing: combinations of which no picture is trained on.
    """
    rows, counts = [], {"train": 0, "test": 0}
    for number, (scene, image) in enumerate(scenes(count, seed)):
        file = f"{scene.part}/{scene.first[1]}/{number:05}.png"
        buffer = io.BytesIO()
        image.save(buffer, format="PNG")
        into.write(file, buffer.getvalue())
        rows += [(file, caption) for caption in scene.captions]
        counts[scene.part] += 1
    into.write(CAPTIONS, captions_text(rows))
    into.facts |= {"images": counts, "seed": seed}
    into.describe([], "shapes")


def prepare_grammar(into: PreparedSet, *, count: int, seed: int) -> None:
    """Writes the sentences that are built into ``scripts/pretrain_text.py``, and ``count`` judged pairs of them.

    ``triples.tsv`` has each sentence with its paraphrase and its contradiction. Of the judged pairs, a paraphrase
    scores 2, a contradiction, which has nearly the same words, 1, and another sentence 0.
    """
    sentences, positives, negatives = made_sentences().columns
    into.write("sentences.txt", "".join(f"{sentence}\n" for sentence in sentences))
    into.write("triples.tsv", table_text(zip(sentences, positives, negatives, strict=True)))
    rng = random.Random(seed)
    pairs = []
    for number in range(count):
        place = rng.randrange(len(sentences))
        others = (sentences[rng.randrange(len(sentences))], negatives[place], positives[place])
        score = number % 3
        pairs.append(ScoredPair(score, sentences[place], others[score]))
    into.write(SCORED, scored_text(pairs))
    into.facts |= {"sentences": len(sentences), "pairs": len(pairs), "seed": seed}
    into.describe([], "grammar")
