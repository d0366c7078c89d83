/** Echo on this package, as its README shows it. */
import { formatAddress, serve } from "../../mod.ts";

const server = await serve("tcp://127.0.0.1:0", async (conn) => {
  try {
    for await (const chunk of conn) await conn.write(chunk);
  } catch {
    // The load generator resets its connections.
  }
});
console.log(`listening ${formatAddress(server.serverAddress)}`);
