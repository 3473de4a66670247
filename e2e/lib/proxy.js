// A TCP proxy whose connections a test can cut, as a broken network would, and which leads to another node afterwards, as a
// load balancer would.

import { once } from "node:events";
import net from "node:net";

export async function proxy(address) {
  let target = new URL(address);
  let down = false;
  const sockets = new Set();
  const server = net.createServer((inside) => {
    if (down) {
      inside.on("error", () => {});
      inside.destroy();
      return;
    }
    const outside = net.connect(Number(target.port), target.hostname);
    for (const [socket, other] of [[inside, outside], [outside, inside]]) {
      sockets.add(socket);
      socket.on("error", () => other.destroy());
      socket.on("close", () => {
        sockets.delete(socket);
        other.destroy();
      });
      socket.pipe(other);
    }
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const own = `127.0.0.1:${server.address().port}`;
  return {
    address: `http://${own}`,
    endpoint: `ws://${own}/connection/websocket`,
    /** Ends every connection; new ones are let through. */
    cut() {
      for (const socket of sockets) socket.destroy();
    },
    /** Ends every connection, and lets none through until `point`. */
    block() {
      down = true;
      this.cut();
    },
    /** From now on connections lead there. */
    point(elsewhere) {
      target = new URL(elsewhere);
      down = false;
    },
    async close() {
      this.cut();
      await new Promise((closed) => server.close(closed));
    },
  };
}
