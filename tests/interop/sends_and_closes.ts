/** Replies to one datagram with many that nobody awaits, and closes. Prints what a client has received, and whether the address was free. */
import { AsyncUDPServer, BaseRequestHandler, bind, type Datagram } from "@sockets/server";

const REPLIES = 300;
const SIZE = 1000;

class Many extends BaseRequestHandler<Datagram> {
  override handle(): void {
    for (let i = 0; i < REPLIES; i++) void this.request.reply(new Uint8Array(SIZE));
    void this.server.serverClose().then(async () => {
      const again = await bind(this.server.serverAddress);
      await again.close();
      closed.resolve();
    });
  }
}

const closed = Promise.withResolvers<void>();
const server = new AsyncUDPServer("udp://127.0.0.1:0", Many);
await server.activate();
const serving = server.serveForever();
const client = await bind("udp://127.0.0.1:0");
client.timeout = 5000;
await client.send("x", server.serverAddress);
let received = 0;
while (received < REPLIES && await Promise.resolve(client.receive()).then(() => true, () => false)) received++;
await Promise.all([closed.promise, serving, client.close()]);
console.log(`${received} of ${REPLIES}, errors ${server.stats.errors}`);
