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
  const value: unknown = (await import(url.href))[name];
  if (!check(value)) throw new TypeError(`${url.href} must export ${what} as ${name}, got ${String(value)}`);
  return value;
}
