// Clients of the official JavaScript SDK that lose their node and come back elsewhere: they get every message that they
// missed, once and in order, before live ones, or they are told that they did not.

import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { test } from "node:test";

import { start, strategies } from "../lib/cluster.js";
import { proxy } from "../lib/proxy.js";
import { connect, subscribe, until } from "../lib/sdk.js";
import { assertHears, assertWhole, numbers, speaker } from "../lib/talk.js";

const MISSED = 100;
/** More than a client that comes back is given at once. */
const TOO_MANY = 350;
/** Longer than a node that is gone holds up any other. */
const AFTER_A_CRASH_MS = 30_000;
/** Strategies that keep history in memory: what does not fit there is gone. */
const FORGETFUL = ["memory", "redis-pubsub"];
const RECOVERABLE = { recoverable: true, joinLeave: true };

/** A cluster with all that a test needs, which ends with the test. */
async function bringUp(t, strategy, count, options) {
  const cluster = await start(strategy, strategy === "memory" ? 1 : count, options);
  const clients = [];
  const wires = [];
  t.after(async () => {
    for (const client of clients) client.disconnect();
    for (const wire of wires) await wire.close();
    await cluster.stop();
  });
  const join = async (endpoint, channel, subscriptionOptions) => {
    const connected = await connect(endpoint);
    clients.push(connected.client);
    return { ...connected, ...(await subscribe(connected.client, channel, subscriptionOptions)) };
  };
  return {
    cluster,
    /** The address of a node; where there is only one, of that one. */
    node: (index) => cluster.addresses[index % cluster.addresses.length],
    join,
    joinAt: (index, ...rest) => join(cluster.endpoints[index % cluster.endpoints.length], ...rest),
    /** A client that can come back, over a link that can be cut and led elsewhere. */
    async traveller(address, channel, subscriptionOptions = RECOVERABLE) {
      const wire = await proxy(address);
      wires.push(wire);
      return { wire, ...(await join(wire.endpoint, channel, subscriptionOptions)) };
    },
    async speaker(index, channel) {
      const { client, id } = await connect(cluster.endpoints[index % cluster.endpoints.length]);
      clients.push(client);
      return speaker(client, id, channel);
    },
  };
}

/** Lets all of them talk while `activity` lasts. */
async function talkAll(t, voices, milliseconds, activity) {
  await voices.reduceRight((inner, voice) => () => voice.keepTalking(milliseconds, inner), activity)();
  const refused = voices.reduce((sum, voice) => sum + voice.refused.size, 0);
  if (refused > 0) t.diagnostic(`${refused} publishes were refused for the time being`);
}

/** Checks how a client came back. */
function assertRecovered(entry, recovered = true) {
  assert.deepEqual([entry.wasRecovering, entry.recovered], [true, recovered]);
}

for (const strategy of strategies()) {
  test(`recovery on ${strategy}`, { timeout: 300_000 }, async (t) => {
    const { cluster, node, join, joinAt, traveller, speaker: speakerAt } = await bringUp(t, strategy, 3);

    await t.test("who was cut off gets 100 missed messages on another node, then live ones", async () => {
      const channel = `e2e:${randomUUID()}`;
      const [member, voice] = [await traveller(node(0), channel), await speakerAt(2, channel)];
      assert.deepEqual([member.context.recoverable, member.context.wasRecovering], [true, false]);
      await voice.say(5);
      await member.holds(5);
      member.wire.block();
      await voice.say(MISSED);
      member.wire.point(node(1));
      const entry = await member.entered(2);
      assertRecovered(entry);
      assert.equal(entry.before, 5, "what was missed follows the event");
      await voice.say(10);
      await member.holds(5 + MISSED + 10);
      assertWhole(member.received, [voice], "who came back");
    });

    await t.test("who left and comes back elsewhere gets 100 missed messages, and so time after time", async () => {
      const channel = `e2e:${randomUUID()}`;
      const [member, voice] = [await traveller(node(0), channel), await speakerAt(1, channel)];
      for (const next of [1, 2, 0]) {
        member.client.disconnect();
        await voice.say(MISSED);
        member.wire.point(node(next));
        member.client.connect();
        assertRecovered(await member.entered(member.entries.length + 1));
        await member.holds(voice.count());
        await voice.say(3);
        await member.holds(voice.count());
      }
      assertWhole(member.received, [voice], "who came back");
    });

    await t.test("who leaves while it takes in what it missed gets the rest when it is back, or is told", async () => {
      const channel = `e2e:${randomUUID()}`;
      const [member, voice] = [await traveller(node(0), channel), await speakerAt(2, channel)];
      await voice.say(5);
      await member.holds(5);
      member.wire.block();
      await voice.say(MISSED);
      member.subscription.on("publication", () => {
        if (member.received.length === 50) member.client.disconnect();
      });
      member.wire.point(node(1));
      assertRecovered(await member.entered(2));
      await member.holds(50);
      member.wire.point(node(2));
      member.client.connect();
      const again = await member.entered(3);
      await voice.say(10);
      if (strategy === "kafka-broadcast" && !again.recovered) {
        // It was on its way from one copy to another, where it has no position. Not the rest, but it is told.
        await member.holds(60);
        assert.deepEqual(member.received.slice(50).map(({ data }) => data.n), numbers(5 + MISSED, 15 + MISSED));
        return;
      }
      assertRecovered(again);
      await member.holds(15 + MISSED);
      assertWhole(member.received, [voice], "who came back twice");
    });

    await t.test("who missed nothing is told so", async () => {
      const channel = `e2e:${randomUUID()}`;
      const [member, voice] = [await traveller(node(0), channel), await speakerAt(0, channel)];
      await voice.say(3);
      await member.holds(3);
      member.wire.block();
      member.wire.point(node(1));
      assertRecovered(await member.entered(2));
      await voice.say(3);
      await member.holds(6);
      assertWhole(member.received, [voice], "who came back");
    });

    await t.test("who missed too much, or names a position that never was, is told so and goes on live", async () => {
      const channel = `e2e:${randomUUID()}`;
      const [member, voice] = [await traveller(node(0), channel), await speakerAt(2, channel)];
      await voice.say(5);
      await member.holds(5);
      member.wire.block();
      await voice.say(TOO_MANY);
      member.wire.point(node(1));
      assertRecovered(await member.entered(2), false);
      const stranger = await traveller(node(1), channel, { since: { offset: 3, epoch: "nowhere" } });
      assertRecovered(stranger.context, false);
      // Whatever is given now was said after they came back.
      await voice.say(5);
      await member.holds(10);
      await stranger.holds(5);
      const news = numbers(TOO_MANY + 5, TOO_MANY + 10);
      assert.deepEqual(member.received.slice(5).map(({ data }) => data.n), news);
      assert.deepEqual(stranger.received.map(({ data }) => data.n), news);
      assert.equal(stranger.context.recoverable, true);
    });

    const spans = strategy !== "memory";
    if (spans) await t.test("a node that has just started gives what was missed, and history, as an old one does", async () => {
      const channel = `e2e:${randomUUID()}`;
      const [member, voice] = [await traveller(node(0), channel), await speakerAt(1, channel)];
      await voice.say(5);
      await member.holds(5);
      member.wire.block();
      await voice.say(MISSED);
      const fresh = await cluster.add();
      const reader = await join(fresh.endpoint, channel);
      const { publications } = await reader.subscription.history({ limit: 300 });
      assert.deepEqual(publications.map(({ data }) => data.n), numbers(0, 5 + MISSED));
      member.wire.point(fresh.address);
      assertRecovered(await member.entered(2));
      await voice.say(10);
      await member.holds(voice.count());
      assertWhole(member.received, [voice], "who came back");
    });

    await t.test("history is read in pages, either way, on any node", async () => {
      const channel = `e2e:${randomUUID()}`;
      const members = await Promise.all([0, 1].map((index) => joinAt(index, channel)));
      const voice = await speakerAt(1, channel);
      const { guarantees } = await (await fetch(`${node(0)}/info`)).json();
      // Where positions are places in a log of many rooms, those of others move the end of it.
      const assertStands = ({ epoch, offset }, top) => {
        assert.equal(epoch, top.epoch);
        assert.ok(guarantees.positions === "dense" ? offset === top.offset : offset >= top.offset, `${offset}, ${top.offset}`);
      };
      await voice.say(10);
      for (const [index, { subscription, holds }] of members.entries()) {
        await holds(10);
        const read = async (query) => {
          const { publications, epoch, offset } = await subscription.history(query);
          return { ns: publications.map(({ data }) => data.n), publications, epoch, offset };
        };
        const all = await read({ limit: -1 });
        assert.deepEqual(all.ns, numbers(0, 10));
        assert.ok(all.publications.every(({ info }) => info.client === voice.id), "with who said it");
        const top = { epoch: all.epoch, offset: all.offset };
        assert.ok(all.publications[9].offset <= top.offset);
        assertStands(await read({}), top);
        assert.deepEqual((await read({})).ns, [], "no limit: the position alone");
        assert.deepEqual((await read({ limit: 4 })).ns, [0, 1, 2, 3]);
        const since = { epoch: all.epoch, offset: all.publications[3].offset };
        assert.deepEqual((await read({ limit: 3, since })).ns, [4, 5, 6]);
        assert.deepEqual((await read({ limit: 100, since: top })).ns, []);
        assert.deepEqual((await read({ limit: 3, reverse: true })).ns, [9, 8, 7]);
        assert.deepEqual((await read({ limit: 2, since, reverse: true })).ns, [2, 1]);
        const refused = (query, code) => assert.rejects(subscription.history(query), (error) => error.code === code);
        await refused({ limit: 1, since: { epoch: "nowhere", offset: 1 } }, 112);
        await refused({ limit: 1, since: { epoch: all.epoch, offset: 0 }, reverse: true }, 107);
        const { result } = await cluster.api(node(index), "history", { channel, limit: 4, since });
        assertStands(result, top);
        assert.deepEqual(result.publications.map(({ data }) => data.n), [4, 5, 6, 7]);
      }
    });

    await t.test("a publish that is repeated with its key, also at another node, is one message", async () => {
      const channel = `e2e:${randomUUID()}`;
      const members = await Promise.all([0, 1].map((index) => joinAt(index, channel)));
      const say = (index, n, key) => cluster.api(node(index), "publish", { channel, data: { n }, idempotency_key: key });
      const key = randomUUID();
      const answers = [await say(0, 0, key), await say(0, 0, key), await say(1, 0, key), await say(1, 1, `${key}-2`)];
      for (const { error } of answers) assert.equal(error, undefined);
      for (const [index, { holds, received, subscription }] of members.entries()) {
        await holds(2);
        assert.deepEqual(received.map(({ data }) => data.n), [0, 1], `member ${index}`);
        const { publications } = await subscription.history({ limit: 10 });
        assert.deepEqual(publications.map(({ data }) => data.n), [0, 1], `history at node ${index}`);
      }
      await members[0].subscription.publish({ n: 2 });
      for (const { holds, received } of members) {
        await holds(3);
        assert.deepEqual(received.map(({ data }) => data.n), [0, 1, 2]);
      }
    });

    await t.test("history that was removed is not made up", async () => {
      const channel = `e2e:${randomUUID()}`;
      const [member, voice] = [await traveller(node(0), channel), await speakerAt(1, channel)];
      await voice.say(5);
      await member.holds(5);
      member.wire.block();
      await voice.say(5);
      const { error } = await cluster.api(node(1), "history_remove", { channel });
      // A log cannot forget a single room; then all is there still.
      if (error) assert.equal(error.code, 108);
      member.wire.point(node(1));
      assertRecovered(await member.entered(2), Boolean(error));
      await voice.say(5);
      await member.holds(error ? 15 : 10);
      const expected = error ? numbers(0, 15) : [...numbers(0, 5), ...numbers(10, 15)];
      assert.deepEqual(member.received.map(({ data }) => data.n), expected);
    });

    await t.test("five clients come back again and again while two others keep talking", async () => {
      await cluster.settled();
      const channel = `e2e:${randomUUID()}`;
      const members = await Promise.all(numbers(0, 5).map((index) => traveller(node(index), channel)));
      const voices = [await speakerAt(0, channel), await speakerAt(1, channel)];
      const comeBack = async (member, index, round) => {
        member.wire.block();
        const said = voices[0].count();
        await until(() => voices[0].count() > said + 5 * index, "talk goes on");
        member.wire.point(node(index + round));
        assertRecovered(await member.entered(round + 1));
      };
      await talkAll(t, voices, 10, async () => {
        for (const round of numbers(1, 6)) {
          await Promise.all(members.map((member, index) => comeBack(member, index, round)));
        }
      });
      for (const [index, member] of members.entries()) {
        await assertHears(member, voices, `member ${index}`);
      }
    });

    if (strategy === "memory") {
      await t.test("a node that was killed and is back knows nothing, and says so", async () => {
        const channel = `e2e:${randomUUID()}`;
        const [member, voice] = [await traveller(node(0), channel), await speakerAt(0, channel)];
        await voice.say(5);
        await member.holds(5);
        cluster.kill(0);
        await cluster.add(0);
        assertRecovered(await member.entered(2, AFTER_A_CRASH_MS), false);
        const after = await speakerAt(0, channel);
        await after.say(5);
        await member.holds(10);
        assert.deepEqual(member.received.map(({ data }) => data.n), [...numbers(0, 5), ...numbers(0, 5)]);
      });
    } else {
      await t.test("five clients of a killed node are whole on the others, where talk never stopped", async () => {
        const channel = `e2e:${randomUUID()}`;
        const witness = await join(cluster.endpoints[1], channel, RECOVERABLE);
        const left = new Set();
        witness.subscription.on("leave", ({ info }) => left.add(info.client));
        const members = await Promise.all(numbers(0, 5).map(() => traveller(node(0), channel)));
        const ids = members.map(({ id }) => id);
        const voices = [await speakerAt(1, channel), await speakerAt(2, channel)];
        await talkAll(t, voices, 20, async () => {
          await Promise.all(members.map(({ holds }) => holds(20)));
          cluster.kill(0);
          for (const { wire } of members) wire.block();
          const said = voices[0].count();
          await until(() => voices[0].count() > said + 50, "talk goes on");
          for (const [index, { wire }] of members.entries()) wire.point(node(1 + (index % 2)));
          for (const member of members) assertRecovered(await member.entered(2, AFTER_A_CRASH_MS));
        });
        for (const [index, member] of [...members, witness].entries()) {
          await assertHears(member, voices, index < 5 ? `member ${index}` : "the witness", AFTER_A_CRASH_MS);
        }
        assert.equal(witness.entries.length, 1, "who was on another node noticed nothing");
        await until(() => ids.every((id) => left.has(id)), "the clients of the killed node leave", AFTER_A_CRASH_MS);
        const { clients } = await witness.subscription.presence();
        assert.equal(Object.keys(clients).length, 6, "they are present under their new ids alone");
        assert.ok(ids.every((id) => !(id in clients)));
      });
    }
  });
}

for (const strategy of strategies().filter((name) => [...FORGETFUL, "hybrid"].includes(name))) {
  test(`short history on ${strategy}`, { timeout: 120_000 }, async (t) => {
    const { node, traveller, speaker: speakerAt } = await bringUp(t, strategy, 2, ["history_messages=20"]);
    const forgets = FORGETFUL.includes(strategy);

    await t.test(`what no longer fits is ${forgets ? "declared as lost" : "read from the log"}`, async () => {
      const channel = `e2e:${randomUUID()}`;
      const [member, voice] = [await traveller(node(0), channel), await speakerAt(1, channel)];
      await voice.say(5);
      await member.holds(5);
      member.wire.block();
      // Redis trims in steps of some hundred.
      await voice.say(280);
      member.wire.point(node(1));
      assertRecovered(await member.entered(2), !forgets);
      await voice.say(5);
      await member.holds(forgets ? 10 : 290);
      const expected = forgets ? [...numbers(0, 5), ...numbers(285, 290)] : numbers(0, 290);
      assert.deepEqual(member.received.map(({ data }) => data.n), expected);
    });
  });
}
