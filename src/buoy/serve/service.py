"""What the routes share: the models, the limits, and how a picture is asked about."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from starlette.requests import ClientDisconnect, Request

from buoy.errors import BuoyError, UsageError
from buoy.serve import query
from buoy.serve.access import Access
from buoy.serve.account import current
from buoy.serve.connection import LEAVING, Leaving
from buoy.serve.metrics import Metrics
from buoy.serve.rate import Rate, Rates
from buoy.serve.refusals import NotReady, Unknown
from buoy.serve.remote import Answer, Looker, Question
from buoy.serve.settings import Settings, traced
from buoy.serve.upload import Limits, Uploads
from buoy.serve.visit import Visit

if TYPE_CHECKING:
    from buoy.serve.live.registry import Registry
    from buoy.serve.tracing import Tracing

__all__ = ["PARAMETERS", "Service"]

#: Parameters of the query that every way of asking about a picture has.
PARAMETERS = ("score", "iou", "name", "deadline_ms")


class Service:
    """The models that are served, and what all requests have in common."""

    deadline_s = 10.0

    def __init__(self, settings: Settings, lookers: Sequence[Looker], metrics: Metrics, names: Sequence[str]) -> None:
        self.settings = settings
        self.lookers = lookers
        self.metrics = metrics
        self.access = _access(settings, tuple(names))
        self.visit = Visit(
            names[-1],
            settings.base_path,
            secure=settings.certificate is not None,
            trusting=not settings.token and settings.oidc is None,
            origins=settings.cors,
        )
        self.tracing = _tracing()
        self._live: Registry | None = None
        self.uploads = Uploads(Limits(settings.max_upload_bytes))
        #: Set when we have been asked to end: what was accepted is finished, nothing new begins.
        self.draining = False
        metrics.uploads.ask(lambda: self.uploads.open)
        for looker in lookers:
            metrics.pending.ask(partial(getattr, looker, "pending"), model=looker.name)
            metrics.waiting.ask(partial(getattr, looker, "waiting"), model=looker.name)
            metrics.ready.ask(partial(getattr, looker, "ready"), model=looker.name)

    @property
    def live(self) -> Registry:
        """The streams; most services have none, and load nothing for them.

        Raises:
            UsageError: what the operator's file or the data folder says of streams cannot be used.
        """
        self._live = self._live or self._make_live()
        self._live.start()
        return self._live

    def prepare_live(self) -> None:
        """Read what is asked of streams, if anything is, before the service begins.

        Raises:
            UsageError: see `live`.
        """
        if self.settings.streams or self.settings.data:
            self._live = self._make_live()

    def start_live(self) -> None:
        """Begin with the streams that were asked for."""
        if self._live is not None:
            self._live.start()

    async def close_live(self) -> None:
        """End the streams, if there are any."""
        if self._live is not None:
            await self._live.close()

    def _make_live(self) -> Registry:
        from buoy.serve.live.kept import read_file
        from buoy.serve.live.registry import Registry

        configured = read_file(self.settings.streams) if self.settings.streams else ()
        return Registry(self.lookers, self.metrics, self.settings.data, configured)

    @property
    def ready(self) -> bool:
        """Whether every model answers, and we are not about to end."""
        return not self.draining and all(looker.ready for looker in self.lookers)

    def looker(self, request: Request) -> Looker:
        """The model that the path names, or the only one; raises as `find` does."""
        return self.find(request.path_params.get("model"), request.path_params.get("version", ""))

    def find(self, wanted: str | None, version: str = "") -> Looker:
        """The model of that name; without a name the only one.

        Raises:
            Unknown: there is no such model, or it has another version now.
            UsageError: none is named, and there are several.
        """
        names = ", ".join(looker.name for looker in self.lookers)
        if wanted is None and len(self.lookers) > 1:
            raise UsageError("several models are served here", f"name one: POST /models/NAME/predict with {names}")
        for looker in self.lookers:
            if wanted in (None, looker.name):
                known = looker.about.get("model", {}).get("version", "")
                if version not in ("", known):
                    raise Unknown(f"there is no version {version[:40]!r} of {looker.name} here", f"it is {known} now")
                return looker
        raise Unknown(f"there is no model {wanted!r} here", f"models here: {names}")

    def admit(self, looker: Looker, deadline_s: float) -> None:
        """Refuse before the body is read, if there is no room or no time.

        Raises:
            NotReady: about to end, or not yet loaded.
            BusyError: too many wait.
        """
        if self.draining:
            raise NotReady("the service is about to end", "send it again: another instance may take it")
        looker.admit(deadline_s)

    async def predict(self, request: Request, asked: Mapping[str, str], form: str) -> Answer:
        """Check what is asked, receive the picture, and have it looked at.

        Args:
            request: with the picture in its body.
            asked: the parameters in `PARAMETERS` that were given.
            form: of the answer.
        """
        looker = self.looker(request)
        thresholds = {key: query.fraction(key, asked[key]) for key in ("score", "iou") if key in asked}
        name = query.name(asked.get("name", ""))
        deadline_s = query.deadline_s(request, asked, self.deadline_s)
        self.admit(looker, deadline_s)
        async with self.uploads.picture(request) as upload:
            called = name or query.name(upload.name) or "upload"
            return await self.ask(request, looker, Question(upload.file, called, form, thresholds, deadline_s))

    async def ask(self, request: Request, looker: Looker, question: Question) -> Answer:
        """Have a received picture looked at, as long as the client waits for it.

        Raises:
            ClientDisconnect: it does not.
            BuoyError: see `Looker.ask`.
        """
        leaving: Leaving = request.scope[LEAVING]
        task = asyncio.current_task()
        assert task is not None
        try:
            with leaving.told(task.cancel):
                return await self.look(looker, question)
        except asyncio.CancelledError:
            if leaving.gone and not task.uncancel():
                raise ClientDisconnect from None
            raise  # somebody else has cancelled us

    async def look(self, looker: Looker, question: Question) -> Answer:
        """Have a received picture looked at, and count what comes of it. Cancelling the call takes it out again.

        Raises:
            BuoyError: see `Looker.ask`.
        """
        began_ns, began_s, model = time.time_ns(), time.monotonic(), looker.name
        try:
            answer = await looker.ask(question)
        except BuoyError as error:
            self.metrics.failure.add(1, model=model, reason=error.record()["class"])
            raise
        except asyncio.CancelledError:
            self.metrics.failure.add(1, model=model, reason="ClientDisconnect")
            raise
        self.metrics.answered(model, answer.version, time.monotonic() - began_s, answer.spent)
        if account := current.get():
            account.looked(model, began_ns, answer.spent)
        return answer


def _access(settings: Settings, names: tuple[str, ...]) -> Access:
    verifier = None
    if settings.oidc is not None:
        from buoy.serve.oidc import Tokens  # an extra, and slow to import

        verifier = Tokens(settings.oidc)
    rates = Rates(Rate.parse(settings.rate)) if settings.rate else None
    return Access(settings.token, names, verifier, rates)


def _tracing() -> Tracing | None:
    if not traced(os.environ):
        return None
    from buoy.serve.tracing import Tracing  # an extra, and slow to import

    return Tracing()
