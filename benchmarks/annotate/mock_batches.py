"""Files and batches of the mock LLM server, in OpenAI's shapes; a batch moves on by the clock."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from mock_http import Reply, encode, error, ok, read_form
from mock_options import Options

ENDED = ("completed", "failed", "expired", "cancelled")
LINE_FAILURE = {"error": {"message": "The server had an error.", "type": "server_error", "param": None, "code": None}}
EXPIRED = "This request could not be executed before the completion window expired."
CANCELLED = "This request was not executed: the batch was cancelled."
QUEUE_FULL = "Enqueued token limit reached. Please try again once some in_progress batches have been completed."
TIMES = ("in_progress_at", "finalizing_at", "completed_at", "failed_at", "expired_at", "cancelling_at", "cancelled_at")

AnswerLine = Callable[[dict[str, Any]], Reply]
"""The server's reply to one line's body."""


@dataclass
class Batch:
    """A batch: the object shown, its lines, and what is wrong with them."""

    shown: dict[str, Any]
    lines: list[dict[str, Any]]
    errors: list[dict[str, Any]]
    started: float = field(default_factory=time.monotonic)


class Batches:
    """The files and batches of one server."""

    def __init__(self, options: Options, answer_line: AnswerLine) -> None:
        self.options = options
        self.answer_line = answer_line
        self.clear()

    def clear(self) -> None:
        """Forget every file and batch."""
        self.rng = random.Random(self.options.seed)
        self.files: dict[str, tuple[dict[str, Any], bytes]] = {}
        self.batches: dict[str, Batch] = {}
        self.numbers = 0

    # -- files --

    def upload(self, content_type: str, raw: bytes) -> Reply:
        """Keep an uploaded file."""
        form = read_form(content_type, raw)
        if "file" not in form or "purpose" not in form:
            missing = "file" if "file" not in form else "purpose"
            return error(400, f"Missing required parameter: '{missing}'.", "invalid_request_error", None, missing)
        filename, content = form["file"]
        return ok(self._keep(content, filename or "upload", form["purpose"][1].decode()))

    def file(self, file_id: str) -> Reply:
        """Describe a file."""
        return ok(self.files[file_id][0]) if file_id in self.files else _no_file(file_id)

    def content(self, file_id: str) -> Reply:
        """Return a file's bytes."""
        if file_id not in self.files:
            return _no_file(file_id)
        return Reply(200, self.files[file_id][1], content_type=b"application/octet-stream")

    def _keep(self, content: bytes, filename: str, purpose: str) -> dict[str, Any]:
        file_id = f"file-{self._number()}"
        shown = {
            "id": file_id,
            "object": "file",
            "bytes": len(content),
            "created_at": int(time.time()),
            "expires_at": None,
            "filename": filename,
            "purpose": purpose,
            "status": "processed",
            "status_details": None,
        }
        self.files[file_id] = (shown, content)
        return shown

    def _number(self) -> int:
        self.numbers += 1
        return self.numbers

    # -- batches --

    def create(self, body: dict[str, Any]) -> Reply:
        """Start a batch; a bad input file makes it fail a little later, as at OpenAI."""
        for name in ("input_file_id", "endpoint", "completion_window"):
            if name not in body:
                return error(400, f"Missing required parameter: '{name}'.", "invalid_request_error", None, name)
        if body["input_file_id"] not in self.files:
            return _no_file(body["input_file_id"])
        lines, errors = read_lines(self.files[body["input_file_id"]][1], body["endpoint"])
        now = int(time.time())
        shown = {
            "id": f"batch_{self._number()}",
            "object": "batch",
            "endpoint": body["endpoint"],
            "errors": None,
            "input_file_id": body["input_file_id"],
            "completion_window": body["completion_window"],
            "status": "validating",
            "output_file_id": None,
            "error_file_id": None,
            "created_at": now,
            "expires_at": now + 24 * 3600,
            **dict.fromkeys(TIMES),
            "request_counts": {"total": 0, "completed": 0, "failed": 0},
            "metadata": body.get("metadata"),
        }
        self.batches[shown["id"]] = Batch(shown, lines, errors)
        return ok(shown)

    def get(self, batch_id: str) -> Reply:
        """Show a batch as it is now."""
        if batch_id not in self.batches:
            return _no_batch(batch_id)
        return ok(self._advance(self.batches[batch_id]))

    def list(self, query: dict[str, str]) -> Reply:
        """Show a page of batches, the newest first."""
        ids = list(reversed(self.batches))
        if query.get("after") in ids:
            ids = ids[ids.index(query["after"]) + 1 :]
        page = ids[: int(query.get("limit", 20))]
        data = [self._advance(self.batches[batch_id]) for batch_id in page]
        ends = {"first_id": page[0] if page else None, "last_id": page[-1] if page else None}
        return ok({"object": "list", "data": data, **ends, "has_more": len(ids) > len(page)})

    def cancel(self, batch_id: str) -> Reply:
        """Cancel a batch: cancelling now, cancelled when next looked at."""
        if batch_id not in self.batches:
            return _no_batch(batch_id)
        shown = self._advance(self.batches[batch_id])
        if shown["status"] in ENDED:
            message = f"Cannot cancel a batch with status '{shown['status']}'."
            return error(409, message, "invalid_request_error")
        _move(shown, "cancelling")
        return ok(shown)

    def _advance(self, batch: Batch) -> dict[str, Any]:
        shown, delay = batch.shown, self.options.batch_delay
        if shown["status"] in ENDED:
            return shown
        past = (time.monotonic() - batch.started) / delay if delay else 1.0
        done = min(1.0, max(0.0, (past - 0.1) / 0.8))  # validating takes a tenth of the time, and so does finalizing
        if shown["status"] == "cancelling":
            self._end(batch, "cancelled", int(done * len(batch.lines)), ("batch_cancelled", CANCELLED))
        elif past >= 0.1 and batch.errors:
            _fail(shown, batch.errors)
        elif past >= 1 and self.options.batch_end == "failed":
            _fail(shown, [{"code": "token_limit_exceeded", "message": QUEUE_FULL, "param": None, "line": None}])
        elif past >= 1 and self.options.batch_end == "expired":
            self._end(batch, "expired", len(batch.lines) // 2, ("batch_expired", EXPIRED))
        elif past >= 1:
            self._end(batch, "completed", len(batch.lines), ("", ""))
        elif past >= 0.1:
            _move(shown, "in_progress" if done < 1 else "finalizing")
            shown["request_counts"] = _counts(len(batch.lines), int(done * len(batch.lines)), 0)
        return shown

    def _end(self, batch: Batch, status: str, answered: int, left: tuple[str, str]) -> None:
        """Answer the first lines; the others are `left` over with a code and a message."""
        good: list[dict[str, Any]] = []
        bad = [_not_run(line, *left) for line in batch.lines[answered:]]
        for line in batch.lines[:answered]:
            failed = self.rng.random() < self.options.batch_failed_share
            reply = Reply(500, encode(LINE_FAILURE)) if failed else self.answer_line(line["body"])
            (good if reply.status == 200 else bad).append(_result(line, reply, f"batch_req_{self._number()}"))
        for name, results in (("output", good), ("error", bad)):
            if results:
                self.rng.shuffle(results)
                content = b"".join(encode(result) + b"\n" for result in results)
                kept = self._keep(content, f"{batch.shown['id']}_{name}.jsonl", "batch_output")
                batch.shown[f"{name}_file_id"] = kept["id"]
        batch.shown["request_counts"] = _counts(len(batch.lines), len(good), len(bad))
        for step in ("in_progress", "finalizing", status) if status != "cancelled" else (status,):
            _move(batch.shown, step)


def read_lines(content: bytes, endpoint: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Read a batch's input file: its lines, and what OpenAI would reject in them."""
    lines, errors, seen = [], [], set()
    for number, raw in enumerate(filter(bytes.strip, content.split(b"\n")), 1):
        try:
            line = json.loads(raw)
        except ValueError:
            errors.append(_line_error("invalid_json_line", "This line is not parseable as valid JSON.", None, number))
            continue
        missing = [name for name in ("custom_id", "method", "url", "body") if name not in line]
        if missing:
            message = f"Missing required parameter: '{missing[0]}'."
            errors.append(_line_error("missing_required_parameter", message, missing[0], number))
        elif line["custom_id"] in seen:
            message = f"The custom_id '{line['custom_id']}' for this request is a duplicate of another request."
            errors.append(_line_error("duplicate_custom_id", message, "custom_id", number))
        elif line["url"] != endpoint:
            message = "The URL provided for this request does not match the batch endpoint."
            errors.append(_line_error("mismatched_endpoint", message, "url", number))
        else:
            seen.add(line["custom_id"])
            lines.append(line)
    if not lines and not errors:
        errors.append(_line_error("empty_file", "The input file is empty.", None, None))
    return lines, errors


def _line_error(code: str, message: str, param: str | None, line: int | None) -> dict[str, Any]:
    return {"code": code, "message": message, "param": param, "line": line}


def _result(line: dict[str, Any], reply: Reply, number: str) -> dict[str, Any]:
    response = {"status_code": reply.status, "request_id": f"req_{number}", "body": json.loads(reply.body)}
    return {"id": number, "custom_id": line["custom_id"], "response": response, "error": None}


def _not_run(line: dict[str, Any], code: str, message: str) -> dict[str, Any]:
    failure = {"code": code, "message": message}
    return {"id": f"batch_req_{code}", "custom_id": line["custom_id"], "response": None, "error": failure}


def _counts(total: int, completed: int, failed: int) -> dict[str, int]:
    return {"total": total, "completed": completed, "failed": failed}


def _move(shown: dict[str, Any], status: str) -> None:
    shown["status"] = status
    if shown[f"{status}_at"] is None:
        shown[f"{status}_at"] = int(time.time())


def _fail(shown: dict[str, Any], errors: list[dict[str, Any]]) -> None:
    _move(shown, "failed")
    shown["errors"] = {"object": "list", "data": errors}


def _no_file(file_id: str) -> Reply:
    return error(404, f"No such File object: {file_id}", "invalid_request_error", None, "id")


def _no_batch(batch_id: str) -> Reply:
    return error(404, f"No batch found with id '{batch_id}'.", "invalid_request_error", None, "batch_id")
