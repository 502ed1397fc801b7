"""`mlxd submit`."""

from __future__ import annotations

from typing import Any

import click

from daemon.cli.asking import Asked, build, forget, takes_recording
from daemon.cli.console import Exit, write, write_json
from daemon.cli.main import Session
from daemon.cli.transport import Transport
from jobs.errors import DaemonUnreachable, MlxdError

_EXAMPLES = """
\b
mlxd submit generate "Why is the sky blue?" --wait
mlxd submit transcribe talk.m4a --format txt,srt --wait
mlxd submit batch prompts/ --output answers/
git diff | mlxd submit generate - --system "Write a commit message." --wait
"""


@click.command(short_help="Submit a job.", epilog=_EXAMPLES)
@click.argument("task")
@click.argument("input", required=False, metavar="[FILE|FOLDER|TEXT|-]")
@click.option("-m", "--model", help="Model: an alias, demo:lm, a folder, or a hub id.")
@click.option("--adapter", metavar="DIR", help="generate, batch: LoRA adapter (mlx-lm's format) to answer with.")
@click.option("--draft-model", help="generate, batch: smaller model that guesses ahead; such answers are served alone.")
@click.option("-p", "--prompt", help="generate: what to ask.")
@click.option("--system", help="generate, batch: how the model should behave.")
@click.option("--template", help="generate, batch: text around each input; {text} stands for it.")
@click.option("--max-tokens", type=int, help="generate, batch, memo: most tokens in the answer.")
@click.option("--temperature", type=float, help="Randomness; 0 is deterministic.")
@click.option("--top-p", type=float, help="generate, batch: sample from the likeliest tokens of this total share.")
@click.option("--seed", type=int, help="generate, batch: makes sampling repeatable.")
@click.option("--stop", multiple=True, help="generate, batch: end before this text. May be given again.")
@click.option("--schema", metavar="FILE", help="generate, batch: the answer is JSON that obeys this JSON Schema.")
@click.option("--tools", metavar="FILE", help="generate, batch: functions the model may call: OpenAI's list, JSON.")
@click.option("--language", help="transcribe, memo: the language spoken, as en.")
@click.option("--format", "formats", metavar="LIST", help="transcribe: txt,srt,vtt,json. generate: text or json.")
@click.option("--words", is_flag=True, help="transcribe: time each word (in json).")
@click.option("--translate", is_flag=True, help="transcribe: write English whatever is spoken.")
@click.option("--initial-prompt", help="transcribe: names and spellings to expect.")
@click.option("--steps", metavar="FILE", help="pipeline: the steps, as a JSON or TOML file.")
@click.option("--param", "pairs", multiple=True, metavar="KEY=VALUE", help="Any parameter; the value is JSON or text.")
@click.option("--params", "params_json", metavar="JSON", help="Parameters as a JSON object, or @FILE.")
@click.option("--lane", type=click.Choice(["interactive", "normal", "batch"]), help="Default: by task and --wait.")
@click.option("--priority", type=click.IntRange(-100, 100), default=0, help="Higher runs first within its lane.")
@click.option("--key", metavar="TEXT", help="Submitting the same key again gives the same job.")
@click.option("-o", "--output", metavar="DIR", help="Put result files here.")
@click.option("--stem", metavar="NAME", help="Name result files after this.")
@click.option("--reuse/--no-reuse", default=None, help="Take the recorded result of the same work, or never do.")
@click.option("--limit", type=click.IntRange(min=1), help="batch: do at most so many items.")
@click.option("--retries", type=click.IntRange(0, 10), help="batch: how often a failed item is asked again.")
@click.option("--only-failed", metavar="JOB|MANIFEST", help="batch: what failed or was left in this earlier batch.")
@click.option("--estimate", is_flag=True, help="batch: count items, tokens and time, and submit nothing.")
@click.option("-w", "--wait", is_flag=True, help="Wait for the end; print the result.")
@click.option("--follow", is_flag=True, help="Wait, and print text as it comes.")
@click.option("--timeout", type=click.FloatRange(min=0), metavar="SECONDS", help="With --wait: stop waiting (124).")
@click.option("--json", "as_json", is_flag=True, help="Print the job as JSON.")
@click.pass_obj
def submit(session: Session, /, *, as_json: bool, timeout: float | None, **options: Any) -> int:
    """Submit a job for TASK; the input is a file, a folder, a text, or - for standard input.

    Without --wait the job's id is printed, and the exit status says whether it was accepted.
    """
    asked = Asked(**{name: options[name] for name in Asked.names()})
    transport = Transport(session.home.socket)
    if takes_recording(asked):
        transport.ask("GET", "/v1/health")  # before a long recording is put down for nobody
    body = build(asked, cache=session.home.cache, waiting=options["wait"] or options["follow"])
    if options["only_failed"] or options["estimate"]:
        from daemon.cli import batches

        if asked.task != "batch":
            raise click.UsageError("--only-failed and --estimate are for batch.")
        if options["only_failed"]:
            body = batches.only_failed(transport, options["only_failed"], body)
        if options["estimate"]:
            return batches.show_estimate(transport, body, as_json=as_json)
    try:
        job = transport.ask("POST", "/v1/jobs", body=body)
    except DaemonUnreachable:  # it may have been accepted all the same
        raise
    except MlxdError:
        forget(body)
        raise
    if options["wait"] or options["follow"] or timeout is not None:
        from daemon.cli.waiting import finish

        return finish(transport, job, timeout=timeout, as_json=as_json, stream=options["follow"])
    if as_json:
        write_json(job)
    else:
        write(job["id"])
    return Exit.OK
