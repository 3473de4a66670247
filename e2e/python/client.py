"""The official SDK, with the waiting that tests need. Nothing here sleeps: whoever waits is woken by the event."""

import asyncio
import contextlib
import json
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable

from centrifuge import (
    Client,
    ClientEventHandler,
    ConnectedContext,
    LeaveContext,
    PublicationContext,
    ReplyError,
    SubscribedContext,
    SubscriptionErrorContext,
    SubscriptionEventHandler,
    UnsubscribedContext,
)

WITHIN_S = 15.0


class Watched:
    """A condition that events may have changed."""

    def __init__(self) -> None:
        self._changed = asyncio.Event()

    def wake(self) -> None:
        self._changed.set()

    async def until(self, holds: Callable[[], bool], what: Callable[[], str], seconds: float = WITHIN_S) -> None:
        """Waits for the events after which `holds` says yes."""
        try:
            async with asyncio.timeout(seconds):
                while not holds():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(f"{what()} after {seconds} s") from None


class Member(SubscriptionEventHandler):
    """A client in one room, with all that it was told."""

    def __init__(self, endpoint: str, channel: str) -> None:
        self.received: list[dict] = []
        self.entries: list[SubscribedContext] = []
        self.left: set[str] = set()
        self.problems: list[str] = []
        self.ids: list[str] = []
        # What a test does with each publication, before the next one is handed out.
        self.on_each: Callable[[], Awaitable[None]] | None = None
        self._watched = Watched()
        backoff = {"min_reconnect_delay": 0.05, "max_reconnect_delay": 0.5}
        self.client = Client(endpoint, events=ConnectedOnly(self), proxy=None, **backoff)
        self.channel = channel
        self.subscription = None

    async def subscribe(self, **options) -> "Member":
        await self.client.connect()
        self.subscription = self.client.new_subscription(self.channel, events=self, **options)
        await self.subscription.subscribe()
        await self.entered(1)
        return self

    async def on_publication(self, ctx: PublicationContext) -> None:
        self.received.append(ctx.pub.data)
        self._watched.wake()
        if self.on_each is not None:
            await self.on_each()

    async def on_subscribed(self, ctx: SubscribedContext) -> None:
        self.entries.append(ctx)
        self._watched.wake()

    async def on_leave(self, ctx: LeaveContext) -> None:
        self.left.add(ctx.info.client)
        self._watched.wake()

    async def on_unsubscribed(self, ctx: UnsubscribedContext) -> None:
        self.problems.append(f"unsubscribed: {ctx.code} {ctx.reason}")

    async def on_error(self, ctx: SubscriptionErrorContext) -> None:
        self.problems.append(f"error: {ctx.code} {ctx.error}")

    async def entered(self, count: int, seconds: float = WITHIN_S) -> SubscribedContext:
        """Waits until the subscription has come about for the `count`th time, and returns how."""
        what = lambda: f"subscribed {len(self.entries)} times and not {count} ({self.problems})"  # noqa: E731
        await self._watched.until(lambda: len(self.entries) >= count, what, seconds)
        return self.entries[count - 1]

    async def holds(self, count: int, seconds: float = WITHIN_S) -> list[int]:
        """Waits until `count` publications have come, and returns the numbers of all."""
        what = lambda: f"received {len(self.received)} publications and not {count} ({self.problems})"  # noqa: E731
        await self._watched.until(lambda: len(self.received) >= count, what, seconds)
        return [data["n"] for data in self.received]

    async def hears(self, speaker: "Speaker", seconds: float = WITHIN_S) -> list[int]:
        """Waits for a speaker's last word, and returns the numbers of all publications."""
        what = lambda: f"the last word is missing from {len(self.received)} publications ({self.problems})"  # noqa: E731
        last = speaker.count - 1
        await self._watched.until(lambda: any(data["n"] == last for data in self.received), what, seconds)
        return [data["n"] for data in self.received]

    async def has_seen_leave(self, ids: set[str], seconds: float) -> None:
        await self._watched.until(lambda: ids <= self.left, lambda: f"no leave of {ids - self.left}", seconds)


class ConnectedOnly(ClientEventHandler):
    """Notes the ids of a member's connections."""

    def __init__(self, member: Member) -> None:
        self._member = member

    async def on_connected(self, ctx: ConnectedContext) -> None:
        self._member.ids.append(ctx.client)


class Speaker:
    """Publishes 0, 1, 2 … into a room."""

    def __init__(self, endpoint: str, channel: str) -> None:
        self.client = Client(endpoint, proxy=None)
        self.channel = channel
        self.count = 0
        # What was refused for the time being: nobody knows whether it arrives.
        self.refused: set[int] = set()
        self._watched = Watched()

    async def say(self, count: int) -> None:
        """Publishes so many more, and waits for each acknowledgement."""
        for _ in range(count):
            n, self.count = self.count, self.count + 1
            await self.client.publish(self.channel, {"n": n})
            self._watched.wake()

    async def try_to_say(self) -> bool:
        """Publishes one message; a server that has no time for it just now may say so."""
        n = self.count
        try:
            await self.say(1)
        except ReplyError as error:
            if not error.temporary:
                raise
            self.refused.add(n)
        return n not in self.refused

    async def goes_on(self, count: int) -> None:
        """Waits until so many more were published."""
        target = self.count + count
        await self._watched.until(lambda: self.count >= target, lambda: f"only {self.count} of {target} published")

    @contextlib.asynccontextmanager
    async def talking(self, seconds: float) -> AsyncIterator[None]:
        """Publishes one message each `seconds` meanwhile, and at the end one that is acknowledged."""
        silence = asyncio.Event()

        async def talk() -> None:
            while not silence.is_set():
                await self.try_to_say()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(silence.wait(), seconds)

        talk_task = asyncio.create_task(talk())
        try:
            yield
        finally:
            silence.set()
            await talk_task
        async with asyncio.timeout(WITHIN_S):
            while not await self.try_to_say():
                pass


def api(address: str, key: str, method: str, params: dict) -> dict:
    """What the server API answers."""
    headers = {"x-api-key": key, "content-type": "application/json"}
    request = urllib.request.Request(f"{address}/api/{method}", json.dumps(params).encode(), headers)
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=WITHIN_S) as response:
        return json.load(response)
