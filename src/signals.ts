import type { ShutdownOptions } from "./base_server.ts";
import { checkTimeout } from "./deadline.ts";
import { getRuntime, type Runtime, type Signal } from "./runtime.ts";
import { notify } from "./systemd.ts";

/** What a signal can stop: every server, and `Replicas`. */
export interface Stoppable {
  /** See {@linkcode BaseServer.shutdownTimeout}. */
  shutdownTimeout: number;
  /** See {@linkcode BaseServer.shutdown}. */
  shutdown(options?: ShutdownOptions): Promise<void>;
  /** See {@linkcode BaseServer.serverClose}. */
  serverClose(options?: ShutdownOptions): Promise<void>;
}

/** Options of {@linkcode handleSignals}. */
export interface SignalOptions {
  /** Milliseconds that the requests in progress have to finish: each server's `shutdownTimeout` by default. */
  drain?: number;
  /** The signals: SIGTERM and SIGINT by default. */
  signals?: readonly Signal[];
  /** Whose signals: the running runtime's by default. */
  runtime?: Runtime;
}

/**
 * Has SIGTERM and SIGINT stop servers in order: they stop listening, their `drainSignal` fires, requests in progress and those of
 * connections that wait have `drain` milliseconds to finish and are aborted then. A second signal aborts them at once. `serveForever()`
 * returns, and a program that has nothing else to do ends with status 0. systemd is told STOPPING=1 (see `notify()`).
 *
 * @param servers What to stop.
 * @param options How.
 * @returns Disposing of it leaves signals to do what they do by default. It is also done once the servers are stopped, so that a third
 * signal ends the program whatever it is about.
 * @throws {RangeError} When `drain` is negative or no number.
 *
 * @example
 * ```ts
 * import { handleSignals, serve } from "@sockets/server";
 *
 * const server = await serve("tcp://127.0.0.1:0", async (conn) => {
 *   for await (const chunk of conn) await conn.write(chunk);
 * });
 * const signals = handleSignals(server, { drain: 5000 });
 * await server.serverClose(); // as a signal would do
 * signals[Symbol.dispose]();
 * ```
 */
export function handleSignals(servers: Stoppable | readonly Stoppable[], options: SignalOptions = {}): Disposable {
  const { drain, signals = ["SIGTERM", "SIGINT"], runtime = getRuntime() } = options;
  if (drain !== undefined) checkTimeout("drain", drain);
  const all = "serverClose" in servers ? [servers] : servers;
  let stopping = false;
  const received = () => {
    if (stopping) {
      for (const server of all) void server.shutdown({ drain: 0 });
      return;
    }
    stopping = true;
    void notify({ stopping: true }, { runtime });
    const closed = all.map((server) => {
      const closing = server.serverClose({ drain: drain ?? server.shutdownTimeout });
      // For a serveForever() that is still to come.
      void server.shutdown();
      return closing;
    });
    void Promise.all(closed).finally(() => dispose());
  };
  const ends = signals.map((signal) => runtime.onSignal(signal, received));
  const dispose = () => ends.forEach((end) => end());
  return { [Symbol.dispose]: dispose };
}
