/** Servers that the tests run as replicas, each made by a function that a module exports. */
import {
  type Address,
  AsyncTCPServer,
  AsyncUDPServer,
  BaseRequestHandler,
  type Datagram,
  formatAddress,
  type ReplicaServer,
  type ReplicaServerOptions,
  SystemExit,
  ThreadingTCPServer,
  type TlsOptions,
} from "@sockets/server";
import { existsSync } from "node:fs";
import { threadId } from "node:worker_threads";
import { spin } from "./spin.ts";

/** What the members of the test's `Replicas` call it. */
const id = threadId === 0 ? process.pid : threadId;

/** Says who it is, then does as it is told. */
class Obedient extends BaseRequestHandler {
  override async handle(): Promise<void> {
    await this.request.write(`${id}\n`);
    const command = new TextDecoder().decode(await this.request.read() ?? undefined);
    switch (command) {
      case "throw":
        throw new RangeError("a handler's own");
      case "die":
        // Outside of the handler: nobody catches it.
        setTimeout(() => {
          throw new Error("died as told");
        });
        return new Promise(() => {});
      case "exit":
        return process.exit(7);
      case "system exit":
        throw new SystemExit(3);
      case "shutdown":
        return void this.server.shutdown();
      case "wait":
        await this.request.write("waiting");
        await this.request.read();
        await this.request.write("over");
        return;
      case "compute":
        await this.request.write("computing");
        return spin(this.server.data);
      case "facts":
        await this.request.write(JSON.stringify({ serverAddress: this.server.serverAddress, data: this.server.data }));
        return;
      case "count":
        Atomics.add(new Int32Array(this.server.data as SharedArrayBuffer), 0, 1);
        await this.request.write("counted");
        return;
      default:
        await this.request.write(command);
        for await (const chunk of this.request) await this.request.write(chunk);
    }
  }
}

class WhoAmI extends BaseRequestHandler<Datagram> {
  override handle(): void | Promise<void> {
    if (new TextDecoder().decode(this.request.data) === "exit") return process.exit(7);
    return this.request.reply(String(id));
  }
}

export default function obedient(address: Address, options: ReplicaServerOptions): AsyncTCPServer {
  return new AsyncTCPServer(address, Obedient, options);
}

/** A subclass, made asynchronously, by a function that doesn't look at the options. */
export async function mine(address: Address): Promise<AsyncTCPServer> {
  class Mine extends AsyncTCPServer {
    override data = "mine";
  }
  return await Promise.resolve(new Mine(address, Obedient));
}

export function datagrams(address: Address, options: ReplicaServerOptions): AsyncUDPServer {
  return new AsyncUDPServer(address, WhoAmI, options);
}

/** Speaks TLS, with the certificate that `data` names. */
export function secured(address: Address, options: ReplicaServerOptions): AsyncTCPServer {
  return new AsyncTCPServer(address, Obedient, { ...options, tls: options.data as TlsOptions });
}

/** Its handlers run in threads of the replica. */
export function threading(address: Address, options: ReplicaServerOptions): ReturnType<ReplicaServer> {
  return new ThreadingTCPServer(address, new URL("./stream.ts", import.meta.url), { ...options, maxThreads: 1 });
}

/** Can't be made while the file that `data` names is there. */
export function fragile(address: Address, options: ReplicaServerOptions): AsyncTCPServer {
  if (existsSync(options.data as string)) throw new RangeError("fragile, and broken");
  return obedient(address, options);
}

/** Ends its worker in the midst of starting, but for the first. */
export function stillborn(address: Address, options: ReplicaServerOptions): AsyncTCPServer {
  if (!formatAddress(address).endsWith(":0")) process.exit(9);
  return obedient(address, options);
}

/** Never gets there. */
export function slow(): Promise<AsyncTCPServer> {
  return new Promise(() => {});
}

export function nothing(): void {}

export const notAFunction = 42;
