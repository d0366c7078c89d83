/**
 * Unix servers by order, one at a time. Each line on stdin is `activate TRANSPORT PATH MODE`, which is answered with `bound` or with the
 * error's code and message; `close`, answered with `closed`; `leave`, which goes to another directory; or `exit`, which ends the program as
 * it is.
 */
import { BaseRequestHandler, SocketError, UnixDatagramServer, UnixStreamServer } from "@sockets/server";
import { createInterface } from "node:readline";

let server: { activate(): Promise<void>; serverClose(): Promise<void> } | null = null;
console.log("ready");
for await (const line of createInterface({ input: process.stdin })) {
  const [order, transport, path, mode] = line.split(" ");
  if (order === "exit") process.exit(0);
  if (order === "leave") {
    process.chdir("/");
    continue;
  }
  if (order === "close") {
    await server?.serverClose();
    console.log("closed");
    continue;
  }
  const options = { mode: Number(mode) };
  server = transport === "unix"
    ? new UnixStreamServer({ transport, path: path! }, BaseRequestHandler, options)
    : new UnixDatagramServer({ transport: "unixgram", path: path! }, BaseRequestHandler, options);
  try {
    await server.activate();
    console.log("bound");
  } catch (error) {
    server = null;
    if (!(error instanceof SocketError)) throw error;
    console.log(`${error.code} ${error.message}`);
  }
}
// With whoever gives the orders.
process.exit(0);
