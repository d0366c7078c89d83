/** Leaves a connection in memory open, with limits that would end it in a year or so, and comes to its end. */
import { connect, serve } from "@sockets/server";
import { memory } from "@sockets/server/testing";

const server = await serve("tcp://127.0.0.1:0", async (conn) => {
  for await (const chunk of conn) await conn.write(chunk);
}, { runtime: memory, requestTimeout: 2 ** 31 - 1 });
const client = await connect(server.serverAddress, { runtime: memory });
await client.write("x");
await client.read();
console.log("left open");
