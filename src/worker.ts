import { makeRing, type OnFrame, readRing, RingWriter } from "./relay/ring.ts";
import type { Runtime, Thread, ThreadOptions, WorkerStart } from "./runtime.ts";
import { beginLife, endLife } from "./thread_life.ts";

/** Where a worker runs: in a thread of this process, or in a process of its own. */
export type WorkerKind = "thread" | "process";

/** A thread or a process behind the same few methods. */
export interface Worker {
  /** Its thread id or process id; -1 when it could not be started. */
  readonly id: number;
  /** Resolves when its module is loaded; rejects with what loading threw. */
  readonly ready: Promise<void>;
  /** Resolves when it has ended, with the reason. */
  readonly exited: Promise<Error>;
  /** Sends it a frame. */
  send(channel: number, type: number, payload?: Uint8Array): void;
  /** Ends it at once. */
  terminate(): void;
}

/** A thread; it can leave the process free to exit. */
export interface ThreadWorker extends Worker {
  /** How far it has read what it was sent, a number that changes as it reads; `null` when it has read all. */
  readonly unread: number | null;
  /** Whether it keeps the process running. */
  keepAlive(on: boolean): void;
}

/** Starts a worker; its frames go to `onFrame`. */
export function startWorker(runtime: Runtime, kind: WorkerKind, start: WorkerStart, onFrame: OnFrame): Worker {
  return kind === "thread" ? startThread(runtime, start, onFrame) : startProcess(runtime, start, onFrame);
}

/** Starts a thread; its frames go to `onFrame`. */
export function startThread(runtime: Runtime, start: WorkerStart, onFrame: OnFrame): ThreadWorker {
  const toThread = makeRing();
  const fromThread = makeRing();
  const writer = new RingWriter(toThread, (wake) => runtime.afterEvents(wake));
  const life = beginLife();
  const thread = spawn(runtime, { start, toThread, fromThread, life });
  void thread.stopped.then(() => endLife(life));
  void readRing(fromThread, onFrame);
  void thread.exited.then(() => {
    writer.close();
    // Only to end the reading.
    new RingWriter(fromThread).close();
  });
  return {
    id: thread.id,
    ready: thread.ready,
    exited: thread.exited,
    get unread() {
      return writer.unread;
    },
    send: (channel, type, payload) => writer.write(channel, type, payload),
    keepAlive: (on) => thread.keepAlive(on),
    terminate: () => thread.terminate(),
  };
}

function spawn(runtime: Runtime, options: ThreadOptions): Thread {
  try {
    return runtime.spawnThread(options);
  } catch (error) {
    endLife(options.life);
    throw error;
  }
}

function startProcess(runtime: Runtime, start: WorkerStart, onFrame: OnFrame): Worker {
  const child = runtime.spawnProcess({ start, onFrame });
  return {
    id: child.pid,
    ready: child.ready,
    exited: child.exited,
    send: (channel, type, payload) => child.send(channel, type, payload),
    terminate: () => child.terminate(),
  };
}
