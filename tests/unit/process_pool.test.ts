/** Requests that wait for a child process are not forgotten when none can be started. */
import { assertEquals } from "@std/assert";
import type { Datagram } from "@sockets/server";
import { test } from "node:test";
import { ProcessPool } from "../../src/process_pool.ts";
import type { ChildProcess, Runtime } from "../../src/runtime.ts";

/** A child that is ready at once, and ends when it is told to. */
function child(ended: PromiseWithResolvers<Error>): ChildProcess {
  return {
    pid: 1,
    ready: Promise.resolve(),
    exited: ended.promise,
    send: () => {},
    keepAlive: () => {},
    terminate: () => ended.resolve(new Error("ended here")),
  };
}

test("process pool: when no child can be started, every request that waits for one is told so", async () => {
  const first = Promise.withResolvers<Error>();
  let starts = 0;
  const runtime = {
    spawnProcess() {
      if (++starts === 1) return child(first);
      throw new Error("out of processes");
    },
  } as unknown as Runtime;
  const ignore = () => {};
  const pool = new ProcessPool({
    runtime,
    start: { entry: "handler", module: "", serverAddress: { transport: "udp", hostname: "127.0.0.1", port: 1 }, data: null },
    maxChildren: 1,
    spareChildren: 0,
    requestsPerChild: 1,
    childTimeout: Infinity,
    sendDatagram: ignore,
    workerGrace: () => Infinity,
    requestTimeout: () => Infinity,
    onStuck: ignore,
    onStart: ignore,
    onExit: ignore,
    onError: ignore,
  });
  const request = { data: new Uint8Array(1), truncated: false } as Datagram;
  const outcomes = Promise.allSettled([1, 2, 3].map(() => pool.run(request, null)));
  // The child takes the first one along; nobody is left whose end could bring the others another child.
  await Promise.resolve();
  first.resolve(new Error("killed by somebody"));
  let timer: ReturnType<typeof setTimeout>;
  const late = new Promise<never>((_, reject) => timer = setTimeout(() => reject(new Error("a request still waits")), 10_000));
  const settled = await Promise.race([outcomes, late]).finally(() => clearTimeout(timer));
  assertEquals(settled.map((outcome) => outcome.status === "rejected" && (outcome.reason as Error).message), [
    "the process that handled the request is gone: killed by somebody",
    "out of processes",
    "out of processes",
  ]);
});
