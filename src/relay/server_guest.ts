import type { Address } from "../address.ts";
import type { BaseServer } from "../base_server.ts";
import type { ReplicaServer } from "../replicas.ts";
import type { WorkerStart } from "../runtime.ts";
import { describe } from "../thrown.ts";
import { idleClock } from "../timer_wheel.ts";
import { type Call, decodeJson, encodeError, encodeJson, FRAME } from "./frames.ts";
import type { Send } from "./host.ts";
import { loadExport } from "./load_export.ts";

/** Milliseconds between two reports of what the server has counted: so much is lost at most when the worker dies. */
const REPORT_MS = 1000;

/** The worker's end of a whole server that runs there: calls its methods as it is told. */
export class ServerGuest {
  #send: Send;
  #make: ReplicaServer;
  #data: unknown;
  // deno-lint-ignore no-explicit-any
  #server: BaseServer<any> | null = null;
  #serving = false;
  /** A server that was shut down while it did not serve returns from its next `serveForever()` at once. */
  #stopsNext = false;
  #reporting: unknown;

  private constructor(send: Send, make: ReplicaServer, data: unknown) {
    this.#send = send;
    this.#make = make;
    this.#data = data;
  }

  /** Loads the module that makes the server. */
  static async start({ module, data }: WorkerStart, send: Send): Promise<ServerGuest> {
    return new ServerGuest(send, await loadExport(module, "a function that makes a server", isFunction), data);
  }

  /** A frame has come. */
  receive(channel: number, type: number, payload: Uint8Array): void {
    if (type === FRAME.CALL) void this.#answer(channel, decodeJson<Call>(payload));
  }

  async #answer(channel: number, call: Call): Promise<void> {
    try {
      this.#send(channel, FRAME.RETURNED, encodeJson(await this.#run(call) ?? null));
    } catch (error) {
      this.#send(channel, FRAME.THREW, encodeError(error));
    }
  }

  async #run(call: Call): Promise<unknown> {
    if (call.method === "activate") return await this.#activate(call.address);
    const server = this.#server!;
    switch (call.method) {
      case "serveForever":
        return await this.#serve(server);
      case "shutdown":
        this.#stopsNext = !this.#serving;
        return await server.shutdown(call.drain === undefined ? {} : { drain: call.drain ?? Infinity });
      case "serverClose":
        server.shutdownTimeout = call.shutdownTimeout ?? Infinity;
        await server.serverClose(call.drains ? { drain: server.shutdownTimeout } : {});
        idleClock.clear(this.#reporting);
        return server.stats;
      case "stats":
        return server.stats;
    }
  }

  // deno-lint-ignore no-explicit-any
  async #serve(server: BaseServer<any>): Promise<void> {
    this.#serving = true;
    try {
      if (this.#stopsNext) await server.serveForever();
      this.#stopsNext = false;
      await server.serveForever();
    } finally {
      this.#serving = false;
    }
  }

  async #activate(address: Address): Promise<Address> {
    const server = await this.#make(address, { allowReusePort: true, data: this.#data });
    if (typeof server?.serveForever !== "function") {
      throw new TypeError(`the function that makes a replica's server must return one, got ${describe(server)}`);
    }
    // Whether or not it was passed on: without it the second replica would find the port taken.
    (server as { allowReusePort?: boolean }).allowReusePort = true;
    await server.activate();
    this.#server = server;
    this.#report();
    return server.serverAddress;
  }

  #report(): void {
    this.#reporting = idleClock.set(() => {
      this.#send(0, FRAME.STATS, encodeJson(this.#server!.stats));
      this.#report();
    }, REPORT_MS);
  }
}

function isFunction(value: unknown): value is ReplicaServer {
  return typeof value === "function";
}
