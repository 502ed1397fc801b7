"""Plugins for the secrets' attack, as source: tasks and models that quote what they were given wherever they can."""

#: Task ``leak`` (params: text, how) and runtime ``leak``: the honest parts, and errors that quote the prompt.
LEAK = """
import sys
import pluggy
from pydantic import BaseModel, field_validator
from plugins.runtime import Estimate

hookimpl = pluggy.HookimplMarker("mlxd")

class Params(BaseModel):
    text: str
    how: str = "fine"

    @field_validator("how")
    @classmethod
    def _known(cls, value, info):
        if value == "invalid":
            raise ValueError("this is not right")
        return value

class Leak:
    name, summary, params = "leak", "Quotes its prompt.", Params

    def run(self, ctx, params):
        if params.how == "raise":
            raise ValueError(f"cannot do {params.text}")
        if params.how == "cause":
            try:
                raise KeyError(params.text)
            except KeyError as error:
                raise RuntimeError(f"no {params.text}") from error
        if params.how == "exit":
            raise SystemExit(params.text)
        if params.how in ("refuse", "crash", "done"):
            with ctx.models("leaky", runtime="leak") as model:
                call = model.submit({"prompt": params.text, "how": params.how}, on_event=lambda kind, data: 1 / 0)
                return {"text": call.result()["text"]}
        ctx.progress(1, 2, message="half")
        ctx.output("answer.txt", params.text)
        return {"text": params.text}

class Session:
    info = {"kind": "leak"}

    def __init__(self):
        self.waiting = []

    @property
    def busy(self):
        return bool(self.waiting)

    def submit(self, request_id, request):
        if request["how"] == "refuse":
            raise ValueError(f"cannot serve {request['prompt']}")
        self.waiting.append((request_id, request))

    def cancel(self, request_id):
        self.waiting = [one for one in self.waiting if one[0] != request_id]

    def step(self):
        request_id, request = self.waiting.pop(0)
        if request["how"] == "crash":
            raise RuntimeError(f"the session is broken by {request['prompt']}")
        return [(request_id, "token", {"text": request["prompt"]}), (request_id, "done", {"text": request["prompt"]})]

    def close(self):
        pass

class Runtime:
    name, summary = "leak", "Quotes its prompt."

    def estimate(self, model, options):
        return Estimate(1000, 0)

    def load(self, model, options):
        return Session()

@hookimpl
def mlxd_register_tasks(register):
    register(Leak())

@hookimpl
def mlxd_register_runtimes(register):
    register(Runtime())
"""

#: The control: the defences of the log switched off, from inside the daemon and the runner.
SABOTAGE = """
import sys
import daemon.log as log
log._error_message = str
log.escaped = str
if "daemon.models.runner" in " ".join(sys.orig_argv):
    import traceback
    sys.excepthook = lambda kind, error, trace: traceback.print_exception(error)
"""
