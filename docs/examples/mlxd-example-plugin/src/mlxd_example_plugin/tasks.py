"""Two tasks: one that needs no model, one that asks a runtime."""

from collections import Counter
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, model_validator


class WordCountParams(BaseModel):
    """What `wordcount` takes: a text, or a file with one."""

    model_config = ConfigDict(extra="forbid")

    text: str | None = Field(default=None, description="The text to count.")
    # A parameter called `file` is special: mlxd makes it absolute and puts a watched folder's files into it.
    file: Path | None = Field(default=None, description="A UTF-8 text file to count instead.")
    top: int = Field(default=10, ge=1, le=1000, description="How many of the commonest words to list.")

    @model_validator(mode="after")
    def _one_input(self):
        if (self.text is None) == (self.file is None):
            raise ValueError("exactly one of text and file is needed")
        return self


class WordCount:
    """Counts words."""

    name = "wordcount"
    summary = "Count the words of a text"
    params = WordCountParams

    def run(self, ctx, params):
        """Count, write a table, and return the numbers; `text` is what the next step of a pipeline gets."""
        text = params.text if params.file is None else params.file.read_text(encoding="utf-8")
        words = Counter(text.lower().split())
        ctx.check()  # between units of work: raises if the job was cancelled or mlxd is stopping
        table = "".join(f"{count}\t{word}\n" for word, count in words.most_common(params.top))
        stem = ctx.stem or (params.file.stem if params.file else "wordcount")
        ctx.output(f"{stem}.words.tsv", table)
        return {"text": table, "words": words.total(), "different": len(words)}


class WordSwapParams(BaseModel):
    """What `wordswap` takes."""

    model_config = ConfigDict(extra="forbid")

    text: str = Field(min_length=1, description="The text to translate word by word.")
    model: str = Field(description="Folder of a dictionary model.")


class WordSwap:
    """Asks the `dictionary` runtime."""

    name = "wordswap"
    summary = "Replace the words of a text by a dictionary"
    params = WordSwapParams

    def run(self, ctx, params):
        """Lease the model, send one request, pass its words on to whoever follows the job."""
        total = len(params.text.split())

        def tell(kind, data):  # on a thread that serves everybody: pass on and return
            ctx.emit(kind, data)
            if kind == "token":
                ctx.progress(data["n"], total, unit="words")

        with ctx.models(params.model, runtime="dictionary") as model:
            answer = model.submit({"text": params.text}, on_event=tell).result()
        ctx.output(f"{ctx.stem or 'wordswap'}.txt", answer["text"] + "\n")
        return answer
