/** Handlers for connections that the tests run in threads and processes. */
import { existsSync } from "node:fs";
import { BaseRequestHandler, Mutex, type SocketError, StreamRequestHandler, SystemExit } from "@sockets/server";

export default class Echo extends BaseRequestHandler {
  override async handle(): Promise<void> {
    for await (const chunk of this.request) await this.request.write(chunk);
  }
}

/** What a handler knows, as JSON. */
export class Facts extends BaseRequestHandler {
  override async handle(): Promise<void> {
    const { clientAddress, request: { localAddress, remoteAddress }, server: { serverAddress, data } } = this;
    await this.request.write(JSON.stringify({ clientAddress, localAddress, remoteAddress, serverAddress, data }));
  }
}

export class Lines extends StreamRequestHandler {
  override wbufsize = 1024;
  override async handle(): Promise<void> {
    for await (const line of this.rfile) await this.wfile.write(`<${line}>`);
  }
}

/** Does as it is told. */
export class Obedient extends BaseRequestHandler {
  override async handle(): Promise<void> {
    const [command, path] = new TextDecoder().decode(await this.request.read() ?? undefined).split("|");
    switch (command) {
      case "throw":
        throw new RangeError("a handler's own");
      case "system exit":
        throw new SystemExit(3);
      case "reject":
        void Promise.reject(new Error("nobody caught this"));
        return new Promise(() => {});
      case "exit":
        return process.exit(7);
      case "wait":
        await this.request.write("waiting");
        await this.request.read();
        await this.request.write("over");
        return;
      case "never":
        await this.request.write("never");
        return new Promise(() => {});
      case "compute":
        await this.request.write("computing");
        // Awaits nothing, until the test has made a file.
        while (!existsSync(path!));
        await this.request.write("computed");
        return;
      case "time out":
        this.request.timeout = 20;
        await this.request.write(await this.request.read().catch((error: SocketError) => error.code) ?? "");
        return;
      case "pid":
        await this.request.write(String(process.pid));
        return;
      default:
        await this.request.write(command!);
    }
  }
}

/** Reads nothing until the connection is gone. */
export class Deaf extends BaseRequestHandler {
  override async handle(): Promise<void> {
    await this.request.closed;
  }
}

let counter = 0;

/** Counts what it has handled, in memory of its own and in shared memory. */
export class Counter extends BaseRequestHandler {
  override async handle(): Promise<void> {
    const { data } = this.server;
    if (data instanceof SharedArrayBuffer) Atomics.add(new Int32Array(data), 0, 1);
    await this.request.write(String(++counter));
  }
}

/** Counts in shared memory, with a pause between reading and writing: only a lock makes that right. */
export class Guarded extends BaseRequestHandler {
  override async handle(): Promise<void> {
    const { count, buffer } = this.server.data as { count: SharedArrayBuffer; buffer: SharedArrayBuffer };
    const mutex = new Mutex(buffer);
    const counter = new Int32Array(count);
    for (let i = 0; i < 250; i++) {
      const lock = await mutex.lock();
      const before = counter[0]!;
      if (i % 10 === 0) await Promise.resolve();
      counter[0] = before + 1;
      lock.unlock();
    }
    await this.request.write("done");
  }
}

/** Notes, once it has the lock, that it is its turn: the number that it was sent. */
export class Queued extends BaseRequestHandler {
  override async handle(): Promise<void> {
    const { turns, buffer } = this.server.data as { turns: SharedArrayBuffer; buffer: SharedArrayBuffer };
    const number = Number(new TextDecoder().decode(await this.request.read() ?? undefined));
    const lock = await new Mutex(buffer).lock();
    const order = new Int32Array(turns);
    order[++order[0]!] = number;
    lock.unlock();
    await this.request.write("done");
  }
}

/** What those that take turns at a lock share; each turn is a number of its own. */
export interface Turns {
  lock: SharedArrayBuffer;
  /** The turn that is going on, 0 for none; turns that were done; turns that found another one going on; locks that were abandoned. */
  words: SharedArrayBuffer;
}

/** Takes so many turns at a lock, one after the other; a negative number ends the thread in the middle of one. */
export class TakesTurns extends BaseRequestHandler {
  override async handle(): Promise<void> {
    const { lock, words } = this.server.data as Turns;
    const mutex = new Mutex(lock);
    const [INSIDE, DONE, MET, ABANDONED] = [0, 1, 2, 3] as const;
    const shared = new Int32Array(words);
    const count = Number(new TextDecoder().decode(await this.request.read() ?? undefined));
    for (let turn = 0; turn < Math.abs(count); turn++) {
      const held = await mutex.lock();
      if (held.abandoned) {
        Atomics.add(shared, ABANDONED, 1);
        Atomics.store(shared, INSIDE, 0);
      }
      if (Atomics.compareExchange(shared, INSIDE, 0, 1) !== 0) Atomics.add(shared, MET, 1);
      if (count < 0 && turn === -count - 1) process.exit(3);
      if (turn % 5 === 0) await new Promise((resolve) => setTimeout(resolve, 0));
      Atomics.add(shared, DONE, 1);
      Atomics.store(shared, INSIDE, 0);
      held.unlock();
    }
    await this.request.write("done");
  }
}

/** Holds a lock and counts for two seconds, without giving the event loop a turn. */
export class HoldsAndComputes extends BaseRequestHandler {
  override async handle(): Promise<void> {
    const { lock, words } = this.server.data as Turns;
    const held = await new Mutex(lock).lock();
    const until = performance.now() + 2000;
    while (performance.now() < until) Atomics.add(new Int32Array(words), 0, 1);
    await this.request.closed;
    held.unlock();
  }
}

export const notAHandler = 42;
