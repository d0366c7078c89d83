import type { Runtime } from "../../src/runtime.ts";

/** What a program is to the system: its process, environment and signals. All runtimes have Node's `process` for it. */
export const system: Pick<Runtime, "pid" | "environment" | "unsetEnvironment" | "onSignal" | "setIdleTimer"> = {
  pid: () => process.pid,
  environment: (name) => process.env[name],
  unsetEnvironment: (name) => void delete process.env[name],
  setIdleTimer: (callback, ms) => process.getBuiltinModule("node:timers").setTimeout(callback, ms).unref(),
  onSignal(signal, callback) {
    process.on(signal, callback);
    return () => void process.off(signal, callback);
  },
};

/** Lets the event loop take what the kernel has: connections that wait in its queue are reset when the listener is closed. */
export function turn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
