/** Echo on this package with `forEach()`, its fastest way to read. */
import { formatAddress, serve } from "../../mod.ts";

const server = await serve("tcp://127.0.0.1:0", async (conn) => {
  // The load generator resets its connections.
  await conn.forEach((chunk) => conn.write(chunk)).catch(() => {});
});
console.log(`listening ${formatAddress(server.serverAddress)}`);
