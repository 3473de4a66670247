// Numbered messages: who received which, and whether any is missing, there twice, or out of its place.

import assert from "node:assert/strict";

import { within } from "./sdk.js";

/** The numbers from `from` up to but without `to`. */
export const numbers = (from, to) => Array.from({ length: to - from }, (_, index) => from + index);

/** A speaker that publishes 0, 1, 2 … into a room through a client of the SDK. */
export function speaker(client, id, channel) {
  let next = 0;
  const say = (count) => Promise.all(numbers(next, (next += count)).map((n) => client.publish(channel, { from: id, n })));
  return {
    id,
    /** How many were published so far. */
    count: () => next,
    /** Publishes so many more and waits for the acknowledgements. */
    say: (count) => within(say(count), `${count} acknowledgements`),
    /** Publishes one message each `milliseconds` while `activity` lasts, and waits for what is under way then. */
    async keepTalking(milliseconds, activity) {
      const waiting = [];
      const refused = [];
      const timer = setInterval(() => waiting.push(say(1).catch((error) => refused.push(error))), milliseconds);
      try {
        await activity();
      } finally {
        clearInterval(timer);
        await within(Promise.all(waiting), "the last acknowledgements");
      }
      assert.deepEqual(refused, [], "every publish is acknowledged");
    },
  };
}

/** Checks that a member has every message of every speaker once, and each speaker's in order. */
export function assertWhole(received, speakers, who) {
  for (const { id, count } of speakers) {
    const heard = received.filter(({ data }) => data.from === id).map(({ data }) => data.n);
    assert.deepEqual(heard, numbers(0, count()), `${who}: every message, once, in order`);
  }
  assert.equal(received.length, speakers.reduce((sum, { count }) => sum + count(), 0), `${who}: nothing else`);
}
