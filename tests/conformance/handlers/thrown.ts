/** A handler that throws what it is told to, and replicas that can't be made. */
import {
  type Address,
  BaseRequestHandler,
  type ByteSource,
  IncompleteReadError,
  LimitOverrunError,
  SocketError,
  StreamReader,
  UnsupportedError,
} from "@sockets/server";

/** Longer than the memory between a thread and its server. */
export const LONG = 1_100_000;

class Elusive extends Error {
  override get message(): string {
    throw new Error("no message");
  }
}

class Untraceable extends Error {
  override get stack(): string {
    throw new Error("no stack");
  }
}

function revoked(): object {
  const { proxy, revoke } = Proxy.revocable({}, {});
  revoke();
  return proxy;
}

function trap(): never {
  throw new Error("trap");
}

function cyclic(): Error {
  const error = new Error("it is its own cause");
  error.cause = error;
  return error;
}

function chain(): Error {
  let error = new Error("the first cause");
  for (let i = 0; i < 1000; i++) error = new Error(`cause ${i} ${"x".repeat(100)}`, { cause: error });
  return error;
}

/** What can't be made a text of, or JSON, or is too long, by what a client sends for it. */
export const ODD: Record<string, () => unknown> = {
  "without a prototype": () => Object.create(null),
  "toString throws": () => ({ toString: trap }),
  "toPrimitive gives an object": () => ({ [Symbol.toPrimitive]: () => ({}) }),
  "toStringTag throws": () => ({
    toString: trap,
    get [Symbol.toStringTag]() {
      return trap();
    },
  }),
  "message is a bigint": () => Object.assign(new Error("x"), { message: 10n }),
  "name is a symbol": () => Object.assign(new Error("x"), { name: Symbol("name") }),
  "code is a bigint": () => Object.assign(new Error("x"), { code: 10n }),
  "stack is the error": () => {
    const error = new Error("x");
    (error as { stack: unknown }).stack = error;
    return error;
  },
  "message throws": () => new Elusive(),
  "stack throws": () => new Untraceable("x"),
  "its own cause": cyclic,
  "a thousand causes": chain,
  "a proxy that throws": () => new Proxy(new Error("x"), { get: trap, getPrototypeOf: trap, ownKeys: trap, has: trap }),
  "a proxy of a SocketError": () => new Proxy(new SocketError("EPIPE"), { get: trap }),
  "a revoked proxy": revoked,
  "its cause is a revoked proxy": () => new Error("caused", { cause: revoked() }),
  "among its errors is a revoked proxy": () => new AggregateError([revoked()], "many"),
  "its errors are a revoked proxy": () => Object.assign(new AggregateError([], "many"), { errors: revoked() }),
  "inspecting it throws": () => ({ [Symbol.for("nodejs.util.inspect.custom")]: trap, [Symbol.for("Deno.customInspect")]: trap }),
  "a symbol": () => Symbol("s"),
  "a bigint": () => 10n,
  "null": () => null,
  "undefined": () => undefined,
  "a function": () => trap,
  "a rejected promise": () => Promise.reject(new Error("inside of a promise")),
  "a long message": () => new Error("x".repeat(LONG)),
  "control characters": () => new Error("\x01".repeat(LONG)),
  "half of a surrogate pair": () => new Error("\ud83d".repeat(LONG)),
  "a long text": () => "x".repeat(LONG),
  "a long name": () => Object.assign(new Error("x"), { name: "n".repeat(LONG) }),
  "a long stack": () => Object.assign(new Error("x"), { stack: "s".repeat(LONG) }),
  "a long code": () => new SocketError("E".repeat(LONG)),
  "a long address": () => new SocketError("EPIPE", { address: { transport: "unix", path: "p".repeat(LONG) } }),
  "many errors": () => new AggregateError(Array.from({ length: 10_000 }, () => new Error("x".repeat(200))), "many"),
  "errors that can't be listed": () => Object.assign(new AggregateError([], "none"), { errors: 42 }),
};

/** A stream of one chunk. */
function fed(text: string): ByteSource {
  const chunks = [new TextEncoder().encode(text)];
  return { read: () => Promise.resolve(chunks.shift() ?? null) } as ByteSource;
}

/** Errors that are to arrive as what they are. */
export const KNOWN: Record<string, () => unknown> = {
  partial: () => new StreamReader(fed("abc")).readExactly(10),
  limit: () => new StreamReader(fed("a".repeat(100))).readLine({ limit: 10 }),
  "much partial": () => {
    throw new IncompleteReadError(new Uint8Array(300_000).fill(7), "more");
  },
  unsupported: () => {
    throw new UnsupportedError("not here");
  },
  type: () => {
    throw new TypeError("wrong");
  },
  range: () => {
    throw new RangeError("too much");
  },
  socket: () => {
    throw new SocketError("ETIMEDOUT", { syscall: "read", address: { transport: "tcp", hostname: "127.0.0.1", port: 7 } });
  },
  caused: () => {
    throw new Error("outer", { cause: new LimitOverrunError(5, "line") });
  },
  aggregate: () => {
    throw new AggregateError([new TypeError("one"), "two"], "both");
  },
  named: () => {
    class Mine extends SocketError {}
    throw Object.defineProperty(new Mine("EPIPE"), "name", { value: "Mine" });
  },
  abort: () => AbortSignal.abort().throwIfAborted(),
  system: () => {
    throw Object.assign(new Error("ENOENT: no such file"), { code: "ENOENT", errno: -2, syscall: "open", path: "/nowhere" });
  },
};

export default class Throwing extends BaseRequestHandler {
  override async handle(): Promise<void> {
    for await (const chunk of this.request) {
      const command = new TextDecoder().decode(chunk);
      if (command in ODD) throw ODD[command]!();
      if (command in KNOWN) await KNOWN[command]!();
      await this.request.write(command);
    }
  }
}

/** Throws again in `finish()`. */
export class ThrowsTwice extends Throwing {
  override finish(): void {
    throw Object.create(null);
  }
}

/** A replica's server that can't be made. */
export function long(_address: Address): never {
  throw new Error("y".repeat(LONG));
}

export function odd(_address: Address): never {
  throw Object.create(null);
}

export const notAServer = (_address: Address): unknown => Object.create(null);
