// The official SDK, with the waiting that tests need.

import { once } from "node:events";

import { Centrifuge } from "centrifuge";
import WebSocket from "ws";

const WITHIN_MS = 15_000;

/** Rejects with `what` when `promise` takes too long. */
export async function within(promise, what, milliseconds = WITHIN_MS) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what} did not happen in ${milliseconds} ms`)), milliseconds);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** Connects a client of the SDK and returns it with its connection id. It comes back sooner than by default. */
export async function connect(endpoint) {
  const client = new Centrifuge(endpoint, { websocket: WebSocket, minReconnectDelay: 50, maxReconnectDelay: 500 });
  const connected = once(client, "connected");
  client.connect();
  const [context] = await within(connected, `connecting to ${endpoint}`);
  return { client, id: context.client };
}

/** Asks again and again until `holds` says yes. */
export async function until(holds, what, milliseconds = WITHIN_MS) {
  let over = false;
  const asking = (async () => {
    while (!over && !(await holds())) await new Promise((resolve) => setTimeout(resolve, 10));
  })();
  try {
    await within(asking, what, milliseconds);
  } finally {
    over = true;
  }
}

/** Subscribes and returns the subscription with all that it receives. */
export async function subscribe(client, channel, options) {
  const subscription = client.newSubscription(channel, options);
  const received = [];
  const entries = [];
  const problems = [];
  let wake = () => {};
  // Publications, and how the subscription came about each time, in the order of the events.
  subscription.on("publication", (context) => {
    received.push(context);
    wake();
  });
  subscription.on("subscribed", (context) => {
    entries.push({ ...context, before: received.length });
    wake();
  });
  subscription.on("unsubscribed", ({ code, reason }) => problems.push(`unsubscribed: ${code} ${reason}`));
  subscription.on("error", ({ error }) => problems.push(`error: ${error.code} ${error.message}`));
  /** Waits until a list has grown to `count`. */
  const grown = async (list, count, what, milliseconds) => {
    const enough = async () => {
      while (list.length < count) await new Promise((resolve) => (wake = resolve));
    };
    try {
      await within(enough(), what, milliseconds);
    } catch (error) {
      error.message += ` (there are ${list.length}; ${problems.join(", ") || "no problem was reported"})`;
      throw error;
    }
    return list;
  };
  subscription.subscribe();
  const [context] = await grown(entries, 1, `subscribing to ${channel}`);
  return {
    subscription,
    context,
    received,
    /** Every `subscribed` event, with the number of publications that had come `before`. */
    entries,
    /** Waits until `count` publications have come. */
    holds: (count, milliseconds) => grown(received, count, `${count} publications`, milliseconds),
    /** Waits until the subscription has come about for the `count`th time, and returns how. */
    entered: async (count, milliseconds) =>
      (await grown(entries, count, `subscription number ${count}`, milliseconds))[count - 1],
  };
}
