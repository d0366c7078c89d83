/** Uses up the process's descriptors, says what servers and clients get then, frees some and serves again. */
import { AsyncTCPServer, connect, SocketError, TCPServer } from "@sockets/server";
import { closeSync, openSync } from "node:fs";
import { EchoHandler } from "../serving.ts";

const server = new AsyncTCPServer("tcp://127.0.0.1:0", EchoHandler);
server.handleError = () => {};
await server.activate();
void server.serveForever();
// Whatever the first connection loads is open before the descriptors run out.
await (await connect(server.serverAddress)).close();

const hogs: number[] = [];
try {
  for (;;) hogs.push(openSync("/dev/null", "r"));
} catch {
  // As many as there are.
}
const code = (error: unknown) => error instanceof SocketError ? error.code : String(error);
await new TCPServer("tcp://127.0.0.1:0", EchoHandler).activate().catch((error) => console.log("listen", code(error)));
await connect(server.serverAddress).catch((error) => console.log("connect", code(error)));
for (const hog of hogs) closeSync(hog);

const client = await connect(server.serverAddress);
await client.write("x");
if (await client.read() !== null) console.log("served again");
await client.close();
await server.serverClose();
process.exit(0);
