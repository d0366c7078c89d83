import type { WorkerKind } from "./worker.ts";

/**
 * Checks what a worker is to have as its server's `data`, before anything is started: what is lost on the way would be found missing by
 * a handler, much later.
 *
 * @throws {TypeError} Names the first part that can't be carried.
 */
export function checkWorkerData(kind: WorkerKind, data: unknown): void {
  if (kind === "process") return checkJson(data, "data", []);
  try {
    structuredClone(data);
  } catch (cause) {
    throw new TypeError(`data can't be passed to a thread: ${(cause as Error).message}`, { cause });
  }
}

/** JSON leaves out, or makes something else of, what it doesn't know, and says nothing. */
function checkJson(value: unknown, where: string, within: object[]): void {
  if (value == null || typeof value === "string" || typeof value === "boolean" || Number.isFinite(value)) return;
  const refuse = (what: string): never => {
    throw new TypeError(
      `${where} is ${what}, which can't be passed to a process: data goes there as JSON (threads take more, and share memory)`,
    );
  };
  if (typeof value !== "object") return refuse(typeof value === "number" ? String(value) : `a ${typeof value}`);
  // As a Date does, it says itself what is to be made of it.
  if (typeof (value as { toJSON?: unknown }).toJSON === "function") return;
  if (within.includes(value)) return refuse("a part of itself");
  const prototype = Object.getPrototypeOf(value);
  if (!Array.isArray(value) && prototype !== null && Object.getPrototypeOf(prototype) !== null) {
    return refuse(`a ${value.constructor?.name ?? "class instance"}`);
  }
  for (const [key, part] of Object.entries(value)) {
    checkJson(part, Array.isArray(value) ? `${where}[${key}]` : `${where}.${key}`, [...within, value]);
  }
}
