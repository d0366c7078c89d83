import { UnsupportedError } from "../../src/errors.ts";
import { encodePath, isEscaped } from "../../src/path_bytes.ts";

/** A path as the functions of `node:fs` take it: as bytes when it is no UTF-8. */
export function fsPath(path: string): string | Buffer {
  if (!isEscaped(path)) return path;
  if (process.versions.deno !== undefined) {
    throw new UnsupportedError("a file whose path is no UTF-8 can't be made on deno: its file functions take text alone");
  }
  return Buffer.from(encodePath(path));
}

/** The directory that a path is in, and the name that it has there. `node:path` would lose the bytes that are no UTF-8, on Bun. */
export function splitPath(path: string): { directory: string; name: string } {
  const slash = path.lastIndexOf("/");
  return { directory: slash < 1 ? path.slice(0, slash + 1) || "." : path.slice(0, slash), name: path.slice(slash + 1) };
}

/** A path in a directory. */
export function inside(directory: string, name: string): string {
  return directory.endsWith("/") ? directory + name : `${directory}/${name}`;
}

/** A name that nobody else has. */
export function uniqueName(): string {
  return crypto.randomUUID().slice(0, 8);
}

/** The code of an error of `node:fs` or of a runtime's sockets. */
export function codeOf(cause: unknown): string | undefined {
  const { code } = cause as { code?: unknown };
  return typeof code === "string" ? code : undefined;
}

/** Does what may fail without harm, because another has done it already. */
export function attempt(action: () => void): void {
  try {
    action();
  } catch {
    // Done already, or not to be done: whoever comes next sees what is there.
  }
}
