/** Handlers that fail, each in the way that it is told to. */
import { execFileSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { threadId } from "node:worker_threads";
import { BaseRequestHandler, type Datagram, type RequestHandlerClass } from "@sockets/server";
import { spin } from "./spin.ts";

/** Does what its request says: a word, and for some a path. */
export default class Faulty extends BaseRequestHandler {
  override async handle(): Promise<void> {
    const [command, path] = new TextDecoder().decode(await this.request.read() ?? undefined).split(" ");
    switch (command) {
      case "hold":
        // Says which worker it is, and waits.
        await this.request.write(`${process.pid}/${threadId}`);
        if (new TextDecoder().decode(await this.request.read() ?? undefined) !== "go") return;
        await this.request.write("over");
        return;
      case "throw":
        throw new RangeError("a handler's own");
      case "throw-nothing":
        throw undefined;
      case "answer-and-throw":
        await this.request.write("answered");
        await this.request.closeWrite();
        throw new RangeError("after the answer");
      case "throw-outside":
        setTimeout(() => {
          throw new RangeError("outside of every handler");
        }, 0);
        return new Promise(() => {});
      case "reject":
        void Promise.reject(new Error("nobody caught this"));
        return new Promise(() => {});
      case "exit":
        return process.exit(7);
      case "reject-when":
        whenThere(path!, () => void Promise.reject(new Error("nobody caught this")));
        return;
      case "exit-when":
        whenThere(path!, () => process.exit(7));
        return;
      case "spin":
        await this.request.write("spinning");
        return spin(this.server.data);
      case "ends-late":
        // When its connection is gone, it has something left to do.
        await this.request.closed;
        return new Promise((resolve) => setTimeout(resolve, Number(path)));
      case "ignore":
        await this.request.write("ignoring");
        return new Promise(() => {});
      case "print": {
        const part = "x".repeat(1 << 20);
        for (let i = 0; i < 8; i++) await new Promise<void>((resolve) => process.stderr.write(part, () => resolve()));
        await new Promise<void>((resolve) => process.stderr.write("\nshort\n", () => resolve()));
        await this.request.write("printed");
        return;
      }
      case "eat":
        await this.request.write("eating");
        // Later, when that has left.
        setTimeout(eat, 10, path === "process");
        return new Promise(() => {});
      default:
        await this.request.write(command!);
    }
  }
}

/** Does something once a file is there: a test makes it when the request is over. */
function whenThere(path: string, act: () => void): void {
  const timer = setInterval(() => {
    if (!existsSync(path)) return;
    clearInterval(timer);
    act();
  }, 5);
}

/** Takes memory until there is no more; a process first takes care that this is soon. */
function eat(process_: boolean): void {
  if (process_) {
    const data = Number(/VmData:\s*(\d+)/.exec(readFileSync("/proc/self/status", "utf8"))![1]) * 1024;
    execFileSync("prlimit", ["--pid", String(process.pid), `--data=${data + (16 << 20)}`]);
  }
  const eaten: number[][] = [];
  // Bounded, in case that nothing else bounds it.
  while (eaten.length < 500) eaten.push(new Array(1_000_000).fill(0.5));
  throw new Error("nothing has bounded the memory");
}

/** Computes without end. */
export class SpinsAtOnce extends BaseRequestHandler {
  override handle(): void {
    spin(this.server.data);
  }
}

/** Computes without end when its datagram says so. */
export class Spins extends BaseRequestHandler<Datagram> {
  override handle(): void | Promise<void> {
    if (new TextDecoder().decode(this.request.data) === "spin") return spin(this.server.data);
    return this.request.reply(this.request.data);
  }
}

let made = 0;

/** Throws in another step each time: when it is made, in `setup()`, in `handle()` and in `finish()`. */
export class ThrowsInTurn extends BaseRequestHandler {
  #step = made++;

  constructor(...args: ConstructorParameters<RequestHandlerClass>) {
    super(...args);
    if (this.#step === 0) throw new RangeError("when made");
  }

  override setup(): void {
    if (this.#step === 1) throw new RangeError("in setup");
  }

  override handle(): void {
    if (this.#step === 2) throw new RangeError("at once");
  }

  override async finish(): Promise<void> {
    if (this.#step !== 3) return;
    await this.request.write("all of it");
    throw new RangeError("in finish");
  }
}
