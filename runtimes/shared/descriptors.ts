import type * as fs from "node:fs";
import { SocketError } from "../../src/errors.ts";

/** Errors of `open` that say that no descriptor is left: in this process, or in the system. */
const SHORTAGES = new Set(["EMFILE", "ENFILE"]);

/**
 * Counts the descriptors that can be opened now, up to `most`: opens as many, and closes them again.
 *
 * @param readable The URL of a file that Deno may be allowed to read where it may not read `/dev/null`. With neither, `most` is the answer.
 */
export function freeDescriptors(most: number, readable: string): number {
  const path = probePath(readable);
  if (path === null) return most;
  const { closeSync, openSync } = process.getBuiltinModule("node:fs") as typeof fs;
  const opened: number[] = [];
  try {
    while (opened.length < most) opened.push(openSync(path, "r"));
    return most;
  } catch (error) {
    return SHORTAGES.has((error as { code: string }).code) ? opened.length : most;
  } finally {
    opened.forEach((fd) => closeSync(fd));
  }
}

/** The error of what can't be started for want of descriptors. */
export function noDescriptors(syscall: string): SocketError {
  return new SocketError("EMFILE", { syscall });
}

/** A file to open; `null` when Deno allows none, or would ask whoever sits at the terminal. */
function probePath(readable: string): string | null {
  const { Deno } = globalThis as { Deno?: { permissions: { querySync(permission: object): { state: string } } } };
  const allowed = (path: string) => Deno === undefined || Deno.permissions.querySync({ name: "read", path }).state === "granted";
  if (allowed("/dev/null")) return "/dev/null";
  const url = new URL(readable);
  if (url.protocol !== "file:") return null;
  url.hash = "";
  const path = process.getBuiltinModule("node:url").fileURLToPath(url);
  return allowed(path) ? path : null;
}
