"""Clients of the official Python SDK that lose their node and come back elsewhere: they get every message that they missed,
once and in order, before live ones, or they are told that they did not.

`MANIFOLD_E2E` says where the nodes are, which `test/python.test.js` starts:
{"strategy": …, "api_key": …, "nodes": [{"address": …, "endpoint": …, "pid": …}, …]}.
"""

import asyncio
import json
import os
import signal
import unittest
import uuid

from centrifuge import ClientState, StreamPosition

from client import Member, Speaker, api
from wire import Wire

CLUSTER = json.loads(os.environ["MANIFOLD_E2E"])
NODES = CLUSTER["nodes"]
MISSED = 100
# More than a client that comes back is given at once.
TOO_MANY = 350
# Longer than a node that is gone holds up any other.
AFTER_A_CRASH_S = 30.0


def node(index: int) -> dict:
    return NODES[index % len(NODES)]


class Case(unittest.IsolatedAsyncioTestCase):
    """A room of its own, and an end for all that was started."""

    def setUp(self) -> None:
        self.channel = f"e2e:{uuid.uuid4()}"

    async def member(self, endpoint: str, **options) -> Member:
        member = Member(endpoint, self.channel)
        self.addAsyncCleanup(member.client.disconnect)
        return await member.subscribe(**options)

    async def traveller(self, index: int, **options) -> tuple[Member, Wire]:
        """A client that can come back, over a link that can be cut and led elsewhere."""
        wire = await Wire.to(node(index)["address"])
        self.addAsyncCleanup(wire.close)
        return await self.member(wire.endpoint, recoverable=True, **options), wire

    async def speaker(self, index: int) -> Speaker:
        speaker = Speaker(node(index)["endpoint"], self.channel)
        await speaker.client.connect()
        self.addAsyncCleanup(speaker.client.disconnect)
        return speaker

    def assert_recovered(self, entry, recovered: bool = True) -> None:
        self.assertEqual((entry.was_recovering, entry.recovered), (True, recovered))

    async def assert_whole(self, member: Member, speaker: Speaker, seconds: float = AFTER_A_CRASH_S) -> None:
        heard = await member.hears(speaker, seconds)
        self.assertEqual(heard, [n for n in range(speaker.count) if n in heard or n not in speaker.refused])


class ComingBack(Case):
    """Everybody's node stays up."""

    async def test_who_was_cut_off_gets_100_missed_messages_on_another_node_then_live_ones(self) -> None:
        member, wire = await self.traveller(0)
        speaker = await self.speaker(2)
        self.assertTrue(member.entries[0].recoverable)
        self.assertFalse(member.entries[0].was_recovering)
        await speaker.say(5)
        await member.holds(5)
        wire.block()
        await speaker.say(MISSED)
        wire.point(node(1)["address"])
        self.assert_recovered(await member.entered(2))
        await speaker.say(10)
        await self.assert_whole(member, speaker)

    async def test_who_left_and_comes_back_elsewhere_gets_100_missed_messages_time_after_time(self) -> None:
        member, wire = await self.traveller(0)
        speaker = await self.speaker(1)
        for index in (1, 2, 0):
            await member.client.disconnect()
            await speaker.say(MISSED)
            wire.point(node(index)["address"])
            await member.client.connect()
            self.assert_recovered(await member.entered(len(member.entries) + 1))
            await self.assert_whole(member, speaker)
            await speaker.say(3)
            await self.assert_whole(member, speaker)

    async def test_who_is_cut_off_again_while_it_takes_in_what_it_missed_gets_the_rest_or_is_told(self) -> None:
        member, wire = await self.traveller(0)
        speaker = await self.speaker(2)
        await speaker.say(5)
        await member.holds(5)
        wire.block()
        await speaker.say(MISSED)

        async def cut_again() -> None:
            if len(member.received) == 50:
                wire.block()
                # The client has noticed before it is given the next one.
                while member.client.state == ClientState.CONNECTED:
                    await asyncio.sleep(0)
                wire.point(node(2)["address"])

        member.on_each = cut_again
        wire.point(node(1)["address"])
        self.assert_recovered(await member.entered(2))
        again = await member.entered(3)
        await speaker.say(10)
        if CLUSTER["strategy"] == "kafka-broadcast" and not again.recovered:
            # It was on its way from one copy to another, where it has no position. Not the rest, but it is told.
            self.assertEqual(await member.holds(60), [*range(50), *range(5 + MISSED, 15 + MISSED)])
        else:
            self.assert_recovered(again)
            await self.assert_whole(member, speaker)

    async def test_who_missed_too_much_is_told_so_and_goes_on_live(self) -> None:
        member, wire = await self.traveller(0)
        speaker = await self.speaker(2)
        await speaker.say(5)
        await member.holds(5)
        wire.block()
        await speaker.say(TOO_MANY)
        wire.point(node(1)["address"])
        self.assert_recovered(await member.entered(2), False)
        await speaker.say(5)
        self.assertEqual(await member.holds(10), [*range(5), *range(TOO_MANY + 5, TOO_MANY + 10)])

    async def test_who_asks_for_an_error_instead_gets_it_and_loads_its_state_again(self) -> None:
        speaker = await self.speaker(0)
        await speaker.say(5)
        reader = await self.member(node(1)["endpoint"])
        loads = []

        async def load(_channel: str) -> StreamPosition:
            loads.append(None)
            if len(loads) == 1:
                return StreamPosition(offset=3, epoch="nowhere")
            page = await reader.subscription.history(limit=3)
            return StreamPosition(offset=page.publications[-1].offset, epoch=page.epoch)

        member = await self.member(node(1)["endpoint"], recoverable=True, get_state=load)
        self.assert_recovered(member.entries[0])
        self.assertEqual(len(loads), 2, "the first position was refused")
        await speaker.say(2)
        self.assertEqual(await member.holds(4), [3, 4, 5, 6])

    async def test_history_is_read_in_pages_either_way(self) -> None:
        members = [await self.member(node(index)["endpoint"]) for index in (0, 1)]
        speaker = await self.speaker(1)
        await speaker.say(10)
        for index, member in enumerate(members):
            await member.holds(10)

            async def read(**query) -> list[int]:
                page = await member.subscription.history(**query)
                return [publication.data["n"] for publication in page.publications]

            page = await member.subscription.history(limit=100)
            self.assertEqual([publication.data["n"] for publication in page.publications], list(range(10)))
            since = StreamPosition(offset=page.publications[3].offset, epoch=page.epoch)
            self.assertEqual(await read(), [])
            self.assertEqual(await read(limit=3, since=since), [4, 5, 6])
            self.assertEqual(await read(limit=3, reverse=True), [9, 8, 7])
            self.assertEqual(await read(limit=2, since=since, reverse=True), [2, 1])
            params = {"channel": self.channel, "limit": 2}
            answer = await asyncio.to_thread(api, node(index)["address"], CLUSTER["api_key"], "history", params)
            self.assertEqual([publication["data"]["n"] for publication in answer["result"]["publications"]], [0, 1])


class Crash(Case):
    """The first node is killed. Nothing that comes after this can use it."""

    async def test_clients_of_a_killed_node_are_whole_on_the_others_where_talk_never_stopped(self) -> None:
        witness = await self.member(node(1)["endpoint"], recoverable=True, join_leave=True)
        travellers = [await self.traveller(0) for _ in range(5)]
        ids = {member.ids[0] for member, _ in travellers}
        speaker = await self.speaker(2)
        async with speaker.talking(0.02):
            for member, _ in travellers:
                await member.holds(10)
            os.kill(NODES[0]["pid"], signal.SIGKILL)
            for _, wire in travellers:
                wire.block()
            await speaker.goes_on(50)
            for index, (_, wire) in enumerate(travellers):
                wire.point(node(1 + index % 2)["address"])
            for member, _ in travellers:
                self.assert_recovered(await member.entered(2, AFTER_A_CRASH_S))
        for member in [witness, *(member for member, _ in travellers)]:
            await self.assert_whole(member, speaker)
        self.assertEqual(len(witness.entries), 1, "who was on another node noticed nothing")
        await witness.has_seen_leave(ids, AFTER_A_CRASH_S)
        present = await witness.subscription.presence()
        self.assertEqual(set(present.clients), {witness.ids[0], *(member.ids[-1] for member, _ in travellers)})
        self.assertEqual((await witness.subscription.presence_stats()).num_clients, 6)


if __name__ == "__main__":
    unittest.main(verbosity=2)
