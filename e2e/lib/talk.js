// Numbered messages: who received which, and whether any is missing, there twice, or out of its place.

import assert from "node:assert/strict";

import { until, within } from "./sdk.js";

/** The numbers from `from` up to but without `to`. */
export const numbers = (from, to) => Array.from({ length: to - from }, (_, index) => from + index);

/** A speaker that publishes 0, 1, 2 … into a room through a client of the SDK. */
export function speaker(client, id, channel) {
  let next = 0;
  const refused = new Set();
  const say = (count) => Promise.all(numbers(next, (next += count)).map((n) => client.publish(channel, { from: id, n })));
  /** Publishes one message; a server that has no time for it just now may say so. */
  const trySay = async () => {
    const n = next;
    try {
      await say(1);
      return true;
    } catch (error) {
      if (!error.temporary) throw error;
      refused.add(n);
      return false;
    }
  };
  return {
    id,
    /** What was refused for the time being: nobody knows whether it arrives. */
    refused,
    /** How many were published so far. */
    count: () => next,
    /** Publishes so many more and waits for the acknowledgements. */
    say: (count) => within(say(count), `${count} acknowledgements`),
    /** Publishes one message each `milliseconds` while `activity` lasts, and at the end one that is acknowledged. */
    async keepTalking(milliseconds, activity) {
      const waiting = [];
      const problems = [];
      const timer = setInterval(() => waiting.push(trySay().catch((error) => problems.push(error))), milliseconds);
      try {
        await activity();
      } finally {
        clearInterval(timer);
        await within(Promise.all(waiting), "the last answers");
      }
      await until(trySay, "the last word");
      assert.deepEqual(problems, [], "what is refused is refused for the time being");
    },
  };
}

/** Waits until a member has the last word of every speaker, and checks that it has all before, once and in order. */
export async function assertHears(member, speakers, who, milliseconds) {
  const last = ({ id, count }) => member.received.some(({ data }) => data.from === id && data.n === count() - 1);
  await until(() => speakers.every(last), `${who}: the last words`, milliseconds);
  assertWhole(member.received, speakers, who);
}

/** Checks that a member has every message of every speaker once, and each speaker's in order. */
export function assertWhole(received, speakers, who) {
  let total = 0;
  for (const { id, count, refused } of speakers) {
    const heard = received.filter(({ data }) => data.from === id).map(({ data }) => data.n);
    const arrived = new Set(heard);
    const expected = numbers(0, count()).filter((n) => arrived.has(n) || !refused.has(n));
    assert.deepEqual(heard, expected, `${who}: every message, once, in order`);
    total += heard.length;
  }
  assert.equal(received.length, total, `${who}: nothing else`);
}
