/** Reads into one buffer for each connection: `ours_read_into.ts echo|sink`. */
import { formatAddress, serve } from "../../mod.ts";

const [mode] = process.argv.slice(2);
const server = await serve("tcp://127.0.0.1:0", async (conn) => {
  const buffer = new Uint8Array(65_536);
  try {
    for (let size; (size = await conn.readInto(buffer)) !== null;) {
      if (mode === "echo") await conn.write(buffer.subarray(0, size));
    }
  } catch {
    // The load generator resets its connections.
  }
});
console.log(`listening ${formatAddress(server.serverAddress)}`);
