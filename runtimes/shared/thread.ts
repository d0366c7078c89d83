/** What a worker thread runs: it loads the handler's module and handles the requests that come through the ring. */
import type * as workerThreads from "node:worker_threads";
import { Guest } from "../../src/relay/guest.ts";
import { readRing, RingWriter } from "../../src/relay/ring.ts";
import type { ThreadOptions } from "../../src/runtime.ts";
import type { ThreadReport } from "./threads.ts";

const { parentPort, workerData } = process.getBuiltinModule("node:worker_threads") as typeof workerThreads;
const { start, toThread, fromThread } = workerData as ThreadOptions;
const report = (message: ThreadReport) => parentPort!.postMessage(message);
const writer = new RingWriter(fromThread);
try {
  const guest = await Guest.start(start, (channel, type, payload) => writer.write(channel, type, payload));
  // Nothing comes this way: it keeps the thread running.
  parentPort!.on("message", () => {});
  report({ ready: true });
  await readRing(toThread, (channel, type, payload) => guest.receive(channel, type, payload));
} catch (error) {
  const { name, message, stack } = error instanceof Error ? error : new Error(String(error));
  report({ ready: false, name, message, stack });
}
