"""Why an endpoint cannot be asked, in one line, and what to do."""

from __future__ import annotations

from consenso.annotate.clients.protocol import CallError
from consenso.annotate.endpoints import Endpoint


def explain(endpoint: Endpoint, model: str, error: CallError) -> str:
    """Return one line that says why a model cannot be asked at an endpoint, and what to do."""
    where, said = endpoint.base_url, str(error)
    start = endpoint.start.format(model=model)
    variables = " or ".join(endpoint.key_env) or "key_env"
    lines = {
        "auth": f"{where} refuses the API key ({said}); check {variables}",
        "quota": f"{endpoint.name} has no credit left ({said}); add some, then run the same command again",
        "missing": f"{where} knows no model {model!r} or no such address ({said}); check the model's name and base_url"
        + (f"; {start}" if start else ""),
        "request": f"{where} does not take the request ({said}); check parameters, structured and logprobs, or try "
        "`consenso annotate --probe`",
        "connection": f"nobody answers at {where} ({said}); {start or 'check base_url and that the server runs'}",
        "timeout": f"{where} accepts requests but never answered ({said}); is it loading the model? A longer wait: "
        "timeout_s in [annotate.endpoints]",
        "body": f"{where} answers, but not as a chat API does ({said}); base_url usually ends in /v1",
    }
    return lines.get(error.kind, f"{where} only fails ({said}); run the same command again once it works")
