/** An echo server that tells its state for each line it reads, and ends with its input; run with few descriptors. */
import { AsyncTCPServer, type SocketError } from "@sockets/server";
import { createInterface } from "node:readline";
import { EchoHandler } from "../serving.ts";

const server = new AsyncTCPServer("tcp://127.0.0.1:0", EchoHandler);
const shortages: string[] = [];
server.handleError = (request, _clientAddress, error) => {
  if (request === null) shortages.push((error as SocketError).code);
};
await server.activate();
void server.serveForever();
console.log("listening", (server.serverAddress as { port: number }).port);
for await (const _line of createInterface({ input: process.stdin })) {
  console.log(JSON.stringify({ active: server.stats.active, shortages }));
}
await server.shutdown({ drain: 0 });
await server.serverClose();
process.exit(0);
