import { UnsupportedError } from "./errors.ts";
import type { Runtime } from "./runtime.ts";
import type { WorkerKind } from "./worker.ts";

/** Checks what names the handler of a server whose handlers run in threads or processes: the URL of a module. */
export function checkHandlerUrl(handler: unknown, where: string): void {
  if (handler instanceof URL || (typeof handler === "string" && URL.canParse(handler))) return;
  const example = `new URL("./handler.ts", import.meta.url)`;
  throw new TypeError(
    typeof handler === "function"
      ? `a ${where} can't be given the class ${handler.name}, only the URL of a module that exports it: put it into a file of its ` +
        `own and pass ${example}; "./handler.ts#${handler.name}" names an export other than default`
      : `handler must be the URL of the module that exports the handler, such as ${example}, got ${String(handler)}`,
  );
}

/** Checks, before anything is started, that the program can have workers. */
export function checkWorkers(kind: WorkerKind, { name, capabilities }: Runtime): void {
  const capability = kind === "thread" ? capabilities.threads : capabilities.processes;
  if (capability === true) return;
  throw new UnsupportedError(`${kind === "thread" ? "threads" : "child processes"} can't be had on ${name} here: ${capability}`);
}

/** Checks a field that counts something. */
export function checkCount(name: string, value: number, least: number): void {
  if ((Number.isInteger(value) || value === Infinity) && value >= least) return;
  throw new RangeError(`${name} must be an integer of ${least} or more, or Infinity, got ${String(value)}`);
}
