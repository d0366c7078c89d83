/** A worker thread that binds a Unix server, and says what permissions its file has; then it closes it. */
import { BaseRequestHandler, UnixDatagramServer, UnixStreamServer } from "@sockets/server";
import { lstatSync } from "node:fs";
import { parentPort, workerData } from "node:worker_threads";

const { transport, path, mode } = workerData as { transport: "unix" | "unixgram"; path: string; mode: number };
const server = transport === "unix"
  ? new UnixStreamServer({ transport, path }, BaseRequestHandler, { mode })
  : new UnixDatagramServer({ transport, path }, BaseRequestHandler, { mode });
await server.activate();
parentPort!.postMessage(lstatSync(path).mode & 0o777);
await server.serverClose();
