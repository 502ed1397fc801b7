"""mlx-lm in a process of its own, for `bench/serving.py`: loads a model once and does what it is told.

Told and answered in JSON, one line each, over standard input and output. Prompts come as texts and answers go back as
texts, as they do through a daemon; the seconds are taken here, around that work alone.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


class Peer:
    """A loaded model."""

    def __init__(self, folder: str) -> None:
        import mlx.core as mx
        from mlx_lm import load

        self.model, self.tokenizer = load(folder)[:2]
        mx.eval(self.model.parameters())

    def batch(self, texts: Sequence[str], most: int, rows: int) -> list[str]:
        """Answer *texts* with BatchGenerator, *rows* at a time."""
        from mlx_lm.generate import BatchGenerator

        stops = [[token] for token in self.tokenizer.eos_token_ids]
        generator = BatchGenerator(self.model, stop_tokens=stops, completion_batch_size=rows)
        uids = generator.insert([self.tokenizer.encode(text) for text in texts], max_tokens=[most] * len(texts))
        pieces = {uid: self.tokenizer.detokenizer for uid in uids}  # noqa: C420 - each access makes another
        said = dict.fromkeys(uids, "")
        left = len(uids)
        while left:
            for one in generator.next()[1]:
                if one.finish_reason != "stop":
                    pieces[one.uid].add_token(one.token)
                if one.finish_reason is not None:
                    pieces[one.uid].finalize()
                    left -= 1
                said[one.uid] += pieces[one.uid].last_segment
        generator.close()
        return [said[uid] for uid in uids]

    def stream(self, texts: Sequence[str], most: int, rows: int) -> list[str]:  # noqa: ARG002 - one at a time
        """Answer *texts* one after another with stream_generate."""
        from mlx_lm import stream_generate

        return [
            "".join(got.text for got in stream_generate(self.model, self.tokenizer, text, max_tokens=most))
            for text in texts
        ]

    def answer(self, told: Mapping[str, Any]) -> dict[str, Any]:
        """Do what was told."""
        work = {"batch": self.batch, "stream": self.stream}[told["do"]]
        began = time.perf_counter()
        texts = work(told["texts"], told["most"], told["rows"])
        return {"seconds": time.perf_counter() - began, "texts": texts}


def main() -> None:
    """Serve until standard input ends."""
    wire = sys.stdout
    sys.stdout = sys.stderr
    peer = Peer(str(Path(sys.argv[1])))
    print(json.dumps({"ready": True}), file=wire, flush=True)
    for line in sys.stdin:
        print(json.dumps(peer.answer(json.loads(line))), file=wire, flush=True)


if __name__ == "__main__":
    main()
