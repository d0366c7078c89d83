import { describe, isInstance, propertyOf } from "../thrown.ts";

/**
 * Imports what a worker is to run.
 *
 * @param module The URL of the module; a fragment names the export, `default` without one.
 * @param what What the export must be, in words.
 * @param check Whether it is.
 */
export async function loadExport<T>(module: string, what: string, check: (value: unknown) => value is T): Promise<T> {
  const url = new URL(module);
  const name = url.hash === "" ? "default" : decodeURIComponent(url.hash.slice(1));
  url.hash = "";
  const exported: Record<string, unknown> = await import(url.href).catch((error) => {
    throw loadError(url.href, error);
  });
  const value = exported[name];
  if (!check(value)) throw new TypeError(`${url.href} must export ${what} as ${name}, got ${describe(value)}`);
  return value;
}

/** The error for a module that could not be loaded: it names the module, which not every runtime's own error does. */
function loadError(module: string, cause: unknown): Error {
  // On Bun a module that doesn't compile has several errors, and none has a stack.
  const causes = isInstance(cause, AggregateError) ? cause.errors : [cause];
  const error = new Error(`could not load ${module}: ${causes.map(describe).join("; ")}`, { cause });
  // What becomes of it elsewhere is a name, a message and a stack.
  const stack = propertyOf(cause, "stack");
  if (typeof stack === "string") error.stack = `${error}\ncaused by ${stack}`;
  return error;
}
