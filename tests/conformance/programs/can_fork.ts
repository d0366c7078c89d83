/** Starts a server with a child process, and says how that went. Ends with status 1 when it can't. */
import { ForkingTCPServer } from "@sockets/server";

// If it starts itself, then not for ever.
const depth = Number(process.env.SOCKETS_TEST_DEPTH ?? 0);
if (depth > 3) process.exit(9);
process.env.SOCKETS_TEST_DEPTH = String(depth + 1);
// A module of the package, and no part of this program.
const server = new ForkingTCPServer("tcp://127.0.0.1:0", new URL("../handlers/faults.ts", import.meta.url));
try {
  await server.activate();
  console.log("a child was started");
} catch (error) {
  console.log(String(error));
  process.exitCode = 1;
}
await server.serverClose();
