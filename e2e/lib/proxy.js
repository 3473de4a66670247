// A TCP proxy whose connections a test can cut, as a broken network would.

import { once } from "node:events";
import net from "node:net";

export async function proxy(address) {
  const target = new URL(address);
  const sockets = new Set();
  const server = net.createServer((inside) => {
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
  return {
    address: `http://127.0.0.1:${server.address().port}`,
    cut() {
      for (const socket of sockets) socket.destroy();
    },
    async close() {
      this.cut();
      await new Promise((closed) => server.close(closed));
    },
  };
}
