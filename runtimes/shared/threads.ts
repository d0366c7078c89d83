import type * as workerThreads from "node:worker_threads";
import { fromPlainError, type PlainError } from "../../src/relay/plain_error.ts";
import type { Thread, ThreadOptions } from "../../src/runtime.ts";
import { bootstrap } from "./bootstrap.ts";
import { freeDescriptors, noDescriptors } from "./descriptors.ts";

/**
 * Descriptors that must be free before a thread is started: it takes up to 7, and Deno and Bun end the whole process when a thread can't
 * have those that it begins with.
 */
const THREAD_DESCRIPTORS = 24;
/** With fewer free descriptors than this, connections that are accepted while a thread starts could take those that it needs. */
const PLENTY_OF_DESCRIPTORS = 256;
/** Milliseconds that the server waits for a thread then, and accepts nothing. */
const START_MS = 1000;

/** What a thread says of itself, once. */
export type ThreadReport = { ready: true } | { ready: false; error: PlainError };

/** What a thread is given. */
export interface ThreadData extends ThreadOptions {
  /** Its end of a channel on which nothing is sent. */
  readonly lifeline: workerThreads.MessagePort;
  /** Becomes 1 when the thread has loaded its modules, or failed to. */
  readonly started: Int32Array;
}

/** What a thread calls first. The literal `import()` makes the module part of the package for whoever looks for its modules. */
export function startThread(): Promise<unknown> {
  return import("./thread.ts");
}

/**
 * Starts a thread by way of `node:worker_threads`, which is the same on all runtimes.
 *
 * @throws {SocketError} `EMFILE` when nearly no descriptor is left; no thread is started then.
 */
export function spawnThread(options: ThreadOptions): Thread {
  const free = freeDescriptors(PLENTY_OF_DESCRIPTORS, options.start.module);
  if (free < THREAD_DESCRIPTORS) throw noDescriptors("spawn");
  const { getHeapStatistics } = process.getBuiltinModule("node:v8");
  const { MessageChannel, Worker } = process.getBuiltinModule("node:worker_threads") as typeof workerThreads;
  // As much as the program itself may use. Deno ends the process when a thread that has no limit runs out of memory.
  const resourceLimits = { maxOldGenerationSizeMb: Math.floor(getHeapStatistics().heap_size_limit / 2 ** 20) };
  // Deno takes no URL of a server here, only one that holds the module itself.
  const entry = new URL(`data:text/javascript,${encodeURIComponent(bootstrap(import.meta.url, "startThread"))}`);
  // The thread's end of a channel closes when the thread has stopped. On Deno that is later than its exit, when it was computing.
  const { port1: ours, port2: lifeline } = new MessageChannel();
  const started = new Int32Array(new SharedArrayBuffer(4));
  const workerData: ThreadData = { ...options, lifeline, started };
  const worker = new Worker(entry, { workerData, transferList: [lifeline], resourceLimits });
  const ready = Promise.withResolvers<void>();
  const exited = Promise.withResolvers<Error>();
  const portClosed = Promise.withResolvers<void>();
  // Deno notices nothing without a listener.
  ours.on("message", () => {}).on("close", portClosed.resolve);
  ours.unref();
  let failure: Error | null = null;
  worker.on("message", (report: ThreadReport) => {
    if (report.ready) ready.resolve();
    else ready.reject(fromPlainError(report.error));
  });
  worker.on("error", (error: Error) => {
    failure = error;
    // Bun sends no exit code with it, and some errors no exit at all.
    exited.resolve(error);
    void worker.terminate();
  });
  worker.on("exit", (code: number) => {
    const error = failure ?? new Error(`the thread ended with exit status ${code}`);
    ready.reject(error);
    exited.resolve(error);
  });
  if (free < PLENTY_OF_DESCRIPTORS) Atomics.wait(started, 0, 0, START_MS);
  return {
    id: worker.threadId,
    ready: ready.promise,
    exited: exited.promise,
    stopped: Promise.all([portClosed.promise, exited.promise]).then(() => {}),
    keepAlive(on) {
      if (on) worker.ref();
      else worker.unref();
    },
    terminate: () => void worker.terminate(),
  };
}
