/** What a worker thread runs: it loads the module that it is told to and does what the frames in the ring ask for. */
import type * as workerThreads from "node:worker_threads";
import { toPlainError } from "../../src/relay/plain_error.ts";
import { readRing, RingWriter } from "../../src/relay/ring.ts";
import { startGuest } from "../../src/relay/start_guest.ts";
import type { ThreadOptions } from "../../src/runtime.ts";
import { setThreadLife } from "../../src/thread_life.ts";
import { output } from "./output.ts";
import type { ThreadData, ThreadReport } from "./threads.ts";

output.guardOutput();
const { parentPort, workerData } = process.getBuiltinModule("node:worker_threads") as typeof workerThreads;
const { start, toThread, fromThread, life } = workerData as ThreadOptions;
setThreadLife(life);
/** Held as long as the thread runs: its closing says that the thread has stopped. */
export const lifeline: workerThreads.MessagePort = (workerData as ThreadData).lifeline;
const report = (message: ThreadReport) => parentPort!.postMessage(message);
const writer = new RingWriter(fromThread);
try {
  const guest = await startGuest(start, (channel, type, payload) => writer.write(channel, type, payload));
  // Nothing comes this way: it keeps the thread running.
  parentPort!.on("message", () => {});
  report({ ready: true });
  await readRing(toThread, (channel, type, payload) => guest.receive(channel, type, payload));
} catch (error) {
  report({ ready: false, error: toPlainError(error) });
}
