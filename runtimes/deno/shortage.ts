/** The part of Deno's API that is used here. */
interface DenoApi {
  addSignalListener(signal: string, handler: () => void): void;
  removeSignalListener(signal: string, handler: () => void): void;
}

interface ModuleApi {
  stripTypeScriptTypes?(code: string): string;
}

/** Nothing in particular, but with a statement within another: the parser looks for the end of the thread's stack before it nests. */
const NESTED = "if (a) b();";

let prepared = false;

/**
 * Has Deno open what it otherwise opens when a thread first formats a stack of TypeScript, and when the process first listens to a signal: with
 * no descriptor left for that, Deno panics. Takes 5 ms once in each thread, and 20 more where nothing has asked for `process` yet. Does nothing
 * on other runtimes.
 */
export function prepareForShortage(): void {
  const { Deno } = globalThis as unknown as { Deno?: DenoApi };
  if (Deno === undefined || prepared) return;
  prepared = true;
  try {
    // A stack needs the source map. When its file can't be opened, Deno parses the module anew, for which it asks the system (once in each
    // thread, by way of /proc/self/maps) where the stack ends. So it is to parse something now.
    (process.getBuiltinModule("node:module") as unknown as ModuleApi).stripTypeScriptTypes?.(NESTED);
    const ignore = () => {};
    // A signal that is ignored by default, so that it makes no difference that Deno keeps its own handler of it.
    Deno.addSignalListener("SIGURG", ignore);
    Deno.removeSignalListener("SIGURG", ignore);
  } catch {
    // A system without that signal, or a Deno without that function: there is nothing to prepare.
  }
}
