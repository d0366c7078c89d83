/** What a worker thread runs: it loads the module that it is told to and does what the frames in the ring ask for. */
import type * as workerThreads from "node:worker_threads";
import { toPlainError } from "../../src/relay/plain_error.ts";
import { readRing, RingWriter } from "../../src/relay/ring.ts";
import { startGuest } from "../../src/relay/start_guest.ts";
import { prepareForShortage } from "../deno/shortage.ts";
import { setThreadLife } from "../../src/thread_life.ts";
import { output } from "./output.ts";
import type { ThreadData, ThreadReport } from "./threads.ts";

prepareForShortage();
output.guardOutput();
const { parentPort, workerData } = process.getBuiltinModule("node:worker_threads") as typeof workerThreads;
const { start, toThread, fromThread, life, lifeline: ours, started } = workerData as ThreadData;
setThreadLife(life);
/** Held as long as the thread runs: its closing says that the thread has stopped. */
export const lifeline: workerThreads.MessagePort = ours;
const report = (message: ThreadReport) => {
  Atomics.store(started, 0, 1);
  Atomics.notify(started, 0);
  parentPort!.postMessage(message);
};
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
