/**
 * Serves with one handler and tells its parent what that allocates: `server.ts HANDLER`. Node only, with `--expose-gc` and a young
 * generation that is never full meanwhile, so that what is allocated stays on the heap and can be counted.
 */
import { createHook } from "node:async_hooks";
import { AsyncTCPServer, AsyncUDPServer, BaseRequestHandler, type Datagram, StreamRequestHandler } from "@sockets/server";

class Chunks extends BaseRequestHandler {
  override async handle(): Promise<void> {
    for await (const chunk of this.request) {
      const pending = this.request.write(chunk);
      if (pending !== undefined) await pending;
    }
  }
}

class Once extends BaseRequestHandler {
  override async handle(): Promise<void> {
    const chunk = await this.request.read();
    if (chunk !== null) await this.request.write(chunk);
  }
}

class Lines extends StreamRequestHandler {
  override async handle(): Promise<void> {
    for (let line = await this.rfile.readLine(); line !== null; line = await this.rfile.readLine()) {
      const pending = this.wfile.write(line + "\n");
      if (pending !== undefined) await pending;
    }
  }
}

class Datagrams extends BaseRequestHandler<Datagram> {
  override handle(): void | Promise<void> {
    return this.request.reply(this.request.data);
  }
}

const makers = {
  chunks: () => new AsyncTCPServer("tcp://127.0.0.1:0", Chunks),
  connections: () => new AsyncTCPServer("tcp://127.0.0.1:0", Once),
  lines: () => new AsyncTCPServer("tcp://127.0.0.1:0", Lines),
  datagrams: () => new AsyncUDPServer("udp://127.0.0.1:0", Datagrams),
};

let promises = 0;
const hook = createHook({
  init: (_id, type) => {
    if (type === "PROMISE") promises++;
  },
});

const { gc } = globalThis as unknown as { gc(): void };
let heap = 0;
const questions = {
  "count bytes": () => {
    gc();
    heap = process.memoryUsage().heapUsed;
    return 0;
  },
  bytes: () => process.memoryUsage().heapUsed - heap,
  "count promises": () => {
    hook.enable();
    return promises = 0;
  },
  promises: () => {
    hook.disable();
    return promises;
  },
};

const server = makers[process.argv[2] as keyof typeof makers]();
await server.activate();
process.on("message", (question: keyof typeof questions) => void process.send!(questions[question]()));
process.once("disconnect", () => void server.serverClose());
process.send!("port" in server.serverAddress ? server.serverAddress.port : 0);
await server.serveForever();
