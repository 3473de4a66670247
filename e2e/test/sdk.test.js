// The official JavaScript SDK, unchanged, on every strategy: clients on different nodes exchange messages.

import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { test } from "node:test";

import { start, strategies } from "../lib/cluster.js";
import { connect, subscribe, within } from "../lib/sdk.js";

const EACH = 50;

for (const strategy of strategies()) {
  test(`SDK on ${strategy}`, { timeout: 240_000 }, async (t) => {
    const cluster = await start(strategy, strategy === "memory" ? 1 : 2);
    const clients = [];
    t.after(async () => {
      for (const client of clients) client.disconnect();
      await cluster.stop();
    });
    const join = async (endpoint, channel, options) => {
      const { client, id } = await connect(endpoint);
      clients.push(client);
      return { client, id, ...(await subscribe(client, channel, options)) };
    };
    const ends = [cluster.endpoints[0], cluster.endpoints.at(-1)];

    await t.test("says what it is", async () => {
      const infos = await Promise.all(cluster.addresses.map(async (a) => (await fetch(`${a}/info`)).json()));
      assert.deepEqual(infos.map((info) => info.strategy), infos.map(() => strategy));
      assert.equal(new Set(infos.map((info) => info.node)).size, cluster.addresses.length);
    });

    await t.test("two clients talk both ways, each message once and in its publisher's order", async () => {
      const channel = `e2e:${randomUUID()}`;
      const members = await Promise.all(ends.map((endpoint) => join(endpoint, channel)));
      const talk = async ({ id, subscription }) => {
        for (let n = 0; n < EACH; n += 1) await subscription.publish({ from: id, n, text: `Grüße 🦀 "${n}"\n` });
      };
      await within(Promise.all(members.map(talk)), "publishing");
      for (const member of members) {
        const received = await member.holds(2 * EACH);
        for (const { id } of members) {
          const own = received.filter((context) => context.data.from === id);
          assert.deepEqual(own.map((context) => context.data.n), Array.from({ length: EACH }, (_, n) => n));
          assert.ok(own.every((context) => context.info.client === id && context.data.text.startsWith("Grüße 🦀")));
        }
        assert.equal(received.length, 2 * EACH, "nothing twice");
      }
    });

    await t.test("data of every kind arrives as it was", async () => {
      const channel = `e2e:${randomUUID()}`;
      const [one, other] = await Promise.all(ends.map((endpoint) => join(endpoint, channel)));
      const kinds = [null, 0, -1.5, true, "", [], {}, { nested: { "a\"b": ["\u0000\u2028", "\ud83e\udd80"] } }, "x".repeat(60_000)];
      for (const data of kinds) await one.subscription.publish(data);
      const received = await other.holds(kinds.length);
      assert.deepEqual(received.map((context) => context.data), kinds);
    });

    await t.test("who is not in the room hears nothing of it", async () => {
      const [loud, quiet] = [`e2e:${randomUUID()}`, `e2e:${randomUUID()}`];
      const speaker = await join(ends[0], loud);
      const outsider = await join(ends[1], quiet);
      const left = await join(ends[1], loud);
      left.subscription.unsubscribe();
      // The leave has taken effect when a later command of the same connection is answered.
      await subscribe(left.client, quiet);
      await speaker.subscription.publish("secret");
      await speaker.holds(1);
      const fence = await join(ends[0], quiet);
      await fence.subscription.publish("fence");
      await outsider.holds(1);
      assert.deepEqual(outsider.received.map((context) => context.data), ["fence"]);
      assert.deepEqual(left.received, []);
    });

    await t.test("both ends know who is there, and see who comes and goes", async () => {
      const channel = `e2e:${randomUUID()}`;
      const one = await join(ends[0], channel, { joinLeave: true });
      const seen = [];
      for (const event of ["join", "leave"]) {
        one.subscription.on(event, ({ info }) => seen.push(`${event} ${info.client}`));
      }
      const until = (holds, what) => within((async () => {
        while (!(await holds())) await new Promise((resolve) => setTimeout(resolve, 10));
      })(), what);
      const other = await join(ends[1], channel);
      for (const { subscription } of [one, other]) {
        await until(async () => (await subscription.presenceStats()).numClients === 2, "presence of two");
        const { clients: present } = await subscription.presence();
        assert.deepEqual(Object.keys(present).sort(), [one.id, other.id].sort());
      }
      await until(() => seen.includes(`join ${other.id}`), "the join");
      other.client.disconnect();
      await until(() => seen.includes(`leave ${other.id}`), "the leave");
      await until(async () => (await one.subscription.presenceStats()).numClients === 1, "presence of one");
    });

    await t.test("mistakes are answered, and the connection lives on", async () => {
      const member = await join(ends[0], `e2e:${randomUUID()}`);
      await assert.rejects(member.client.rpc("nothing", {}), (error) => [104, 108].includes(error.code));
      const elsewhere = { limit: 1, since: { offset: 1, epoch: "nowhere" } };
      await assert.rejects(member.subscription.history(elsewhere), (error) => error.code === 112);
      await member.subscription.publish("still here");
      await member.holds(1);
    });

    await t.test("a client that comes back is in its room again", async () => {
      const channel = `e2e:${randomUUID()}`;
      const [one, other] = await Promise.all(ends.map((endpoint) => join(endpoint, channel)));
      one.client.disconnect();
      one.client.connect();
      await within(one.subscription.ready(), "resubscribing");
      await other.subscription.publish("welcome back");
      assert.equal((await one.holds(1))[0].data, "welcome back");
    });
  });
}
