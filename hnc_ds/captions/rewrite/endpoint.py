"""A language model behind an OpenAI-compatible endpoint: vLLM, Ollama, llama.cpp's server.

    GET  ENDPOINT/models               checks that the model exists, before the first request
    POST ENDPOINT/chat/completions     one prompt, one answer

Only this file and shards/remote.py import aiohttp. Responses are bounded in size. The API key is
used in request headers only.
"""

import asyncio
import os
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import msgspec

from hnc_ds.captions.rewrite.answers import Question
from hnc_ds.captions.rewrite.prompts import LONGEST_ANSWER
from hnc_ds.errors import UserError, did_you_mean

KEY_VARIABLE = "OPENAI_API_KEY"

MOST_BYTES = 1 << 20
"""Maximum bytes of a response."""

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
"""Seconds before the second attempt, doubled for each further one; maximum."""

MODELS_SHOWN = 10

_AGAIN = (408, 409, 425, 429)
"""HTTP statuses besides 5xx that are worth a retry."""


class Retry(Exception):
    """A failure that is worth a retry.

    Args:
        problem: For the message after the last attempt.
        pause: Seconds requested by the server, if any.
    """

    def __init__(self, problem: str, pause: float | None = None) -> None:
        super().__init__(problem)
        self.pause = pause


class _Message(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    message: _Message


class _Completion(msgspec.Struct):
    choices: list[_Choice]


class _Model(msgspec.Struct):
    id: str


class _Models(msgspec.Struct):
    data: list[_Model]


class Endpoint:
    """A model on a server.

    Args:
        url: Address up to /v1.
        model: Name of the model.
        timeout: Seconds for a request, up to the last byte.
        retries: Further attempts after a failed request.
        requests: Maximum number of concurrent requests.
    """

    def __init__(self, url: str, model: str, timeout: float, retries: int, requests: int) -> None:
        self.url, self.model = url.rstrip("/"), model
        self.answered = 0
        """Number of answers of the server."""
        self._timeout, self._retries = timeout, retries
        self._room = asyncio.Semaphore(requests)
        self._first = asyncio.Lock()
        self._is_checked = False
        self._session: aiohttp.ClientSession | None = None

    async def ask(self, question: Question) -> str:
        """The model's answer, truncated to LONGEST_ANSWER.

        Raises:
            UserError: No such server or model, a rejected request, no answer after all attempts.
        """
        async with self._room:
            async with self._first:
                if not self._is_checked:
                    await self._check()
                    self._is_checked = True
            body = {
                "model": self.model,
                "messages": [{"role": "user", "content": question.prompt}],
                "temperature": question.temperature,
                "seed": question.seed,
                "max_tokens": question.tokens,
                "stream": False,
            }
            answer = await self._with_retries(body)
        self.answered += 1
        return answer

    async def close(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()

    async def _check(self) -> None:
        """Check that the server is reachable and lists the model, if it lists any."""
        try:
            status, content, _ = await self._send("GET", "/models", None)
        except Retry as error:
            raise UserError(
                f"{self.url}: {error}; start the server there (vllm serve, ollama serve, "
                "llama-server), or name its address with --endpoint"
            ) from error
        if status in (401, 403):
            raise UserError(self._not_allowed(status))
        try:
            names = [model.id for model in msgspec.json.decode(content, type=_Models).data]
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return
        if status == 200 and names and self.model not in names:
            shown = ", ".join(_plain(name) for name in names[:MODELS_SHOWN])
            raise UserError(
                f"{self.url}: has no model '{self.model}'{did_you_mean(self.model, names)}; "
                f"it has {shown}"
            )

    async def _with_retries(self, body: dict[str, Any]) -> str:
        for attempt in range(self._retries + 1):
            try:
                return await self._complete(body)
            except Retry as error:
                problem = error
            if attempt < self._retries:
                pause = FIRST_PAUSE * 2**attempt if problem.pause is None else problem.pause
                await asyncio.sleep(min(pause, LONGEST_PAUSE))
        raise UserError(
            f"{self.url}: {problem}, {self._retries + 1} times; check the server and run the same "
            "command again, it continues with the answers so far"
        )

    async def _complete(self, body: dict[str, Any]) -> str:
        status, content, pause = await self._send("POST", "/chat/completions", body)
        if status in (401, 403):
            raise UserError(self._not_allowed(status))
        if status >= 500 or status in _AGAIN:
            raise Retry(f"answers with HTTP {status}{_error_message(content)}", pause)
        if status == 404:
            raise UserError(
                f"{self.url}/chat/completions: not found (HTTP 404){_error_message(content)}; does "
                "--endpoint end in /v1, and does the server have the model?"
            )
        if status != 200:
            raise UserError(
                f"{self.url}: rejects a request with HTTP {status}{_error_message(content)}; check "
                "that its model supports chats with seed, temperature and max_tokens"
            )
        try:
            choices = msgspec.json.decode(content, type=_Completion).choices
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise Retry(f"sends no chat completion ({_plain(str(error))})") from error
        text = (choices[0].message.content or "") if choices else ""
        return text[:LONGEST_ANSWER]

    async def _send(
        self, method: str, path: str, body: dict[str, Any] | None
    ) -> tuple[int, bytes, float | None]:
        """Status, body and requested pause of a response.

        Raises:
            Retry: There is no response.
        """
        limit = aiohttp.ClientTimeout(total=self._timeout)
        try:
            async with self._opened().request(
                method, self.url + path, json=body, timeout=limit, allow_redirects=False
            ) as response:
                content = await response.content.read(MOST_BYTES + 1)
                while len(content) <= MOST_BYTES and (more := await response.content.read(1 << 16)):
                    content += more
                if len(content) > MOST_BYTES:
                    response.close()
                    raise Retry(f"sends more than {MOST_BYTES >> 20} MiB")
                return response.status, content, _seconds(response.headers.get("Retry-After"))
        except asyncio.TimeoutError as error:
            raise Retry(f"does not answer within {self._timeout:g} s (--timeout)") from error
        except (aiohttp.ClientError, OSError) as error:
            raise Retry(
                f"cannot be reached ({_plain(str(error) or type(error).__name__)})"
            ) from error

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            headers = {"Accept-Encoding": "identity"}
            if key := os.environ.get(KEY_VARIABLE):
                headers["Authorization"] = f"Bearer {key}"
            self._session = aiohttp.ClientSession(
                headers=headers,
                connector=aiohttp.TCPConnector(limit=0),
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._session

    def _not_allowed(self, status: int) -> str:
        return (
            f"{self.url}: HTTP {status}, not allowed; set the environment variable {KEY_VARIABLE} "
            "to the server's API key"
        )


def check_url(url: str) -> None:
    """Check the address of a server.

    Raises:
        UserError: It is not an HTTP address, or contains a password or query.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
    if host is None or parts.scheme not in ("http", "https"):
        raise UserError(f"endpoint is {url}; give an address such as http://localhost:8000/v1")
    if "@" in parts.netloc or parts.query:
        raise UserError(
            f"endpoint {parts.scheme}://{host}: contains a password or query; put the API key into "
            f"the environment variable {KEY_VARIABLE}"
        )


def _error_message(content: bytes) -> str:
    """A server's error message, in parentheses."""
    try:
        value = msgspec.json.decode(content)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return ""
    error = value.get("error") if isinstance(value, dict) else None
    message = error.get("message") if isinstance(error, dict) else error
    return f" ({_plain(message)})" if isinstance(message, str) and message else ""


def _plain(text: str) -> str:
    """A server's text for a terminal: one short line without control characters or the API key."""
    line = "".join(c if c.isprintable() else " " for c in text[:2000])
    key = os.environ.get(KEY_VARIABLE)
    return " ".join((line.replace(key, "***") if key else line).split())[:200]


def _seconds(value: str | None) -> float | None:
    return float(value) if value and value.isdecimal() and len(value) < 6 else None
