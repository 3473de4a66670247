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

/** Connects a client of the SDK and returns it with its connection id. */
export async function connect(endpoint) {
  const client = new Centrifuge(endpoint, { websocket: WebSocket });
  const connected = once(client, "connected");
  client.connect();
  const [context] = await within(connected, `connecting to ${endpoint}`);
  return { client, id: context.client };
}

/** Subscribes and returns the subscription with all that it receives. */
export async function subscribe(client, channel, options) {
  const subscription = client.newSubscription(channel, options);
  const received = [];
  let wake = () => {};
  subscription.on("publication", (context) => {
    received.push(context);
    wake();
  });
  const subscribed = once(subscription, "subscribed");
  subscription.subscribe();
  const [context] = await within(subscribed, `subscribing to ${channel}`);
  return {
    subscription,
    context,
    received,
    /** Waits until `count` publications have come. */
    async holds(count) {
      const enough = async () => {
        while (received.length < count) await new Promise((resolve) => (wake = resolve));
      };
      await within(enough(), `${count} publications (there are ${received.length})`);
      return received;
    },
  };
}
